//! One reading of one cgroup.

use std::time::Duration;

/// The counters of a cgroup at one moment. `None` means that the kernel does not offer it here.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Sample {
    /// When, on the caller's monotonic clock.
    pub at: Duration,
    /// Everything but `at` and `cpu_ns` was read in an earlier cycle: the CPU counter has not moved
    /// since.
    pub is_carried: bool,
    /// CPU time used since the cgroup was made, in nanoseconds (v2 counts in microseconds).
    pub cpu_ns: Option<u64>,
    /// How often the CPU cap held it back.
    pub throttling: Option<Throttling>,
    /// Memory in use, page cache included, in bytes.
    pub memory_bytes: Option<u64>,
    /// Page cache that nobody has used lately, in bytes; the first to be reclaimed.
    pub inactive_file_bytes: Option<u64>,
    /// The most memory ever in use, in bytes.
    pub memory_peak_bytes: Option<u64>,
    /// How many times memory use met the cap. Reclaim may have helped; see `oom_kills`.
    pub memory_limit_hits: Option<u64>,
    /// Processes killed for lack of memory. On v1 only those that were in this very cgroup: a
    /// parent's cap kills in a child, and counts there and in the parent's `memory_limit_hits`. On
    /// v2 those of the whole subtree.
    pub oom_kills: Option<u64>,
    /// Processes and threads.
    pub pids: Option<u64>,
    /// Read from disks, its children's share included, in bytes.
    pub block_read_bytes: Option<u64>,
    /// Written to disks, in bytes. On v1 without what the kernel wrote back later from the page
    /// cache: that is nobody's.
    pub block_written_bytes: Option<u64>,
}

/// How often a CPU cap held a cgroup back. A cgroup without a cap counts nothing.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Throttling {
    /// Scheduling periods (0.1 s each) in which it ran.
    pub periods: u64,
    /// Those in which it used up its quota.
    pub throttled_periods: u64,
    /// How long its CPUs were held back, in nanoseconds, summed over CPUs.
    pub throttled_ns: u64,
}

impl Sample {
    /// Memory in use without the page cache that nobody has used lately, in bytes: the figure the
    /// Docker CLI shows.
    #[must_use]
    pub fn working_set_bytes(&self) -> Option<u64> {
        Some(self.memory_bytes?.saturating_sub(self.inactive_file_bytes?))
    }
}
