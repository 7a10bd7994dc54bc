//! Real links between real namespaces.

use std::collections::HashMap;
use std::net::UdpSocket;
use std::path::Path;
use std::process::{Child, Command, Stdio};

use super::*;

fn ip(words: &str) -> bool {
    let words = words.split(' ');
    Command::new("ip").args(words).status().unwrap().success()
}

/// A process in a network namespace of its own. Ended at the end, and its links with it.
struct Lonely(Child);

impl Lonely {
    fn new() -> Self {
        // It says so once it is there.
        let mut child = Command::new("unshare")
            .args(["--net", "sh", "-c", "echo; exec cat"])
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .spawn()
            .unwrap();
        let mut line = String::new();
        let stdout = child.stdout.take().unwrap();
        std::io::BufRead::read_line(&mut std::io::BufReader::new(stdout), &mut line).unwrap();
        assert_eq!(line, "\n", "unshare needs root");
        Self(child)
    }

    fn pid(&self) -> u32 {
        self.0.id()
    }

    /// A link from here to there, and what may be sent over it.
    fn link(&self, name: &str, net: u8) -> UdpSocket {
        assert!(ip(&format!(
            "link add {name} type veth peer name inside{net} netns {}",
            self.pid()
        )));
        self.open(name, net)
    }

    /// What may be sent over a link that leads there.
    fn open(&self, name: &str, net: u8) -> UdpSocket {
        assert!(ip(&format!("addr add 198.18.{net}.1/30 dev {name}")));
        assert!(ip(&format!("link set {name} up")));
        let pid = self.pid().to_string();
        let up = format!("-t {pid} -n ip link set inside{net} up");
        let up = Command::new("nsenter").args(up.split(' ')).status();
        assert!(up.unwrap().success());
        // Until the kernel has noticed it drops what is sent.
        let state = format!("/sys/class/net/{name}/operstate");
        while std::fs::read_to_string(&state).unwrap() != "up\n" {
            std::thread::yield_now();
        }
        let to = format!("198.18.{net}.2");
        assert!(ip(&format!(
            "neigh replace {to} lladdr 02:00:00:00:00:02 dev {name}"
        )));
        let socket = UdpSocket::bind((format!("198.18.{net}.1"), 0)).unwrap();
        socket.connect((to, 9)).unwrap();
        socket
    }
}

