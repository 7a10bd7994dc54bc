//! The three questions to the kernel's routing socket, encoded by hand.
//!
//! Crates for this know every message there is and make a list of owned attributes of each link;
//! here one number pair of each is wanted, a thousand times a cycle.

use std::io;
use std::time::Duration;

use rustix::fd::OwnedFd;
use rustix::io::Errno;
use rustix::net::netlink::SocketAddrNetlink;
use rustix::net::sockopt::{Timeout, set_socket_timeout};
use rustix::net::{
    AddressFamily, RecvFlags, SendFlags, SocketFlags, SocketType, bind, recv, send, socket_with,
};

use super::Traffic;

/// The kernel cuts its answers to at most this.
const BUFFER: usize = 32 << 10;
/// The kernel answers at once; this only bounds a lost answer.
const PATIENCE: Duration = Duration::from_secs(2);

/// Length, kind, flags, sequence, port.
const HEADER: usize = 16;
const NLM_F_REQUEST: u16 = 0x1;
const NLM_F_DUMP: u16 = 0x300;
const NLMSG_ERROR: u16 = 2;
const NLMSG_DONE: u16 = 3;

const RTM_NEWLINK: u16 = 16;
const RTM_GETLINK: u16 = 18;
const RTM_NEWNSID: u16 = 88;
const RTM_GETNSID: u16 = 90;
const RTM_NEWSTATS: u16 = 92;
const RTM_GETSTATS: u16 = 94;

/// `struct ifinfomsg`: family, type, index, flags, change.
const LINK_BODY: usize = 16;
const IFLA_EXT_MASK: u16 = 29;
const IFLA_LINK: u16 = 5;
const IFLA_LINK_NETNSID: u16 = 37;
const RTEXT_FILTER_SKIP_STATS: u32 = 1 << 3;

/// `struct rtgenmsg`, padded.
const NSID_BODY: usize = 4;
const NETNSA_NSID: u16 = 1;
const NETNSA_PID: u16 = 2;

/// `struct if_stats_msg`: family, index, filter.
const STATS_BODY: usize = 12;
const IFLA_STATS_LINK_64: u16 = 1;
/// Packets before bytes, received before sent, eight bytes each.
const RX_BYTES: usize = 16;
const TX_BYTES: usize = 24;

/// A socket that asks about links.
#[derive(Debug)]
pub(super) struct Netlink {
    socket: OwnedFd,
    buffer: Box<[u8]>,
    sequence: u32,
}

/// Where a link leads.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum OtherEnd {
    /// Nowhere: it has one end.
    None,
    /// In this namespace, as of every new pair until one end is moved.
    Here,
    /// In the namespace that the kernel calls so.
    In(i32),
}

impl Netlink {
    pub(super) fn open() -> io::Result<Self> {
        // Protocol 0 is routing.
        let (family, kind) = (AddressFamily::NETLINK, SocketType::RAW);
        let socket = socket_with(family, kind, SocketFlags::CLOEXEC, None)?;
        bind(&socket, &SocketAddrNetlink::new(0, 0))?;
        set_socket_timeout(&socket, Timeout::Recv, Some(PATIENCE))?;
        Ok(Self {
            socket,
            buffer: vec![0; BUFFER].into_boxed_slice(),
            sequence: 0,
        })
    }

    /// What each link of this network namespace has received and sent since it was made.
    ///
    /// Where links come and go meanwhile it may leave some out.
    pub(super) fn counters(&mut self, sink: impl FnMut(u32, Traffic)) -> io::Result<()> {
        self.ask_counters(NLM_F_DUMP, 0, sink)
    }

    /// The same of one link; `None` when there is no such link.
    pub(super) fn counters_of(&mut self, index: u32) -> io::Result<Option<Traffic>> {
        let mut found = None;
        let asked = self.ask_counters(0, index, |_, traffic| found = Some(traffic));
        match asked {
            Err(error) if error.raw_os_error() == Some(Errno::NODEV.raw_os_error()) => Ok(None),
            asked => asked.map(|()| found),
        }
    }

