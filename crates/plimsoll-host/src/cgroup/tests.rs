//! Caps on temp-dir trees, where every file can be looked at, and on this machine's own cgroups,
//! where the kernel has its say.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::sync::atomic::{AtomicU32, Ordering};

use plimsoll_core::units::{Bytes, MilliCpu};
use tempfile::TempDir;

use super::*;
use crate::ids::ContainerId;

const MIB: u64 = 1 << 20;

fn caps(cpu: Option<u64>, memory: Option<u64>, pids: Option<u64>) -> Caps {
    Caps {
        cpu: cpu.map(MilliCpu),
        memory: memory.map(Bytes),
        pids,
    }
}

/// A temp-dir tree in which directories have files only where a test puts them.
struct Tree {
    dir: TempDir,
    hierarchy: Hierarchy,
}

impl Tree {
    fn v1() -> Self {
        let dir = tempfile::tempdir().unwrap();
        for controller in ["cpu", "cpuacct", "memory", "pids", "systemd"] {
            fs::create_dir(dir.path().join(controller)).unwrap();
        }
        let hierarchy = Hierarchy::detect(dir.path(), Driver::Cgroupfs).unwrap();
        Self { dir, hierarchy }
    }

    fn v2(driver: Driver) -> Self {
        let dir = tempfile::tempdir().unwrap();
        fs::write(
            dir.path().join("cgroup.controllers"),
            "cpuset cpu io memory pids\n",
        )
        .unwrap();
        fs::write(dir.path().join("cgroup.subtree_control"), "memory\n").unwrap();
        let hierarchy = Hierarchy::detect(dir.path(), driver).unwrap();
        Self { dir, hierarchy }
    }

    /// A cgroup as the kernel makes it, without caps.
    fn make(&self, path: &ParentPath) {
        let dirs = self.hierarchy.dirs(path);
        let files: &[(&Path, &str, &str)] = match &dirs {
            CgroupDirs::V1 {
                cpu,
                cpuacct,
                memory,
                pids,
                ..
            } => &[
                (cpu, "cpu.cfs_quota_us", "-1\n"),
                (cpu, "cpu.cfs_period_us", "100000\n"),
                (cpuacct, "cpuacct.usage", "0\n"),
                (memory, "memory.limit_in_bytes", "9223372036854771712\n"),
                (
                    memory,
                    "memory.memsw.limit_in_bytes",
                    "9223372036854771712\n",
                ),
                (pids, "pids.max", "max\n"),
            ],
            CgroupDirs::V2 { dir } => &[
                (dir, "cgroup.controllers", "cpu memory pids\n"),
                (dir, "cgroup.subtree_control", "\n"),
                (dir, "cpu.max", "max 100000\n"),
                (dir, "memory.max", "max\n"),
                (dir, "memory.swap.max", "max\n"),
                (dir, "memory.current", "0\n"),
                (dir, "pids.max", "max\n"),
            ],
        };
        for (dir, name, text) in files {
            fs::create_dir_all(dir).unwrap();
            fs::write(dir.join(name), text).unwrap();
        }
    }

    fn text(&self, file: &str) -> String {
        fs::read_to_string(self.dir.path().join(file))
            .unwrap()
            .trim()
            .to_owned()
    }
}

fn root() -> ParentPath {
    ParentPath::root(Instance::default())
}

#[test]
fn detection_tells_the_versions_apart_and_refuses_neither() {
    assert_eq!(Tree::v1().hierarchy.version(), Version::V1);
    assert_eq!(Tree::v2(Driver::Systemd).hierarchy.version(), Version::V2);
    let dir = tempfile::tempdir().unwrap();
    let detect = |root: &Path| Hierarchy::detect(root, Driver::Cgroupfs).unwrap_err();
    assert!(matches!(
        detect(dir.path()),
        DetectError::NoHierarchy { .. }
    ));
    assert!(matches!(
        detect(&dir.path().join("none")),
        DetectError::Io { .. }
    ));
    assert_eq!("systemd".parse(), Ok(Driver::Systemd));
    assert!("none".parse::<Driver>().is_err());
}

