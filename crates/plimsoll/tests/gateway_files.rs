//! `docker cp`, `docker export` and `docker diff`: own containers, their own files, and nothing of the
//! host, whatever a container swaps meanwhile.

mod common;

use std::io::Read;
use std::os::unix::fs::{PermissionsExt, chown, symlink};
use std::path::{Path, PathBuf};
use std::process::{Child, Stdio};

use common::{Following, IMAGE, Server, Tenant, as_uid_raw, wait_for};
use serde_json::json;

const SMALL: [&str; 4] = ["--memory", "32m", "--cpus", "0.1"];

fn tenant(server: &Server, name: &str, uid: u32) -> Tenant {
    let limits = json!({"maxMemoryGB": 1, "maxCpuCores": 2, "maxStorageGB": 20});
    server.tenant(name, uid, limits)
}

fn web(tenant: &Tenant, options: &[&str]) -> String {
    let stays = [IMAGE, "sleep", "1000"];
    tenant.ok(&[&["run", "-d", "--name", "web"], &SMALL[..], options, &stays].concat())
}

/// A folder of the tenant's.
fn folder(server: &Server, tenant: &Tenant) -> PathBuf {
    let path = server.path(&format!("of-{}", tenant.uid));
    std::fs::create_dir(&path).unwrap();
    chown(&path, Some(tenant.uid), Some(tenant.uid)).unwrap();
    path
}

fn text(path: &Path) -> &str {
    path.to_str().unwrap()
}

fn status(tenant: &Tenant) -> String {
    tenant.ok(&["inspect", "-f", "{{.State.Status}}", "web"])
}

#[test]
fn files_go_both_ways() {
    let server = Server::start();
    let ada = tenant(&server, "ada", 66_000);
    let dir = folder(&server, &ada);
    let tree = dir.join("tree");
    std::fs::create_dir(&tree).unwrap();
    std::fs::write(tree.join("word"), "hello").unwrap();
    std::fs::set_permissions(tree.join("word"), PermissionsExt::from_mode(0o755)).unwrap();
    symlink("word", tree.join("link")).unwrap();
    web(&ada, &["-v", "/data"]);
    let (there, back) = (text(&tree), dir.join("back"));
    // A folder, a name that is not there yet, a volume, and a running container goes on running.
    for (to, at) in [
        ("/tmp", "/tmp/tree"),
        ("/opt", "/opt/tree"),
        ("/data/new", "/data/new"),
    ] {
        ada.ok(&["exec", "web", "mkdir", "-p", "/opt"]);
        ada.ok(&["cp", there, &format!("web:{to}")]);
        let seen = ada.ok(&[
            "exec",
            "web",
            "sh",
            "-c",
            &format!("cat {at}/link; stat -c %a {at}/word"),
        ]);
        assert_eq!(seen, "hello755");
        ada.ok(&["cp", &format!("web:{at}"), text(&back)]);
        assert_eq!(std::fs::read(back.join("word")).unwrap(), b"hello");
        assert_eq!(
            std::fs::read_link(back.join("link")).unwrap(),
            Path::new("word")
        );
        std::fs::remove_dir_all(&back).unwrap();
        assert_eq!(status(&ada), "running");
    }
    // Through a pipe, as an archive.
    let packed = ada.docker(&["cp", "web:/tmp/tree", "-"]).out;
    let unpacked = ada.with_input(&["cp", "-", "web:/opt"], &packed);
    assert_eq!(unpacked.code, 0, "{unpacked:?}");
    // A container that is paused or has ended can be copied from and to, and stays so.
    for act in ["pause", "stop"] {
        ada.ok(&[act, "web"]);
        let before = status(&ada);
        ada.ok(&["cp", there, "web:/srv"]);
        ada.ok(&["cp", "web:/srv/link", text(&back)]);
        std::fs::remove_file(&back).unwrap();
        assert_eq!(status(&ada), before);
    }
    ada.ok(&["start", "web"]);
    assert_eq!(ada.ok(&["exec", "web", "cat", "/srv/word"]), "hello");
    let missed = ada.refused(&["cp", "web:/nowhere", "-"]);
    assert!(
        missed.contains("Could not find the file /nowhere in container web"),
        "{missed}"
    );
    assert!(ada.ok(&["diff", "web"]).contains("A /srv/word"));
}

