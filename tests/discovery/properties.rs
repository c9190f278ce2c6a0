//! For any sequence of updates and failures, the set has the members of the last list and those
//! that drain.

use std::collections::BTreeMap;

use lvs::backend::MAX_WEIGHT;
use proptest::prelude::*;
use proptest::test_runner::RngSeed;

use crate::world::*;

const NAMES: [Target; 5] = ["a", "b", "c", "d", "e"];
const DEADLINE: Duration = Duration::from_secs(2);
/// The longest delay until a drain ends: the poll interval, and the steps of the test.
const MAX_DRAIN_DELAY: Duration = Duration::from_millis(120);

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

/// The members that the source lists, and the removed members with the time when their drain was
/// first seen: a list that is refused as a whole starts no drain.
#[derive(Default)]
struct Model {
    listed: BTreeMap<Target, u32>,
    removed: BTreeMap<Target, Option<tokio::time::Instant>>,
}

impl Model {
    fn list(&mut self, listed: BTreeMap<Target, u32>) {
        for name in self.listed.keys().filter(|name| !listed.contains_key(*name)) {
            self.removed.entry(name).or_insert(None);
        }
        self.removed.retain(|name, _| !listed.contains_key(name));
        self.listed = listed;
    }
}

async fn run(ops: Vec<Op>) -> Result<(), TestCaseError> {
    let world = World::of(BackendSet::new(), |feed| {
        let drain = RemovalPolicy::Drain { deadline: DEADLINE };
        let millisecond = Duration::from_millis(1);
        feed.removal(drain).retry(millisecond, millisecond).expect("in order")
    });
    let balancer = Balancer::new(&world.set, RoundRobin::new()).expect("rr takes any set");
    let mut model = Model::default();
    let mut leases: Vec<Lease<Target>> = Vec::new();
    for op in ops {
        let empty_before = world.status().members == 0;
        match op {
            Op::All(list) => {
                world.all(&list).await;
                if !list.is_empty() {
                    model.list(list.into_iter().collect());
                }
            }
            Op::Insert(name, weight) => {
                world.say(MemberUpdate::Insert(member(name, weight))).await;
                let mut listed = model.listed.clone();
                listed.insert(name, weight);
                model.list(listed);
            }
            Op::Remove(name) => {
                world.say(MemberUpdate::Remove(name.into())).await;
                let mut listed = model.listed.clone();
                listed.remove(name);
                model.list(listed);
            }
            Op::Fail => world.fail().await,
            Op::Pick => leases.extend(balancer.pick(&Flow::new())),
            Op::Release(nth) if nth < leases.len() => drop(leases.swap_remove(nth)),
            Op::Release(_) => {}
            Op::Pass(millis) => sleep(Duration::from_millis(millis)).await,
            Op::Operator(name, admin) => {
                // Only listed members; `drain.rs` tests operators and draining members.
                if model.listed.contains_key(name) {
                    let _ = world.set.edit(|edit| edit.set_admin(&name.into(), admin));
                }
            }
        }
        sleep(MOMENT).await;

        let status = world.status();
        prop_assert!(
            empty_before || status.members > 0 || model.listed.is_empty(),
            "the source lists members, and the set has lost all members"
        );
        let snapshot = world.set.snapshot();
        if status.last_error.is_none() || status.failing_since.is_none() {
            for (name, &weight) in &model.listed {
                let there = snapshot.find(&BackendId::from(*name)).is_some();
                prop_assert!(there || weight > MAX_WEIGHT, "{name} is missing");
            }
            prop_assert_eq!(
                status.members + status.draining,
                snapshot.members().len(),
                "the status counts the members of the set"
            );
        }
        for (backend, member) in snapshot.iter() {
            let name = *backend.target();
            if let Some(&weight) = model.listed.get(name) {
                let refused = weight > MAX_WEIGHT || status.failing_since.is_some();
                prop_assert!(member.weight() == weight || refused, "{name} has another weight");
                continue;
            }
            if status.failing_since.is_some() {
                // Of a list that is refused as a whole nothing is applied, not even a removal.
                continue;
            }
            prop_assert!(
                member.state() != BackendState::Eligible,
                "{name} is removed and gets connections"
            );
            let now = tokio::time::Instant::now();
            let gone = model.removed.get_mut(name).map(|since| *since.get_or_insert(now));
            let gone =
                gone.ok_or_else(|| TestCaseError::fail(format!("{name} was never listed")))?;
            let overdue = gone + DEADLINE + MAX_DRAIN_DELAY < now;
            prop_assert!(!overdue, "{name} drains after its deadline");
        }
        // A lease is counted at its backend until the lease ends, also if the backend is removed.
        for lease in &leases {
            let serial = |lease: &Lease<Target>| std::ptr::from_ref(&**lease.backend());
            let held = leases.iter().filter(|other| serial(other) == serial(lease)).count();
            prop_assert!(lease.backend().load().total() as usize >= held, "a lease was lost");
        }
    }

    // After the last lease has ended, only members that the source lists are left.
    drop(leases);
    sleep(2 * MAX_DRAIN_DELAY).await;
    if world.status().failing_since.is_none() {
        prop_assert_eq!(world.status().draining, 0);
        for backend in world.set.snapshot().backends() {
            prop_assert!(model.listed.contains_key(backend.target()));
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
    fn the_set_has_the_last_list_and_the_draining_members(
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
