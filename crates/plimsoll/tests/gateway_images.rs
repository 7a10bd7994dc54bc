//! Images through the gateway: names of one's own, archives, builds, registries, and what they take.

mod common;

use std::os::unix::process::CommandExt;
use std::process::{Command, Stdio};

use common::{IMAGE, Said, Server, Tenant, wait_for};
use serde_json::{Value, json};

fn some() -> Value {
    json!({"maxMemoryGB": 0.5, "maxCpuCores": 1, "maxConcurrentContainers": 4, "maxStorageGB": 4})
}

/// A host with two tenants, whose images are gone in the end.
struct House {
    ada: Tenant,
    ben: Tenant,
    server: Server,
}

impl House {
    fn with(base: u32, options: &[&str]) -> Self {
        let server = Server::start_with(&common::engine(), options);
        Self {
            ada: server.tenant("ada", base, some()),
            ben: server.tenant("ben", base + 1, some()),
            server,
        }
    }

    fn new(base: u32) -> Self {
        Self::with(base, &[])
    }

    fn storage(&self, user: &str) -> u64 {
        let gb = self.server.usage(user)["reservedStorageGB"]
            .as_f64()
            .unwrap();
        (gb * f64::from(1 << 30)).round() as u64
    }

    /// The engine's references in this instance's spaces.
    fn references(&self) -> Vec<String> {
        let listed = self
            .server
            .docker(&["images", "--format", "{{.Repository}}:{{.Tag}}"]);
        let ours = format!("plimsoll.invalid/{}/", self.server.instance());
        let text = String::from_utf8_lossy(&listed.stdout).into_owned();
        text.lines()
            .filter(|l| l.starts_with(&ours))
            .map(str::to_owned)
            .collect()
    }
}

impl Drop for House {
    fn drop(&mut self) {
        let label = format!("label=plimsoll.instance={}", self.server.instance());
        let listed = self.server.docker(&["ps", "-aq", "--filter", &label]);
        for id in String::from_utf8_lossy(&listed.stdout).split_whitespace() {
            self.server.docker(&["rm", "-f", id]);
        }
        for reference in self.references() {
            self.server.docker(&["rmi", "-f", &reference]);
        }
    }
}

fn id_of(tenant: &Tenant, name: &str) -> String {
    tenant.ok(&["image", "inspect", "-f", "{{.Id}}", name])
}

fn tags(tenant: &Tenant) -> Vec<String> {
    let text = tenant.ok(&["images", "--format", "{{.Repository}}:{{.Tag}}"]);
    text.lines().map(str::to_owned).collect()
}

/// An image of the tenant's own with something of theirs in it.
fn make(tenant: &Tenant, name: &str, mark: &str) -> String {
    let container = format!("make-{mark}");
    let script = format!("echo {mark} > /mark; head -c 1000000 /dev/urandom > /big");
    tenant.ok(&[
        "run", "--name", &container, "--memory", "64m", IMAGE, "sh", "-c", &script,
    ]);
    let id = tenant.ok(&["commit", &container, name]);
    tenant.ok(&["rm", &container]);
    id
}

fn mark(tenant: &Tenant, name: &str) -> String {
    tenant.ok(&["run", "--rm", "--memory", "64m", name, "cat", "/mark"])
}

/// Runs docker with bytes at its input.
fn fed(tenant: &Tenant, args: &[&str], input: &[u8]) -> Said {
    common::fed(tenant.command(args).env("DOCKER_BUILDKIT", "0"), input)
}

/// A tar archive by the host's own tar, of files with these texts.
fn tar(files: &[(&str, &str)]) -> Vec<u8> {
    let dir = tempfile::tempdir().unwrap();
    for (path, text) in files {
        let path = dir.path().join(path);
        std::fs::create_dir_all(path.parent().unwrap()).unwrap();
        std::fs::write(path, text).unwrap();
    }
    let made = Command::new("tar")
        .arg("-C")
        .arg(dir.path())
        .args(["-c", "."])
        .output()
        .unwrap();
    assert!(made.status.success());
    made.stdout
}

