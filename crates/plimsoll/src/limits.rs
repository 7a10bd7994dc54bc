//! What one caller may hold of this server, on every listener alike: connections, requests a second,
//! large bodies. No one takes it all, and no one waits for another who tries.
//!
//! Whose share a connection or a request counts against is [`Who`]; that a request is allowed at all is
//! decided elsewhere.

use std::collections::HashMap;
use std::net::{IpAddr, Ipv6Addr};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use plimsoll_core::entity::{TokenId, UserId};
use tokio::io::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt};
use tokio::sync::{OwnedSemaphorePermit, Semaphore, SemaphorePermit};

use crate::config;

/// The most bodies above the gateway's small ones that are held in memory for one caller; others wait.
const LARGE_BODIES_MAX: usize = 4;

/// The most TLS handshakes of one caller that are under way.
const HANDSHAKES_MAX: usize = 32;

/// How long a connection too many may take to send something, and to take its answer.
const LEAVE_TIMEOUT: Duration = Duration::from_secs(1);

/// How many shares are remembered before those that nobody uses are forgotten.
const SHARES_KEPT: usize = 1024;

/// Whose share something counts against.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Who {
    /// Root on this host, who could stop the server anyway: bounded by nothing.
    Root,
    /// A user, however they came.
    User(UserId),
    /// A token that is nobody's.
    Token(TokenId),
    /// A uid without a user.
    Uid(u32),
    /// A machine that has not said who it is.
    Address(IpAddr),
    /// Whoever cannot be told apart.
    Unknown,
}

impl Who {
    /// A machine. Whoever has one IPv6 address has all of its /64.
    #[must_use]
    pub fn address(ip: IpAddr) -> Self {
        Self::Address(match ip.to_canonical() {
            IpAddr::V6(v6) => {
                let prefix = u128::from(v6) & !u128::from(u64::MAX);
                IpAddr::V6(Ipv6Addr::from(prefix))
            }
            v4 => v4,
        })
    }
}

/// Everybody's shares.
#[derive(Debug)]
pub struct Limits {
    each: config::Limits,
    shares: Mutex<Shares>,
}

#[derive(Debug)]
struct Shares {
    of: HashMap<Who, Arc<Share>>,
    /// Above so many, the unused are forgotten.
    tidy_above: usize,
}

impl Limits {
    /// Shares of this size.
    #[must_use]
    pub fn new(each: config::Limits) -> Self {
        let shares = Shares {
            of: HashMap::new(),
            tidy_above: SHARES_KEPT,
        };
        Self {
            each,
            shares: Mutex::new(shares),
        }
    }

    /// The share of `who`. `now` is monotonic.
    pub fn share(&self, who: Who, now: Duration) -> Arc<Share> {
        let mut shares = self.shares.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(known) = shares.of.get(&who) {
            return Arc::clone(known);
        }
        if shares.of.len() >= shares.tidy_above {
            shares
                .of
                .retain(|_, share| Arc::strong_count(share) > 1 || !share.is_rested(now));
            // Twice what is in use, so that tidying costs little however many callers there are.
            shares.tidy_above = SHARES_KEPT.max(2 * shares.of.len());
        }
        let share = Arc::new(Share::new(self.each, who));
        shares.of.insert(who, Arc::clone(&share));
        share
    }

    /// A place for one more connection of `who`.
    ///
    /// # Errors
    /// Their share, when they have too many already: it tells the client so.
    pub fn enter(&self, who: Who, now: Duration) -> Result<Place, Arc<Share>> {
        let share = self.share(who, now);
        match Arc::clone(&share.connections).try_acquire_owned() {
            Ok(permit) => Ok(Place {
                share,
                _connection: permit,
            }),
            Err(_) => Err(share),
        }
    }
}

/// What one caller holds.
#[derive(Debug)]
pub struct Share {
    /// `None` is no limit.
    pace: Option<Mutex<Bucket>>,
    connections: Arc<Semaphore>,
    /// Connections beyond those, while they are told so.
    leaving: Arc<Semaphore>,
    handshakes: Arc<Semaphore>,
    large_bodies: Semaphore,
}

