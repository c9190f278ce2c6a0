//! Smooth weighted round robin: `swrr`.

use std::cmp::{Ordering as Compare, Reverse};
use std::collections::BinaryHeap;

use crossbeam_utils::CachePadded;

use crate::backend::Members;
use crate::scheduler::arithmetic::greatest_common_divisor;
use crate::scheduler::hashing::{mix_bits, scale_to_range};
use crate::scheduler::parameter::{
    ParameterKind, SchedulerFamily, SchedulerInfo, SchedulerParameter,
};
use crate::scheduler::traits::previous_as;
use crate::scheduler::{CompileError, PickContext, Picker, Scheduler};
use crate::sync::{AtomicUsize, Ordering};

/// `swrr`: selects the members in turn in proportion to weight, evenly spaced.
///
/// Choose it for requests of about equal cost on servers of different size. The kernel's `wrr`
/// gives the same shares but selects the heaviest several times in a row; `{5, 1, 1}` gives
/// `a a b a c a a` here, nginx's well-known sequence.
///
/// # The rule
/// The whole round is laid out when the set changes: a slot for each unit of weight (weights are
/// first divided by their greatest common divisor), placed by R. Tijdeman's algorithm ("The chairman
/// assignment problem", 1980): at no point of the round is a server a whole request ahead of or
/// behind its share, which no sequence improves on. A pick takes the next slot. Over any
/// stretch as long as the round each server occurs exactly as often as it has slots.
///
/// A round has at most 65 536 slots. Where weights need more they are scaled to that number by
/// largest remainder: each share is then exact to one slot, 0.0015 % of the traffic, except that
/// every member keeps at least one slot, at the expense of members with more.
///
/// A member that cannot be used (limit, tried before) is skipped and the cursor moves past it, so
/// that the others are selected in the same proportion and order as without it. After 256 slots
/// without a usable member the first usable member of the list is selected. A member of weight 0
/// has no slot, a single member has all.
///
/// After a change of the set the new round begins at the same fraction of the round where the old
/// round ended.
///
/// # Many clients
/// Clients that start at the beginning of the same round all select the heaviest server first.
/// [`offset`](Self::offset) makes each start at another slot.
///
/// # Cost
/// O(1): one atomic addition and one read of the table of 2 bytes a slot (at most 128 KiB). The
/// cursor is one cache line, which all threads that share a balancer write: a pick that takes a few
/// nanoseconds on one thread waits for that line on many threads, the longer the more there are.
/// [`Balancer::fork`] gives each worker a cursor of its own, or `Balancer::new(set,
/// SmoothWeightedRoundRobin::new().offset(worker))` a cursor that starts at another slot than the
/// others. A change of the set costs O(slots log n): 2 ms for ten members and 5 ms for a thousand
/// where all slots are needed, microseconds where weights are small.
///
/// [`Balancer::fork`]: crate::Balancer::fork
///
/// # Examples
/// ```
/// # use lvs::{BackendSet, Balancer, Flow, Spec, scheduler::SmoothWeightedRoundRobin};
/// let set = BackendSet::new();
/// for (name, weight) in [("c", 1), ("b", 1), ("a", 5)] {
///     set.insert(Spec::new(name, ()).weight(weight))?;
/// }
/// let balancer = Balancer::new(&set, SmoothWeightedRoundRobin::new())?;
/// let next = |_| balancer.pick(&Flow::new()).map(|lease| lease.id().to_string());
/// assert_eq!((0..7).map(next).collect::<Result<String, _>>()?, "aabacaa");
/// # Ok::<(), Box<dyn std::error::Error>>(())
/// ```
#[derive(Clone, Copy, Debug, Default)]
pub struct SmoothWeightedRoundRobin {
    /// The start in the round, as a fraction of the round in units of 2^-64.
    phase: u64,
}

impl SmoothWeightedRoundRobin {
    /// Creates the rule, which starts at the beginning of the round.
    #[must_use]
    pub const fn new() -> Self {
        Self { phase: 0 }
    }

    /// Sets the start in the round by a hash of `seed`, which is any number of the process or
    /// worker. Over many seeds the first pick has the same shares as all picks. Default: the
    /// beginning.
    #[must_use]
    pub const fn offset(self, seed: u64) -> Self {
        // Without the odd constant seed 0 would mean the beginning, where rules without an offset
        // start.
        Self { phase: mix_bits(seed.wrapping_add(0x9e37_79b9_7f4a_7c15)) }
    }
}

const OFFSET: SchedulerParameter = SchedulerParameter::new(
    "offset",
    ParameterKind::Integer { min: 0, max: u64::MAX },
    Some("the start of the round"),
    "A number of this process or worker, from which the place in the round to begin at is derived",
);

impl SmoothWeightedRoundRobin {
    pub(in crate::scheduler) const INFO: SchedulerInfo = SchedulerInfo {
        name: "swrr",
        type_name: "SmoothWeightedRoundRobin",
        family: SchedulerFamily::Load,
        summary: "Selects the servers in turn in proportion to weight, evenly spaced",
        parameters: &[OFFSET],
    };
}

