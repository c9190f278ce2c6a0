//! Consistent hashing with bounded loads: `bounded`.
//!
//! After V. Mirrokni, M. Thorup and M. Zadimoghaddam, *Consistent Hashing with Bounded Loads*,
//! SODA 2018 (arXiv 1608.01350, 2016): no member has more than a factor of its fair share of all
//! connections; a key whose owner is full goes to the next member in the order of the hash.

use std::ops::Range;

use crate::backend::Members;
use crate::scheduler::group_cache::GroupCache;
use crate::scheduler::parameter::{
    NESTED_SCHEDULER, ParameterKind, SchedulerFamily, SchedulerInfo, SchedulerParameter,
    SchedulerParameterError,
};
use crate::scheduler::pick_context::LoadBound;
use crate::scheduler::traits::previous_as;
use crate::scheduler::{CompileError, PickContext, Picker, Scheduler};

/// `bounded`: restricts each member to a factor of its fair share of all connections.
///
/// Choose it for affinity where some keys are far busier than others: a popular key spills over to
/// the next members of its order instead of overloading its owner, and returns as the load falls.
/// Wrap [`ring`](crate::scheduler::RingHash), [`maglev`](crate::scheduler::Maglev) or
/// [`rendezvous`](crate::scheduler::RendezvousHash); any other rule that checks
/// [`PickContext::is_usable`] works as well.
///
/// # The bound
/// With `total` connections on the eligible members, a member of weight `w` takes a new connection
/// only while it has fewer than `ceil(factor * w * (total + 1) / sum of their weights)`. Active and
/// inactive connections count equally. Members that are not eligible are left out of both sums: the
/// connections of a draining member do not raise the bound.
///
/// A factor near 100 % approaches least connections, without affinity; a large factor approaches
/// the plain hash. 125 to 200 are usual. With a ring of 160 points, 100 members, 2000 connections
/// and keys by Zipf's law (1.0 over 10 000 keys):
///
/// | factor | connections away from their owner |
/// |---|---|
/// | 200 % | 26 % |
/// | 150 % | 35 % |
/// | 125 % | 44 % |
/// | 110 % | 56 % |
///
/// The bound is exact for consecutive picks. Threads that pick at the same time can each count the
/// same free place, so that a member can exceed the bound by the number of such picks. The bound is
/// checked at picks only: when load falls elsewhere a member can be above it, and gets no new
/// connections.
///
/// If no member below the bound is usable (all are at their limits, or were tried before) the inner
/// rule picks without the bound: the bound moves work and never refuses it.
///
/// # Cost
/// The cost of the inner scheduler and of the total. The total is cached for about sqrt(n) groups
/// of members and computed again only for groups whose load has changed: about 50 ns for 10 or 100
/// members and 110 to 170 ns for 1000, if no key repeats. Every lease of the set then updates the
/// version of its group.
///
/// # Examples
/// ```
/// # use lvs::{BackendSet, Balancer, Flow, Spec, scheduler::{BoundedLoad, RingHash}};
/// let set = BackendSet::new();
/// for name in ["a", "b", "c", "d"] {
///     set.insert(Spec::new(name, ()))?;
/// }
/// let balancer = Balancer::new(&set, BoundedLoad::new(RingHash::new(), 125)?)?;
/// // One key, 40 connections: the owner takes 125 % of its fair share, the others the rest.
/// let hot = Flow::new().key(7);
/// let leases = (0..40).map(|_| balancer.pick(&hot)).collect::<Result<Vec<_>, _>>()?;
/// let most = set.snapshot().backends().iter().map(|b| b.load().active).max();
/// assert_eq!(most, Some(13));
/// # drop(leases);
/// # Ok::<(), Box<dyn std::error::Error>>(())
/// ```
#[derive(Clone, Copy, Debug)]
#[must_use]
pub struct BoundedLoad<S> {
    inner: S,
    factor_percent: u32,
}

impl<S: Scheduler> BoundedLoad<S> {
    /// Bounds the loads under `inner` by a factor, in percent of a member's fair share.
    ///
    /// HAProxy and Envoy call it the hash balance factor.
    ///
    /// # Errors
    /// [`SchedulerParameterError`] for a factor that is not within 101..=100000.
    pub fn new(inner: S, factor_percent: u32) -> Result<Self, SchedulerParameterError> {
        FACTOR.check_decimal("bounded", f64::from(factor_percent) / 100.0)?;
        Ok(Self { inner, factor_percent })
    }
}

const FACTOR: SchedulerParameter = SchedulerParameter::new(
    "factor",
    ParameterKind::Decimal { min: 1.01, max: 1000.0 },
    Some("1.25"),
    "The largest load of a server relative to its fair share",
);

impl BoundedLoad<()> {
    pub(in crate::scheduler) const INFO: SchedulerInfo = SchedulerInfo {
        name: "bounded",
        type_name: "BoundedLoad",
        family: SchedulerFamily::Wrapper,
        summary: "Restricts each server to a factor of its fair share of all connections",
        parameters: &[NESTED_SCHEDULER, FACTOR],
    };
}

impl<S: Scheduler> Scheduler for BoundedLoad<S> {
    fn name(&self) -> &str {
        "bounded"
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
        let previous = previous_as::<BoundedLoadPicker>(previous).map(|old| &*old.inner);
        let weights: u64 =
            members.iter().filter(|m| m.share() != 0).map(|m| u64::from(m.weight())).sum();
        Ok(Box::new(BoundedLoadPicker {
            inner: self.inner.compile(members, previous)?,
            group_cache: GroupCache::new(members),
            factor_percent: u128::from(self.factor_percent),
            denominator: 100 * u128::from(weights),
        }))
    }
}

