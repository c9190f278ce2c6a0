//! Round robin: `rr`.

use super::{CompileError, PickContext, Picker, Scheduler, previous_as};
use crate::backend::Members;
use crate::sync::{AtomicUsize, Ordering};

/// `rr`: everybody in turn.
///
/// Choose it for equal servers and requests of equal cost. Weights count only as "0 or not"; for
/// shares see [`wrr`](super::WeightedRoundRobin) and [`swrr`](super::SmoothWeightedRoundRobin).
///
/// Decides as the kernel's `ip_vs_rr`: the turn goes on behind the last server chosen; a new server
/// stands at the head of the list; when the last chosen is removed, its successor is next.
///
/// # Cost
/// O(1) while the next in turn is usable, otherwise a step for each that is not. The cursor is one
/// cache line: threads that share a balancer take turns on it. [`Balancer::fork`] gives each worker
/// a cursor of its own.
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
/// let balancer = Balancer::new(&set, RoundRobin)?;
/// let turn = |_| balancer.pick(&Flow::new()).map(|lease| lease.id().to_string());
/// assert_eq!((0..4).map(turn).collect::<Result<String, _>>()?, "abca");
/// # Ok::<(), Box<dyn std::error::Error>>(())
/// ```
#[derive(Clone, Copy, Debug, Default)]
pub struct RoundRobin;

#[derive(Debug)]
struct Turn {
    /// The position after the last one chosen.
    next: AtomicUsize,
    /// Who stood where, to find the place again in a later list.
    serials: Box<[u64]>,
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
        let next = previous_as::<Turn>(previous).map_or(0, |turn| turn.next_in(members));
        let serials = members.iter().map(|m| m.serial()).collect();
        Ok(Box::new(Turn { next: AtomicUsize::new(next), serials }))
    }
}

impl Turn {
    /// Carries the cursor over: to the last chosen or, if it is gone, the nearest before it.
    fn next_in(&self, members: &Members) -> usize {
        // Relaxed here and below: the cursor orders nothing but itself.
        let next = self.next.load(Ordering::Relaxed).min(self.serials.len());
        self.serials[..next]
            .iter()
            .rev()
            .find_map(|&serial| members.position(serial))
            .map_or(0, |position| position + 1)
    }
}

/// How often a pick that lost its turn to another thread looks for the next one.
const ATTEMPTS: usize = 8;

impl Picker for Turn {
    fn pick(&self, cx: &mut PickContext<'_>) -> Option<usize> {
        let len = cx.members().len();
        let mut next = self.next.load(Ordering::Relaxed);
        let mut chosen = None;
        for _ in 0..ATTEMPTS {
            let start = if next < len { next } else { 0 };
            chosen = (start..len).chain(0..start).find(|&i| cx.usable(i));
            let after = chosen? + 1;
            match self.next.compare_exchange(next, after, Ordering::Relaxed, Ordering::Relaxed) {
                Ok(_) => break,
                Err(seen) => next = seen,
            }
        }
        chosen
    }
}
