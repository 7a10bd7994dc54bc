//! Dockerfiles of tenants: read line by line as the classic builder reads them, and written anew.
//!
//! The builder looks `FROM` and `COPY --from` up among everybody's images, and asks a registry for what
//! it lacks; `ADD` fetches URLs from the host's own network. So every name of an image is replaced by
//! the id it means to the tenant, and `ADD` takes plain paths only. What is written has one instruction
//! a line and no continuations, so that no line can be hidden in another one, whatever the engine makes
//! of the tenant's own layout.

use std::collections::BTreeMap;
use std::fmt::Write as _;

use super::json::{Json, decode, fold, short};

/// The largest Dockerfile.
pub const DOCKERFILE_MAX: usize = 1 << 20;

/// Spaces within a line, as the builder splits it.
const SPACES: [char; 5] = ['\t', '\u{b}', '\u{c}', '\r', ' '];

/// What an instruction may begin with.
const INSTRUCTIONS: [&str; 18] = [
    "ADD",
    "ARG",
    "CMD",
    "COPY",
    "ENTRYPOINT",
    "ENV",
    "EXPOSE",
    "FROM",
    "HEALTHCHECK",
    "LABEL",
    "MAINTAINER",
    "ONBUILD",
    "RUN",
    "SHELL",
    "STOPSIGNAL",
    "USER",
    "VOLUME",
    "WORKDIR",
];

/// Those that change what an image says without running anything.
const CHANGES: [&str; 10] = [
    "CMD",
    "ENTRYPOINT",
    "ENV",
    "EXPOSE",
    "HEALTHCHECK",
    "LABEL",
    "ONBUILD",
    "USER",
    "VOLUME",
    "WORKDIR",
];

/// Why a Dockerfile is not built, in words for whoever wrote it.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{0}")]
pub struct Unacceptable(pub String);

fn no<T>(reason: impl Into<String>) -> Result<T, Unacceptable> {
    Err(Unacceptable(reason.into()))
}

/// One instruction with everything behind it on one line.
#[derive(Debug, Clone, PartialEq, Eq)]
struct Instruction {
    keyword: &'static str,
    rest: String,
}

/// Rewrites a Dockerfile: each image's name becomes what `resolve` makes of it.
///
/// # Errors
/// [`Unacceptable`] for what the builder would not take, what would reach past the tenant's images, and
/// what `resolve` does not find.
pub fn rewrite(
    text: &str,
    arguments: &BTreeMap<String, String>,
    resolve: &mut dyn FnMut(&str) -> Result<String, String>,
) -> Result<String, Unacceptable> {
    let (escape, lines) = instructions(text)?;
    let mut out = format!("# escape={escape}\n");
    let mut stages: Vec<Option<String>> = Vec::new();
    let mut before_from: BTreeMap<String, String> = BTreeMap::new();
    for line in lines {
        let rest = match line.keyword {
            "FROM" => {
                let (image, alias) = from(&line.rest)?;
                let image = expand(&image, &before_from)?;
                let image = match stage(&stages, &image) {
                    Some(name) => name,
                    None if image == "scratch" => image,
                    None => resolve(&image).map_err(Unacceptable)?,
                };
                stages.push(alias.clone());
                match alias {
                    Some(alias) => format!("{image} AS {alias}"),
                    None => image,
                }
            }
            "ARG" if stages.is_empty() => {
                declare(&line.rest, arguments, &mut before_from)?;
                line.rest
            }
            other if stages.is_empty() => {
                return no(format!("{other} comes before the first FROM"));
            }
            "COPY" => copy(&line.rest, &stages, resolve)?,
            "ADD" => {
                add(&line.rest)?;
                line.rest
            }
            "ONBUILD" => {
                trigger(&line.rest)?;
                line.rest
            }
            _ => line.rest,
        };
        if rest.trim_end().ends_with(escape) {
            return no(format!(
                "{} ends with the escape character {escape}",
                line.keyword
            ));
        }
        let _ = writeln!(out, "{} {rest}", line.keyword);
    }
    if stages.is_empty() {
        return no("the Dockerfile has no FROM");
    }
    Ok(out)
}

/// Checks what a base image runs in whatever is built from it.
///
/// # Errors
/// [`Unacceptable`] for a trigger that would reach past the tenant's images.
pub fn check_triggers(triggers: &[String]) -> Result<(), Unacceptable> {
    triggers.iter().try_for_each(|text| trigger(text))
}

