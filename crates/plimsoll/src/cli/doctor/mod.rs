//! `plimsoll doctor`: what this host supports, what is missing, and who walks past Plimsoll.
//!
//! Each check says what it found and, where that is not right, the fix in a sentence. Nothing is
//! changed. Files are read below a root, so that images and tests can be looked at like a host.

mod access;
mod accounts;
mod data;
pub(super) mod dockerd;
mod engine;
mod kernel;
mod networks;

use std::fmt::Write as _;
use std::path::{Path, PathBuf};

use serde_json::{Value, json};

use super::answer::Answer;
use super::args::{DoctorFlags, Global};
use super::error::{CliError, Exit};
use super::text::{printable, wrapped};
use crate::config::Sources;

/// How bad it is.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
enum Status {
    /// As it should be.
    Good,
    /// It works, but somebody should know.
    Warn,
    /// It does not work, or quotas do not hold.
    Fail,
}

impl Status {
    const fn word(self) -> &'static str {
        match self {
            Self::Good => "ok",
            Self::Warn => "warn",
            Self::Fail => "fail",
        }
    }
}

/// One thing that was looked at.
#[derive(Debug, Clone, PartialEq, Eq)]
struct Check {
    name: &'static str,
    status: Status,
    /// What was found.
    found: String,
    /// What to do, where it is not as it should be.
    fix: Option<String>,
}

impl Check {
    fn good(name: &'static str, found: impl Into<String>) -> Self {
        Self {
            name,
            status: Status::Good,
            found: found.into(),
            fix: None,
        }
    }

    fn warn(name: &'static str, found: impl Into<String>, fix: impl Into<String>) -> Self {
        Self {
            name,
            status: Status::Warn,
            found: found.into(),
            fix: Some(fix.into()),
        }
    }

    fn fail(name: &'static str, found: impl Into<String>, fix: impl Into<String>) -> Self {
        Self {
            status: Status::Fail,
            ..Self::warn(name, found, fix)
        }
    }
}

/// Where a path of the host is from here.
fn at(root: &Path, path: impl AsRef<Path>) -> PathBuf {
    let path = path.as_ref();
    root.join(path.strip_prefix("/").unwrap_or(path))
}

/// Names as a sentence has them: `ada, ben and 3 more`.
fn named(names: &[String]) -> String {
    const SHOWN: usize = 5;
    match names {
        [] => "nobody".to_owned(),
        [one] => one.clone(),
        names if names.len() > SHOWN => {
            format!(
                "{} and {} more",
                names[..SHOWN].join(", "),
                names.len() - SHOWN
            )
        }
        [first @ .., last] => format!("{} and {last}", first.join(", ")),
    }
}

pub(super) async fn run(global: &Global, flags: &DoctorFlags) -> Result<Answer, CliError> {
    let root = &flags.root;
    let mut sources = Sources::of_process(global.config.clone());
    sources.default_file = at(root, &sources.default_file);
    let mut sections: Vec<(&str, Vec<Check>)> = Vec::new();
    let config = match sources.load() {
        Ok((config, warnings)) => {
            let checks = warnings
                .iter()
                .map(|w| Check::warn("environment", w.to_string(), "unset it, or write it right"));
            sections.push(("configuration", checks.collect()));
            config
        }
        Err(error) => {
            let found = crate::tasks::in_full(&error);
            let fix = "mend it; the other checks below are of the default configuration";
            sections.push((
                "configuration",
                vec![Check::fail("configuration", found, fix)],
            ));
            crate::config::Config::default()
        }
    };
    let (engine, info) = engine::check(&config, root).await;
    sections.push(("engine", engine));
    sections.push(("kernel", kernel::check(&config, root, info.as_ref())));
    sections.push(("networks", networks::check(&config, root)));
    sections.push(("data", data::check(&config, root, info.as_ref()).await));
    sections.push(("who walks past Plimsoll", access::check(&config, root)));
    sections.retain(|(_, checks)| !checks.is_empty());
    Ok(answer(&sections))
}

fn answer(sections: &[(&str, Vec<Check>)]) -> Answer {
    let all = || sections.iter().flat_map(|(_, checks)| checks);
    let count = |status: Status| all().filter(|check| check.status == status).count();
    let (failed, warned) = (count(Status::Fail), count(Status::Warn));
    let checks: Vec<Value> = sections
        .iter()
        .flat_map(|(section, checks)| checks.iter().map(move |check| (section, check)))
        .map(|(section, check)| {
            json!({"section": section, "name": check.name, "status": check.status.word(),
                   "found": check.found, "fix": check.fix})
        })
        .collect();
    let mut answer = Answer::new(
        json!({"ok": failed == 0, "failed": failed, "warned": warned, "checks": checks}),
        page(sections, failed, warned),
    );
    if failed > 0 {
        answer.exit = Exit::Failure;
    }
    answer
}

fn page(sections: &[(&str, Vec<Check>)], failed: usize, warned: usize) -> String {
    const NAME: usize = 16;
    const INDENT: usize = 2 + 6 + NAME + 1;
    let mut page = String::new();
    for (section, checks) in sections {
        let _ = writeln!(page, "{section}");
        for check in checks {
            let mut lines = wrapped(&printable(&check.found), 80 - INDENT).into_iter();
            let first = lines.next().unwrap_or_default();
            let word = check.status.word();
            let _ = writeln!(page, "  {word:<6}{:<NAME$} {first}", check.name);
            let fix = check
                .fix
                .iter()
                .map(|fix| format!("fix: {}", printable(fix)));
            for line in lines.chain(fix.flat_map(|fix| wrapped(&fix, 80 - INDENT))) {
                let _ = writeln!(page, "{:INDENT$}{line}", "");
            }
        }
        page.push('\n');
    }
    let things = |n: usize, word: &str| format!("{n} {word}{}", if n == 1 { "" } else { "s" });
    let _ = writeln!(
        page,
        "{}, {}",
        things(failed, "failure"),
        things(warned, "warning")
    );
    page
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_page_names_each_finding_with_its_fix_in_80_columns() {
        let long = "a sentence that is so long that it does not fit on one line of eighty columns";
        let checks = vec![
            Check::good("engine", "20.10"),
            Check::fail("socket", long, "chmod 660 it\u{1b}"),
        ];
        let answer = answer(&[("engine", checks)]);
        assert_eq!(
            answer.text,
            "engine\n\
             \x20 ok    engine           20.10\n\
             \x20 fail  socket           a sentence that is so long that it does not fit on one\n\
             \x20                        line of eighty columns\n\
             \x20                        fix: chmod 660 it\\u{1b}\n\
             \n\
             1 failure, 0 warnings\n"
        );
        assert_eq!(answer.exit, Exit::Failure);
        assert_eq!(answer.json["checks"][1]["status"], "fail");
    }

    #[test]
    fn many_names_are_counted() {
        let names = |n: usize| (0..n).map(|i| format!("u{i}")).collect::<Vec<_>>();
        for (n, text) in [
            (0, "nobody"),
            (1, "u0"),
            (3, "u0, u1 and u2"),
            (7, "u0, u1, u2, u3, u4 and 2 more"),
        ] {
            assert_eq!(named(&names(n)), text);
        }
    }
}
