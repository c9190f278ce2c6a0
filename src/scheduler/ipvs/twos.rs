//! The kernel's weighted power of two choices: `twos`.

use std::hint::select_unpredictable;

use crate::backend::Members;
use crate::scheduler::ipvs::least_cost::ConnectionOverhead;
use crate::scheduler::parameter::{SchedulerFamily, SchedulerInfo};
use crate::scheduler::sampler::WeightedSampler;
use crate::scheduler::{CompileError, PickContext, Picker, Rng, Scheduler};

/// `twos`: selects the less loaded of two members drawn at random by weight.
///
/// Choose it where decisions must follow Linux's rule; [`p2c`](crate::scheduler::PowerOfTwoChoices)
/// never draws the same server twice and is quicker.
///
/// Decides as the kernel's `ip_vs_twos`, with the same probabilities: two draws *with* replacement
/// from 0 up to and including the sum of weights, so that the first server in the list has a share
/// larger by one; load is the overhead of `wlc`. The kernel's random numbers cannot be repeated, so
/// `twos` is the only kernel scheduler that is not tested against recorded decisions.
///
/// # Cost
/// O(1) by an alias table, where the kernel walks its list; O(n) while a member has a connection
/// limit and on a retry, because members must be left out. 12 bytes a member where weights differ.
///
/// # Examples
/// ```
/// # use lvs::{BackendSet, Balancer, Flow, Spec, scheduler::IpvsTwoChoices};
/// let set = BackendSet::new();
/// let balancer = Balancer::new(&set, IpvsTwoChoices::new())?;
/// set.insert(Spec::new("a", ()))?;
/// set.insert(Spec::new("b", ()))?;
/// assert!(balancer.pick(&Flow::new()).is_ok());
/// # Ok::<(), Box<dyn std::error::Error>>(())
/// ```
#[derive(Clone, Copy, Debug, Default)]
#[must_use]
pub struct IpvsTwoChoices {
    overhead: ConnectionOverhead,
}

impl IpvsTwoChoices {
    /// Creates the rule with the classic overhead.
    pub const fn new() -> Self {
        Self { overhead: ConnectionOverhead::Classic }
    }

    /// Sets how inactive connections count. Default: [`ConnectionOverhead::Classic`].
    pub const fn overhead(self, overhead: ConnectionOverhead) -> Self {
        Self { overhead }
    }
}

impl IpvsTwoChoices {
    pub(in crate::scheduler) const INFO: SchedulerInfo = SchedulerInfo {
        name: "twos",
        type_name: "IpvsTwoChoices",
        family: SchedulerFamily::Ipvs,
        summary: "Selects the less loaded of two servers drawn at random by weight, with replacement",
        parameters: &[ConnectionOverhead::PARAMETER],
    };
}

impl Scheduler for IpvsTwoChoices {
    fn name(&self) -> &str {
        "twos"
    }

    fn compile(
        &self,
        members: &Members,
        _previous: Option<&dyn Picker>,
    ) -> Result<Box<dyn Picker>, CompileError> {
        // In units of 2^-64: the probability that a draw is 0, and that two draws are.
        let zero = u128::from(u64::MAX) / u128::from(members.share_sum() + 1);
        let both = (zero * zero) >> u64::BITS;
        Ok(Box::new(IpvsTwoChoicesPicker {
            overhead: self.overhead,
            sampler: WeightedSampler::new(members)?,
            zero_thresholds: [zero, 2 * zero - both]
                .map(|threshold| u64::try_from(threshold).unwrap_or(u64::MAX)),
            first_eligible: members.iter().position(|m| m.share() != 0),
        }))
    }
}

#[derive(Debug)]
struct IpvsTwoChoicesPicker {
    overhead: ConnectionOverhead,
    sampler: WeightedSampler,
    /// The kernel draws from one number more than there are shares, and 0 belongs to the first
    /// member. The probabilities, in units of 2^-64, that the first of two draws is 0, and that
    /// either is.
    zero_thresholds: [u64; 2],
    /// The member that a draw of 0 selects.
    first_eligible: Option<usize>,
}

