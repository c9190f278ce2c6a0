//! Power of two choices: `p2c`.

use crate::backend::{Members, PickView};
use crate::scheduler::parameter::{SchedulerFamily, SchedulerInfo};
use crate::scheduler::sampler::WeightedSampler;
use crate::scheduler::{CompileError, PickContext, Picker, Scheduler};

/// `p2c`: selects the less loaded of two different members drawn at random.
///
/// The default choice for requests or connections that last for a while: it distributes load nearly
/// as evenly as a search for the least loaded server, but compares two servers only, and many
/// balancers with the same counts do not all select the same server. `lc` and `wlc` find the least
/// loaded server exactly; where the servers' speeds differ and change, see
/// [`peak_ewma`](crate::scheduler::PeakEwma).
///
/// # The rule
/// Two *different* eligible members are drawn, each in proportion to its weight; the member with
/// fewer active connections per weight is selected, the first drawn if they are equal. Therefore:
/// - an idle set is shared in exact proportion to weight (2:1 gives 66.7 % and 33.3 %);
/// - of two members the busier gets no connection; of three members of equal weight the busiest gets
///   none and the others half each. (Balancers that draw with replacement, as Envoy, send the busiest
///   25 % and 11 %.)
/// - after `n` picks for `n` servers the most loaded one has `ln ln n / ln 2 + O(1)`, about 3 for
///   ten thousand; one random choice gives nearly 7 (M. Mitzenmacher, "The power of two choices in
///   randomized load balancing", 1996).
///
/// If one member holds nearly all of the weight the second draw can hit it again; after four such
/// hits any of the others is drawn. If one of the two is at its limit or was tried before, the
/// other is selected; if both are, a new pair is drawn, up to four times, and then the list is
/// walked from the last draw. A single member gets every pick, a member of weight 0 none.
///
/// # Cost
/// O(1): one random word (two or more where weights differ) and the counters of two members. 12
/// bytes a member where weights differ, 4 where they do not and some members are out; O(n) for a
/// change of the set. No cursor and no other state that threads contend for.
///
/// # Examples
/// ```
/// # use lvs::{BackendSet, Balancer, Flow, Spec, scheduler::PowerOfTwoChoices};
/// let set = BackendSet::new();
/// for name in ["a", "b"] {
///     set.insert(Spec::new(name, ()))?;
/// }
/// let balancer = Balancer::new(&set, PowerOfTwoChoices::new())?;
/// let first = balancer.pick(&Flow::new())?;
/// let second = balancer.pick(&Flow::new())?;
/// assert_ne!(first.id(), second.id(), "the first server is busy");
/// # Ok::<(), Box<dyn std::error::Error>>(())
/// ```
#[derive(Clone, Copy, Debug, Default)]
#[non_exhaustive]
pub struct PowerOfTwoChoices;

impl PowerOfTwoChoices {
    /// Creates the rule.
    #[must_use]
    pub const fn new() -> Self {
        Self
    }
}

/// The picker of `p2c`, and of `peak_ewma` while it has no estimates.
#[derive(Debug)]
pub(in crate::scheduler) struct PowerOfTwoChoicesPicker {
    pub(in crate::scheduler) sampler: WeightedSampler,
    /// Whether worker threads count connections in lanes of their own.
    has_lanes: bool,
}

impl PowerOfTwoChoicesPicker {
    pub(in crate::scheduler) fn new(members: &Members) -> Result<Self, CompileError> {
        let lanes = members.context().is_some_and(|shared| shared.worker_lanes() > 0);
        Ok(Self { sampler: WeightedSampler::new(members)?, has_lanes: lanes })
    }
}

impl PowerOfTwoChoices {
    pub(in crate::scheduler) const INFO: SchedulerInfo = SchedulerInfo {
        name: "p2c",
        type_name: "PowerOfTwoChoices",
        family: SchedulerFamily::Load,
        summary: "Selects the less loaded of two different servers drawn at random by weight",
        parameters: &[],
    };
}

impl Scheduler for PowerOfTwoChoices {
    fn name(&self) -> &str {
        "p2c"
    }

    fn compile(
        &self,
        members: &Members,
        _previous: Option<&dyn Picker>,
    ) -> Result<Box<dyn Picker>, CompileError> {
        Ok(Box::new(PowerOfTwoChoicesPicker::new(members)?))
    }
}

impl Picker for PowerOfTwoChoicesPicker {
    #[inline]
    fn pick(&self, cx: &mut PickContext<'_>) -> Option<usize> {
        if !self.has_lanes {
            return self.sampler.pick_better_of_two(cx, |a, b| {
                is_no_busier(
                    a,
                    a.account.active_outside_lanes(),
                    b,
                    b.account.active_outside_lanes(),
                )
            });
        }
        let lane = cx.lane();
        self.sampler.pick_better_of_two(cx, |a, b| {
            is_no_busier(
                a,
                a.account.approximate_active(lane),
                b,
                b.account.approximate_active(lane),
            )
        })
    }
}

/// `active_a / share(a) <= active_b / share(b)`, multiplied out.
#[inline]
fn is_no_busier(a: PickView<'_>, active_a: u32, b: PickView<'_>, active_b: u32) -> bool {
    u64::from(active_a) * u64::from(b.share) <= u64::from(active_b) * u64::from(a.share)
}

