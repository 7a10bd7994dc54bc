//! Folders of the host in a tenant's containers: theirs work, and nothing of anybody else's is reached
//! through them, whatever is renamed, linked or swapped.

mod common;

use std::os::unix::fs::{MetadataExt, PermissionsExt, symlink};
use std::os::unix::process::CommandExt;
use std::path::{Path, PathBuf};
use std::process::Command;

use common::account::Account;
use common::{IMAGE, Server, Tenant, wait_for};
use serde_json::json;

const SMALL: [&str; 4] = ["--memory", "32m", "--cpus", "0.1"];

fn run(tenant: &Tenant, options: &[&str], command: &[&str]) -> String {
    tenant.ok(&[&["run", "--rm"], &SMALL[..], options, &[IMAGE], command].concat())
}

/// A container of this name that stays.
fn web(tenant: &Tenant, options: &[&str]) {
    let stays = [IMAGE, "sleep", "1000"];
    tenant.ok(&[&["run", "-d", "--name", "web"], &SMALL[..], options, &stays].concat());
}

fn bind(path: &Path, rest: &str) -> String {
    format!("{}:{rest}", path.display())
}

#[test]
fn a_student_works_in_a_folder_of_their_home() {
    let server = Server::start();
    let account = Account::new(64_100);
    let ada = account.tenant(&server, "ada");
    let work = account.folder("work");
    let mount = bind(&work, "/work");
    let said = run(
        &ada,
        &["-v", &mount, "-w", "/work"],
        &["sh", "-c", "id -u; echo hello >made"],
    );
    assert_eq!(said, "64100");
    let made = std::fs::metadata(work.join("made")).unwrap();
    assert_eq!((made.uid(), made.gid()), (account.uid, account.gid));
    assert_eq!(run(&ada, &["-v", &mount], &["cat", "/work/made"]), "hello");
    // A file alone, read-only, as the image's own user.
    let file = bind(&work.join("made"), "/etc/made:ro");
    assert_eq!(
        run(&ada, &["-v", &file], &["sh", "-c", "id -u; cat /etc/made"]),
        "0\nhello"
    );
    let refused = ada.refused(&[
        "run",
        "--rm",
        "-v",
        &file,
        IMAGE,
        "sh",
        "-c",
        "echo x >/etc/made",
    ]);
    assert!(refused.contains("Read-only"), "{refused}");

    web(&ada, &["-v", &mount]);
    let seen = ada.ok(&["inspect", "web"]);
    assert!(
        seen.contains(&work.display().to_string()) && !seen.contains("plimsoll-mounts"),
        "{seen}"
    );
    // Exec is no way around it.
    assert_eq!(ada.ok(&["exec", "web", "id", "-u"]), "64100");
    let refused = ada.refused(&["exec", "-u", "0", "web", "id"]);
    assert!(refused.contains("with your rights"), "{refused}");
    ada.ok(&["stop", "-t", "0", "web"]);
    // The folder is another one by now, under the same path.
    std::fs::rename(&work, account.home.join("old")).unwrap();
    let work = account.folder("work");
    std::fs::write(work.join("new"), "new").unwrap();
    ada.ok(&["start", "web"]);
    assert_eq!(ada.ok(&["exec", "web", "ls", "/work"]), "new");
    ada.ok(&["rm", "-f", "web"]);
    let left = Path::new("/run/plimsoll-mounts").join(server.instance());
    let empty = || {
        std::fs::read_dir(&left)
            .unwrap()
            .next()
            .is_none()
            .then_some(())
    };
    wait_for("every mount to be taken away", empty);
    assert!(work.join("new").exists() && account.home.join("old/made").exists());
}

