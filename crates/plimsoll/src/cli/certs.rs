//! `plimsoll user cert`: a certificate for a user, as docker's command line takes it.
//!
//! The key is made here and goes nowhere else; the server signs what it is for.

use std::fs::OpenOptions;
use std::io::Write as _;
use std::os::unix::fs::{DirBuilderExt as _, OpenOptionsExt as _};
use std::path::{Path, PathBuf};

use http::Method;
use serde_json::{Map, Value, json};

use super::amounts::{items, text};
use super::answer::Answer;
use super::args::CertFlags;
use super::client::{Client, path};
use super::error::CliError;
use super::table::{Align, Table};
use super::users::{gone, put};
use crate::ca;

/// The name of the docker context, and of its file.
const CONTEXT: &str = "plimsoll";
const CONTEXT_FILE: &str = "plimsoll.dockercontext";

pub(super) async fn cert(
    client: &Client,
    flags: CertFlags,
    now_ms: i64,
) -> Result<Answer, CliError> {
    if flags.list {
        return list(client, &flags.user, now_ms).await;
    }
    if let Some(endpoint) = &flags.endpoint
        && !endpoint.starts_with("tcp://")
    {
        let wrong = format!("--endpoint {endpoint}: must be like tcp://HOST:2376");
        return Err(CliError::Usage(wrong));
    }
    let dir = flags
        .out
        .unwrap_or_else(|| PathBuf::from(format!("plimsoll-{}", flags.user)));
    // Before anything is signed: a certificate that nobody gets is one too many.
    let is_new = prepare(&dir)?;
    let (key, request) = ca::new_request(&flags.user)?;
    let mut body = Map::from_iter([("csr".to_owned(), json!(request))]);
    put(&mut body, "days", flags.days);
    let route = path(&["users", &flags.user, "certs"]);
    let issued = client
        .send(Method::POST, &route, Some(&Value::Object(body)))
        .await;
    if issued.is_err() && is_new {
        let _ = std::fs::remove_dir(&dir);
    }
    let mut issued = issued?;
    let (ca, cert) = (text(&issued, "ca"), text(&issued, "certificate"));
    write(&dir.join("ca.pem"), ca.as_bytes(), 0o644)?;
    write(&dir.join("cert.pem"), cert.as_bytes(), 0o644)?;
    write(&dir.join("key.pem"), key.as_bytes(), 0o600)?;
    let endpoint = flags
        .endpoint
        .or_else(|| issued["endpoint"].as_str().map(str::to_owned));
    if let Some(endpoint) = &endpoint {
        let context = context(endpoint, &ca, &cert, &key, now_ms);
        write(&dir.join(CONTEXT_FILE), &context, 0o600)?;
    }
    issued["directory"] = json!(dir);
    let said = how_to_use(&issued, &dir, endpoint.as_deref());
    let answer = Answer::new(issued, said);
    Ok(answer.remarking("whoever has key.pem is this user: hand it over as you would a password"))
}

fn how_to_use(issued: &Value, dir: &Path, endpoint: Option<&str>) -> String {
    let dir = std::path::absolute(dir).unwrap_or_else(|_| dir.to_owned());
    let dir = dir.display();
    let (serial, until) = (text(issued, "serial"), text(issued, "expiresAt"));
    let mut said = format!("certificate {serial}, valid until {until}, in {dir}\n\n");
    said += &match endpoint {
        Some(endpoint) => format!(
            "use it as a context\n  \
             docker context import {CONTEXT} {dir}/{CONTEXT_FILE}\n  \
             docker context use {CONTEXT}\n\n\
             or through the environment\n  \
             export DOCKER_HOST={endpoint} DOCKER_TLS_VERIFY=1 DOCKER_CERT_PATH={dir}\n"
        ),
        None => format!(
            "the server has no gateway over TLS, so there is no context; with one\n  \
             export DOCKER_HOST=tcp://HOST:2376 DOCKER_TLS_VERIFY=1 DOCKER_CERT_PATH={dir}\n"
        ),
    };
    said
}

async fn list(client: &Client, user: &str, now_ms: i64) -> Result<Answer, CliError> {
    let certs = client.get(&path(&["users", user, "certs"])).await?;
    let mut table = Table::new(&[
        ("SERIAL", Align::Left),
        ("ISSUED", Align::Left),
        ("STATE", Align::Left),
    ]);
    for cert in items(&certs) {
        let issued = text(cert, "issuedAt");
        let day = issued.get(..10).unwrap_or(&issued).to_owned();
        table.row([
            text(cert, "serial"),
            day,
            super::tokens::state(cert, now_ms),
        ]);
    }
    Ok(Answer::new(certs, table.render()))
}

