//! The first available server: `first`.

use crate::backend::Members;
use crate::scheduler::parameter::{SchedulerFamily, SchedulerInfo};
use crate::scheduler::{CompileError, PickContext, Picker, Scheduler};

/// `first`: selects the first member in the order of configuration that is below its limit.
///
/// HAProxy's rule of the same name: choose it to keep as few servers busy as the load needs, so
/// that the others can be switched off. Every server but the last needs [`Limits`](crate::Limits):
/// a server without a limit is never full.
///
/// The first member is the member that was inserted first, which is the last in [`Members`].
/// Weights count only as "0 or not".
///
/// A server that was full is skipped until its connections fall below the lower mark of its limits,
/// three quarters of the maximum by default. HAProxy selects it again as soon as one connection
/// ends; so does `Limits::new(n).with_resume_below(n)`.
///
/// # Cost
/// A step for each full server before the selected one, so O(n) if most are full: not for thousands
/// of small servers. 4 bytes a member. No cursor; threads share only the counters of the server
/// that is being filled.
///
/// # Examples
/// ```
/// # use lvs::{BackendSet, Balancer, Flow, Limits, Spec, scheduler::FirstAvailable};
/// let set = BackendSet::new();
/// for name in ["a", "b", "c"] {
///     set.insert(Spec::new(name, ()).limits(Limits::new(2)))?;
/// }
/// let balancer = Balancer::new(&set, FirstAvailable::new())?;
/// let leases = (0..5).map(|_| balancer.pick(&Flow::new())).collect::<Result<Vec<_>, _>>()?;
/// let names: String = leases.iter().map(|lease| lease.id().as_str()).collect();
/// assert_eq!(names, "aabbc");
/// # Ok::<(), Box<dyn std::error::Error>>(())
/// ```
#[derive(Clone, Copy, Debug, Default)]
#[non_exhaustive]
pub struct FirstAvailable;

impl FirstAvailable {
    /// Creates the rule.
    #[must_use]
    pub const fn new() -> Self {
        Self
    }
}

/// The eligible members, oldest first.
#[derive(Debug)]
struct FirstAvailablePicker(Box<[u32]>);

impl FirstAvailable {
    pub(in crate::scheduler) const INFO: SchedulerInfo = SchedulerInfo {
        name: "first",
        type_name: "FirstAvailable",
        family: SchedulerFamily::Load,
        summary: "Selects the first server in the order of configuration that is below its connection limit",
        parameters: &[],
    };
}

impl Scheduler for FirstAvailable {
    fn name(&self) -> &str {
        "first"
    }

    fn compile(
        &self,
        members: &Members,
        _previous: Option<&dyn Picker>,
    ) -> Result<Box<dyn Picker>, CompileError> {
        let eligible = (0..members.len()).rev().filter(|&i| members[i].share() != 0);
        Ok(Box::new(FirstAvailablePicker(eligible.map(|position| position as u32).collect())))
    }
}

impl Picker for FirstAvailablePicker {
    fn pick(&self, cx: &mut PickContext<'_>) -> Option<usize> {
        self.0.iter().map(|&position| position as usize).find(|&position| cx.is_usable(position))
    }
}

#[cfg(all(test, not(lvs_loom)))]
mod tests {
    use super::*;
    use crate::scheduler::testing::{balancer, id, position, sequence};
    use crate::{Balancer, Flow, Lease, Limits, PickError};

    fn limited(weights: &[u32], limits: Limits) -> Balancer<()> {
        let balancer = balancer(FirstAvailable, weights);
        for position in 0..weights.len() {
            balancer.backend_set().set_limits(&id(position), limits).expect("sound limits");
        }
        balancer
    }

    fn hold(balancer: &Balancer<()>, picks: usize) -> Vec<Lease<()>> {
        (0..picks).map(|_| balancer.pick(&Flow::new()).expect("a place")).collect()
    }

    #[test]
    fn the_oldest_fills_before_the_next_is_selected() {
        let balancer = limited(&[1, 9, 1], Limits::new(2));
        let held = hold(&balancer, 6);
        assert_eq!(held.iter().map(position).collect::<Vec<_>>(), [2, 2, 1, 1, 0, 0]);
        assert_eq!(balancer.pick(&Flow::new()).err(), Some(PickError::AllAtLimit));
    }

    #[test]
    fn a_full_server_resumes_below_its_lower_mark() {
        let balancer = limited(&[1, 1], Limits::new(4));
        let mut held = hold(&balancer, 4);
        held.pop();
        assert_eq!(sequence(&balancer, 1), [0], "3 of 4 are not below three quarters");
        held.pop();
        assert_eq!(sequence(&balancer, 1), [1]);
    }

    #[test]
    fn with_a_lower_mark_at_the_maximum_one_free_connection_is_enough() {
        let balancer = limited(&[1, 1], Limits::new(4).with_resume_below(4));
        let mut held = hold(&balancer, 4);
        assert_eq!(sequence(&balancer, 1), [0]);
        held.pop();
        assert_eq!(sequence(&balancer, 1), [1]);
    }

    #[test]
    fn weight_zero_and_tried_members_are_skipped() {
        let balancer = balancer(FirstAvailable, &[1, 1, 0]);
        assert_eq!(sequence(&balancer, 3), [1, 1, 1]);
        let snapshot = balancer.snapshot();
        let flow = Flow::new().excluding(&snapshot.backends()[1]);
        assert_eq!(balancer.pick(&flow).map(|lease| position(&lease)), Ok(0));
        let flow = flow.excluding(&snapshot.backends()[0]);
        assert_eq!(balancer.pick(&flow).err(), Some(PickError::AllTried));
    }
}