/// A closed home stays closed to the host's other people, whatever of it is mounted.
#[test]
fn what_is_mounted_is_open_to_nobody_else_on_the_host() {
    let server = Server::start();
    let account = Account::new(64_150);
    let ada = account.tenant(&server, "ada");
    let work = account.folder("work");
    std::fs::write(work.join("file"), "words").unwrap();
    let mount = bind(&work, "/w:ro");
    web(&ada, &["-v", &mount]);
    let stash = Path::new("/run/plimsoll-mounts").join(server.instance());
    let container = std::fs::read_dir(&stash).unwrap().next().unwrap().unwrap();
    let file = container.path().join("0/file");
    assert!(file.exists());
    let mut cat = Command::new("cat");
    let seen = cat.arg(&file).uid(64_151).gid(64_151).output().unwrap();
    assert!(!seen.status.success(), "{seen:?}");
    assert_eq!(ada.ok(&["exec", "web", "cat", "/w/file"]), "words");
    ada.ok(&["rm", "-f", "web"]);
}

#[test]
fn nothing_of_others_is_reached_through_a_mount() {
    let server = Server::start();
    let (account, other) = (Account::new(64_110), Account::new(64_111));
    let ada = account.tenant(&server, "ada");
    let work = account.folder("work");
    let secret = other.folder("public");
    std::fs::write(secret.join("secret"), "ben's").unwrap();
    symlink(&secret, account.home.join("out")).unwrap();
    symlink("/etc", account.home.join("etc")).unwrap();
    symlink("/var/run/docker.sock", account.home.join("sock")).unwrap();
    for (path, words) in [
        (PathBuf::from("/"), "is not under"),
        (PathBuf::from("/etc"), "is not under"),
        (PathBuf::from("/var/run/docker.sock"), "not"),
        (PathBuf::from("/root/.ssh"), "may not enter"),
        (secret.clone(), "may not enter"),
        (account.home.join("out"), "may not enter"),
        (account.home.join("etc"), "is not under"),
        (account.home.join("sock"), "not"),
        (account.home.join("absent"), "mkdir -p"),
    ] {
        for rest in ["/x", "/x:ro"] {
            let mount = bind(&path, rest);
            let refused = ada.refused(&["run", "--rm", "-v", &mount, IMAGE, "true"]);
            assert!(refused.contains(words), "{mount}: {refused}");
        }
        let mount = format!("type=bind,src={},dst=/x", path.display());
        ada.refused(&["run", "--rm", "--mount", &mount, IMAGE, "true"]);
    }
    // Created over a folder, started over a link: what is shown is what may be.
    let mount = bind(&work, "/x:ro");
    ada.ok(&[
        &["create", "--name", "swap"],
        &SMALL[..],
        &["-v", &mount, IMAGE, "sleep", "1000"],
    ]
    .concat());
    std::fs::remove_dir(&work).unwrap();
    symlink(&secret, &work).unwrap();
    let refused = ada.refused(&["start", "swap"]);
    assert!(refused.contains("may not enter"), "{refused}");
    // Nor does the engine follow it by itself.
    let id = server.full_id("ada", "swap");
    server.docker(&["start", &id]);
    let shown = server.docker(&["exec", &id, "ls", "/x"]);
    assert_eq!(String::from_utf8_lossy(&shown.stdout), "");
    ada.ok(&["rm", "-f", "swap"]);
    assert!(secret.join("secret").exists());
    assert_eq!(server.usage("ada")["reservedContainers"], 0);
}

/// A link that is turned back and forth while containers are made over it: never once does another's
/// folder show.
#[test]
fn a_link_swapped_in_the_middle_shows_nothing() {
    let server = Server::start();
    let (account, other) = (Account::new(64_120), Account::new(64_121));
    let ada = account.tenant(&server, "ada");
    let work = account.folder("work");
    std::fs::write(work.join("mine"), "").unwrap();
    let secret = other.folder("public");
    std::fs::write(secret.join("secret"), "").unwrap();
    let place = account.home.join("place");
    let (over, turner) = (
        std::sync::Arc::new(std::sync::atomic::AtomicBool::new(false)),
        place.clone(),
    );
    let stop = std::sync::Arc::clone(&over);
    let (good, bad) = (work.clone(), secret.clone());
    let turning = std::thread::spawn(move || {
        let next = turner.with_extension("next");
        while !stop.load(std::sync::atomic::Ordering::Relaxed) {
            for target in [&good, &bad] {
                let _ = std::fs::remove_file(&next);
                symlink(target, &next).unwrap();
                std::fs::rename(&next, &turner).unwrap();
            }
        }
    });
    let mount = bind(&place, "/x:ro");
    let mut shown = 0;
    for _ in 0..20 {
        let said = ada.docker(
            &[
                &["run", "--rm"],
                &SMALL[..],
                &["-v", &mount, IMAGE, "ls", "/x"],
            ]
            .concat(),
        );
        assert!(!said.out.contains("secret"), "{}", said.out);
        shown += usize::from(said.out.contains("mine"));
    }
    over.store(true, std::sync::atomic::Ordering::Relaxed);
    turning.join().unwrap();
    assert!(shown > 0, "the honest half works");
}

