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

/// Whether `path` lies below `top`, both without doubled slashes and dots.
pub(crate) fn is_below(path: &str, top: &str) -> bool {
    path.strip_prefix(top)
        .is_some_and(|rest| rest.starts_with('/'))
}

/// Whether a directory may be entered by root on a tenant's behalf, which is what the runtime does with
/// a working directory before it becomes the tenant: it passes closed folders on the way, follows links
/// and makes what is not there. Only the root, and what is mounted in no other mount, is known not to
/// lead into somebody else's folder.
pub(crate) fn safe_to_enter(dir: &str, mounted_at: &[&str]) -> bool {
    let dir = dir.trim_end_matches('/');
    dir.is_empty()
        || (mounted_at.contains(&dir) && !mounted_at.iter().any(|top| is_below(dir, top)))
}

/// The refusal of a working directory that root would enter for a tenant.
pub(crate) fn not_to_enter(field: String, dir: &str) -> Refusal {
    Refusal::policy(
        field,
        format!("--workdir {}", super::json::short(dir)),
        "it is entered before your rights hold, and other people's folders may be on the way",
        "use / or the very path something is mounted at, and change directory from there",
    )
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
