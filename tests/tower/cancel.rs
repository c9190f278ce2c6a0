//! Services and futures dropped at any point return their permits and leases.

use std::cell::Cell;
use std::pin::Pin;
use std::sync::Arc;
use std::time::Duration;

use lvs::Limits;
use lvs::scheduler::{LeastConnections, Rng};
use lvs::tower::{Hedge, NoKey, NoRetry, OnResponse};
use proptest::prelude::*;
use tokio::sync::Semaphore;
use tokio::time::advance;
use tokio_test::task::{self, Spawn};
use tower::limit::ConcurrencyLimit;
use tower::retry::budget::TpsBudget;

use crate::world::*;

const NAMES: [&str; 3] = ["a", "b", "c"];
/// Requests under way in the balancer.
const MAX_IN_FLIGHT: usize = 5;
/// Permits of each instance's `ConcurrencyLimit`.
const INSTANCE_PERMITS: usize = 2;
/// Connections of each backend.
const MAX_CONNECTIONS: usize = 3;

type Limited = ConcurrencyLimit<Instance>;
type CloneRequest = fn(&()) -> Option<()>;
type Hedged = lvs::tower::Hedged<Limited, NoKey, OnResponse, NoRetry, CloneRequest>;
type PendingRequest = Spawn<Pin<Box<dyn Future<Output = Result<&'static str, BoxError>>>>>;

#[derive(Clone, Copy, Debug)]
enum Step {
    /// Sends a request through one of the services and polls it `polls` times.
    Send {
        by: ServiceKind,
        polls: u8,
    },
    /// Polls one of the requests.
    Poll {
        which: u8,
    },
    /// Drops one of the requests.
    Drop {
        which: u8,
    },
    /// Polls a handle for readiness and drops it without a call.
    Reserve {
        by: ServiceKind,
    },
    /// Lets enough time pass to hedge a request, and polls all requests.
    Wait,
    Readiness {
        instance: u8,
        readiness: u8,
    },
    Hold {
        instance: u8,
        hold: bool,
    },
    Health {
        instance: u8,
        up: bool,
    },
    /// Removes a backend and inserts another of its name.
    Replace {
        instance: u8,
    },
}

#[derive(Clone, Copy, Debug)]
enum ServiceKind {
    Balance,
    ReadyFirst,
    Hedged,
}

fn service_kind() -> impl Strategy<Value = ServiceKind> {
    prop_oneof![
        Just(ServiceKind::Balance),
        Just(ServiceKind::ReadyFirst),
        Just(ServiceKind::Hedged)
    ]
}

fn step() -> impl Strategy<Value = Step> {
    prop_oneof![
        4 => (service_kind(), 0..3u8).prop_map(|(by, polls)| Step::Send { by, polls }),
        4 => any::<u8>().prop_map(|which| Step::Poll { which }),
        3 => any::<u8>().prop_map(|which| Step::Drop { which }),
        1 => service_kind().prop_map(|by| Step::Reserve { by }),
        2 => Just(Step::Wait),
        2 => (0..3u8, 0..3u8).prop_map(|(instance, readiness)| Step::Readiness { instance, readiness }),
        2 => (0..3u8, any::<bool>()).prop_map(|(instance, hold)| Step::Hold { instance, hold }),
        2 => (0..3u8, any::<bool>()).prop_map(|(instance, up)| Step::Health { instance, up }),
        1 => (0..3u8).prop_map(|instance| Step::Replace { instance }),
    ]
}

struct World {
    set: BackendSet<Limited>,
    instances: [Instance; 3],
    permits: [Arc<Semaphore>; 3],
    balance: Balance<Limited>,
    first: ReadyFirst<Limited>,
    hedged: Hedged,
    pending: Vec<PendingRequest>,
}

impl World {
    fn new() -> Self {
        let set = BackendSet::new();
        let instances = NAMES.map(Instance::new);
        let permits = NAMES.map(|_| Arc::new(Semaphore::new(INSTANCE_PERMITS)));
        for (instance, permits) in instances.iter().zip(&permits) {
            set.insert(spec(instance, permits)).expect("a new name");
        }
        let balancer = Balancer::new(&set, LeastConnections::default())
            .expect("the scheduler accepts any set");
        let balance = Balance::new(balancer.clone()).max_in_flight(MAX_IN_FLIGHT);
        let balance = balance.and_then(|balance| balance.candidates(2)).expect("not 0");
        let first = ReadyFirst::new(balancer).candidates(2).expect("not 0");
        let budget = TpsBudget::new(Duration::from_secs(10), 1000, 1.0);
        let hedge = Hedge::new((|()| Some(())) as CloneRequest).budget(budget);
        let hedged = balance.clone().hedge(hedge);
        Self { set, instances, permits, balance, first, hedged, pending: Vec::new() }
    }

    /// Sends requests until enough latencies are known to hedge, and then holds all answers back.
    async fn warm(&self) {
        for _ in 0..=200 {
            self.hedged.clone().oneshot(()).await.expect("ready");
            advance(Duration::from_millis(5)).await;
        }
        self.instances.iter().for_each(|instance| instance.hold(true));
    }

