//! Never queue: `nq`.

use crate::backend::{Load, Member, Members};
use crate::scheduler::ipvs::least_cost::{LeastCost, LoadCost};
use crate::scheduler::parameter::{SchedulerFamily, SchedulerInfo};
use crate::scheduler::{CompileError, PickContext, Picker, Scheduler};

/// `nq`: selects an idle member if there is any, otherwise the member with the shortest expected
/// delay.
///
/// Choose it where no request should wait while a server is idle, even if a stronger server might
/// respond sooner.
///
/// Decides as the kernel's `ip_vs_nq`: the first in the list without an active connection,
/// otherwise as [`sed`](crate::scheduler::ShortestExpectedDelay).
///
/// # Cost
/// As [`wlc`](crate::scheduler::WeightedLeastConnections).
///
/// # Examples
/// ```
/// # use lvs::{BackendSet, Balancer, Flow, Spec, scheduler::NeverQueue};
/// let set = BackendSet::new();
/// let balancer = Balancer::new(&set, NeverQueue::new())?;
/// set.insert(Spec::new("weak", ()).weight(1))?;
/// set.insert(Spec::new("strong", ()).weight(9))?;
/// let held = (0..2).map(|_| balancer.pick(&Flow::new())).collect::<Result<Vec<_>, _>>()?;
/// assert_eq!([held[0].id().as_str(), held[1].id().as_str()], ["strong", "weak"]);
/// # Ok::<(), Box<dyn std::error::Error>>(())
/// ```
#[derive(Clone, Copy, Debug, Default)]
#[non_exhaustive]
pub struct NeverQueue;

impl NeverQueue {
    pub(in crate::scheduler) const INFO: SchedulerInfo = SchedulerInfo {
        name: "nq",
        type_name: "NeverQueue",
        family: SchedulerFamily::Ipvs,
        summary: "Selects an idle server if there is any, otherwise as sed",
        parameters: &[],
    };

    /// Creates the scheduler.
    #[must_use]
    pub const fn new() -> Self {
        Self
    }
}

impl Scheduler for NeverQueue {
    fn name(&self) -> &str {
        "nq"
    }

    fn compile(
        &self,
        members: &Members,
        _previous: Option<&dyn Picker>,
    ) -> Result<Box<dyn Picker>, CompileError> {
        Ok(Box::new(NeverQueuePicker(LeastCost::new(members, Member::share))))
    }
}

#[derive(Debug)]
struct NeverQueuePicker(LeastCost<NeverQueueCost>);

#[derive(Debug)]
struct NeverQueueCost;

impl LoadCost for NeverQueueCost {
    /// An idle member costs 0, which is the least whatever its weight.
    #[inline]
    fn cost(load: Load) -> u64 {
        if load.active == 0 { 0 } else { u64::from(load.active) + 1 }
    }
}

impl Picker for NeverQueuePicker {
    fn pick(&self, cx: &mut PickContext<'_>) -> Option<usize> {
        self.0.pick(cx)
    }
}
