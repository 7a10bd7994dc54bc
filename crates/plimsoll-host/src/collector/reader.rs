//! The files of one cgroup, and how they are read.

use std::path::PathBuf;

use rustix::fd::OwnedFd;
use rustix::fs::{Mode, OFlags};
use rustix::io::Errno;

use super::{Sample, Settings, Throttling};
use crate::cgroup::CgroupDirs;

/// Bytes read of a file at most. The longest, `memory.stat`, has about 2 000.
const BUFFER: usize = 16 << 10;

/// Whether the cgroup is still there.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Outcome {
    Done,
    Gone,
}

/// What all files share: the buffer and the count of open descriptors.
#[derive(Debug)]
pub(super) struct Reader {
    buffer: Box<[u8]>,
    pub(super) open: usize,
    open_max: usize,
    stacked: Vec<String>,
    /// Files opened in this cycle.
    pub(super) opened: usize,
    /// Of those, the ones not kept because the bound was reached, where the next cycle will want
    /// them again.
    pub(super) starved: usize,
    pub(super) failed: usize,
}

impl Reader {
    pub(super) fn new(settings: &Settings) -> Self {
        Self {
            buffer: vec![0; BUFFER].into_boxed_slice(),
            open: 0,
            open_max: settings.descriptors_max,
            stacked: settings.stacked.clone(),
            opened: 0,
            starved: 0,
            failed: 0,
        }
    }

    pub(super) fn begin(&mut self) {
        self.opened = 0;
        self.starved = 0;
        self.failed = 0;
    }

    /// Reads a file from its beginning; `None` when it is absent or unreadable.
    fn read(
        &mut self,
        slot: &mut Slot,
        path: impl FnOnce() -> PathBuf,
        is_wanted_again: bool,
    ) -> Result<Option<&[u8]>, Gone> {
        let transient;
        let fd = match slot {
            Slot::Open(fd) => &*fd,
            Slot::Closed => {
                self.opened += 1;
                let flags = OFlags::RDONLY | OFlags::CLOEXEC;
                let fd = match rustix::fs::open(path(), flags, Mode::empty()) {
                    Ok(fd) => fd,
                    Err(Errno::NOENT) => return Ok(None),
                    Err(Errno::NODEV) => return Err(Gone),
                    Err(errno) => {
                        if matches!(errno, Errno::MFILE | Errno::NFILE) {
                            // The bound was too high for this process: keep no more than now.
                            self.open_max = self.open;
                        }
                        self.failed += 1;
                        return Ok(None);
                    }
                };
                if self.open < self.open_max {
                    self.open += 1;
                    *slot = Slot::Open(fd);
                    let Slot::Open(fd) = slot else {
                        unreachable!("just put there")
                    };
                    &*fd
                } else {
                    self.starved += usize::from(is_wanted_again);
                    transient = fd;
                    &transient
                }
            }
        };
        match rustix::io::pread(fd, &mut self.buffer[..], 0) {
            Ok(length) => Ok(Some(&self.buffer[..length])),
            // The cgroup was removed; its open files say so.
            Err(Errno::NODEV) => Err(Gone),
            Err(_) => {
                self.failed += 1;
                Ok(None)
            }
        }
    }
}

/// The cgroup was removed.
struct Gone;

#[derive(Debug)]
enum Slot {
    Closed,
    Open(OwnedFd),
}

/// The files a sample is read from. Not all exist on both versions or on every kernel.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum File {
    /// v2: CPU time and throttling.
    Cpu,
    /// v1 only.
    Throttling,
    Memory,
    MemoryStat,
    MemoryPeak,
    /// v2: limit hits too.
    Oom,
    /// v1 only.
    LimitHits,
    Pids,
    /// The subtree's.
    Block,
    /// v1 only, on kernels without the subtree's: the cgroup's own.
    BlockOwn,
}

const FILES: usize = 10;

/// One cgroup's files.
#[derive(Debug)]
pub(super) struct Files {
    dirs: CgroupDirs,
    slots: [Slot; FILES],
    /// Which files were not there when they were last tried. They are tried again only when the
    /// cgroup is idle and its turn comes, since a controller may be turned on later.
    absent: [bool; FILES],
}

