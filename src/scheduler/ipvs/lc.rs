//! Least connections: `lc`.

use crate::backend::Members;
use crate::scheduler::ipvs::least_cost::{ConnectionOverhead, LeastConnectionsPicker};
use crate::scheduler::parameter::{SchedulerFamily, SchedulerInfo};
use crate::scheduler::{CompileError, Picker, Scheduler};

/// `lc`: selects the member with the fewest connections.
///
/// Choose it for equal servers and connections of unequal length. Weights count only as "0 or not";
/// [`wlc`](crate::scheduler::WeightedLeastConnections) divides by them. Among equals the first in
/// the list (the newest) is selected, so that an idle set sends every connection there;
/// [`p2c`](crate::scheduler::PowerOfTwoChoices) spreads them.
///
/// Decides as the kernel's `ip_vs_lc`. Inactive connections count a 256th.
///
/// # Cost
/// O(n) up to 24 members; above, a comparison for each of about sqrt(n) groups and for each member
/// of the one or two groups whose load changed. The counters are shared by all threads, so that
/// under contention each pick reads cache lines that other threads write.
///
/// # Examples
/// ```
/// # use lvs::{BackendSet, Balancer, Flow, Spec, scheduler::LeastConnections};
/// let set = BackendSet::new();
/// let balancer = Balancer::new(&set, LeastConnections::new())?;
/// set.insert(Spec::new("b", ()))?;
/// set.insert(Spec::new("a", ()))?;
/// let first = balancer.pick(&Flow::new())?;
/// let second = balancer.pick(&Flow::new())?;
/// assert_eq!((first.id().as_str(), second.id().as_str()), ("a", "b"));
/// # Ok::<(), Box<dyn std::error::Error>>(())
/// ```
#[derive(Clone, Copy, Debug, Default)]
#[must_use]
pub struct LeastConnections {
    overhead: ConnectionOverhead,
}

impl LeastConnections {
    /// Creates the rule with the classic overhead.
    pub const fn new() -> Self {
        Self { overhead: ConnectionOverhead::Classic }
    }

    /// Sets how inactive connections count. Default: [`ConnectionOverhead::Classic`].
    pub const fn overhead(self, overhead: ConnectionOverhead) -> Self {
        Self { overhead }
    }
}

impl LeastConnections {
    pub(in crate::scheduler) const INFO: SchedulerInfo = SchedulerInfo {
        name: "lc",
        type_name: "LeastConnections",
        family: SchedulerFamily::Ipvs,
        summary: "Selects the server with the fewest connections",
        parameters: &[ConnectionOverhead::PARAMETER],
    };
}

impl Scheduler for LeastConnections {
    fn name(&self) -> &str {
        "lc"
    }

    fn compile(
        &self,
        members: &Members,
        _previous: Option<&dyn Picker>,
    ) -> Result<Box<dyn Picker>, CompileError> {
        Ok(Box::new(LeastConnectionsPicker::new(self.overhead, members, |_| 1)))
    }
}
