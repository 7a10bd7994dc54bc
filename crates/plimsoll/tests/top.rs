//! `plimsoll top`, in a terminal and without one.

mod common;

use std::io::{Read as _, Write as _};
use std::process::{Child, ChildStdin, Command, Stdio};
use std::sync::{Arc, Mutex, PoisonError};

use common::{IMAGE, Server, wait_for};
use serde_json::{Value, json};

const BINARY: &str = env!("CARGO_BIN_EXE_plimsoll");

/// A server that reads often, with a container that works and one that holds memory.
fn busy(uid: u32, port: &str) -> Server {
    let quick = ["--set", "metering.interval_s=0.1", "--set", port];
    let server = Server::start_with(&common::engine(), &quick);
    let ada = server.tenant("ada", uid, json!({"maxMemoryGB": 1, "maxCpuCores": 1}));
    server.post("/api/projects", json!({"name": "thesis", "user": "ada"}));
    let run = |name: &str, label: &str, command: &str| {
        let options = [
            "run", "-d", "--name", name, "--memory", "128m", "--cpus", "0.2",
        ];
        let rest = ["--label", label, IMAGE, "sh", "-c", command];
        ada.ok(&[&options[..], &rest].concat());
    };
    run("burns", "plimsoll.project=thesis", "while :; do :; done");
    run("holds", "a=b", "head -c 48m /dev/zero | tail | sleep 1000");
    server
}

/// The first word of each line that is about one of these: other tests have containers here, too.
fn order<'a>(lines: impl IntoIterator<Item = &'a str>) -> Vec<&'a str> {
    let ours = ["burns", "holds", "ada", "thesis"];
    let words = lines.into_iter();
    words
        .filter_map(|line| line.split_whitespace().next())
        .filter(|word| ours.contains(word))
        .collect()
}

#[test]
fn a_script_gets_one_table_in_the_order_it_asks_for() {
    let server = busy(62_640, "ports.first=44600");
    let table = |words: &str| {
        let words: Vec<&str> = words.split_whitespace().collect();
        let said = server.plimsoll(&[&["top"], &words[..]].concat());
        assert_eq!(said.code, 0, "{}", said.err);
        said.out
    };
    let told: Value = wait_for("what is held to be measured", || {
        let told: Value = serde_json::from_str(&table("--json --sort memory")).unwrap();
        let items = told["items"].as_array().unwrap();
        let holds = items.iter().find(|item| item["name"] == "holds")?;
        (holds["memoryGB"].as_f64()? > 48.0 / 1024.0).then(|| holds.clone())
    });
    assert_eq!(told["reservedMemoryGB"], 0.125, "{told:#}");
    wait_for("both orders", || {
        let (cpu, memory) = (table(""), table("--sort memory --once"));
        let sorted =
            order(cpu.lines()) == ["burns", "holds"] && order(memory.lines()) == ["holds", "burns"];
        sorted.then_some(())
    });
    let shown = table("");
    assert!(shown.starts_with("NAME   USER"), "{shown}");
    assert!(
        shown.lines().all(|line| line.chars().count() <= 80),
        "{shown}"
    );
    let burns = shown
        .lines()
        .find(|line| line.starts_with("burns"))
        .unwrap();
    assert!(burns.contains("ada") && burns.contains("128M"), "{shown}");
    for (by, name) in [("user", "ada"), ("project", "thesis")] {
        assert_eq!(order(table(&format!("--by {by}")).lines()), [name]);
    }
    assert_eq!(table("--by team").lines().count(), 1);

    let wrong = server.plimsoll(&["top", "--sort", "size"]);
    assert_eq!(wrong.code, 2, "{}", wrong.err);
}

/// The program in a terminal of 24 lines of 80 characters.
struct Screen {
    process: Child,
    keyboard: ChildStdin,
    shown: Arc<Mutex<String>>,
}