/// Rewrites the changes of a commit or an import.
///
/// # Errors
/// [`Unacceptable`] for an instruction that does not belong there.
pub fn changes(lines: &[String]) -> Result<Vec<String>, Unacceptable> {
    let (escape, lines) = instructions(&lines.join("\n"))?;
    let mut out = Vec::new();
    for line in lines {
        if escape != '\\' || line.rest.trim_end().ends_with(escape) {
            return no("a change must not play with the escape character");
        }
        match line.keyword {
            "ONBUILD" => trigger(&line.rest)?,
            // Cosmetic: such a label is blanked wherever a container is made of the image.
            "LABEL" if fold(&line.rest).contains("plimsoll.") => {
                return no("labels under plimsoll. are reserved");
            }
            keyword if !CHANGES.contains(&keyword) => {
                return no(format!("{keyword} is not a valid change command"));
            }
            _ => {}
        }
        out.push(format!("{} {}", line.keyword, line.rest));
    }
    Ok(out)
}

/// Takes a Dockerfile apart. Comments and directives go; the escape character is kept.
fn instructions(text: &str) -> Result<(char, Vec<Instruction>), Unacceptable> {
    if text.len() > DOCKERFILE_MAX {
        return no(format!(
            "the Dockerfile is larger than {DOCKERFILE_MAX} bytes"
        ));
    }
    let text = text.strip_prefix('\u{feff}').unwrap_or(text);
    let mut lines = text
        .split('\n')
        .map(|l| l.strip_suffix('\r').unwrap_or(l))
        .peekable();
    let mut escape = '\\';
    while let Some((key, value)) = lines.peek().and_then(|line| directive(line)) {
        if key == "escape" {
            escape = match value {
                "\\" => '\\',
                "`" => '`',
                other => return no(format!("invalid ESCAPE '{}'", short(other))),
            };
        }
        lines.next();
    }
    let mut found = Vec::new();
    while let Some(first) = lines.next() {
        let first = first.trim_start();
        if first.is_empty() || first.starts_with('#') {
            continue;
        }
        let (mut line, mut over) = continued(first, escape);
        while !over {
            let Some(next) = lines.next() else { break };
            let shown = next.trim_start();
            if shown.is_empty() || shown.starts_with('#') {
                continue;
            }
            let (more, ends) = continued(next, escape);
            line.push_str(&more);
            over = ends;
        }
        let line = line.trim();
        if line.is_empty() {
            continue;
        }
        found.push(instruction(line)?);
    }
    Ok((escape, found))
}

fn directive(line: &str) -> Option<(String, &str)> {
    let (key, value) = line.strip_prefix('#')?.split_once('=')?;
    let key = key.trim();
    let named = key.starts_with(|c: char| c.is_ascii_alphabetic())
        && key.bytes().all(|b| b.is_ascii_alphanumeric());
    (named && !value.trim().is_empty()).then(|| (key.to_ascii_lowercase(), value.trim()))
}

/// A line without its continuation, and whether the instruction ends with it.
fn continued(line: &str, escape: char) -> (String, bool) {
    match line.trim_end_matches([' ', '\t']).strip_suffix(escape) {
        Some(open) => (open.to_owned(), false),
        None => (line.to_owned(), true),
    }
}

fn instruction(line: &str) -> Result<Instruction, Unacceptable> {
    let (word, rest) = line.split_once(SPACES).unwrap_or((line, ""));
    let keyword = INSTRUCTIONS.iter().find(|k| k.eq_ignore_ascii_case(word));
    match keyword {
        // A line break of another kind must not become one to the engine.
        Some(_) if rest.contains(['\0', '\n']) => no("a Dockerfile holds text only"),
        Some(keyword) => Ok(Instruction {
            keyword,
            rest: rest.trim().to_owned(),
        }),
        None => no(format!("unknown instruction: {}", short(word))),
    }
}

/// The flags in front of an instruction's words, and the words. Unlike an instruction's name they end at
/// any space that Unicode knows.
fn flags(mut rest: &str) -> Result<(Vec<&str>, &str), Unacceptable> {
    let mut flags = Vec::new();
    while rest.starts_with("--") {
        let (flag, after) = rest.split_once(char::is_whitespace).unwrap_or((rest, ""));
        if flag.contains(['"', '\'', '\\', '`']) {
            return no(format!("{} must be written without quotes", short(flag)));
        }
        flags.push(flag);
        rest = after.trim_start();
        if flag == "--" {
            break;
        }
    }
    Ok((flags, rest))
}