impl Files {
    pub(super) fn new(dirs: CgroupDirs) -> Self {
        Self {
            dirs,
            slots: std::array::from_fn(|_| Slot::Closed),
            absent: [false; FILES],
        }
    }

    fn path(dirs: &CgroupDirs, file: File) -> Option<PathBuf> {
        Some(match (dirs, file) {
            (CgroupDirs::V1 { cpuacct, .. }, File::Cpu) => cpuacct.join("cpuacct.usage"),
            (CgroupDirs::V1 { cpu, .. }, File::Throttling) => cpu.join("cpu.stat"),
            (CgroupDirs::V1 { memory, .. }, _) if file.is_memory() => memory.join(match file {
                File::Memory => "memory.usage_in_bytes",
                File::MemoryStat => "memory.stat",
                File::MemoryPeak => "memory.max_usage_in_bytes",
                File::LimitHits => "memory.failcnt",
                _ => "memory.oom_control",
            }),
            (CgroupDirs::V1 { blkio, .. }, File::Block) => {
                blkio.join("blkio.throttle.io_service_bytes_recursive")
            }
            (CgroupDirs::V1 { blkio, .. }, File::BlockOwn) => {
                blkio.join("blkio.throttle.io_service_bytes")
            }
            (CgroupDirs::V1 { pids, .. }, _) => pids.join("pids.current"),
            (CgroupDirs::V2 { dir }, _) => dir.join(match file {
                File::Cpu => "cpu.stat",
                File::Memory => "memory.current",
                File::MemoryStat => "memory.stat",
                File::MemoryPeak => "memory.peak",
                File::Oom => "memory.events",
                File::Pids => "pids.current",
                File::Block => "io.stat",
                // In `cpu.stat`, `memory.events` and `io.stat`.
                File::Throttling | File::LimitHits | File::BlockOwn => return None,
            }),
        })
    }

    fn read<T>(
        &mut self,
        reader: &mut Reader,
        file: File,
        is_idle: bool,
        parse: impl FnOnce(&[u8]) -> Option<T>,
    ) -> Result<Option<T>, Gone> {
        let at = file as usize;
        if self.absent[at] && !is_idle {
            return Ok(None);
        }
        if matches!(self.slots[at], Slot::Closed) && Self::path(&self.dirs, file).is_none() {
            return Ok(None);
        }
        let dirs = &self.dirs;
        let path = || Self::path(dirs, file).expect("looked at before");
        // The CPU counter is read in every cycle, the others while the cgroup is busy.
        let is_wanted_again = file == File::Cpu || !is_idle;
        let text = reader.read(&mut self.slots[at], path, is_wanted_again)?;
        self.absent[at] = text.is_none();
        Ok(text.and_then(parse))
    }

    /// Reads the CPU counter, and on v2 throttling with it. Tells whether the cgroup is still
    /// there.
    pub(super) fn read_cpu(&mut self, reader: &mut Reader, sample: &mut Sample) -> Outcome {
        let is_v1 = matches!(self.dirs, CgroupDirs::V1 { .. });
        // Always tried again when absent: it says whether the cgroup exists at all.
        let read = if is_v1 {
            self.read(reader, File::Cpu, true, |text| {
                sample.cpu_ns = parse_number(text);
                Some(())
            })
        } else {
            self.read(reader, File::Cpu, true, |text| {
                sample.cpu_ns = keyed(text, b"usage_usec").map(|us| us.saturating_mul(1000));
                sample.throttling = throttling(text, b"throttled_usec", 1000);
                Some(())
            })
        };
        match read {
            Ok(Some(())) => Outcome::Done,
            Err(Gone) => Outcome::Gone,
            Ok(None) => {
                sample.cpu_ns = None;
                // Either there is no such counter, or no such cgroup.
                if self.dirs.memory().is_dir() || self.dirs.main().is_dir() {
                    Outcome::Done
                } else {
                    Outcome::Gone
                }
            }
        }
    }

