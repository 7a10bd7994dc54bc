//! Balances and the rows they are decided on, read once per transaction.
//!
//! The books are the only code that touches the table `account`. They hold what a transaction has
//! read and changed, and write each changed balance once, at its end.

use std::collections::{HashMap, HashSet};

use plimsoll_core::admit::{Level, Owner, Path, TeamPath};
use plimsoll_core::dimension::{Amounts, Dimension, Limits};
use plimsoll_core::entity::{SYSTEM_ID, TeamId, UserId};
use plimsoll_core::quota::{Capacity, narrowed};
use plimsoll_core::units::{Bytes, MilliCpu};
use rusqlite::{Connection, OptionalExtension, params};
use uuid::Uuid;

use crate::error::{Result, StoreError};
use crate::records::{Host, Quota, Role, Team, TeamChoice, User};
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

/// A member's allotment and borrow limit; nothing for somebody who is not a member any more.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Place {
    pub(crate) allotment: Limits,
    pub(crate) borrow: Limits,
}

/// See the module.
pub(crate) struct Books<'c> {
    pub(crate) connection: &'c Connection,
    accounts: HashMap<String, Account>,
    dirty: HashSet<String>,
    before: Vec<(String, Account, bool)>,
    users: HashMap<UserId, User>,
    teams: HashMap<TeamId, Team>,
    quotas: HashMap<Uuid, Quota>,
    places: HashMap<(TeamId, UserId), Option<Place>>,
    hosts: HashMap<String, Host>,
    capacity: Option<Capacity>,
}

impl<'c> Books<'c> {
    pub(crate) fn new(connection: &'c Connection) -> Self {
        Self {
            connection,
            accounts: HashMap::new(),
            dirty: HashSet::new(),
            before: Vec::new(),
            users: HashMap::new(),
            teams: HashMap::new(),
            quotas: HashMap::new(),
            places: HashMap::new(),
            hosts: HashMap::new(),
            capacity: None,
        }
    }

    /// Forgets everything read. Only after [`flush`](Self::flush) or a rollback.
    pub(crate) fn forget(&mut self) {
        *self = Self::new(self.connection);
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
            self.accounts.insert(key, account);
        }
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
            let account = self.accounts[&key];
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
        if let Some(account) = self.accounts.get(key) {
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
        self.accounts.insert(key.to_owned(), account);
        Ok(account)
    }

    fn set_account(&mut self, key: String, account: Account) {
        let was_dirty = !self.dirty.insert(key.clone());
        let old = self
            .accounts
            .insert(key.clone(), account)
            .unwrap_or_default();
        self.before.push((key, old, was_dirty));
    }

    pub(crate) fn user(&mut self, id: UserId) -> Result<User> {
        if let Some(user) = self.users.get(&id) {
            return Ok(user.clone());
        }
        let user = rows::user_by_id(self.connection, id)?;
        self.users.insert(id, user.clone());
        Ok(user)
    }

    pub(crate) fn team(&mut self, id: TeamId) -> Result<Team> {
        if let Some(team) = self.teams.get(&id) {
            return Ok(team.clone());
        }
        let team = rows::team_by_id(self.connection, id)?;
        self.teams.insert(id, team.clone());
        Ok(team)
    }

    pub(crate) fn quota(&mut self, entity: Uuid) -> Result<Quota> {
        if let Some(quota) = self.quotas.get(&entity) {
            return Ok(quota.clone());
        }
        let quota = rows::quota(self.connection, entity)?;
        self.quotas.insert(entity, quota.clone());
        Ok(quota)
    }

    pub(crate) fn place(&mut self, team: TeamId, user: UserId) -> Result<Option<Place>> {
        if let Some(place) = self.places.get(&(team, user)) {
            return Ok(*place);
        }
        let place = self
            .connection
            .prepare_cached(
                "SELECT allotment, borrow FROM member WHERE team_id = ?1 AND user_id = ?2",
            )?
            .query_row(params![team.to_string(), user.to_string()], |row| {
                Ok(Place {
                    allotment: rows::parse(row, 0)?,
                    borrow: rows::parse(row, 1)?,
                })
            })
            .optional()?;
        self.places.insert((team, user), place);
        Ok(place)
    }