/// The image of a `FROM` and the name of its stage. The platform is the host's, whatever is asked: with
/// another one the builder would look for the id at a registry.
fn from(rest: &str) -> Result<(String, Option<String>), Unacceptable> {
    let (flags, rest) = flags(rest)?;
    if let Some(flag) = flags.iter().find(|f| !f.starts_with("--platform=")) {
        return no(format!("FROM has no flag {}", short(flag)));
    }
    let words: Vec<&str> = rest.split_whitespace().collect();
    match words.as_slice() {
        [image] => Ok(((*image).to_owned(), None)),
        [image, as_word, alias] if as_word.eq_ignore_ascii_case("as") => {
            let alias = alias.to_ascii_lowercase();
            let known = |b: u8| b.is_ascii_alphanumeric() || b"-_.".contains(&b);
            if !alias.starts_with(|c: char| c.is_ascii_lowercase()) || !alias.bytes().all(known) {
                return no(format!("{} cannot name a build stage", short(&alias)));
            }
            Ok(((*image).to_owned(), Some(alias)))
        }
        _ => no("FROM requires either one or three arguments"),
    }
}

/// The stage that a name means.
fn stage(stages: &[Option<String>], name: &str) -> Option<String> {
    let wanted = name.to_ascii_lowercase();
    stages.iter().flatten().find(|s| **s == wanted).cloned()
}

fn copy(
    rest: &str,
    stages: &[Option<String>],
    resolve: &mut dyn FnMut(&str) -> Result<String, String>,
) -> Result<String, Unacceptable> {
    let (flags, rest) = flags(rest)?;
    let earlier = &stages[..stages.len() - 1];
    let mut out = String::new();
    for flag in flags {
        let Some(source) = flag.strip_prefix("--from=") else {
            let _ = write!(out, "{flag} ");
            continue;
        };
        let source = if source.bytes().all(|b| b.is_ascii_digit()) {
            match source.parse::<usize>() {
                Ok(index) if index < earlier.len() => index.to_string(),
                _ => {
                    return no(format!(
                        "COPY --from={}: there is no such stage before it",
                        short(source)
                    ));
                }
            }
        } else if source.contains('$') {
            return no("COPY --from takes no variables");
        } else {
            match stage(earlier, source) {
                Some(name) => name,
                None => resolve(source).map_err(Unacceptable)?,
            }
        };
        let _ = write!(out, "--from={source} ");
    }
    Ok(format!("{out}{rest}"))
}

/// `ADD` of plain paths. What could become a URL by quotes, escapes or variables is refused with them.
fn add(rest: &str) -> Result<(), Unacceptable> {
    let (_, rest) = flags(rest)?;
    let words: Vec<String> = match decode(rest.as_bytes()) {
        Ok(Json::Array(items)) => items
            .into_iter()
            .map(|item| match item {
                Json::Str(text) => Ok(text),
                _ => no("ADD takes texts"),
            })
            .collect::<Result<_, _>>()?,
        _ => rest.split_whitespace().map(str::to_owned).collect(),
    };
    for word in words {
        let plain = |b: u8| b.is_ascii_alphanumeric() || b"._/*?@+=,:~%-".contains(&b) || b >= 0x80;
        if !word.bytes().all(plain) {
            return no(format!(
                "ADD {}: variables, quotes and escapes are not open to ADD here; use COPY",
                short(&word)
            ));
        }
        if word.contains("//") || word.starts_with("git@") {
            return no(format!(
                "ADD {}: the host fetches nothing for a build; fetch it with RUN, or COPY it",
                short(&word)
            ));
        }
    }
    Ok(())
}

/// What runs in later builds. It is judged now, since then nobody reads it again but for this.
fn trigger(text: &str) -> Result<(), Unacceptable> {
    if text.contains(['\n', '\r']) || text.trim_end().ends_with(['\\', '`']) {
        return no("ONBUILD takes one line");
    }
    let inner = instruction(text.trim())?;
    match inner.keyword {
        "ADD" => add(&inner.rest),
        "COPY" => {
            let (flags, _) = flags(&inner.rest)?;
            if flags.iter().any(|f| f.starts_with("--from")) {
                return no(
                    "ONBUILD COPY --from is not open here: copy from an image in the Dockerfile itself",
                );
            }
            Ok(())
        }
        "FROM" | "ONBUILD" | "MAINTAINER" => no(format!("ONBUILD {} isn't allowed", inner.keyword)),
        _ => Ok(()),
    }
}