#[test]
fn two_tenants_have_the_same_tags_and_never_meet() {
    let house = House::new(64_000);
    let (ada, ben) = (&house.ada, &house.ben);
    let one = make(ada, "myapp:1", "one");
    let two = make(ben, "myapp:1", "two");
    assert_ne!(one, two);
    assert_eq!(
        (mark(ada, "myapp:1"), mark(ben, "myapp:1")),
        ("one".into(), "two".into())
    );
    assert!(tags(ada).contains(&"myapp:1".to_owned()), "{:?}", tags(ada));
    // Another's image is not there, by name, by id or by a part of it.
    for name in [one.as_str(), &one[7..], &one[7..19]] {
        for command in ["inspect", "history", "rm", "save"] {
            let said = ben.refused(&["image", command, name]);
            assert!(said.contains("No such image"), "{command} {name}: {said}");
        }
        assert!(
            ben.refused(&["tag", name, "stolen"])
                .contains("No such image")
        );
        assert!(ben.docker(&["create", name, "true"]).code != 0);
    }
    for tenant in [ada, ben] {
        let all = tenant.ok(&["images", "-a", "--digests", "--no-trunc"]);
        assert!(!all.contains("plimsoll.invalid"), "{all}");
        let shown =
            tenant.ok(&["inspect", "myapp:1"]) + &tenant.ok(&["history", "--no-trunc", "myapp:1"]);
        assert!(
            !shown.contains("plimsoll.invalid") && !shown.contains("plimsoll.user"),
            "{shown}"
        );
    }
    // One's own name hides everybody's, for oneself alone.
    let public = id_of(ben, IMAGE);
    ada.ok(&["tag", "myapp:1", IMAGE]);
    assert_eq!(
        (id_of(ada, IMAGE), id_of(ben, IMAGE)),
        (one.clone(), public.clone())
    );
    assert_eq!(tags(ada).iter().filter(|t| t.starts_with(IMAGE)).count(), 1);
    ada.ok(&["rmi", IMAGE]);
    assert_eq!(id_of(ada, IMAGE), public);
    // Names that are given are told to their owner alone.
    let events = |tenant: &Tenant| {
        let args = [
            "events",
            "--since",
            "10m",
            "--until",
            "0s",
            "--filter",
            "type=image",
        ];
        tenant.ok(&args)
    };
    assert!(
        events(ada).contains("image tag") && events(ada).contains("name=myapp:1"),
        "{}",
        events(ada)
    );
    assert!(
        !events(ada).contains("plimsoll.invalid") && !events(ben).contains(&one),
        "{}",
        events(ben)
    );
    // Containers show the name they were made by.
    ada.ok(&[
        "create", "--name", "cc", "--memory", "64m", "myapp:1", "true",
    ]);
    assert_eq!(ada.ok(&["ps", "-a", "--format", "{{.Image}}"]), "myapp:1");
    assert_eq!(
        ada.ok(&["ps", "-aq", "--filter", "ancestor=myapp:1"])
            .lines()
            .count(),
        1
    );
    assert_eq!(ben.ok(&["ps", "-aq", "--filter", "ancestor=myapp:1"]), "");
}

#[test]
fn what_is_everybodys_stays_as_it_is() {
    let house = House::new(64_010);
    let ada = &house.ada;
    let before = house
        .server
        .docker(&["inspect", "-f", "{{.Id}}", IMAGE])
        .stdout;
    for args in [
        vec!["rmi", IMAGE],
        vec!["rmi", "-f", IMAGE],
        vec!["rmi", "-f", &id_of(ada, IMAGE)],
        vec![
            "tag",
            IMAGE,
            "plimsoll.invalid/plimsoll/u0/docker.io/library/x:1",
        ],
        vec!["tag", IMAGE, "UPPER"],
        vec!["tag", "nothing", "x"],
        vec!["pull", "busybox"],
        vec!["import", "http://127.0.0.1/x.tar", "x"],
        vec!["search", "x"],
        vec!["manifest", "inspect", "busybox"],
    ] {
        let said = ada.docker(&args);
        assert_ne!(said.code, 0, "docker {args:?} was not refused");
        assert!(
            !said.err.trim().is_empty(),
            "docker {args:?} was refused without a word"
        );
    }
    let after = house
        .server
        .docker(&["inspect", "-f", "{{.Id}}", IMAGE])
        .stdout;
    assert_eq!(before, after);
    // A name of one's own for it costs nothing, and goes again.
    ada.ok(&["tag", IMAGE, "mine:1"]);
    assert_eq!(house.storage("ada"), 0);
    ada.ok(&["rmi", "mine:1"]);
    assert_eq!(house.references(), Vec::<String>::new());
}

#[test]
fn an_administrator_keeps_an_image_from_tenants() {
    let house = House::new(64_080);
    let (ada, server) = (&house.ada, &house.server);
    // A name of this test's, since the engine's images are everybody's.
    let name = format!("plimsoll-{}/tool:1", server.instance());
    server.docker(&["tag", IMAGE, &name]);
    ada.ok(&["image", "inspect", &name]);
    assert!(tags(ada).contains(&name));
    let mark = |private: bool| json!({"reference": name, "private": private});
    let full = server.put("/api/images", mark(true))["reference"].clone();
    assert_eq!(full, format!("docker.io/{name}"));
    assert_eq!(server.get("/api/images")["items"][0]["reference"], full);
    for args in [
        ["image", "inspect", &name],
        ["history", "-q", &name],
        ["tag", &name, "x"],
    ] {
        assert!(ada.refused(&args).contains("No such image"), "{args:?}");
    }
    let said = build(ada, &[], &[("Dockerfile", &format!("FROM {name}\n"))]);
    assert!(said.err.contains("No such image"), "{said:?}");
    assert!(!tags(ada).contains(&name));
    // One of their own may be called so.
    ada.ok(&["tag", IMAGE, &name]);
    ada.ok(&["image", "inspect", &name]);
    ada.ok(&["rmi", &name]);
    server.put("/api/images", mark(false));
    ada.ok(&["image", "inspect", &name]);
    assert_eq!(server.get("/api/images")["items"], json!([]));
    server.docker(&["rmi", &name]);
    let (status, _) = server.api(
        "PUT",
        "/api/images",
        Some(&json!({"reference": "A B", "private": true})),
    );
    assert_eq!(status, 422);
}

