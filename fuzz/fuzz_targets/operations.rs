//! Any sequence of changes and picks: no panic, never an ineligible backend, and the counts agree
//! with the leases.
//!
//! ```text
//! cargo +nightly fuzz run operations
//! ```
#![no_main]

use std::collections::HashMap;
use std::net::SocketAddr;
use std::sync::{Arc, OnceLock};
use std::time::{Duration, Instant};

use arbitrary::Arbitrary;
use libfuzzer_sys::fuzz_target;
use lvs::backend::BackendState;
use lvs::balancer::BalancerWorker;
use lvs::scheduler::Rng;
use lvs::{
    Backend, BackendId, BackendSet, Balancer, Flow, Health, Lease, Limits, Outcome, PickError,
    SetError, SlowStart, Spec,
};

#[path = "../../tests/common/schedulers.rs"]
mod schedulers;

use self::schedulers::{ALL, scheduler};

/// One step; names are few, so that they meet again.
#[derive(Arbitrary, Debug)]
enum Step {
    Insert { name: u8, weight: u8, tier: u8, max: u8, up: bool },
    Remove { name: u8 },
    Weight { name: u8, weight: u8 },
    Limits { name: u8, max: u8, resume: u8 },
    Tier { name: u8, tier: u8 },
    Health { name: u8, up: bool },
    Drain { name: u8 },
    Disable { name: u8 },
    Enable { name: u8 },
    Retarget { name: u8, port: u16 },
    SlowStart { seconds: Option<u8> },
    Tick { millis: u16 },
    Scheduler { rule: u8 },
    Fork,
    Worker,
    Pick { client: u8, destination: u8, keyed: bool, timed: bool, retries: u8, worker: bool },
    PickName { name: u8 },
    Active { lease: u8, active: bool },
    End { lease: u8, outcome: u8, millis: Option<u16> },
}

#[derive(Arbitrary, Debug)]
struct Run {
    rule: u8,
    lanes: u8,
    seed: u64,
    steps: Vec<Step>,
}

/// Stand for those of [`ALL`] that build a large table with each change, which would leave the
/// fuzzer a hundred tries a second; the code is the same.
const SMALL: &[&str] = &[
    "ring(replicas=3)",
    "rendezvous(rows=64)",
    "maglev(size=251)",
    "bounded(ring(replicas=3))",
    "bounded(maglev(size=251), factor=1.1)",
    "bounded(rendezvous, factor=2)",
    "priority(maglev(size=251), overprovisioning=100)",
    "subset(bounded(ring(replicas=3)), size=3, client=7)",
];

/// Quiesced, equal, unequal, large; rings have points in proportion.
const WEIGHTS: [u32; 6] = [0, 1, 1, 2, 3, 20];

const NAMES: u8 = 24;
/// Longer runs find nothing that shorter ones do not, and starve the fuzzer of tries.
const STEPS_MAX: usize = 100;
const LEASES_MAX: usize = 64;

fuzz_target!(|run: Run| {
    let mut world = World::new(run.rule, usize::from(run.lanes % 4), run.seed);
    for step in run.steps.into_iter().take(STEPS_MAX) {
        world.take(step);
        world.check();
    }
    world.leases.clear();
    world.check();
});

struct World {
    rule: &'static str,
    set: BackendSet<Target>,
    balancer: Balancer<Target>,
    /// Counts on a lane of its own where the set has them.
    worker: BalancerWorker<Target>,
    rng: Rng,
    now: Instant,
    leases: Vec<Held>,
    /// Every backend that ever was, by incarnation: the counts of those that are gone must come
    /// down, too.
    seen: Vec<Arc<Backend<Target>>>,
}

/// Tells a backend from a later one of its name, and stays with it when its port changes.
#[derive(Clone, Copy, Debug)]
struct Target {
    incarnation: u32,
    port: u16,
}

struct Held {
    lease: Lease<Target>,
    active: bool,
}

impl World {
    fn new(rule: u8, lanes: usize, seed: u64) -> Self {
        let set = BackendSet::with_counter_lanes(lanes);
        let rule = choose(rule);
        let balancer = Balancer::new(&set, scheduler(rule)).expect("every rule takes an empty set");
        let (rng, now) = (Rng::with_seed(seed), start());
        let worker = balancer.worker(rng.clone());
        Self { rule, set, balancer, worker, rng, now, leases: Vec::new(), seen: Vec::new() }
    }