#[test]
fn a_process_tells_where_its_container_is() {
    let proc = tempfile::tempdir().unwrap();
    let id: ContainerId = "d".repeat(64).parse().unwrap();
    let says = |text: String| {
        fs::create_dir_all(proc.path().join("7")).unwrap();
        fs::write(proc.path().join("7/cgroup"), text).unwrap();
    };
    let of = |tree: &Tree| tree.hierarchy.dirs_of_process(proc.path(), 7, &id);

    let tree = Tree::v1();
    assert!(of(&tree).is_err(), "no such process");
    says(format!(
        "9:pids:/docker/{id}\n4:cpu,cpuacct:/docker/{id}/nested\n3:memory:/other/{id}\n1:name=systemd:/\n"
    ));
    let at = |path: &str| tree.dir.path().join(format!("{path}/{id}"));
    let expected = CgroupDirs::V1 {
        cpu: at("cpu/docker"),
        cpuacct: at("cpuacct/docker"),
        memory: at("memory/other"),
        pids: at("pids/docker"),
        blkio: at("blkio/docker"),
    };
    assert_eq!(of(&tree).unwrap(), Some(expected));
    says("4:cpu,cpuacct:/\n".to_owned());
    assert_eq!(of(&tree).unwrap(), None, "the pid was reused");

    let tree = Tree::v2(Driver::Systemd);
    says(format!("0::/system.slice/docker-{id}.scope/init.scope\n"));
    let dir = tree
        .dir
        .path()
        .join(format!("system.slice/docker-{id}.scope"));
    assert_eq!(of(&tree).unwrap(), Some(CgroupDirs::V2 { dir }));
}

#[test]
fn cgroups_are_where_the_engine_puts_them() {
    let user = ParentPath::user(Instance::default(), Some(1), 2);
    let id: ContainerId = "d".repeat(64).parse().unwrap();
    let (t, u) = (format!("t{:032x}", 1), format!("u{:032x}", 2));

    let tree = Tree::v1();
    let CgroupDirs::V1 { cpuacct, .. } = tree.hierarchy.container_dirs(&user, &id) else {
        panic!("v1 has a directory per controller")
    };
    assert_eq!(
        cpuacct,
        tree.dir
            .path()
            .join(format!("cpuacct/plimsoll/{t}/{u}/{id}"))
    );
    assert_eq!(
        tree.hierarchy.cgroup_parent(&user),
        format!("/plimsoll/{t}/{u}")
    );

    let tree = Tree::v2(Driver::Systemd);
    let slice = format!("plimsoll-{t}-{u}.slice");
    let below = format!("plimsoll.slice/plimsoll-{t}.slice/{slice}/docker-{id}.scope");
    assert_eq!(
        tree.hierarchy.container_dirs(&user, &id),
        CgroupDirs::V2 {
            dir: tree.dir.path().join(below)
        }
    );
    assert_eq!(tree.hierarchy.cgroup_parent(&user), slice);

    let tree = Tree::v2(Driver::Cgroupfs);
    assert_eq!(
        tree.hierarchy.container_dirs(&user, &id),
        CgroupDirs::V2 {
            dir: tree.dir.path().join(format!("plimsoll/{t}/{u}/{id}"))
        }
    );
}

