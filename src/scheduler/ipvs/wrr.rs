//! Weighted round robin in the kernel's order: `wrr`.

use crate::backend::Members;
use crate::scheduler::arithmetic::greatest_common_divisor;
use crate::scheduler::parameter::{SchedulerFamily, SchedulerInfo};
use crate::scheduler::traits::previous_as;
use crate::scheduler::{CompileError, PickContext, Picker, Scheduler};
use crate::sync::{AtomicU64, Ordering};

/// `wrr`: selects the members in turn, in proportion to weight.
///
/// Choose it where decisions must equal those of Linux; otherwise
/// [`swrr`](crate::scheduler::SmoothWeightedRoundRobin) gives the same shares without bursts.
///
/// Decides as the kernel's `ip_vs_wrr`: a threshold goes down from the largest weight by the
/// greatest common divisor, and at each level the list is walked once; weights 4, 3, 2 give `a a b
/// a b c a b c`. A heavy server gets several picks in a row. A change of the set resets the walk to
/// the head of the list and keeps the level.
///
/// # Cost
/// O(1) if the next member's weight reaches the level, otherwise O(log n) by a segment tree of 8
/// bytes a member. The cursor is one cache line that all threads share; see
/// [`Balancer::fork`](crate::Balancer::fork).
///
/// # Examples
/// ```
/// # use lvs::{BackendSet, Balancer, Flow, Spec, scheduler::WeightedRoundRobin};
/// let set = BackendSet::new();
/// for (name, weight) in [("c", 2), ("b", 3), ("a", 4)] {
///     set.insert(Spec::new(name, ()).weight(weight))?;
/// }
/// let balancer = Balancer::new(&set, WeightedRoundRobin::new())?;
/// let next = |_| balancer.pick(&Flow::new()).map(|lease| lease.id().to_string());
/// assert_eq!((0..9).map(next).collect::<Result<String, _>>()?, "aababcabc");
/// # Ok::<(), Box<dyn std::error::Error>>(())
/// ```
#[derive(Clone, Copy, Debug, Default)]
#[non_exhaustive]
pub struct WeightedRoundRobin;

#[derive(Debug)]
struct WeightedRoundRobinPicker {
    cursor: AtomicU64,
    shares: ShareTree,
    level_step: u32,
    top_level: u32,
}

/// The position of the walk.
#[derive(Clone, Copy, Debug, PartialEq)]
struct WalkCursor {
    /// The position after the last selected member; 0 is the head of the list.
    next: u32,
    /// The smallest share that is selected on this walk.
    level: u32,
}

impl WeightedRoundRobin {
    pub(in crate::scheduler) const INFO: SchedulerInfo = SchedulerInfo {
        name: "wrr",
        type_name: "WeightedRoundRobin",
        family: SchedulerFamily::Ipvs,
        summary: "Selects the servers in turn in proportion to weight, in the kernel's order",
        parameters: &[],
    };

    /// Creates the scheduler.
    #[must_use]
    pub const fn new() -> Self {
        Self
    }
}

impl Scheduler for WeightedRoundRobin {
    fn name(&self) -> &str {
        "wrr"
    }

    fn compile(
        &self,
        members: &Members,
        previous: Option<&dyn Picker>,
    ) -> Result<Box<dyn Picker>, CompileError> {
        let shares = ShareTree::new(members.iter().map(|m| m.share()));
        let step = greatest_common_divisor(members.iter().map(|m| m.share())).max(1);
        let top = shares.max().saturating_sub(step - 1);
        let level = previous_as::<WeightedRoundRobinPicker>(previous).map_or(top, |picker| {
            // Relaxed here and below: the cursor orders nothing but itself.
            let level = WalkCursor::unpack(picker.cursor.load(Ordering::Relaxed)).level;
            match level {
                0 => top,
                _ if level > top => top,
                // The kernel's rounding, which is not that of `level_of_share`.
                _ if step > 1 => level / step * step + 1,
                _ => level,
            }
        });
        let cursor = WalkCursor { next: 0, level };
        Ok(Box::new(WeightedRoundRobinPicker {
            cursor: AtomicU64::new(cursor.pack()),
            shares,
            level_step: step,
            top_level: top,
        }))
    }
}

/// The number of attempts of a pick whose cursor other threads move at the same time.
const MAX_CURSOR_ATTEMPTS: usize = 8;

impl Picker for WeightedRoundRobinPicker {
    fn pick(&self, cx: &mut PickContext<'_>) -> Option<usize> {
        let mut seen = self.cursor.load(Ordering::Relaxed);
        let mut chosen = None;
        for _ in 0..MAX_CURSOR_ATTEMPTS {
            let cursor;
            (chosen, cursor) = self.advance(WalkCursor::unpack(seen), |i| cx.is_usable(i));
            let order = Ordering::Relaxed;
            match self.cursor.compare_exchange(seen, cursor.pack(), order, order) {
                Ok(_) => break,
                Err(now) => seen = now,
            }
        }
        chosen
    }
}