impl Share {
    fn new(each: config::Limits, who: Who) -> Self {
        let bounded = who != Who::Root;
        let most = if bounded {
            each.connections_per_user
        } else {
            Semaphore::MAX_PERMITS
        };
        Self {
            pace: bounded.then(|| Mutex::new(Bucket::new(each))),
            connections: Arc::new(Semaphore::new(most)),
            leaving: Arc::new(Semaphore::new(most)),
            handshakes: Arc::new(Semaphore::new(HANDSHAKES_MAX)),
            large_bodies: Semaphore::new(LARGE_BODIES_MAX),
        }
    }

    /// Counts one request at `now`, monotonic.
    ///
    /// # Errors
    /// [`TooMany`] when the caller is to wait.
    pub fn request(&self, now: Duration) -> Result<(), TooMany> {
        let Some(pace) = &self.pace else {
            return Ok(());
        };
        pace.lock()
            .unwrap_or_else(PoisonError::into_inner)
            .take(now)
            .map_err(TooMany::Requests)
    }

    /// Whether forgetting it changes nothing.
    fn is_rested(&self, now: Duration) -> bool {
        self.pace.as_ref().is_none_or(|pace| {
            let bucket = pace.lock().unwrap_or_else(PoisonError::into_inner);
            bucket.full_at <= now
        })
    }

    /// A place for one more handshake.
    pub(crate) fn handshake(&self) -> Option<OwnedSemaphorePermit> {
        Arc::clone(&self.handshakes).try_acquire_owned().ok()
    }

    /// Answers one connection too many with `head_and_body`, once its request has begun to arrive: an
    /// answer before it, or a close in the middle of it, reaches clients as a broken pipe in place of
    /// the reason. Where too many are being told so already, this one is not waited for.
    pub(crate) async fn turn_away(
        &self,
        mut stream: impl AsyncRead + AsyncWrite + Unpin,
        content_type: &str,
        body: &str,
    ) {
        let Ok(_leaving) = self.leaving.try_acquire() else {
            return;
        };
        let text = format!(
            "HTTP/1.1 429 Too Many Requests\r\nContent-Type: {content_type}\r\nRetry-After: {}\r\n\
             Content-Length: {}\r\nConnection: close\r\n\r\n{body}",
            TooMany::Connections.retry_after_s(),
            body.len()
        );
        let mut unread = [0; 4096];
        let _ = tokio::time::timeout(LEAVE_TIMEOUT, stream.read(&mut unread)).await;
        let answered = async {
            stream.write_all(text.as_bytes()).await?;
            stream.shutdown().await
        };
        // A client that does not take even this is not waited for.
        let _ = tokio::time::timeout(LEAVE_TIMEOUT, answered).await;
    }
}

/// A connection that counts, until dropped.
#[derive(Debug)]
pub struct Place {
    share: Arc<Share>,
    _connection: OwnedSemaphorePermit,
}

impl Place {
    /// Whose share it counts against.
    #[must_use]
    pub fn share(&self) -> &Arc<Share> {
        &self.share
    }

    /// Waits until the caller may have another large body in memory.
    pub(crate) async fn large_body(&self) -> Option<SemaphorePermit<'_>> {
        // Never closed, so always given.
        self.share.large_bodies.acquire().await.ok()
    }
}

/// A share is used up.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum TooMany {
    /// Connections.
    #[error("too many open connections: close some first")]
    Connections,
    /// Requests; the next one fits after so long.
    #[error("too many requests: wait a moment, and ask less often")]
    Requests(Duration),
}

impl TooMany {
    /// For `Retry-After`: whole seconds.
    #[must_use]
    pub fn retry_after_s(self) -> u64 {
        match self {
            Self::Connections => 1,
            Self::Requests(wait) => wait.as_secs() + u64::from(wait.subsec_nanos() > 0),
        }
    }
}

