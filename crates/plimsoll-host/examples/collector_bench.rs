//! What reading cgroups costs on this machine: `collector_bench [CGROUPS] [CYCLES]` (1000, 50).
//!
//! Makes that many cgroups of its own under /sys/fs/cgroup, reads them in several ways and removes
//! them. Prints medians as JSON lines. CPU time is this thread's; wall time is what a caller waits.
//! The cgroups are empty: `memory.stat` of one in use has longer numbers, not more lines.

use std::hint::black_box;
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use plimsoll_host::cgroup::{Caps, CgroupDirs, Driver, Hierarchy, Instance, ParentPath};
use plimsoll_host::collector::{Collector, Settings, raise_descriptor_limit};
use rustix::time::{ClockId, clock_gettime};

type Result<T> = std::result::Result<T, Box<dyn std::error::Error>>;

fn thread_cpu() -> Duration {
    let now = clock_gettime(ClockId::ThreadCPUTime);
    Duration::new(
        now.tv_sec.cast_unsigned(),
        now.tv_nsec.cast_unsigned() as u32,
    )
}

#[expect(clippy::disallowed_methods, reason = "a measurement reads the clock")]
fn wall() -> Instant {
    Instant::now()
}

fn median(mut values: Vec<Duration>) -> f64 {
    values.sort_unstable();
    values[values.len() / 2].as_secs_f64()
}

/// Runs `work` `cycles` times and prints its medians.
fn measure(name: &str, n: usize, cycles: usize, mut work: impl FnMut()) {
    let (mut walls, mut cpus) = (Vec::new(), Vec::new());
    for _ in 0..cycles {
        let (wall_before, cpu_before) = (wall(), thread_cpu());
        work();
        cpus.push(thread_cpu() - cpu_before);
        walls.push(wall_before.elapsed());
    }
    let cpu = median(cpus);
    for (what, value, unit) in [
        ("wall", median(walls) * 1e3, "ms"),
        ("cpu", cpu * 1e3, "ms"),
        ("cpu_per_cgroup", cpu * 1e6 / n as f64, "us"),
    ] {
        println!(
            "{{\"name\":\"{name}_{what}\",\"n\":{n},\"value\":{value:.3},\"unit\":\"{unit}\"}}"
        );
    }
}

/// The files the collector reads.
fn files(dirs: &CgroupDirs) -> Vec<PathBuf> {
    let all = |dir: &Path, names: &[&str]| -> Vec<PathBuf> {
        names.iter().map(|name| dir.join(name)).collect()
    };
    match dirs {
        CgroupDirs::V1 {
            cpu,
            cpuacct,
            memory,
            pids,
            blkio,
        } => [
            all(cpuacct, &["cpuacct.usage"]),
            all(cpu, &["cpu.stat"]),
            all(
                memory,
                &[
                    "memory.usage_in_bytes",
                    "memory.stat",
                    "memory.max_usage_in_bytes",
                    "memory.oom_control",
                    "memory.failcnt",
                ],
            ),
            all(pids, &["pids.current"]),
            all(blkio, &["blkio.throttle.io_service_bytes_recursive"]),
        ]
        .concat(),
        CgroupDirs::V2 { dir } => all(
            dir,
            &[
                "cpu.stat",
                "memory.current",
                "memory.stat",
                "memory.peak",
                "memory.events",
                "pids.current",
                "io.stat",
            ],
        ),
    }
}

/// Removes the cgroups even when a measurement fails.
struct Cleanup<'a>(&'a Hierarchy, &'a [ParentPath]);

impl Drop for Cleanup<'_> {
    fn drop(&mut self) {
        for path in self
            .1
            .iter()
            .flat_map(|path| path.levels().into_iter().skip(1))
        {
            let _ = self.0.remove_if_empty(&path);
        }
        if let Some(root) = self.1.first().map(|path| path.levels().swap_remove(0)) {
            let _ = self.0.remove_if_empty(&root);
        }
    }
}

fn run(hierarchy: &Hierarchy, paths: &[ParentPath], cycles: usize) -> Result<()> {
    let n = paths.len();
    let _cleanup = Cleanup(hierarchy, paths);
    for path in paths {
        hierarchy.apply(path, Caps::default())?;
    }
    let limit = raise_descriptor_limit(n as u64 * 10 + 100)?;
    let descriptors_max = usize::try_from(limit)?.saturating_sub(100);

    let mut sum = 0;
    for (name, detail_every, descriptors_max) in [
        ("full", 1, descriptors_max),
        ("mostly_idle", 10, descriptors_max),
        ("idle", u32::MAX, descriptors_max),
        ("idle_no_descriptors", u32::MAX, 0),
    ] {
        let mut collector = Collector::new(Settings {
            detail_every,
            descriptors_max,
            stacked: Vec::new(),
        });
        for (key, path) in paths.iter().enumerate() {
            collector.watch(key, hierarchy.dirs(path));
        }
        // Opens everything.
        collector.cycle(Duration::ZERO, |_, _| {});
        measure(name, n, cycles, || {
            let report = collector.cycle(Duration::ZERO, |_, sample| {
                sum += sample.cpu_ns.unwrap_or(0);
            });
            assert_eq!((report.gone.len(), report.failed), (0, 0), "all are read");
        });
    }
    let names: Vec<Vec<PathBuf>> = paths
        .iter()
        .map(|path| files(&hierarchy.dirs(path)))
        .collect();
    measure("open_read_close", n, cycles, || {
        for file in names.iter().flatten() {
            sum += std::fs::read(file).map_or(0, |text| text.len() as u64);
        }
    });
    black_box(sum);
    Ok(())
}

fn main() -> Result<()> {
    let mut arguments = std::env::args().skip(1);
    let n: u128 = arguments.next().map_or(Ok(1_000), |text| text.parse())?;
    let cycles = arguments.next().map_or(Ok(50), |text| text.parse())?;
    let hierarchy = Hierarchy::detect(Path::new("/sys/fs/cgroup"), Driver::Cgroupfs)?;
    let instance: Instance = format!("bench_{}", std::process::id()).parse()?;
    let paths: Vec<_> = (0..n)
        .map(|user| ParentPath::user(instance.clone(), None, user))
        .collect();
    run(&hierarchy, &paths, cycles)
}
