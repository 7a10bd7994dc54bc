//! The collector on temp-dir trees, and on this machine's own cgroups for what only the kernel
//! does.

use std::collections::BTreeMap;
use std::fs;
use std::path::{Path, PathBuf};
use std::time::Duration;

use tempfile::TempDir;

use super::*;
use crate::cgroup::{Caps, Driver, Hierarchy, Instance, ParentPath, Version};

const SECOND: Duration = Duration::from_secs(1);

fn v1(dir: &TempDir, name: &str) -> CgroupDirs {
    let under = |controller: &str| {
        let dir = dir.path().join(controller).join(name);
        fs::create_dir_all(&dir).unwrap();
        dir
    };
    let dirs = CgroupDirs::V1 {
        cpu: under("cpu"),
        cpuacct: under("cpuacct"),
        memory: under("memory"),
        pids: under("pids"),
        blkio: under("blkio"),
    };
    set_v1(&dirs, 1_000, 4_096);
    dirs
}

fn set_v1(dirs: &CgroupDirs, cpu_ns: u64, memory: u64) {
    let CgroupDirs::V1 {
        cpu,
        cpuacct,
        memory: memory_dir,
        pids,
        blkio,
    } = dirs
    else {
        panic!("v1")
    };
    let put = |dir: &Path, name: &str, text: String| fs::write(dir.join(name), text).unwrap();
    put(cpuacct, "cpuacct.usage", format!("{cpu_ns}\n"));
    put(
        cpu,
        "cpu.stat",
        "nr_periods 10\nnr_throttled 2\nthrottled_time 300\nnr_bursts 0\n".into(),
    );
    put(memory_dir, "memory.usage_in_bytes", format!("{memory}\n"));
    put(
        memory_dir,
        "memory.stat",
        "inactive_file 1\ntotal_inactive_file 96\ntotal_rss 5\n".into(),
    );
    put(memory_dir, "memory.max_usage_in_bytes", "8192\n".into());
    put(
        memory_dir,
        "memory.oom_control",
        "oom_kill_disable 0\nunder_oom 0\noom_kill 7\n".into(),
    );
    put(memory_dir, "memory.failcnt", "9\n".into());
    put(pids, "pids.current", "3\n".into());
    put(
        blkio,
        "blkio.throttle.io_service_bytes_recursive",
        "8:0 Read 11\n8:0 Write 12\n8:0 Total 23\nTotal 23\n".into(),
    );
}

fn settings(detail_every: u32) -> Settings {
    Settings {
        detail_every,
        descriptors_max: 1_000,
        ..Settings::default()
    }
}

/// One cycle's samples by key.
fn cycle(collector: &mut Collector<u32>, at: u32) -> (Cycle<u32>, BTreeMap<u32, Sample>) {
    let mut samples = BTreeMap::new();
    let report = collector.cycle(SECOND * at, |key, sample| {
        assert!(samples.insert(*key, *sample).is_none(), "each is read once");
    });
    (report, samples)
}

#[test]
fn a_v1_cgroup_is_read_in_full() {
    let dir = tempfile::tempdir().unwrap();
    let mut collector = Collector::new(settings(10));
    collector.watch(1, v1(&dir, "a"));
    let (report, samples) = cycle(&mut collector, 5);
    assert_eq!(
        samples[&1],
        Sample {
            at: SECOND * 5,
            is_carried: false,
            cpu_ns: Some(1_000),
            throttling: Some(Throttling {
                periods: 10,
                throttled_periods: 2,
                throttled_ns: 300
            }),
            memory_bytes: Some(4_096),
            inactive_file_bytes: Some(96),
            memory_peak_bytes: Some(8_192),
            memory_limit_hits: Some(9),
            oom_kills: Some(7),
            pids: Some(3),
            block_read_bytes: Some(11),
            block_written_bytes: Some(12),
        }
    );
    assert_eq!(samples[&1].working_set_bytes(), Some(4_000));
    assert_eq!((report.detailed, report.idle, report.failed), (1, 0, 0));
}

