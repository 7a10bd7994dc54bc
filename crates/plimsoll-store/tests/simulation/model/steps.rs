//! What each operation does to the model, and what it is answered.

use std::collections::BTreeMap;

use plimsoll_core::entity::SYSTEM_ID;
use plimsoll_core::quota::{Mode, TeamMode, built_in_classes};
use plimsoll_core::{Amounts, Dimension, Limit, Limits, State, admit};
use plimsoll_store::FORGET_MAX;
use uuid::Uuid;

use super::{Charge, Model, Quota, Team, User};
use crate::op::{Choice, Op, Outcome, Request, What, state};

type Step = Result<Outcome, Outcome>;

impl Model {
    /// Does `op` and says what came of it.
    pub(crate) fn apply(&mut self, op: &Op) -> Outcome {
        self.now_ms = self.now_ms.max(op.now_ms);
        let before = self.clone();
        match self.step(&op.what) {
            Ok(outcome) => outcome,
            Err(outcome) => {
                *self = before;
                outcome
            }
        }
    }

    #[expect(clippy::too_many_lines, reason = "one arm for each operation")]
    fn step(&mut self, what: &What) -> Step {
        match what {
            What::AddUser { id, name } => {
                if self.users.values().any(|u| u.name == *name) {
                    return Err(Outcome::Conflict);
                }
                let user = User {
                    name: name.clone(),
                    suspended: false,
                    draining: false,
                    default_team: None,
                    quota: Quota::of(built_in_classes()[0].limits),
                };
                self.users.insert(*id, user);
            }
            What::AddTeam { id, name } => {
                if self.teams.values().any(|t| t.name == *name) {
                    return Err(Outcome::Conflict);
                }
                let nothing = Limits::nothing();
                let own = built_in_classes()[0]
                    .limits
                    .map(|d, l| if d.is_summed() { nothing[d] } else { l });
                let team = Team {
                    name: name.clone(),
                    draining: false,
                    mode: TeamMode::Aggregate,
                    quota: Quota::of(own),
                    members: BTreeMap::new(),
                };
                self.teams.insert(*id, team);
            }
            What::DeleteUser { id, drain } => {
                let holds = self.holds(|c| c.user == *id);
                let user = self.users.get_mut(id).ok_or(Outcome::NotFound)?;
                if holds && !drain {
                    return Err(Outcome::Conflict);
                }
                if holds {
                    (user.draining, user.suspended) = (true, true);
                } else {
                    self.remove_user(*id);
                }
                return Ok(Outcome::Gone(!holds));
            }
            What::DeleteTeam { id, drain } => {
                let holds = self.holds(|c| c.team == Some(*id));
                let team = self.teams.get_mut(id).ok_or(Outcome::NotFound)?;
                if holds && !drain {
                    return Err(Outcome::Conflict);
                }
                if holds {
                    team.draining = true;
                } else {
                    self.remove_team(*id);
                }
                return Ok(Outcome::Gone(!holds));
            }
            What::Forget => {
                let seen = self.charges.iter().take(FORGET_MAX);
                let ended: Vec<Uuid> = seen
                    .filter(|(_, charge)| charge.state.is_final())
                    .map(|(id, _)| *id)
                    .collect();
                self.charges.retain(|id, _| !ended.contains(id));
                self.keys.retain(|_, (_, id)| !ended.contains(id));
            }
            What::FinishDrains => {
                let users: Vec<Uuid> = self
                    .users
                    .iter()
                    .filter(|(id, u)| u.draining && !self.holds(|c| c.user == **id))
                    .map(|(id, _)| *id)
                    .collect();
                users.into_iter().for_each(|id| self.remove_user(id));
                let teams: Vec<Uuid> = self
                    .teams
                    .iter()
                    .filter(|(id, t)| t.draining && !self.holds(|c| c.team == Some(**id)))
                    .map(|(id, _)| *id)
                    .collect();
                teams.into_iter().for_each(|id| self.remove_team(id));
            }
            What::Suspend { id, suspended } => {
                self.users.get_mut(id).ok_or(Outcome::NotFound)?.suspended = *suspended;
            }
            What::Join {
                team,
                user,
                allotment,
                borrow,
                from_pool,
            } => self.join(*team, *user, *allotment, *borrow, *from_pool)?,
            What::Leave {
                team,
                user,
                drain,
                to_pool,
            } => {
                let held = self.charged(|c| c.team == Some(*team) && c.user == *user);
                let place = self.teams.get_mut(team).ok_or(Outcome::NotFound)?;
                let (allotment, _) = place.members.remove(user).ok_or(Outcome::NotFound)?;
                if !held.is_zero() && !drain {
                    return Err(Outcome::Conflict);
                }
                if *to_pool && place.mode == TeamMode::Aggregate {
                    place.quota.limits = place.quota.limits.map(|d, pool| match allotment[d] {
                        Limit::AtMost(more) if d.is_summed() => pool.plus(more),
                        _ => pool,
                    });
                }
                let user = self.users.get_mut(user).expect("members are users");
                if user.default_team == Some(*team) {
                    user.default_team = None;
                }
            }
            What::Limit {
                entity,
                dimension,
                limit,
            } => self.quota(*entity)?.limits[*dimension] = (*limit).into(),
            What::Mode { entity, mode } => self.quota(*entity)?.mode = *mode,
            What::Overcommit { entity, permille } => {
                let quota = self.quota(*entity)?;
                if *permille == 0 {
                    return Err(Outcome::Invalid);
                }
                quota.permille = *permille;
            }
            What::TeamMode { team, mode } => {
                let team = self.teams.get_mut(team).ok_or(Outcome::NotFound)?;
                if team.mode != *mode {
                    let shape = team.shape();
                    team.quota.limits = match mode {
                        TeamMode::Fixed => shape.limit,
                        TeamMode::Aggregate => shape.pool,
                    };
                    team.mode = *mode;
                }
            }
            What::Reserve(request) => return self.reserve(request),
            What::Commit { id, container } => return self.commit(*id, container),
            What::Start { id } => {
                let charge = self.charge(*id)?;
                if charge.state.is_final() {
                    return Err(Outcome::Conflict);
                }
                if charge.state != State::Stopped && charge.decided {
                    return Ok(Outcome::Replayed);
                }
                let (claim, before) = (charge.claim, charge.state.charge(&charge.claim));
                if !self.judge(*id, &before, &claim)? {
                    return Ok(Outcome::Refused);
                }
                self.change(*id, |c| c.state = State::Active);
                return Ok(Outcome::Admitted);
            }
            What::Resize { id, amounts } => {
                let charge = self.charge(*id)?;
                if charge.state.is_final() {
                    return Err(Outcome::Conflict);
                }
                let before = charge.state.charge(&charge.claim);
                let after = charge.state.charge(amounts);
                if !self.judge(*id, &before, &after)? {
                    return Ok(Outcome::Refused);
                }
                self.change(*id, |c| c.claim = *amounts);
                return Ok(Outcome::Admitted);
            }
            What::Void { id } => self.fact(*id, State::Pending, State::Void)?,
            What::Stopped { id } => self.fact(*id, State::Active, State::Stopped)?,
            What::Running { id } => self.fact(*id, State::Stopped, State::Active)?,
            What::Release { id } => {
                if !self.charge(*id)?.state.is_final() {
                    self.change(*id, |c| c.state = State::Released);
                }
            }
            What::Resized { id, amounts } => {
                if !self.charge(*id)?.state.is_final() {
                    self.change(*id, |c| c.claim = *amounts);
                }
            }
            What::Bound {
                id,
                container,
                runs,
            } => {
                let charge = self.charge(*id)?;
                if charge.container.as_ref().is_some_and(|c| c != container) {
                    return Err(Outcome::Conflict);
                }
                if charge
                    .team
                    .is_some_and(|team| !self.teams.contains_key(&team))
                {
                    return Err(Outcome::NotFound);
                }
                if self.container_is_bound(container, *id) {
                    return Err(Outcome::Conflict);
                }
                let unnamed = charge.state.is_final() && self.name_is_taken(*id);
                self.change(*id, |c| {
                    c.state = state(*runs);
                    c.container = Some(container.clone());
                    if unnamed {
                        c.name = None;
                    }
                });
            }
            What::Adopt {
                request,
                container,
                runs,
            } => {
                if !self.users.contains_key(&request.user) {
                    return Err(Outcome::NotFound);
                }
                let team = self.team_of(request.user, request.team)?;
                self.insert(request, team, state(*runs), false)?;
                if self.container_is_bound(container, request.id) {
                    return Err(Outcome::Conflict);
                }
                self.change(request.id, |c| c.container = Some(container.clone()));
            }
        }
        Ok(Outcome::Done)
    }