    fn take(&mut self, step: Step) {
        match step {
            Step::Insert { name, weight, tier, max, up } => {
                let health = if up { Health::Up } else { Health::Down };
                let incarnation = u32::try_from(self.seen.len()).expect("few steps");
                let spec = Spec::new(id(name), Target { incarnation, port: 80 })
                    .address(address(name))
                    .weight(WEIGHTS[usize::from(weight) % WEIGHTS.len()])
                    .tier(tier % 4)
                    .limits(Limits::new((max % 8).into()))
                    .health(health);
                if let Some(backend) = refused(self.set.insert(spec)) {
                    self.seen.push(backend);
                }
            }
            Step::Remove { name } => drop(refused(self.set.remove(&id(name)))),
            Step::Weight { name, weight } => {
                let weight = WEIGHTS[usize::from(weight) % WEIGHTS.len()];
                refused(self.set.set_weight(&id(name), weight));
            }
            Step::Limits { name, max, resume } => {
                let limits = Limits::new((max % 8).into()).with_resume_below((resume % 9).into());
                refused(self.set.set_limits(&id(name), limits));
            }
            Step::Tier { name, tier } => {
                refused(self.set.edit(|edit| edit.set_tier(&id(name), tier % 4)));
            }
            Step::Health { name, up } => {
                let health = if up { Health::Up } else { Health::Down };
                refused(self.set.set_health(&id(name), health));
            }
            Step::Drain { name } => drop(refused(self.set.drain(&id(name)))),
            Step::Disable { name } => drop(refused(self.set.disable(&id(name)))),
            Step::Enable { name } => drop(refused(self.set.enable(&id(name)))),
            Step::Retarget { name, port } => {
                let snapshot = self.set.snapshot();
                let Some(backend) = snapshot.find(&id(name)) else { return };
                let target = Target { port, ..*backend.target() };
                let address = SocketAddr::new(address(name).ip(), port);
                let again = refused(self.set.set_target(&id(name), target, Some(address)));
                assert_eq!(again.expect("the backend is in the set").target().port, port);
            }
            Step::SlowStart { seconds } => {
                let slow = seconds.map(|s| SlowStart::new(Duration::from_secs(s.into())));
                self.set.set_slow_start(slow);
            }
            Step::Tick { millis } => {
                self.now += Duration::from_millis(millis.into());
                self.set.advance_slow_start(self.now).expect("every rule takes a small set");
            }
            Step::Scheduler { rule } => {
                self.rule = choose(rule);
                let rule = scheduler(self.rule);
                self.balancer.set_scheduler(rule).expect("every rule takes a small set");
            }
            Step::Fork => {
                self.balancer = self.balancer.fork().expect("the scheduler has compiled before");
                self.worker = self.balancer.worker(self.rng.clone());
            }
            Step::Worker => self.worker = self.balancer.worker(self.rng.clone()),
            Step::Pick { client, destination, keyed, timed, retries, worker } => {
                let mut flow = Flow::from(SocketAddr::from(([192, 0, 2, client], 4000)))
                    .destination(SocketAddr::from(([203, 0, 113, destination], 443)));
                if keyed {
                    flow = flow.key_bytes(&[client]);
                }
                if timed {
                    flow = flow.time(self.now);
                }
                self.pick(flow, retries % 4, worker);
            }
            Step::PickName { name } => {
                if let Some(lease) = self.balancer.lease_by_id(&id(name)) {
                    self.hold(lease);
                }
            }
            Step::Active { lease, active } => {
                if let Some(held) = self.leases.get_mut(usize::from(lease)) {
                    held.lease.set_active(active);
                    held.active = active;
                }
            }
            Step::End { lease, outcome, millis } => {
                if usize::from(lease) < self.leases.len() {
                    let held = self.leases.swap_remove(lease.into());
                    let outcome = Outcome::ALL[usize::from(outcome) % Outcome::ALL.len()];
                    match millis {
                        Some(millis) => {
                            let latency = Duration::from_millis(millis.into());
                            held.lease.complete_with_latency(outcome, latency, self.now);
                        }
                        None => held.lease.complete(outcome),
                    }
                }
            }
        }
    }