#[test]
fn images_are_charged_once_and_freed_when_they_go() {
    let house = House::new(64_020);
    let ada = &house.ada;
    make(ada, "one", "one");
    let first = house.storage("ada");
    assert!(
        (1_000_000..1_100_000).contains(&first),
        "only its own layer: {first}"
    );
    ada.ok(&["tag", "one", "two"]);
    assert_eq!(house.storage("ada"), first, "two names are one image");
    // The name moves on; the image stays, without a name, until it is removed.
    make(ada, "one", "next");
    ada.ok(&["rmi", "two"]);
    assert!(house.storage("ada") > first);
    make(ada, "other", "third");
    ada.ok(&["tag", "other", "one"]);
    let listed = ada.ok(&["images", "-qf", "dangling=true"]);
    assert_eq!(listed.lines().count(), 1, "{listed}");
    ada.ok(&["image", "prune", "-f"]);
    assert_eq!(ada.ok(&["images", "-qf", "dangling=true"]), "");
    let one_image = house.storage("ada");
    assert!((1_000_000..1_100_000).contains(&one_image), "{one_image}");
    // In use is in use.
    ada.ok(&["create", "--name", "user", "--memory", "64m", "one", "true"]);
    assert!(ada.refused(&["rmi", "one", "other"]).contains("conflict"));
    ada.ok(&["rm", "user"]);
    ada.docker(&["rmi", "-f", "one", "other"]);
    assert_eq!(house.storage("ada"), 0);
    assert_eq!(house.references(), Vec::<String>::new());
    // What does not fit does not come to be.
    house
        .server
        .put("/api/quotas/user/ada", json!({"maxStorageGB": 1.0005}));
    ada.ok(&[
        "run",
        "--name",
        "big",
        "--memory",
        "64m",
        IMAGE,
        "sh",
        "-c",
        "head -c 2000000 /dev/urandom > /big",
    ]);
    let said = ada.refused(&["commit", "big", "big"]);
    assert!(
        said.contains("quota exceeded") && said.contains("storage"),
        "{said}"
    );
    assert_eq!(house.references(), Vec::<String>::new());
}

