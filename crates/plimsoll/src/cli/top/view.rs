//! What `plimsoll top` shows of the readings it was told.

use std::cmp::Ordering;
use std::collections::{HashMap, VecDeque};

use clap::ValueEnum as _;
use plimsoll_core::Dimension;
use plimsoll_core::units::trim;
use serde_json::{Value, json};

use super::terminal::Key;
use crate::cli::amounts::{charged, items, text};
use crate::cli::args::{By, Sort, TopFlags};
use crate::cli::plot::plot;
use crate::cli::table::{Align, Table, cut};
use crate::cli::text::printable;

/// Readings in a sparkline.
const TREND: usize = 8;
/// Lines around the table: two above it, one below, its headings.
const AROUND: usize = 4;

const HELP: &str = "q quit   ←→ or c m n d p a sort   r reverse   tab or 1-4 whose   ↑↓ scroll";

/// What was used of what can be sorted by.
type Sample = [Option<f64>; 5];

/// The lines that are wanted, and in which order.
#[derive(Debug)]
pub(super) struct View {
    by: By,
    sort: Sort,
    is_reversed: bool,
    above: usize,
    /// The last reading.
    reading: Value,
    /// The last samples of everything in it, by kind and id.
    past: HashMap<String, VecDeque<Sample>>,
    /// Something that the people should know.
    pub(super) remark: Option<String>,
}

impl View {
    pub(super) fn new(flags: &TopFlags) -> Self {
        Self {
            by: flags.by,
            sort: flags.sort,
            is_reversed: false,
            above: 0,
            reading: Value::Null,
            past: HashMap::new(),
            remark: None,
        }
    }

    /// Takes a reading in.
    pub(super) fn take(&mut self, reading: Value) {
        let mut past = HashMap::new();
        for item in items(&reading) {
            let key = key(item);
            let mut samples = self.past.remove(&key).unwrap_or_default();
            if samples.len() == TREND {
                samples.pop_front();
            }
            samples.push_back(SAMPLED.map(|sort| value(item, sort)));
            past.insert(key, samples);
        }
        (self.past, self.reading) = (past, reading);
    }

    /// Does what a key says; `false` at the end.
    pub(super) fn press(&mut self, key: Key) -> bool {
        match key {
            Key::Letter('q') => return false,
            Key::Letter('r') => self.is_reversed = !self.is_reversed,
            Key::Letter('\t') => self.by = step(By::value_variants(), self.by, 1),
            Key::Letter(letter) => {
                let by = letter.to_digit(10).and_then(|digit| digit.checked_sub(1));
                let by = by.and_then(|index| By::value_variants().get(index as usize));
                self.by = by.copied().unwrap_or(self.by);
                let sorts = Sort::value_variants().iter();
                let sort = sorts.copied().find(|sort| letter_of(*sort) == letter);
                self.sort = sort.unwrap_or(self.sort);
            }
            Key::Left => self.sort = step(Sort::value_variants(), self.sort, -1),
            Key::Right => self.sort = step(Sort::value_variants(), self.sort, 1),
            Key::Up => self.above = self.above.saturating_sub(1),
            Key::Down => self.above += 1,
        }
        true
    }

    /// What is shown of the reading, for programs.
    pub(super) fn json(&self) -> Value {
        json!({"reading": self.reading["reading"], "at": self.reading["at"], "items": self.ranked()})
    }

    /// All of it as one table.
    pub(super) fn table(&self, width: usize) -> String {
        self.lines_of(&self.ranked(), width)
    }

    /// As many lines as the screen has.
    pub(super) fn screen(&mut self, width: usize, height: usize) -> Vec<String> {
        let room = height.saturating_sub(AROUND).max(1);
        self.above = self.above.min(self.ranked().len().saturating_sub(room));
        let ranked = self.ranked();
        let shown = &ranked[self.above..ranked.len().min(self.above + room)];
        let table = self.lines_of(shown, width);
        let mut lines = vec![self.title(ranked.len()), self.whole()];
        lines.extend(table.lines().map(str::to_owned));
        lines.resize(height.saturating_sub(1).max(lines.len()), String::new());
        lines.push(HELP.to_owned());
        lines.iter().map(|line| cut(line, width)).collect()
    }

    fn title(&self, count: usize) -> String {
        let way = if self.is_reversed { '▲' } else { '▼' };
        let by = name_of(&self.by);
        let end = if count == 1 { "" } else { "s" };
        let at = text(&self.reading, "at");
        let remark = self.remark.as_deref().unwrap_or_default();
        format!(
            "{count} {by}{end} by {} {way}   {at}   {}",
            name_of(&self.sort),
            printable(remark)
        )
    }

    /// Everything together, for those who may see it.
    fn whole(&self) -> String {
        let mut all = items(&self.reading);
        let Some(system) = all.find(|item| item["entityType"] == "system") else {
            return String::new();
        };
        let [cpu, reserved_cpu] = figures(system, Dimension::Cpu);
        let [memory, reserved_memory] = figures(system, Dimension::Memory);
        format!(
            "all: cpu {cpu} of {reserved_cpu} reserved, memory {memory} of {reserved_memory}, {} running",
            text(system, "containers")
        )
    }