    /// Picks, and picks again without the one it got, some times over.
    fn pick(&mut self, mut flow: Flow, retries: u8, worker: bool) {
        let mut tried: Vec<BackendId> = Vec::new();
        for _ in 0..=retries {
            let snapshot = self.balancer.snapshot();
            let before: HashMap<_, _> =
                snapshot.iter().map(|(b, m)| (b.id().clone(), m.is_overloaded())).collect();
            let answer = if worker {
                self.worker.pick(&flow)
            } else {
                self.balancer.pick_with_rng(&flow, &mut self.rng)
            };
            match answer {
                Ok(lease) => {
                    let position = snapshot.iter().position(|(b, _)| b.id() == lease.id());
                    let member = &snapshot.members()[position.expect("chosen from the snapshot")];
                    let id = lease.id().clone();
                    let down = member.state() == BackendState::Down && member.weight() > 0;
                    let eligible = member.state() == BackendState::Eligible;
                    assert!(eligible || down && self.may_panic(), "{}: {member:?}", self.rule);
                    assert!(!before[&id], "{}: {id} was at its limit", self.rule);
                    assert!(!tried.contains(&id), "{}: {id} was tried before", self.rule);
                    flow.exclude(lease.backend());
                    tried.push(id);
                    self.hold(lease);
                }
                Err(why) => {
                    let eligible = || snapshot.members().iter().filter(|m| m.share() > 0);
                    let left = eligible().filter(|m| !tried.contains(m.id()));
                    let usable = left.filter(|m| !before[m.id()]).count();
                    match why {
                        PickError::NoBackends => assert!(snapshot.members().is_empty()),
                        PickError::AllQuiesced | PickError::AllDown => {
                            assert_eq!(eligible().count(), 0);
                        }
                        PickError::AllAtLimit | PickError::AllTried => assert_eq!(usable, 0),
                        PickError::SchedulerRefused => {
                            assert!(self.may_refuse(), "{}: {usable} are usable", self.rule);
                        }
                        _ => unreachable!("unknown PickError: add its expectation here"),
                    }
                    return;
                }
            }
        }
    }

    /// Rules that give a flow no backend although one is usable, as their docs say.
    fn may_refuse(&self) -> bool {
        ["sh", "dh", "mh", "ovf", "bounded", "subset"].iter().any(|rule| self.names(rule))
    }

    /// Rules that serve from members that are down rather than not at all.
    fn may_panic(&self) -> bool {
        self.names("priority") && !self.rule.contains("panic=0")
    }

    /// Whether a rule is part of the expression in service.
    fn names(&self, rule: &str) -> bool {
        self.rule.split(|c: char| !c.is_alphanumeric() && c != '_').any(|word| word == rule)
    }

    fn hold(&mut self, lease: Lease<Target>) {
        if self.leases.len() < LEASES_MAX {
            self.leases.push(Held { lease, active: true });
        }
    }

    /// Counts leases by hand and compares, backend by backend.
    fn check(&self) {
        let mut counts: HashMap<u32, (u32, u32)> = HashMap::new();
        for held in &self.leases {
            let (active, inactive) = counts.entry(held.lease.target().incarnation).or_default();
            *(if held.active { active } else { inactive }) += 1;
        }
        for (incarnation, backend) in (0..).zip(&self.seen) {
            let load = backend.load();
            let held = counts.get(&incarnation).copied().unwrap_or_default();
            assert_eq!((load.active, load.inactive), held, "{backend:?}");
        }
        for (backend, member) in self.balancer.snapshot().iter() {
            assert_eq!(backend.load(), member.load());
            assert_eq!(member.share() > 0, member.state() == BackendState::Eligible);
        }
    }
}

/// One of all, with the large tables replaced by small ones.
fn choose(rule: u8) -> &'static str {
    let large = |rule: &str| {
        (rule.contains("maglev") || rule.contains("ring") || rule.contains("rendezvous("))
            && !SMALL.contains(&rule)
    };
    let mut rules = ALL.iter().filter(|rule| !large(rule)).chain(SMALL).cycle();
    rules.nth(rule.into()).expect("the iterator is endless")
}

/// Lets pass what a set may refuse; anything else is a bug.
fn refused<R>(answer: Result<R, SetError>) -> Option<R> {
    match answer {
        Ok(value) => Some(value),
        Err(
            SetError::DuplicateBackend { .. }
            | SetError::UnknownBackend { .. }
            | SetError::InvalidLimits { .. },
        ) => None,
        Err(other) => panic!("{other}"),
    }
}

fn id(name: u8) -> BackendId {
    format!("backend-{}", name % NAMES).into()
}

fn address(name: u8) -> SocketAddr {
    ([10, 0, 0, name % NAMES], 80).into()
}

/// One instant for all runs: what matters is what is added to it.
#[expect(clippy::disallowed_methods, reason = "any instant serves as a start")]
fn start() -> Instant {
    static START: OnceLock<Instant> = OnceLock::new();
    *START.get_or_init(Instant::now)
}
