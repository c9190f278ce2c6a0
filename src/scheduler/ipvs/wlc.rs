//! Weighted least connections: `wlc`.

use crate::backend::{Member, Members};
use crate::scheduler::ipvs::least_cost::{ConnectionOverhead, LeastConnectionsPicker};
use crate::scheduler::parameter::{SchedulerFamily, SchedulerInfo};
use crate::scheduler::{CompileError, Picker, Scheduler};

/// `wlc`: selects the member with the fewest connections for its weight; the default of `ipvsadm`.
///
/// Choose it for servers of unequal strength and connections of unequal length, with one director
/// that sees all connections. Where several directors share the servers, each knows only its own
/// counts and all select the same server: choose [`p2c`](crate::scheduler::PowerOfTwoChoices).
///
/// Decides as the kernel's `ip_vs_wlc`: least `overhead / weight`, the first in the list (the
/// newest) among equals. Inactive connections count a 256th.
///
/// # Cost
/// As [`lc`](crate::scheduler::LeastConnections), with two multiplications for each comparison.
///
/// # Examples
/// ```
/// # use lvs::{BackendSet, Balancer, Flow, Spec, scheduler::WeightedLeastConnections};
/// let set = BackendSet::new();
/// let balancer = Balancer::new(&set, WeightedLeastConnections::new())?;
/// set.insert(Spec::new("small", ()).weight(1))?;
/// set.insert(Spec::new("large", ()).weight(3))?;
/// let held = (0..4).map(|_| balancer.pick(&Flow::new())).collect::<Result<Vec<_>, _>>()?;
/// assert_eq!(held.iter().filter(|lease| lease.id().as_str() == "large").count(), 3);
/// # Ok::<(), Box<dyn std::error::Error>>(())
/// ```
#[derive(Clone, Copy, Debug, Default)]
#[must_use]
pub struct WeightedLeastConnections {
    overhead: ConnectionOverhead,
}

impl WeightedLeastConnections {
    /// Creates the rule with the classic overhead.
    pub const fn new() -> Self {
        Self { overhead: ConnectionOverhead::Classic }
    }

    /// Sets how inactive connections count. Default: [`ConnectionOverhead::Classic`].
    pub const fn overhead(self, overhead: ConnectionOverhead) -> Self {
        Self { overhead }
    }
}

impl WeightedLeastConnections {
    pub(in crate::scheduler) const INFO: SchedulerInfo = SchedulerInfo {
        name: "wlc",
        type_name: "WeightedLeastConnections",
        family: SchedulerFamily::Ipvs,
        summary: "Selects the server with the fewest connections for its weight",
        parameters: &[ConnectionOverhead::PARAMETER],
    };
}

impl Scheduler for WeightedLeastConnections {
    fn name(&self) -> &str {
        "wlc"
    }

    fn compile(
        &self,
        members: &Members,
        _previous: Option<&dyn Picker>,
    ) -> Result<Box<dyn Picker>, CompileError> {
        Ok(Box::new(LeastConnectionsPicker::new(self.overhead, members, Member::share)))
    }
}