#[test]
fn v1_caps_are_written_in_the_kernels_units_and_only_when_they_differ() {
    let tree = Tree::v1();
    tree.make(&root());
    let wanted = caps(Some(1_500), Some(64 * MIB + 1), Some(100));
    let applied = tree.hierarchy.apply(&root(), wanted).unwrap();
    assert!(
        applied.changed && !applied.created && applied.refused.is_empty(),
        "{applied:?}"
    );
    assert_eq!(tree.text("cpu/plimsoll/cpu.cfs_quota_us"), "150000");
    assert_eq!(
        tree.text("memory/plimsoll/memory.limit_in_bytes"),
        "67108864"
    );
    assert_eq!(
        tree.text("memory/plimsoll/memory.memsw.limit_in_bytes"),
        "67108864"
    );
    assert_eq!(tree.text("pids/plimsoll/pids.max"), "100");

    let again = tree.hierarchy.apply(&root(), wanted).unwrap();
    assert!(!again.changed && again.refused.is_empty(), "{again:?}");
    assert_eq!(
        tree.hierarchy.read_caps(&root()).unwrap(),
        Some(caps(Some(1_500), Some(64 * MIB), Some(100)))
    );

    tree.hierarchy.apply(&root(), Caps::default()).unwrap();
    assert_eq!(tree.text("cpu/plimsoll/cpu.cfs_quota_us"), "-1");
    assert_eq!(
        tree.text("memory/plimsoll/memory.memsw.limit_in_bytes"),
        "-1"
    );
    assert_eq!(tree.text("pids/plimsoll/pids.max"), "max");
    assert_eq!(
        tree.hierarchy.read_caps(&root()).unwrap(),
        Some(Caps::default())
    );
}

#[test]
fn a_missing_controller_is_refused_only_when_it_is_needed() {
    let tree = Tree::v1();
    tree.make(&root());
    fs::remove_dir_all(tree.dir.path().join("pids/plimsoll")).unwrap();
    let applied = tree
        .hierarchy
        .apply(&root(), caps(Some(500), None, None))
        .unwrap();
    assert!(applied.refused.is_empty(), "{applied:?}");
    let applied = tree
        .hierarchy
        .apply(&root(), caps(Some(600), None, Some(9)))
        .unwrap();
    assert!(
        matches!(
            &applied.refused[..],
            [CapError::NoController {
                controller: "pids",
                ..
            }]
        ),
        "{applied:?}"
    );
    assert_eq!(
        tree.text("cpu/plimsoll/cpu.cfs_quota_us"),
        "60000",
        "the others are set"
    );
}

#[test]
fn v2_caps_forbid_swap_and_turn_controllers_on() {
    let tree = Tree::v2(Driver::Cgroupfs);
    tree.make(&root());
    let wanted = caps(Some(250), Some(64 * MIB), Some(7));
    assert!(tree.hierarchy.apply(&root(), wanted).unwrap().changed);
    assert_eq!(tree.text("plimsoll/cpu.max"), "25000 100000");
    assert_eq!(tree.text("plimsoll/memory.max"), "67108864");
    assert_eq!(tree.text("plimsoll/memory.swap.max"), "0");
    assert_eq!(tree.text("plimsoll/pids.max"), "7");
    assert!(!tree.hierarchy.apply(&root(), wanted).unwrap().changed);
    assert_eq!(tree.hierarchy.read_caps(&root()).unwrap(), Some(wanted));

    let user = ParentPath::user(Instance::default(), None, 5);
    let applied = tree.hierarchy.apply(&user, Caps::default()).unwrap();
    assert!(applied.created);
    // A plain file keeps the last word written; the kernel adds each to its list.
    assert_eq!(tree.text("plimsoll/cgroup.subtree_control"), "+pids");
    assert_eq!(
        tree.text("cgroup.subtree_control"),
        "memory",
        "the root's child was there"
    );
}

#[test]
fn v2_refuses_a_memory_cap_that_could_only_be_reached_by_killing() {
    let tree = Tree::v2(Driver::Cgroupfs);
    tree.make(&root());
    let dir = tree.dir.path().join("plimsoll");
    fs::write(dir.join("memory.current"), format!("{}\n", 100 * MIB)).unwrap();
    let stat = format!(
        "anon 1\ninactive_file {}\nactive_file {}\n",
        30 * MIB,
        10 * MIB
    );
    fs::write(dir.join("memory.stat"), stat).unwrap();
    for (wanted, is_refused) in [(59, true), (60, false), (200, false)] {
        let applied = tree
            .hierarchy
            .apply(&root(), caps(None, Some(wanted * MIB), None))
            .unwrap();
        match &applied.refused[..] {
            [CapError::MemoryBusy { used, .. }] if is_refused => {
                assert_eq!(*used, Some(Bytes(100 * MIB)));
            }
            [] if !is_refused => {}
            other => panic!("{wanted} MiB: {other:?}"),
        }
    }
}