pub(super) async fn revoke(client: &Client, serial: &str) -> Result<Answer, CliError> {
    let status = client.delete(&path(&["certs", serial])).await?;
    Ok(gone("certificate", serial, status))
}

/// Makes the folder, or finds that nothing in it would be overwritten. Says whether it is new.
fn prepare(dir: &Path) -> Result<bool, CliError> {
    let is_new = !dir.exists();
    let mut builder = std::fs::DirBuilder::new();
    builder.recursive(true).mode(0o700);
    builder.create(dir).map_err(|source| CliError::Io {
        verb: "make",
        path: dir.display().to_string(),
        source,
    })?;
    for name in ["ca.pem", "cert.pem", "key.pem", CONTEXT_FILE] {
        if dir.join(name).exists() {
            let there = dir.join(name);
            let there = there.display();
            return Err(CliError::Usage(format!(
                "{there} is there already: name another folder with --out"
            )));
        }
    }
    Ok(is_new)
}

fn write(path: &Path, bytes: &[u8], mode: u32) -> Result<(), CliError> {
    let file = OpenOptions::new()
        .write(true)
        .create_new(true)
        .mode(mode)
        .open(path);
    file.and_then(|mut file| file.write_all(bytes))
        .map_err(|source| CliError::Io {
            verb: "write",
            path: path.display().to_string(),
            source,
        })
}

/// A context as `docker context export` writes it: a tar of what it says and of its certificates.
fn context(endpoint: &str, ca: &str, cert: &str, key: &str, now_ms: i64) -> Vec<u8> {
    let meta = json!({
        "Name": CONTEXT,
        "Metadata": {"Description": "Docker through Plimsoll"},
        "Endpoints": {"docker": {"Host": endpoint, "SkipTLSVerify": false}},
    });
    let mut tar = Vec::new();
    for (name, bytes) in [
        ("meta.json", meta.to_string().as_str()),
        ("tls/docker/ca.pem", ca),
        ("tls/docker/cert.pem", cert),
        ("tls/docker/key.pem", key),
    ] {
        tar.extend_from_slice(&tar_header(name, bytes.len(), now_ms / 1000));
        tar.extend_from_slice(bytes.as_bytes());
        tar.resize(tar.len().next_multiple_of(512), 0);
    }
    // Two empty blocks end it.
    tar.resize(tar.len() + 1024, 0);
    tar
}

/// The header of a plain file in a POSIX tar: fields at fixed places, numbers in octal.
fn tar_header(name: &str, size: usize, modified_s: i64) -> [u8; 512] {
    let mut header = [0; 512];
    let mut put = |at: usize, text: &str| {
        header[at..at + text.len()].copy_from_slice(text.as_bytes());
    };
    put(0, name);
    put(100, "0000600");
    put(108, "0000000");
    put(116, "0000000");
    put(124, &format!("{size:011o}"));
    put(136, &format!("{modified_s:011o}"));
    // The sum counts its own place as blanks.
    put(148, "        ");
    put(156, "0");
    put(257, "ustar\x0000");
    let sum: u32 = header.iter().map(|byte| u32::from(*byte)).sum();
    header[148..156].copy_from_slice(format!("{sum:06o}\0 ").as_bytes());
    header
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_context_is_a_tar_that_tar_reads() {
        let dir = tempfile::tempdir().unwrap();
        let file = dir.path().join("c.tar");
        let tar = context(
            "tcp://gpu1:2376",
            "CA",
            "CERT",
            &"K".repeat(600),
            1_800_000_000_000,
        );
        std::fs::write(&file, tar).unwrap();
        let unpacked = std::process::Command::new("tar")
            .arg("-xf")
            .arg(&file)
            .arg("-C")
            .arg(dir.path())
            .output()
            .unwrap();
        assert!(unpacked.status.success(), "{unpacked:?}");
        let read = |name: &str| std::fs::read_to_string(dir.path().join(name)).unwrap();
        assert_eq!(read("tls/docker/key.pem"), "K".repeat(600));
        assert_eq!(read("tls/docker/ca.pem"), "CA");
        let meta: Value = serde_json::from_str(&read("meta.json")).unwrap();
        assert_eq!(meta["Endpoints"]["docker"]["Host"], "tcp://gpu1:2376");
    }
}
