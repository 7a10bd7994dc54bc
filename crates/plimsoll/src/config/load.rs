//! Laying the sources over each other, and saying exactly which one is wrong.

use std::ffi::OsString;
use std::fmt;
use std::io;
use std::path::PathBuf;

use toml::de::{DeTable, DeValue};

use super::Config;
use super::keys::{KEYS, Key};

/// Where the configuration is unless somebody says otherwise.
pub const DEFAULT_FILE: &str = "/etc/plimsoll/plimsoll.toml";

/// What the variables that set keys begin with.
pub const VARIABLE_PREFIX: &str = "PLIMSOLL_";

/// Variables with the prefix that are not keys: those of the command line, and of the scripts that
/// start a server in a checkout.
const OTHER_VARIABLES: &[&str] = &[
    "PLIMSOLL_CONFIG",
    "PLIMSOLL_ENGINE_SOCKET",
    "PLIMSOLL_LOG",
    "PLIMSOLL_RUN_DIR",
    "PLIMSOLL_TOKEN",
    "PLIMSOLL_TOKEN_FILE",
    "PLIMSOLL_URL",
];

/// Where the configuration comes from.
#[derive(Debug)]
pub struct Sources {
    /// The file named by the caller, which must be there.
    pub file: Option<PathBuf>,
    /// The file where nobody named one; it may be missing.
    pub default_file: PathBuf,
    /// The environment.
    pub environment: Vec<(OsString, OsString)>,
    /// Keys set by flags: the flag as it was written, the key's path, the value.
    pub flags: Vec<(String, String, String)>,
}

/// The configuration cannot be used.
#[derive(Debug, thiserror::Error)]
pub enum ConfigError {
    /// The file is not there or not readable.
    #[error("cannot read the configuration {}", path.display())]
    Read {
        /// The file.
        path: PathBuf,
        /// Why.
        source: io::Error,
    },
    /// The file does not say what it should.
    #[error("{}:{line}: {problem}", path.display())]
    File {
        /// The file.
        path: PathBuf,
        /// The line, from 1.
        line: usize,
        /// What is wrong.
        problem: String,
    },
    /// A variable does not hold what it should.
    #[error("the environment variable {variable} {problem}")]
    Variable {
        /// Its name.
        variable: String,
        /// What is wrong.
        problem: String,
    },
    /// A flag does not hold what it should.
    #[error("{flag} {problem}")]
    Flag {
        /// As it was written.
        flag: String,
        /// What is wrong.
        problem: String,
    },
}

/// Something odd that does no harm.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Warning(String);

impl fmt::Display for Warning {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

impl Sources {
    /// This process's environment, with the file that a flag named.
    #[must_use]
    pub fn of_process(file: Option<PathBuf>) -> Self {
        Self {
            file,
            default_file: DEFAULT_FILE.into(),
            environment: std::env::vars_os().collect(),
            flags: Vec::new(),
        }
    }

    /// Reads everything. The first thing that is wrong is the error; nothing is guessed.
    ///
    /// # Errors
    /// [`ConfigError`].
    pub fn load(&self) -> Result<(Config, Vec<Warning>), ConfigError> {
        let mut config = self.read_file()?;
        let mut warnings = Vec::new();
        self.read_environment(&mut config, &mut warnings)?;
        for (flag, path, value) in &self.flags {
            let wrong = |problem| ConfigError::Flag {
                flag: flag.clone(),
                problem,
            };
            let key = Key::named(path).ok_or_else(|| wrong(unknown_key(path)))?;
            (key.set)(&mut config, value)
                .and_then(|()| (key.check)(&config))
                .map_err(wrong)?;
        }
        Ok((config, warnings))
    }

    fn read_file(&self) -> Result<Config, ConfigError> {
        let path = self.file.as_deref().unwrap_or(&self.default_file);
        match std::fs::read_to_string(path) {
            Ok(text) => parse(&text).map_err(|(line, problem)| ConfigError::File {
                path: path.to_owned(),
                line,
                problem,
            }),
            Err(error) if self.file.is_none() && error.kind() == io::ErrorKind::NotFound => {
                Ok(Config::default())
            }
            Err(source) => Err(ConfigError::Read {
                path: path.to_owned(),
                source,
            }),
        }
    }

