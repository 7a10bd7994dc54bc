//! The history at 1,000 containers: `history_bench DIR`. Prints a JSON line a figure, as
//! `scripts/bench.sh` reads them. `history_bench DIR year` loads a whole year instead, which takes a while.

#![allow(
    clippy::disallowed_methods,
    reason = "a program of its own, outside the server"
)]

use std::path::Path;
use std::time::Instant;

use plimsoll_core::metric::Metric;
use plimsoll_store::history::{Ask, HISTORY_FILE, History, Level, Point, Scan, Settings, Tick};

const CONTAINERS: usize = 1000;
const METRICS: [Metric; 10] = [
    Metric::Cpu,
    Metric::CpuThrottled,
    Metric::Memory,
    Metric::OomKills,
    Metric::Pids,
    Metric::BlockRead,
    Metric::BlockWrite,
    Metric::NetReceive,
    Metric::NetTransmit,
    Metric::Connections,
];
const START: i64 = 1_700_006_400_000;
const SECOND: i64 = 1000;
const HOUR: i64 = 3600 * SECOND;
const DAY: i64 = 24 * HOUR;
/// Days.
const YEAR: i64 = 365;

/// Random numbers that are the same each time.
struct Random(u64);

impl Random {
    fn next(&mut self) -> u64 {
        self.0 ^= self.0 << 13;
        self.0 ^= self.0 >> 7;
        self.0 ^= self.0 << 17;
        self.0
    }

    fn below(&mut self, most: u64) -> u64 {
        self.next() % most.max(1)
    }
}

/// A container's life: half of them idle, some bursty, some steady; memory in pages, creeping.
struct Life {
    cpu: u64,
    pages: u64,
    busy: u64,
}

impl Life {
    fn values(&mut self, random: &mut Random, hour: i64) -> Vec<(Metric, u64)> {
        let daytime = (8..20).contains(&(hour % 24));
        if random.below(60) == 0 {
            let awake = if daytime { 3 } else { 1 };
            self.busy = if random.below(6) < awake { self.cpu } else { 0 };
        }
        let cpu = match self.busy {
            0 => random.below(3),
            busy => busy + random.below(busy / 5 + 1),
        };
        if self.busy > 0 {
            self.pages = self.pages + random.below(64) - random.below(60).min(self.pages);
        }
        let traffic = if self.busy > 0 {
            random.below(1 << 17)
        } else {
            0
        };
        let values = [
            cpu,
            if cpu > 1900 { random.below(200) } else { 0 },
            self.pages * 4096,
            0,
            5 + self.busy / 300,
            0,
            traffic / 50 * 4096 / 1000,
            traffic,
            traffic / 7,
            self.busy / 100,
        ];
        METRICS.into_iter().zip(values).collect()
    }
}

struct World {
    names: Vec<String>,
    lives: Vec<Life>,
    random: Random,
}

impl World {
    fn new() -> Self {
        let mut random = Random(88_172_645_463_325_252);
        let lives = (0..CONTAINERS).map(|number| Life {
            cpu: if number % 2 == 0 {
                0
            } else {
                50 + random.below(2000)
            },
            pages: 2000 + random.below(200_000),
            busy: 0,
        });
        Self {
            lives: lives.collect(),
            names: (0..CONTAINERS)
                .map(|n| format!("container:{n:064x}"))
                .collect(),
            random,
        }
    }

    fn tick(&mut self, at_ms: i64) -> Tick {
        let random = &mut self.random;
        let points = self.names.iter().zip(&mut self.lives);
        let points = points.map(|(entity, life)| Point {
            entity: entity.clone(),
            values: life.values(random, at_ms / HOUR),
        });
        Tick {
            at_ms,
            points: points.collect(),
            ..Tick::default()
        }
    }
}

