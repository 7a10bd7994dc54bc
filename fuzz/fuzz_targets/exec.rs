//! `POST /containers/{id}/exec` and `POST /exec/{id}/start`: never privileged, and judged the same again.

#![no_main]

use libfuzzer_sys::fuzz_target;
use plimsoll_fuzz::only;
use plimsoll_host::request::exec::{ExecRequest, ExecStart};

const EXEC: [&str; 11] = [
    "AttachStderr",
    "AttachStdin",
    "AttachStdout",
    "Cmd",
    "ConsoleSize",
    "DetachKeys",
    "Env",
    "Privileged",
    "Tty",
    "User",
    "WorkingDir",
];

fuzz_target!(|data: &[u8]| {
    if let Ok(mut exec) = ExecRequest::parse(data) {
        let body = exec.body();
        only(&body, &EXEC);
        assert_eq!(body["Privileged"], false);
        let again = ExecRequest::parse(body.to_string().as_bytes()).expect("our own body is read");
        assert_eq!(again.body(), body);
        if exec.run_as("1001:1002").is_ok() {
            assert_eq!(exec.body()["User"], "1001:1002");
        }
    }
    if let Ok(start) = ExecStart::parse(data) {
        let body = start.body();
        only(&body, &["ConsoleSize", "Detach", "Tty"]);
        let again = ExecStart::parse(body.to_string().as_bytes()).expect("our own body is read");
        assert_eq!(again.body(), body);
    }
});
