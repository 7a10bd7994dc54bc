//! What containers receive and send, and how many connections they hold.
//!
//! One dump of the kernel's link counters serves all containers. A container's interface has its
//! other end on the host, so what the host's end receives is what the container sent. Which end
//! belongs to whom is looked up once, and again when links come that nobody knows. A namespace
//! without an end here (macvlan, ipvlan, an engine with a network of its own) is asked by itself.
//!
//! This module must not read the clock or know whose a container is. Everything here blocks for
//! microseconds.

mod files;
mod netlink;

use std::collections::HashMap;
use std::io;
use std::ops::AddAssign;
use std::path::{Path, PathBuf};

pub use files::{Namespace, namespace};
use netlink::{Netlink, OtherEnd};

/// Bytes since the beginning.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Traffic {
    /// Received, bytes.
    pub received_bytes: u64,
    /// Sent, bytes.
    pub sent_bytes: u64,
}

impl AddAssign for Traffic {
    fn add_assign(&mut self, more: Self) {
        self.received_bytes = self.received_bytes.saturating_add(more.received_bytes);
        self.sent_bytes = self.sent_bytes.saturating_add(more.sent_bytes);
    }
}

impl Traffic {
    /// The same from the other end.
    fn turned(self) -> Self {
        Self {
            received_bytes: self.sent_bytes,
            sent_bytes: self.received_bytes,
        }
    }
}

/// The network use of many containers.
#[derive(Debug)]
pub struct Network {
    proc_root: PathBuf,
    netlink: Netlink,
    links: HashMap<u32, Link>,
    watched: HashMap<Namespace, Watched>,
    cycle: u64,
}

#[derive(Debug)]
struct Link {
    end: OtherEnd,
    /// The namespace that its other end is in, once that is watched. The kernel gives a name again when
    /// a namespace is gone, so the name alone does not tell whose a link was.
    owner: Option<Namespace>,
    traffic: Traffic,
    seen: u64,
}

#[derive(Debug)]
struct Watched {
    /// A process in it.
    pid: u32,
    /// The kernel's name for it, where a link of ours leads there.
    peer: Option<i32>,
    /// Of links that are gone.
    past: Traffic,
}

impl Network {
    /// Watches nothing yet.
    ///
    /// # Errors
    /// The kernel's, when it offers no such socket.
    pub fn open(proc_root: PathBuf) -> io::Result<Self> {
        Ok(Self {
            proc_root,
            netlink: Netlink::open()?,
            links: HashMap::new(),
            watched: HashMap::new(),
            cycle: 0,
        })
    }

    /// Watches the namespace of a process. Doing it again, with another process in it too, changes
    /// nothing else.
    ///
    /// # Errors
    /// When the process is gone.
    pub fn watch(&mut self, pid: u32) -> io::Result<Namespace> {
        let namespace = namespace(&self.proc_root, pid)?;
        let peer = self.peer_of(pid)?;
        self.watched
            .entry(namespace)
            .and_modify(|watched| watched.pid = pid)
            .or_insert(Watched {
                pid,
                peer: None,
                past: Traffic::default(),
            });
        self.name(namespace, peer);
        Ok(namespace)
    }

    /// Stops watching.
    pub fn unwatch(&mut self, namespace: Namespace) {
        self.watched.remove(&namespace);
    }

    /// The kernel names a namespace when a link to it is listed.
    fn peer_of(&mut self, pid: u32) -> io::Result<Option<i32>> {
        let peer = self.netlink.namespace_of(pid)?;
        if peer.is_some() {
            return Ok(peer);
        }
        self.map()?;
        self.netlink.namespace_of(pid)
    }

    /// Notes what the kernel calls a namespace. Whoever else was called so is gone.
    fn name(&mut self, namespace: Namespace, peer: Option<i32>) {
        for (other, watched) in &mut self.watched {
            if *other == namespace {
                watched.peer = peer;
            } else if peer.is_some() && watched.peer == peer {
                watched.peer = None;
            }
        }
    }

    fn map(&mut self) -> io::Result<()> {
        let links = &mut self.links;
        let cycle = self.cycle;
        self.netlink.links(|index, end| {
            let link = links.entry(index).or_insert(Link {
                end,
                owner: None,
                traffic: Traffic::default(),
                seen: cycle,
            });
            link.end = end;
        })
    }

