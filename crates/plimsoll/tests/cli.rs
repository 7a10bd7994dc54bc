//! The command line as people run it: the real binary against a real server.

mod common;

use std::fs;
use std::os::unix::fs::symlink;
use std::os::unix::process::CommandExt as _;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

use common::{Said, Server};
use serde_json::{Value, json};

const BINARY: &str = env!("CARGO_BIN_EXE_plimsoll");

/// Where a coverage run collects what a program did: the one variable that is kept.
fn kept() -> Option<(&'static str, std::ffi::OsString)> {
    let name = "LLVM_PROFILE_FILE";
    std::env::var_os(name).map(|value| (name, value))
}

/// The binary in an empty environment.
fn plimsoll() -> Command {
    program(Path::new(BINARY))
}

fn program(path: &Path) -> Command {
    let mut command = Command::new(path);
    command
        .env_clear()
        .envs(kept())
        .env("PATH", std::env::var_os("PATH").unwrap_or_default())
        .current_dir("/")
        .stdin(Stdio::null());
    command
}

fn run(command: &mut Command) -> Said {
    let output = command.output().expect("the binary runs");
    Said {
        code: output.status.code().unwrap_or(-1),
        out: String::from_utf8_lossy(&output.stdout).into_owned(),
        err: String::from_utf8_lossy(&output.stderr).into_owned(),
    }
}

/// Root at a terminal, with a server.
struct Desk(Server);

impl Desk {
    fn new() -> Self {
        Self(Server::without_engine())
    }

    fn said(&self, words: &str) -> Said {
        let socket = self.0.path("api.sock");
        run(plimsoll()
            .env("PLIMSOLL_API_SOCKET", socket)
            .args(words.split_whitespace()))
    }

    /// Runs it and expects this exit code; returns stdout.
    fn exits(&self, code: i32, words: &str) -> String {
        let said = self.said(words);
        assert_eq!(
            said.code, code,
            "plimsoll {words}: {} {}",
            said.out, said.err
        );
        said.out
    }

    fn ok(&self, words: &str) -> String {
        self.exits(0, words)
    }

    fn json(&self, words: &str) -> Value {
        serde_json::from_str(&self.ok(&format!("{words} --json"))).expect("JSON on stdout")
    }
}

/// The cells of a table's row that starts with this word.
fn row(table: &str, first: &str) -> Vec<String> {
    let line = table
        .lines()
        .find(|line| line.split_whitespace().next() == Some(first));
    let line = line.unwrap_or_else(|| panic!("no row {first} in\n{table}"));
    line.split("  ")
        .map(str::trim)
        .filter(|cell| !cell.is_empty())
        .map(str::to_owned)
        .collect()
}

#[test]
fn a_wrong_command_line_is_exit_2_and_says_what_is_wrong() {
    for (words, says) in [
        ("", "Usage: plimsoll"),
        ("usr list", "a similar subcommand exists: 'user'"),
        ("user add", "<NAME>"),
        ("user add ada --uid -1", "-1"),
        ("user add ada --uid many", "invalid digit"),
        (
            "user add ada --role boss",
            "possible values: member, viewer, admin",
        ),
        ("user set ada", "--uid"),
        ("user set ada --uid 5 --no-uid", "cannot be used with"),
        ("quota set user ada --memory lots", "is not a size"),
        ("quota set user ada --memory -1g", "must not be negative"),
        ("quota set user ada --memory 99999999t", "is too large"),
        ("quota set user ada --cpus nan", "must be a finite number"),
        (
            "quota set user ada --limit memmory=1g",
            "did you mean memory?",
        ),
        ("quota set user ada", "say what to change"),
        ("quota set user --memory 1g", "needs a name"),
        ("quota set system x --memory 1g", "only one system"),
        (
            "quota set user ada --pool --memory 1g",
            "only a team has a pool",
        ),
        (
            "team member add ml ada --memory unlimited",
            "always bounded",
        ),
        ("validate user ada --gpus 0.5", "whole"),
        ("token add --expires soon", "30d"),
        ("token add --admin --user ada", "cannot be used with"),
        ("decisions --limit 0", "1..=1000"),
        ("ps --state paused", "possible values"),
        ("serve --set metering.interval_s", "KEY=VALUE"),
        (
            "serve --set metering.interval=1",
            "did you mean metering.interval_s?",
        ),
        (
            "serve --listen nowhere",
            "--listen must be an address and a port",
        ),
        (
            "serve --gateway http://0.0.0.0:1",
            "--gateway must be a unix socket",
        ),
        ("serve --gateway tcp://0.0.0.0", "a port, like"),
        ("user cert ada --days 0", "1..=730"),
        ("user cert ada --endpoint https://h", "must be like tcp://"),
        (
            "ca init --host no/host --data-dir /nonexistent",
            "neither a host's name",
        ),
        ("serve --instance a-b", "cannot name an instance"),
        ("--url https://host usage", "TLS is not spoken here"),
        (
            "serve --config /nonexistent.toml",
            "cannot read the configuration /nonexistent.toml",
        ),
    ] {
        let said = run(plimsoll().args(words.split_whitespace()));
        assert_eq!(said.code, 2, "{words}: {} {}", said.out, said.err);
        assert!(said.err.contains(says), "{words}: {}", said.err);
        assert_eq!(said.out, "", "{words}");
    }
}

