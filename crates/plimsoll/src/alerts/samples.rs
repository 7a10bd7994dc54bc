//! What there is to see: every subject's value now, for each rule.

use plimsoll_core::alert::{Rule, Watched};
use plimsoll_core::entity::{EntityKind, SYSTEM_ID};
use plimsoll_core::metric::Metric;
use plimsoll_core::notice::About;
use plimsoll_core::quota::Mode;
use plimsoll_core::violation::ViolationKind;
use plimsoll_core::{Amounts, Dimension, LevelKind, Limits};
use plimsoll_store::{Behind, Member, Quota, Reservation, Standing, StoreError, Team, User};

use super::Sample;
use crate::meter::{Usage, Whose};
use crate::state::App;
use crate::tasks::history::values;

/// From here on it is worth looking for who is behind it, thousandths of a limit.
const NEAR_PERMILLE: u64 = 700;
/// How many are named.
const BY_MAX: usize = 3;
/// The most open violations that are looked at.
const VIOLATIONS_MAX: u32 = 10_000;

/// Everybody and what they hold, read once for all rules.
#[derive(Debug)]
pub struct Picture {
    own: Vec<(User, Standing, Quota)>,
    teams: Vec<(Team, Standing, Quota)>,
    members: Vec<Member>,
    system: (Standing, Quota),
    live: Vec<Reservation>,
}

impl Picture {
    /// As it is now.
    ///
    /// # Errors
    /// When the ledger cannot be read.
    pub async fn take(app: &App) -> Result<Self, StoreError> {
        let store = &app.store;
        let mut own = Vec::new();
        for user in store.users().await? {
            // Somebody may be deleted meanwhile.
            if let Ok(standing) = store.standing(EntityKind::User, user.id.0) {
                let quota = store.quota(user.id.0)?;
                own.push((user, standing, quota));
            }
        }
        let mut teams = Vec::new();
        for team in store.teams().await? {
            if let Ok(standing) = store.standing(EntityKind::Team, team.id.0) {
                let quota = store.quota(team.id.0)?;
                teams.push((team, standing, quota));
            }
        }
        let system = store.standing(EntityKind::System, SYSTEM_ID)?;
        Ok(Self {
            own,
            teams,
            members: store.members(None, None).await?,
            system: (system, store.quota(SYSTEM_ID)?),
            live: store.live_reservations().await?,
        })
    }

    /// Every sample for a rule.
    ///
    /// # Errors
    /// When the ledger cannot be read.
    pub async fn samples(&self, app: &App, rule: &Rule) -> Result<Vec<Sample>, StoreError> {
        let mut found = match rule.metric {
            Watched::Quota => self.quotas(app),
            Watched::Pool => self.pools(),
            Watched::Promised => self.promised(app),
            Watched::Unmanaged => unmanaged(app),
            Watched::Trouble => trouble(app),
            Watched::Disk => disk(app).into_iter().collect(),
            Watched::Violation => violations(app).await?,
            Watched::Measured(metric) => self.measured(app, metric),
        };
        let dimension = rule.dimension.map(Dimension::name);
        found.retain(|sample| {
            rule.level.is_none_or(|level| level == sample.about.kind)
                && dimension.is_none_or(|name| name == sample.part)
        });
        Ok(found)
    }

    fn quotas(&self, app: &App) -> Vec<Sample> {
        let mut found = Vec::new();
        for (user, standing, quota) in &self.own {
            // What is measured of somebody in teams counts there, too.
            let alone = !self.members.iter().any(|m| m.user == user.id);
            let used = app.meter.usage(Whose::User(user.id));
            let used = if alone {
                measured(&used)
            } else {
                Amounts::ZERO
            };
            let about = About::user(user.id, user.name.clone());
            self.shares(
                &mut found,
                quota,
                &about,
                (&standing.limits, standing.reserved, used),
                "quota",
            );
        }
        for member in &self.members {
            let Some((_, _, quota)) = self.teams.iter().find(|(t, ..)| t.id == member.team) else {
                continue;
            };
            let about = About::member(member.team, member.user, member.user_name.clone());
            let whole = format!("allotment in team {}", member.team_name);
            let held = (&member.effective(), member.reserved, Amounts::ZERO);
            self.shares(&mut found, quota, &about, held, &whole);
        }
        for (team, standing, quota) in &self.teams {
            let used = measured(&app.meter.usage(Whose::Team(team.id)));
            let about = About::team(team.id, team.name.clone());
            self.shares(
                &mut found,
                quota,
                &about,
                (&standing.limits, standing.reserved, used),
                "limit",
            );
        }
        let (standing, quota) = &self.system;
        let used = measured(&app.meter.usage(Whose::System));
        let about = About::system(app.lease.host.clone());
        self.shares(
            &mut found,
            quota,
            &about,
            (&standing.limits, standing.reserved, used),
            "limit",
        );
        found
    }

