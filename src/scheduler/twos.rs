//! The kernel's weighted power of two choices: `twos`.

use super::least::Overhead;
use super::{CompileError, PickContext, Picker, Scheduler};
use crate::backend::Members;

/// `twos`: of two servers drawn by weight, the less loaded.
///
/// Choose it where decisions must follow Linux's rule; [`p2c`](super::PowerOfTwo) never draws the
/// same server twice and is quicker.
///
/// Decides as the kernel's `ip_vs_twos`, given the same random numbers: two draws *with*
/// replacement from 0 up to and including the sum of weights, so the first server in the list is
/// favoured by one in the sum; load is the overhead of `wlc`. The kernel's random numbers cannot be
/// repeated, so this is the one kernel scheduler without recorded decisions.
///
/// # Cost
/// O(log n) by binary search over prefix sums; O(n) while some member has a connection limit or on
/// a retry, since those must be left out. 8 bytes a member.
///
/// # Examples
/// ```
/// # use lvs::{BackendSet, Balancer, Flow, Spec, scheduler::TwoChoices};
/// let set = BackendSet::new();
/// let balancer = Balancer::new(&set, TwoChoices::new())?;
/// set.insert(Spec::new("a", ()))?;
/// set.insert(Spec::new("b", ()))?;
/// assert!(balancer.pick(&Flow::new()).is_ok());
/// # Ok::<(), Box<dyn std::error::Error>>(())
/// ```
#[derive(Clone, Copy, Debug, Default)]
#[must_use]
pub struct TwoChoices {
    overhead: Overhead,
}

impl TwoChoices {
    /// With the classic overhead.
    pub const fn new() -> Self {
        Self { overhead: Overhead::Classic }
    }

    /// How inactive connections count. Default: [`Overhead::Classic`].
    pub const fn with_overhead(self, overhead: Overhead) -> Self {
        Self { overhead }
    }
}

impl Scheduler for TwoChoices {
    fn name(&self) -> &str {
        "twos"
    }

    fn compile(
        &self,
        members: &Members,
        _previous: Option<&dyn Picker>,
    ) -> Result<Box<dyn Picker>, CompileError> {
        let mut sum = 0;
        let sums = members.iter().map(|m| {
            sum += u64::from(m.share());
            sum
        });
        Ok(Box::new(Draws { overhead: self.overhead, sums: sums.collect() }))
    }
}

#[derive(Debug)]
struct Draws {
    overhead: Overhead,
    /// For each member the sum of shares up to and including its own.
    sums: Box<[u64]>,
}

impl Picker for Draws {
    fn pick(&self, cx: &mut PickContext<'_>) -> Option<usize> {
        let members = cx.members();
        let (first, second) = if cx.is_plain() && !members.is_limited() {
            let total = self.sums.last()? + 1;
            let draws = [cx.rng().below(total), cx.rng().below(total)];
            let [first, second] = draws.map(|draw| self.sums.partition_point(|&sum| sum < draw));
            (self.with_share(first, members)?, self.with_share(second, members)?)
        } else {
            draw_usable(cx)?
        };
        let [one, two] = [&members[first], &members[second]];
        let heavier = u64::from(two.share()) * self.overhead.of(one.load())
            > u64::from(one.share()) * self.overhead.of(two.load());
        Some(if heavier { second } else { first })
    }
}

impl Draws {
    /// A draw of 0 falls before everybody: the first with a share takes it.
    fn with_share(&self, from: usize, members: &Members) -> Option<usize> {
        (from..self.sums.len()).find(|&i| members[i].share() != 0)
    }
}

/// Both draws by a walk over the members that are usable now.
fn draw_usable(cx: &mut PickContext<'_>) -> Option<(usize, usize)> {
    let members = cx.members();
    let usable = (0..members.len()).filter(|&i| cx.usable(i));
    let sum: u64 = usable.map(|i| u64::from(members[i].share())).sum();
    let draws = [cx.rng().below(sum + 1), cx.rng().below(sum + 1)];
    let find = |draw: u64| {
        let mut sum = 0;
        (0..members.len()).filter(|&i| cx.usable(i)).find(|&i| {
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
    use crate::scheduler::{Flow, Rng};

    fn counts(set: &BackendSet<()>, picks: usize) -> Vec<usize> {
        let snapshot = set.snapshot();
        let members = snapshot.members();
        let picker = TwoChoices::new().compile(members, None).expect("no limit of members");
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
    fn an_idle_set_is_drawn_from_with_the_first_favoured_by_one() {
        // Draws 0..=4: 0 and 1 fall on the first, 2 to 4 on the last.
        for limits in [Limits::NONE, Limits::max(9)] {
            let counts = counts(&set(limits), 100_000);
            assert!((39_000..41_000).contains(&counts[0]), "{counts:?}");
            assert_eq!(counts[1], 0);
        }
    }

    #[test]
    fn the_busy_one_is_chosen_only_when_drawn_twice() {
        let set = set(Limits::NONE);
        set.snapshot().backends()[2].mirror_load(9, 0);
        let counts = counts(&set, 100_000);
        assert!((63_000..65_000).contains(&counts[0]), "1 - 0.6 * 0.6: {counts:?}");
    }
}
