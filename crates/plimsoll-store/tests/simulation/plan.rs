//! What is asked next: drawn from a seed, aimed at what the model holds so that most of it matters.

use plimsoll_core::entity::SYSTEM_ID;
use plimsoll_core::quota::{Mode, TeamMode};
use plimsoll_core::{Amounts, Dimension, State};
use uuid::Uuid;

use crate::model::Model;
use crate::op::{Choice, Op, Outcome, Request, What};

/// SplitMix64: small, and the same everywhere.
pub(crate) struct Random(u64);

impl Random {
    pub(crate) fn new(seed: u64) -> Self {
        Self(seed)
    }

    fn next(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut z = self.0;
        z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        z ^ (z >> 31)
    }

    /// From 0 up to, without, `most`.
    pub(crate) fn below(&mut self, most: usize) -> usize {
        usize::try_from(self.next() % most.max(1) as u64).expect("less than a usize")
    }

    /// From 1 to `most`.
    pub(crate) fn upto(&mut self, most: usize) -> usize {
        1 + self.below(most)
    }

    fn chance(&mut self, percent: usize) -> bool {
        self.below(100) < percent
    }

    fn pick<T: Copy>(&mut self, from: &[T]) -> Option<T> {
        from.get(self.below(from.len())).copied()
    }
}

pub(crate) struct Planner {
    random: Random,
    ids: u128,
    /// Requests with a key, to be repeated.
    keyed: Vec<Request>,
}

impl Planner {
    pub(crate) fn new(seed: u64) -> Self {
        Self {
            random: Random::new(!seed),
            ids: 0,
            keyed: Vec::new(),
        }
    }

    fn id(&mut self) -> Uuid {
        self.ids += 1;
        Uuid::from_u128((7 << 76) | (2 << 62) | self.ids)
    }

    /// The next `size` operations and what must come of them; the model has done them then.
    pub(crate) fn batch(&mut self, model: &mut Model, size: usize) -> Vec<(Op, Outcome)> {
        (0..size).map(|_| self.next(model)).collect()
    }

    pub(crate) fn next(&mut self, model: &mut Model) -> (Op, Outcome) {
        let op = Op {
            now_ms: model.now_ms() + i64::from(self.random.chance(50)),
            decision: self.id(),
            what: self.what(model),
        };
        let outcome = model.apply(&op);
        (op, outcome)
    }

    fn user(&mut self, model: &Model) -> Uuid {
        let users: Vec<Uuid> = model.user_ids().collect();
        let nobody = self.random.chance(2);
        self.random
            .pick(&users)
            .filter(|_| !nobody)
            .unwrap_or_else(|| self.id())
    }

    fn team(&mut self, model: &Model) -> Uuid {
        let teams: Vec<Uuid> = model.team_ids().collect();
        let nobody = self.random.chance(2);
        self.random
            .pick(&teams)
            .filter(|_| !nobody)
            .unwrap_or_else(|| self.id())
    }

    fn entity(&mut self, model: &Model) -> Uuid {
        match self.random.below(10) {
            0 => SYSTEM_ID,
            1..4 => self.team(model),
            _ => self.user(model),
        }
    }

    /// Mostly a live reservation in one of `states`, sometimes any, sometimes none.
    fn reservation(&mut self, model: &Model, states: &[State]) -> Uuid {
        let any = self.random.chance(10);
        let found: Vec<Uuid> = model
            .reservations()
            .filter(|(_, state)| any || states.contains(state))
            .map(|(id, _)| id)
            .collect();
        // The newer ones more often: they are under way.
        let from = if self.random.chance(70) {
            found.len().saturating_sub(8)
        } else {
            0
        };
        self.random
            .pick(&found[from..])
            .unwrap_or_else(|| self.id())
    }

    fn amounts(&mut self) -> Amounts {
        let milli = 100 * self.random.upto(12) as u64;
        let pids = 10 * self.random.upto(50) as u64;
        Amounts::ZERO
            .with(Dimension::Cpu, milli)
            .with(Dimension::Storage, 1 << 30)
            .with(Dimension::Containers, 1)
            .with(Dimension::ConcurrentContainers, 1)
            .with(Dimension::Pids, pids)
    }

    fn name(&mut self) -> Option<String> {
        self.random
            .chance(40)
            .then(|| format!("c{}", self.random.below(12)))
    }

    fn request(&mut self, model: &Model) -> Request {
        let user = self.user(model);
        let team = match self.random.below(10) {
            0..6 => Choice::Default,
            6..8 => Choice::None,
            _ => Choice::Team(self.team(model)),
        };
        let id = self.id();
        let key = self
            .random
            .chance(30)
            .then(|| (id.to_string(), "body".to_owned()));
        Request {
            id,
            user,
            team,
            amounts: self.amounts(),
            name: self.name(),
            key,
        }
    }