#[test]
fn a_v2_cgroup_is_read_in_full_and_what_its_kernel_lacks_is_none() {
    let dir = tempfile::tempdir().unwrap();
    let put = |name: &str, text: &str| fs::write(dir.path().join(name), text).unwrap();
    put(
        "cpu.stat",
        "usage_usec 5\nuser_usec 3\nsystem_usec 2\nnr_periods 4\nnr_throttled 1\nthrottled_usec 6\n",
    );
    put("memory.current", "4096\n");
    put(
        "io.stat",
        "8:0 rbytes=13 wbytes=14 rios=1 wios=1 dbytes=0 dios=0\n",
    );
    put("memory.stat", "anon 1\ninactive_file 96\nactive_file 5\n");
    put(
        "memory.events",
        "low 0\nhigh 0\nmax 9\noom 1\noom_kill 7\noom_group_kill 0\n",
    );
    let mut collector = Collector::new(settings(10));
    collector.watch(
        1,
        CgroupDirs::V2 {
            dir: dir.path().to_owned(),
        },
    );
    let (_, samples) = cycle(&mut collector, 1);
    assert_eq!(
        samples[&1],
        Sample {
            at: SECOND,
            is_carried: false,
            cpu_ns: Some(5_000),
            throttling: Some(Throttling {
                periods: 4,
                throttled_periods: 1,
                throttled_ns: 6_000
            }),
            memory_bytes: Some(4_096),
            inactive_file_bytes: Some(96),
            memory_peak_bytes: None,
            memory_limit_hits: Some(9),
            oom_kills: Some(7),
            pids: None,
            block_read_bytes: Some(13),
            block_written_bytes: Some(14),
        }
    );
}

#[test]
fn an_idle_cgroup_is_read_in_full_only_at_its_turn() {
    let dir = tempfile::tempdir().unwrap();
    let mut collector = Collector::new(settings(4));
    let dirs = v1(&dir, "a");
    collector.watch(1, dirs.clone());
    let mut seen = Vec::new();
    for at in 0..9 {
        // Memory changes without the CPU counter moving, so what is read shows when it was read.
        set_v1(&dirs, 1_000, 10_000 + u64::from(at));
        let (_, samples) = cycle(&mut collector, at);
        let sample = samples[&1];
        assert_eq!(
            sample.at,
            SECOND * at,
            "carried or not, the sample is of this cycle"
        );
        seen.push((sample.memory_bytes.unwrap() - 10_000, sample.is_carried));
    }
    let expected = [
        (0, false),
        (0, true),
        (0, true),
        (0, true),
        (4, false),
        (4, true),
        (4, true),
        (4, true),
        (8, false),
    ];
    assert_eq!(seen, expected);

    set_v1(&dirs, 1_001, 77);
    let (report, samples) = cycle(&mut collector, 9);
    assert_eq!(
        (samples[&1].memory_bytes, samples[&1].is_carried),
        (Some(77), false)
    );
    assert_eq!((report.detailed, report.idle), (1, 0));
}

#[test]
fn turns_of_idle_cgroups_are_spread_over_the_cycles() {
    let dir = tempfile::tempdir().unwrap();
    let mut collector = Collector::new(settings(4));
    for key in 0..8 {
        collector.watch(key, v1(&dir, &key.to_string()));
    }
    assert_eq!(
        cycle(&mut collector, 0).0.detailed,
        8,
        "the first reading is always full"
    );
    for at in 1..9 {
        let (report, _) = cycle(&mut collector, at);
        assert_eq!((report.detailed, report.idle), (2, 6), "cycle {at}");
    }
}

#[test]
fn a_cgroup_that_is_gone_is_handed_back_with_its_last_sample_and_the_rest_go_on() {
    let dir = tempfile::tempdir().unwrap();
    let mut collector = Collector::new(Settings {
        detail_every: 10,
        descriptors_max: 0,
        ..Settings::default()
    });
    for key in 0..3 {
        collector.watch(key, v1(&dir, &key.to_string()));
    }
    cycle(&mut collector, 0);
    for controller in ["cpu", "cpuacct", "memory", "pids", "blkio"] {
        fs::remove_dir_all(dir.path().join(controller).join("0")).unwrap();
    }
    let (report, samples) = cycle(&mut collector, 1);
    assert_eq!(report.gone.len(), 1);
    assert_eq!(
        (report.gone[0].0, report.gone[0].1.cpu_ns),
        (0, Some(1_000))
    );
    assert_eq!(samples.keys().copied().collect::<Vec<_>>(), [1, 2]);
    assert_eq!(collector.len(), 2);
    // The one that took its place can still be found.
    assert!(collector.unwatch(&2).is_some() && collector.unwatch(&2).is_none());
    assert!(collector.unwatch(&0).is_none());
    assert_eq!(
        cycle(&mut collector, 2)
            .1
            .keys()
            .copied()
            .collect::<Vec<_>>(),
        [1]
    );
}