    pub(crate) fn host(&mut self, name: &str) -> Result<Host> {
        if let Some(host) = self.hosts.get(name) {
            return Ok(host.clone());
        }
        let host = rows::host(self.connection, name)?;
        self.hosts.insert(name.to_owned(), host.clone());
        Ok(host)
    }

    /// What all hosts have together.
    pub(crate) fn capacity(&mut self) -> Result<Capacity> {
        if let Some(capacity) = self.capacity {
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
        self.capacity = Some(capacity);
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
        let host = self.host(host)?;
        let system_quota = self.quota(SYSTEM_ID)?;
        let whole = self.capacity()?;
        let level = |quota: &Quota, name: &str, limits: Limits, reserved: Amounts| Level {
            entity: quota.entity,
            name: name.to_owned(),
            limits,
            reserved,
            mode: quota.mode,
            overcommit_permille: quota.overcommit_permille,
        };

        let share = Limits::UNLIMITED
            .with(
                Dimension::CpuPercent,
                system_quota.limits[Dimension::CpuPercent],
            )
            .with(
                Dimension::MemoryPercent,
                system_quota.limits[Dimension::MemoryPercent],
            );
        let host_reserved = self.account(&key::host(&host.name))?.reserved;
        let host_level = level(
            &system_quota,
            &host.name,
            narrowed(&share, host.capacity),
            host_reserved,
        );
        let system_reserved = self.account(key::SYSTEM)?.reserved;
        let system = level(
            &system_quota,
            "system",
            narrowed(&system_quota.limits, whole),
            system_reserved,
        );

        let owner = match team {
            None => {
                let quota = self.quota(user.id.0)?;
                let reserved = self.account(&key::user(user.id))?.reserved;
                Owner::User(level(
                    &quota,
                    &user.name,
                    narrowed(&quota.limits, whole),
                    reserved,
                ))
            }
            Some(team) => {
                let quota = self.quota(team.id.0)?;
                let account = self.account(&key::team(team.id))?;
                let place = self.place(team.id, user.id)?.unwrap_or(Place {
                    allotment: Limits::nothing(),
                    borrow: Limits::UNLIMITED,
                });
                Owner::Team(Box::new(TeamPath {
                    team: level(
                        &quota,
                        &team.name,
                        narrowed(&team.total, whole),
                        account.reserved,
                    ),
                    pool: team.pool,
                    overflow: account.overflow,
                    member: user.id.0,
                    member_name: user.name.clone(),
                    allotment: place.allotment,
                    member_reserved: self.account(&key::member(team.id, user.id))?.reserved,
                    borrow_limit: place.borrow,
                }))
            }
        };
        Ok(Path {
            host: host_level,
            system,
            owner,
        })
    }

    /// The path of a claim of nobody in particular in `team`: a member whose allotment bounds nothing.
    pub(crate) fn team_path(&mut self, team: &Team, host: &str) -> Result<Path> {
        let nobody = User {
            id: UserId(Uuid::nil()),
            name: format!("team {}", team.name),
            email: None,
            os_uid: None,
            role: Role::Member,
            default_team: None,
            suspended: false,
            draining: false,
            created_ms: 0,
        };
        let mut path = self.path(&nobody, Some(team), host)?;
        if let Owner::Team(place) = &mut path.owner {
            place.allotment = Limits::UNLIMITED;
        }
        Ok(path)
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

fn moved(balance: &Amounts, before: &Amounts, after: &Amounts, key: &str) -> Result<Amounts> {
    balance
        .checked_sub(before)
        .and_then(|rest| rest.checked_add(after))
        .ok_or_else(|| {
            StoreError::Corrupt(format!("the balance of {key} does not hold its charges"))
        })
}