    /// Reads everything else.
    pub(super) fn read_detail(
        &mut self,
        reader: &mut Reader,
        sample: &mut Sample,
        is_idle: bool,
    ) -> Outcome {
        match self.try_read_detail(reader, sample, is_idle) {
            Ok(()) => Outcome::Done,
            Err(Gone) => Outcome::Gone,
        }
    }

    fn try_read_detail(
        &mut self,
        reader: &mut Reader,
        sample: &mut Sample,
        is_idle: bool,
    ) -> Result<(), Gone> {
        let is_v1 = matches!(self.dirs, CgroupDirs::V1 { .. });
        sample.memory_bytes = self.read(reader, File::Memory, is_idle, parse_number)?;
        let key: &[u8] = if is_v1 {
            b"total_inactive_file"
        } else {
            b"inactive_file"
        };
        sample.inactive_file_bytes =
            self.read(reader, File::MemoryStat, is_idle, |text| keyed(text, key))?;
        sample.memory_peak_bytes = self.read(reader, File::MemoryPeak, is_idle, parse_number)?;
        sample.pids = self.read(reader, File::Pids, is_idle, parse_number)?;
        if is_v1 {
            sample.throttling = self.read(reader, File::Throttling, is_idle, |text| {
                throttling(text, b"throttled_time", 1)
            })?;
            sample.oom_kills =
                self.read(reader, File::Oom, is_idle, |text| keyed(text, b"oom_kill"))?;
            sample.memory_limit_hits = self.read(reader, File::LimitHits, is_idle, parse_number)?;
        } else {
            let events = self.read(reader, File::Oom, is_idle, |text| {
                Some((keyed(text, b"oom_kill"), keyed(text, b"max")))
            })?;
            (sample.oom_kills, sample.memory_limit_hits) = events.unwrap_or_default();
        }
        // What is read borrows the reader.
        let stacked = std::mem::take(&mut reader.stacked);
        let block = self.read_block(reader, is_idle, is_v1, &stacked);
        reader.stacked = stacked;
        (sample.block_read_bytes, sample.block_written_bytes) = block?.unzip();
        Ok(())
    }

    fn read_block(
        &mut self,
        reader: &mut Reader,
        is_idle: bool,
        is_v1: bool,
        stacked: &[String],
    ) -> Result<Option<(u64, u64)>, Gone> {
        let parse = |text: &[u8]| {
            Some(match is_v1 {
                true => blkio_bytes(text, stacked),
                false => io_stat_bytes(text, stacked),
            })
        };
        match self.read(reader, File::Block, is_idle, parse)? {
            None if is_v1 => self.read(reader, File::BlockOwn, is_idle, parse),
            read => Ok(read),
        }
    }

    /// Closes all but the CPU counter's file; returns how many were open.
    pub(super) fn close_detail(&mut self, reader: &mut Reader) -> usize {
        let before = reader.open;
        for slot in &mut self.slots[1..] {
            close(slot, reader);
        }
        before - reader.open
    }

    pub(super) fn close(&mut self, reader: &mut Reader) {
        for slot in &mut self.slots {
            close(slot, reader);
        }
    }
}

impl File {
    fn is_memory(self) -> bool {
        matches!(
            self,
            Self::Memory | Self::MemoryStat | Self::MemoryPeak | Self::LimitHits | Self::Oom
        )
    }
}

fn close(slot: &mut Slot, reader: &mut Reader) {
    if let Slot::Open(_) = std::mem::replace(slot, Slot::Closed) {
        reader.open -= 1;
    }
}

/// A decimal number up to the first other byte; `None` without a digit or beyond `u64`.
fn parse_number(text: &[u8]) -> Option<u64> {
    let digits = text.iter().take_while(|byte| byte.is_ascii_digit());
    let mut number = None;
    for digit in digits {
        let so_far: u64 = number.unwrap_or(0);
        number = Some(
            so_far
                .checked_mul(10)?
                .checked_add(u64::from(digit - b'0'))?,
        );
    }
    number
}

/// The number behind `key ` at the beginning of a line. From the end, where v1's totals are.
fn keyed(text: &[u8], key: &[u8]) -> Option<u64> {
    text.rsplit(|&byte| byte == b'\n')
        .find_map(|line| line.strip_prefix(key)?.strip_prefix(b" "))
        .and_then(parse_number)
}