/// Stands in for systemctl: writes down what it was asked and fails when told to.
fn fake_systemctl(tree: &Tree, exit: u8) -> (Hierarchy, PathBuf) {
    use std::os::unix::fs::PermissionsExt as _;
    let (program, log) = (
        tree.dir.path().join("systemctl"),
        tree.dir.path().join("log"),
    );
    let script = format!(
        "#!/bin/sh\necho \"$@\" >> {}\necho no bus >&2\nexit {exit}\n",
        log.display()
    );
    // Written by a child, since a fork elsewhere in this process could hold our writing descriptor
    // and make running the file fail as busy.
    let mut shell = Command::new("sh")
        .args([
            "-c",
            &format!("cat > {0} && chmod +x {0}", program.display()),
        ])
        .stdin(Stdio::piped())
        .spawn()
        .unwrap();
    std::io::Write::write_all(&mut shell.stdin.take().unwrap(), script.as_bytes()).unwrap();
    assert!(shell.wait().unwrap().success());
    assert_ne!(
        fs::metadata(&program).unwrap().permissions().mode() & 0o100,
        0
    );
    (tree.hierarchy.clone().with_systemctl(program), log)
}

#[test]
fn slices_are_capped_by_systemd_before_they_start_and_only_when_they_differ() {
    let tree = Tree::v2(Driver::Systemd);
    let (hierarchy, log) = fake_systemctl(&tree, 0);
    let user = ParentPath::user(Instance::default(), None, 5);
    let slice = format!("plimsoll-u{:032x}.slice", 5);
    let wanted = caps(Some(1_250), Some(64 * MIB), Some(7));
    let applied = hierarchy.apply(&user, wanted).unwrap();
    assert!(applied.created && applied.changed);
    assert_eq!(
        fs::read_to_string(&log).unwrap(),
        format!(
            "set-property --runtime {slice} CPUQuota=125.0% MemoryMax=67108864 MemorySwapMax=0 \
             TasksMax=7\nstart {slice}\n"
        )
    );

    // What systemd then makes.
    tree.make(&user);
    let CgroupDirs::V2 { dir } = hierarchy.dirs(&user) else {
        panic!("v2")
    };
    for (name, text) in [
        ("cpu.max", "125000 100000"),
        ("memory.max", "67108864"),
        ("memory.swap.max", "0"),
    ] {
        fs::write(dir.join(name), text).unwrap();
    }
    fs::write(dir.join("pids.max"), "7").unwrap();
    fs::remove_file(&log).unwrap();
    assert!(!hierarchy.apply(&user, wanted).unwrap().changed);
    assert!(!log.exists(), "nothing differs, nothing is run");

    hierarchy
        .apply(&user, caps(None, Some(64 * MIB), Some(7)))
        .unwrap();
    assert_eq!(
        fs::read_to_string(&log).unwrap(),
        format!("set-property --runtime {slice} CPUQuota=\n")
    );
}

#[test]
fn what_systemd_says_reaches_the_caller() {
    let tree = Tree::v2(Driver::Systemd);
    let (hierarchy, _) = fake_systemctl(&tree, 1);
    let error = hierarchy
        .apply(&root(), caps(Some(1), None, None))
        .unwrap_err();
    assert_eq!(
        error.to_string(),
        "systemd refused to cap plimsoll.slice: no bus"
    );
    let missing = hierarchy.with_systemctl(tree.dir.path().join("none"));
    let error = missing
        .apply(&root(), caps(Some(1), None, None))
        .unwrap_err();
    assert!(matches!(error, CapError::NoSystemctl { .. }), "{error}");
}