    /// Reads the counters of every watched namespace and hands them on. Those of a namespace that
    /// has no network, or none any more, are left out.
    ///
    /// # Errors
    /// The kernel's.
    pub fn cycle(&mut self, mut sink: impl FnMut(Namespace, Traffic)) -> io::Result<()> {
        if self.watched.is_empty() {
            return Ok(());
        }
        self.count()?;
        self.own();
        let mut by_owner: HashMap<Namespace, Traffic> = HashMap::new();
        for link in self.links.values() {
            if let Some(owner) = link.owner {
                *by_owner.entry(owner).or_default() += link.traffic.turned();
            }
        }
        for (namespace, watched) in &self.watched {
            let mut traffic = watched.past;
            match watched.peer {
                Some(_) => traffic += by_owner.get(namespace).copied().unwrap_or_default(),
                None => match files::traffic(&self.proc_root, watched.pid) {
                    Some(own) => traffic += own,
                    None => continue,
                },
            }
            sink(*namespace, traffic);
        }
        Ok(())
    }

    /// Finds out whose the links are that nobody had before.
    fn own(&mut self) {
        // They may have got their first links since.
        let nameless = self.watched.iter().filter(|(_, w)| w.peer.is_none());
        let nameless: Vec<(Namespace, u32)> = nameless.map(|(n, w)| (*n, w.pid)).collect();
        for (namespace, pid) in nameless {
            if let Ok(Some(peer)) = self.netlink.namespace_of(pid) {
                self.name(namespace, Some(peer));
            }
        }
        let named = self.watched.iter().filter_map(|(n, w)| Some((w.peer?, *n)));
        let named: HashMap<i32, Namespace> = named.collect();
        for link in self.links.values_mut().filter(|l| l.owner.is_none()) {
            if let OtherEnd::In(peer) = link.end {
                link.owner = named.get(&peer).copied();
            }
        }
    }

    /// Reads the counters of one watched namespace at once; `None` when it is not watched or has no
    /// network.
    ///
    /// # Errors
    /// The kernel's.
    pub fn read_now(&mut self, namespace: Namespace) -> io::Result<Option<Traffic>> {
        if !self.watched.contains_key(&namespace) {
            return Ok(None);
        }
        let mut found = None;
        self.cycle(|other, traffic| {
            if other == namespace {
                found = Some(traffic);
            }
        })?;
        Ok(found)
    }

    /// Brings the counters of all links up to date. What links that are gone had counted stays with
    /// their namespace.
    fn count(&mut self) -> io::Result<()> {
        self.cycle += 1;
        let (links, cycle) = (&mut self.links, self.cycle);
        let mut unknown = false;
        self.netlink.counters(|index, traffic| {
            let link = links.entry(index).or_insert_with(|| {
                unknown = true;
                Link {
                    end: OtherEnd::None,
                    owner: None,
                    traffic,
                    seen: cycle,
                }
            });
            (link.traffic, link.seen) = (traffic, cycle);
        })?;
        // A pair is made here, and one end of it moved afterwards, which nothing tells.
        if unknown || self.links.values().any(|link| link.end == OtherEnd::Here) {
            self.map()?;
        }
        // A list that was cut short is no proof.
        for (index, link) in self.links.iter_mut().filter(|(_, link)| link.seen != cycle) {
            if let Some(traffic) = self.netlink.counters_of(*index)? {
                (link.traffic, link.seen) = (traffic, cycle);
            }
        }
        let watched = &mut self.watched;
        self.links.retain(|_, link| {
            let is_here = link.seen == cycle;
            let owner = link.owner.filter(|_| !is_here);
            if let Some(of) = owner.and_then(|owner| watched.get_mut(&owner)) {
                of.past += link.traffic.turned();
            }
            is_here
        });
        Ok(())
    }

    /// Connections in the namespace of a process; `None` when it is gone.
    #[must_use]
    pub fn connections(&self, pid: u32) -> Option<u64> {
        files::connections(&self.proc_root, pid)
    }

    /// Where processes are looked up.
    #[must_use]
    pub fn proc_root(&self) -> &Path {
        &self.proc_root
    }
}

#[cfg(test)]
mod tests;
