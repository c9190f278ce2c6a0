//! Shortest expected delay: `sed`.

use crate::backend::{Load, Member, Members};
use crate::scheduler::ipvs::least_cost::{LeastCost, LoadCost};
use crate::scheduler::parameter::{SchedulerFamily, SchedulerInfo};
use crate::scheduler::{CompileError, PickContext, Picker, Scheduler};

/// `sed`: selects the member with the shortest expected delay.
///
/// Choose it instead of [`wlc`](crate::scheduler::WeightedLeastConnections) where weights differ
/// much and connections are few: the new connection is counted in, so that a strong server gets two
/// connections before a weak server gets its first.
///
/// Decides as the kernel's `ip_vs_sed`: least `(active + 1) / weight`, the first in the list among
/// equals. Inactive connections do not count.
///
/// # Cost
/// As [`wlc`](crate::scheduler::WeightedLeastConnections).
///
/// # Examples
/// ```
/// # use lvs::{BackendSet, Balancer, Flow, Spec, scheduler::ShortestExpectedDelay};
/// let set = BackendSet::new();
/// let balancer = Balancer::new(&set, ShortestExpectedDelay::new())?;
/// set.insert(Spec::new("weak", ()).weight(1))?;
/// set.insert(Spec::new("strong", ()).weight(3))?;
/// let held = (0..2).map(|_| balancer.pick(&Flow::new())).collect::<Result<Vec<_>, _>>()?;
/// assert!(held.iter().all(|lease| lease.id().as_str() == "strong"));
/// # Ok::<(), Box<dyn std::error::Error>>(())
/// ```
#[derive(Clone, Copy, Debug, Default)]
#[non_exhaustive]
pub struct ShortestExpectedDelay;

impl ShortestExpectedDelay {
    pub(in crate::scheduler) const INFO: SchedulerInfo = SchedulerInfo {
        name: "sed",
        type_name: "ShortestExpectedDelay",
        family: SchedulerFamily::Ipvs,
        summary: "Selects the server with the shortest expected delay: least (active + 1) / weight",
        parameters: &[],
    };

    /// Creates the scheduler.
    #[must_use]
    pub const fn new() -> Self {
        Self
    }
}

impl Scheduler for ShortestExpectedDelay {
    fn name(&self) -> &str {
        "sed"
    }

    fn compile(
        &self,
        members: &Members,
        _previous: Option<&dyn Picker>,
    ) -> Result<Box<dyn Picker>, CompileError> {
        Ok(Box::new(ShortestExpectedDelayPicker(LeastCost::new(members, Member::share))))
    }
}

#[derive(Debug)]
struct ShortestExpectedDelayPicker(LeastCost<ExpectedDelayCost>);

#[derive(Debug)]
struct ExpectedDelayCost;

impl LoadCost for ExpectedDelayCost {
    #[inline]
    fn cost(load: Load) -> u64 {
        u64::from(load.active) + 1
    }
}

impl Picker for ShortestExpectedDelayPicker {
    fn pick(&self, cx: &mut PickContext<'_>) -> Option<usize> {
        self.0.pick(cx)
    }
}