#[test]
fn archives_go_out_and_come_back_under_ones_own_names() {
    let house = House::new(64_030);
    let (ada, ben) = (&house.ada, &house.ben);
    make(ada, "app:1", "from-ada");
    let saved = ada.command(&["save", "app:1", IMAGE]).output().unwrap();
    assert!(saved.status.success());
    let text = String::from_utf8_lossy(&saved.stdout);
    assert!(text.contains("app:1") && !text.contains("plimsoll.invalid"));
    let said = fed(ben, &["load"], &saved.stdout);
    assert_eq!(said.code, 0, "{said:?}");
    assert!(said.out.contains("Loaded image: app:1"), "{said:?}");
    assert_eq!(mark(ben, "app:1"), "from-ada");
    assert!(
        (1_000_000..1_100_000).contains(&house.storage("ben")),
        "everybody's layers are not ben's"
    );
    ben.ok(&["rmi", "app:1"]);
    assert_eq!(mark(ada, "app:1"), "from-ada");

    // An archive that claims everybody's name: it is ben's own, and nobody else's.
    let public = id_of(ada, IMAGE);
    make(ben, IMAGE, "evil");
    let evil = ben.command(&["save", IMAGE]).output().unwrap();
    assert_eq!(fed(ada, &["load"], &evil.stdout).code, 0);
    ada.ok(&["rmi", IMAGE]);
    assert_eq!(id_of(ada, IMAGE), public);
    ben.docker(&["rmi", IMAGE]);

    // A file system becomes an image.
    ada.ok(&["create", "--name", "fs", "--memory", "64m", "app:1", "true"]);
    let id = house.server.full_id("ada", "fs");
    let exported = house.server.docker(&["export", &id]).stdout;
    let said = fed(
        ada,
        &["import", "-c", "CMD cat /mark", "-", "flat:1"],
        &exported,
    );
    assert_eq!(said.code, 0, "{said:?}");
    assert_eq!(
        ada.ok(&["run", "--rm", "--memory", "64m", "flat:1"]),
        "from-ada"
    );
    let said = fed(ada, &["import", "-c", "RUN x", "-", "flat:2"], &exported);
    assert!(said.err.contains("not a valid change"), "{said:?}");

    // What is more than there is room for is cut off, and leaves nothing.
    house
        .server
        .put("/api/quotas/user/ben", json!({"maxStorageGB": 0.0005}));
    for (args, input) in [
        (vec!["load"], &saved.stdout),
        (vec!["import", "-", "x"], &exported),
    ] {
        let said = fed(ben, &args, input);
        assert_ne!(said.code, 0, "{args:?}");
        assert!(said.err.contains("storage"), "{args:?}: {said:?}");
    }
    for (what, input) in [
        ("no archive", b"hello".to_vec()),
        ("no images", tar(&[("x", "y")])),
        (
            "a name in a space",
            tar(&[(
                "manifest.json",
                r#"[{"Config":"c.json","RepoTags":["plimsoll.invalid/x/u0/docker.io/library/y:1"],"Layers":[]}]"#,
            )]),
        ),
        (
            "a config that is none",
            tar(&[
                (
                    "manifest.json",
                    r#"[{"Config":"c.json","RepoTags":["a:1"],"Layers":[]}]"#,
                ),
                ("c.json", "x"),
            ]),
        ),
    ] {
        let said = fed(ada, &["load"], &input);
        assert_ne!(said.code, 0, "{what}");
        assert!(!said.err.trim().is_empty(), "{what}");
    }
    // To know what a layer is called is not to have it.
    let theirs = ada.ok(&["image", "inspect", "-f", "{{json .RootFS.Layers}}", "app:1"]);
    let layers: Vec<String> = serde_json::from_str(&theirs).unwrap();
    let config = json!({"architecture": "amd64", "os": "linux", "config": {}, "history": [],
                        "rootfs": {"type": "layers", "diff_ids": layers}});
    let files: Vec<String> = (0..layers.len()).map(|n| format!("{n}.tar")).collect();
    let manifest =
        json!([{"Config": "c.json", "RepoTags": ["stolen:1"], "Layers": files}]).to_string();
    let config = config.to_string();
    let mut stolen = vec![
        ("manifest.json", manifest.as_str()),
        ("c.json", config.as_str()),
    ];
    stolen.extend(files.iter().map(|name| (name.as_str(), "")));
    let said = fed(ada, &["load"], &tar(&stolen));
    assert!(said.err.contains("not in the archive"), "{said:?}");
    assert!(
        !house.references().iter().any(|r| r.contains("/coming:")),
        "{:?}",
        house.references()
    );
    assert_eq!(house.storage("ben"), 0);
}

/// Builds from these files, with the classic builder.
fn build(tenant: &Tenant, options: &[&str], files: &[(&str, &str)]) -> Said {
    let mut args = vec!["build"];
    args.extend(options);
    args.push("-");
    fed(tenant, &args, &tar(files))
}

fn built(tenant: &Tenant, options: &[&str], files: &[(&str, &str)]) -> String {
    let said = build(tenant, options, files);
    assert_eq!(said.code, 0, "{options:?}: {said:?}");
    said.out
}