impl WeightedRoundRobinPicker {
    /// Returns the next member, and the cursor behind it.
    #[inline]
    fn advance(
        &self,
        start: WalkCursor,
        usable: impl Fn(usize) -> bool,
    ) -> (Option<usize>, WalkCursor) {
        // Most picks stay on the level.
        match self.next_usable(start.next..self.shares.len() as u32, start.level, &usable) {
            Some(i) => (Some(i as usize), WalkCursor { next: i + 1, level: start.level }),
            None => self.advance_levels(start, usable),
        }
    }

    /// Continues behind the last member of the level: from the head of the list, level by level.
    #[inline(never)]
    fn advance_levels(
        &self,
        start: WalkCursor,
        usable: impl Fn(usize) -> bool,
    ) -> (Option<usize>, WalkCursor) {
        if self.top_level == 0 {
            return (None, start);
        }
        let mut at = start;
        let mut restarted = false;
        let mut last_pass = false;
        let mut best = None;
        loop {
            // On the last pass after a restart the walk ends behind the position where it began.
            let stop = (last_pass && restarted && start.next != 0).then_some(start.next);
            let end = stop.unwrap_or(self.shares.len() as u32);
            if let Some(i) = self.next_usable(at.next..end, at.level, &usable) {
                return (Some(i as usize), WalkCursor { next: i + 1, level: at.level });
            }
            if let Some(next) = stop {
                return (None, WalkCursor { next, level: at.level });
            }
            if at.next == 0 {
                // A whole walk found no member: skip to the highest level that a usable member
                // reaches.
                let best = *best.get_or_insert_with(|| self.shares.max_usable(&usable));
                at.level = at.level.min(level_of_share(best, self.level_step) + self.level_step);
            }
            at.next = 0;
            if at.level > self.level_step {
                at.level -= self.level_step;
            } else {
                at.level = self.top_level;
                if last_pass || start.next == 0 {
                    return (None, at);
                }
                restarted = true;
            }
            last_pass = at.level <= self.level_step;
        }
    }

    fn next_usable(
        &self,
        range: std::ops::Range<u32>,
        level: u32,
        usable: impl Fn(usize) -> bool,
    ) -> Option<u32> {
        let mut from = range.start;
        while let Some(i) = self.shares.next_at_least(from as usize, level) {
            if i as u32 >= range.end {
                return None;
            }
            if usable(i) {
                return Some(i as u32);
            }
            from = i as u32 + 1;
        }
        None
    }
}

impl WalkCursor {
    fn pack(self) -> u64 {
        u64::from(self.next) << 32 | u64::from(self.level)
    }

    fn unpack(word: u64) -> Self {
        Self { next: (word >> 32) as u32, level: word as u32 }
    }
}

/// Returns the highest level that `share` reaches.
fn level_of_share(share: u32, step: u32) -> u32 {
    share.saturating_sub(1) / step * step + 1
}

/// The shares of the members as a tree of maxima, to find the next member that reaches a level.
#[derive(Debug)]
struct ShareTree {
    len: usize,
    /// The width of the lowest row, a power of two.
    width: usize,
    /// Node `i` holds the largest share below nodes `2 i` and `2 i + 1`; the lowest row is the
    /// list.
    tree: Box<[u32]>,
}

impl ShareTree {
    fn new(shares: impl ExactSizeIterator<Item = u32>) -> Self {
        let len = shares.len();
        let width = len.next_power_of_two();
        let mut tree = vec![0; 2 * width];
        for (slot, share) in tree[width..].iter_mut().zip(shares) {
            *slot = share;
        }
        for i in (1..width).rev() {
            tree[i] = tree[2 * i].max(tree[2 * i + 1]);
        }
        Self { len, width, tree: tree.into() }
    }

    fn len(&self) -> usize {
        self.len
    }

    fn max(&self) -> u32 {
        self.tree[1]
    }

    fn max_usable(&self, usable: impl Fn(usize) -> bool) -> u32 {
        (0..self.len).filter(|&i| usable(i)).map(|i| self.tree[self.width + i]).max().unwrap_or(0)
    }

    /// Returns the first position from `from` on with a share of at least `level`, which is not 0.
    fn next_at_least(&self, from: usize, level: u32) -> Option<usize> {
        if from >= self.len {
            return None;
        }
        let mut node = self.width + from;
        // Up, until a subtree to the right holds such a share; a step past the last node of a row
        // ends at a power of two.
        while self.tree[node] < level {
            node += 1;
            if node.is_power_of_two() {
                return None;
            }
            node >>= node.trailing_zeros();
        }
        // Down to the leftmost such share.
        while node < self.width {
            node *= 2;
            if self.tree[node] < level {
                node += 1;
            }
        }
        Some(node - self.width)
    }
}

#[cfg(all(test, not(lvs_loom)))]
mod tests;
