//! A writer that is killed, and files that are damaged.

use std::fs;
use std::io::{BufRead as _, BufReader, Seek as _, SeekFrom, Write as _};
use std::path::Path;
use std::process::{Child, Command, Stdio};

use plimsoll_store::history::{Faults, HISTORY_FILE, History, Settings};

use crate::world::{DAY, HOUR, SECOND, START, World, cpu, query, series, tick};

/// Where the writer in the other process writes.
const DIR: &str = "PLIMSOLL_TEST_HISTORY";
/// Five minutes apart, so that an hour is over every few readings.
const SETTINGS: Settings = Settings {
    interval_ms: 300_000,
    raw_days: 60,
    five_days: 60,
    rollup_days: 400,
    // More than it writes: whatever is cut stays in the log, too.
    unsent_hours: 10_000,
};

fn names() -> Vec<String> {
    (0..40)
        .map(|number| format!("container:{number}"))
        .collect()
}

/// Run in a process of its own: adds readings for good, and says of each that it is kept.
#[test]
#[ignore = "the other process of the test below"]
fn writer() {
    let dir = std::env::var(DIR).unwrap();
    let history = History::open(Path::new(&dir), SETTINGS, START).unwrap();
    let known: i64 = query(Path::new(&dir), "SELECT coalesce(max(at_ms), 0) FROM tick");
    let mut index = if known == 0 {
        0
    } else {
        (known - START) / (300 * SECOND) + 1
    };
    let names = names();
    loop {
        let points = names
            .iter()
            .map(|name| cpu(name, index.cast_unsigned() % 1000));
        let at_ms = START + index * 300 * SECOND;
        let points = points.collect();
        history.append(&tick(at_ms, points)).unwrap();
        println!("kept {index}");
        index += 1;
    }
}

fn start_writer(dir: &Path) -> Child {
    Command::new(std::env::current_exe().unwrap())
        .args(["--exact", "crash::writer", "--ignored", "--nocapture"])
        .env(DIR, dir)
        .stdout(Stdio::piped())
        .stderr(Stdio::null())
        .spawn()
        .unwrap()
}

#[test]
fn a_writer_that_is_killed_at_any_moment_loses_nothing_that_was_kept() {
    let dir = tempfile::tempdir().unwrap();
    let mut last = -1;
    for round in 0..12 {
        let mut child = start_writer(dir.path());
        let mut lines = BufReader::new(child.stdout.take().unwrap()).lines();
        // A different number of readings each time, so that different steps are cut short.
        let mut left = 7 + round * 5;
        for line in &mut lines {
            let line = line.unwrap();
            let Some(kept) = line.split("kept ").nth(1) else {
                continue;
            };
            last = kept.parse::<i64>().unwrap();
            left -= 1;
            if left == 0 {
                child.kill().unwrap();
            }
        }
        child.wait().unwrap();
        // What came after the last line that was read before the kill was kept, too, or not at all.
        let history = History::open(dir.path(), SETTINGS, START).unwrap();
        assert_eq!(history.faults(), Faults::default(), "round {round}");
        for name in ["container:0", "container:39"] {
            let found = series(
                &history,
                name,
                START,
                START + 30 * DAY,
                Some(300 * SECOND - 1),
                START + 30 * DAY,
            );
            let values: Vec<_> = found.points.iter().map(|p| p.max).collect();
            let expected: Vec<u64> = (0..values.len() as u64).map(|i| i % 1000).collect();
            assert_eq!(
                values, expected,
                "round {round}: none is missing, none is there twice"
            );
            let count = values.len() as i64 - 1;
            assert!(count == last || count == last + 1, "{count} of {last}");
        }
        let (_, logged) = history.log_after(i64::MIN, 0).unwrap();
        let logged = i64::try_from(logged).unwrap();
        assert!(
            (last + 1..=last + 2).contains(&logged),
            "{logged} of {last} wait"
        );
        for step in [HOUR, DAY] {
            let all = series(
                &history,
                "container:7",
                START,
                START + 30 * DAY,
                Some(step),
                START + 30 * DAY,
            );
            let samples: u32 = all.points.iter().map(|p| p.samples).sum();
            assert!(
                (last + 1..=last + 2).contains(&i64::from(samples)),
                "{samples} of {last}"
            );
        }
    }
}

/// What a power cut would leave: the files as they are now.
fn image(world: &World) -> tempfile::TempDir {
    let copy = tempfile::tempdir().unwrap();
    for name in [HISTORY_FILE.to_owned(), format!("{HISTORY_FILE}-wal")] {
        fs::copy(world.dir.path().join(&name), copy.path().join(&name)).unwrap();
    }
    copy
}