/// `ARG` in front of the first `FROM`.
fn declare(
    rest: &str,
    given: &BTreeMap<String, String>,
    known: &mut BTreeMap<String, String>,
) -> Result<(), Unacceptable> {
    for word in rest.split(SPACES).filter(|w| !w.is_empty()) {
        let (name, default) = match word.split_once('=') {
            Some((name, value)) => (name, Some(value)),
            None => (word, None),
        };
        if let Some(value) = given.get(name) {
            known.insert(name.to_owned(), value.clone());
        } else if let Some(value) = default {
            let bare = ['"', '\'']
                .iter()
                .find_map(|q| value.strip_prefix(*q)?.strip_suffix(*q));
            // One with spaces in quotes cannot be an image's name, and is of no use here.
            if let Ok(value) = expand(bare.unwrap_or(value), known) {
                known.insert(name.to_owned(), value);
            }
        }
    }
    Ok(())
}

/// Replaces `$name`, `${name}`, `${name:-default}` and `${name:+other}`.
fn expand(text: &str, known: &BTreeMap<String, String>) -> Result<String, Unacceptable> {
    if text.contains(['"', '\'', '\\', '`']) {
        return no(format!(
            "{}: an image's name has no quotes or escapes",
            short(text)
        ));
    }
    let mut out = String::new();
    let mut rest = text;
    while let Some((before, after)) = rest.split_once('$') {
        out.push_str(before);
        let get = |name: &str| known.get(name).filter(|v| !v.is_empty());
        if let Some(inner) = after.strip_prefix('{') {
            let Some((inner, after)) = inner.split_once('}') else {
                return no(format!("{}: a brace is not closed", short(text)));
            };
            let (name, default, other) = match (inner.split_once(":-"), inner.split_once(":+")) {
                (Some((name, default)), _) => (name, default, None),
                (None, Some((name, other))) => (name, "", Some(other)),
                (None, None) => (inner, "", None),
            };
            if !is_name(name) || default.contains('$') || other.is_some_and(|o| o.contains('$')) {
                return no(format!(
                    "{}: this form of a variable is not understood here",
                    short(text)
                ));
            }
            out.push_str(match (get(name), other) {
                (Some(_), Some(other)) => other,
                (Some(value), None) => value,
                (None, _) => default,
            });
            rest = after;
        } else {
            let end = after
                .find(|c: char| !c.is_ascii_alphanumeric() && c != '_')
                .unwrap_or(after.len());
            let (name, after) = after.split_at(end);
            if !is_name(name) {
                return no(format!(
                    "{}: this form of a variable is not understood here",
                    short(text)
                ));
            }
            out.push_str(get(name).map_or("", String::as_str));
            rest = after;
        }
    }
    out.push_str(rest);
    if out.is_empty() {
        return no(format!("base name ({}) should not be blank", short(text)));
    }
    Ok(out)
}

fn is_name(text: &str) -> bool {
    text.starts_with(|c: char| c.is_ascii_alphabetic() || c == '_')
        && text.bytes().all(|b| b.is_ascii_alphanumeric() || b == b'_')
}

#[cfg(test)]
mod tests {
    use super::*;

    fn rewritten(text: &str) -> Result<String, String> {
        let given = BTreeMap::from([("TAG".to_owned(), "7".to_owned())]);
        let mut resolve = |name: &str| match name {
            "secret" => Err("No such image: secret".to_owned()),
            name => Ok(format!("<{name}>")),
        };
        rewrite(text, &given, &mut resolve).map_err(|e| e.0)
    }