#[test]
fn a_build_finds_its_owners_images_and_no_others() {
    let house = House::new(64_040);
    let (ada, ben) = (&house.ada, &house.ben);
    make(ada, "base:1", "adas-base");
    make(ben, "base:1", "bens-base");
    let files = [
        (
            "Dockerfile",
            "ARG V=1\nFROM base:$V AS first\nRUN cp /mark /copy\nFROM base:1\nCOPY --from=first /copy /two\nCOPY note /\nCMD cat /two /note\n",
        ),
        ("note", "noted\n"),
    ];
    for (tenant, base) in [(ada, "adas-base"), (ben, "bens-base")] {
        let out = built(tenant, &["-t", "app:1", "-t", "other/app"], &files);
        assert!(
            out.contains("Step 2/7 : FROM base:1") && out.contains("Successfully tagged app:1"),
            "{out}"
        );
        assert!(
            !out.contains("plimsoll.invalid") && !out.contains("sha256:"),
            "{out}"
        );
        let ran = tenant.ok(&["run", "--rm", "--memory", "64m", "app:1"]);
        assert_eq!(ran, format!("{base}\nnoted"));
        assert!(tags(tenant).contains(&"other/app:latest".to_owned()));
    }
    // Built again it is the same image, by steps of one's own.
    let before = id_of(ada, "base:1");
    built(
        ada,
        &["-q", "-t", "again"],
        &[(
            "Dockerfile",
            "FROM base:1\nRUN echo a > /a\nRUN echo b > /b\n",
        )],
    );
    let out = built(
        ada,
        &["-t", "again2"],
        &[(
            "Dockerfile",
            "FROM base:1\nRUN echo a > /a\nRUN echo b > /b\n",
        )],
    );
    assert!(out.contains("Using cache"), "{out}");
    assert_eq!(id_of(ada, "base:1"), before);

    // Nothing of another's: by name, by id, as a source of files, in a trigger.
    let theirs = make(ben, "private:1", "secret");
    let id = &theirs[7..];
    for dockerfile in [
        "FROM private:1\n".to_owned(),
        format!("FROM {theirs}\n"),
        format!("FROM {id}\n"),
        format!("FROM {}\n", &id[..12]),
        format!("FROM busybox\nCOPY --from={theirs} /mark /mark\n"),
        format!("FROM {IMAGE}\nCOPY --from={} /mark /mark\n", &id[..12]),
        format!("FROM {IMAGE}\nONBUILD COPY --from={theirs} /mark /mark\n"),
        format!("ARG X={theirs}\nFROM $X\n"),
        format!("FROM {IMAGE}\nADD http://127.0.0.1:1/ /x\n"),
        format!("FROM {IMAGE}\nRUN true \\\n# comment\n&& true\nFROM private:1\n"),
        "FROM plimsoll.invalid/x/u0/docker.io/library/private:1\n".to_owned(),
    ] {
        let said = build(ada, &["-t", "stolen"], &[("Dockerfile", &dockerfile)]);
        assert_ne!(said.code, 0, "{dockerfile}: {said:?}");
        assert!(!said.err.contains("http: "), "{dockerfile}: {said:?}");
    }
    assert!(!tags(ada).contains(&"stolen:latest".to_owned()));
    // A step of another's image is not used again, even where it would be the same.
    let evil = "echo good > /x";
    ben.ok(&[
        "run",
        "--name",
        "evil",
        "--memory",
        "64m",
        "--entrypoint",
        "",
        IMAGE,
        "/bin/sh",
        "-c",
        evil,
    ]);
    ben.ok(&["commit", "evil", "evil:1"]);
    built(
        ben,
        &["-t", "evil:2"],
        &[("Dockerfile", &format!("FROM {IMAGE}\nRUN {evil}\n"))],
    );
    let out = built(
        ada,
        &["-t", "good"],
        &[("Dockerfile", &format!("FROM {IMAGE}\nRUN {evil}\n"))],
    );
    assert!(!out.contains("Using cache"), "{out}");

    for (options, word) in [
        (vec!["--network=host"], "--network host"),
        (vec!["--cgroup-parent=/x"], "--cgroup-parent"),
        (vec!["--security-opt=seccomp=unconfined"], "--security-opt"),
        (vec!["--ulimit=nofile=1"], "--ulimit"),
        (vec!["--platform=linux/arm64"], "--platform"),
        (vec!["-t", "plimsoll.invalid/x:1"], "invalid"),
    ] {
        let said = build(ada, &options, &[("Dockerfile", &format!("FROM {IMAGE}\n"))]);
        assert_ne!(said.code, 0, "{options:?}");
        assert!(said.err.contains(word), "{options:?}: {said:?}");
    }
    let remote = ada
        .command(&["build", "http://127.0.0.1:1/x.git"])
        .env("DOCKER_BUILDKIT", "0")
        .output()
        .unwrap();
    assert!(!remote.status.success());
    for path in ["session", "grpc", "build?version=2", "build?session=x"] {
        let socket = house.server.path("docker.sock");
        let asked = Command::new("curl")
            .args(["-sX", "POST", "--data-binary", "", "--unix-socket"])
            .arg(socket)
            .arg(format!("http://d/v1.41/{path}"))
            .uid(ada.uid)
            .output()
            .unwrap();
        let said = String::from_utf8_lossy(&asked.stdout).into_owned();
        assert!(said.contains("DOCKER_BUILDKIT=0"), "{path}: {said}");
    }
}

#[test]
fn a_context_arrives_as_it_was_sent() {
    let house = House::new(64_100);
    let dir = tempfile::tempdir().unwrap();
    let long = "d".repeat(90) + "/" + &"e".repeat(90);
    let script = format!(
        "mkdir -p {long} empty; echo 1 > {long}/f; echo 2 > run; chmod 4751 run; ln -s run link; ln -s /etc/passwd out; \
         ln run hard; ln -s ../d up; chown 1234:4321 {long}/f; chmod 700 empty; touch -d @1000000000 {long}/f run; \
         echo ignored > skip; echo skip > .dockerignore; ln -s dangling 'a b'"
    );
    let dockerfile = format!(
        "FROM {IMAGE}\nCOPY . /ctx\nWORKDIR /ctx\nCMD find . -mindepth 1 ! -name Dockerfile | sort | \\\n\
         while read f; do stat -c \"%n %f %u %g %s %Y %N\" \"$f\"; done\n"
    );
    std::fs::write(dir.path().join("Dockerfile"), dockerfile).unwrap();
    let done = Command::new("sh")
        .args(["-c", &script])
        .current_dir(dir.path())
        .status()
        .unwrap();
    assert!(done.success());
    let context = Command::new("tar")
        .arg("-C")
        .arg(dir.path())
        .args(["-cz", "."])
        .output()
        .unwrap()
        .stdout;
    let direct = Tenant {
        uid: 0,
        host: common::engine(),
    };
    let name = format!("plimsoll-{}/direct", house.server.instance());
    let said = fed(&direct, &["build", "-q", "-t", &name, "-"], &context);
    assert_eq!(said.code, 0, "{said:?}");
    let said = fed(&house.ada, &["build", "-q", "-t", "ctx", "-"], &context);
    assert_eq!(said.code, 0, "{said:?}");
    let expected = direct.ok(&["run", "--rm", &name]);
    direct.ok(&["rmi", &name]);
    let got = house.ada.ok(&["run", "--rm", "--memory", "64m", "ctx"]);
    assert!(
        expected.contains("41c0") && expected.contains("./hard"),
        "{expected}"
    );
    assert_eq!(got, expected);
}

