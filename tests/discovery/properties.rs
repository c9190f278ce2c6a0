//! Whatever sources say, forget and fail to say: the set is the last good list and those who drain.

use std::collections::BTreeMap;

use lvs::backend::MAX_WEIGHT;
use proptest::prelude::*;
use proptest::test_runner::RngSeed;

use crate::world::*;

const NAMES: [Target; 5] = ["a", "b", "c", "d", "e"];
const DEADLINE: Duration = Duration::from_secs(2);
/// A drain's end is seen so much later at the latest: the interval of looking, and the test's steps.
const SEEN: Duration = Duration::from_millis(120);

#[derive(Clone, Debug)]
enum Op {
    All(Vec<(Target, u32)>),
    Insert(Target, u32),
    Remove(Target),
    Fail,
    Pick,
    Release(usize),
    Pass(u64),
    Operator(Target, BackendAdminState),
}

fn any_op() -> impl Strategy<Value = Op> {
    let name = || prop::sample::select(&NAMES[..]);
    let weight = || prop_oneof![8 => 1..4_u32, 1 => Just(MAX_WEIGHT + 1)];
    let list = prop::collection::vec((name(), weight()), 0..5).prop_map(|mut list| {
        list.sort_unstable();
        list.dedup_by_key(|(name, _)| *name);
        list
    });
    let admin = prop::sample::select(
        &[BackendAdminState::Enabled, BackendAdminState::Draining, BackendAdminState::Disabled][..],
    );
    prop_oneof![
        4 => list.prop_map(Op::All),
        2 => (name(), weight()).prop_map(|(name, weight)| Op::Insert(name, weight)),
        2 => name().prop_map(Op::Remove),
        2 => Just(Op::Fail),
        4 => Just(Op::Pick),
        2 => (0..8_usize).prop_map(Op::Release),
        2 => (0..1500_u64).prop_map(Op::Pass),
        1 => (name(), admin).prop_map(|(name, admin)| Op::Operator(name, admin)),
    ]
}

/// What the source says, and for those that it has dropped since when they were seen to drain: a list
/// that is refused as a whole begins no drain.
#[derive(Default)]
struct Model {
    said: BTreeMap<Target, u32>,
    gone: BTreeMap<Target, Option<tokio::time::Instant>>,
}

impl Model {
    fn say(&mut self, said: BTreeMap<Target, u32>) {
        for name in self.said.keys().filter(|name| !said.contains_key(*name)) {
            self.gone.entry(name).or_insert(None);
        }
        self.gone.retain(|name, _| !said.contains_key(name));
        self.said = said;
    }
}

async fn run(ops: Vec<Op>) -> Result<(), TestCaseError> {
    let world = World::of(BackendSet::new(), |feed| {
        let drain = RemovalPolicy::Drain { deadline: DEADLINE };
        feed.removal(drain).retry(Duration::from_millis(1), Duration::from_millis(1))
    });
    let balancer = Balancer::new(&world.set, RoundRobin).expect("rr takes any set");
    let mut model = Model::default();
    let mut leases: Vec<Lease<Target>> = Vec::new();
    for op in ops {
        let empty_before = world.status().members == 0;
        match op {
            Op::All(list) => {
                world.all(&list).await;
                if !list.is_empty() {
                    model.say(list.into_iter().collect());
                }
            }
            Op::Insert(name, weight) => {
                world.say(MemberUpdate::Insert(member(name, weight))).await;
                let mut said = model.said.clone();
                said.insert(name, weight);
                model.say(said);
            }
            Op::Remove(name) => {
                world.say(MemberUpdate::Remove(name.into())).await;
                let mut said = model.said.clone();
                said.remove(name);
                model.say(said);
            }
            Op::Fail => world.fail().await,
            Op::Pick => leases.extend(balancer.pick(&Flow::new())),
            Op::Release(nth) if nth < leases.len() => drop(leases.swap_remove(nth)),
            Op::Release(_) => {}
            Op::Pass(millis) => sleep(Duration::from_millis(millis)).await,
            Op::Operator(name, admin) => {
                // Not of those that drain: how it gets on with the feed there is in `drain.rs`.
                if model.said.contains_key(name) {
                    let _ = world.set.edit(|edit| edit.set_admin(&name.into(), admin));
                }
            }
        }
        sleep(MOMENT).await;

        let status = world.status();
        prop_assert!(
            empty_before || status.members > 0 || model.said.is_empty(),
            "the source names somebody, and the set has lost everybody"
        );
        let snapshot = world.set.snapshot();
        if status.last_error.is_none() || status.failing_since.is_none() {
            for (name, &weight) in &model.said {
                let there = snapshot.find(&BackendId::from(*name)).is_some();
                prop_assert!(there || weight > MAX_WEIGHT, "{name} is missing");
            }
            prop_assert_eq!(
                status.members + status.draining,
                snapshot.members().len(),
                "the books are those of the set"
            );
        }
        for (backend, member) in snapshot.iter() {
            let name = *backend.target();
            if let Some(&weight) = model.said.get(name) {
                let refused = weight > MAX_WEIGHT || status.failing_since.is_some();
                prop_assert!(member.weight() == weight || refused, "{name} has another weight");
                continue;
            }
            if status.failing_since.is_some() {
                // Nothing of what is refused as a whole is done, not even a removal.
                continue;
            }
            prop_assert!(member.state() != BackendState::Eligible, "{name} is gone and gets work");
            let now = tokio::time::Instant::now();
            let gone = model.gone.get_mut(name).map(|since| *since.get_or_insert(now));
            let gone =
                gone.ok_or_else(|| TestCaseError::fail(format!("{name} was never named")))?;
            let overdue = gone + DEADLINE + SEEN < now;
            prop_assert!(!overdue, "{name} drains for ever");
        }
        // A lease is counted where it was made until it ends, whatever becomes of its backend.
        for lease in &leases {
            let serial = |lease: &Lease<Target>| std::ptr::from_ref(&**lease.backend());
            let held = leases.iter().filter(|other| serial(other) == serial(lease)).count();
            prop_assert!(lease.backend().load().total() as usize >= held, "a lease was lost");
        }
    }

    // In the end all leases are given back, and nothing is left that the source does not name.
    drop(leases);
    sleep(2 * SEEN).await;
    if world.status().failing_since.is_none() {
        prop_assert_eq!(world.status().draining, 0);
        for backend in world.set.snapshot().backends() {
            prop_assert!(model.said.contains_key(backend.target()));
            prop_assert_eq!(backend.load().total(), 0);
        }
    }
    Ok(())
}

fn config() -> ProptestConfig {
    ProptestConfig {
        cases: 2000,
        failure_persistence: None,
        rng_seed: RngSeed::Fixed(0x6c76_7304),
        ..ProptestConfig::default()
    }
}

proptest! {
    #![proptest_config(config())]

    #[test]
    fn the_set_is_the_last_good_list_and_those_who_drain(
        ops in prop::collection::vec(any_op(), 1..60),
    ) {
        let runtime = tokio::runtime::Builder::new_current_thread()
            .enable_time()
            .start_paused(true)
            .build()
            .expect("a runtime");
        runtime.block_on(run(ops))?;
    }
}