fn throttling(text: &[u8], time_key: &[u8], ns_per_unit: u64) -> Option<Throttling> {
    Some(Throttling {
        periods: keyed(text, b"nr_periods")?,
        throttled_periods: keyed(text, b"nr_throttled")?,
        throttled_ns: keyed(text, time_key)?.saturating_mul(ns_per_unit),
    })
}

/// What follows the disk on each line that begins with one, without those of `stacked`.
fn by_disk<'t>(text: &'t [u8], stacked: &[String]) -> impl Iterator<Item = &'t [u8]> {
    text.split(|&byte| byte == b'\n').filter_map(move |line| {
        let end = line.iter().position(|&byte| byte == b' ')?;
        let (disk, rest) = line.split_at(end);
        let counts = disk.contains(&b':') && !stacked.iter().any(|other| other.as_bytes() == disk);
        counts.then_some(&rest[1..])
    })
}

/// Bytes read and written, of v1's lines `8:0 Read 4096`.
fn blkio_bytes(text: &[u8], stacked: &[String]) -> (u64, u64) {
    let (mut read, mut written) = (0_u64, 0_u64);
    for rest in by_disk(text, stacked) {
        if let Some(bytes) = rest.strip_prefix(b"Read ").and_then(parse_number) {
            read = read.saturating_add(bytes);
        } else if let Some(bytes) = rest.strip_prefix(b"Write ").and_then(parse_number) {
            written = written.saturating_add(bytes);
        }
    }
    (read, written)
}

/// Bytes read and written, of v2's lines `8:0 rbytes=4096 wbytes=0 rios=1 ...`.
fn io_stat_bytes(text: &[u8], stacked: &[String]) -> (u64, u64) {
    let (mut read, mut written) = (0_u64, 0_u64);
    for rest in by_disk(text, stacked) {
        let field = |key: &[u8]| {
            let mut words = rest.split(|&byte| byte == b' ');
            words
                .find_map(|word| word.strip_prefix(key))
                .and_then(parse_number)
        };
        read = read.saturating_add(field(b"rbytes=").unwrap_or(0));
        written = written.saturating_add(field(b"wbytes=").unwrap_or(0));
    }
    (read, written)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn numbers_end_where_the_digits_do() {
        assert_eq!(parse_number(b"42\n"), Some(42));
        assert_eq!(parse_number(b"18446744073709551615"), Some(u64::MAX));
        for wrong in [&b"18446744073709551616"[..], b"", b"\n", b"max\n", b"-1\n"] {
            assert_eq!(parse_number(wrong), None);
        }
    }

    #[test]
    fn bytes_of_stacked_disks_are_counted_once() {
        let v1 = b"8:0 Read 10\n8:0 Write 20\n8:0 Sync 30\n8:0 Total 30\n253:0 Read 10\n253:0 Write 20\nTotal 60\n";
        let v2 = b"8:0 rbytes=10 wbytes=20 rios=1 wios=1 dbytes=0 dios=0\n253:0 rbytes=10 wbytes=20 rios=1\n8:16 \n";
        let stacked = ["253:0".to_owned()];
        assert_eq!(blkio_bytes(v1, &stacked), (10, 20));
        assert_eq!(blkio_bytes(v1, &[]), (20, 40));
        assert_eq!(io_stat_bytes(v2, &stacked), (10, 20));
        assert_eq!(io_stat_bytes(v2, &[]), (20, 40));
        assert_eq!(blkio_bytes(b"Total 0\n", &[]), (0, 0));
        assert_eq!(io_stat_bytes(b"", &[]), (0, 0));
    }

    #[test]
    fn a_key_is_found_whole_and_at_a_lines_beginning() {
        let text = b"inactive_file 1\ntotal_inactive_file 2\nx inactive_file 3\noom_kill 4\noom_kill_disable 5\n";
        assert_eq!(keyed(text, b"inactive_file"), Some(1));
        assert_eq!(keyed(text, b"total_inactive_file"), Some(2));
        assert_eq!(keyed(text, b"oom_kill"), Some(4));
        assert_eq!(keyed(text, b"oom"), None);
    }
}