#[test]
fn a_level_has_a_cpu_cap_only_where_it_is_lower_than_above() {
    let tree = Tree::v2(Driver::Cgroupfs);
    let i = Instance::default;
    let (team, member) = (ParentPath::team(i(), 1), ParentPath::user(i(), Some(1), 2));
    let (other, user) = (
        ParentPath::user(i(), Some(1), 3),
        ParentPath::user(i(), None, 4),
    );
    for path in [&root(), &team, &member, &other, &user] {
        tree.make(path);
    }
    let desired = [
        (member.clone(), caps(Some(3_000), None, None)),
        (other.clone(), caps(Some(500), None, None)),
        (user.clone(), caps(Some(4_000), None, None)),
        (team.clone(), caps(Some(2_000), None, None)),
        (root(), caps(Some(4_000), None, None)),
    ];
    let outcomes = tree.hierarchy.apply_tree(&desired);
    assert_eq!(outcomes.len(), 5);
    assert_eq!(outcomes[0].0, root(), "nearest the root first");
    assert!(
        outcomes
            .iter()
            .all(|(_, o)| o.as_ref().unwrap().refused.is_empty()),
        "{outcomes:?}"
    );
    let cpu = |path: &ParentPath| tree.hierarchy.read_caps(path).unwrap().unwrap().cpu;
    for (path, cap) in [
        (&root(), Some(4_000)),
        (&team, Some(2_000)),
        (&member, None),
        (&other, Some(500)),
        (&user, None),
    ] {
        assert_eq!(cpu(path), cap.map(MilliCpu), "{path}");
    }

    // Levels that are not named keep their caps, and bound those below.
    tree.hierarchy
        .apply_tree(&[(other.clone(), caps(Some(2_500), None, None))]);
    assert_eq!(cpu(&other), None);
    tree.hierarchy
        .apply_tree(&[(other.clone(), caps(Some(1_999), None, None))]);
    assert_eq!(cpu(&other), Some(MilliCpu(1_999)));
}

/// This machine's own v1 cgroups, under an instance that no other test has. `None` where this
/// process may not make any.
struct Real {
    hierarchy: Hierarchy,
    instance: Instance,
    paths: Vec<ParentPath>,
    children: Vec<Child>,
}

impl Real {
    fn new() -> Option<Self> {
        static NEXT: AtomicU32 = AtomicU32::new(0);
        let hierarchy = Hierarchy::detect(Path::new("/sys/fs/cgroup"), Driver::Cgroupfs).ok()?;
        let name = format!(
            "t{}_{}",
            std::process::id(),
            NEXT.fetch_add(1, Ordering::Relaxed)
        );
        let instance: Instance = name.parse().unwrap();
        let real = Self {
            hierarchy,
            instance,
            paths: Vec::new(),
            children: Vec::new(),
        };
        if real.hierarchy.version() != Version::V1 {
            eprintln!("skipped: the rules tested here are cgroup v1's");
            return None;
        }
        if let Err(error) = real.hierarchy.apply(&real.root(), Caps::default()) {
            eprintln!("skipped: no cgroups can be made here: {error}");
            return None;
        }
        Some(real)
    }

    fn root(&self) -> ParentPath {
        ParentPath::root(self.instance.clone())
    }

    fn team(&self, team: u128) -> ParentPath {
        ParentPath::team(self.instance.clone(), team)
    }

    fn user(&self, team: u128, user: u128) -> ParentPath {
        ParentPath::user(self.instance.clone(), Some(team), user)
    }

    fn apply(&mut self, path: &ParentPath, caps: Caps) -> Applied {
        self.paths.push(path.clone());
        self.hierarchy.apply(path, caps).unwrap()
    }

    /// Applies a tree that must be accepted as a whole.
    fn apply_tree(&mut self, desired: &[(ParentPath, Caps)]) {
        self.paths
            .extend(desired.iter().map(|(path, _)| path.clone()));
        for (path, outcome) in self.hierarchy.apply_tree(desired) {
            let applied = outcome.unwrap();
            assert!(applied.refused.is_empty(), "{path}: {:?}", applied.refused);
        }
    }

    fn cpu(&self, path: &ParentPath) -> Option<u64> {
        self.hierarchy
            .read_caps(path)
            .unwrap()
            .unwrap()
            .cpu
            .map(|cap| cap.0)
    }