    /// The items of the kind, in order.
    fn ranked(&self) -> Vec<&Value> {
        let kind = name_of(&self.by);
        let items = items(&self.reading).filter(|item| item["entityType"] == kind.as_str());
        let mut ranked: Vec<&Value> = items.collect();
        ranked.sort_by(|a, b| {
            let order = match self.sort {
                Sort::Name => name(a).cmp(&name(b)),
                sort => value(b, sort)
                    .partial_cmp(&value(a, sort))
                    .unwrap_or(Ordering::Equal),
            };
            let order = if self.is_reversed {
                order.reverse()
            } else {
                order
            };
            order.then_with(|| key(a).cmp(&key(b)))
        });
        ranked
    }

    fn lines_of(&self, items: &[&Value], width: usize) -> String {
        let users = self.names_of("user");
        let has_owner = self.by == By::Container;
        let has_trend = self.past.values().any(|samples| samples.len() > 1);
        let mut columns = vec![("NAME", Align::Left)];
        columns.extend(has_owner.then_some(("USER", Align::Left)));
        columns.extend([("CPU", Align::Right), ("OF", Align::Right)]);
        columns.extend(has_trend.then_some(("TREND", Align::Left)));
        for heading in ["MEM", "OF", "NET/s", "DISK/s", "PIDS"] {
            columns.push((heading, Align::Right));
        }
        let mut table = Table::new(&columns);
        for item in items {
            let mut row = vec![name(item)];
            if has_owner {
                let owner = item["user"].as_str();
                let owner = owner.map_or("-", |id| users.get(id).copied().unwrap_or(id));
                row.push(cut(owner, 8));
            }
            row.extend(figures(item, Dimension::Cpu));
            if has_trend {
                row.push(self.trend(item));
            }
            row.extend(figures(item, Dimension::Memory));
            let rates = [Sort::Net, Sort::Disk].map(|sort| value(item, sort));
            row.extend(rates.map(|rate| rate.map_or_else(dash, size)));
            row.push(text(item, "pids"));
            table.row(row);
        }
        table.within(width).render()
    }

    /// How what is sorted by went, as a share of its own greatest.
    fn trend(&self, item: &Value) -> String {
        let sorted = SAMPLED.iter().position(|sort| *sort == self.sort);
        let samples = self.past.get(&key(item)).into_iter().flatten();
        let samples: Vec<_> = samples.map(|sample| sample[sorted.unwrap_or(0)]).collect();
        let mut cells = vec![None; TREND.saturating_sub(samples.len())];
        cells.extend(samples);
        let top = cells.iter().flatten().copied().fold(0.0, f64::max);
        let line = plot(&cells, top, 1).concat();
        format!("{line:TREND$}")
    }

    /// Names of a kind by their ids.
    fn names_of(&self, kind: &str) -> HashMap<&str, &str> {
        let all = items(&self.reading).filter(|item| item["entityType"] == kind);
        let mut names = HashMap::new();
        for item in all {
            names.extend(item["entityId"].as_str().zip(item["name"].as_str()));
        }
        names
    }
}

/// What has a trend, in the order of [`Sample`].
const SAMPLED: [Sort; 5] = [Sort::Cpu, Sort::Memory, Sort::Net, Sort::Disk, Sort::Pids];

fn value(item: &Value, sort: Sort) -> Option<f64> {
    let sum = |one: &str, other: &str| Some(item[one].as_f64()? + item[other].as_f64()?);
    match sort {
        Sort::Cpu => item["cpuCores"].as_f64(),
        Sort::Memory => item["memoryGB"].as_f64(),
        Sort::Net => sum("receivedBytesPerSecond", "sentBytesPerSecond"),
        Sort::Disk => sum("blockReadBytesPerSecond", "blockWrittenBytesPerSecond"),
        Sort::Pids => item["pids"].as_f64(),
        Sort::Name => None,
    }
}

const fn letter_of(sort: Sort) -> char {
    match sort {
        Sort::Cpu => 'c',
        Sort::Memory => 'm',
        Sort::Net => 'n',
        Sort::Disk => 'd',
        Sort::Pids => 'p',
        Sort::Name => 'a',
    }
}

/// What is used and what is reserved.
fn figures(item: &Value, dimension: Dimension) -> [String; 2] {
    ["", "reserved"].map(|prefix| {
        let amount = charged(item, prefix, dimension);
        amount.map_or_else(dash, |amount| match dimension {
            Dimension::Memory => size(amount as f64),
            other => trim(other.to_human(amount), 2),
        })
    })
}

/// `1.5M`, `20K`, `0`: three figures at most, of 1024.
fn size(bytes: f64) -> String {
    let mut value = bytes;
    for unit in ["", "K", "M", "G", "T"] {
        if value < 1000.0 {
            let decimals = usize::from(value < 100.0);
            return trim(value, decimals) + unit;
        }
        value /= 1024.0;
    }
    trim(value, 1) + "P"
}