#[derive(Debug)]
struct BoundedLoadPicker {
    inner: Box<dyn Picker>,
    group_cache: GroupCache,
    factor_percent: u128,
    /// 100 times the sum of the eligible members' weights.
    denominator: u128,
}

impl BoundedLoadPicker {
    /// Returns the number of connections on the eligible members.
    fn total_load(&self, members: &Members) -> u64 {
        let sum = |range: Range<usize>| {
            let eligible = range.map(|i| &members[i]).filter(|m| m.share() != 0);
            eligible.fold(0u32, |sum, m| sum.saturating_add(m.load().total()))
        };
        (0..self.group_cache.group_count())
            .map(|run| u64::from(self.group_cache.value_or_compute(run, sum)))
            .sum()
    }
}

impl Picker for BoundedLoadPicker {
    fn pick(&self, cx: &mut PickContext<'_>) -> Option<usize> {
        let total = self.total_load(cx.members());
        let numerator = self.factor_percent * (u128::from(total) + 1);
        let bound = LoadBound { numerator, denominator: self.denominator };
        self.inner.pick(&mut cx.with_load_bound(&bound)).or_else(|| self.inner.pick(cx))
    }
}

#[cfg(all(test, not(lvs_loom)))]
mod tests {
    use super::*;
    use crate::scheduler::testing::{backend_name, set_with_weights};
    use crate::scheduler::{Maglev, RendezvousHash, RingHash, Rng, RoundRobin};
    use crate::{BackendSet, Balancer, Flow, Health, Lease, Limits};

    fn over<S: Scheduler + 'static>(set: &BackendSet<()>, inner: S, percent: u32) -> Balancer<()> {
        let rule = BoundedLoad::new(inner, percent).expect("above 100");
        Balancer::new(set, rule).expect("small")
    }

    #[test]
    fn a_factor_of_100_percent_is_refused() {
        let error = BoundedLoad::new(RingHash::new(), 100).expect_err("not above 100 %");
        assert_eq!(error.to_string(), "bounded: factor=1 is not a number from 1.01 to 1000");
        assert!(BoundedLoad::new(RingHash::new(), 101).is_ok());
    }

    /// Asserts after each pick that the selected member is within its bound.
    fn check(set: &BackendSet<()>, balancer: &Balancer<()>, percent: u64, weights: u64) {
        let mut rng = Rng::with_seed(4);
        let mut leases: Vec<Lease<()>> = Vec::new();
        for step in 0..3000 {
            let total = leases.len() as u64;
            if total > 300 || (total > 0 && rng.below(4) == 0) {
                drop(leases.swap_remove(rng.below(total) as usize));
                continue;
            }
            let flow = Flow::new().key(rng.below(5) * rng.below(5));
            let lease = balancer.pick_with_rng(&flow, &mut rng).expect("room");
            let snapshot = set.snapshot();
            let position = snapshot.members().iter().position(|m| m.id() == lease.id());
            let weight = u64::from(snapshot.members()[position.expect("known")].weight());
            let cap = (percent * weight * (total + 1)).div_ceil(100 * weights);
            let load = u64::from(lease.backend().load().total());
            assert!(load <= cap, "step {step}: {load} connections, {cap} allowed");
            leases.push(lease);
        }
    }

    #[test]
    fn no_member_exceeds_the_bound() {
        let weights: Vec<u32> = (0..40).map(|i| 1 + i % 5).collect();
        let set = set_with_weights(&weights);
        for percent in [101, 125, 300] {
            check(&set, &over(&set, RingHash::new(), percent), percent.into(), 120);
            check(&set, &over(&set, Maglev::new(), percent), percent.into(), 120);
            check(&set, &over(&set, RendezvousHash::new(), percent), percent.into(), 120);
            check(&set, &over(&set, RendezvousHash::table(), percent), percent.into(), 120);
        }
    }

    #[test]
    fn only_eligible_members_count() {
        let set = set_with_weights(&[1, 1, 1, 1]);
        let balancer = over(&set, RingHash::new(), 125);
        for i in 0..2 {
            let down = &set.snapshot().backends()[i].clone();
            down.set_load(1000, 0);
            set.set_health(down.id(), Health::Down).expect("known");
        }
        let leases: Vec<_> =
            (0..20).map(|_| balancer.pick(&Flow::new().key(1)).expect("two are up")).collect();
        let loads: Vec<u32> =
            set.snapshot().backends()[2..].iter().map(|b| b.load().active).collect();
        assert_eq!(loads.iter().max(), Some(&13), "ceil(1.25 * 20 / 2)");
        assert_eq!(loads.iter().sum::<u32>(), 20);
        drop(leases);
    }

    #[test]
    fn the_bound_is_ignored_before_work_is_refused() {
        let set = set_with_weights(&[1, 1]);
        set.set_limits(&backend_name(0).into(), Limits::new(1)).expect("sound");
        let balancer = over(&set, RingHash::new(), 125);
        let leases: Vec<_> = (0..50).map(|key| balancer.pick(&Flow::new().key(key))).collect();
        assert!(leases.iter().all(Result::is_ok), "one of the two has no limit");
    }

    #[test]
    fn the_inner_rule_keeps_its_state_across_changes() {
        let set = set_with_weights(&[1; 5]);
        let balancer = over(&set, RoundRobin, 400);
        let mut order = Vec::new();
        for _ in 0..5 {
            order.push(balancer.pick(&Flow::new()).expect("usable").id().to_string());
            set.set_weight(&backend_name(0).into(), 1).expect("known");
        }
        assert_eq!(order, (0..5).rev().map(backend_name).collect::<Vec<_>>());
    }
}
