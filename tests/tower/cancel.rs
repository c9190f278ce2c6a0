//! Whatever is dropped, at whatever point, has given everything back.

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
/// Requests under way, places of each instance, and connections of each backend.
const BOUNDS: [usize; 3] = [5, 2, 3];

type Limited = ConcurrencyLimit<Instance>;
type Copy = fn(&()) -> Option<()>;
type Hedged = lvs::tower::Hedged<Limited, NoKey, OnResponse, NoRetry, Copy>;
type Asking = Spawn<Pin<Box<dyn Future<Output = Result<&'static str, BoxError>>>>>;

#[derive(Clone, Copy, Debug)]
enum Step {
    /// A request by one of the services, polled so often.
    Ask {
        by: By,
        polls: u8,
    },
    /// One of the requests is polled.
    Poll {
        which: u8,
    },
    /// One of them is dropped.
    Drop {
        which: u8,
    },
    /// A handle is made ready, or not, and dropped without a call.
    Reserve {
        by: By,
    },
    /// Time passes, enough for a second request to be sent, and all are polled.
    Wait,
    Mood {
        instance: u8,
        mood: u8,
    },
    Hold {
        instance: u8,
        hold: bool,
    },
    Health {
        instance: u8,
        up: bool,
    },
    /// A backend goes and another comes under its name.
    Replace {
        instance: u8,
    },
}

#[derive(Clone, Copy, Debug)]
enum By {
    Balance,
    ReadyFirst,
    Hedged,
}

fn by() -> impl Strategy<Value = By> {
    prop_oneof![Just(By::Balance), Just(By::ReadyFirst), Just(By::Hedged)]
}

fn step() -> impl Strategy<Value = Step> {
    prop_oneof![
        4 => (by(), 0..3u8).prop_map(|(by, polls)| Step::Ask { by, polls }),
        4 => any::<u8>().prop_map(|which| Step::Poll { which }),
        3 => any::<u8>().prop_map(|which| Step::Drop { which }),
        1 => by().prop_map(|by| Step::Reserve { by }),
        2 => Just(Step::Wait),
        2 => (0..3u8, 0..3u8).prop_map(|(instance, mood)| Step::Mood { instance, mood }),
        2 => (0..3u8, any::<bool>()).prop_map(|(instance, hold)| Step::Hold { instance, hold }),
        2 => (0..3u8, any::<bool>()).prop_map(|(instance, up)| Step::Health { instance, up }),
        1 => (0..3u8).prop_map(|instance| Step::Replace { instance }),
    ]
}

struct World {
    set: BackendSet<Limited>,
    instances: [Instance; 3],
    places: [Arc<Semaphore>; 3],
    balance: Balance<Limited>,
    first: ReadyFirst<Limited>,
    hedge: Hedge<Copy>,
    hedged: Hedged,
    asking: Vec<Asking>,
}

impl World {
    fn new() -> Self {
        let set = BackendSet::new();
        let instances = NAMES.map(Instance::new);
        let places = NAMES.map(|_| Arc::new(Semaphore::new(BOUNDS[1])));
        for (instance, place) in instances.iter().zip(&places) {
            set.insert(spec(instance, place)).expect("a new name");
        }
        let balancer = Balancer::new(&set, LeastConnections::default()).expect("takes any set");
        let balance = Balance::new(balancer.clone()).max_in_flight(BOUNDS[0]).candidates(2);
        let first = ReadyFirst::new(balancer).candidates(2);
        let budget = TpsBudget::new(Duration::from_secs(10), 1000, 1.0);
        let hedge = Hedge::new((|()| Some(())) as Copy).budget(budget);
        let hedged = balance.clone().hedge(hedge.clone());
        Self { set, instances, places, balance, first, hedge, hedged, asking: Vec::new() }
    }

    /// Sends as many requests as it takes until slow ones are sent twice, and lets all be slow.
    async fn warm(&self) {
        for _ in 0..=200 {
            self.hedged.clone().oneshot(()).await.expect("ready");
            advance(Duration::from_millis(5)).await;
        }
        self.instances.iter().for_each(|instance| instance.hold(true));
    }