fn dash() -> String {
    "-".to_owned()
}

fn key(item: &Value) -> String {
    text(item, "entityType") + &text(item, "entityId")
}

/// Containers that nobody named go by their id.
fn name(item: &Value) -> String {
    match item["name"].as_str() {
        Some(name) => name.to_owned(),
        None => text(item, "entityId").chars().take(12).collect(),
    }
}

fn name_of(value: &impl clap::ValueEnum) -> String {
    let value = value.to_possible_value();
    value.map_or_else(String::new, |value| value.get_name().to_owned())
}

/// The one before or behind, in a ring.
fn step<T: Copy + PartialEq>(all: &[T], one: T, by: isize) -> T {
    let place = all.iter().position(|other| *other == one);
    let next = place.and_then(|place| {
        let ring = isize::try_from(all.len()).ok()?;
        let next = (isize::try_from(place).ok()? + by).rem_euclid(ring);
        all.get(next.unsigned_abs())
    });
    next.copied().unwrap_or(one)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn view() -> View {
        View::new(&TopFlags {
            by: By::Container,
            sort: Sort::Cpu,
            once: false,
        })
    }

    fn container(name: &str, cpu: f64, memory: f64) -> Value {
        json!({"entityType": "container", "entityId": name.repeat(20), "name": name, "user": "7",
               "cpuCores": cpu, "reservedCpuCores": 2, "memoryGB": memory, "reservedMemoryGB": 1,
               "receivedBytesPerSecond": 1536, "sentBytesPerSecond": 0, "pids": 3,
               "blockReadBytesPerSecond": null, "blockWrittenBytesPerSecond": 0})
    }

    fn reading(number: u32, cpu: f64) -> Value {
        json!({"reading": number, "at": "2026-11-24T17:00:00Z", "items": [
            {"entityType": "system", "entityId": "", "cpuCores": 1.5, "reservedCpuCores": 4,
             "memoryGB": 0.5, "reservedMemoryGB": 2, "containers": 2},
            {"entityType": "user", "entityId": "7", "name": "ada", "cpuCores": 1.5},
            container("web", cpu, 0.25),
            container("a\u{1b}", 0.5, 0.5),
        ]})
    }

    #[test]
    fn lines_fit_the_screen_and_keys_change_their_order() {
        let mut view = view();
        view.take(reading(1, 1.0));
        view.take(reading(2, 0.75));
        let lines = view.screen(80, 24);
        assert_eq!(lines.len(), 24);
        assert!(
            lines.iter().all(|line| line.chars().count() <= 80),
            "{lines:#?}"
        );
        assert_eq!(lines[0], "2 containers by cpu ▼   2026-11-24T17:00:00Z   ");
        assert_eq!(
            lines[1],
            "all: cpu 1.5 of 4 reserved, memory 512M of 2G, 2 running"
        );
        let table = &lines[2..5];
        assert_eq!(
            table,
            [
                "NAME     USER   CPU  OF  TREND      MEM  OF  NET/s  DISK/s  PIDS",
                "web      ada   0.75   2        █▆  256M  1G   1.5K       -     3",
                "a\\u{1b}  ada    0.5   2        ██  512M  1G   1.5K       -     3",
            ]
        );
        let mut first = |key| {
            assert!(view.press(key));
            view.screen(80, 24)[3].chars().take(3).collect::<String>()
        };
        assert_eq!(first(Key::Letter('m')), "a\\u");
        assert_eq!(first(Key::Letter('r')), "web");
        assert_eq!(first(Key::Left), "a\\u", "by cpu, the least first");
        assert_eq!(first(Key::Letter('1')), "ada");
        assert_eq!(first(Key::Letter('\t')), "", "no teams");
        assert!(!view.press(Key::Letter('q')));
    }

    #[test]
    fn more_lines_than_the_screen_has_are_scrolled() {
        let mut view = view();
        let all: Vec<Value> = (0..9)
            .map(|n| container(&format!("c{n}"), 1.0, 1.0))
            .collect();
        view.take(json!({"items": all}));
        let first = |view: &mut View| view.screen(30, 7)[3].split(' ').next().map(str::to_owned);
        assert_eq!(first(&mut view).as_deref(), Some("c0"));
        for _ in 0..20 {
            view.press(Key::Down);
        }
        assert_eq!(first(&mut view).as_deref(), Some("c6"), "the last three");
        view.press(Key::Up);
        assert_eq!(first(&mut view).as_deref(), Some("c5"));
        assert_eq!(view.table(80).lines().count(), 10);
    }

    #[test]
    fn sizes_have_three_figures() {
        for (bytes, text) in [
            (0.0, "0"),
            (999.0, "999"),
            (1000.0, "1K"),
            (1536.0, "1.5K"),
            (150.4 * 1024.0, "150K"),
            (1010.0 * 1024.0 * 1024.0, "1G"),
            (2e18, "1776.4P"),
        ] {
            assert_eq!(size(bytes), text);
        }
    }
}
