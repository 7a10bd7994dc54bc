//! Budgets: what an entity uses up in a day, a week or a month, from where the period began.
//!
//! The totals that are measured never go back, so a budget is the difference to what they were when its
//! period began. A period that begins while the server is away begins when it is back.

use std::collections::BTreeMap;

use jiff::civil::{Date, Time};
use jiff::tz::TimeZone;
use jiff::{Timestamp, ToSpan as _};
use plimsoll_core::admit::LevelKind;
use plimsoll_core::budget::{BUDGETS, Period, Used, limit, period, tells};
use plimsoll_core::dimension::{Dimension, Limits};
use plimsoll_core::entity::{EntityKind, SYSTEM_ID, TeamId, UserId};
use plimsoll_core::notice::{About, Event, EventKind, Severity};
use plimsoll_core::quota::Mode;
use plimsoll_store::{
    Budget, Measured, Quota, Reservation, StoreError, ViolationFilter, ViolationKind,
};
use uuid::Uuid;

use crate::clock::in_seconds;
use crate::meter::{Usage, Whose};
use crate::state::App;

/// A budget and how it stands.
#[derive(Debug, Clone, Copy)]
pub struct Account {
    /// In its period.
    pub budget: Budget,
    /// How much there is, in ledger units.
    pub limit: u64,
    /// How much of it is used.
    pub used: u64,
    /// When nothing will be left, as it is used now, Unix milliseconds; `None` where that is not before the
    /// next period.
    pub lasts_until_ms: Option<i64>,
}

/// The budgets of an entity. One whose period is over has begun anew.
fn accounts(
    quota: &Quota,
    limits: &Limits,
    known: &BTreeMap<(Uuid, Dimension), Budget>,
    usage: &Usage,
    now_ms: i64,
) -> Vec<Account> {
    let (total, each_s) = (in_all(usage), in_a_second(usage));
    let account = |d: Dimension| {
        let limit = limit(d, limits[d].at_most())?;
        // What nobody gave a team is not taken from it.
        if quota.kind == EntityKind::Team && limit == 0 {
            return None;
        }
        let known = known.get(&(quota.entity, d)).copied();
        let total_now = total.amount(d);
        let budget = match known.filter(|b| now_ms < b.until_ms) {
            Some(budget) => budget,
            None => begin(quota, d, total_now, now_ms)?,
        };
        let used = total_now.saturating_sub(budget.mark);
        let lasts_s = each_s.lasts_s(d, limit.saturating_sub(used));
        let ms = lasts_s.and_then(|s| i64::try_from(s.saturating_mul(1000)).ok());
        let lasts_until_ms = ms.map(|ms| now_ms.saturating_add(ms));
        Some(Account {
            budget,
            limit,
            used,
            lasts_until_ms: lasts_until_ms.filter(|ms| *ms < budget.until_ms),
        })
    };
    BUDGETS.into_iter().filter_map(account).collect()
}

const fn in_all(usage: &Usage) -> Used {
    Used {
        runtime_ms: usage.total_runtime_ms,
        cpu_ns: usage.total_cpu_ns,
        memory_byte_ms: usage.total_memory_byte_ms,
        transfer_bytes: usage
            .total_received_bytes
            .saturating_add(usage.total_sent_bytes),
    }
}

fn in_a_second(usage: &Usage) -> Used {
    Used {
        runtime_ms: if usage.containers > 0 { 1000 } else { 0 },
        cpu_ns: usage.cpu_milli * 1_000_000,
        memory_byte_ms: u128::from(usage.memory_bytes) * 1000,
        transfer_bytes: usage.flows.received + usage.flows.sent,
    }
}

fn begin(quota: &Quota, dimension: Dimension, mark: u64, now_ms: i64) -> Option<Budget> {
    let zone = quota.time_zone.as_deref();
    let zone = zone.and_then(|name| TimeZone::get(name).ok());
    let zone = zone.unwrap_or(TimeZone::UTC);
    let (from_ms, until_ms) = span(period(dimension)?, now_ms, &zone)?;
    Some(Budget {
        entity: quota.entity,
        dimension,
        from_ms,
        until_ms,
        mark,
        told: 0,
    })
}