    /// A process in the memory cgroup of `path` that holds `mib` MiB and has said so.
    fn hold_memory(&mut self, path: &ParentPath, mib: u64) {
        let procs = self.hierarchy.dirs(path).memory().join("cgroup.procs");
        // The shell joins the cgroup, fills a variable, tells, and waits to be killed.
        let script = format!(
            "echo $$ > {}; x=$(head -c {} /dev/zero | tr '\\0' x); echo ready; read end",
            procs.display(),
            mib * MIB
        );
        let mut child = Command::new("sh")
            .args(["-c", &script])
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .spawn()
            .unwrap();
        let mut said = [0; 6];
        std::io::Read::read_exact(child.stdout.as_mut().unwrap(), &mut said).unwrap();
        assert_eq!(&said, b"ready\n");
        self.children.push(child);
    }
}

impl Drop for Real {
    fn drop(&mut self) {
        for child in &mut self.children {
            let _ = child.kill();
            let _ = child.wait();
        }
        self.paths.push(self.root());
        let mut levels: Vec<_> = self.paths.iter().flat_map(ParentPath::levels).collect();
        levels.sort_by_key(|path| std::cmp::Reverse(path.depth()));
        for path in levels {
            let removed = self.hierarchy.remove_if_empty(&path);
            if !std::thread::panicking() {
                assert!(
                    removed.as_ref().is_ok_and(|gone| *gone),
                    "{path} stays: {removed:?}"
                );
            }
        }
    }
}

#[test]
fn the_kernel_takes_what_is_written_and_gives_it_back() {
    let Some(mut real) = Real::new() else { return };
    let user = real.user(1, 2);
    let wanted = caps(Some(1_250), Some(64 * MIB), Some(33));
    assert!(real.apply(&user, wanted).created);
    assert_eq!(real.hierarchy.read_caps(&user).unwrap(), Some(wanted));
    assert!(!real.apply(&user, wanted).changed);
    for memory in [Some(128 * MIB), Some(32 * MIB), None, Some(16 * MIB)] {
        let wanted = Caps {
            memory: memory.map(Bytes),
            ..wanted
        };
        let applied = real.apply(&user, wanted);
        assert!(
            applied.changed && applied.refused.is_empty(),
            "{memory:?}: {applied:?}"
        );
        assert_eq!(real.hierarchy.read_caps(&user).unwrap(), Some(wanted));
    }
}

#[test]
fn the_kernels_cpu_rules_are_told_in_words() {
    let Some(mut real) = Real::new() else { return };
    let (team, user) = (real.team(1), real.user(1, 2));
    real.apply(&team, caps(Some(1_000), None, None));
    real.apply(&user, caps(Some(600), None, None));
    assert_eq!(
        real.hierarchy.largest_child_cpu(&real.root()).unwrap(),
        Some(MilliCpu(1_000))
    );
    assert_eq!(
        real.hierarchy.largest_child_cpu(&team).unwrap(),
        Some(MilliCpu(600))
    );

    let above = real.apply(&user, caps(Some(1_001), None, None));
    assert!(
        matches!(
            above.refused[..],
            [CapError::CpuAboveAncestor {
                wanted: MilliCpu(1_001),
                ancestor: MilliCpu(1_000),
                ..
            }]
        ),
        "{above:?}"
    );
    assert_eq!(real.cpu(&user), Some(600), "the old cap stays");

    let below = real.apply(&team, caps(Some(300), None, None));
    assert!(
        matches!(
            below.refused[..],
            [CapError::CpuBelowChild {
                wanted: MilliCpu(300),
                child: MilliCpu(600),
                ..
            }]
        ),
        "{below:?}"
    );
    assert_eq!(real.cpu(&team), Some(600), "as low as the child lets it");
}