    /// What is charged or used against each limit that is bounded.
    fn shares(
        &self,
        found: &mut Vec<Sample>,
        quota: &Quota,
        about: &About,
        (limits, charged, used): (&Limits, Amounts, Amounts),
        whole: &str,
    ) {
        if quota.mode == Mode::Off {
            return;
        }
        for d in Dimension::CHARGED {
            let held = charged.get(d).max(used.get(d));
            let Some(limit) = limits[d].at_most().filter(|limit| *limit > 0) else {
                continue;
            };
            let value = permille(held, limit);
            let by = match value >= NEAR_PERMILLE {
                true => self.behind(about, d),
                false => Vec::new(),
            };
            found.push(Sample {
                about: about.clone(),
                part: d.name().to_owned(),
                value,
                title: format!("{d} at {} % of the {whole}", value / 10),
                amount: format!("{} of {}", d.show(held), d.show(limit)),
                by,
            });
        }
    }

    /// Whose containers are charged most.
    fn behind(&self, about: &About, d: Dimension) -> Vec<String> {
        let theirs = |row: &&Reservation| match about.kind {
            EntityKind::System => true,
            EntityKind::Team => row.team.is_some_and(|team| team.0 == about.id),
            EntityKind::User => row.user.0 == about.id && row.team == about.team,
        };
        let mut held: Vec<&Reservation> = self.live.iter().filter(theirs).collect();
        held.sort_by_key(|row| std::cmp::Reverse(row.charge().get(d)));
        let some = held.into_iter().take(BY_MAX);
        let some = some.filter(|row| row.charge().get(d) > 0);
        some.filter_map(|row| {
            let name = row.container_name.as_ref()?;
            Some(match about.kind {
                EntityKind::User => name.clone(),
                EntityKind::Team | EntityKind::System => format!("{name} of {}", row.user_name),
            })
        })
        .collect()
    }

    fn pools(&self) -> Vec<Sample> {
        let mut found = Vec::new();
        for (team, standing, quota) in &self.teams {
            if quota.mode == Mode::Off {
                continue;
            }
            for d in Dimension::CHARGED {
                let lent = standing.overflow.get(d);
                let Some(pool) = team.pool[d].at_most().filter(|pool| *pool > 0) else {
                    continue;
                };
                let about = About::team(team.id, team.name.clone());
                found.push(Sample {
                    by: self.behind(&about, d),
                    about,
                    part: d.name().to_owned(),
                    value: permille(lent, pool),
                    title: format!("nothing of the pool's {d} is left"),
                    amount: format!("{} of {} lent", d.show(lent), d.show(pool)),
                });
            }
        }
        found
    }

    /// What quotas promise in sum, against what this host has and may be overcommitted.
    fn promised(&self, app: &App) -> Vec<Sample> {
        let own = self.own.iter().map(|(_, standing, _)| &standing.limits);
        let teams = self.teams.iter().map(|(_, standing, _)| &standing.limits);
        let all: Vec<&Limits> = own.chain(teams).collect();
        let overcommit = u64::from(self.system.1.overcommit_permille);
        let has = [
            (Dimension::Cpu, app.capacity.cpu.0),
            (Dimension::Memory, app.capacity.memory.0),
        ];
        let sample = |(d, has): (Dimension, u64)| {
            let has = has.saturating_mul(overcommit) / 1000;
            let sum = all.iter().filter_map(|limits| limits[d].at_most());
            let sum = sum.fold(0u64, u64::saturating_add);
            Sample {
                about: About::system(app.lease.host.clone()),
                part: d.name().to_owned(),
                value: permille(sum, has),
                title: format!("quotas promise more {d} than there is"),
                amount: format!("{} of {} promised", d.show(sum), d.show(has)),
                by: Vec::new(),
            }
        };
        has.into_iter().map(sample).collect()
    }