#[test]
fn a_wrong_configuration_is_exit_2_with_its_place() {
    let dir = tempfile::tempdir().unwrap();
    let file = dir.path().join("plimsoll.toml");
    for (text, says) in [
        (
            "lisen = \"127.0.0.1:1\"",
            ":1: unknown key lisen, did you mean listen?",
        ),
        (
            "\n[metering]\ninterval_s = 0\n",
            ":3: metering.interval_s must be from",
        ),
        ("listen = \n", ":1: "),
    ] {
        fs::write(&file, text).unwrap();
        let said = run(plimsoll().arg("serve").arg("--config").arg(&file));
        assert_eq!(said.code, 2, "{text}: {}", said.err);
        let place = format!("plimsoll: {}{says}", file.display());
        assert!(said.err.starts_with(&place), "{text}: {}", said.err);
    }
    let said = run(plimsoll()
        .arg("serve")
        .env("PLIMSOLL_METERING_INTERVAL_S", "often"));
    assert_eq!(said.code, 2);
    assert!(
        said.err
            .contains("PLIMSOLL_METERING_INTERVAL_S must be a number"),
        "{}",
        said.err
    );
}

#[test]
fn without_a_server_commands_end_with_5_and_the_next_step() {
    for words in [
        "usage",
        "user list --json",
        "--url http://127.0.0.1:1 usage",
    ] {
        let said = run(plimsoll()
            .env("PLIMSOLL_API_SOCKET", "/nonexistent/api.sock")
            .args(words.split_whitespace()));
        assert_eq!(said.code, 5, "{words}: {}", said.err);
        assert!(
            said.err.contains("no server answers at") && said.err.contains("next: "),
            "{}",
            said.err
        );
    }
    let said = run(plimsoll()
        .env("PLIMSOLL_API_SOCKET", "/nonexistent/api.sock")
        .arg("version"));
    assert_eq!(
        said.code, 0,
        "the own version needs no server: {}",
        said.err
    );
    assert!(said.out.contains("no answer"), "{}", said.out);
}

