//! What `/proc` says of a process's network namespace. Opened, read and closed each time: a kept
//! descriptor there would keep the namespace.

use std::io;
use std::os::unix::fs::MetadataExt as _;
use std::path::{Path, PathBuf};

use super::Traffic;

/// Names a network namespace for as long as it lives.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct Namespace(u64);

/// The network namespace that `pid` is in.
///
/// # Errors
/// When there is no such process.
pub fn namespace(proc_root: &Path, pid: u32) -> io::Result<Namespace> {
    let path = proc_root.join(pid.to_string()).join("ns/net");
    Ok(Namespace(std::fs::metadata(path)?.ino()))
}

/// TCP sockets in use in the namespace of `pid`: connections, and sockets that listen. `None` when
/// the process is gone.
pub(super) fn connections(proc_root: &Path, pid: u32) -> Option<u64> {
    let read = |name| std::fs::read_to_string(path(proc_root, pid, name)).ok();
    let v4 = in_use(&read("sockstat")?, "TCP:")?;
    // Absent where the kernel speaks no IPv6.
    let v6 = read("sockstat6").and_then(|text| in_use(&text, "TCP6:"));
    Some(v4 + v6.unwrap_or(0))
}

/// What the namespace of `pid` has received and sent, from its own side; `None` when it has nothing
/// but a loopback, or the process is gone.
pub(super) fn traffic(proc_root: &Path, pid: u32) -> Option<Traffic> {
    let text = std::fs::read_to_string(path(proc_root, pid, "dev")).ok()?;
    parse_dev(&text)
}

fn path(proc_root: &Path, pid: u32, name: &str) -> PathBuf {
    proc_root.join(pid.to_string()).join("net").join(name)
}

fn in_use(text: &str, protocol: &str) -> Option<u64> {
    let line = text.lines().find_map(|line| line.strip_prefix(protocol))?;
    line.trim()
        .strip_prefix("inuse ")?
        .split(' ')
        .next()?
        .parse()
        .ok()
}

/// `  eth0: bytes packets errs drop fifo frame compressed multicast bytes ...`
fn parse_dev(text: &str) -> Option<Traffic> {
    let mut sum: Option<Traffic> = None;
    for line in text.lines() {
        let Some((name, numbers)) = line.split_once(':') else {
            continue;
        };
        if name.trim() == "lo" {
            continue;
        }
        let mut numbers = numbers.split_ascii_whitespace().map(str::parse);
        let (Some(Ok(received_bytes)), Some(Ok(sent_bytes))) = (numbers.next(), numbers.nth(7))
        else {
            continue;
        };
        *sum.get_or_insert_default() += Traffic {
            received_bytes,
            sent_bytes,
        };
    }
    sum
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn sockets_in_use_are_those_of_both_families() {
        let dir = tempfile::tempdir().unwrap();
        let net = dir.path().join("7/net");
        std::fs::create_dir_all(&net).unwrap();
        assert_eq!(connections(dir.path(), 7), None);
        let v4 = "sockets: used 99\nTCP: inuse 5 orphan 0 tw 3 alloc 9 mem 1\nUDP: inuse 4 mem 0\n";
        std::fs::write(net.join("sockstat"), v4).unwrap();
        assert_eq!(connections(dir.path(), 7), Some(5));
        std::fs::write(net.join("sockstat6"), "TCP6: inuse 2\nUDP6: inuse 8\n").unwrap();
        assert_eq!(connections(dir.path(), 7), Some(7));
    }

    #[test]
    fn a_loopback_alone_is_no_network() {
        let head = "Inter-|   Receive  |  Transmit\n face |bytes    packets|bytes\n";
        let lo = "    lo: 1 1 0 0 0 0 0 0 1 1 0 0 0 0 0 0\n";
        let eth =
            "  eth0: 500 1 0 0 0 0 0 0 40 1 0 0 0 0 0 0\neth1:7 0 0 0 0 0 0 0 2 0 0 0 0 0 0 0\n";
        assert_eq!(parse_dev(&format!("{head}{lo}")), None);
        let traffic = Traffic {
            received_bytes: 507,
            sent_bytes: 42,
        };
        assert_eq!(parse_dev(&format!("{head}{lo}{eth}")), Some(traffic));
    }

    #[test]
    fn this_process_is_in_a_namespace() {
        let root = Path::new("/proc");
        let own = namespace(root, std::process::id()).unwrap();
        assert_eq!(namespace(root, std::process::id()).unwrap(), own);
        assert!(connections(root, std::process::id()).is_some());
    }
}