/// From when to when a period is, by the midnights of a time zone.
fn span(period: Period, now_ms: i64, zone: &TimeZone) -> Option<(i64, i64)> {
    let now = Timestamp::from_millisecond(now_ms).ok()?;
    let today = zone.to_datetime(now).date();
    let (from, length) = match period {
        Period::Day => (today, 1.day()),
        Period::Week => {
            let days = i64::from(today.weekday().to_monday_zero_offset());
            (today.checked_sub(days.days()).ok()?, 1.week())
        }
        Period::Month => (today.first_of_month(), 1.month()),
    };
    let midnight = |day: Date| {
        let at = zone.to_timestamp(day.to_datetime(Time::midnight())).ok()?;
        Some(at.as_millisecond())
    };
    Some((midnight(from)?, midnight(from.checked_add(length).ok()?)?))
}

fn by_key(all: Vec<Budget>) -> BTreeMap<(Uuid, Dimension), Budget> {
    let keyed = all.into_iter().map(|b| ((b.entity, b.dimension), b));
    keyed.collect()
}

/// How the budgets of an entity stand.
///
/// # Errors
/// When the ledger cannot be read.
pub async fn of(app: &App, quota: &Quota, limits: &Limits) -> Result<Vec<Account>, StoreError> {
    let whose = match quota.kind {
        EntityKind::System => Whose::System,
        EntityKind::Team => Whose::Team(TeamId(quota.entity)),
        EntityKind::User => Whose::User(UserId(quota.entity)),
    };
    let known = by_key(app.store.budgets(Some(quota.entity)).await?);
    let usage = app.meter.usage(whose);
    let now_ms = app.clock.now_ms();
    Ok(accounts(quota, limits, &known, &usage, now_ms))
}

/// Holds what was used against every budget: begins periods, tells whose is nearly used up, opens and
/// closes violations.
///
/// # Errors
/// When the ledger cannot be read or written.
pub async fn follow(app: &App) -> Result<(), StoreError> {
    let now_ms = app.clock.now_ms();
    let known = by_key(app.store.budgets(None).await?);
    let (mut begun, mut measured, mut tell) = (Vec::new(), Vec::new(), Vec::new());
    for (whose, usage) in &app.meter.last().entities {
        let (level, kind, entity) = match whose {
            Whose::System => (LevelKind::System, EntityKind::System, SYSTEM_ID),
            Whose::Team(team) => (LevelKind::Team, EntityKind::Team, team.0),
            Whose::User(user) => (LevelKind::User, EntityKind::User, user.0),
            Whose::Unmanaged | Whose::Project(_) => continue,
        };
        // Somebody may be deleted meanwhile.
        let (Ok(quota), Ok(standing)) = (app.store.quota(entity), app.store.standing(kind, entity))
        else {
            continue;
        };
        if quota.mode == Mode::Off {
            continue;
        }
        for account in accounts(&quota, &standing.limits, &known, usage, now_ms) {
            let about = about(app, *whose)?;
            let d = account.budget.dimension;
            if known.get(&(entity, d)) != Some(&account.budget) {
                begun.push(account.budget);
            }
            measured.push(Measured {
                level,
                entity,
                name: about.name.clone(),
                dimension: d,
                limit: Some(account.limit),
                used: account.used,
                behind: Some(Vec::new()),
            });
            let told = tells(account.limit, account.used);
            if let Some(percent) = told.filter(|p| *p > account.budget.told) {
                tell.push((account, percent, about));
            }
        }
    }
    if !begun.is_empty() {
        app.store.begin_budgets(begun).await?;
    }
    app.store.follow_budgets(measured, now_ms).await?;
    for (account, percent, about) in tell {
        let event = event(&account, percent, about, now_ms);
        app.store
            .tell_budget(account.budget, percent, event, app.itself(None))
            .await?;
    }
    Ok(())
}