#[test]
fn a_missing_controller_is_none_and_no_reason_to_call_it_gone() {
    let dir = tempfile::tempdir().unwrap();
    let dirs = v1(&dir, "a");
    for (controller, file) in [("cpuacct", "cpuacct.usage"), ("pids", "pids.current")] {
        fs::remove_file(dir.path().join(controller).join("a").join(file)).unwrap();
    }
    let mut collector = Collector::new(settings(10));
    collector.watch(1, dirs);
    for at in 0..3 {
        let (report, samples) = cycle(&mut collector, at);
        assert_eq!((samples[&1].cpu_ns, samples[&1].pids), (None, None));
        assert_eq!(samples[&1].memory_bytes, Some(4_096));
        assert_eq!(
            (report.detailed, report.failed),
            (1, 0),
            "nothing says that it is idle"
        );
    }
}

#[test]
fn what_cannot_be_read_is_counted() {
    let dir = tempfile::tempdir().unwrap();
    let dirs = v1(&dir, "a");
    let file = dir.path().join("memory/a/memory.stat");
    fs::remove_file(&file).unwrap();
    // Reading a directory is an error that is neither absence nor removal.
    fs::create_dir(&file).unwrap();
    let mut collector = Collector::new(settings(10));
    collector.watch(1, dirs);
    let (report, samples) = cycle(&mut collector, 0);
    assert_eq!(report.failed, 1);
    assert_eq!(samples[&1].inactive_file_bytes, None);
    assert_eq!(
        samples[&1].working_set_bytes(),
        None,
        "half of a difference is no figure"
    );
}

#[test]
fn descriptors_stay_within_the_bound_and_move_to_those_who_work() {
    let dir = tempfile::tempdir().unwrap();
    let mut collector = Collector::new(Settings {
        detail_every: 1_000,
        descriptors_max: 12,
        ..Settings::default()
    });
    let dirs: Vec<_> = (0..4).map(|key| v1(&dir, &key.to_string())).collect();
    for (key, dirs) in (0..).zip(&dirs) {
        collector.watch(key, dirs.clone());
    }
    let (report, samples) = cycle(&mut collector, 1);
    assert_eq!(report.opened, 4 * 9, "each file once");
    assert_eq!(samples.len(), 4);
    assert_eq!(collector.descriptors(), 12);

    // Only the last works from here on; at first the earlier ones hold the descriptors.
    let mut opened = Vec::new();
    for at in 2..6 {
        set_v1(&dirs[3], 1_000 + u64::from(at), u64::from(at));
        let (report, samples) = cycle(&mut collector, at);
        assert!(collector.descriptors() <= 12);
        assert_eq!(samples[&3].memory_bytes, Some(u64::from(at)));
        assert_eq!((report.detailed, report.idle), (1, 3));
        opened.push(report.opened);
    }
    // Idle ones have only their CPU counters' files left, and the busy one all of its own.
    assert_eq!(opened.last(), Some(&0), "{opened:?}");

    for key in 0..4 {
        collector.unwatch(&key);
    }
    assert_eq!(collector.descriptors(), 0);
}

#[test]
fn cpu_counters_have_the_first_claim_on_descriptors() {
    let dir = tempfile::tempdir().unwrap();
    // Enough for every CPU counter, and for no more.
    let mut collector = Collector::new(Settings {
        detail_every: 1_000,
        descriptors_max: 9,
        ..Settings::default()
    });
    for key in 0..9 {
        collector.watch(key, v1(&dir, &key.to_string()));
    }
    cycle(&mut collector, 1);
    assert_eq!(
        cycle(&mut collector, 2).0.opened,
        9 - 1,
        "the first holds all there are"
    );
    assert_eq!(
        cycle(&mut collector, 3).0.opened,
        9 - 1,
        "what it gave back is taken"
    );
    assert_eq!(cycle(&mut collector, 4).0.opened, 0);
    assert_eq!(collector.descriptors(), 9, "the bound is used in full");
}