/// A token bucket, kept as the one time at which it will be full again.
#[derive(Debug)]
struct Bucket {
    /// What one request takes, in time to refill.
    each: Duration,
    /// What the whole bucket takes.
    whole: Duration,
    full_at: Duration,
}

impl Bucket {
    fn new(limits: config::Limits) -> Self {
        let each = Duration::from_secs(1) / limits.requests_per_s;
        Self {
            each,
            whole: each * limits.requests_burst,
            full_at: Duration::ZERO,
        }
    }

    fn take(&mut self, now: Duration) -> Result<(), Duration> {
        let full_at = self.full_at.max(now) + self.each;
        match (full_at - now).checked_sub(self.whole) {
            None | Some(Duration::ZERO) => {
                self.full_at = full_at;
                Ok(())
            }
            Some(wait) => Err(wait),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const EACH: config::Limits = config::Limits {
        connections_per_user: 2,
        requests_per_s: 10,
        requests_burst: 3,
    };
    const ADA: Who = Who::Uid(1001);
    const BEN: Who = Who::Uid(1002);

    fn ms(ms: u64) -> Duration {
        Duration::from_millis(ms)
    }

    #[test]
    fn a_burst_passes_and_then_the_rate() {
        let limits = Limits::new(EACH);
        let ada = limits.share(ADA, ms(0));
        for (now, expected) in [
            (1000, Ok(())),
            (1000, Ok(())),
            (1000, Ok(())),
            (1000, Err(100)),
            (1060, Err(40)),
            (1100, Ok(())),
            (1100, Err(100)),
            // Rest fills the burst and no more.
            (9000, Ok(())),
            (9000, Ok(())),
            (9000, Ok(())),
            (9000, Err(100)),
        ] {
            let expected = expected.map_err(|wait| TooMany::Requests(ms(wait)));
            assert_eq!(ada.request(ms(now)), expected, "at {now}");
        }
        assert_eq!(TooMany::Requests(ms(1001)).retry_after_s(), 2);
        assert_eq!(limits.share(BEN, ms(9000)).request(ms(9000)), Ok(()));
        let root = limits.share(Who::Root, ms(0));
        assert!((0..10_000).all(|_| root.request(ms(0)).is_ok()));
    }

    #[test]
    fn connections_count_until_they_are_dropped() {
        let limits = Limits::new(EACH);
        let enter = |who| limits.enter(who, ms(0));
        let (first, _second) = (enter(ADA).unwrap(), enter(ADA).unwrap());
        assert!(enter(ADA).is_err());
        assert!(enter(BEN).is_ok());
        drop(first);
        assert!(enter(ADA).is_ok());
    }

    #[test]
    fn callers_that_have_rested_are_forgotten_and_others_are_not() {
        let limits = Limits::new(EACH);
        for uid in 0..u32::try_from(SHARES_KEPT).unwrap() {
            limits.share(Who::Uid(uid), ms(0));
        }
        let held = limits.enter(Who::Uid(0), ms(0)).unwrap();
        limits.share(Who::Uid(1), ms(0)).request(ms(0)).unwrap();
        limits.share(Who::Unknown, ms(0));
        let kept = |who| limits.shares.lock().unwrap().of.contains_key(&who);
        assert!(kept(Who::Uid(0)) && kept(Who::Uid(1)) && !kept(Who::Uid(2)));
        drop(held);
    }

    #[test]
    fn one_machine_has_one_share() {
        let who = |text: &str| Who::address(text.parse().unwrap());
        assert_eq!(who("2001:db8::1"), who("2001:db8::ffff:0:1"));
        assert_ne!(who("2001:db8::1"), who("2001:db8:0:1::1"));
        assert_eq!(who("::ffff:192.0.2.1"), who("192.0.2.1"));
        assert_ne!(who("192.0.2.1"), who("192.0.2.2"));
    }
}