fn print(name: &str, value: f64, unit: &str) {
    println!(r#"{{"name":"{name}","n":{CONTAINERS},"value":{value},"unit":"{unit}"}}"#);
}

/// Bytes of a table and what belongs to it.
fn bytes(dir: &Path, tables: &str) -> f64 {
    let connection = rusqlite::Connection::open(dir.join(HISTORY_FILE)).expect("the history opens");
    let sql = format!("SELECT coalesce(sum(pgsize), 0) FROM dbstat WHERE name IN ({tables})");
    let bytes: i64 = connection
        .query_row(&sql, [], |row| row.get(0))
        .expect("SQLite counts its pages");
    bytes as f64
}

fn open(dir: &Path, interval_ms: u32) -> History {
    let settings = Settings {
        interval_ms,
        ..Settings::default()
    };
    History::open(dir, settings, START).expect("the history opens")
}

/// A day of readings every 30 seconds, as fast as they are taken.
fn ingest(dir: &Path) {
    let history = open(dir, 30_000);
    let mut world = World::new();
    let (mut spent, mut longest) = (0.0f64, 0.0f64);
    let ticks = DAY / (30 * SECOND) + 80;
    for index in 0..ticks {
        let tick = world.tick(START + index * 30 * SECOND);
        let began = Instant::now();
        history.append(&tick).expect("the reading is kept");
        let took = began.elapsed().as_secs_f64();
        spent += took;
        longest = longest.max(took);
    }
    let samples = ticks as f64 * (CONTAINERS * METRICS.len()) as f64;
    print("history ingest", samples / spent, "samples/s");
    print("history reading, mean", spent / ticks as f64 * 1e3, "ms");
    print("history reading, longest", longest * 1e3, "ms");
    let day = 2880.0 * (CONTAINERS * METRICS.len()) as f64;
    print(
        "history bytes per sample",
        bytes(dir, "'raw'") / day,
        "bytes",
    );
    let five = bytes(dir, "'five'") * 60.0;
    print("history 60 days of five minutes", five / 1e6, "MB");
    let now_ms = START + DAY + 40 * 60 * SECOND;
    let one = |step_ms| Ask {
        entity: &world.names[501],
        metric: Metric::Cpu,
        from_ms: START,
        to_ms: START + DAY,
        step_ms: Some(step_ms),
        points_max: 3000,
        now_ms,
    };
    time("history one container, 24 h, every reading", || {
        history
            .series(&one(30 * SECOND))
            .expect("it is read")
            .points
            .len()
    });
    time("history one container, 24 h, five minutes", || {
        history
            .series(&one(300 * SECOND))
            .expect("it is read")
            .points
            .len()
    });
    drop(history);
    let began = Instant::now();
    open(dir, 30_000);
    print(
        "history opening, an open hour",
        began.elapsed().as_secs_f64() * 1e3,
        "ms",
    );
}

fn time(name: &str, mut job: impl FnMut() -> usize) {
    assert!(job() > 0, "{name} finds something");
    let mut took: Vec<f64> = (0..9)
        .map(|_| {
            let began = Instant::now();
            job();
            began.elapsed().as_secs_f64() * 1e3
        })
        .collect();
    took.sort_by(f64::total_cmp);
    print(name, took[4], "ms");
}

/// Many days of readings every ten minutes: the roll-ups are those of any interval.
fn load(dir: &Path, days: i64) -> (History, World) {
    let history = open(dir, 600_000);
    let mut world = World::new();
    for index in 0..days * 144 {
        let tick = world.tick(START + index * 600 * SECOND);
        history.append(&tick).expect("the reading is kept");
    }
    (history, world)
}

/// Every container's CPU in the last days, which do not begin at midnight.
fn last(days_back: i64, now_ms: i64) -> Scan<'static> {
    Scan {
        prefix: "container:",
        metric: Metric::Cpu,
        from_ms: now_ms - days_back * DAY + 7 * HOUR,
        to_ms: now_ms,
        step_ms: None,
        now_ms,
    }
}

/// A year: how long it takes to load, what it takes on disk, and what long questions cost.
fn year(dir: &Path) {
    let began = Instant::now();
    let (history, world) = load(dir, YEAR);
    print("history loading a year", began.elapsed().as_secs_f64(), "s");
    let wide = bytes(dir, "'hour', 'day', 'spread'");
    print("history a year of hours and days", wide / 1e6, "MB");
    let now_ms = START + YEAR * DAY;
    let scan = |days_back| last(days_back, now_ms);
    for days in [30, 365] {
        time(
            &format!("history top and breakdown of a year, {days} d"),
            || history.scan(&scan(days)).expect("it is read").len(),
        );
    }
    let months = Scan {
        step_ms: Some(30 * DAY),
        ..scan(YEAR)
    };
    time("history all by the month, 365 d", || {
        history.scan(&months).expect("it is read").len()
    });
    time("history p99 of all, 365 d", || {
        history
            .percentiles(&scan(YEAR), 990)
            .expect("it is read")
            .len()
    });
    for (name, step_ms) in [("days", DAY), ("hours", HOUR)] {
        let ask = Ask {
            entity: &world.names[501],
            metric: Metric::Cpu,
            from_ms: START,
            to_ms: now_ms,
            step_ms: Some(step_ms),
            points_max: 10_000,
            now_ms,
        };
        time(&format!("history one container, 365 d, {name}"), || {
            history.series(&ask).expect("it is read").points.len()
        });
    }
    let everything = START..now_ms;
    let began = Instant::now();
    let (mut entities, mut place) = (0, None);
    loop {
        let kept = history.kept(Level::Day, &everything, place, 64);
        let (kept, next) = kept.expect("it is read");
        entities += kept.len();
        if next.is_none() {
            break;
        }
        place = next;
    }
    assert_eq!(entities as i64, YEAR * CONTAINERS as i64);
    let took = began.elapsed().as_secs_f64();
    print("history export of a year by the day", took, "s");
    drop(history);
    let began = Instant::now();
    open(dir, 600_000);
    let took = began.elapsed().as_secs_f64() * 1e3;
    print("history opening, a year", took, "ms");
}

fn long(dir: &Path, days: i64) {
    let (history, _) = load(dir, days);
    let now_ms = START + days * DAY;
    let scan = |days_back| last(days_back, now_ms);
    time("history top and breakdown, 30 d", || {
        history.scan(&scan(30)).expect("it is read").len()
    });
    time("history p99 of all, 7 d", || {
        history
            .percentiles(&scan(7), 990)
            .expect("it is read")
            .len()
    });
    let hours = Scan {
        step_ms: Some(HOUR),
        ..scan(7)
    };
    time("history all by the hour, 7 d", || {
        history.scan(&hours).expect("it is read").len()
    });
    let wide = bytes(dir, "'hour', 'day', 'spread'") / days as f64 * 365.0;
    print("history a year of hours and days", wide / 1e6, "MB");
}

/// A name of a folder, and what is measured in it.
type Step = (&'static str, fn(&Path));

fn main() {
    let dir = std::env::args().nth(1).expect("history_bench DIR");
    let dir = Path::new(&dir);
    let is_year = std::env::args().nth(2).is_some_and(|word| word == "year");
    let all: &[Step] = match is_year {
        true => &[("history-year", year)],
        false => &[
            ("history-day", ingest),
            ("history-month", |dir| long(dir, 31)),
        ],
    };
    for (name, run) in all {
        let dir = dir.join(name);
        std::fs::create_dir_all(&dir).expect("a folder is made");
        run(&dir);
        std::fs::remove_dir_all(&dir).expect("a folder is removed");
    }
}