#[test]
fn watching_again_starts_anew() {
    let dir = tempfile::tempdir().unwrap();
    let mut collector = Collector::new(settings(10));
    collector.watch(1, v1(&dir, "a"));
    cycle(&mut collector, 0);
    let other = v1(&dir, "b");
    set_v1(&other, 1_000, 55);
    collector.watch(1, other);
    assert_eq!(collector.len(), 1);
    let (report, samples) = cycle(&mut collector, 1);
    assert_eq!(
        report.detailed, 1,
        "the same CPU counter of another cgroup is no sign of idleness"
    );
    assert_eq!(samples[&1].memory_bytes, Some(55));
}

#[test]
fn each_sample_is_stamped_when_its_reading_begins() {
    let dir = tempfile::tempdir().unwrap();
    let mut collector = Collector::new(settings(10));
    for key in 0..3 {
        collector.watch(key, v1(&dir, &key.to_string()));
    }
    let mut now = 0;
    let mut stamps = Vec::new();
    let clock = || {
        now += 1;
        SECOND * now
    };
    collector.cycle_with(clock, |_, sample| stamps.push(sample.at.as_secs()));
    assert_eq!(stamps, [1, 2, 3]);
}

#[test]
fn the_descriptor_limit_is_raised_as_far_as_allowed_and_never_lowered() {
    let now = raise_descriptor_limit(0).unwrap();
    assert_eq!(raise_descriptor_limit(1).unwrap(), now);
    let most = raise_descriptor_limit(u64::MAX).unwrap();
    assert!(most >= now);
    assert_eq!(
        getrlimit(Resource::Nofile).current.unwrap_or(u64::MAX),
        most
    );
}

/// A cgroup of this machine's own; `None` where none can be made. Removed at the end.
struct Real(Hierarchy, ParentPath);

impl Real {
    fn new(name: &str) -> Option<Self> {
        let root = PathBuf::from("/sys/fs/cgroup");
        let hierarchy = Hierarchy::detect(&root, Driver::Cgroupfs).ok()?;
        let instance: Instance = format!("{name}_{}", std::process::id()).parse().unwrap();
        let path = ParentPath::root(instance);
        match hierarchy.apply(&path, Caps::default()) {
            Ok(_) => Some(Self(hierarchy, path)),
            Err(error) => {
                eprintln!("skipped: no cgroups can be made here: {error}");
                None
            }
        }
    }
}

impl Drop for Real {
    fn drop(&mut self) {
        let _ = self.0.remove_if_empty(&self.1);
    }
}

#[test]
fn the_kernels_own_counters_are_read_and_a_removed_cgroup_is_gone_through_kept_descriptors() {
    let Some(real) = Real::new("collect") else {
        return;
    };
    let dirs = real.0.dirs(&real.1);
    let mut collector = Collector::new(settings(10));
    collector.watch(1, dirs.clone());
    cycle(&mut collector, 0);

    // A process that lives and dies in the cgroup leaves its CPU time and its memory peak there.
    let mut joins = vec![dirs.main().to_owned(), dirs.memory().to_owned()];
    joins.dedup();
    let join: String = joins
        .iter()
        .map(|dir| format!("echo $$ > {}/cgroup.procs; ", dir.display()))
        .collect();
    let script = format!("{join} x=$(head -c 8000000 /dev/zero | tr '\\0' x)");
    assert!(
        std::process::Command::new("sh")
            .args(["-c", &script])
            .status()
            .unwrap()
            .success()
    );

    let (report, samples) = cycle(&mut collector, 1);
    let sample = samples[&1];
    assert!(sample.cpu_ns.unwrap() > 1_000_000, "{sample:?}");
    assert!(sample.memory_peak_bytes.unwrap() >= 8_000_000, "{sample:?}");
    assert_eq!((sample.pids, sample.oom_kills), (Some(0), Some(0)));
    assert!(sample.working_set_bytes().is_some() && sample.memory_limit_hits == Some(0));
    assert_eq!((report.detailed, report.failed, report.opened), (1, 0, 0));
    if real.0.version() == Version::V1 {
        assert!(sample.throttling.is_some());
    }

    assert!(real.0.remove_if_empty(&real.1).unwrap());
    let (report, samples) = cycle(&mut collector, 2);
    assert_eq!(
        (report.gone.len(), report.gone[0].1.cpu_ns),
        (1, sample.cpu_ns)
    );
    assert!(samples.is_empty() && collector.is_empty());
    assert_eq!(collector.descriptors(), 0);
}
