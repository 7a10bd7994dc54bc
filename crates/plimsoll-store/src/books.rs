//! Balances and the rows they are decided on, read once per transaction.
//!
//! The books are the only code that touches the table `account`. They hold what a transaction has
//! read and changed, and write each changed balance once, at its end.

use std::cell::RefCell;
use std::collections::{HashMap, HashSet};

use plimsoll_core::admit::{Level, Owner, Path, TeamPath};
use plimsoll_core::dimension::{Amounts, Dimension, Limits};
use plimsoll_core::entity::{SYSTEM_ID, TeamId, UserId};
use plimsoll_core::quota::{Additions, Capacity, narrowed, with_additions};
use plimsoll_core::units::{Bytes, MilliCpu};
use rusqlite::{Connection, OptionalExtension, params};
use uuid::Uuid;

use crate::changes::Change;
use crate::error::{Result, StoreError};
use crate::records::{Host, Quota, Team, TeamChoice, User};
use crate::rows;

/// A balance.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub(crate) struct Account {
    pub(crate) reserved: Amounts,
    pub(crate) overflow: Amounts,
}

/// Keys of the table `account`.
pub(crate) mod key {
    use plimsoll_core::entity::{TeamId, UserId};

    pub(crate) const SYSTEM: &str = "system";

    pub(crate) fn host(name: &str) -> String {
        format!("host:{name}")
    }
    pub(crate) fn user(user: UserId) -> String {
        format!("user:{user}")
    }
    pub(crate) fn team(team: TeamId) -> String {
        format!("team:{team}")
    }
    pub(crate) fn member(team: TeamId, user: UserId) -> String {
        format!("member:{team}:{user}")
    }
}

/// A member's allotment, grants included, and borrow limit; nothing for somebody who is not a member any more.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Place {
    pub(crate) allotment: Limits,
    pub(crate) borrow: Limits,
}

/// What was read, and holds until the file changes under another connection's hands.
///
/// The writer keeps it from transaction to transaction: nobody else writes the file while the data
/// directory is locked, and what a job changes it changes here too or makes the books forget. Readers
/// keep it from snapshot to snapshot. Both drop it when SQLite says that somebody else wrote.
#[derive(Default)]
pub(crate) struct Cache {
    version: i64,
    accounts: HashMap<String, Account>,
    users: HashMap<UserId, User>,
    teams: HashMap<TeamId, Team>,
    quotas: HashMap<Uuid, Quota>,
    places: HashMap<(TeamId, UserId), Option<Place>>,
    hosts: HashMap<String, Host>,
    capacity: Option<Capacity>,
}

/// A cache that outgrows this many balances starts anew.
const CACHED_MAX: usize = 10_000;

impl Cache {
    fn len(&self) -> usize {
        self.accounts.len() + self.users.len() + self.places.len()
    }
}

/// See the module.
pub(crate) struct Books<'c> {
    pub(crate) connection: &'c Connection,
    cache: Cache,
    dirty: HashSet<String>,
    before: Vec<(String, Account, bool)>,
    /// What the transaction changed, and how much of it is of jobs that are done.
    noted: RefCell<Vec<Change>>,
    settled: usize,
}

impl<'c> Books<'c> {
    /// Books over what was read before; [`refresh`](Self::refresh) them before use.
    pub(crate) fn with(connection: &'c Connection, cache: Cache) -> Self {
        Self {
            connection,
            cache,
            dirty: HashSet::new(),
            before: Vec::new(),
            noted: RefCell::default(),
            settled: 0,
        }
    }

    /// What was read, for the next transaction. Only after its changes are committed.
    pub(crate) fn into_cache(self) -> Cache {
        debug_assert!(
            self.dirty.is_empty(),
            "balances are written before they are kept"
        );
        if self.cache.len() > CACHED_MAX {
            Cache::default()
        } else {
            self.cache
        }
    }

