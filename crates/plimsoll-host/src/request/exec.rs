//! Exec create and exec start.
//!
//! An exec runs inside the container's cgroup and namespaces, so its quota is the container's. Only
//! `Privileged` would step out of it.

use serde_json::{Map, Value, json};

use super::json::{Fields, decode_object};
use super::refusal::Refusal;
use super::shared::{console, plain, working_dir};

/// `POST /containers/{id}/exec`, decoded.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct ExecRequest {
    /// A client will send input.
    pub attach_stdin: bool,
    /// A client will read standard output.
    pub attach_stdout: bool,
    /// A client will read standard error.
    pub attach_stderr: bool,
    /// Run under a terminal.
    pub tty: bool,
    /// The program and its arguments; never empty.
    pub cmd: Vec<String>,
    detach_keys: String,
    env: Vec<String>,
    working_dir: String,
    user: String,
    console_size: Option<[u64; 2]>,
    /// For the answer's log: fields that were left out.
    pub warnings: Vec<String>,
}

impl ExecRequest {
    /// Decodes a body.
    ///
    /// # Errors
    /// [`Refusal`] for what is malformed, unknown, or privileged.
    pub fn parse(body: &[u8]) -> Result<Self, Refusal> {
        let mut fields = decode_object(body)?;
        let mut warnings = Vec::new();
        if fields.bool("Privileged")?.unwrap_or(false) {
            return Err(Refusal::policy(
                "Privileged",
                "--privileged",
                "it gives the program the host's devices and rights",
                "leave the option out",
            ));
        }
        // The container is the one in the path, and detaching is decided at start.
        fields.str("Container")?;
        fields.bool("Detach")?;
        let cmd = fields.strings_or_one("Cmd")?.unwrap_or_default();
        if cmd.is_empty() {
            return Err(Refusal::bad("Cmd", "must name a program"));
        }
        let request = Self {
            attach_stdin: fields.bool("AttachStdin")?.unwrap_or(false),
            attach_stdout: fields.bool("AttachStdout")?.unwrap_or(false),
            attach_stderr: fields.bool("AttachStderr")?.unwrap_or(false),
            tty: fields.bool("Tty")?.unwrap_or(false),
            cmd,
            detach_keys: plain(&mut fields, "DetachKeys", 128)?,
            env: fields.strings("Env")?.unwrap_or_default(),
            working_dir: working_dir(&mut fields)?,
            user: plain(&mut fields, "User", 256)?,
            console_size: console_size(&mut fields)?,
            warnings: Vec::new(),
        };
        fields.finish(&[], &mut warnings)?;
        Ok(Self {
            warnings,
            ..request
        })
    }

    /// The body for the engine.
    #[must_use]
    pub fn body(&self) -> Value {
        let mut body = json!({
            "AttachStdin": self.attach_stdin,
            "AttachStdout": self.attach_stdout,
            "AttachStderr": self.attach_stderr,
            "Tty": self.tty,
            "Privileged": false,
            "Cmd": self.cmd,
        });
        let map = body.as_object_mut().expect("written as an object above");
        for (name, text) in [
            ("DetachKeys", &self.detach_keys),
            ("WorkingDir", &self.working_dir),
            ("User", &self.user),
        ] {
            if !text.is_empty() {
                map.insert(name.to_owned(), json!(text));
            }
        }
        if !self.env.is_empty() {
            map.insert("Env".to_owned(), json!(self.env));
        }
        insert_console(map, self.console_size);
        body
    }
}

/// `POST /exec/{id}/start`, decoded.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct ExecStart {
    /// Do not attach: the answer is plain and ends at once.
    pub detach: bool,
    /// Run under a terminal.
    pub tty: bool,
    console_size: Option<[u64; 2]>,
}

impl ExecStart {
    /// Decodes a body; an empty one asks for nothing in particular.
    ///
    /// # Errors
    /// [`Refusal`] for what is malformed or unknown.
    pub fn parse(body: &[u8]) -> Result<Self, Refusal> {
        if body.iter().all(u8::is_ascii_whitespace) {
            return Ok(Self::default());
        }
        let mut fields = decode_object(body)?;
        let start = Self {
            detach: fields.bool("Detach")?.unwrap_or(false),
            tty: fields.bool("Tty")?.unwrap_or(false),
            console_size: console_size(&mut fields)?,
        };
        fields.finish(&[], &mut Vec::new())?;
        Ok(start)
    }

    /// The body for the engine.
    #[must_use]
    pub fn body(&self) -> Value {
        let mut map = Map::new();
        map.insert("Detach".to_owned(), json!(self.detach));
        map.insert("Tty".to_owned(), json!(self.tty));
        insert_console(&mut map, self.console_size);
        Value::Object(map)
    }
}

fn console_size(fields: &mut Fields) -> Result<Option<[u64; 2]>, Refusal> {
    let name = fields.name("ConsoleSize");
    console(&name, fields.array("ConsoleSize")?.as_deref())
}

fn insert_console(map: &mut Map<String, Value>, size: Option<[u64; 2]>) {
    if let Some(size) = size {
        map.insert("ConsoleSize".to_owned(), json!(size));
    }
}
