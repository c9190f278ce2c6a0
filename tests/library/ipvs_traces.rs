//! Replays decisions that were recorded from a running IPVS.
//!
//! Each file of `tests/fixtures/ipvs` (or of the folder in `LVS_IPVS_TRACES`) is replayed: the set
//! is built as in the recording, its counters are set to those of the kernel before each
//! connection, and the selected server must be the kernel's. The first difference fails the test.

use std::net::SocketAddr;
use std::time::{Duration, Instant};

use lvs::balancer::Persistence;
use lvs::scheduler::{self, Rng};
use lvs::{BackendId, BackendSet, Balancer, Flow, Lease, Limits, PickError, Spec};

use self::ipvs_recordings::{Recording, Step, mirror};

#[path = "../common/ipvs_recordings.rs"]
mod ipvs_recordings;

#[test]
fn every_decision_equals_the_recorded_one() {
    let recordings = Recording::read_all();
    let decisions: usize = recordings.iter().map(replay).sum();
    println!("{decisions} decisions of {} recordings compared, no difference", recordings.len());
    assert!(decisions > 0, "the recordings contain no connection");
}

/// The balancer, alone or with persistence.
enum Picks {
    Plain(Balancer<SocketAddr>),
    Sticky(Persistence<SocketAddr>, Instant),
}

fn replay(recording: &Recording) -> usize {
    let name = &recording.name;
    let set = BackendSet::new();
    let picks = picks(&set, recording);
    let mut rng = Rng::with_seed(1);
    let mut decisions = 0;
    for (number, step) in recording.steps.iter().enumerate() {
        match step {
            Step::Add { server, weight, upper_threshold, lower_threshold } => {
                let limits = Limits::new(*upper_threshold).with_resume_below(*lower_threshold);
                set.insert(Spec::from(*server).weight(*weight).limits(limits)).map(drop)
            }
            Step::Weight { server, weight } => set.set_weight(&BackendId::from(*server), *weight),
            Step::Remove { server } => set.remove(&BackendId::from(*server)).map(drop),
            Step::Close {} | Step::Reset {} => Ok(()),
            Step::Connect { client, vip, before, picked } => {
                mirror(&set.snapshot(), before, &format!("{name}, step {number}"));
                let choice = picks.pick(*client, *vip, &mut rng);
                let ours = choice.as_ref().ok().map(|lease| *lease.target());
                assert_eq!(
                    ours, *picked,
                    "{name}, step {number}: lvs on the left, the kernel on the right; {choice:?}\n{step:#?}"
                );
                // The lease counted for the thresholds; from here on the recording counts.
                if let Ok(lease) = choice {
                    lease.detach();
                }
                decisions += 1;
                Ok(())
            }
        }
        .unwrap_or_else(|e| panic!("{name}, step {number}: {e}"));
    }
    decisions
}

fn picks(set: &BackendSet<SocketAddr>, recording: &Recording) -> Picks {
    let text = recording.expression();
    let rule = scheduler::parse(&text).unwrap_or_else(|e| panic!("{text}: {e}"));
    let balancer = Balancer::new(set, rule).expect("an empty set");
    match &recording.persistence {
        None => Picks::Plain(balancer),
        Some(rule) => {
            let timeout = Duration::from_secs(rule.timeout_s);
            #[expect(clippy::disallowed_methods, reason = "any moment serves: none passes")]
            let now = Instant::now();
            let sticky = Persistence::builder(timeout).ipv4_prefix(rule.prefix()).build(balancer);
            Picks::Sticky(sticky.expect("in range"), now)
        }
    }
}

impl Picks {
    fn pick(
        &self,
        client: SocketAddr,
        vip: SocketAddr,
        rng: &mut Rng,
    ) -> Result<Lease<SocketAddr>, PickError> {
        let flow = Flow::from(client).destination(vip);
        match self {
            Self::Plain(balancer) => balancer.pick_with_rng(&flow, rng),
            Self::Sticky(persistence, now) => {
                persistence.pick_with_rng(&flow.source(client), rng, *now)
            }
        }
    }
}