    /// Begins the transaction's snapshot and drops what another connection has changed since it was
    /// read.
    pub(crate) fn refresh(&mut self) -> rusqlite::Result<()> {
        let version: i64 = self
            .connection
            .prepare_cached("PRAGMA data_version")?
            .query_row([], |row| row.get(0))?;
        if version != self.cache.version {
            self.cache = Cache {
                version,
                ..Cache::default()
            };
        }
        Ok(())
    }

    /// Forgets everything read. Only after [`flush`](Self::flush) or a rollback.
    pub(crate) fn forget(&mut self) {
        self.cache = Cache {
            version: self.cache.version,
            ..Cache::default()
        };
        self.dirty.clear();
        self.before.clear();
    }

    /// The job at hand succeeded: its changes can no longer be undone alone.
    pub(crate) fn keep(&mut self) {
        self.before.clear();
    }

    /// Takes back the balance changes of the job at hand.
    pub(crate) fn undo(&mut self) {
        for (key, account, was_dirty) in self.before.drain(..).rev() {
            if !was_dirty {
                self.dirty.remove(&key);
            }
            self.cache.accounts.insert(key, account);
        }
    }

    /// Notes a change, to be told once it is committed.
    pub(crate) fn note(&self, change: Change) {
        self.noted.borrow_mut().push(change);
    }

    /// The job at hand is done; what it noted is forgotten unless it is kept.
    pub(crate) fn settle_noted(&mut self, kept: bool) {
        let noted = self.noted.get_mut();
        if !kept {
            noted.truncate(self.settled);
        }
        self.settled = noted.len();
    }

    /// What was noted. Only after it is committed.
    pub(crate) fn take_noted(&mut self) -> Vec<Change> {
        self.noted.take()
    }

    /// Writes every changed balance.
    pub(crate) fn flush(&mut self) -> rusqlite::Result<()> {
        if self.dirty.is_empty() {
            return Ok(());
        }
        let mut write = self.connection.prepare_cached(
            "INSERT INTO account (key, reserved, overflow) VALUES (?1, ?2, ?3)
             ON CONFLICT (key) DO UPDATE SET reserved = ?2, overflow = ?3",
        )?;
        for key in self.dirty.drain() {
            let account = self.cache.accounts[&key];
            write.execute(params![
                key,
                rows::json(&account.reserved),
                rows::json(&account.overflow)
            ])?;
        }
        self.before.clear();
        Ok(())
    }

    pub(crate) fn account(&mut self, key: &str) -> Result<Account> {
        if let Some(account) = self.cache.accounts.get(key) {
            return Ok(*account);
        }
        let account = self
            .connection
            .prepare_cached("SELECT reserved, overflow FROM account WHERE key = ?1")?
            .query_row([key], |row| {
                Ok(Account {
                    reserved: rows::parse(row, 0)?,
                    overflow: rows::parse(row, 1)?,
                })
            })
            .optional()?
            .unwrap_or_default();
        self.cache.accounts.insert(key.to_owned(), account);
        Ok(account)
    }

    fn set_account(&mut self, key: String, account: Account) {
        let was_dirty = !self.dirty.insert(key.clone());
        let old = self
            .cache
            .accounts
            .insert(key.clone(), account)
            .unwrap_or_default();
        self.before.push((key, old, was_dirty));
    }

    pub(crate) fn user(&mut self, id: UserId) -> Result<User> {
        if let Some(user) = self.cache.users.get(&id) {
            return Ok(user.clone());
        }
        let user = rows::user_by_id(self.connection, id)?;
        self.cache.users.insert(id, user.clone());
        Ok(user)
    }

    pub(crate) fn team(&mut self, id: TeamId) -> Result<Team> {
        if let Some(team) = self.cache.teams.get(&id) {
            return Ok(team.clone());
        }
        let team = rows::team_by_id(self.connection, id)?;
        self.cache.teams.insert(id, team.clone());
        Ok(team)
    }

    pub(crate) fn quota(&mut self, entity: Uuid) -> Result<Quota> {
        if let Some(quota) = self.cache.quotas.get(&entity) {
            return Ok(quota.clone());
        }
        let quota = rows::quota(self.connection, entity)?;
        self.cache.quotas.insert(entity, quota.clone());
        Ok(quota)
    }