#[test]
fn an_administrator_makes_people_and_their_quotas() {
    let desk = Desk::new();
    desk.ok("user add ada --uid 71001 --email ada@example.org");
    desk.ok("user add ben --class student --role viewer");
    let said = desk.said("user add cleo");
    assert!(
        said.err.contains("--uid"),
        "a hint that the gateway needs a uid: {}",
        said.err
    );
    let taken = desk.said("user add ada");
    assert_eq!((taken.code, taken.out.as_str()), (1, ""), "{}", taken.err);
    assert_eq!(desk.exits(2, "user add Ada!"), "");

    let users = desk.ok("user list");
    assert_eq!(
        row(&users, "ada"),
        [
            "ada",
            "71001",
            "member",
            "active",
            "20000-20049",
            "ada@example.org"
        ]
    );
    assert_eq!(desk.json("user list")["items"].as_array().unwrap().len(), 3);

    desk.ok("user set ada --uid 71002 --no-email --reason moved");
    desk.ok("user suspend ada");
    assert_eq!(
        row(&desk.ok("user list"), "ada"),
        ["ada", "71002", "member", "suspended", "20000-20049", "-"]
    );
    desk.ok("user resume ada");
    assert!(desk.ok("user show ada").contains("active"));

    let quota = desk.ok("quota set user ada --cpus 1.5 --memory 2g --pids unlimited --mode shadow");
    assert!(
        quota.starts_with("user ada, mode shadow, class standard\n"),
        "{quota}"
    );
    let shown = desk.json("quota show user ada");
    assert_eq!(
        [
            &shown["maxCpuCores"],
            &shown["maxMemoryGB"],
            &shown["maxPids"],
            &shown["mode"]
        ],
        [&json!(1.5), &json!(2.0), &Value::Null, &json!("shadow")]
    );
    desk.ok("quota set system --limit cpu_percent=80% --overcommit 1.5");
    assert!(desk.ok("quota show system").contains("overcommit 1.5"));

    for (words, code) in [
        ("user show nobody", 4),
        ("user show ../users/ada", 4),
        ("quota show team nobody", 4),
        ("explain 019a0000-0000-7000-8000-000000000000", 4),
        ("user delete nobody", 4),
    ] {
        desk.exits(code, words);
    }
    let said = desk.said("user show nobody --json");
    let problem: Value = serde_json::from_str(&said.out).unwrap();
    assert_eq!(problem["code"], "not_found");
    assert!(said.err.contains("plimsoll user list"), "{}", said.err);
    desk.ok("user delete cleo");
    desk.exits(4, "user show cleo");
}

#[test]
fn a_team_has_members_a_pool_and_projects() {
    let desk = Desk::new();
    desk.ok("user add ada");
    desk.ok("user add ben");
    desk.ok("team add ml");
    let added =
        desk.ok("team member add ml ada --role lead --cpus 2 --memory 4g --borrow memory=1g");
    assert!(added.starts_with("added member ada of team ml"), "{added}");
    desk.ok("team member add ml ben --cpus 1 --memory 1g --pids 100");
    let again = desk.said("team member add ml ben --cpus 2");
    assert_eq!(again.code, 2);
    assert!(again.err.contains("team member set"), "{}", again.err);
    assert!(
        desk.said("team member set ml cleo --cpus 1")
            .err
            .contains("team member add")
    );
    let said = desk.said("team member set ml ben --cpus 1.5");
    assert_eq!((said.code, said.err.as_str()), (0, ""), "a container fits");
    let ben = row(&said.out, "ben");
    let own = ["ben", "member", "0", "1.5", "0 B", "1 GiB", "0", "5"];
    assert_eq!(ben, own, "how many may run is a copy of their own quota");

    desk.ok("team add web");
    let said = desk.said("team member add web ben --cpus 2 --memory 4g");
    let lacks = "ben cannot start a container in web: there is no storage, temp storage, containers, running, pids for them";
    assert!(said.err.contains(lacks), "{}", said.err);
    desk.ok("team delete web");

    // Shares of the host would make the figures those of the machine the test runs on.
    desk.ok("quota set team ml --limit cpu_percent=unlimited --limit memory_percent=unlimited");
    desk.ok("quota set team ml --pool --cpus 2 --memory 2g");
    desk.ok("user add dora");
    assert_eq!(
        desk.said("team member add ml dora").err,
        "",
        "a first team copies the own quota"
    );
    desk.ok("team member remove ml dora");
    let quota = desk.ok("quota show team ml");
    assert_eq!(
        row(&quota, "cpu"),
        ["cpu", "0", "5.5", "2", "0"],
        "reserved, limit, pool, borrowed"
    );
    let ada = row(&quota, "ada");
    assert_eq!(ada[..6], ["ada", "lead", "0", "2", "0 B", "4 GiB"]);

    let usage = desk.ok("usage user ada");
    let place = usage
        .split("in team ml, as lead\n")
        .nth(1)
        .expect("a part for the team");
    assert_eq!(
        row(place, "memory"),
        ["memory", "0 B", "4 GiB", "1 GiB", "5 GiB"],
        "reserved, allotment, borrow, free"
    );

    desk.ok("project add paper --team ml");
    assert_eq!(
        row(&desk.ok("project list"), "paper")[..2],
        ["paper", "team ml"]
    );
    desk.exits(4, "project delete essay");
    desk.ok("project delete paper");
    let said = desk.ok("image private tools");
    assert_eq!(
        said.trim(),
        "docker.io/library/tools:latest is kept from tenants"
    );
    assert!(
        desk.ok("image list")
            .contains("docker.io/library/tools:latest")
    );
    desk.ok("image public tools:latest");
    assert_eq!(desk.json("image list"), json!({"items": []}));
    assert_eq!(desk.json("project list"), json!({"items": []}));

    desk.ok("team member remove ml ben");
    desk.exits(4, "team member add nope ada");
    desk.ok("team delete ml");
    desk.exits(4, "team show ml");
}