impl Drop for Lonely {
    fn drop(&mut self) {
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

fn read(network: &mut Network) -> HashMap<Namespace, Traffic> {
    let mut all = HashMap::new();
    let sink = |namespace, traffic| assert!(all.insert(namespace, traffic).is_none());
    network.cycle(sink).unwrap();
    all
}

/// Everything a thousand bytes become on the wire: UDP, IPv4 and Ethernet.
const PACKET: u64 = 1000 + 8 + 20 + 14;

fn send(socket: &UdpSocket, packets: u64) {
    for _ in 0..packets {
        assert_eq!(socket.send(&[7; 1000]).unwrap(), 1000);
    }
}

#[test]
fn what_the_hosts_end_sends_the_container_received_and_nothing_is_lost_with_a_link() {
    let lonely = Lonely::new();
    let name = format!("pm{}", std::process::id());
    let mut network = Network::open("/proc".into()).unwrap();
    let namespace = network.watch(lonely.pid()).unwrap();
    assert_eq!(read(&mut network).len(), 0, "it has no link yet");

    let socket = lonely.link(&name, 201);
    let before = read(&mut network)[&namespace];
    send(&socket, 50);
    let after = read(&mut network)[&namespace];
    let received = after.received_bytes - before.received_bytes;
    // Neighbours may be looked for besides.
    assert!((50 * PACKET..51 * PACKET).contains(&received), "{received}");

    // Seen from inside it is the same.
    let inside = files::traffic(Path::new("/proc"), lonely.pid()).unwrap();
    assert!(inside.received_bytes >= after.received_bytes);
    assert!(inside.received_bytes - after.received_bytes < PACKET);

    assert!(ip(&format!("link del {name}")));
    let gone = read(&mut network)[&namespace];
    assert!(gone.received_bytes >= after.received_bytes);
    let second = lonely.link(&format!("{name}b"), 202);
    send(&second, 10);
    let more = read(&mut network)[&namespace];
    assert!(more.received_bytes >= gone.received_bytes + 10 * PACKET);
}

#[test]
fn a_link_that_was_seen_before_it_leads_there_counts() {
    let lonely = Lonely::new();
    let name = format!("pp{}", std::process::id());
    let mut network = Network::open("/proc".into()).unwrap();
    let namespace = network.watch(lonely.pid()).unwrap();
    assert!(ip(&format!(
        "link add {name} type veth peer name inside203"
    )));
    read(&mut network);
    assert!(ip(&format!("link set inside203 netns {}", lonely.pid())));
    let socket = lonely.open(&name, 203);
    send(&socket, 50);
    assert!(read(&mut network)[&namespace].received_bytes >= 50 * PACKET);
}

/// A namespace that is gone and what it had counted, and one that the kernel calls the same before
/// anybody looked; `None` where others were given the name.
fn namesake(network: &mut Network, name: &str) -> Option<(Traffic, Namespace, Namespace, Lonely)> {
    let first = Lonely::new();
    let old = network.watch(first.pid()).unwrap();
    send(&first.link(name, 204), 50);
    let counted = read(network)[&old];
    let called = network.watched[&old].peer;
    drop(first);
    while Path::new(&format!("/sys/class/net/{name}")).exists() {
        std::thread::yield_now();
    }
    let mut others = Vec::new();
    for n in 0..20 {
        let lonely = Lonely::new();
        let pid = lonely.pid();
        assert!(ip(&format!(
            "link add {name}{n} type veth peer name in netns {pid}"
        )));
        let new = network.watch(pid).unwrap();
        if network.watched[&new].peer == called {
            return Some((counted, old, new, lonely));
        }
        others.push(lonely);
    }
    None
}

#[test]
fn what_has_the_name_of_one_that_is_gone_has_nothing_of_its_bytes() {
    let mut network = Network::open("/proc".into()).unwrap();
    let name = format!("pn{}", std::process::id());
    let found = (0..10).find_map(|_| namesake(&mut network, &name));
    let (counted, old, new, _lonely) = found.expect("the kernel gives names again");
    assert!(counted.received_bytes >= 50 * PACKET);
    let of_new = read(&mut network)[&new];
    assert!(of_new.received_bytes < PACKET, "{of_new:?}");
    assert_eq!(network.watched[&old].past, counted);
}

#[test]
fn processes_that_share_a_namespace_are_one_and_one_that_is_gone_is_none() {
    let lonely = Lonely::new();
    let mut network = Network::open("/proc".into()).unwrap();
    let namespace = network.watch(lonely.pid()).unwrap();
    let own = network.watch(std::process::id()).unwrap();
    assert_ne!(namespace, own);
    let mut guest = Command::new("nsenter")
        .args(["-t", &lonely.pid().to_string(), "-n", "cat"])
        .stdin(Stdio::piped())
        .spawn()
        .unwrap();
    let mut seen = network.watch(guest.id()).unwrap();
    while seen == own {
        // nsenter has not entered yet.
        seen = network.watch(guest.id()).unwrap();
    }
    assert_eq!(seen, namespace);
    guest.kill().unwrap();
    guest.wait().unwrap();
    assert!(network.watch(guest.id()).is_err());
}

#[test]
fn connections_are_those_of_the_namespace() {
    let lonely = Lonely::new();
    let network = Network::open("/proc".into()).unwrap();
    assert_eq!(network.connections(lonely.pid()), Some(0));
    let _listener = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
    assert!(network.connections(std::process::id()).unwrap() > 0);
    assert_eq!(network.connections(u32::MAX >> 1), None);
}
