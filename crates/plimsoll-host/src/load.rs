//! What the whole host is doing: processors, memory, and what waits for them.

use std::io;
use std::path::Path;

use plimsoll_core::units::Bytes;
use rustix::io::Errno;

/// Share of time in which something waited, from the kernel's pressure figures.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Pressure {
    /// At least one process waited, ten-thousandths of the last ten seconds.
    pub some: u64,
    /// All waited, ten-thousandths of the last ten seconds; `None` where that is not told.
    pub full: Option<u64>,
}

/// What something can wait for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Resource {
    /// A processor.
    Cpu,
    /// Memory.
    Memory,
    /// A disk.
    Io,
}

/// The host at one moment.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Load {
    /// Processor time used since boot, milliseconds over all CPUs.
    pub cpu_busy_ms: u64,
    /// Memory that nobody could have without taking it from somebody.
    pub memory_used: Bytes,
    /// Processes that want to run, mean of a minute, hundredths.
    pub load_centi: u64,
}

/// How the kernel counts time for people: always a hundred ticks a second.
const MS_PER_TICK: u64 = 10;

/// Reads the host's figures.
///
/// # Errors
/// When a file is missing, or `InvalidData` when one makes no sense.
pub fn read(proc_root: &Path) -> io::Result<Load> {
    let text = |name: &str| std::fs::read_to_string(proc_root.join(name));
    let load = || {
        Some(Load {
            cpu_busy_ms: busy_ticks(&text("stat").ok()?)?.checked_mul(MS_PER_TICK)?,
            memory_used: memory_used(&text("meminfo").ok()?)?,
            load_centi: hundredths(text("loadavg").ok()?.split(' ').next()?)?,
        })
    };
    load().ok_or_else(|| io::Error::new(io::ErrorKind::InvalidData, "no figures of the host"))
}

/// What waits for a resource; `None` where the kernel does not offer it, which is not the same as
/// nothing that waits.
///
/// # Errors
/// When it is offered and cannot be read.
pub fn pressure(proc_root: &Path, of: Resource) -> io::Result<Option<Pressure>> {
    let name = match of {
        Resource::Cpu => "cpu",
        Resource::Memory => "memory",
        Resource::Io => "io",
    };
    match std::fs::read_to_string(proc_root.join("pressure").join(name)) {
        Ok(text) => match parse_pressure(&text) {
            Some(pressure) => Ok(Some(pressure)),
            None => Err(io::ErrorKind::InvalidData.into()),
        },
        // Left out of the kernel, or turned off at boot.
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(None),
        Err(error) if error.raw_os_error() == Some(Errno::OPNOTSUPP.raw_os_error()) => Ok(None),
        Err(error) => Err(error),
    }
}

/// `some avg10=1.25 avg60=0.00 avg300=0.00 total=7`, and `full` alike.
fn parse_pressure(text: &str) -> Option<Pressure> {
    let line = |kind: &str| {
        let line = text.lines().find_map(|line| line.strip_prefix(kind))?;
        hundredths(line.trim().strip_prefix("avg10=")?.split(' ').next()?)
    };
    Some(Pressure {
        some: line("some ")?,
        full: line("full "),
    })
}

/// `1.25` as 125.
fn hundredths(text: &str) -> Option<u64> {
    let (whole, part) = text.split_once('.')?;
    if part.len() != 2 {
        return None;
    }
    let whole: u64 = whole.parse().ok()?;
    whole.checked_mul(100)?.checked_add(part.parse().ok()?)
}

/// Everything but idle and waiting for disks.
fn busy_ticks(text: &str) -> Option<u64> {
    let line = text.lines().next()?.strip_prefix("cpu ")?;
    let ticks = line.split_ascii_whitespace().map(str::parse::<u64>);
    // Of the ten the last two are parts of the first two.
    let ticks: Vec<u64> = ticks.take(8).collect::<Result<_, _>>().ok()?;
    let waits = ticks.get(3)?.checked_add(*ticks.get(4)?)?;
    ticks.iter().sum::<u64>().checked_sub(waits)
}

fn memory_used(text: &str) -> Option<Bytes> {
    let kib = |key: &str| {
        let line = text.lines().find_map(|line| line.strip_prefix(key))?;
        line.trim().strip_suffix(" kB")?.parse::<u64>().ok()
    };
    let used = kib("MemTotal:")?.checked_sub(kib("MemAvailable:")?)?;
    used.checked_mul(1024).map(Bytes)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_hosts_files_are_read_and_nonsense_is_an_error() {
        let dir = tempfile::tempdir().unwrap();
        let put = |name: &str, text: &str| std::fs::write(dir.path().join(name), text).unwrap();
        put("stat", "cpu  10 1 5 100 50 2 3 4 7 7\ncpu0 1 1 1 1\n");
        put(
            "meminfo",
            "MemTotal:  100 kB\nMemFree:  1 kB\nMemAvailable:   40 kB\n",
        );
        put("loadavg", "1.25 0.50 0.10 2/300 999\n");
        let load = Load {
            cpu_busy_ms: 250,
            memory_used: Bytes(60 << 10),
            load_centi: 125,
        };
        assert_eq!(read(dir.path()).unwrap(), load);
        put("stat", "cpu  10 1\n");
        assert!(read(dir.path()).is_err());
    }

    #[test]
    fn pressure_that_is_not_offered_is_not_zero() {
        let dir = tempfile::tempdir().unwrap();
        assert_eq!(pressure(dir.path(), Resource::Io).unwrap(), None);
        std::fs::create_dir(dir.path().join("pressure")).unwrap();
        let put = |text: &str| std::fs::write(dir.path().join("pressure/io"), text).unwrap();
        put(
            "some avg10=92.91 avg60=1.00 avg300=0.00 total=5\nfull avg10=0.07 avg60=0.00 avg300=0.00 total=0\n",
        );
        let expected = Pressure {
            some: 9291,
            full: Some(7),
        };
        assert_eq!(pressure(dir.path(), Resource::Io).unwrap(), Some(expected));
        put("some avg10=0.00 avg60=0.00 avg300=0.00 total=0\n");
        let full = pressure(dir.path(), Resource::Io).unwrap().unwrap().full;
        assert_eq!(full, None, "older kernels do not tell it of processors");
        put("nothing\n");
        assert!(pressure(dir.path(), Resource::Io).is_err());
    }

    #[test]
    fn this_host_does_something() {
        let root = Path::new("/proc");
        let load = read(root).unwrap();
        assert!(load.cpu_busy_ms > 0 && load.memory_used.0 > 0);
        assert!(read(root).unwrap().cpu_busy_ms >= load.cpu_busy_ms);
        assert!(pressure(root, Resource::Cpu).is_ok());
    }
}