impl Scheduler for SmoothWeightedRoundRobin {
    fn name(&self) -> &str {
        "swrr"
    }

    fn compile(
        &self,
        members: &Members,
        previous: Option<&dyn Picker>,
    ) -> Result<Box<dyn Picker>, CompileError> {
        if members.len() > MAX_SLOTS {
            return Err(CompileError::TooManyMembers { members: members.len(), max: MAX_SLOTS });
        }
        let slots = lay_out_round(&slot_quotas(members));
        let phase = previous_as::<SmoothWeightedRoundRobinPicker>(previous)
            .map_or(self.phase, SmoothWeightedRoundRobinPicker::phase);
        Ok(Box::new(SmoothWeightedRoundRobinPicker::new(slots, phase)))
    }
}

const MAX_SLOTS: usize = 65_536;
/// The number of slots that a pick checks before it selects the first usable member of the list.
const MAX_WALKED_SLOTS: usize = 256;
/// About where the cursor is reset: half of the range of 32 bits, so that other threads cannot use
/// up the other half before the thread that crosses the mark has reset it.
const CURSOR_RESET_MARK: usize = 1 << 31;

/// A round of slots and the position in it.
#[derive(Debug)]
struct SmoothWeightedRoundRobinPicker {
    slots: Box<[u16]>,
    /// `2^64 / slots`, rounded up, to divide by multiplying.
    reciprocal: u64,
    /// A whole number of rounds near [`CURSOR_RESET_MARK`].
    cursor_reset: usize,
    /// The fraction between two slots that a change of the length of the round left; the whole
    /// phase while there is no slot.
    phase_remainder: u64,
    cursor: CachePadded<AtomicUsize>,
}

impl SmoothWeightedRoundRobinPicker {
    fn new(slots: Box<[u16]>, phase: u64) -> Self {
        let len = slots.len();
        // An empty round keeps the phase as it is for the next one.
        let fraction = if len == 0 { phase } else { phase.wrapping_mul(len as u64) };
        Self {
            reciprocal: (u64::MAX / len.max(1) as u64).wrapping_add(1),
            cursor_reset: CURSOR_RESET_MARK - CURSOR_RESET_MARK.checked_rem(len).unwrap_or(0),
            phase_remainder: fraction,
            cursor: CachePadded::new(AtomicUsize::new(scale_to_range(phase, len))),
            slots,
        }
    }

    /// Returns the fraction of the round that lies behind the cursor, in units of 2^-64.
    fn phase(&self) -> u64 {
        if self.slots.is_empty() {
            return self.phase_remainder;
        }
        let slot = self.slot_of_cursor(self.cursor.load(Ordering::Relaxed));
        let way = (slot as u128) << 64 | u128::from(self.phase_remainder);
        // Rounded up, so that scaling it back does not fall one slot short.
        u64::try_from(way.div_ceil(self.slots.len() as u128)).unwrap_or(u64::MAX)
    }

    /// Moves the cursor forward and returns its previous value.
    #[inline]
    fn advance(&self, steps: usize) -> usize {
        // Relaxed: the cursor orders nothing but itself.
        let before = self.cursor.fetch_add(steps, Ordering::Relaxed);
        // Exactly one thread crosses the mark, and subtracts whole rounds: no slot is lost.
        if before < self.cursor_reset && before + steps >= self.cursor_reset {
            self.cursor.fetch_sub(self.cursor_reset, Ordering::Relaxed);
        }
        before
    }

    /// Returns `cursor % slots.len()`; exact below 2^32 (D. Lemire and others, "Faster remainder by
    /// direct computation", 2019).
    #[inline]
    fn slot_of_cursor(&self, cursor: usize) -> usize {
        scale_to_range(self.reciprocal.wrapping_mul(cursor as u64), self.slots.len())
    }

    /// Selects the next usable member behind a slot whose member is not usable.
    #[cold]
    fn find_usable_slot(&self, cx: &PickContext<'_>, start: usize) -> Option<usize> {
        let len = self.slots.len();
        let mut refused = self.slots[start];
        for (step, slot) in (start + 1..start + len.min(MAX_WALKED_SLOTS)).enumerate() {
            let member = self.slots[if slot < len { slot } else { slot - len }];
            if member == refused {
                continue;
            }
            if cx.is_usable(usize::from(member)) {
                // Members that are excluded for this flow only keep their slots for others.
                if cx.is_unrestricted() {
                    self.advance(step + 1);
                }
                return Some(usize::from(member));
            }
            refused = member;
        }
        let next = usize::from(refused) + 1;
        let any = || (next..cx.members().len()).chain(0..next).find(|&i| cx.is_usable(i));
        if len > MAX_WALKED_SLOTS { any() } else { None }
    }
}

impl Picker for SmoothWeightedRoundRobinPicker {
    fn pick(&self, cx: &mut PickContext<'_>) -> Option<usize> {
        if self.slots.is_empty() {
            return None;
        }
        let slot = self.slot_of_cursor(self.advance(1));
        let member = usize::from(self.slots[slot]);
        if cx.is_usable(member) { Some(member) } else { self.find_usable_slot(cx, slot) }
    }
}

