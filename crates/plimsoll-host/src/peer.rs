//! Which container a process is in, and which process a pid means.
//!
//! Callers decide what follows: a peer inside a container is that container's tenant or is refused.
//! Nothing here reads what the process itself could have written (environment, command line,
//! labels).

use std::io;
use std::path::Path;

use crate::ids::ContainerId;

/// The container that holds process `pid`, or `None` for a process of the host's own.
///
/// Reads `proc_root/<pid>/cgroup`, in every form engines write: `/docker/<id>`, `<parent>/<id>`,
/// `<slice>/docker-<id>.scope`, on either cgroup version. For nested containers the outermost
/// counts: that is the one our engine started, and a process inside cannot change it.
///
/// A pid may be reused between two looks at it: compare [`start_time`] before and after.
///
/// # Errors
/// The error of reading the file (`NotFound`: no such process), or `InvalidData` when the
/// hierarchies name different containers, which no engine does.
pub fn container_of(proc_root: &Path, pid: u32) -> io::Result<Option<ContainerId>> {
    let text = std::fs::read_to_string(proc_root.join(pid.to_string()).join("cgroup"))?;
    parse_cgroups(&text)
}

fn parse_cgroups(text: &str) -> io::Result<Option<ContainerId>> {
    let mut found = None;
    for line in text.lines() {
        // `hierarchy:controllers:path`; a path may hold colons of its own.
        let Some(path) = line.splitn(3, ':').nth(2) else {
            continue;
        };
        let Some(id) = path.split('/').find_map(id_in) else {
            continue;
        };
        if *found.get_or_insert(id) != id {
            return Err(io::Error::new(
                io::ErrorKind::InvalidData,
                "the process is in different containers in different cgroup hierarchies",
            ));
        }
    }
    Ok(found)
}

/// The id in one path component: `<id>` or `<engine>-<id>.scope`.
fn id_in(component: &str) -> Option<ContainerId> {
    let name = match component.strip_suffix(".scope") {
        Some(scope) => scope.rsplit_once('-')?.1,
        None => component,
    };
    name.parse().ok()
}

/// When process `pid` started, in clock ticks since boot (field 22 of `/proc/<pid>/stat`). Together
/// with the pid it names a process for as long as the machine runs.
///
/// # Errors
/// The error of reading the file (`NotFound`: no such process), or `InvalidData` when it makes no
/// sense.
pub fn start_time(proc_root: &Path, pid: u32) -> io::Result<u64> {
    let text = std::fs::read_to_string(proc_root.join(pid.to_string()).join("stat"))?;
    parse_start_time(&text)
        .ok_or_else(|| io::Error::new(io::ErrorKind::InvalidData, "no start time in the stat file"))
}

/// The command (field 2) stands in parentheses and may itself hold spaces and parentheses, so
/// fields count from the last closing one; field 3 follows it.
fn parse_start_time(stat: &str) -> Option<u64> {
    stat.rsplit_once(')')?
        .1
        .split_ascii_whitespace()
        .nth(22 - 3)?
        .parse()
        .ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    const A: &str = "aaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaa";
    const B: &str = "bbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbb";

    #[test]
    fn every_form_of_cgroup_path_names_its_container() {
        for (text, id) in [
            (format!("0::/system.slice/docker-{A}.scope\n"), Some(A)),
            (
                format!("0::/plimsoll.slice/plimsoll-u1.slice/docker-{A}.scope/init\n"),
                Some(A),
            ),
            (
                format!("12:pids:/docker/{A}\n1:name=systemd:/docker/{A}\n0::/docker/{A}\n"),
                Some(A),
            ),
            (format!("4:memory:/plimsoll/t1/u1/{A}\n"), Some(A)),
            (format!("0::/docker/{A}/docker/{B}\n"), Some(A)),
            (format!("0::/odd:name/{A}\n"), Some(A)),
            (format!("3:cpu:/\n2:memory:/docker/{A}\n"), Some(A)),
            (
                "0::/user.slice/user-0.slice/session-1.scope\n".to_owned(),
                None,
            ),
            ("9:name=systemd:/\n0::/\n".to_owned(), None),
            (format!("0::/docker/{}\n", &A[1..]), None),
            (format!("0::/docker/{}\n", A.to_uppercase()), None),
            (String::new(), None),
        ] {
            let found = parse_cgroups(&text).unwrap();
            assert_eq!(found.as_ref().map(ContainerId::as_str), id, "{text}");
        }
    }

    #[test]
    fn hierarchies_that_disagree_are_an_error() {
        let error = parse_cgroups(&format!("2:cpu:/docker/{A}\n1:pids:/docker/{B}\n")).unwrap_err();
        assert_eq!(error.kind(), io::ErrorKind::InvalidData);
    }

    #[test]
    fn the_start_time_is_found_behind_any_command_name() {
        let rest = "S 1 2 3 4 5 6 7 8 9 10 11 12 13 14 15 16 17 18 4242 20 21";
        for name in ["sh", "a b", "x) S 1 (y", "))) "] {
            assert_eq!(
                parse_start_time(&format!("7 ({name}) {rest}")),
                Some(4242),
                "{name}"
            );
        }
        assert_eq!(parse_start_time("7 (sh) S 1 2"), None);
        assert_eq!(parse_start_time(""), None);
    }

    #[test]
    fn this_process_is_known_and_an_absent_one_is_not_found() {
        let proc_root = Path::new("/proc");
        let pid = std::process::id();
        assert_eq!(
            start_time(proc_root, pid).unwrap(),
            start_time(proc_root, pid).unwrap(),
            "a process starts once"
        );
        container_of(proc_root, pid).unwrap();
        // Above the kernel's largest pid.
        let absent = start_time(proc_root, u32::MAX).unwrap_err();
        assert_eq!(absent.kind(), io::ErrorKind::NotFound);
    }
}