#[test]
fn what_does_not_fit_is_exit_3_and_told_why() {
    let desk = Desk::new();
    desk.ok("user add ada");
    desk.ok("quota set user ada --memory 2g --cpus 2 --containers 5");
    assert_eq!(
        desk.ok("validate user ada --memory 512m --cpus 0.5"),
        "it fits\n"
    );
    let refused = desk.exits(3, "validate user ada --memory 4g");
    assert!(refused.starts_with("it does not fit\n"), "{refused}");
    assert!(
        refused.contains("memory: asked 4 GiB, 2 GiB of 2 GiB free for user ada"),
        "{refused}"
    );
    assert!(refused.contains("to make it fit\n"), "{refused}");
    let said = desk.said("validate user ada --memory 4g --json");
    let answer: Value = serde_json::from_str(&said.out).unwrap();
    assert_eq!((said.code, &answer["allowed"]), (3, &json!(false)));

    // A Compose file: the same, for all of its services together.
    let file = desk.0.path("compose.yaml");
    let command = format!("validate user ada -f {}", file.display());
    let write = |text: &str| std::fs::write(&file, text).unwrap();
    write("services: {web: {mem_limit: 512m, cpus: 0.5}, db: {mem_limit: 1g, cpus: 0.5}}\n");
    let fits = desk.ok(&command);
    assert!(fits.ends_with("it fits\n"), "{fits}");
    assert_eq!(
        row(&fits, "db")[1..],
        ["1", "cpu 0.5, memory 1 GiB", "fits"]
    );
    write("services: {web: {mem_limit: 512m, scale: 3}, db: {mem_limit: 4g}}\n");
    let refused = desk.exits(3, &command);
    assert!(refused.contains("it does not fit\n"), "{refused}");
    assert_eq!(row(&refused, "db")[3], "refused: memory");
    assert_eq!(row(&refused, "web")[3], "fits");
    write("services:\n  web: {mem_limit: [\n");
    let said = desk.said(&command);
    assert_eq!(said.code, 2);
    assert!(
        said.err.contains("compose.yaml") && said.err.contains("line 2"),
        "{said:?}"
    );
    assert_eq!(desk.said("validate user ada -f /nowhere.yaml").code, 1);

    let reserve = |name: &str, gb: f64| {
        let body = json!({"user": "ada", "containerName": name,
                          "resourceRequest": {"cpuCores": 0.5, "memoryGB": gb}});
        desk.0.api("POST", "/api/reservations", Some(&body))
    };
    // What would steer a terminal gets into no list.
    assert_eq!(reserve("nb\u{1b}[2J", 1.0).0, 422);
    assert_eq!(reserve("nb", 1.0).0, 201);
    assert_eq!(reserve("nb", 1.5).0, 403);
    let usage = desk.ok("usage user ada");
    let memory = row(&usage, "memory");
    assert_eq!(
        memory[2..],
        ["1 GiB", "2 GiB", "1 GiB"],
        "reserved, limit, free: {usage}"
    );
    let listed = desk.ok("ps --user ada");
    assert!(listed.contains("nb"), "{listed:?}");

    let why = desk.ok("why --user ada");
    assert!(
        why.contains("refused") && why.contains("in the way"),
        "{why}"
    );
    let all = desk.ok("decisions --user ada");
    assert!(
        all.contains("refused: memory") && all.contains("allowed"),
        "{all}"
    );
    assert!(all.lines().all(|line| line.chars().count() <= 80), "{all}");
    let refused = desk.json("decisions --refused");
    let id = refused["items"][0]["id"].as_str().unwrap();
    assert_eq!(refused["items"].as_array().unwrap().len(), 1);
    assert_eq!(desk.ok(&format!("explain {id}")), why);
    assert_eq!(
        desk.ok("why --user ada --json"),
        desk.ok(&format!("explain {id} --json"))
    );
    desk.ok("user add ben");
    assert_eq!(desk.ok("why --user ben"), "nothing was refused\n");
    assert!(desk.ok("usage").starts_with("system, "), "root is no user");
}