#[cfg(all(test, not(lvs_loom)))]
mod tests {
    use super::*;
    use crate::scheduler::testing::{assert_near, balancer, id, percentages, position, sequence};
    use crate::scheduler::{Flow, Rng};
    use crate::{Balancer, Lease, Limits, PickError};

    fn busy(balancer: &Balancer<()>, position: usize, active: u32) {
        let snapshot = balancer.snapshot();
        snapshot.backends()[position].set_load(active, 0);
    }

    // Envoy's least_request_lb_simulation_test.cc states these for two draws with replacement
    // (44.45/44.45/11.1 and 75/25); without, the busiest of two is never chosen.
    #[test]
    fn the_busiest_member_is_never_chosen() {
        let three = balancer(PowerOfTwoChoices, &[1, 1, 1]);
        busy(&three, 2, 10);
        assert_near(&percentages(&three, 100_000), &[50.0, 50.0, 0.0], 1.0);
        let two = balancer(PowerOfTwoChoices, &[1, 1]);
        busy(&two, 0, 10);
        assert_eq!(percentages(&two, 1000), [0.0, 100.0]);
    }

    #[test]
    fn an_idle_set_is_shared_by_weight() {
        assert_near(
            &percentages(&balancer(PowerOfTwoChoices, &[2, 1]), 100_000),
            &[66.7, 33.3],
            1.0,
        );
        let got = percentages(&balancer(PowerOfTwoChoices, &[1, 0, 7, 2]), 100_000);
        assert_near(&got, &[10.0, 0.0, 70.0, 20.0], 1.0);
    }

    #[test]
    fn equal_load_per_weight_is_a_tie() {
        let balancer = balancer(PowerOfTwoChoices, &[2, 1]);
        busy(&balancer, 0, 4);
        busy(&balancer, 1, 2);
        assert_near(&percentages(&balancer, 100_000), &[66.7, 33.3], 1.0);
        busy(&balancer, 0, 5);
        assert_eq!(percentages(&balancer, 1000), [0.0, 100.0]);
    }

    #[test]
    fn inactive_connections_do_not_count() {
        let balancer = balancer(PowerOfTwoChoices, &[1, 1]);
        balancer.snapshot().backends()[0].set_load(0, 50);
        assert_near(&percentages(&balancer, 10_000), &[50.0, 50.0], 2.0);
    }

    #[test]
    fn as_many_connections_as_servers_give_a_maximum_of_three() {
        let mut rng = Rng::with_seed(9);
        let mut fullest = Vec::new();
        for _ in 0..10 {
            let balancer = balancer(PowerOfTwoChoices, &[1; 1000]);
            let held: Vec<Lease<()>> = (0..1000)
                .map(|_| balancer.pick_with_rng(&Flow::new(), &mut rng).expect("a pick"))
                .collect();
            fullest.push(held.iter().map(|lease| lease.backend().load().active).max());
        }
        let sum: u32 = fullest.iter().flatten().sum();
        assert!((28..=33).contains(&sum), "a mean of about 3.0: {fullest:?}");
    }

    #[test]
    fn held_connections_settle_in_proportion_to_weight() {
        let balancer = balancer(PowerOfTwoChoices, &[4, 2, 1, 1]);
        let mut rng = Rng::with_seed(5);
        let mut counts = [0; 4];
        let held: Vec<Lease<()>> = (0..800)
            .map(|_| balancer.pick_with_rng(&Flow::new(), &mut rng).expect("a pick"))
            .collect();
        held.iter().for_each(|lease| counts[position(lease)] += 1);
        for (count, want) in counts.into_iter().zip([400, 200, 100, 100]) {
            assert!(i32::abs_diff(count, want) <= 6, "{counts:?}");
        }
    }

    #[test]
    fn the_same_seed_repeats_the_run() {
        let run = || sequence(&balancer(PowerOfTwoChoices, &[3, 1, 4, 1]), 100);
        assert_eq!(run(), run());
    }

    #[test]
    fn a_member_at_its_limit_or_tried_is_passed_over() {
        let balancer = balancer(PowerOfTwoChoices, &[100, 1, 1]);
        balancer.backend_set().set_limits(&id(0), Limits::new(1)).expect("a limit");
        let held = balancer.lease_by_id(&id(0)).expect("a free place");
        assert_near(&percentages(&balancer, 10_000), &[0.0, 50.0, 50.0], 3.0);
        let snapshot = balancer.snapshot();
        let mut rng = Rng::with_seed(6);
        let flow = Flow::new().excluding(&snapshot.backends()[1]);
        assert_eq!(position(&balancer.pick_with_rng(&flow, &mut rng).expect("one left")), 2);
        let flow = flow.excluding(&snapshot.backends()[2]);
        assert_eq!(balancer.pick_with_rng(&flow, &mut rng).err(), Some(PickError::AllAtLimit));
        drop(held);
        assert_eq!(position(&balancer.pick_with_rng(&flow, &mut rng).expect("free again")), 0);
    }

    #[test]
    fn a_single_member_gets_every_pick() {
        assert_eq!(percentages(&balancer(PowerOfTwoChoices, &[0, 1]), 100), [0.0, 100.0]);
    }
}