#[test]
fn a_copy_stays_within_its_container() {
    let server = Server::start();
    let ada = tenant(&server, "ada", 66_010);
    let ben = tenant(&server, "ben", 66_011);
    let dir = folder(&server, &ada);
    std::fs::write(dir.join("word"), "hello").unwrap();
    let word = text(&dir.join("word")).to_owned();
    let id = web(&ada, &[]);
    ada.ok(&[
        "exec",
        "web",
        "sh",
        "-c",
        "ln -s / /slash; ln -s ../../../../.. /up; ln -s /proc/1/root /proc-root",
    ]);

    // Links and dots end at the container's root.
    let inside = ada.ok(&["exec", "web", "cat", "/etc/hostname"]);
    for path in [
        "/../../../../../../etc",
        "/slash/etc",
        "/up/etc",
        "../../../etc",
    ] {
        let packed = ada.docker(&["cp", &format!("web:{path}/hostname"), "-"]);
        assert!(packed.out.contains(&inside), "{path}: {packed:?}");
        ada.ok(&["cp", &word, &format!("web:{path}/word")]);
        assert_eq!(
            ada.ok(&["exec", "web", "cat", "/etc/word"]),
            "hello",
            "{path}"
        );
        ada.ok(&["exec", "web", "rm", "/etc/word"]);
    }
    assert!(!Path::new("/etc/word").exists());
    let missed = ada.docker(&["cp", "web:/proc-root/etc/hostname", "-"]);
    assert_ne!(missed.code, 0, "{missed:?}");
    // An archive that would leave its folder.
    let evil = "import io,sys,tarfile\n\
                t=tarfile.open(fileobj=sys.stdout.buffer,mode='w|')\n\
                i=tarfile.TarInfo(sys.argv[1]); i.size=1; t.addfile(i,io.BytesIO(b'x')); t.close()";
    for name in [
        "../../../../../../tmp/plimsoll-escaped",
        "/tmp/plimsoll-escaped",
    ] {
        let packed = std::process::Command::new("python3")
            .args(["-c", evil, name])
            .output()
            .unwrap();
        let packed = String::from_utf8(packed.stdout).unwrap();
        ada.with_input(&["cp", "-", "web:/tmp"], &packed);
        assert!(!Path::new("/tmp/plimsoll-escaped").exists(), "{name}");
    }

    // What is another's is not there.
    for reference in ["web", id.as_str(), &id[..12]] {
        for args in [
            vec![
                "cp".to_owned(),
                format!("{reference}:/etc/hostname"),
                "-".to_owned(),
            ],
            vec!["cp".to_owned(), word.clone(), format!("{reference}:/tmp")],
            vec!["export".to_owned(), reference.to_owned()],
            vec!["diff".to_owned(), reference.to_owned()],
        ] {
            let args: Vec<&str> = args.iter().map(String::as_str).collect();
            let refusal = ben.refused(&args);
            assert!(
                refusal.to_lowercase().contains("no such container"),
                "{args:?}: {refusal}"
            );
        }
    }

    // One reading, or none.
    for (status, line) in [
        (400, "GET /containers/web/archive"),
        (400, "GET /containers/web/archive?path="),
        (400, "GET /containers/web/archive?path=/etc&path=/tmp"),
        (400, "GET /containers/web/archive?path=/etc&%70ath=/tmp"),
        (400, "GET /containers/web/archive?path=/etc%00"),
        (400, "GET /containers/web/archive?path=/etc&evil=1"),
        (400, "HEAD /containers/web/archive?path=/etc&evil=1"),
        (400, "PUT /containers/web/archive?path=/etc&evil=1"),
        (
            400,
            "PUT /containers/web/archive?path=/etc&copyUIDGID=perhaps",
        ),
        (400, "PUT /containers/web/archive"),
        (403, "POST /containers/web/archive?path=/etc"),
        (403, "POST /containers/web/copy"),
        (400, "GET /containers/web/export?evil=1"),
        (400, "GET /containers/web/changes?evil=1"),
        (404, "HEAD /containers/other/archive?path=/etc"),
        (404, "PUT /containers/other/archive?path=/etc"),
        (200, "HEAD /containers/web/archive?path=/etc"),
    ] {
        let request =
            format!("{line} HTTP/1.1\r\nHost: d\r\nConnection: close\r\nContent-Length: 0\r\n\r\n");
        let got = as_uid_raw(ada.uid, &server.path("docker.sock"), request.as_bytes());
        assert_eq!(got.0, status, "{line}\n{}", got.1);
    }
    // What is packed so that only the engine could unpack it, outside everybody's limits.
    let packed = ada.with_input(&["cp", "-", "web:/tmp"], "BZh91AY&SY");
    assert!(packed.err.contains("packed with bzip2"), "{packed:?}");
    assert_eq!(status(&ada), "running");
}