#[test]
fn tokens_open_the_api_over_tcp_until_they_are_revoked() {
    let desk = Desk::new();
    desk.ok("user add ada");
    let log = fs::read_to_string(desk.0.path("log")).unwrap();
    let port: String = log
        .split("127.0.0.1:")
        .nth(1)
        .expect("the log names the address")
        .chars()
        .take_while(char::is_ascii_digit)
        .collect();
    let url = format!("http://127.0.0.1:{port}");
    let with = |token: Option<&str>, words: &str| {
        let mut command = plimsoll();
        command
            .env("PLIMSOLL_URL", &url)
            .args(words.split_whitespace());
        if let Some(token) = token {
            command.env("PLIMSOLL_TOKEN", token);
        }
        run(&mut command)
    };
    let none = with(None, "usage");
    assert_eq!(none.code, 3, "{}", none.err);
    assert!(none.err.contains("--token-file"), "{}", none.err);
    let wrong = with(Some("plm_wrong"), "usage");
    assert_eq!(wrong.code, 3);
    assert!(
        wrong.err.contains("plimsoll token add --admin"),
        "{}",
        wrong.err
    );

    // Root has lost the administrator's token and makes a new one, and one for a user.
    let said = desk.said("token add --admin --label recovered");
    let admin = said.out.trim();
    assert!(
        admin.starts_with("plm_") && admin.lines().count() == 1,
        "{}",
        said.out
    );
    assert!(!said.err.contains(admin), "the secret is on stdout alone");
    let own = desk.ok("token add --user ada --expires 30d");
    let own = own.trim();
    assert_eq!(with(Some(admin), "user list").code, 0);
    assert!(with(Some(own), "usage").out.starts_with("user ada, "));
    let denied = with(Some(own), "user list");
    assert_eq!(
        (denied.code, denied.out.as_str()),
        (3, ""),
        "{}",
        denied.err
    );
    let file = desk.0.path("token");
    fs::write(&file, format!("{own}\n")).unwrap();
    let words = format!("--token-file {} usage", file.display());
    assert_eq!(with(None, &words).code, 0);

    let listed = desk.ok("token list");
    assert!(
        listed.contains("recovered") && !listed.contains(admin),
        "{listed}"
    );
    let id = desk.json("token list")["items"]
        .as_array()
        .unwrap()
        .iter()
        .find(|token| token["label"] == "recovered")
        .map(|token| token["id"].as_str().unwrap().to_owned())
        .unwrap();
    desk.ok(&format!("token revoke {id}"));
    assert_eq!(with(Some(admin), "user list").code, 3);
}