    fn ask_counters(
        &mut self,
        flags: u16,
        index: u32,
        mut sink: impl FnMut(u32, Traffic),
    ) -> io::Result<()> {
        let mut body = [0; STATS_BODY];
        body[4..8].copy_from_slice(&index.to_ne_bytes());
        body[8..].copy_from_slice(&(1_u32 << (IFLA_STATS_LINK_64 - 1)).to_ne_bytes());
        self.ask(RTM_GETSTATS, flags, &body, |kind, body| {
            let counters = attribute(body.get(STATS_BODY..)?, IFLA_STATS_LINK_64)?;
            let traffic = Traffic {
                received_bytes: u64_at(counters, RX_BYTES)?,
                sent_bytes: u64_at(counters, TX_BYTES)?,
            };
            if kind == RTM_NEWSTATS {
                sink(u32_at(body, 4)?, traffic);
            }
            Some(())
        })
    }

    /// Each link, and where its other end is.
    pub(super) fn links(&mut self, mut sink: impl FnMut(u32, OtherEnd)) -> io::Result<()> {
        let mut body = vec![0; LINK_BODY];
        put(&mut body, IFLA_EXT_MASK, RTEXT_FILTER_SKIP_STATS);
        self.ask(RTM_GETLINK, NLM_F_DUMP, &body, |kind, body| {
            let attributes = body.get(LINK_BODY..)?;
            let number = |kind| attribute(attributes, kind).and_then(|value| u32_at(value, 0));
            let end = match (number(IFLA_LINK_NETNSID), number(IFLA_LINK)) {
                (Some(id), _) => OtherEnd::In(id.cast_signed()),
                (None, Some(_)) => OtherEnd::Here,
                (None, None) => OtherEnd::None,
            };
            if kind == RTM_NEWLINK {
                sink(u32_at(body, 4)?, end);
            }
            Some(())
        })
    }

    /// How this namespace calls the one that `pid` is in; `None` where no link reaches it.
    pub(super) fn namespace_of(&mut self, pid: u32) -> io::Result<Option<i32>> {
        let mut body = vec![0; NSID_BODY];
        put(&mut body, NETNSA_PID, pid);
        let mut found = None;
        self.ask(RTM_GETNSID, 0, &body, |kind, body| {
            let id = attribute(body.get(NSID_BODY..)?, NETNSA_NSID)?;
            if kind == RTM_NEWNSID {
                found = Some(u32_at(id, 0)?.cast_signed());
            }
            Some(())
        })?;
        Ok(found.filter(|id| *id >= 0))
    }

    /// Sends one question and hands on every part of its answer. A part that is cut short is left
    /// out.
    fn ask(
        &mut self,
        kind: u16,
        flags: u16,
        body: &[u8],
        mut part: impl FnMut(u16, &[u8]) -> Option<()>,
    ) -> io::Result<()> {
        self.sequence = self.sequence.wrapping_add(1);
        let mut request = Vec::with_capacity(HEADER + body.len());
        let length = u32::try_from(HEADER + body.len()).unwrap_or(u32::MAX);
        request.extend(length.to_ne_bytes());
        request.extend(kind.to_ne_bytes());
        request.extend((NLM_F_REQUEST | flags).to_ne_bytes());
        request.extend(self.sequence.to_ne_bytes());
        request.extend([0; 4]);
        request.extend(body);
        send(&self.socket, &request, SendFlags::empty())?;
        loop {
            let (_, length) = recv(&self.socket, &mut self.buffer[..], RecvFlags::TRUNC)?;
            let Some(mut rest) = self.buffer.get(..length) else {
                return Err(Errno::MSGSIZE.into());
            };
            while let Some((message, after)) = split(rest, HEADER) {
                rest = after;
                if u32_at(message, 8) != Some(self.sequence) {
                    // The rest of an answer that was given up.
                    continue;
                }
                let body = &message[HEADER..];
                match u16_at(message, 4) {
                    Some(NLMSG_DONE) => return Ok(()),
                    Some(NLMSG_ERROR) => return error(body),
                    Some(kind) => {
                        let _ = part(kind, body);
                        if flags & NLM_F_DUMP == 0 {
                            return Ok(());
                        }
                    }
                    None => {}
                }
            }
        }
    }
}