#[test]
fn a_container_stands_still_while_it_is_copied_from() {
    let server = Server::start();
    let ada = tenant(&server, "ada", 66_020);
    web(&ada, &[]);
    ada.ok(&[
        "exec",
        "web",
        "dd",
        "if=/dev/zero",
        "of=/big",
        "bs=1M",
        "count=32",
    ]);
    let mut following = Following::start(&ada, "{{.Action}}");
    let mut copying = ada
        .command(&["cp", "web:/big", "-"])
        .stdout(Stdio::piped())
        .spawn()
        .unwrap();
    let mut out = copying.stdout.take().unwrap();
    // It has begun, and goes no further until somebody reads.
    out.read_exact(&mut [0; 512]).unwrap();
    let mut unpausing = ada.command(&["unpause", "web"]).spawn().unwrap();
    let mut killing = ada.command(&["kill", "web"]).spawn().unwrap();
    let paused = server.docker(&["ps", "--filter", "status=paused", "--format", "{{.Names}}"]);
    assert!(
        String::from_utf8_lossy(&paused.stdout).contains(".web"),
        "{paused:?}"
    );
    let rest = std::io::copy(&mut out, &mut std::io::sink()).unwrap();
    assert!(rest > 32 << 20, "{rest}");
    assert!(copying.wait().unwrap().success());
    unpausing.wait().unwrap();
    assert!(killing.wait().unwrap().success());
    let seen = following.until("die");
    let at = |word: &str| seen.iter().position(|line| line == word).expect(word);
    assert!(
        at("pause") < at("archive-path") && at("archive-path") < at("unpause"),
        "{seen:?}"
    );
    assert!(at("unpause") < at("kill"), "{seen:?}");

    // Who goes away in the middle leaves nothing paused.
    ada.ok(&["start", "web"]);
    let mut copying = begun_copy(&ada);
    copying.kill().unwrap();
    copying.wait().unwrap();
    wait_for("it to go on", || (status(&ada) == "running").then_some(()));
}

/// A copy of `/big` that has begun, and of which nobody reads the rest.
fn begun_copy(ada: &Tenant) -> Child {
    let mut copying = ada
        .command(&["cp", "web:/big", "-"])
        .stdout(Stdio::piped())
        .spawn()
        .unwrap();
    let head = copying.stdout.as_mut().unwrap();
    head.read_exact(&mut [0; 512]).unwrap();
    copying
}

#[test]
fn a_server_that_ends_leaves_nothing_paused() {
    let mut server = Server::start();
    let ada = tenant(&server, "ada", 66_025);
    web(&ada, &[]);
    ada.ok(&[
        "exec",
        "web",
        "dd",
        "if=/dev/zero",
        "of=/big",
        "bs=1M",
        "count=32",
    ]);
    let web = server.full_id("ada", "web");
    let mut copying = begun_copy(&ada);
    server.terminate();
    let seen = server.docker(&["inspect", "--format", "{{.State.Status}}", &web]);
    assert_eq!(String::from_utf8_lossy(&seen.stdout), "running\n");
    let _ = copying.kill();
    copying.wait().unwrap();
    server.restart();
}

#[test]
fn where_others_could_swap_things_nothing_is_copied() {
    let server = Server::start();
    let ada = tenant(&server, "ada", 66_030);
    let dir = folder(&server, &ada);
    std::fs::write(dir.join("word"), "hello").unwrap();
    let word = text(&dir.join("word")).to_owned();
    web(&ada, &["-v", "data:/etc"]);
    let other = [
        "run",
        "-d",
        "--name",
        "other",
        "-v",
        "data:/data",
        "--memory",
        "32m",
        IMAGE,
        "sleep",
        "1000",
    ];
    ada.ok(&other);
    for args in [
        vec!["cp", "web:/etc/hostname", "-"],
        vec!["cp", &word, "web:/tmp"],
    ] {
        let refusal = ada.refused(&args);
        assert!(
            refusal.contains("other runs with a volume of web"),
            "{refusal}"
        );
    }
    ada.ok(&["rm", "-f", "other"]);
    ada.ok(&["cp", &word, "web:/tmp"]);
}