#[test]
fn a_build_is_charged_while_it_runs_and_leaves_nothing_it_does_not_own() {
    let house = House::new(64_050);
    let ada = &house.ada;
    let slow = format!(
        "FROM {IMAGE}\nRUN head -c 500000 /dev/urandom > /a\nRUN sleep 5; cat /sys/fs/cgroup/memory/memory.limit_in_bytes\nRUN false\n"
    );
    let context = tar(&[("Dockerfile", &slow)]);
    std::thread::scope(|scope| {
        let building =
            scope.spawn(|| fed(ada, &["build", "-m", "100m", "-t", "slow", "-"], &context));
        wait_for("the charge of a build", || {
            (house.server.usage("ada")["reservedMemoryGB"].as_f64()? * 1024.0 > 99.0).then_some(())
        });
        assert_eq!(house.server.usage("ada")["reservedConcurrentContainers"], 1);
        // What is left is less by that.
        let said = ada.refused(&["run", "--rm", "--memory", "450m", IMAGE, "true"]);
        assert!(said.contains("quota exceeded"), "{said}");
        let said = building.join().unwrap();
        assert_ne!(said.code, 0);
        assert!(said.out.contains(&(100 << 20).to_string()), "{said:?}");
        let steps = said
            .out
            .lines()
            .filter_map(|l| l.trim_end().strip_prefix(" ---> "));
        let steps: Vec<&str> = steps.filter(|id| id.len() == 12).skip(1).collect();
        assert!(!steps.is_empty(), "{said:?}");
        wait_for("the steps of a failed build to go", || {
            let seen = |id: &&str| {
                house
                    .server
                    .docker(&["image", "inspect", id])
                    .status
                    .success()
            };
            (!steps.iter().any(seen)).then_some(())
        });
    });
    wait_for("the charge to end", || {
        (house.server.usage("ada")["reservedMemoryGB"] == 0.0).then_some(())
    });
    assert_eq!((house.storage("ada"), house.references().len()), (0, 0));

    // A client that leaves ends its build.
    let mut client = ada.command(&["build", "-t", "gone", "-"]);
    let mut client = client
        .env("DOCKER_BUILDKIT", "0")
        .stdin(Stdio::piped())
        .stdout(Stdio::null())
        .spawn()
        .unwrap();
    std::io::Write::write_all(&mut client.stdin.take().unwrap(), &context).unwrap();
    wait_for("the charge", || {
        (house.server.usage("ada")["reservedConcurrentContainers"] == 1).then_some(())
    });
    client.kill().unwrap();
    client.wait().unwrap();
    wait_for("the charge to end", || {
        (house.server.usage("ada")["reservedConcurrentContainers"] == 0).then_some(())
    });

    // More than fits is not kept.
    house
        .server
        .put("/api/quotas/user/ada", json!({"maxStorageGB": 0.002}));
    let big = format!("FROM {IMAGE}\nRUN head -c 4000000 /dev/urandom > /a\n");
    let said = build(ada, &["-t", "big"], &[("Dockerfile", &big)]);
    assert!(
        said.code != 0 && said.err.contains("quota exceeded"),
        "{said:?}"
    );
    assert_eq!((house.storage("ada"), house.references().len()), (0, 0));
    // Nor begun where a step could not run.
    house.server.put(
        "/api/quotas/user/ada",
        json!({"maxConcurrentContainers": 0}),
    );
    let said = build(ada, &["-t", "none"], &[("Dockerfile", &big)]);
    assert!(said.code != 0 && said.err.contains("running"), "{said:?}");
}