    fn take(&mut self, step: Step) {
        match step {
            Step::Ask { by, polls } => {
                let asking: Pin<Box<dyn Future<Output = _>>> = match by {
                    By::Balance => Box::pin(self.balance.clone().oneshot(())),
                    By::ReadyFirst => Box::pin(self.first.clone().oneshot(())),
                    By::Hedged => Box::pin(self.hedged.clone().oneshot(())),
                };
                self.asking.push(task::spawn(asking));
                let which = self.asking.len() - 1;
                (0..polls).for_each(|_| self.poll(which));
            }
            Step::Poll { which } => {
                if let Some(which) = usize::from(which).checked_rem(self.asking.len()) {
                    self.poll(which);
                }
            }
            Step::Drop { which } => {
                if let Some(which) = usize::from(which).checked_rem(self.asking.len()) {
                    drop(self.asking.swap_remove(which));
                }
            }
            Step::Reserve { by: By::Balance } => {
                let _ = poll_ready(&mut task::spawn(self.balance.clone()));
            }
            Step::Reserve { by: By::ReadyFirst } => {
                let _ = poll_ready(&mut task::spawn(self.first.clone()));
            }
            Step::Reserve { by: By::Hedged } => {
                let _ = poll_ready(&mut task::spawn(self.hedged.clone()));
            }
            Step::Wait => (0..self.asking.len()).rev().for_each(|which| self.poll(which)),
            Step::Mood { instance, mood } => {
                let mood = [Mood::Ready, Mood::Busy, Mood::Broken][usize::from(mood)];
                self.instances[usize::from(instance)].is(mood);
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
                let spec = spec(&self.instances[i], &self.places[i]);
                self.set.insert(spec).expect("it has just gone");
            }
        }
    }

    fn poll(&mut self, which: usize) {
        if self.asking.get_mut(which).is_some_and(|asking| asking.poll().is_ready()) {
            drop(self.asking.swap_remove(which));
        }
    }
}

fn spec(instance: &Instance, place: &Arc<Semaphore>) -> Spec<Limited> {
    let limited = ConcurrencyLimit::with_semaphore(instance.clone(), Arc::clone(place));
    Spec::new(instance.name, limited).limits(Limits::new(BOUNDS[2] as u32))
}

#[test]
fn nothing_is_kept() {
    let config = ProptestConfig { cases: 2000, ..ProptestConfig::default() };
    let sent_twice = Cell::new(0);
    proptest!(config, |(steps in proptest::collection::vec(step(), 1..60))| {
        let mut runtime = tokio::runtime::Builder::new_current_thread();
        let runtime = runtime.enable_time().start_paused(true).build().expect("a runtime");
        let _within = runtime.enter();
        let mut world = World::new();
        runtime.block_on(world.warm());
        for step in steps {
            if let Step::Wait = step {
                runtime.block_on(advance(Duration::from_millis(2)));
            }
            world.take(step);
            for (id, place) in NAMES.iter().zip(&world.places) {
                let snapshot = world.set.snapshot();
                let load = snapshot.find(&(*id).into()).expect("in the set").load().total();
                prop_assert!(load as usize <= BOUNDS[2]);
                prop_assert!(place.available_permits() <= BOUNDS[1]);
            }
        }
        world.asking.clear();
        prop_assert_eq!(load(&world.set), 0);
        for place in &world.places {
            prop_assert_eq!(place.available_permits(), BOUNDS[1]);
        }
        // All places of the balancer are free again, and no more than there were.
        let handle = || task::spawn(world.balance.clone());
        let mut handles: Vec<_> = (0..=BOUNDS[0]).map(|_| handle()).collect();
        let ready = handles.iter_mut().map(|it| poll_ready(it).is_ready());
        let mut wanted = [true; BOUNDS[0] + 1];
        wanted[BOUNDS[0]] = false;
        prop_assert_eq!(ready.collect::<Vec<_>>(), wanted);
        sent_twice.set(sent_twice.get() + world.hedge.hedges_sent());
    });
    assert!(sent_twice.get() > 400, "{sent_twice:?}");
}

/// Many tasks on two threads, each dropped after a random number of polls.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn nothing_is_kept_between_threads_either() {
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
                    let patience = Duration::from_micros(rng.below(300));
                    let (balance, first) = (balance.clone(), first.clone());
                    let hedged = hedged.clone();
                    let asked = async {
                        match rng.below(3) {
                            0 => balance.oneshot(()).await,
                            1 => first.oneshot(()).await,
                            _ => hedged.oneshot(()).await,
                        }
                    };
                    let _ = tokio::time::timeout(patience, asked).await;
                }
            })
        })
        .collect();
    for task in tasks {
        task.await.expect("no panic");
    }
    assert_eq!(load(&world.set), 0);
    assert!(world.places.iter().all(|place| place.available_permits() == BOUNDS[1]));
}