fn count(history: &History) -> usize {
    let found = series(
        history,
        "system",
        START,
        START + DAY,
        Some(10 * SECOND),
        START + DAY,
    );
    let values = found.points.iter().map(|p| p.max);
    let expected = 0..found.points.len() as u64;
    assert!(values.eq(expected), "the first of them, in order");
    found.points.len()
}

#[test]
fn a_torn_log_gives_what_was_whole() {
    let mut world = World::new(Settings::default());
    world.run(START, 500, &["system"]);
    let whole = image(&world);
    let history = History::open(whole.path(), Settings::default(), START).unwrap();
    assert_eq!(count(&history), 500);
    for part in [3, 2] {
        let torn = image(&world);
        let wal = torn.path().join(format!("{HISTORY_FILE}-wal"));
        let len = fs::metadata(&wal).unwrap().len();
        let file = fs::OpenOptions::new().write(true).open(&wal).unwrap();
        file.set_len(len - len / part).unwrap();
        let history = History::open(torn.path(), Settings::default(), START).unwrap();
        let left = count(&history);
        assert!(left < 500, "{left}");
        history.append(&tick(START + DAY, vec![])).unwrap();
    }
}

#[test]
fn rows_and_blocks_that_do_not_read_back_are_passed_over_and_counted() {
    let mut world = World::new(Settings::default());
    world.run(START, 500, &["system"]);
    let copy = image(&world);
    let path = copy.path().join(HISTORY_FILE);
    let connection = rusqlite::Connection::open(&path).unwrap();
    let damage = "UPDATE tick SET body = x'0011' WHERE at_ms = (SELECT max(at_ms) FROM tick)";
    assert_eq!(connection.execute(damage, []).unwrap(), 1);
    let damage = "UPDATE raw SET body = substr(body, 1, length(body) / 2)";
    assert_eq!(connection.execute(damage, []).unwrap(), 1);
    drop(connection);
    let history = History::open(copy.path(), Settings::default(), START).unwrap();
    assert_eq!(history.faults().unreadable, 1, "the reading");
    let points = |step| {
        series(
            &history,
            "system",
            START,
            START + DAY,
            Some(step),
            START + DAY,
        )
        .points
    };
    assert_eq!(points(10 * SECOND).len(), 139, "of the open hour");
    assert_eq!(points(HOUR).len(), 2, "its sums are elsewhere");
}

#[test]
fn a_file_that_is_none_is_moved_and_a_new_one_begun() {
    let dir = tempfile::tempdir().unwrap();
    let text = "this is no database, whatever it is called. ".repeat(1000);
    fs::write(dir.path().join(HISTORY_FILE), &text).unwrap();
    let history = History::open(dir.path(), Settings::default(), START).unwrap();
    let aside = history.faults().set_aside.unwrap();
    assert_eq!(fs::read_to_string(aside).unwrap(), text);
    history
        .append(&tick(START, vec![cpu("system", 0)]))
        .unwrap();
    assert_eq!(count(&history), 1);
}

#[test]
fn damage_that_is_met_while_it_runs_costs_no_more_than_the_file() {
    let mut world = World::new(Settings::default());
    world.run(START, 700, &["system", "user:a", "user:b"]);
    let path = world.dir.path().join(HISTORY_FILE);
    world.sql::<i64>("PRAGMA wal_checkpoint(TRUNCATE)");
    let mut file = fs::OpenOptions::new().write(true).open(&path).unwrap();
    let len = file.metadata().unwrap().len();
    file.seek(SeekFrom::Start(0)).unwrap();
    file.write_all(&vec![0xa5; len as usize]).unwrap();
    drop(file);
    for index in 700..1500 {
        let points = ["system", "user:a"].map(|entity| cpu(entity, index));
        let at_ms = START + index.cast_signed() * 10 * SECOND;
        let points = points.into();
        world.history.append(&tick(at_ms, points)).unwrap();
    }
    let aside = world.history.faults().set_aside.unwrap();
    assert_eq!(fs::metadata(aside).unwrap().len(), len);
    let of = |world: &World| {
        let points = world.points("user:a", START, START + DAY, 10 * SECOND);
        points.into_iter().filter(|p| p.max >= 720).count()
    };
    world.now_ms = START + 5 * HOUR;
    assert_eq!(of(&world), 780, "the open hour was in memory");
    world.reopen();
    assert_eq!(of(&world), 780);
}
