//! Weighted failover: `fo`.

use crate::backend::Members;
use crate::scheduler::parameter::{SchedulerFamily, SchedulerInfo};
use crate::scheduler::{CompileError, PickContext, Picker, Scheduler};

/// `fo`: selects the usable member of the largest weight.
///
/// Choose it for a main server with standby servers: weights are ranks. Of equal weights the newest
/// is first. Decides as the kernel's `ip_vs_fo`.
///
/// # Cost
/// O(1) while the heaviest member is usable, a step for each unusable member before; 4 bytes a
/// member.
///
/// # Examples
/// ```
/// # use lvs::{BackendSet, Balancer, Flow, Spec, scheduler::WeightedFailover};
/// let set = BackendSet::new();
/// set.insert(Spec::new("main", ()).weight(2))?;
/// set.insert(Spec::new("stand-by", ()).weight(1))?;
/// let balancer = Balancer::new(&set, WeightedFailover::new())?;
/// assert_eq!(balancer.pick(&Flow::new())?.id().as_str(), "main");
/// set.drain(&"main".into())?;
/// assert_eq!(balancer.pick(&Flow::new())?.id().as_str(), "stand-by");
/// # Ok::<(), Box<dyn std::error::Error>>(())
/// ```
#[derive(Clone, Copy, Debug, Default)]
#[non_exhaustive]
pub struct WeightedFailover;

impl WeightedFailover {
    pub(in crate::scheduler) const INFO: SchedulerInfo = SchedulerInfo {
        name: "fo",
        type_name: "WeightedFailover",
        family: SchedulerFamily::Ipvs,
        summary: "Selects the usable server of the largest weight",
        parameters: &[],
    };

    /// Creates the scheduler.
    #[must_use]
    pub const fn new() -> Self {
        Self
    }
}

impl Scheduler for WeightedFailover {
    fn name(&self) -> &str {
        "fo"
    }

    fn compile(
        &self,
        members: &Members,
        _previous: Option<&dyn Picker>,
    ) -> Result<Box<dyn Picker>, CompileError> {
        Ok(Box::new(WeightedFailoverPicker(eligible_by_weight(members))))
    }
}

/// Returns the positions of the eligible members, heaviest first; equal weights in list order.
pub(in crate::scheduler) fn eligible_by_weight(members: &Members) -> Box<[u32]> {
    let mut ranks: Box<[u32]> =
        (0..members.len() as u32).filter(|&i| members[i as usize].share() != 0).collect();
    ranks.sort_by_key(|&i| std::cmp::Reverse(members[i as usize].weight()));
    ranks
}

#[derive(Debug)]
struct WeightedFailoverPicker(Box<[u32]>);

impl Picker for WeightedFailoverPicker {
    fn pick(&self, cx: &mut PickContext<'_>) -> Option<usize> {
        self.0.iter().map(|&i| i as usize).find(|&i| cx.is_usable(i))
    }
}