fn about(app: &App, whose: Whose) -> Result<About, StoreError> {
    Ok(match whose {
        Whose::User(user) => About::user(user, app.store.user(&user.to_string())?.name),
        Whose::Team(team) => About::team(team, app.store.team(&team.to_string())?.name),
        _ => About::system("system"),
    })
}

fn event(account: &Account, percent: u32, about: About, now_ms: i64) -> Event {
    let d = account.budget.dimension;
    let link = about.link();
    let title = format!("{percent} % of the {d} of {} is used", about.name);
    let until = in_seconds(account.budget.until_ms);
    let mut event = Event::new(EventKind::Threshold, about, title, link, now_ms)
        .figure("used", d.show(account.used))
        .figure("of", d.show(account.limit))
        .figure("begins anew", until);
    if let Some(ms) = account.lasts_until_ms {
        event = event.figure("as it is used now, nothing is left at", in_seconds(ms));
    }
    event.dimension = Some(d);
    event.percent = Some(percent);
    event.severity = Severity::Warning;
    event.advice("stop what need not run before it is stopped: docker ps")
}

/// Why a container may not start: nothing is left of a budget on its path. `None` where there is.
///
/// # Errors
/// When the ledger cannot be read.
pub async fn spent(app: &App, row: &Reservation) -> Result<Option<String>, StoreError> {
    let filter = ViolationFilter {
        open: Some(true),
        kind: Some(ViolationKind::Used),
        ..ViolationFilter::default()
    };
    let on_path = [Some(SYSTEM_ID), Some(row.user.0), row.team.map(|t| t.0)];
    for v in app.store.violations_by(filter, u32::MAX).await? {
        let counts = on_path.contains(&Some(v.entity)) && period(v.dimension).is_some();
        if !counts || app.store.quota(v.entity)?.mode != Mode::Enforce {
            continue;
        }
        let budgets = app.store.budgets(Some(v.entity)).await?;
        let until = budgets.iter().find(|b| b.dimension == v.dimension);
        let until = until.map_or_else(String::new, |b| {
            format!(", until {}", in_seconds(b.until_ms))
        });
        let d = v.dimension;
        return Ok(Some(format!(
            "nothing is left of the {d} of {} {}: {} of {} are used{until}\n  \
             to go on: wait for it, or ask for more: docker quota request",
            v.level,
            v.name,
            d.show(v.current),
            d.show(v.limit)
        )));
    }
    Ok(None)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn periods_begin_at_the_midnights_of_a_zone() {
        let at = |text: &str| text.parse::<Timestamp>().unwrap().as_millisecond();
        let berlin = TimeZone::get("Europe/Berlin").unwrap();
        for (period, zone, now, from, until) in [
            (
                Period::Day,
                &TimeZone::UTC,
                "2026-03-29T12:00:00Z",
                "2026-03-29T00:00:00Z",
                "2026-03-30T00:00:00Z",
            ),
            // Without the hour that the clocks skip, and with the one they have twice.
            (
                Period::Day,
                &berlin,
                "2026-03-29T12:00:00Z",
                "2026-03-28T23:00:00Z",
                "2026-03-29T22:00:00Z",
            ),
            (
                Period::Day,
                &berlin,
                "2026-10-25T23:30:00Z",
                "2026-10-25T23:00:00Z",
                "2026-10-26T23:00:00Z",
            ),
            (
                Period::Day,
                &berlin,
                "2026-10-25T22:30:00Z",
                "2026-10-24T22:00:00Z",
                "2026-10-25T23:00:00Z",
            ),
            (
                Period::Week,
                &TimeZone::UTC,
                "2026-11-29T23:59:59Z",
                "2026-11-23T00:00:00Z",
                "2026-11-30T00:00:00Z",
            ),
            (
                Period::Month,
                &TimeZone::UTC,
                "2028-02-29T01:00:00Z",
                "2028-02-01T00:00:00Z",
                "2028-03-01T00:00:00Z",
            ),
        ] {
            assert_eq!(
                span(period, at(now), zone),
                Some((at(from), at(until))),
                "{now}"
            );
        }
    }
}