    fn read_environment(
        &self,
        config: &mut Config,
        warnings: &mut Vec<Warning>,
    ) -> Result<(), ConfigError> {
        // In a fixed order, so that the same environment always gives the same first error.
        let mut given: Vec<_> = self.environment.iter().collect();
        given.sort();
        for (variable, value) in given {
            let Some(variable) = variable.to_str() else {
                continue;
            };
            if !variable.starts_with(VARIABLE_PREFIX) || OTHER_VARIABLES.contains(&variable) {
                continue;
            }
            let Some(key) = KEYS.iter().find(|key| key.variable() == variable) else {
                warnings.push(Warning(unknown_variable(variable)));
                continue;
            };
            let wrong = |problem| ConfigError::Variable {
                variable: variable.to_owned(),
                problem,
            };
            let text = value
                .to_str()
                .ok_or_else(|| wrong("must be UTF-8".to_owned()))?;
            (key.set)(config, text)
                .and_then(|()| (key.check)(config))
                .map_err(wrong)?;
        }
        Ok(())
    }
}

fn unknown_key(path: &str) -> String {
    let hint = Key::nearest(path).map(|near| format!(", did you mean {}?", near.path));
    format!(
        "names {path}, which is not a key{}",
        hint.unwrap_or_default()
    )
}

fn unknown_variable(variable: &str) -> String {
    let near = KEYS
        .iter()
        .map(Key::variable)
        .map(|known| (strsim::damerau_levenshtein(variable, &known), known))
        .filter(|(distance, _)| *distance <= 4)
        .min()
        .map(|(_, known)| format!(", did you mean {known}?"));
    format!(
        "the environment variable {variable} sets nothing{}",
        near.unwrap_or_default()
    )
}

/// A file's text as a configuration, or the line and what is wrong there.
fn parse(text: &str) -> Result<Config, (usize, String)> {
    let at = |error: &toml::de::Error| {
        let start = error.span().map_or(0, |span| span.start);
        (line_of(text, start), first_line(error.message()))
    };
    let table = DeTable::parse(text).map_err(|error| at(&error))?;
    let mut given = Vec::new();
    walk("", table.get_ref(), &mut given);
    given.sort_by_key(|(_, start, _)| *start);
    for (path, start, is_section) in &given {
        let known = if *is_section {
            KEYS.iter()
                .any(|key| key.path.split_once('.').is_some_and(|(s, _)| s == path))
        } else {
            Key::named(path).is_some()
        };
        // A section where a value belongs, and the reverse, is serde's to explain.
        let misplaced = KEYS
            .iter()
            .any(|key| key.path == path || key.path.split('.').next() == Some(path));
        if !known && !misplaced {
            let kind = if *is_section { "section" } else { "key" };
            let hint = nearest(path, *is_section)
                .map_or_else(String::new, |near| format!(", did you mean {near}?"));
            return Err((
                line_of(text, *start),
                format!("unknown {kind} {path}{hint}"),
            ));
        }
    }
    let config: Config = toml::from_str(text).map_err(|error| at(&error))?;
    for key in KEYS {
        if let Err(problem) = (key.check)(&config) {
            let start = given.iter().find(|(path, ..)| path == key.path);
            let line = line_of(text, start.map_or(0, |(_, start, _)| *start));
            return Err((line, format!("{} {problem}", key.path)));
        }
    }
    Ok(config)
}

fn nearest(path: &str, is_section: bool) -> Option<String> {
    if !is_section {
        return Key::nearest(path).map(|key| key.path.to_owned());
    }
    let sections = KEYS.iter().filter_map(|key| key.path.split_once('.'));
    sections
        .map(|(section, _)| (strsim::damerau_levenshtein(path, section), section))
        .filter(|(distance, section)| *distance <= section.len() / 3 + 1)
        .min()
        .map(|(_, section)| format!("[{section}]"))
}

/// Every key and section given, with where it starts.
fn walk(prefix: &str, table: &DeTable<'_>, given: &mut Vec<(String, usize, bool)>) {
    for (name, value) in table {
        let path = if prefix.is_empty() {
            name.get_ref().to_string()
        } else {
            format!("{prefix}.{}", name.get_ref())
        };
        let start = name.span().start;
        if let DeValue::Table(inner) = value.get_ref() {
            given.push((path.clone(), start, true));
            walk(&path, inner, given);
        } else {
            given.push((path, start, false));
        }
    }
}

fn line_of(text: &str, offset: usize) -> usize {
    let before = text.get(..offset).unwrap_or(text);
    before.matches('\n').count() + 1
}

fn first_line(message: &str) -> String {
    message.lines().next().unwrap_or_default().to_owned()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn nothing() -> Sources {
        Sources {
            file: None,
            default_file: "/nonexistent/plimsoll.toml".into(),
            environment: Vec::new(),
            flags: Vec::new(),
        }
    }

    fn file(text: &str) -> tempfile::NamedTempFile {
        let file = tempfile::NamedTempFile::new().unwrap();
        std::fs::write(file.path(), text).unwrap();
        file
    }

    fn variables(pairs: &[(&str, &str)]) -> Vec<(OsString, OsString)> {
        pairs.iter().map(|(k, v)| (k.into(), v.into())).collect()
    }

    #[test]
    fn each_source_beats_the_ones_before_it() {
        let file = file("listen = \"127.0.0.1:1\"\nhost = \"file\"\n[metering]\ninterval_s = 1\n");
        let mut sources = Sources {
            file: Some(file.path().into()),
            ..nothing()
        };
        let (config, _) = sources.load().unwrap();
        assert_eq!(config.listen, "127.0.0.1:1");
        assert_eq!(config.metering.interval_s, 1.0);
        assert_eq!(config.instance, "plimsoll", "not named, so the default");

        sources.environment = variables(&[
            ("PLIMSOLL_LISTEN", "127.0.0.1:2"),
            ("PLIMSOLL_METERING_INTERVAL_S", "2.5"),
            ("PLIMSOLL_GATEWAY", "unix:///a, unix:///b"),
        ]);
        sources.flags = vec![("--listen".into(), "listen".into(), "127.0.0.1:3".into())];
        let (config, warnings) = sources.load().unwrap();
        assert_eq!(config.listen, "127.0.0.1:3");
        assert_eq!(config.metering.interval_s, 2.5);
        assert_eq!(config.gateway, ["unix:///a", "unix:///b"]);
        assert_eq!(config.host, "file");
        assert_eq!(warnings, []);
    }

    #[test]
    fn what_is_wrong_in_a_file_is_told_with_its_line() {
        for (text, says) in [
            ("lisen = 1", "1: unknown key lisen, did you mean listen?"),
            (
                "\n\n[metring]\ninterval_s = 1",
                "3: unknown section metring, did you mean [metering]?",
            ),
            (
                "# x\n[metering]\nintervall_s = 1",
                "3: unknown key metering.intervall_s, did you mean metering.interval_s?",
            ),
            (
                "interval_s = 5",
                "1: unknown key interval_s, did you mean metering.interval_s?",
            ),
            ("colour = 1", "1: unknown key colour"),
            ("listen = \n", "1: "),
            (
                "host = \"a\"\nlisten = 7180",
                "2: invalid type: integer `7180`, expected a string",
            ),
            (
                "metering = 5",
                "1: invalid type: integer `5`, expected struct Metering",
            ),
            ("[listen]\na = 1", "2: unknown key listen.a"),
            (
                "[metering]\n\ninterval_s = nan",
                "3: metering.interval_s must be from 0.1 to 86400 seconds",
            ),
            (
                "[metering]\ninterval_s = -3",
                "2: metering.interval_s must be from 0.1 to 86400 seconds",
            ),
            (
                "[reservations]\napi_ttl_s = -1",
                "2: invalid value: integer `-1`, expected u64",
            ),
            ("host = \"a\"\nhost = \"b\"", "2: duplicate key"),
            ("engine = \"http://h:1\"", "1: engine must be a unix socket"),
        ] {
            let file = file(text);
            let sources = Sources {
                file: Some(file.path().into()),
                ..nothing()
            };
            let error = sources.load().unwrap_err().to_string();
            let shown = format!("{}:{says}", file.path().display());
            assert!(error.starts_with(&shown), "{text:?}: {error}");
        }
    }

    #[test]
    fn a_wrong_variable_or_flag_is_named() {
        let sources = Sources {
            environment: variables(&[("PLIMSOLL_RECONCILE_INTERVAL_S", "often")]),
            ..nothing()
        };
        assert_eq!(
            sources.load().unwrap_err().to_string(),
            "the environment variable PLIMSOLL_RECONCILE_INTERVAL_S must be a number"
        );
        let flag = |path: &str, value: &str| Sources {
            flags: vec![("--set".into(), path.into(), value.into())],
            ..nothing()
        };
        assert_eq!(
            flag("metering.interval", "1")
                .load()
                .unwrap_err()
                .to_string(),
            "--set names metering.interval, which is not a key, did you mean metering.interval_s?"
        );
        assert_eq!(
            flag("reservations.api_ttl_s", "0")
                .load()
                .unwrap_err()
                .to_string(),
            "--set must be from 1 to 604800 seconds"
        );
    }

    #[test]
    fn unknown_variables_only_warn_and_those_of_other_parts_do_not() {
        let sources = Sources {
            environment: variables(&[
                ("HOME", "/root"),
                ("PLIMSOLL_ENGINE_SOCKET", "/x"),
                ("PLIMSOLL_LISTN", "127.0.0.1:1"),
                ("PLIMSOLL_RUN_DIR", "/x"),
                ("PLIMSOLL_TOKEN", "plm_x"),
            ]),
            ..nothing()
        };
        let (config, warnings) = sources.load().unwrap();
        assert_eq!(config.listen, Config::default().listen);
        let texts: Vec<String> = warnings.iter().map(ToString::to_string).collect();
        assert_eq!(
            texts,
            ["the environment variable PLIMSOLL_LISTN sets nothing, did you mean PLIMSOLL_LISTEN?"]
        );
    }

    #[test]
    fn a_file_that_was_named_must_be_there() {
        let dir = tempfile::tempdir().unwrap();
        let sources = Sources {
            file: Some(dir.path().join("none.toml")),
            ..nothing()
        };
        assert!(matches!(sources.load(), Err(ConfigError::Read { .. })));
    }

    #[test]
    fn the_shipped_file_is_the_defaults_and_names_every_key() {
        let text = include_str!("../../../../deploy/plimsoll.toml");
        let config = parse(text).unwrap();
        assert_eq!(format!("{config:?}"), format!("{:?}", Config::default()));
        let uncommented: String = text
            .lines()
            .map(|line| match line.strip_prefix('#') {
                // Prose has a space behind the sign, a key that is off has none.
                Some(off) if !off.starts_with(' ') => format!("{off}\n"),
                _ => format!("{line}\n"),
            })
            .collect();
        parse(&uncommented).unwrap();
        let table = DeTable::parse(&uncommented).unwrap();
        let mut given = Vec::new();
        walk("", table.get_ref(), &mut given);
        for key in KEYS {
            assert!(
                given.iter().any(|(path, ..)| path == key.path),
                "{} is missing",
                key.path
            );
        }
    }

    #[test]
    fn the_documentation_names_every_key_and_variable() {
        let text = include_str!("../../../../docs/configuration.md");
        for key in KEYS {
            assert!(text.contains(&format!("`{}`", key.path)), "{}", key.path);
            assert!(text.contains(&key.variable()), "{}", key.variable());
        }
    }
}