    fn quota(&mut self, entity: Uuid) -> Result<&mut Quota, Outcome> {
        if entity == SYSTEM_ID {
            return Ok(&mut self.system);
        }
        let of_team = self.teams.get_mut(&entity).map(|t| &mut t.quota);
        let of_user = self.users.get_mut(&entity).map(|u| &mut u.quota);
        of_team.or(of_user).ok_or(Outcome::NotFound)
    }

    fn join(
        &mut self,
        team: Uuid,
        user: Uuid,
        milli: Option<u64>,
        borrow: Option<u64>,
        from_pool: bool,
    ) -> Result<(), Outcome> {
        let first = !self.member_ids().any(|(_, member)| member == user);
        let place = self.teams.get_mut(&team).ok_or(Outcome::NotFound)?;
        let person = self.users.get_mut(&user).ok_or(Outcome::NotFound)?;
        let old = place.members.get(&user).copied();
        let mut allotment = match old {
            Some((allotment, _)) => allotment,
            None if first && !from_pool => person.quota.limits.map(|d, limit| match limit {
                _ if !d.is_summed() => Limit::Unlimited,
                Limit::Unlimited => Limit::AtMost(0),
                limit => limit,
            }),
            None => Limits::nothing(),
        };
        if let Some(milli) = milli {
            allotment[Dimension::Cpu] = Limit::AtMost(milli);
        }
        let mut borrow_limit = old.map_or(Limits::UNLIMITED, |(_, borrow)| borrow);
        if let Some(milli) = borrow {
            borrow_limit[Dimension::Cpu] = Limit::AtMost(milli);
        }
        if from_pool && place.mode == TeamMode::Aggregate {
            let before = old.map_or(Limits::nothing(), |(allotment, _)| allotment);
            for d in Dimension::ALL.into_iter().filter(|d| d.is_summed()) {
                if let (Limit::AtMost(pool), Limit::AtMost(old), Limit::AtMost(new)) =
                    (place.quota.limits[d], before[d], allotment[d])
                {
                    let left = (pool + old).checked_sub(new).ok_or(Outcome::Invalid)?;
                    place.quota.limits[d] = Limit::AtMost(left);
                }
            }
        }
        place.members.insert(user, (allotment, borrow_limit));
        if first {
            person.default_team = Some(team);
        }
        if from_pool && place.mode == TeamMode::Fixed {
            for d in Dimension::ALL.into_iter().filter(|d| d.is_summed()) {
                let promised: u64 = place
                    .members
                    .values()
                    .map(|(allotment, _)| allotment[d].at_most().unwrap_or(0))
                    .sum();
                if !place.quota.limits[d].allows(promised) {
                    return Err(Outcome::Invalid);
                }
            }
        }
        Ok(())
    }