    pub(crate) fn place(&mut self, team: TeamId, user: UserId) -> Result<Option<Place>> {
        if let Some(place) = self.cache.places.get(&(team, user)) {
            return Ok(*place);
        }
        let place = self
            .connection
            .prepare_cached(
                "SELECT allotment, borrow, granted FROM member WHERE team_id = ?1 AND user_id = ?2",
            )?
            .query_row(params![team.to_string(), user.to_string()], |row| {
                let granted: Additions = rows::parse(row, 2)?;
                Ok(Place {
                    allotment: with_additions(&rows::parse(row, 0)?, &granted),
                    borrow: rows::parse(row, 1)?,
                })
            })
            .optional()?;
        self.cache.places.insert((team, user), place);
        Ok(place)
    }

    pub(crate) fn host(&mut self, name: &str) -> Result<Host> {
        if let Some(host) = self.cache.hosts.get(name) {
            return Ok(host.clone());
        }
        let host = rows::host(self.connection, name)?;
        self.cache.hosts.insert(name.to_owned(), host.clone());
        Ok(host)
    }

    /// What all hosts have together.
    pub(crate) fn capacity(&mut self) -> Result<Capacity> {
        if let Some(capacity) = self.cache.capacity {
            return Ok(capacity);
        }
        let (cpu, memory): (i64, i64) = self
            .connection
            .prepare_cached("SELECT coalesce(sum(cpu), 0), coalesce(sum(memory), 0) FROM host")?
            .query_row([], |row| Ok((row.get(0)?, row.get(1)?)))?;
        let capacity = Capacity {
            cpu: MilliCpu(cpu.unsigned_abs()),
            memory: Bytes(memory.unsigned_abs()),
        };
        self.cache.capacity = Some(capacity);
        Ok(capacity)
    }

    /// The team a claim is charged to.
    pub(crate) fn team_of(&mut self, user: &User, choice: TeamChoice) -> Result<Option<Team>> {
        let team = match choice {
            TeamChoice::NoTeam => return Ok(None),
            TeamChoice::Default => match user.default_team {
                Some(team) => team,
                None => return Ok(None),
            },
            TeamChoice::Team(team) => team,
        };
        let team = self.team(team)?;
        if self.place(team.id, user.id)?.is_none() {
            return Err(StoreError::Forbidden(format!(
                "{} is not a member of team {}",
                user.name, team.name
            )));
        }
        Ok(Some(team))
    }

    /// Every level that is asked about a claim of `user` in `team` on `host`. Somebody who left the
    /// team keeps a place with an allotment of nothing, so that what they still hold can be judged.
    pub(crate) fn path(&mut self, user: &User, team: Option<&Team>, host: &str) -> Result<Path> {
        let (host, system) = self.machine(host)?;
        let owner = match team {
            None => Owner::User(self.user_level(user)?),
            Some(team) => {
                let place = self.place(team.id, user.id)?.unwrap_or(Place {
                    allotment: Limits::nothing(),
                    borrow: Limits::UNLIMITED,
                });
                let mut path = self.team_place(team)?;
                path.member = user.id.0;
                path.member_name.clone_from(&user.name);
                path.allotment = place.allotment;
                path.member_reserved = self.account(&key::member(team.id, user.id))?.reserved;
                path.borrow_limit = place.borrow;
                Owner::Team(Box::new(path))
            }
        };
        Ok(Path {
            host,
            system,
            owner,
        })
    }

    /// The path of a claim of nobody in particular in `team`: a member whose allotment bounds nothing.
    pub(crate) fn team_path(&mut self, team: &Team, host: &str) -> Result<Path> {
        let (host, system) = self.machine(host)?;
        Ok(Path {
            host,
            system,
            owner: Owner::Team(Box::new(self.team_place(team)?)),
        })
    }

