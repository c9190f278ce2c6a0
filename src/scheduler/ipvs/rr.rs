//! Round robin: `rr`.

use crate::backend::Members;
use crate::scheduler::parameter::{SchedulerFamily, SchedulerInfo};
use crate::scheduler::traits::previous_as;
use crate::scheduler::{CompileError, PickContext, Picker, Scheduler};
use crate::sync::{AtomicUsize, Ordering};

/// `rr`: selects the members in turn.
///
/// Choose it for equal servers and requests of equal cost. Weights count only as "0 or not"; for
/// shares see [`wrr`](crate::scheduler::WeightedRoundRobin) and
/// [`swrr`](crate::scheduler::SmoothWeightedRoundRobin).
///
/// Decides as the kernel's `ip_vs_rr`: a pick continues behind the last selected server; a new
/// server is inserted at the head of the list; if the last selected server is removed, its
/// successor is next.
///
/// # Cost
/// O(1) while the next member is usable, otherwise a step for each unusable member. The cursor is
/// one cache line, for which threads that share a balancer contend. [`Balancer::fork`] gives each
/// worker thread a cursor of its own.
///
/// [`Balancer::fork`]: crate::Balancer::fork
///
/// # Examples
/// ```
/// # use lvs::{BackendSet, Balancer, Flow, Spec, scheduler::RoundRobin};
/// let set = BackendSet::new();
/// for name in ["c", "b", "a"] {
///     set.insert(Spec::new(name, ()))?;
/// }
/// let balancer = Balancer::new(&set, RoundRobin::new())?;
/// let next = |_| balancer.pick(&Flow::new()).map(|lease| lease.id().to_string());
/// assert_eq!((0..4).map(next).collect::<Result<String, _>>()?, "abca");
/// # Ok::<(), Box<dyn std::error::Error>>(())
/// ```
#[derive(Clone, Copy, Debug, Default)]
#[non_exhaustive]
pub struct RoundRobin;

#[derive(Debug)]
struct RoundRobinPicker {
    /// The position after the last selected member.
    cursor: AtomicUsize,
    /// The serials by position, to find the cursor's position in a later list.
    serials: Box<[u64]>,
}

impl RoundRobin {
    pub(in crate::scheduler) const INFO: SchedulerInfo = SchedulerInfo {
        name: "rr",
        type_name: "RoundRobin",
        family: SchedulerFamily::Ipvs,
        summary: "Selects the servers in turn; weights count only as 0 or not 0",
        parameters: &[],
    };

    /// Creates the scheduler.
    #[must_use]
    pub const fn new() -> Self {
        Self
    }
}

impl Scheduler for RoundRobin {
    fn name(&self) -> &str {
        "rr"
    }

    fn compile(
        &self,
        members: &Members,
        previous: Option<&dyn Picker>,
    ) -> Result<Box<dyn Picker>, CompileError> {
        let next = previous_as::<RoundRobinPicker>(previous)
            .map_or(0, |picker| picker.position_in(members));
        let serials = members.iter().map(|m| m.serial()).collect();
        Ok(Box::new(RoundRobinPicker { cursor: AtomicUsize::new(next), serials }))
    }
}

impl RoundRobinPicker {
    /// Returns the cursor for a later list: behind the last selected member or, if it was removed,
    /// behind the nearest member before it.
    fn position_in(&self, members: &Members) -> usize {
        // Relaxed here and below: the cursor orders nothing but itself.
        let next = self.cursor.load(Ordering::Relaxed).min(self.serials.len());
        self.serials[..next]
            .iter()
            .rev()
            .find_map(|&serial| members.position_of_serial(serial))
            .map_or(0, |position| position + 1)
    }
}

/// The number of attempts of a pick whose cursor other threads move at the same time.
const MAX_CURSOR_ATTEMPTS: usize = 8;

impl Picker for RoundRobinPicker {
    fn pick(&self, cx: &mut PickContext<'_>) -> Option<usize> {
        let len = cx.members().len();
        let mut next = self.cursor.load(Ordering::Relaxed);
        let mut chosen = None;
        for _ in 0..MAX_CURSOR_ATTEMPTS {
            let start = if next < len { next } else { 0 };
            chosen = (start..len).chain(0..start).find(|&i| cx.is_usable(i));
            let after = chosen? + 1;
            match self.cursor.compare_exchange(next, after, Ordering::Relaxed, Ordering::Relaxed) {
                Ok(_) => break,
                Err(seen) => next = seen,
            }
        }
        chosen
    }
}