    fn remove_user(&mut self, id: Uuid) {
        self.users.remove(&id);
        for team in self.teams.values_mut() {
            team.members.remove(&id);
        }
    }

    fn remove_team(&mut self, id: Uuid) {
        self.teams.remove(&id);
        for user in self.users.values_mut() {
            if user.default_team == Some(id) {
                user.default_team = None;
            }
        }
    }

    fn charge(&self, id: Uuid) -> Result<Charge, Outcome> {
        self.charges.get(&id).cloned().ok_or(Outcome::NotFound)
    }

    fn change(&mut self, id: Uuid, change: impl FnOnce(&mut Charge)) {
        change(self.charges.get_mut(&id).expect("it was found"));
    }

    fn fact(&mut self, id: Uuid, from: State, to: State) -> Result<(), Outcome> {
        if self.charge(id)?.state == from {
            self.change(id, |c| c.state = to);
        }
        Ok(())
    }

    fn name_is_taken(&self, id: Uuid) -> bool {
        let charge = &self.charges[&id];
        charge.name.is_some()
            && self.charges.iter().any(|(other, c)| {
                *other != id
                    && c.user == charge.user
                    && c.name == charge.name
                    && !c.state.is_final()
            })
    }

    fn container_is_bound(&self, container: &str, to_other_than: Uuid) -> bool {
        self.charges
            .iter()
            .any(|(id, c)| *id != to_other_than && c.container.as_deref() == Some(container))
    }

    fn team_of(&self, user: Uuid, choice: Choice) -> Result<Option<Uuid>, Outcome> {
        let team = match choice {
            Choice::None => return Ok(None),
            Choice::Default => match self.users[&user].default_team {
                Some(team) => team,
                None => return Ok(None),
            },
            Choice::Team(team) => team,
        };
        let members = &self.teams.get(&team).ok_or(Outcome::NotFound)?.members;
        if members.contains_key(&user) {
            Ok(Some(team))
        } else {
            Err(Outcome::Forbidden)
        }
    }