    fn measured(&self, app: &App, metric: Metric) -> Vec<Sample> {
        let mut found = Vec::new();
        let users = self.own.iter().map(|(user, standing, _)| {
            let about = About::user(user.id, user.name.clone());
            (Whose::User(user.id), about, standing)
        });
        let teams = self.teams.iter().map(|(team, standing, _)| {
            let about = About::team(team.id, team.name.clone());
            (Whose::Team(team.id), about, standing)
        });
        let about = About::system(app.lease.host.clone());
        let system = (Whose::System, about, &self.system.0);
        for (whose, about, standing) in users.chain(teams).chain([system]) {
            let value = match metric {
                Metric::CpuReserved => Some(standing.reserved.get(Dimension::Cpu)),
                Metric::MemoryReserved => Some(standing.reserved.get(Dimension::Memory)),
                _ => values(&app.meter.usage(whose)).find_map(|(m, v)| (m == metric).then_some(v)),
            };
            let Some(value) = value else { continue };
            let people = value as f64 / metric.scale() as f64;
            found.push(Sample {
                about,
                part: metric.name().to_owned(),
                value,
                title: format!("{} is {people}", metric.name()),
                amount: people.to_string(),
                by: Vec::new(),
            });
        }
        found
    }
}

/// Thousandths; as many as fit.
fn permille(part: u64, whole: u64) -> u64 {
    let permille = u128::from(part) * 1000 / u128::from(whole.max(1));
    u64::try_from(permille).unwrap_or(u64::MAX)
}

/// What is measured of what is charged.
fn measured(usage: &Usage) -> Amounts {
    Amounts::ZERO
        .with(Dimension::Cpu, usage.cpu_milli)
        .with(Dimension::Memory, usage.memory_bytes)
        .with(Dimension::Storage, usage.storage_bytes.unwrap_or(0))
        .with(Dimension::Pids, usage.pids)
}

fn unmanaged(app: &App) -> Vec<Sample> {
    let strangers = app.meter.strangers();
    let mut by: Vec<String> = strangers.iter().map(|s| s.name.clone()).collect();
    by.truncate(10);
    vec![Sample {
        about: About::system(app.lease.host.clone()),
        part: "containers".to_owned(),
        value: strangers.len() as u64,
        title: "containers run past Plimsoll".to_owned(),
        amount: strangers.len().to_string(),
        by,
    }]
}

fn trouble(app: &App) -> Vec<Sample> {
    let tasks = app.tasks.all().into_iter();
    tasks
        .map(|(name, status)| Sample {
            about: About::system(app.lease.host.clone()),
            part: name.to_owned(),
            value: u64::from(status.outcome.is_err()),
            title: format!("the task {name} fails"),
            amount: status.outcome.err().unwrap_or_else(|| "works".to_owned()),
            by: Vec::new(),
        })
        .collect()
}

/// How full the disk with the ledger is.
fn disk(app: &App) -> Option<Sample> {
    let disk = rustix::fs::statvfs(&app.config.data_dir).ok()?;
    let value = 1000 - permille(disk.f_bavail, disk.f_blocks).min(1000);
    Some(Sample {
        about: About::system(app.lease.host.clone()),
        part: "disk".to_owned(),
        value,
        title: format!("the disk with the ledger is {} % full", value / 10),
        amount: format!(
            "{} left",
            Dimension::Storage.show(disk.f_bavail.saturating_mul(disk.f_frsize))
        ),
        by: Vec::new(),
    })
}

fn names(behind: Vec<Behind>) -> Vec<String> {
    let names = behind.into_iter().map(|b| b.container);
    names.filter(|name| !name.is_empty()).take(BY_MAX).collect()
}

/// Limits that are exceeded; what the kernel holds at its cap is not.
async fn violations(app: &App) -> Result<Vec<Sample>, StoreError> {
    let open = app.store.violations(None, VIOLATIONS_MAX).await?;
    let over = |kind| matches!(kind, ViolationKind::Reserved | ViolationKind::Used);
    let open = open.into_iter().filter(|v| over(v.kind));
    Ok(open
        .map(|v| {
            let about = match LevelKind::from_name(&v.level) {
                Some(LevelKind::Team | LevelKind::Pool) => {
                    About::team(plimsoll_core::entity::TeamId(v.entity), v.name)
                }
                Some(LevelKind::User | LevelKind::Member) => {
                    About::user(plimsoll_core::entity::UserId(v.entity), v.name)
                }
                Some(LevelKind::Host | LevelKind::System) | None => About::system(v.name),
            };
            let (d, level) = (v.dimension, &v.level);
            Sample {
                about,
                part: d.name().to_owned(),
                value: 1,
                title: format!("{d} is over the limit of the {level}"),
                amount: format!(
                    "{} {} of {}",
                    d.show(v.current),
                    v.kind.name(),
                    d.show(v.limit)
                ),
                by: names(v.behind),
            }
        })
        .collect())
}
