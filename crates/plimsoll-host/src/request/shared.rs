//! Fields that create and exec share.

use super::json::{Fields, Json};
use super::refusal::Refusal;

/// A text of printable ASCII, for names the kernel or the engine puts into files.
pub(crate) fn plain(
    fields: &mut Fields,
    name: &'static str,
    max: usize,
) -> Result<String, Refusal> {
    let text = fields.str(name)?.unwrap_or_default();
    if text.len() > max || !text.bytes().all(|b| b.is_ascii_graphic()) {
        return Err(Refusal::bad(
            fields.name(name),
            format!("must be at most {max} printable characters without spaces"),
        ));
    }
    Ok(text)
}

pub(crate) fn working_dir(fields: &mut Fields) -> Result<String, Refusal> {
    let path = fields.str("WorkingDir")?.unwrap_or_default();
    if path.is_empty() || (path.starts_with('/') && !path.chars().any(char::is_control)) {
        return Ok(path);
    }
    Err(Refusal::bad(
        fields.name("WorkingDir"),
        "must be an absolute path",
    ))
}

/// A terminal's height and width; zero by zero is "not asked".
pub(crate) fn console(name: &str, size: Option<&[Json]>) -> Result<Option<[u64; 2]>, Refusal> {
    match size {
        None | Some([] | [Json::Int(0), Json::Int(0)]) => Ok(None),
        Some([Json::Int(height @ 0..=65535), Json::Int(width @ 0..=65535)]) => {
            Ok(Some([height.unsigned_abs(), width.unsigned_abs()]))
        }
        Some(_) => Err(Refusal::bad(name, "must be a height and a width")),
    }
}