/// A folder that others may look into, with a copy of the binary and a link to it, as `install` makes
/// them: others may be unable to pass the folders above the build's.
#[test]
fn an_authority_is_made_once_and_certificates_come_from_it() {
    let server = Server::without_engine();
    let data = server.path("data");
    let data = data.to_str().unwrap();
    let socket = server.path("api.sock");
    let by = |args: &[&str]| run(plimsoll().env("PLIMSOLL_API_SOCKET", &socket).args(args));
    let out = server.path("ada");
    let cert = ["user", "cert", "ada", "--out", out.to_str().unwrap()];
    assert_eq!(by(&["user", "add", "ada"]).code, 0);
    let none = by(&cert);
    assert_eq!(none.code, 1, "{none:?}");
    assert!(none.err.contains("plimsoll ca init"), "{none:?}");
    assert!(!out.exists(), "nothing is left of it");

    let init = ["ca", "init", "--data-dir", data, "--host", "gpu1.example"];
    let made = by(&init);
    assert_eq!(made.code, 0, "{made:?}");
    assert!(made.out.contains("gpu1.example, "), "{made:?}");
    assert_eq!(by(&["ca", "show", "--data-dir", data]).out, made.out);
    let again = by(&init);
    assert_eq!(again.code, 1, "{again:?}");
    assert!(again.err.contains("is not overwritten"), "{again:?}");

    let issued = by(&cert);
    assert_eq!(issued.code, 0, "{issued:?}");
    // Without a gateway over TLS there is nowhere for a context to lead.
    assert!(issued.out.contains("there is no context"), "{issued:?}");
    assert!(out.join("key.pem").exists() && !out.join("plimsoll.dockercontext").exists());
    let again = by(&cert);
    assert_eq!(again.code, 2, "{again:?}");
    assert!(again.err.contains("is there already"), "{again:?}");
    let listed = by(&["user", "cert", "ada", "--list"]);
    assert_eq!(listed.out.lines().count(), 2, "{listed:?}");
    let serial = listed
        .out
        .lines()
        .nth(1)
        .unwrap()
        .split(' ')
        .next()
        .unwrap();
    assert_eq!(by(&["user", "revoke-cert", serial]).code, 0);
    assert!(
        by(&["user", "cert", "ada", "--list"])
            .out
            .contains("revoked")
    );
    assert_eq!(by(&["user", "revoke-cert", "x"]).code, 4);
}

fn plugin_folder() -> (tempfile::TempDir, PathBuf) {
    let dir = tempfile::tempdir().unwrap();
    let open: fs::Permissions = std::os::unix::fs::PermissionsExt::from_mode(0o755);
    fs::set_permissions(dir.path(), open).unwrap();
    let own = dir.path().join("plimsoll");
    // By another process: a file that this one had open for writing could still be open in a child
    // of a test beside this, and then cannot be run.
    let copied = Command::new("cp").arg(BINARY).arg(&own).status().unwrap();
    assert!(copied.success());
    let plugin = dir.path().join("docker-quota");
    symlink(&own, &plugin).unwrap();
    (dir, plugin)
}

#[test]
fn docker_quota_is_the_tenants_view() {
    let server = Server::without_engine();
    let uid = 71_500;
    server.tenant("ada", uid, json!({"maxMemoryGB": 2, "maxCpuCores": 2}));
    let (dir, plugin) = plugin_folder();

    let described = run(program(&plugin).arg("docker-cli-plugin-metadata"));
    let described: Value = serde_json::from_str(&described.out).unwrap();
    assert_eq!(described["SchemaVersion"], "0.1.0");

    let as_ada = |words: &[&str]| {
        let mut command = program(&plugin);
        command
            .uid(uid)
            .gid(uid)
            .env("PLIMSOLL_API_SOCKET", server.path("api.sock"));
        run(command.arg("quota").args(words))
    };
    let shown = as_ada(&[]);
    assert_eq!(shown.code, 0, "{}", shown.err);
    assert!(shown.out.starts_with("user ada, "), "{}", shown.out);
    assert_eq!(row(&shown.out, "memory")[2..], ["0 B", "2 GiB", "2 GiB"]);
    assert_eq!(as_ada(&["why"]).out, "nothing was refused\n");
    assert_eq!(as_ada(&["validate", "--memory", "3g"]).code, 3);
    assert_eq!(as_ada(&["nonsense"]).code, 2);
    assert_eq!(as_ada(&["--help"]).code, 0);

    // A stranger is told how to become a user.
    let mut command = program(&plugin);
    command
        .uid(71_501)
        .gid(71_501)
        .env("PLIMSOLL_API_SOCKET", server.path("api.sock"));
    let stranger = run(command.arg("quota"));
    assert_eq!(stranger.code, 3);
    assert!(
        stranger.err.contains("plimsoll user add"),
        "{}",
        stranger.err
    );

    // As docker itself starts it.
    let plugins = dir.path().join("cli-plugins");
    fs::create_dir(&plugins).unwrap();
    symlink(dir.path().join("plimsoll"), plugins.join("docker-quota")).unwrap();
    let mut docker = program(Path::new("docker"));
    docker
        .env("DOCKER_CONFIG", dir.path())
        .env("PLIMSOLL_API_SOCKET", server.path("api.sock"));
    let through_docker = run(docker.args(["quota", "validate", "user", "ada", "--memory", "1g"]));
    assert_eq!(through_docker.out, "it fits\n", "{}", through_docker.err);
}