#[test]
fn a_tree_changes_from_any_shape_to_any_other() {
    let Some(mut real) = Real::new() else { return };
    let (root, team, a, b) = (real.root(), real.team(1), real.user(1, 2), real.user(1, 3));
    // Own limits of root, team and two members, in thousandths of a core.
    let shapes = [
        [None, None, None, None],
        [Some(2_000), Some(1_500), Some(1_000), Some(500)],
        [Some(400), Some(300), Some(200), Some(100)],
        [Some(2_000), Some(3_000), Some(1_000), None],
        [None, Some(100), Some(1_000), Some(50)],
        [Some(1_000), None, Some(900), Some(2_000)],
        [None, None, Some(1_900), Some(10)],
        [Some(10), Some(20), Some(30), Some(40)],
    ];
    for from in shapes {
        for to in shapes {
            for shape in [from, to] {
                let desired: Vec<_> = [&root, &team, &a, &b]
                    .into_iter()
                    .zip(shape)
                    .map(|(path, cpu)| (path.clone(), caps(cpu, None, None)))
                    .collect();
                real.apply_tree(&desired);
                let [r, t, m, n] = shape.map(|cap| cap.unwrap_or(u64::MAX));
                for (path, holds) in [
                    (&root, r),
                    (&team, r.min(t)),
                    (&a, r.min(t).min(m)),
                    (&b, r.min(t).min(n)),
                ] {
                    let lowest = path
                        .levels()
                        .iter()
                        .filter_map(|level| real.cpu(level))
                        .min();
                    assert_eq!(
                        lowest.unwrap_or(u64::MAX),
                        holds,
                        "{path} from {from:?} to {to:?}"
                    );
                }
            }
        }
    }
}

#[test]
fn memory_in_use_keeps_the_old_cap() {
    let Some(mut real) = Real::new() else { return };
    let user = real.user(1, 2);
    real.apply(&user, caps(None, Some(96 * MIB), None));
    real.hold_memory(&user, 24);
    let applied = real.apply(&user, caps(Some(500), Some(8 * MIB), None));
    assert!(
        matches!(applied.refused[..], [CapError::MemoryBusy { used: Some(used), .. }] if used.0 >= 24 * MIB),
        "{applied:?}"
    );
    assert_eq!(
        real.hierarchy.read_caps(&user).unwrap(),
        Some(caps(Some(500), Some(96 * MIB), None)),
        "the CPU cap is set all the same"
    );
    assert!(
        !real.hierarchy.remove_if_empty(&user).unwrap(),
        "somebody lives there"
    );
    assert!(
        !real.hierarchy.remove_if_empty(&real.root()).unwrap(),
        "it has children"
    );
}

#[test]
fn the_kernel_counts_block_io_once_asked_and_the_rules_go_again() {
    let Some(real) = Real::new() else { return };
    let disks = crate::collector::Disks::read(Path::new("/sys")).unwrap();
    if disks.physical.is_empty() {
        eprintln!("skipped: this machine has no disk of its own");
        return;
    }
    let (root, all) = (real.root(), disks.physical.len());
    let CgroupDirs::V1 { blkio, .. } = real.hierarchy.dirs(&root) else {
        panic!("v1")
    };
    let rules = || fs::read_to_string(blkio.join("blkio.throttle.write_bps_device")).unwrap();
    let count = || real.hierarchy.count_block_io(&root, &disks.physical);
    assert_eq!(count().unwrap(), all);
    assert_eq!(count().unwrap(), 0, "once is enough");
    assert_eq!(rules().lines().count(), all);

    // Beside the test's own program: on a disk, where a temporary folder may not be.
    let file = std::env::current_exe()
        .unwrap()
        .with_extension(format!("probe{}", real.instance.as_str()));
    let procs = blkio.join("cgroup.procs");
    let script = format!(
        "echo $$ > {}; exec dd if=/dev/zero of={} bs=1M count=4 oflag=direct status=none",
        procs.display(),
        file.display()
    );
    assert!(
        Command::new("sh")
            .args(["-c", &script])
            .status()
            .unwrap()
            .success()
    );
    let counted = fs::read_to_string(blkio.join("blkio.throttle.io_service_bytes")).unwrap();
    fs::remove_file(&file).unwrap();
    let written = counted
        .lines()
        .filter_map(|line| line.split_once(" Write ")?.1.parse::<u64>().ok());
    assert!(written.sum::<u64>() >= 4 * MIB, "{counted}");

    real.hierarchy.lift_block_rules(&root).unwrap();
    assert_eq!(rules(), "");
}