    #[test]
    fn every_image_becomes_its_id() {
        for (text, lines) in [
            ("FROM busybox\nRUN true\n", "FROM <busybox>\nRUN true\n"),
            (
                "from busybox As B\r\nFROM b\n",
                "FROM <busybox> AS b\nFROM b\n",
            ),
            ("ARG TAG=1\nFROM x:${TAG}\n", "ARG TAG=1\nFROM <x:7>\n"),
            (
                "ARG V=\"2\"\nARG W=a$V\nFROM $W:${X:-y}\n",
                "ARG V=\"2\"\nARG W=a$V\nFROM <a2:y>\n",
            ),
            (
                "FROM --platform=$P x AS a\nFROM scratch\nCOPY --from=A --chown=1 /b /c\nCOPY --from=0 a b\n",
                "FROM <x> AS a\nFROM scratch\nCOPY --from=a --chown=1 /b /c\nCOPY --from=0 a b\n",
            ),
            (
                "FROM x\nCOPY --from=y:1 /a /b\n",
                "FROM <x>\nCOPY --from=<y:1> /a /b\n",
            ),
            (
                "# syntax=x\n# comment\nFROM x\nRUN a && \\\n  # hidden\n\n   b\n",
                "FROM <x>\nRUN a &&    b\n",
            ),
            ("# Escape=`\nFROM x\nRUN a `\nb\n", "FROM <x>\nRUN a b\n"),
            // One line here is one line there.
            (
                "FROM x\nRUN a \\\\\nFROM secret\n",
                "FROM <x>\nRUN a \\FROM secret\n",
            ),
            ("FROM x\nADD a.tar.gz [b] /\n", ""),
            ("FROM x\nADD [\"a b\", \"/\"]\n", ""),
            (
                "FROM x\nADD --chown=1 a.tar.gz /\n",
                "FROM <x>\nADD --chown=1 a.tar.gz /\n",
            ),
            ("FROM x\nONBUILD RUN make\n", "FROM <x>\nONBUILD RUN make\n"),
        ] {
            match rewritten(text) {
                Ok(out) => assert_eq!(out.split_once('\n').unwrap().1, lines, "{text}"),
                Err(why) => assert!(lines.is_empty(), "{text}: {why}"),
            }
        }
    }

    #[test]
    fn what_would_reach_past_the_tenant_is_refused() {
        for text in [
            "",
            "RUN true\n",
            "FROM secret\n",
            "FROM x\nCOPY --from=secret /a /b\n",
            "FROM x\nCOPY --from=0 /a /b\n",
            "FROM x\nCOPY --from=$S /a /b\n",
            "FROM x\nCOPY --fr\"om=secret\" /a /b\n",
            "FROM x\nCOPY --chown=1 \u{a0}--from=secret /a /b\n",
            "FROM x\nCOPY \u{a0}--chown=1\u{2003}--from=secret /a /b\n",
            "FROM x\nCOPY\u{a0}--from=secret /a /b\n",
            "FROM x\nCOPY --from=sec\\ret /a /b\n",
            "FROM sec\\\nret\n",
            "# escape=`\nFROM x\nRUN a \\\nFROM secret\n",
            "# escape=x\nFROM x\n",
            "FROM x\nADD http://127.0.0.1/ /\n",
            "FROM x\nADD HTTP://127.0.0.1/ /\n",
            "FROM x\nADD [\"http\\u003a//h/\", \"/\"]\n",
            "FROM x\nADD $URL /\n",
            "FROM x\nADD ht\"tp\"://h/ /\n",
            "FROM x\nADD git@h:x /\n",
            "FROM x\nONBUILD ADD http://h/ /\n",
            "FROM x\nONBUILD COPY --from=y a b\n",
            "FROM x\nONBUILD FROM secret\n",
            "FROM x\nINCLUDE y\n",
            "FROM a b\n",
            "FROM \"secret\"\n",
            "FROM x AS 0\n",
        ] {
            assert!(rewritten(text).is_err(), "{text:?}: {:?}", rewritten(text));
        }
    }

    #[test]
    fn changes_are_those_of_an_image_alone() {
        let all =
            |lines: &[&str]| changes(&lines.iter().map(|l| (*l).to_owned()).collect::<Vec<_>>());
        assert_eq!(
            all(&["cmd [\"a\"]\nENV a=b", "USER x"]).unwrap(),
            ["CMD [\"a\"]", "ENV a=b", "USER x"]
        );
        for bad in [
            "RUN x",
            "FROM x",
            "COPY a b",
            "LABEL Plimsoll.user=x",
            "ONBUILD ADD http://x /",
            "x",
        ] {
            assert!(all(&[bad]).is_err(), "{bad}");
        }
        assert!(check_triggers(&["RUN a\nFROM secret".to_owned()]).is_err());
        assert!(check_triggers(&["RUN a".to_owned()]).is_ok());
    }
}