/// The id in parentheses at the end of what was said.
fn told_id(said: &str) -> String {
    let (_, id) = said.trim_end().rsplit_once(' ').unwrap();
    id.trim_end_matches(')').to_owned()
}

#[test]
fn a_tenant_asks_and_a_lead_answers() {
    let desk = Desk::new();
    desk.ok("user add ada --uid 71600");
    desk.ok("user add ben --uid 71601");
    desk.ok("team add ml");
    desk.ok("team member add ml ada --role lead --memory 2g");
    desk.ok("team member add ml ben --memory 2g");
    desk.ok("quota set team ml --pool --memory 6g");
    let (_dir, plugin) = plugin_folder();
    let by = |uid: u32, program: &Path, words: &str| {
        let mut command = self::program(program);
        command
            .uid(uid)
            .gid(uid)
            .env("PLIMSOLL_API_SOCKET", desk.0.path("api.sock"));
        run(command.args(words.split_whitespace()))
    };
    let ben = |words: &str| by(71_601, &plugin, &format!("quota {words}"));
    let lead = |words: &str| {
        by(
            71_600,
            plugin.parent().unwrap().join("plimsoll").as_path(),
            words,
        )
    };

    // Up to 5 GiB is 3 more than the 2 there are.
    let asked = ben("request --memory 5g --until 3d --reason deadline");
    assert_eq!(asked.code, 0, "{}", asked.err);
    assert!(
        asked
            .out
            .starts_with("asked the leads of team ml for memory 3 GiB more until "),
        "{}",
        asked.out
    );
    for (words, why) in [
        (
            "request --memory 2g --reason x",
            "you have 2 GiB of memory already",
        ),
        ("request --reason x", "--memory 16g"),
        ("request --memory 3g", "--reason"),
        ("request --memory 3g --until someday --reason x", "friday"),
        ("request --memory unlimited --reason x", "memory"),
    ] {
        let refused = ben(words);
        assert_eq!(refused.code, 2, "{words}: {}", refused.out);
        assert!(refused.err.contains(why), "{words}: {}", refused.err);
    }
    let id = told_id(&asked.out);
    assert_eq!(row(&lead("quota requests").out, &id)[1..3], ["ben", "ml"]);
    assert_eq!(ben(&format!("withdraw {id}x")).code, 4);
    let given = lead(&format!("quota approve {id} --reason fine"));
    assert!(
        given.out.starts_with("ben has memory 3 GiB more until "),
        "{}",
        given.err
    );
    let place = row(&desk.ok("team show ml"), "ben");
    assert_eq!(place[4..6], ["0 B", "5 GiB"], "{place:?}");
    // No more than the pool has.
    let grant = lead("quota grant ada --team ml --memory 4g");
    assert_eq!(grant.code, 2);
    assert!(grant.err.contains("holds 3 GiB"), "{}", grant.err);

    // What a lead moves, and takes back.
    let preview = lead("team redistribute ml --to ada --memory 1g --reason paper --dry-run");
    assert_eq!(preview.out, "would move memory 1 GiB from pool to ada\n");
    let moved = lead("team redistribute ml --to ada --memory 1g --reason paper");
    assert_eq!(moved.out, "moved memory 1 GiB from pool to ada\n");
    let listed = desk.json("team redistributions ml");
    let id = listed["items"][0]["id"].as_str().unwrap();
    let undone = lead(&format!("team undo ml {id}"));
    assert_eq!(undone.out, "took back memory 1 GiB from pool to ada\n");
    assert_eq!(row(&desk.ok("team redistributions ml"), id)[5], "undone");

    // An administrator gives without being asked, and takes it back.
    let given = desk.ok("quota grant ben --cpus 2 --until 2999-12-31 --reason workshop");
    assert!(
        given.starts_with("ben has cpu 2 more until 2999-12-31")
            || given.starts_with("ben has cpu 2 more until 3000-01-01"),
        "{given}"
    );
    let id = told_id(&given);
    desk.ok(&format!("quota revoke {id}"));
    desk.exits(1, &format!("quota revoke {id}"));
    assert_eq!(
        desk.json("quota grants")["items"].as_array().unwrap().len(),
        1
    );
}