#[test]
fn what_a_crash_leaves_is_mended() {
    let mut house = House::with(
        64_060,
        &[
            "--set",
            "reconcile.interval_s=1",
            "--set",
            "reservations.gateway_ttl_s=1",
        ],
    );
    make(&house.ada, "kept:1", "kept");
    let charged = house.storage("ada");
    house.server.crash();
    // An upload that never ended, a holder that is gone, and a charge that is not what there is.
    let reference = house.references().remove(0);
    let space = reference.split('/').take(3).collect::<Vec<_>>().join("/");
    house.server.docker(&[
        "tag",
        IMAGE,
        &format!("{space}/coming:00000000000000000000000000000001-0"),
    ]);
    let held = house
        .references()
        .into_iter()
        .find(|r| r.contains("/held:"))
        .unwrap();
    house.server.docker(&["rmi", &held]);
    house.server.restart();
    wait_for("the references to be mended", || {
        let all = house.references();
        (all.contains(&held) && !all.iter().any(|r| r.contains("/coming:"))).then_some(())
    });
    assert_eq!(house.storage("ada"), charged);
    // Gone behind Plimsoll's back is gone from the charge.
    for reference in house.references() {
        house.server.docker(&["rmi", &reference]);
    }
    wait_for("the charge to follow", || {
        (house.storage("ada") == 0).then_some(())
    });
    // Who is gone leaves no images.
    make(&house.ben, "bens:1", "bens");
    let (status, _) = house
        .server
        .api("DELETE", "/api/users/ben?drain=true", None);
    assert_eq!(status, 202);
    wait_for("a drained user to go with their images", || {
        let gone = house.server.api("GET", "/api/users/ben", None).0 == 404;
        (gone && house.references().is_empty()).then_some(())
    });
}

/// A registry on loopback that asks for a login.
struct Registry {
    process: std::process::Child,
    address: String,
    _dir: tempfile::TempDir,
}

const PASSWORD: &str = "Hunter2-Geheim";

impl Registry {
    fn start() -> Self {
        let dir = tempfile::tempdir().unwrap();
        let port = std::net::TcpListener::bind("127.0.0.1:0")
            .unwrap()
            .local_addr()
            .unwrap()
            .port();
        let at = |name: &str| dir.path().join(name);
        std::fs::write(
            at("htpasswd"),
            "ada:$2b$04$dQIvX5tLekJ.8ZUiXe4MJ.r19nfMIDqACQr2YHGXyipmsYL7cywdC\n",
        )
        .unwrap();
        let config = format!(
            "version: 0.1\nlog: {{level: error}}\nstorage: {{filesystem: {{rootdirectory: {0}/data}}}}\n\
             http: {{addr: '127.0.0.1:{port}', secret: x}}\nauth: {{htpasswd: {{realm: x, path: {0}/htpasswd}}}}\n",
            dir.path().display()
        );
        std::fs::write(at("config.yml"), config).unwrap();
        let process = Command::new("docker-registry")
            .arg("serve")
            .arg(at("config.yml"))
            .stdout(Stdio::null())
            .stderr(Stdio::null())
            .spawn()
            .expect("docker-registry is installed (scripts/test.sh)");
        let address = format!("127.0.0.1:{port}");
        wait_for("the registry", || {
            std::net::TcpStream::connect(&address).ok()
        });
        Self {
            process,
            address,
            _dir: dir,
        }
    }
}

impl Drop for Registry {
    fn drop(&mut self) {
        let _ = self.process.kill();
        let _ = self.process.wait();
    }
}

