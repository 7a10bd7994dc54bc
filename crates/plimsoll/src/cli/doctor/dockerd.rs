//! How the engine was told to run: `/etc/docker/daemon.json` and its command line.

use std::path::Path;

use serde_json::Value;

use super::at;

/// What matters here of the engine's configuration.
#[derive(Debug, Default, Clone, PartialEq, Eq)]
pub(in crate::cli) struct Dockerd {
    /// Addresses it listens on, as written.
    pub(in crate::cli) hosts: Vec<String>,
    /// Clients over TCP need a certificate.
    pub(in crate::cli) tls_verify: bool,
    /// `native.cgroupdriver`.
    pub(in crate::cli) cgroup_driver: Option<String>,
    /// It manages the packet filter.
    pub(in crate::cli) iptables: bool,
    /// Engines running as other users than root.
    pub(in crate::cli) rootless: usize,
    /// Its configuration file is not JSON.
    pub(in crate::cli) unreadable: Option<String>,
}

/// Reads both below `root`.
pub(in crate::cli) fn read(root: &Path) -> Dockerd {
    let mut found = Dockerd {
        iptables: true,
        ..Dockerd::default()
    };
    let file = at(root, "/etc/docker/daemon.json");
    if let Ok(text) = std::fs::read_to_string(&file) {
        match serde_json::from_str(&text) {
            Ok(json) => found.read_json(&json),
            Err(error) => found.unreadable = Some(error.to_string()),
        }
    }
    let processes = std::fs::read_dir(at(root, "/proc"))
        .into_iter()
        .flatten()
        .flatten();
    for process in processes {
        let numbered = process
            .file_name()
            .to_str()
            .is_some_and(|n| n.parse::<u32>().is_ok());
        if numbered && let Ok(line) = std::fs::read(process.path().join("cmdline")) {
            let words = line
                .split(|b| *b == 0)
                .map(|w| String::from_utf8_lossy(w).into_owned());
            let words: Vec<String> = words.filter(|w| !w.is_empty()).collect();
            let program = words.first().and_then(|w| Path::new(w).file_name());
            match program.and_then(|name| name.to_str()) {
                Some("dockerd") if owned_by_root(&process.path()) => found.read_words(&words[1..]),
                Some("dockerd") => found.rootless += 1,
                _ => {}
            }
        }
    }
    found.hosts.sort();
    found.hosts.dedup();
    found
}

fn owned_by_root(process: &Path) -> bool {
    use std::os::unix::fs::MetadataExt as _;
    // In a test's tree the files belong to whoever runs the test.
    std::fs::metadata(process).is_ok_and(|m| m.uid() == 0 || !process.starts_with("/proc"))
}

impl Dockerd {
    fn read_json(&mut self, json: &Value) {
        let texts = |name: &str| {
            let list = json[name].as_array().into_iter().flatten();
            list.filter_map(Value::as_str)
                .map(str::to_owned)
                .collect::<Vec<_>>()
        };
        self.hosts.extend(texts("hosts"));
        self.tls_verify |= json["tlsverify"] == true;
        self.iptables &= json["iptables"] != false;
        for option in texts("exec-opts") {
            self.exec_option(&option);
        }
    }

    fn read_words(&mut self, words: &[String]) {
        let mut words = words.iter();
        while let Some(word) = words.next() {
            let (flag, value) = match word.split_once('=') {
                Some((flag, value)) => (flag, Some(value.to_owned())),
                // Of one-letter flags the value may follow at once.
                None if word.len() > 2 && word.starts_with("-H") => {
                    ("-H", Some(word[2..].to_owned()))
                }
                None => (word.as_str(), None),
            };
            match flag {
                "-H" | "--host" => self.hosts.extend(value.or_else(|| words.next().cloned())),
                "--exec-opt" => {
                    // `--exec-opt=native.cgroupdriver=x` keeps its second sign in the value.
                    if let Some(option) = value.or_else(|| words.next().cloned()) {
                        self.exec_option(&option);
                    }
                }
                "--tlsverify" => self.tls_verify |= value.is_none_or(|v| v == "true"),
                "--iptables" => self.iptables &= value.is_none_or(|v| v != "false"),
                _ => {}
            }
        }
    }

    fn exec_option(&mut self, option: &str) {
        if let Some(driver) = option.strip_prefix("native.cgroupdriver=") {
            self.cgroup_driver = Some(driver.to_owned());
        }
    }

    /// Addresses that are not unix sockets or handed over by systemd.
    pub(in crate::cli) fn tcp(&self) -> Vec<String> {
        let open = |host: &&String| !host.starts_with("unix://") && !host.starts_with("fd://");
        self.hosts.iter().filter(open).cloned().collect()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn root_with(json: Option<&str>, command_lines: &[&[&str]]) -> tempfile::TempDir {
        let root = tempfile::tempdir().unwrap();
        if let Some(json) = json {
            std::fs::create_dir_all(root.path().join("etc/docker")).unwrap();
            std::fs::write(root.path().join("etc/docker/daemon.json"), json).unwrap();
        }
        for (pid, words) in command_lines.iter().enumerate() {
            let dir = root.path().join(format!("proc/{}", pid + 10));
            std::fs::create_dir_all(&dir).unwrap();
            std::fs::write(dir.join("cmdline"), words.join("\0") + "\0").unwrap();
        }
        root
    }

    #[test]
    fn both_sources_are_read() {
        let json = r#"{"hosts": ["unix:///var/run/docker.sock"], "tlsverify": true,
                       "iptables": false, "exec-opts": ["native.cgroupdriver=systemd"]}"#;
        for (json, words, tcp, tls_verify, driver) in [
            (None, &["/usr/bin/dockerd"][..], &[][..], false, None),
            (Some(json), &["bash"], &[], true, Some("systemd")),
            (
                None,
                &["dockerd", "-H", "tcp://0.0.0.0:2375"],
                &["tcp://0.0.0.0:2375"],
                false,
                None,
            ),
            (
                None,
                &["dockerd", "-Htcp://:2375", "-H=fd://"],
                &["tcp://:2375"],
                false,
                None,
            ),
            (
                None,
                &["dockerd", "--host=tcp://a:1", "--tlsverify"],
                &["tcp://a:1"],
                true,
                None,
            ),
            (
                None,
                &["dockerd", "--host", "0.0.0.0", "--tlsverify=false"],
                &["0.0.0.0"],
                false,
                None,
            ),
            (
                None,
                &["dockerd", "--exec-opt=native.cgroupdriver=x"],
                &[],
                false,
                Some("x"),
            ),
            (
                None,
                &["dockerd", "--exec-opt", "native.cgroupdriver=x"],
                &[],
                false,
                Some("x"),
            ),
            (None, &["notdockerd", "-H", "tcp://a:1"], &[], false, None),
        ] {
            let root = root_with(json, &[words]);
            let found = read(root.path());
            assert_eq!(found.tcp(), tcp, "{words:?}");
            assert_eq!(found.tls_verify, tls_verify, "{words:?}");
            assert_eq!(found.cgroup_driver.as_deref(), driver, "{words:?}");
        }
        assert!(!read(root_with(Some(json), &[]).path()).iptables);
        assert!(read(root_with(Some("{"), &[]).path()).unreadable.is_some());
    }
}