    /// The engine's id of the container of a reservation; sometimes that of another one.
    fn container(&mut self, model: &Model, id: Uuid) -> String {
        let id = if self.random.chance(4) {
            self.reservation(model, &State::ALL)
        } else {
            id
        };
        format!("{:064x}", id.as_u128())
    }

    #[expect(clippy::too_many_lines, reason = "one arm for each operation")]
    fn what(&mut self, model: &Model) -> What {
        use State::{Active, Pending, Released, Stopped, Void};
        match self.random.below(100) {
            0..3 => What::AddUser {
                id: self.id(),
                name: format!("u{}", self.random.below(14)),
            },
            3 => What::DeleteUser {
                id: self.user(model),
                drain: self.random.chance(50),
            },
            4 => {
                let suspended = self.random.chance(40);
                let id = self.user(model);
                What::Suspend { id, suspended }
            }
            5 => What::AddTeam {
                id: self.id(),
                name: format!("t{}", self.random.below(5)),
            },
            6 if self.random.chance(40) => What::DeleteTeam {
                id: self.team(model),
                drain: self.random.chance(30),
            },
            6 if self.random.chance(50) => What::Forget,
            6 => What::FinishDrains,
            7..14 => What::Join {
                team: self.team(model),
                user: self.user(model),
                allotment: (!self.random.chance(20)).then(|| 100 * self.random.below(20) as u64),
                borrow: self
                    .random
                    .chance(20)
                    .then(|| 100 * self.random.below(10) as u64),
                from_pool: self.random.chance(40),
            },
            14 => {
                let members: Vec<(Uuid, Uuid)> = model.member_ids().collect();
                let (team, user) = match self.random.pick(&members) {
                    Some(place) => place,
                    None => (self.team(model), self.user(model)),
                };
                What::Leave {
                    team,
                    user,
                    drain: self.random.chance(70),
                    to_pool: self.random.chance(50),
                }
            }
            15..22 => {
                let (dimension, most) = match self.random.below(6) {
                    0..4 => (Dimension::Cpu, 100 * self.random.below(50) as u64),
                    4 => (Dimension::Containers, self.random.below(12) as u64),
                    _ => (
                        Dimension::CpuPercent,
                        100 * (20 + self.random.below(81)) as u64,
                    ),
                };
                What::Limit {
                    entity: self.entity(model),
                    dimension,
                    limit: (!self.random.chance(8)).then_some(most),
                }
            }
            22 => What::Mode {
                entity: self.entity(model),
                mode: self
                    .random
                    .pick(&[Mode::Enforce, Mode::Enforce, Mode::Shadow, Mode::Off])
                    .expect("four"),
            },
            23 => What::Overcommit {
                entity: self.entity(model),
                permille: self.random.pick(&[1000, 1000, 1500, 750, 0]).expect("five"),
            },
            24 => What::TeamMode {
                team: self.team(model),
                mode: self
                    .random
                    .pick(&[TeamMode::Aggregate, TeamMode::Fixed])
                    .expect("two"),
            },
            25..50 => {
                let request = self.request(model);
                if request.key.is_some() {
                    self.keyed.push(request.clone());
                }
                What::Reserve(request)
            }
            50..54 if !self.keyed.is_empty() => {
                let n = self.random.below(self.keyed.len());
                let mut again = self.keyed[n].clone();
                again.id = self.id();
                if self.random.chance(10)
                    && let Some((_, fingerprint)) = &mut again.key
                {
                    "another body".clone_into(fingerprint);
                }
                What::Reserve(again)
            }
            50..68 => {
                let id = self.reservation(model, &[Pending, Pending, Void]);
                let container = self.container(model, id);
                What::Commit { id, container }
            }
            68..70 => What::Void {
                id: self.reservation(model, &[Pending]),
            },
            70..76 => What::Stopped {
                id: self.reservation(model, &[Active]),
            },
            76..79 => What::Running {
                id: self.reservation(model, &[Stopped]),
            },
            79..83 => What::Start {
                id: self.reservation(model, &[Stopped, Active]),
            },
            83..86 => What::Resize {
                id: self.reservation(model, &[Active, Stopped]),
                amounts: self.amounts(),
            },
            86 => What::Resized {
                id: self.reservation(model, &[Active, Stopped]),
                amounts: self.amounts(),
            },
            87..96 => What::Release {
                id: self.reservation(model, &[Active, Stopped, Pending]),
            },
            96..98 => {
                let id = self.reservation(model, &[Pending, Void, Released]);
                let container = self.container(model, id);
                What::Bound {
                    id,
                    container,
                    runs: self.random.chance(70),
                }
            }
            _ => {
                let request = Request {
                    key: None,
                    ..self.request(model)
                };
                let container = self.container(model, request.id);
                What::Adopt {
                    request,
                    container,
                    runs: self.random.chance(70),
                }
            }
        }
    }
}
