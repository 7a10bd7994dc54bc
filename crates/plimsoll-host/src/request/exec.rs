//! Exec create and exec start.
//!
//! An exec runs inside the container's cgroup and namespaces, so its quota is the container's. Only
//! `Privileged` would step out of it.

use serde_json::{Map, Value, json};

use super::json::{Fields, decode_object};
use super::refusal::Refusal;
use super::shared::{console, not_to_enter, plain, safe_to_enter, working_dir};

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
            detach_keys: detach_keys(&mut fields)?,
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

    /// Runs as `owner` (`uid:gid`), as everything does in a container that can write to the host.
    ///
    /// # Errors
    /// [`Refusal::Policy`] when another user was asked for.
    pub fn run_as(&mut self, owner: &str) -> Result<(), Refusal> {
        let uid = owner.split(':').next().unwrap_or(owner);
        if !self.user.is_empty() && self.user != owner && self.user != uid {
            return Err(Refusal::policy(
                "User",
                format!("--user {}", super::json::short(&self.user)),
                "this container can write to folders of the host, with your rights and no others",
                "leave the option out",
            ));
        }
        owner.clone_into(&mut self.user);
        Ok(())
    }

    /// Starts where root may go for a tenant: `own` is where the container itself starts.
    ///
    /// # Errors
    /// [`Refusal::Policy`] when another directory was asked for.
    pub fn check_working_dir(&self, own: &str, mounted_at: &[&str]) -> Result<(), Refusal> {
        if self.working_dir == own || safe_to_enter(&self.working_dir, mounted_at) {
            return Ok(());
        }
        Err(not_to_enter("WorkingDir".to_owned(), &self.working_dir))
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

/// docker-py writes the name small, and the engine reads either.
fn detach_keys(fields: &mut Fields) -> Result<String, Refusal> {
    let keys = plain(fields, "DetachKeys", 128)?;
    let small = plain(fields, "detachKeys", 128)?;
    if !keys.is_empty() && !small.is_empty() {
        return Err(Refusal::bad("detachKeys", "is given twice"));
    }
    Ok(keys + &small)
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

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_clients_send_is_accepted() {
        for body in [
            include_bytes!("fixtures/cli-exec.json").as_slice(),
            include_bytes!("fixtures/cli-exec-detach.json"),
            include_bytes!("fixtures/cli-exec-it.json"),
            include_bytes!("fixtures/py-exec.json"),
        ] {
            let exec = ExecRequest::parse(body).unwrap();
            assert_eq!(exec.cmd, ["true"]);
            let again = ExecRequest::parse(exec.body().to_string().as_bytes());
            assert_eq!(again, Ok(exec));
        }
        let exec = ExecRequest::parse(include_bytes!("fixtures/cli-exec-it.json")).unwrap();
        assert_eq!(
            exec.body(),
            json!({
                "AttachStdin": true, "AttachStdout": true, "AttachStderr": true, "Tty": true,
                "Privileged": false, "Cmd": ["true"], "Env": ["A=b"], "User": "0", "WorkingDir": "/",
            })
        );
        let small = ExecRequest::parse(br#"{"Cmd":["a"],"detachKeys":"ctrl-p"}"#).unwrap();
        assert_eq!(small.body()["DetachKeys"], "ctrl-p");
        for body in [
            include_bytes!("fixtures/cli-exec-start.json").as_slice(),
            include_bytes!("fixtures/py-exec-start.json"),
            b"",
            br#"{"Detach":false,"Tty":true,"ConsoleSize":[24,80]}"#,
        ] {
            assert!(ExecStart::parse(body).is_ok());
        }
    }

    #[test]
    fn what_steps_out_of_the_container_is_refused() {
        for (body, status) in [
            (r#"{"Cmd":["a"],"Privileged":true}"#, 403),
            (r#"{"Cmd":["a"],"privileged":true}"#, 400),
            (r#"{"Cmd":["a"],"Privileged":false,"Privileged":true}"#, 400),
            (r#"{"Cmd":["a"],"Privileged":1}"#, 400),
            (r#"{"Cmd":[]}"#, 400),
            (r#"{}"#, 400),
            (r#"{"Cmd":["a"],"Other":1}"#, 400),
            (r#"{"Cmd":["a"],"detachKeys":"a","DetachKeys":"a"}"#, 400),
            (r#"{"Cmd":["a"],"detachkeys":"a"}"#, 400),
            (r#"{"Cmd":["a"],"WorkingDir":"../x"}"#, 400),
        ] {
            let refusal = ExecRequest::parse(body.as_bytes()).unwrap_err();
            assert_eq!(refusal.status(), status, "{body}");
        }
        for body in [r#"{"detach":true}"#, r#"{"Cmd":["a"]}"#, "[]", "{"] {
            assert!(ExecStart::parse(body.as_bytes()).is_err(), "{body}");
        }
    }
}