#[test]
fn pages_for_shells_and_manuals_come_from_the_command_tree() {
    let completions = run(plimsoll().args(["completions", "bash"]));
    assert!(
        completions.out.contains("plimsoll__subcmd__quota")
            || completions.out.contains("plimsoll__quota")
    );
    let page = run(plimsoll().arg("man"));
    assert!(page.out.starts_with(".ie"), "{}", page.out);
    let dir = tempfile::tempdir().unwrap();
    let said = run(plimsoll().arg("man").arg("--dir").arg(dir.path()));
    assert!(
        said.out.lines().any(|name| name == "plimsoll-quota-set.1"),
        "{}",
        said.out
    );
    assert!(dir.path().join("plimsoll-quota-set.1").exists());
    let said = run(plimsoll().args(["man", "--dir", "/nonexistent"]));
    assert_eq!(said.code, 1, "{}", said.err);
}

#[test]
fn a_second_server_on_the_same_data_is_told_to_go_elsewhere() {
    let server = Server::without_engine();
    let said = run(plimsoll()
        .args(["serve", "--listen", "127.0.0.1:0", "--data-dir"])
        .arg(server.path("data"))
        .arg("--api-socket")
        .arg(server.path("second.sock")));
    assert_eq!(said.code, 1);
    assert!(
        said.err.contains("in use by process") && said.err.contains("next: "),
        "{}",
        said.err
    );
}

#[test]
fn a_class_that_nobody_made_ends_the_start() {
    let dir = tempfile::tempdir().unwrap();
    let said = run(plimsoll()
        .args(["serve", "--listen", "127.0.0.1:0"])
        .args(["--set", "tenants.provision_class=scholar", "--data-dir"])
        .arg(dir.path().join("data"))
        .arg("--api-socket")
        .arg(dir.path().join("api.sock")));
    assert_eq!(said.code, 1);
    let says = |what: &str| assert!(said.err.contains(what), "{}", said.err);
    says("no class scholar");
    says("standard");
}

/// Where the memory cap of the only user's cgroup of an instance is, whatever the layout.
fn memory_cap(instance: &str) -> Option<u64> {
    let roots = [
        format!("/sys/fs/cgroup/memory/{instance}"),
        format!("/sys/fs/cgroup/{instance}"),
        format!("/sys/fs/cgroup/{instance}.slice"),
    ];
    let root = roots.iter().map(Path::new).find(|root| root.is_dir())?;
    let inner = fs::read_dir(root).ok()?.flatten().map(|entry| entry.path());
    let user = inner.into_iter().find(|path| path.is_dir())?;
    let files = ["memory.limit_in_bytes", "memory.max"].map(|name| user.join(name));
    let text = files
        .iter()
        .find_map(|file| fs::read_to_string(file).ok())?;
    text.trim().parse().ok()
}

#[test]
fn caps_are_restored_before_anything_runs() {
    let mut server = Server::without_engine();
    server.post("/api/users", json!({"name": "ada"}));
    server.put("/api/quotas/user/ada", json!({"maxMemoryGB": 2}));
    let request = json!({"user": "ada", "resourceRequest": {"cpuCores": 0.1, "memoryGB": 0.5}});
    server.post("/api/reservations", request);
    let restore = |server: &Server| {
        run(plimsoll()
            .args(["caps", "restore"])
            .env("PLIMSOLL_DATA_DIR", server.path("data"))
            .env("PLIMSOLL_INSTANCE", server.instance()))
    };
    let said = restore(&server);
    assert_eq!(said.code, 0, "{}", said.err);
    assert!(said.out.contains("the server is running"), "{}", said.out);
    assert_eq!(memory_cap(server.instance()), None);

    server.crash();
    let said = restore(&server);
    assert_eq!(said.code, 0, "{}", said.err);
    assert_eq!(memory_cap(server.instance()), Some(2 << 30), "{}", said.out);
    server.restart();
}