/// The runtime enters a working directory as root, past folders that are closed to the tenant.
#[test]
fn a_working_directory_is_no_way_into_closed_folders() {
    let shared = tempfile::tempdir().unwrap();
    std::fs::set_permissions(shared.path(), std::fs::Permissions::from_mode(0o755)).unwrap();
    let (account, other) = (Account::new(64_170), Account::new(64_171));
    let closed = shared.path().join("ben");
    let open = closed.join("open");
    std::fs::create_dir_all(&open).unwrap();
    std::fs::write(open.join("file"), "ben's").unwrap();
    other.own(&open, 0o755);
    other.own(&closed, 0o700);
    let roots = format!(
        "[mounts]\nroots = [\"~\", \"{}\"]\n",
        shared.path().display()
    );
    let config = shared.path().join("plimsoll.toml");
    std::fs::write(&config, roots).unwrap();
    let config = config.display().to_string();
    let server = Server::start_with(&common::engine(), &["--config", &config]);
    let ada = account.tenant(&server, "ada");
    let mount = bind(shared.path(), "/x:ro");
    let refused = ada.refused(&[
        "run",
        "--rm",
        "-v",
        &mount,
        "-w",
        "/x/ben/open",
        IMAGE,
        "cat",
        "./file",
    ]);
    assert!(refused.contains("--workdir"), "{refused}");
    web(&ada, &["-v", &mount, "-w", "/x"]);
    ada.ok(&["exec", "web", "ln", "-s", "/x/ben/open", "/tmp/link"]);
    for dir in ["/x/ben/open", "/tmp/link"] {
        let refused = ada.refused(&["exec", "-w", dir, "web", "cat", "./file"]);
        assert!(refused.contains("--workdir"), "{refused}");
    }
    assert_eq!(
        ada.ok(&["exec", "-w", "/x", "web", "ls", "-d", "ben"]),
        "ben"
    );
    ada.ok(&["rm", "-f", "web"]);
}

/// A file system mounted on the host, taken away when dropped.
struct Mounted(PathBuf);

impl Mounted {
    fn tmpfs(at: &Path) -> Self {
        for args in [&["-t", "tmpfs", "none"][..], &["--make-shared"]] {
            let done = Command::new("mount").args(args).arg(at).status().unwrap();
            assert!(done.success(), "mount {args:?} {}", at.display());
        }
        Self(at.to_owned())
    }
}

impl Drop for Mounted {
    fn drop(&mut self) {
        let _ = Command::new("umount").arg("-l").arg(&self.0).output();
    }
}

/// On most hosts every mount is shared with its copies.
#[test]
fn what_the_host_mounts_below_a_folder_neither_shows_nor_goes_with_it() {
    let server = Server::start();
    let account = Account::new(64_160);
    let ada = account.tenant(&server, "ada");
    let disk = account.folder("disk");
    let _outer = Mounted::tmpfs(&disk);
    account.own(&disk, 0o755);
    web(&ada, &["-v", &bind(&disk, "/w")]);
    let below = disk.join("below");
    std::fs::create_dir(&below).unwrap();
    let _inner = Mounted::tmpfs(&below);
    std::fs::write(below.join("precious"), "").unwrap();
    ada.ok(&["restart", "-t", "0", "web"]);
    assert_eq!(ada.ok(&["exec", "web", "ls", "/w/below"]), "");
    ada.ok(&["rm", "-f", "web"]);
    assert!(below.join("precious").exists(), "it is still mounted");
}