    fn run(&mut self, step: Step) {
        match step {
            Step::Send { by, polls } => {
                let pending: Pin<Box<dyn Future<Output = _>>> = match by {
                    ServiceKind::Balance => Box::pin(self.balance.clone().oneshot(())),
                    ServiceKind::ReadyFirst => Box::pin(self.first.clone().oneshot(())),
                    ServiceKind::Hedged => Box::pin(self.hedged.clone().oneshot(())),
                };
                self.pending.push(task::spawn(pending));
                let which = self.pending.len() - 1;
                (0..polls).for_each(|_| self.poll(which));
            }
            Step::Poll { which } => {
                if let Some(which) = usize::from(which).checked_rem(self.pending.len()) {
                    self.poll(which);
                }
            }
            Step::Drop { which } => {
                if let Some(which) = usize::from(which).checked_rem(self.pending.len()) {
                    drop(self.pending.swap_remove(which));
                }
            }
            Step::Reserve { by: ServiceKind::Balance } => {
                let _ = poll_ready(&mut task::spawn(self.balance.clone()));
            }
            Step::Reserve { by: ServiceKind::ReadyFirst } => {
                let _ = poll_ready(&mut task::spawn(self.first.clone()));
            }
            Step::Reserve { by: ServiceKind::Hedged } => {
                let _ = poll_ready(&mut task::spawn(self.hedged.clone()));
            }
            Step::Wait => (0..self.pending.len()).rev().for_each(|which| self.poll(which)),
            Step::Readiness { instance, readiness } => {
                let readiness =
                    [Readiness::Ready, Readiness::Busy, Readiness::Broken][usize::from(readiness)];
                self.instances[usize::from(instance)].set_readiness(readiness);
            }
            Step::Hold { instance, hold } => self.instances[usize::from(instance)].hold(hold),
            Step::Health { instance, up } => {
                let health = if up { Health::Up } else { Health::Down };
                let id = NAMES[usize::from(instance)].into();
                self.set.set_health(&id, health).expect("in the set");
            }
            Step::Replace { instance } => {
                let i = usize::from(instance);
                self.set.remove(&NAMES[i].into()).expect("in the set");
                let spec = spec(&self.instances[i], &self.permits[i]);
                self.set.insert(spec).expect("the name was just removed");
            }
        }
    }

    fn poll(&mut self, which: usize) {
        if self.pending.get_mut(which).is_some_and(|pending| pending.poll().is_ready()) {
            drop(self.pending.swap_remove(which));
        }
    }
}

fn spec(instance: &Instance, permits: &Arc<Semaphore>) -> Spec<Limited> {
    let limited = ConcurrencyLimit::with_semaphore(instance.clone(), Arc::clone(permits));
    Spec::new(instance.name, limited).limits(Limits::new(MAX_CONNECTIONS as u32))
}

#[test]
fn dropped_requests_return_everything() {
    let config = ProptestConfig { cases: 2000, ..ProptestConfig::default() };
    let hedged_count = Cell::new(0);
    proptest!(config, |(steps in proptest::collection::vec(step(), 1..60))| {
        let mut runtime = tokio::runtime::Builder::new_current_thread();
        let runtime = runtime.enable_time().start_paused(true).build().expect("a runtime");
        let _guard = runtime.enter();
        let mut world = World::new();
        runtime.block_on(world.warm());
        for step in steps {
            if let Step::Wait = step {
                runtime.block_on(advance(Duration::from_millis(2)));
            }
            world.run(step);
            for (id, permits) in NAMES.iter().zip(&world.permits) {
                let snapshot = world.set.snapshot();
                let load = snapshot.find(&(*id).into()).expect("in the set").load().total();
                prop_assert!(load as usize <= MAX_CONNECTIONS);
                prop_assert!(permits.available_permits() <= INSTANCE_PERMITS);
            }
        }
        world.pending.clear();
        prop_assert_eq!(load(&world.set), 0);
        for permits in &world.permits {
            prop_assert_eq!(permits.available_permits(), INSTANCE_PERMITS);
        }
        // All permits of the balancer are free again, and no more than configured.
        let handle = || task::spawn(world.balance.clone());
        let mut handles: Vec<_> = (0..=MAX_IN_FLIGHT).map(|_| handle()).collect();
        let ready = handles.iter_mut().map(|handle| poll_ready(handle).is_ready());
        let mut expected = [true; MAX_IN_FLIGHT + 1];
        expected[MAX_IN_FLIGHT] = false;
        prop_assert_eq!(ready.collect::<Vec<_>>(), expected);
        hedged_count.set(hedged_count.get() + world.hedged.stats().sent());
    });
    assert!(hedged_count.get() > 400, "{hedged_count:?}");
}

/// Runs tasks on two threads whose requests are dropped after a random time.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn requests_dropped_on_two_threads_return_everything() {
    let world = World::new();
    let tasks: Vec<_> = (0..8)
        .map(|seed| {
            let (balance, first) = (world.balance.clone(), world.first.clone());
            let hedged = world.hedged.clone();
            let instances = world.instances.clone();
            tokio::spawn(async move {
                let mut rng = Rng::with_seed(seed);
                for _ in 0..500 {
                    let instance = &instances[rng.below(3) as usize];
                    instance.hold(rng.below(2) == 0);
                    let deadline = Duration::from_micros(rng.below(300));
                    let (balance, first) = (balance.clone(), first.clone());
                    let hedged = hedged.clone();
                    let request = async {
                        match rng.below(3) {
                            0 => balance.oneshot(()).await,
                            1 => first.oneshot(()).await,
                            _ => hedged.oneshot(()).await,
                        }
                    };
                    let _ = tokio::time::timeout(deadline, request).await;
                }
            })
        })
        .collect();
    for task in tasks {
        task.await.expect("no panic");
    }
    assert_eq!(load(&world.set), 0);
    assert!(world.permits.iter().all(|permits| permits.available_permits() == INSTANCE_PERMITS));
}