/// The number of slots of a member.
#[derive(Clone, Copy, Debug)]
struct SlotQuota {
    member: u16,
    slots: u64,
}

/// Returns the number of slots of each eligible member, in list order.
fn slot_quotas(members: &Members) -> Vec<SlotQuota> {
    let mut quotas: Vec<SlotQuota> = members
        .iter()
        .enumerate()
        .filter(|(_, member)| member.share() != 0)
        .map(|(i, member)| SlotQuota { member: i as u16, slots: u64::from(member.share()) })
        .collect();
    let common = u64::from(greatest_common_divisor(members.iter().map(|m| m.share())));
    quotas.iter_mut().for_each(|quota| quota.slots /= common);
    if quotas.iter().map(|quota| quota.slots).sum::<u64>() > MAX_SLOTS as u64 {
        scale_down_quotas(&mut quotas);
        quotas.sort_unstable_by_key(|quota| quota.member);
    }
    quotas
}

/// Scales the quotas to [`MAX_SLOTS`] slots by largest remainder, at least one slot each.
fn scale_down_quotas(quotas: &mut [SlotQuota]) {
    quotas.sort_by_key(|quota| quota.slots);
    let mut sum: u64 = quotas.iter().map(|quota| quota.slots).sum();
    let mut free = MAX_SLOTS as u64;
    let mut tiny = 0;
    // From the lightest on, members with less than one slot get one; the others share the rest.
    while let Some(quota) = quotas.get_mut(tiny).filter(|quota| quota.slots * free < sum) {
        sum -= quota.slots;
        free -= 1;
        quota.slots = 1;
        tiny += 1;
    }
    let rest = &mut quotas[tiny..];
    rest.sort_by_key(|quota| Reverse(quota.slots * free % sum));
    let floors: u64 = rest.iter().map(|quota| quota.slots * free / sum).sum();
    for (rank, quota) in (0..).zip(rest) {
        quota.slots = quota.slots * free / sum + u64::from(rank < free - floors);
    }
}

/// A member that may get the next slot, and the place by which it must get one.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
struct SlotClaim {
    /// In slots of the round, times `slots`, over the length of the round.
    deadline: u64,
    slots: u64,
    index: usize,
}

impl Ord for SlotClaim {
    fn cmp(&self, other: &Self) -> Compare {
        // deadline / slots, multiplied out; of equal claims the lighter first, then list order.
        (self.deadline * other.slots)
            .cmp(&(other.deadline * self.slots))
            .then(self.slots.cmp(&other.slots))
            .then(self.index.cmp(&other.index))
    }
}

impl PartialOrd for SlotClaim {
    fn partial_cmp(&self, other: &Self) -> Option<Compare> {
        Some(self.cmp(other))
    }
}

/// Tijdeman's assignment, for `n` members, `S` slots and `d = 2n - 2`: the `k`-th slot of a member
/// with `w` slots (counted from 0) may be given from place `(k + 1/d) S/w` on and is due at
/// `(k + 1 - 1/d) S/w`; of the members that may, the first due gets the place.
fn lay_out_round(quotas: &[SlotQuota]) -> Box<[u16]> {
    let len: u64 = quotas.iter().map(|quota| quota.slots).sum();
    if let [only] = quotas {
        return Box::new([only.member]);
    }
    let d = 2 * (quotas.len() as u64).saturating_sub(1);
    // No product reaches 2^50: k, w and S are at most 2^16, d is less than 2^17.
    let opens = |k: u64, slots: u64| ((k * d + 1) * len).div_ceil(slots * d) as usize;
    // The members whose claims open at each place: lists linked through `next`.
    const NONE: u32 = u32::MAX;
    let mut head = vec![NONE; len as usize + 2];
    let mut next = vec![NONE; quotas.len()];
    let mut given = vec![0u64; quotas.len()];
    for (index, quota) in quotas.iter().enumerate() {
        let place = opens(0, quota.slots);
        next[index] = std::mem::replace(&mut head[place], index as u32);
    }
    let mut claims = BinaryHeap::with_capacity(quotas.len());
    let mut round = Vec::with_capacity(len as usize);
    for place in 1..=len as usize {
        let mut index = head[place];
        while index != NONE {
            let i = index as usize;
            let slots = quotas[i].slots;
            let deadline = (given[i] + 1) * d - 1;
            claims.push(Reverse(SlotClaim { deadline, slots, index: i }));
            index = next[i];
        }
        // There is always a claim, because the members' arrears add up to one slot.
        let Some(Reverse(SlotClaim { slots, index, .. })) = claims.pop() else { continue };
        round.push(quotas[index].member);
        given[index] += 1;
        if given[index] < slots {
            let place = opens(given[index], slots);
            // A claim that would open earlier opens at the next place.
            let place = place.max(round.len() + 1);
            next[index] = std::mem::replace(&mut head[place], index as u32);
        }
    }
    round.into_boxed_slice()
}

#[cfg(all(test, not(lvs_loom)))]
mod tests;