impl Screen {
    fn of(server: &Server) -> Self {
        let top = format!("stty rows 24 cols 80; {BINARY} top; echo ended $?; stty -a");
        let mut process = Command::new("script")
            .args(["-qec", &top, "/dev/null"])
            .env("PLIMSOLL_API_SOCKET", server.path("api.sock"))
            .env("TERM", "vt100")
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .spawn()
            .expect("script runs");
        let keyboard = process.stdin.take().unwrap();
        let mut screen = process.stdout.take().unwrap();
        let shown = Arc::new(Mutex::new(String::new()));
        let all = Arc::clone(&shown);
        std::thread::spawn(move || {
            let mut bytes = [0; 4096];
            while let Ok(count @ 1..) = screen.read(&mut bytes) {
                let text = String::from_utf8_lossy(&bytes[..count]);
                all.lock()
                    .unwrap_or_else(PoisonError::into_inner)
                    .push_str(&text);
            }
        });
        Self {
            process,
            keyboard,
            shown,
        }
    }

    fn all(&self) -> String {
        self.shown
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
            .clone()
    }

    /// What was drawn last, as lines.
    fn lines(&self) -> Option<Vec<String>> {
        let all = self.all();
        let mut drawn = all.rsplit("\x1b[H");
        // The last may be half drawn.
        let whole = drawn.find(|drawn| drawn.contains("\x1b[J"))?;
        let lines = whole.split("\r\n");
        Some(
            lines
                .map(|line| line.replace("\x1b[K", "").replace("\x1b[J", ""))
                .collect(),
        )
    }

    fn until(&self, what: &str, is_so: impl Fn(&[String]) -> bool) -> Vec<String> {
        wait_for(what, || self.lines().filter(|lines| is_so(lines)))
    }

    fn press(&mut self, keys: &str) {
        self.keyboard.write_all(keys.as_bytes()).unwrap();
        self.keyboard.flush().unwrap();
    }
}

impl Drop for Screen {
    fn drop(&mut self) {
        let _ = self.process.kill();
        let _ = self.process.wait();
    }
}

#[test]
fn a_terminal_shows_what_changes_and_is_as_it_was_afterwards() {
    let mut server = busy(62_650, "ports.first=44800");
    let mut screen = Screen::of(&server);
    let first = |lines: &[String], name: &str| {
        let order = order(lines.iter().map(String::as_str));
        order.first().is_some_and(|first| *first == name)
    };
    let lines = screen.until("a trend", |lines| {
        first(lines, "burns") && lines[2].contains("TREND") && lines[3].contains('█')
    });
    assert_eq!(lines.len(), 24, "{lines:#?}");
    assert!(
        lines.iter().all(|line| line.chars().count() <= 80),
        "{lines:#?}"
    );
    assert!(lines[0].contains(" containers by cpu"), "{lines:#?}");
    assert!(lines[23].starts_with("q quit"), "{lines:#?}");

    screen.press("m");
    screen.until("the order by memory", |lines| first(lines, "holds"));
    screen.press("\x1b[D");
    screen.until("the column to its left", |lines| first(lines, "burns"));
    screen.press("1");
    screen.until("users", |lines| {
        lines[0].starts_with("1 user by cpu") && first(lines, "ada")
    });

    server.crash();
    screen.until("the server's end", |lines| {
        lines[0].ends_with("the server is away")
    });
    server.restart();
    screen.until("it again", |lines| {
        first(lines, "ada") && !lines[0].contains("away")
    });

    screen.press("q");
    wait_for("the end", || screen.all().contains("ended 0").then_some(()));
    wait_for("the terminal's settings", || {
        screen.all().contains("icanon").then_some(())
    });
    let all = screen.all();
    let after = all.rsplit("\x1b[?1049l").next().unwrap();
    assert!(
        !after.contains("-icanon") && !after.contains("-echo "),
        "{after}"
    );
    assert!(all.contains("\x1b[?1049h") && all.contains("\x1b[?25h"));
}
