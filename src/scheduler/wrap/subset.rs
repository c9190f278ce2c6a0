//! Deterministic subsetting: `subset`.
//!
//! After gRFC A68, *Random subsetting*: each client uses a few of the members, those whose names
//! have the highest scores with the client's number.

use std::cmp::Reverse;

use crate::backend::{Member, Members};
use crate::scheduler::hashing::{hash_bytes, mix_bits};
use crate::scheduler::parameter::{
    NESTED_SCHEDULER, ParameterKind, SchedulerFamily, SchedulerInfo, SchedulerParameter,
    SchedulerParameterError,
};
use crate::scheduler::traits::previous_as;
use crate::scheduler::{CompileError, PickContext, Picker, Scheduler};

/// `subset`: restricts the client to a random subset of the members, different for each client.
///
/// Choose it where many clients (or workers, or directors) balance over many backends and each
/// holds connections to every backend that it uses: a client uses `size` backends instead of all.
/// Give every client its own number. A backend has `clients * size / backends` clients on average.
///
/// # The subset
/// The `size` members whose names score highest with the client's number (rendezvous hashing). When
/// a backend is added or removed at most one entry of each subset changes. The subset is drawn from
/// all members that have or had a weight ([`table_weight`](Member::table_weight)), in any state, so
/// that a change of health does not change it; an unusable member is skipped within the subset. If
/// no member of the subset has a share the client uses all members until one has. A retry stays
/// within the subset. Weights count for the inner rule, not for the draw. Slow start, limits and
/// tiers work as without `subset`.
///
/// With the size of the whole set or above, the inner rule uses all members.
///
/// # Spread
/// The draws of clients are independent: with `c` clients, `n` backends and subsets of `k` the
/// clients of one backend are binomial, `c * k / n` with a deviation of `sqrt(c * k / n * (1 - k /
/// n))`. 1000 clients with 20 of 100 backends: 200 each, with a deviation of
/// 13. Choose `k` so that this is even enough; 20 and above are usual.
///
/// # Cost
/// The cost of the inner scheduler over `size` members, and one read. Each change of the set costs
/// a hash and a comparison for each member. 64 bytes for each member of the subset.
///
/// # Examples
/// ```
/// # use lvs::{BackendSet, Balancer, Flow, Spec, scheduler::{RoundRobin, RandomSubset}};
/// # use std::collections::BTreeSet;
/// let set = BackendSet::new();
/// for i in 0..100 {
///     set.insert(Spec::new(format!("server-{i}"), ()))?;
/// }
/// let client = 17;
/// let balancer = Balancer::new(&set, RandomSubset::new(RoundRobin::new(), client, 5)?)?;
/// let used = (0..50)
///     .map(|_| balancer.pick(&Flow::new()).map(|lease| lease.id().clone()))
///     .collect::<Result<BTreeSet<_>, _>>()?;
/// assert_eq!(used.len(), 5);
/// # Ok::<(), Box<dyn std::error::Error>>(())
/// ```
#[derive(Clone, Copy, Debug)]
#[must_use]
pub struct RandomSubset<S> {
    inner: S,
    client: u64,
    size: usize,
}

impl<S: Scheduler> RandomSubset<S> {
    /// Restricts the client of number `client` to `size` members, from which `inner` selects.
    ///
    /// # Errors
    /// [`SchedulerParameterError`] for a size of 0.
    pub fn new(inner: S, client: u64, size: usize) -> Result<Self, SchedulerParameterError> {
        Ok(Self { inner, client, size: SIZE.check_integer("subset", size)? })
    }

    /// Returns the positions of the members that the client uses, in list order.
    fn draw_positions(&self, members: &Members) -> Vec<u32> {
        let score = |member: &Member| {
            let name = hash_bytes(member.id().as_str().as_bytes(), 0);
            mix_bits(mix_bits(self.client) ^ name)
        };
        let mut drawn: Vec<(Reverse<u64>, u32)> = (members.iter().zip(0..))
            .filter(|(member, _)| member.table_weight() != 0)
            .map(|(member, i)| (Reverse(score(member)), i))
            .collect();
        if self.size < drawn.len() {
            drawn.select_nth_unstable(self.size);
            drawn.truncate(self.size);
        }
        let mut positions: Vec<u32> = drawn.into_iter().map(|(_, i)| i).collect();
        if positions.iter().all(|&i| members[i as usize].share() == 0) {
            return (members.iter().zip(0..)).map(|(_, i)| i).collect();
        }
        positions.sort_unstable();
        positions
    }
}

