//! Overflow connection scheduling: `ovf`.

use crate::backend::Members;
use crate::scheduler::ipvs::fo::eligible_by_weight;
use crate::scheduler::parameter::{SchedulerFamily, SchedulerInfo};
use crate::scheduler::{CompileError, PickContext, Picker, Scheduler};

/// `ovf`: selects the heaviest member until it has more active connections than its weight, then
/// the next.
///
/// Choose it to fill servers one after another; a weight is a number of connections, and each
/// server takes up to one connection more. If all servers overflow the pick fails. Decides as the
/// kernel's `ip_vs_ovf`. For exact limits see [`first`](crate::scheduler::FirstAvailable).
///
/// # Cost
/// O(1) while the heaviest member has room, a step for each full member before; 4 bytes a member.
///
/// # Examples
/// ```
/// # use lvs::{BackendSet, Balancer, Flow, PickError, Spec, scheduler::OverflowConnections};
/// let set = BackendSet::new();
/// set.insert(Spec::new("small", ()).weight(1))?;
/// let balancer = Balancer::new(&set, OverflowConnections::new())?;
/// let held = (balancer.pick(&Flow::new())?, balancer.pick(&Flow::new())?);
/// assert_eq!(balancer.pick(&Flow::new()).unwrap_err(), PickError::SchedulerRefused);
/// # drop(held);
/// # Ok::<(), Box<dyn std::error::Error>>(())
/// ```
#[derive(Clone, Copy, Debug, Default)]
#[non_exhaustive]
pub struct OverflowConnections;

impl OverflowConnections {
    pub(in crate::scheduler) const INFO: SchedulerInfo = SchedulerInfo {
        name: "ovf",
        type_name: "OverflowConnections",
        family: SchedulerFamily::Ipvs,
        summary: "Selects the server of the largest weight until its active connections exceed its weight, then the next",
        parameters: &[],
    };

    /// Creates the scheduler.
    #[must_use]
    pub const fn new() -> Self {
        Self
    }
}

impl Scheduler for OverflowConnections {
    fn name(&self) -> &str {
        "ovf"
    }

    fn compile(
        &self,
        members: &Members,
        _previous: Option<&dyn Picker>,
    ) -> Result<Box<dyn Picker>, CompileError> {
        Ok(Box::new(OverflowConnectionsPicker(eligible_by_weight(members))))
    }
}

#[derive(Debug)]
struct OverflowConnectionsPicker(Box<[u32]>);

impl Picker for OverflowConnectionsPicker {
    fn pick(&self, cx: &mut PickContext<'_>) -> Option<usize> {
        let has_room = |i: usize| {
            let member = &cx.members()[i];
            member.load().active <= member.weight()
        };
        self.0.iter().map(|&i| i as usize).find(|&i| has_room(i) && cx.is_usable(i))
    }
}