impl Picker for IpvsTwoChoicesPicker {
    fn pick(&self, cx: &mut PickContext<'_>) -> Option<usize> {
        let members = cx.members();
        let (first, second) = if cx.is_unrestricted() && !members.has_limits() {
            let random = cx.rng().next_u64();
            let drawn = self.sampler.draw_pair(cx.rng())?;
            if random < self.zero_thresholds[1] {
                self.replace_zero_draws(random, drawn, cx.rng())?
            } else {
                drawn
            }
        } else {
            draw_usable_pair(cx)?
        };
        let (a, b) = (members.pick_view(first)?, members.pick_view(second)?);
        let is_first_busier = u64::from(b.share) * self.overhead.cost(a.account.load())
            > u64::from(a.share) * self.overhead.cost(b.account.load());
        Some(select_unpredictable(is_first_busier, second, first))
    }
}

impl IpvsTwoChoicesPicker {
    /// Replaces the draws of 0, of which there is at least one.
    #[cold]
    fn replace_zero_draws(
        &self,
        random: u64,
        (first, second): (usize, usize),
        rng: &mut Rng,
    ) -> Option<(usize, usize)> {
        if random >= self.zero_thresholds[0] {
            return Some((first, self.first_eligible?));
        }
        let is_second_zero = rng.next_u64() < self.zero_thresholds[0];
        Some((self.first_eligible?, if is_second_zero { self.first_eligible? } else { second }))
    }
}

/// Draws both members by a walk over the members that are usable now.
#[inline(never)]
fn draw_usable_pair(cx: &mut PickContext<'_>) -> Option<(usize, usize)> {
    let members = cx.members();
    let usable = (0..members.len()).filter(|&i| cx.is_usable(i));
    let sum: u64 = usable.map(|i| u64::from(members[i].share())).sum();
    let draws = [cx.rng().below(sum + 1), cx.rng().below(sum + 1)];
    let find = |draw: u64| {
        let mut sum = 0;
        (0..members.len()).filter(|&i| cx.is_usable(i)).find(|&i| {
            sum += u64::from(members[i].share());
            draw <= sum
        })
    };
    Some((find(draws[0])?, find(draws[1])?))
}

#[cfg(all(test, not(lvs_loom)))]
mod tests {
    use super::*;
    use crate::backend::{BackendSet, Limits, Spec};
    use crate::scheduler::Flow;

    fn counts(set: &BackendSet<()>, picks: usize) -> Vec<usize> {
        let snapshot = set.snapshot();
        let members = snapshot.members();
        let picker = IpvsTwoChoices::new().compile(members, None).expect("no limit of members");
        let (flow, mut rng) = (Flow::new(), Rng::with_seed(1));
        let mut counts = vec![0; members.len()];
        for _ in 0..picks {
            counts[picker.pick(&mut PickContext::new(members, &flow, &mut rng)).expect("one")] += 1;
        }
        counts
    }

    /// Weights 1, 0, 3 in list order; the middle one has no share.
    fn set(limits: Limits) -> BackendSet<()> {
        let set = BackendSet::new();
        for (name, weight) in [("c", 3), ("b", 0), ("a", 1)] {
            set.insert(Spec::new(name, ()).weight(weight).limits(limits)).expect("sound");
        }
        set
    }

    #[test]
    fn in_an_idle_set_the_first_member_has_a_share_larger_by_one() {
        // Draws 0..=4: 0 and 1 fall on the first, 2 to 4 on the last.
        for limits in [Limits::NONE, Limits::new(9)] {
            let counts = counts(&set(limits), 100_000);
            assert!((39_000..41_000).contains(&counts[0]), "{counts:?}");
            assert_eq!(counts[1], 0);
        }
    }

    #[test]
    fn a_busy_member_is_selected_only_when_drawn_twice() {
        let set = set(Limits::NONE);
        set.snapshot().backends()[2].set_load(9, 0);
        let counts = counts(&set, 100_000);
        assert!((63_000..65_000).contains(&counts[0]), "1 - 0.6 * 0.6: {counts:?}");
    }
}