    /// May `user` ask for this, and does it fit?
    fn ask(
        &self,
        user: Uuid,
        choice: Choice,
        before: &Amounts,
        after: &Amounts,
    ) -> Result<(bool, Option<Uuid>), Outcome> {
        let person = self.users.get(&user).ok_or(Outcome::NotFound)?;
        if person.suspended || person.draining {
            return Err(Outcome::Forbidden);
        }
        let team = self.team_of(user, choice)?;
        if team.is_some_and(|team| self.teams[&team].draining) {
            return Err(Outcome::Forbidden);
        }
        let fits = admit(&self.path(user, team), before, after).allowed();
        Ok((fits, team))
    }

    fn judge(&self, id: Uuid, before: &Amounts, after: &Amounts) -> Result<bool, Outcome> {
        let charge = self.charge(id)?;
        if !before.is_zero() && before.checked_sub(after).is_some() {
            // Whoever asks, and whatever became of the team: what grows nowhere passes.
            return if self.users.contains_key(&charge.user) {
                Ok(true)
            } else {
                Err(Outcome::NotFound)
            };
        }
        let choice = charge.team.map_or(Choice::None, Choice::Team);
        let (fits, _) = self.ask(charge.user, choice, before, after)?;
        Ok(fits)
    }

    fn reserve(&mut self, request: &Request) -> Step {
        if let Some((key, fingerprint)) = &request.key
            && let Some((known, _)) = self.keys.get(key)
        {
            return if known == fingerprint {
                Ok(Outcome::Replayed)
            } else {
                Err(Outcome::Conflict)
            };
        }
        let (fits, team) =
            self.ask(request.user, request.team, &Amounts::ZERO, &request.amounts)?;
        if !fits {
            return Ok(Outcome::Refused);
        }
        self.insert(request, team, State::Pending, true)?;
        self.never_oversold(request.user, team, &request.amounts);
        Ok(Outcome::Admitted)
    }

    fn insert(
        &mut self,
        request: &Request,
        team: Option<Uuid>,
        state: State,
        decided: bool,
    ) -> Result<(), Outcome> {
        let charge = Charge {
            user: request.user,
            team,
            state,
            claim: request.amounts,
            container: None,
            name: request.name.clone(),
            decided,
        };
        self.charges.insert(request.id, charge);
        if self.name_is_taken(request.id) {
            return Err(Outcome::Conflict);
        }
        if let Some((key, fingerprint)) = &request.key {
            let known = (fingerprint.clone(), request.id);
            self.keys.insert(key.clone(), known);
        }
        Ok(())
    }

    fn commit(&mut self, id: Uuid, container: &str) -> Step {
        let charge = self.charge(id)?;
        if let Some(bound) = &charge.container {
            if bound != container {
                return Err(Outcome::Conflict);
            }
            if charge.decided && charge.state != State::Void {
                return Ok(Outcome::Replayed);
            }
        }
        if charge.state == State::Void || !charge.decided {
            let before = charge.state.charge(&charge.claim);
            let after = match charge.state {
                State::Void => charge.claim,
                _ => before,
            };
            if !self.judge(id, &before, &after)? {
                return Ok(Outcome::Refused);
            }
        }
        let state = match charge.state {
            State::Void | State::Pending => State::Active,
            other => other,
        };
        if charge.state == State::Void && self.name_is_taken(id) {
            return Err(Outcome::Conflict);
        }
        if self.container_is_bound(container, id) {
            return Err(Outcome::Conflict);
        }
        self.change(id, |c| {
            (c.state, c.container) = (state, Some(container.to_owned()));
            c.decided = true;
        });
        Ok(Outcome::Admitted)
    }

    /// Said again without `admit`: after a request nothing that it added to is above a limit that
    /// enforces.
    fn never_oversold(&self, user: Uuid, team: Option<Uuid>, claim: &Amounts) {
        let mut levels = vec![self.host_level(), self.system_level()];
        levels.push(match team {
            Some(team) => self.team_level(team),
            None => self.user_level(user),
        });
        for level in levels.iter().filter(|l| l.mode == Mode::Enforce) {
            for d in Dimension::CHARGED.into_iter().filter(|d| claim.get(*d) > 0) {
                let limit = level.limits[d].at_most().map_or(u128::MAX, |most| {
                    u128::from(most) * u128::from(level.overcommit_permille) / 1000
                });
                assert!(
                    u128::from(level.reserved.get(d)) <= limit,
                    "oversold {d} at {level:?}"
                );
            }
        }
    }
}