const SIZE: SchedulerParameter = SchedulerParameter::new(
    "size",
    ParameterKind::Integer { min: 1, max: u64::MAX },
    None,
    "The number of servers that this client uses",
);
const CLIENT: SchedulerParameter = SchedulerParameter::new(
    "client",
    ParameterKind::Integer { min: 0, max: u64::MAX },
    Some("0"),
    "The number of this client, different for each client",
);

impl RandomSubset<()> {
    pub(in crate::scheduler) const INFO: SchedulerInfo = SchedulerInfo {
        name: "subset",
        type_name: "RandomSubset",
        family: SchedulerFamily::Wrapper,
        summary: "Restricts this client to a random subset of the servers",
        parameters: &[NESTED_SCHEDULER, SIZE, CLIENT],
    };
}

impl<S: Scheduler> Scheduler for RandomSubset<S> {
    fn name(&self) -> &str {
        "subset"
    }

    fn depends_on_order(&self) -> bool {
        self.inner.depends_on_order()
    }

    fn reads_time(&self) -> bool {
        self.inner.reads_time()
    }

    fn compile(
        &self,
        members: &Members,
        previous: Option<&dyn Picker>,
    ) -> Result<Box<dyn Picker>, CompileError> {
        let previous = previous_as::<RandomSubsetPicker>(previous).map(|old| &*old.inner);
        let positions = self.draw_positions(members);
        let members = Members::new(positions.iter().map(|&i| members[i as usize].clone()));
        let inner = self.inner.compile(&members, previous)?;
        Ok(Box::new(RandomSubsetPicker { inner, members, positions: positions.into() }))
    }
}

#[derive(Debug)]
struct RandomSubsetPicker {
    inner: Box<dyn Picker>,
    members: Members,
    /// The position of each member of the subset in the whole list.
    positions: Box<[u32]>,
}

impl Picker for RandomSubsetPicker {
    fn pick(&self, cx: &mut PickContext<'_>) -> Option<usize> {
        let i = self.inner.pick(&mut cx.with_members(&self.members))?;
        self.positions.get(i).map(|&position| position as usize)
    }
}

#[cfg(all(test, not(lvs_loom)))]
mod tests {
    use std::collections::BTreeSet;

    use super::*;
    use crate::scheduler::testing::{backend_name, set_with_weights};
    use crate::scheduler::{BoundedLoad, Maglev, RoundRobin};
    use crate::{BackendId, BackendSet, Balancer, Flow, Health, Spec};

    fn subset(set: &BackendSet<()>, client: u64, size: usize) -> BTreeSet<BackendId> {
        let snapshot = set.snapshot();
        let members = snapshot.members();
        let drawn =
            RandomSubset::new(RoundRobin, client, size).expect("in range").draw_positions(members);
        drawn.into_iter().map(|i| members[i as usize].id().clone()).collect()
    }

    #[test]
    fn one_change_of_membership_changes_one_entry_at_most() {
        let set = set_with_weights(&[1; 50]);
        let subsets = || (0..200).map(|client| subset(&set, client, 8)).collect::<Vec<_>>();
        let mut changed = 0;
        for i in 0..20 {
            let before = subsets();
            if i % 2 == 0 {
                set.remove(&backend_name(i).into()).expect("known");
            } else {
                set.insert(Spec::new(backend_name(50 + i), ())).expect("new");
            }
            for (before, after) in before.iter().zip(subsets()) {
                assert_eq!(after.len(), 8);
                let new = after.difference(before).count();
                assert!(new <= 1, "{new} new entries");
                changed += new;
            }
        }
        // 20 changes, 200 subsets, 8 in 50.
        assert!((500..780).contains(&changed), "{changed}");
    }

    #[test]
    fn a_change_of_health_or_weight_zero_changes_no_subset() {
        let set = set_with_weights(&[1; 50]);
        let before: Vec<_> = (0..50).map(|client| subset(&set, client, 8)).collect();
        set.set_health(&backend_name(3).into(), Health::Down).expect("known");
        set.set_weight(&backend_name(4).into(), 0).expect("known");
        let after: Vec<_> = (0..50).map(|client| subset(&set, client, 8)).collect();
        assert_eq!(before, after);
    }

