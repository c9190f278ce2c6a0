//! Weighted random: `random`.

use crate::backend::Members;
use crate::scheduler::parameter::{SchedulerFamily, SchedulerInfo};
use crate::scheduler::sampler::WeightedSampler;
use crate::scheduler::{CompileError, PickContext, Picker, Scheduler};

/// `random`: selects a random member, in proportion to weight.
///
/// Choose it where threads or processes must share no state: the rule has none, so that any number
/// of balancers distribute the same load without synchronising with each other. Its shares vary by
/// chance: queues of servers grow far longer than under
/// [`p2c`](crate::scheduler::PowerOfTwoChoices), which costs little more. At 90 % load the 99th
/// percentile of the response time is about 46 mean service times with `random`, 24 with round
/// robin, 9 with `p2c`.
///
/// # Unusable members
/// If the drawn member is at its limit or was tried before, the draw is repeated up to four times;
/// from the fifth draw the list is walked. With a part `u` of the whole share unusable the other
/// members keep their exact proportion in all but `u^5` of the picks (3 % at one half); in these
/// the neighbours of unusable members gain. Members of weight 0 or in another lasting state are not
/// in the table and do not distort shares.
///
/// # Cost
/// One random word and one read of an alias table of 12 bytes a member (4 or none where all weights
/// are equal), for any number of members; a change of the set costs O(n). The table consists of
/// integers and is exact to the last of the 48 bits that divide a member's column.
///
/// # Examples
/// ```
/// # use lvs::{BackendSet, Balancer, Flow, Spec, scheduler::{WeightedRandom, Rng}};
/// let set = BackendSet::new();
/// set.insert(Spec::new("light", ()).weight(1))?;
/// set.insert(Spec::new("heavy", ()).weight(3))?;
/// let balancer = Balancer::new(&set, WeightedRandom::new())?;
/// let mut rng = Rng::with_seed(1);
/// let mut heavy = 0;
/// for _ in 0..10_000 {
///     heavy += usize::from(balancer.pick_with_rng(&Flow::new(), &mut rng)?.id().as_str() == "heavy");
/// }
/// assert!((7_300..7_700).contains(&heavy));
/// # Ok::<(), Box<dyn std::error::Error>>(())
/// ```
#[derive(Clone, Copy, Debug, Default)]
#[non_exhaustive]
pub struct WeightedRandom;

impl WeightedRandom {
    /// Creates the rule.
    #[must_use]
    pub const fn new() -> Self {
        Self
    }
}

#[derive(Debug)]
struct WeightedRandomPicker(WeightedSampler);

impl WeightedRandom {
    pub(in crate::scheduler) const INFO: SchedulerInfo = SchedulerInfo {
        name: "random",
        type_name: "WeightedRandom",
        family: SchedulerFamily::Load,
        summary: "Selects at random in proportion to weight",
        parameters: &[],
    };
}

impl Scheduler for WeightedRandom {
    fn name(&self) -> &str {
        "random"
    }

    fn compile(
        &self,
        members: &Members,
        _previous: Option<&dyn Picker>,
    ) -> Result<Box<dyn Picker>, CompileError> {
        Ok(Box::new(WeightedRandomPicker(WeightedSampler::new(members)?)))
    }
}

impl Picker for WeightedRandomPicker {
    fn pick(&self, cx: &mut PickContext<'_>) -> Option<usize> {
        self.0.pick_usable(cx)
    }
}

#[cfg(all(test, not(lvs_loom)))]
mod tests {
    use super::*;
    use crate::scheduler::testing::{assert_near, balancer, id, percentages, sequence};
    use crate::scheduler::{Flow, Rng};
    use crate::{Limits, PickError};

    #[test]
    fn shares_follow_the_weights() {
        let got = percentages(&balancer(WeightedRandom, &[5, 3, 0, 2]), 100_000);
        assert_near(&got, &[50.0, 30.0, 0.0, 20.0], 0.5);
    }

    #[test]
    fn the_same_seed_repeats_the_run() {
        let run = || sequence(&balancer(WeightedRandom, &[3, 1, 4, 1]), 100);
        assert_eq!(run(), run());
    }

    #[test]
    fn a_single_member_gets_every_pick() {
        assert_eq!(percentages(&balancer(WeightedRandom, &[0, 1]), 100), [0.0, 100.0]);
    }

    #[test]
    fn a_member_at_its_limit_does_not_change_the_proportion_of_the_others() {
        let balancer = balancer(WeightedRandom, &[1, 2, 1]);
        balancer.backend_set().set_limits(&id(0), Limits::new(1)).expect("a limit");
        let held = balancer.lease_by_id(&id(0)).expect("a free place");
        assert_near(&percentages(&balancer, 100_000), &[0.0, 66.7, 33.3], 0.6);
        drop(held);
        assert_near(&percentages(&balancer, 100_000), &[25.0, 50.0, 25.0], 0.5);
    }

    #[test]
    fn tried_members_are_excluded_however_unlikely_the_rest() {
        let balancer = balancer(WeightedRandom, &[65_535, 65_535, 1]);
        let snapshot = balancer.snapshot();
        let [a, b, c] = [0, 1, 2].map(|i| &snapshot.backends()[i]);
        let mut rng = Rng::with_seed(1);
        let flow = Flow::new().excluding(a).excluding(b);
        for _ in 0..100 {
            assert_eq!(balancer.pick_with_rng(&flow, &mut rng).expect("c is left").id(), c.id());
        }
        let flow = flow.excluding(c);
        assert_eq!(balancer.pick_with_rng(&flow, &mut rng).err(), Some(PickError::AllTried));
    }
}