#[test]
fn registries_on_the_list_are_reached_and_no_others() {
    let registry = Registry::start();
    let at = registry.address.as_str();
    let house = House::with(64_070, &["--set", &format!("registries.allow={at}/open")]);
    let (ada, ben) = (&house.ada, &house.ben);
    let home = tempfile::tempdir().unwrap();
    std::os::unix::fs::chown(home.path(), Some(ada.uid), Some(ada.uid)).unwrap();
    let run = |args: &[&str]| {
        let output = ada
            .command(args)
            .env("HOME", home.path())
            .env("DOCKER_BUILDKIT", "0")
            .output()
            .unwrap();
        let text = |bytes: &[u8]| String::from_utf8_lossy(bytes).into_owned();
        (
            output.status.success(),
            text(&output.stdout) + &text(&output.stderr),
        )
    };
    let name = format!("{at}/open/app:1");
    make(ada, &name, "pushed");

    let (done, said) = run(&["push", &name]);
    assert!(!done, "nobody has logged in: {said}");
    let (done, said) = run(&["login", "-u", "ada", "-p", "wrong", at]);
    assert!(!done, "{said}");
    let (done, said) = run(&["login", "-u", "ada", "-p", PASSWORD, at]);
    assert!(done, "{said}");
    let (done, said) = run(&["login", "-u", "ada", "-p", PASSWORD, "127.0.0.1:1"]);
    assert!(!done && said.contains("ask an administrator"), "{said}");
    let (done, pushed) = run(&["push", &name]);
    assert!(done && pushed.contains("digest: sha256:"), "{pushed}");
    // Nothing of it stays under the registry's own name.
    let global = house
        .server
        .docker(&["images", "-a", "--digests", "--format", "{{.Repository}}"])
        .stdout;
    assert!(!String::from_utf8_lossy(&global).contains(at), "{global:?}");
    assert!(ben.refused(&["inspect", &name]).contains("No such"));

    let closed = format!("{at}/closed/app:1");
    ada.ok(&["tag", &name, &closed]);
    for args in [
        vec!["push", &closed],
        vec!["pull", &closed],
        vec!["pull", "busybox"],
        vec!["pull", "-a", &name[..name.len() - 2]],
    ] {
        let (done, said) = run(&args);
        assert!(!done && said.contains("plimsoll"), "{args:?}: {said}");
    }
    ada.ok(&["rmi", &closed]);
    ada.ok(&["rmi", &name]);
    assert_eq!(house.storage("ada"), 0);

    let (done, said) = run(&["pull", &name]);
    assert!(done, "{said}");
    assert_eq!(mark(ada, &name), "pushed");
    assert!(
        (1_000_000..1_100_000).contains(&house.storage("ada")),
        "{}",
        house.storage("ada")
    );
    let global = house
        .server
        .docker(&[
            "images",
            "-a",
            "--digests",
            "--format",
            "{{.Repository}}@{{.Digest}}",
        ])
        .stdout;
    assert!(
        !String::from_utf8_lossy(&global)
            .lines()
            .any(|l| l.starts_with(at)),
        "{global:?}"
    );
    // Who may not ask the registry does not get it from the host either.
    let said = ben.refused(&["pull", &name]);
    assert!(!said.contains("Downloaded"), "{said}");
    ada.ok(&["rmi", &name]);
    // By its digest it is there by its digest.
    let digest = said_digest(&pushed);
    let pinned = format!("{at}/open/app@{digest}");
    let (done, said) = run(&["pull", &pinned]);
    assert!(done, "{said}");
    assert_eq!(mark(ada, &pinned), "pushed");
    assert_eq!(
        ada.ok(&[
            "image",
            "inspect",
            "-f",
            "{{.RepoTags}} {{.RepoDigests}}",
            &pinned
        ]),
        format!("[] [{pinned}]")
    );
    ada.ok(&["rmi", &pinned]);
    // A build pulls what it lacks.
    let dir = tempfile::tempdir().unwrap();
    std::fs::write(
        dir.path().join("Dockerfile"),
        format!("FROM {name}\nCMD cat /mark\nCOPY --from={pinned} /mark /again\n"),
    )
    .unwrap();
    std::fs::set_permissions(
        dir.path(),
        std::os::unix::fs::PermissionsExt::from_mode(0o755),
    )
    .unwrap();
    let (done, said) = run(&["build", "-t", "made", dir.path().to_str().unwrap()]);
    assert!(done, "{said}");
    assert_eq!(
        ada.ok(&["run", "--rm", "--memory", "64m", "made"]),
        "pushed"
    );

    // More than fits is not kept.
    ada.ok(&["rmi", "made", &name, &pinned]);
    house
        .server
        .put("/api/quotas/user/ada", json!({"maxStorageGB": 0.0001}));
    let (done, said) = run(&["pull", &name]);
    assert!(!done && said.contains("storage"), "{said}");
    assert_eq!(house.storage("ada"), 0);
    assert_eq!(house.references(), Vec::<String>::new());

    let log = std::fs::read_to_string(house.server.path("log")).unwrap();
    assert!(
        !log.contains(PASSWORD) && !log.contains("SHVudGVyMi1HZWhlaW"),
        "{log}"
    );
}

/// The digest that a push has told.
fn said_digest(said: &str) -> String {
    let (_, rest) = said.split_once("digest: ").unwrap();
    rest.split_whitespace().next().unwrap().to_owned()
}

#[test]
fn a_push_that_hangs_shows_nothing_and_a_crash_leaves_nothing() {
    // A registry that takes connections and never answers.
    let silent = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
    let name = format!("{}/app:1", silent.local_addr().unwrap());
    let allow = format!("registries.allow={}", silent.local_addr().unwrap());
    let mut house = House::with(64_090, &["--set", &allow]);
    make(&house.ada, &name, "hanging");
    let pushing = |house: &House| {
        let mut push = house.ada.command(&["push", &name]);
        push.stdout(Stdio::null()).stderr(Stdio::null());
        push.spawn().unwrap()
    };
    let mut push = pushing(&house);
    let on_engine = |house: &House| {
        let listed = house.server.docker(&["images", "-q", &name]).stdout;
        !listed.is_empty()
    };
    wait_for("the name to be on the engine", || {
        on_engine(&house).then_some(())
    });
    assert!(house.ben.docker(&["image", "inspect", &name]).code != 0);
    assert!(!tags(&house.ben).contains(&name));
    house.server.crash();
    push.kill().unwrap();
    push.wait().unwrap();
    assert!(on_engine(&house), "it is there, marked, until it is ended");
    house.server.restart();
    assert!(house.ben.docker(&["image", "inspect", &name]).code != 0);
    wait_for("the name to be gone", || (!on_engine(&house)).then_some(()));
    house.ada.ok(&["image", "inspect", &name]);
    // One that is given up is ended by itself.
    let mut push = pushing(&house);
    wait_for("the name to be on the engine", || {
        on_engine(&house).then_some(())
    });
    push.kill().unwrap();
    push.wait().unwrap();
    wait_for("the name to be gone", || (!on_engine(&house)).then_some(()));
}