    /// A host's share of the system's percentages, and the whole system.
    pub(crate) fn machine(&mut self, host: &str) -> Result<(Level, Level)> {
        let host = self.host(host)?;
        let quota = self.quota(SYSTEM_ID)?;
        let whole = self.capacity()?;
        let share = [Dimension::CpuPercent, Dimension::MemoryPercent]
            .into_iter()
            .fold(Limits::UNLIMITED, |share, d| share.with(d, quota.limits[d]));
        let on_host = self.account(&key::host(&host.name))?.reserved;
        let in_all = self.account(key::SYSTEM)?.reserved;
        let share = narrowed(&share, host.capacity);
        Ok((
            level(&quota, &host.name, share, on_host),
            level(&quota, "system", narrowed(&quota.limits, whole), in_all),
        ))
    }

    /// A user's own quota and what they charge outside teams.
    pub(crate) fn user_level(&mut self, user: &User) -> Result<Level> {
        let quota = self.quota(user.id.0)?;
        let limits = narrowed(&quota.effective(), self.capacity()?);
        let reserved = self.account(&key::user(user.id))?.reserved;
        Ok(level(&quota, &user.name, limits, reserved))
    }

    /// A team, seen by nobody in particular: a member whose allotment bounds nothing.
    pub(crate) fn team_place(&mut self, team: &Team) -> Result<TeamPath> {
        let quota = self.quota(team.id.0)?;
        let limits = narrowed(&team.total, self.capacity()?);
        let account = self.account(&key::team(team.id))?;
        Ok(TeamPath {
            team: level(&quota, &team.name, limits, account.reserved),
            pool: team.pool,
            overflow: account.overflow,
            member: Uuid::nil(),
            member_name: format!("team {}", team.name),
            allotment: Limits::UNLIMITED,
            member_reserved: Amounts::ZERO,
            borrow_limit: Limits::UNLIMITED,
        })
    }

    /// Moves a charge of `user` in `team` on `host` from `before` to `after` on every balance it is
    /// part of.
    pub(crate) fn charge(
        &mut self,
        user: UserId,
        team: Option<TeamId>,
        host: &str,
        before: &Amounts,
        after: &Amounts,
    ) -> Result<()> {
        if before == after {
            return Ok(());
        }
        let mut keys = vec![key::SYSTEM.to_owned(), key::host(host)];
        match team {
            None => keys.push(key::user(user)),
            Some(team) => {
                let permille = self.quota(team.0)?.overcommit_permille;
                let allotment = self
                    .place(team, user)?
                    .map_or(Limits::nothing(), |p| p.allotment);
                let allotment = allotment.map(|_, limit| limit.times_permille(permille));
                let member_key = key::member(team, user);
                let mut member = self.account(&member_key)?;
                let above_before = member.reserved.above(&allotment);
                member.reserved = moved(&member.reserved, before, after, &member_key)?;
                let above_after = member.reserved.above(&allotment);
                self.set_account(member_key, member);

                let team_key = key::team(team);
                let mut account = self.account(&team_key)?;
                account.reserved = moved(&account.reserved, before, after, &team_key)?;
                account.overflow =
                    moved(&account.overflow, &above_before, &above_after, &team_key)?;
                self.set_account(team_key, account);
            }
        }
        for key in keys {
            let mut account = self.account(&key)?;
            account.reserved = moved(&account.reserved, before, after, &key)?;
            self.set_account(key, account);
        }
        Ok(())
    }

    /// Sets a team's overflow anew after its allotments, members or factor changed.
    pub(crate) fn set_overflow(&mut self, team: TeamId, overflow: Amounts) -> Result<()> {
        let key = key::team(team);
        let mut account = self.account(&key)?;
        account.overflow = overflow;
        self.set_account(key, account);
        Ok(())
    }
}

fn level(quota: &Quota, name: &str, limits: Limits, reserved: Amounts) -> Level {
    Level {
        entity: quota.entity,
        name: name.to_owned(),
        limits,
        reserved,
        mode: quota.mode,
        overcommit_permille: quota.overcommit_permille,
    }
}

fn moved(balance: &Amounts, before: &Amounts, after: &Amounts, key: &str) -> Result<Amounts> {
    balance
        .checked_sub(before)
        .and_then(|rest| rest.checked_add(after))
        .ok_or_else(|| {
            StoreError::Corrupt(format!("the balance of {key} does not hold its charges"))
        })
}