/// An error of 0 is a yes.
fn error(body: &[u8]) -> io::Result<()> {
    match u32_at(body, 0).map(u32::cast_signed) {
        Some(0) => Ok(()),
        Some(negative) => Err(io::Error::from_raw_os_error(negative.saturating_neg())),
        None => Err(io::ErrorKind::UnexpectedEof.into()),
    }
}

/// Appends an attribute of four bytes.
fn put(body: &mut Vec<u8>, kind: u16, value: u32) {
    body.extend(8_u16.to_ne_bytes());
    body.extend(kind.to_ne_bytes());
    body.extend(value.to_ne_bytes());
}

/// The value of an attribute.
fn attribute(mut rest: &[u8], kind: u16) -> Option<&[u8]> {
    while rest.len() >= 4 {
        let length = usize::from(u16_at(rest, 0)?);
        let value = rest.get(4..length)?;
        // The upper two bits say how the value is written.
        if u16_at(rest, 2)? & 0x3fff == kind {
            return Some(value);
        }
        rest = rest.get(length.next_multiple_of(4)..).unwrap_or_default();
    }
    None
}

/// The first message and what follows it. Its own length is its first field.
fn split(rest: &[u8], least: usize) -> Option<(&[u8], &[u8])> {
    let length = usize::try_from(u32_at(rest, 0)?).ok()?;
    let message = rest.get(..length).filter(|_| length >= least)?;
    let after = rest.get(length.next_multiple_of(4)..).unwrap_or_default();
    Some((message, after))
}

fn u16_at(bytes: &[u8], at: usize) -> Option<u16> {
    let bytes = bytes.get(at..at + 2)?;
    bytes.try_into().ok().map(u16::from_ne_bytes)
}

fn u32_at(bytes: &[u8], at: usize) -> Option<u32> {
    let bytes = bytes.get(at..at + 4)?;
    bytes.try_into().ok().map(u32::from_ne_bytes)
}

fn u64_at(bytes: &[u8], at: usize) -> Option<u64> {
    let bytes = bytes.get(at..at + 8)?;
    bytes.try_into().ok().map(u64::from_ne_bytes)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn attributes_are_found_and_cut_ones_are_none() {
        let mut body = Vec::new();
        body.extend(5_u16.to_ne_bytes());
        body.extend(9_u16.to_ne_bytes());
        body.extend([1, 0, 0, 0]);
        put(&mut body, 0x8000 | 37, 77);
        assert_eq!(attribute(&body, 9), Some(&[1][..]));
        assert_eq!(attribute(&body, 37).and_then(|v| u32_at(v, 0)), Some(77));
        assert_eq!(attribute(&body, 38), None);
        for cut in 0..body.len() {
            assert_eq!(attribute(&body[..cut], 37), None, "{cut}");
        }
        // One that claims no length ends the search.
        assert_eq!(attribute(&[0; 12], 1), None);
    }

    #[test]
    fn this_machines_links_have_counters_and_nobody_has_no_namespace() {
        let mut netlink = Netlink::open().unwrap();
        let mut links = Vec::new();
        netlink.links(|index, _| links.push(index)).unwrap();
        let mut counted = Vec::new();
        netlink.counters(|index, _| counted.push(index)).unwrap();
        assert!(!links.is_empty());
        // The loopback is always there and first.
        assert!(links.contains(&1) && counted.contains(&1));
        assert!(netlink.counters_of(1).unwrap().is_some());
        assert_eq!(netlink.counters_of(i32::MAX as u32).unwrap(), None);
        // Our own namespace has no name for itself but by a link that leads out and back.
        assert!(netlink.namespace_of(std::process::id()).is_ok());
        assert!(netlink.namespace_of(u32::MAX >> 1).is_err());
    }
}