    #[test]
    fn clients_of_a_backend_are_binomial() {
        let (clients, backends, size) = (1000u64, 100usize, 20usize);
        let set = set_with_weights(&vec![1; backends]);
        let mut users = std::collections::BTreeMap::new();
        for client in 0..clients {
            for id in subset(&set, client, size) {
                *users.entry(id).or_insert(0u64) += 1;
            }
        }
        let mean = clients * size as u64 / backends as u64;
        let variance =
            users.values().map(|&n| n.abs_diff(mean).pow(2)).sum::<u64>() / backends as u64;
        assert_eq!(users.len(), backends);
        // 200 * 0.8, with three standard deviations of 100 samples.
        assert!((92..228).contains(&variance), "{variance}");
        assert!(users.values().all(|n| n.abs_diff(mean) < 50), "four deviations");
    }

    #[test]
    fn a_subset_without_a_share_uses_all_members() {
        let set = set_with_weights(&[1; 10]);
        let balancer = Balancer::new(&set, RandomSubset::new(RoundRobin, 5, 2).expect("in range"))
            .expect("small");
        let pick = || balancer.pick(&Flow::new()).expect("some are up").id().clone();
        let two = subset(&set, 5, 2);
        assert!((0..10).all(|_| two.contains(&pick())));
        for id in &two {
            set.set_health(id, Health::Down).expect("known");
        }
        let used: BTreeSet<_> = (0..16).map(|_| pick()).collect();
        assert_eq!(used.len(), 8);
        set.set_health(two.first().expect("two"), Health::Up).expect("known");
        assert!((0..10).all(|_| Some(&pick()) == two.first()));
    }

    #[test]
    fn sizes_at_the_edges() {
        let set = set_with_weights(&[1, 0, 3]);
        assert!(RandomSubset::new(RoundRobin, 1, 0).is_err());
        assert_eq!(subset(&set, 1, 2).len(), 2, "weight 0 from the start is not drawn");
        assert_eq!(subset(&set, 1, 9).len(), 2);
        let empty = BackendSet::<()>::new();
        let balancer =
            Balancer::new(&empty, RandomSubset::new(RoundRobin, 1, 3).expect("in range"))
                .expect("small");
        assert!(balancer.pick(&Flow::new()).is_err());
    }

    #[test]
    fn the_inner_rule_keeps_its_cursor() {
        let set = set_with_weights(&[1; 30]);
        let balancer = Balancer::new(&set, RandomSubset::new(RoundRobin, 9, 6).expect("in range"))
            .expect("small");
        let mut used = BTreeSet::new();
        for _ in 0..6 {
            used.insert(balancer.pick(&Flow::new()).expect("usable").id().clone());
            set.set_weight(&backend_name(0).into(), 1).expect("known");
        }
        assert_eq!(used, subset(&set, 9, 6));
    }

    #[test]
    fn subset_works_inside_and_outside_of_bounded() {
        let set = set_with_weights(&[1; 200]);
        let bounded = || BoundedLoad::new(Maglev::new(), 125).expect("above 100");
        let inside = Balancer::new(&set, RandomSubset::new(bounded(), 3, 10).expect("in range"))
            .expect("small");
        let leases: Vec<_> =
            (0..100).map(|_| inside.pick(&Flow::new().key(1)).expect("usable")).collect();
        let load = |id: &BackendId| set.snapshot().find(id).expect("known").load().active;
        assert!(subset(&set, 3, 10).iter().all(|id| load(id) <= 13), "ceil(1.25 * 100 / 10)");
        drop(leases);
        let outside =
            BoundedLoad::new(RandomSubset::new(Maglev::new(), 3, 10).expect("in range"), 2500)
                .expect("above 100");
        let outside = Balancer::new(&set, outside).expect("small");
        let leases: Vec<_> =
            (0..80).map(|_| outside.pick(&Flow::new().key(1)).expect("usable")).collect();
        assert!(subset(&set, 3, 10).iter().all(|id| load(id) <= 10), "ceil(25 * 80 / 200)");
        drop(leases);
    }
}
