//! Replays decisions that were recorded from a running IPVS.
//!
//! Each file of `tests/fixtures/ipvs` (or of the folder in `LVS_IPVS_TRACES`) is replayed: the set
//! is built as in the recording, its counters are set to those of the kernel before each
//! connection, and the selected server must be the kernel's. The first difference fails the test.

use std::net::{Ipv4Addr, SocketAddr};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::{Duration, Instant};

use lvs::balancer::Persistence;
use lvs::scheduler::{self, Rng};
use lvs::{BackendId, BackendSet, Balancer, Flow, Lease, Limits, PickError, Scheduler, Spec};
use serde::Deserialize;

#[derive(Debug, Deserialize)]
struct Recording {
    scheduler: String,
    flags: Vec<String>,
    persistence: Option<PersistenceRule>,
    steps: Vec<Step>,
}

#[derive(Debug, Deserialize)]
struct PersistenceRule {
    timeout_s: u64,
    netmask: Ipv4Addr,
}

#[derive(Debug, Deserialize)]
#[serde(tag = "op", rename_all = "lowercase")]
enum Step {
    Add {
        server: SocketAddr,
        weight: u32,
        #[serde(default)]
        upper_threshold: u32,
        #[serde(default)]
        lower_threshold: u32,
    },
    Weight {
        server: SocketAddr,
        weight: u32,
    },
    Remove {
        server: SocketAddr,
    },
    Connect {
        client: SocketAddr,
        vip: SocketAddr,
        before: Vec<Destination>,
        picked: Option<SocketAddr>,
    },
    /// The effect is in the counters of the next `before`.
    Close {},
    /// The effect is in the counters of the next `before`.
    Reset {},
}

#[derive(Debug, Deserialize, PartialEq)]
struct Destination {
    server: SocketAddr,
    weight: u32,
    active: u32,
    inactive: u32,
}

#[test]
fn every_decision_equals_the_recorded_one() {
    let folder = folder();
    let mut files: Vec<PathBuf> = std::fs::read_dir(&folder)
        .unwrap_or_else(|e| panic!("cannot read {}: {e}", folder.display()))
        .map(|entry| entry.expect("a readable folder").path())
        .filter(|path| path.extension().is_some_and(|extension| extension == "json"))
        .collect();
    files.sort();
    assert!(!files.is_empty(), "no recordings in {}", folder.display());

    let decisions: usize = files.iter().map(|file| replay(file)).sum();
    println!("{decisions} decisions of {} recordings compared, no difference", files.len());
    assert!(decisions > 0, "the recordings in {} contain no connection", folder.display());
}

fn folder() -> PathBuf {
    match std::env::var_os("LVS_IPVS_TRACES") {
        Some(folder) => folder.into(),
        None => Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/fixtures/ipvs"),
    }
}

/// The balancer, alone or with persistence.
enum Picks {
    Plain(Balancer<SocketAddr>),
    Sticky(Persistence<SocketAddr>, Instant),
}

fn replay(file: &Path) -> usize {
    let name = file.file_name().unwrap_or_default().to_string_lossy();
    let text = std::fs::read(file).unwrap_or_else(|e| panic!("{name}: {e}"));
    let recording: Recording =
        serde_json::from_slice(&text).unwrap_or_else(|e| panic!("{name}: {e}"));

    let set = BackendSet::new();
    let picks = picks(&set, &recording);
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
                mirror(&set, before, &format!("{name}, step {number}"));
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
    let balancer = Balancer::new(set, scheduler_of(recording)).expect("an empty set");
    match &recording.persistence {
        None => Picks::Plain(balancer),
        Some(rule) => {
            let prefix = u32::from(rule.netmask).count_ones() as u8;
            let timeout = Duration::from_secs(rule.timeout_s);
            #[expect(clippy::disallowed_methods, reason = "any moment serves: none passes")]
            let now = Instant::now();
            let sticky = Persistence::builder(timeout).ipv4_prefix(prefix).build(balancer);
            Picks::Sticky(sticky.expect("in range"), now)
        }
    }
}

fn scheduler_of(recording: &Recording) -> Arc<dyn Scheduler> {
    let text = match recording.flags.as_slice() {
        [] => recording.scheduler.clone(),
        flags => format!("{}({})", recording.scheduler, flags.join(", ")),
    };
    scheduler::parse(&text).unwrap_or_else(|e| panic!("{text}: {e}"))
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

/// Sets the counters to the kernel's, and asserts that the list equals the kernel's.
fn mirror(set: &BackendSet<SocketAddr>, before: &[Destination], place: &str) {
    let snapshot = set.snapshot();
    let ours = snapshot.iter().map(|(backend, member)| (*backend.target(), member.weight()));
    let theirs = before.iter().map(|destination| (destination.server, destination.weight));
    assert_eq!(ours.collect::<Vec<_>>(), theirs.collect::<Vec<_>>(), "{place}: the list differs");
    for (backend, destination) in snapshot.backends().iter().zip(before) {
        backend.set_load(destination.active, destination.inactive);
    }
}