#[test]
fn mounts_outlive_a_crash_of_the_server() {
    let mut server = Server::start();
    let account = Account::new(64_130);
    let ada = account.tenant(&server, "ada");
    let work = account.folder("work");
    std::fs::write(work.join("file"), "words").unwrap();
    let mount = bind(&work, "/w:ro");
    web(&ada, &["-v", &mount]);
    let id = server.full_id("ada", "web");
    server.crash();
    assert_eq!(
        server.docker(&["restart", "-t", "0", &id]).status.code(),
        Some(0)
    );
    let read = server.docker(&["exec", &id, "cat", "/w/file"]);
    assert_eq!(String::from_utf8_lossy(&read.stdout), "words");
    server.restart();
    assert_eq!(ada.ok(&["exec", "web", "cat", "/w/file"]), "words");
    // Gone while the server was away: found out, and taken away.
    server.crash();
    server.docker(&["rm", "-f", &id]);
    server.restart();
    let left = Path::new("/run/plimsoll-mounts").join(server.instance());
    wait_for("the mount to be taken away", || {
        std::fs::read_dir(&left)
            .unwrap()
            .next()
            .is_none()
            .then_some(())
    });
    assert!(work.join("file").exists());
}

#[test]
fn who_has_no_account_on_the_host_mounts_nothing_of_it() {
    let server = Server::start();
    let ada = server.tenant("ada", 64_140, json!({"maxMemoryGB": 1}));
    let refused = ada.refused(&["run", "--rm", "-v", "/tmp:/x", IMAGE, "true"]);
    assert!(refused.contains("no uid on this host"), "{refused}");
}

#[test]
fn the_engine_copies_nothing_through_a_folder_of_the_host() {
    let server = Server::start();
    let account = Account::new(64_180);
    let ada = account.tenant(&server, "ada");
    let work = account.folder("work");
    std::fs::write(work.join("own"), "own").unwrap();
    account.own(&work.join("own"), 0o644);
    symlink("/etc/shadow", work.join("link")).unwrap();
    web(&ada, &["-v", &bind(&work, "/work")]);
    let copies: [[&str; 3]; 3] = [
        ["cp", "web:/work/own", "-"],
        ["cp", "web:/etc/hostname", "-"],
        ["cp", "/etc/hostname", "web:/work"],
    ];
    for args in copies {
        let refusal = ada.refused(&args);
        assert!(
            refusal.contains("has folders of the host mounted"),
            "{args:?}: {refusal}"
        );
    }
    // What the refusal proposes works.
    let packed = ada.ok(&["exec", "web", "tar", "-cf", "-", "-C", "/work", "own"]);
    let command = ["exec", "-i", "web", "tar", "-xf", "-", "-C", "/tmp"];
    assert_eq!(ada.with_input(&command, &packed).code, 0);
    assert_eq!(ada.ok(&["exec", "web", "cat", "/tmp/own"]), "own");
    // An export holds the container's own files, and of the host's none.
    let exported = ada.command(&["export", "web"]).output().unwrap();
    assert!(exported.status.success());
    let mut listing = Command::new("tar")
        .args(["-t"])
        .stdin(std::process::Stdio::piped())
        .stdout(std::process::Stdio::piped())
        .spawn()
        .unwrap();
    let mut input = listing.stdin.take().unwrap();
    let writer = std::thread::spawn(move || {
        std::io::Write::write_all(&mut input, &exported.stdout).unwrap();
    });
    let listing = String::from_utf8(listing.wait_with_output().unwrap().stdout).unwrap();
    writer.join().unwrap();
    assert!(
        listing.contains("tmp/own\n") && !listing.contains("work/own"),
        "{listing}"
    );
}
