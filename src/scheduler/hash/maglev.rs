//! Maglev hashing: `maglev`.
//!
//! After D. E. Eisenbud et al., *Maglev: A Fast and Reliable Software Network Load Balancer*, NSDI
//! 2016, section 3.4. Each member has its own order of the slots of a table (a start and a stride
//! from two hashes of its name; the table's size is prime, so that the stride reaches every slot),
//! and the members claim their next free slot in turn.
//!
//! # Weights
//! The number of slots of each member is computed first: its exact share, rounded down or up so
//! that the sum is right (largest remainders first), and at least one. Turns follow the weights:
//! the `k`-th claim of a member of weight `w` falls into round `ceil(k * max / w)`, that is, the
//! member claims whenever its accumulated weight reaches the largest weight. Other implementations
//! round during the turns, which favours heavy members by half a slot for each light member.

use std::net::SocketAddr;
use std::sync::Arc;

use crate::backend::{MAX_BACKENDS, Members};
use crate::scheduler::hash::seed::SEED;
use crate::scheduler::hash::table_key::{TableKey, is_any_usable};
use crate::scheduler::hashing::{hash_bytes, mix_bits, scale_to_range};
use crate::scheduler::parameter::{
    ParameterKind, SchedulerFamily, SchedulerInfo, SchedulerParameter, SchedulerParameterError,
};
use crate::scheduler::traits::previous_as;
use crate::scheduler::{CompileError, LookupTable, PickContext, Picker, Scheduler};

/// `maglev`: selects by consistent hashing, with a table in which every member has its exact share.
///
/// Choose it for the same key to the same backend where even shares matter most: the largest share
/// is within one slot of the mean, where a [`ring`](crate::scheduler::RingHash) is 20 % above it.
/// In exchange, a change of membership moves some keys needlessly. For necessary moves only see
/// [`ring`](crate::scheduler::RingHash) and [`rendezvous`](crate::scheduler::RendezvousHash); for
/// the kernel's own table see [`mh`](crate::scheduler::IpvsMaglevHash).
///
/// Reads the flow's [key](crate::scheduler::FlowView::key); a flow without a key goes to a random
/// member.
///
/// # Shares
/// Every member's number of slots differs from its exact share by less than one slot. A member
/// whose share is less than one slot gets one slot, and the others share the rest. Measured with 65
/// 537 slots, equal weights, mean of 5 removals:
///
/// | members | largest / mean | moved needlessly by one removal |
/// |---|---|---|
/// | 10 | 1.0000 | 0.3 % |
/// | 100 | 1.0010 | 0.6 % |
/// | 1000 | 1.0071 | 0.6 % |
///
/// The table depends on names, weights and seed only, not on the order of the list: two directors
/// with the same configuration have the same table.
///
/// # Unusable members
/// The table contains all members in any state by
/// [`table_weight`](crate::backend::Member::table_weight). A key whose owner is not usable is
/// hashed again, up to 16 times, so that the keys of a failed member spread over all others by
/// their shares; no other key moves. After 16 attempts the slots are searched in order.
///
/// # Cost
/// A pick takes a hash, a multiplication and a read of a table of 2 bytes a slot (131 KB by
/// default), 4 ns in addition to the lease while the table is in cache. Building the default table
/// takes 1.6 ms for 1000 members; a change of state alone builds nothing.
///
/// # Examples
/// ```
/// # use lvs::{BackendSet, Balancer, Flow, Spec, scheduler::Maglev};
/// let set = BackendSet::new();
/// let balancer = Balancer::new(&set, Maglev::new())?;
/// for name in ["a", "b", "c"] {
///     set.insert(Spec::new(name, ()))?;
/// }
/// let flow = Flow::new().key_bytes(b"session-42");
/// let first = balancer.pick(&flow)?;
/// assert_eq!(balancer.pick(&flow)?.id(), first.id());
///
/// // A retry gets another backend, the same each time.
/// let retry = flow.excluding(first.backend());
/// assert_ne!(balancer.pick(&retry)?.id(), first.id());
/// assert_eq!(balancer.pick(&retry)?.id(), balancer.pick(&retry)?.id());
/// # Ok::<(), Box<dyn std::error::Error>>(())
/// ```
#[derive(Clone, Copy, Debug)]
#[must_use]
pub struct Maglev {
    size: usize,
    seed: u64,
}

const DEFAULT_TABLE_SIZE: usize = 65_537;
/// A slot names a member in 16 bits.
const _: () = assert!(MAX_BACKENDS <= 1 << u16::BITS);

impl Maglev {
    /// Creates the rule with 65 537 slots: shares are within 1 % up to about 650 members.
    pub const fn new() -> Self {
        Self { size: DEFAULT_TABLE_SIZE, seed: 0 }
    }

    /// Sets the number of slots, a prime number; at least a hundred times the number of members
    /// keeps shares within 1 %. Default: 65 537.
    ///
    /// # Errors
    /// [`SchedulerParameterError`] for a number that is not prime or is above 2^24.
    pub fn size(self, size: usize) -> Result<Self, SchedulerParameterError> {
        Ok(Self { size: SIZE.check_integer("maglev", size)?, ..self })
    }

    /// Sets the seed of the hash that places members and keys; see [`hash_bytes`] for when it
    /// should be secret. Default: 0.
    pub const fn seed(self, seed: u64) -> Self {
        Self { seed, ..self }
    }
}

impl Default for Maglev {
    fn default() -> Self {
        Self::new()
    }
}

const SIZE: SchedulerParameter = SchedulerParameter::new(
    "size",
    ParameterKind::Prime { min: 2, max: 1 << 24 },
    Some("65537"),
    "The slots of the table, of 2 bytes each",
);

impl Maglev {
    pub(in crate::scheduler) const INFO: SchedulerInfo = SchedulerInfo {
        name: "maglev",
        type_name: "Maglev",
        family: SchedulerFamily::Hash,
        summary: "Selects by a Maglev table, in which every server has its exact share",
        parameters: &[SIZE, SEED],
    };
}

#[cfg(feature = "packet")]
impl Maglev {
    /// Returns the owner of each slot of the table, by position; none if no member has a weight.
    pub(crate) fn slots(&self, members: &Members) -> Vec<u16> {
        fill_slots(members, self)
    }
}

impl Scheduler for Maglev {
    fn name(&self) -> &str {
        "maglev"
    }

    fn compile(
        &self,
        members: &Members,
        previous: Option<&dyn Picker>,
    ) -> Result<Box<dyn Picker>, CompileError> {
        let table_key = TableKey::from_members(members);
        if let Some(old) = previous_as::<MaglevPicker>(previous)
            && old.rule.size == self.size
            && old.rule.seed == self.seed
            && *old.table_key == table_key
        {
            return Ok(Box::new(old.clone()));
        }
        let max = self.size.min(MAX_BACKENDS);
        let placed = members.iter().filter(|m| m.table_weight() != 0).count();
        if placed > max || members.len() > MAX_BACKENDS {
            return Err(CompileError::TooManyMembers { members: members.len(), max });
        }
        Ok(Box::new(MaglevPicker {
            slots: fill_slots(members, self).into(),
            key_seed: mix_bits(self.seed),
            rule: *self,
            table_key: Arc::new(table_key),
        }))
    }
}

#[derive(Clone, Debug)]
struct MaglevPicker {
    /// The owner of each slot, by position; empty if no member has a slot.
    slots: Arc<[u16]>,
    key_seed: u64,
    rule: Maglev,
    table_key: Arc<TableKey>,
}

/// The number of further hashes of a key before the slots are searched in order.
const MAX_REHASHES: u64 = 16;
/// An odd number with multiples that are far apart: 2^64 over the golden ratio.
const REHASH_INCREMENT: u64 = 0x9e37_79b9_7f4a_7c15;

impl Picker for MaglevPicker {
    fn pick(&self, cx: &mut PickContext<'_>) -> Option<usize> {
        let hash = mix_bits(cx.key() ^ self.key_seed);
        let owner = usize::from(*self.slots.get(scale_to_range(hash, self.slots.len()))?);
        if cx.is_usable(owner) { Some(owner) } else { self.find_usable_owner(hash, cx) }
    }

    fn lookup_table(&self, _members: &Members, _destination: SocketAddr) -> Option<LookupTable> {
        Some(LookupTable::mixed(self.key_seed, self.slots.iter().copied().map(Some).collect()))
    }
}

impl MaglevPicker {
    #[cold]
    fn find_usable_owner(&self, mut hash: u64, cx: &PickContext<'_>) -> Option<usize> {
        if !is_any_usable(cx) {
            return None;
        }
        for _ in 0..MAX_REHASHES {
            hash = mix_bits(hash.wrapping_add(REHASH_INCREMENT));
            let owner = usize::from(self.slots[scale_to_range(hash, self.slots.len())]);
            if cx.is_usable(owner) {
                return Some(owner);
            }
        }
        let (before, after) = self.slots.split_at(scale_to_range(hash, self.slots.len()));
        after.iter().chain(before).map(|&owner| usize::from(owner)).find(|&i| cx.is_usable(i))
    }
}

/// A member's order of the slots.
#[derive(Debug)]
struct SlotSequence {
    next_slot: u32,
    stride: u32,
    position: u16,
}

fn fill_slots(members: &Members, rule: &Maglev) -> Vec<u16> {
    let size = rule.size;
    let mut placed: Vec<(u64, usize)> = members
        .iter()
        .enumerate()
        .filter(|(_, m)| m.table_weight() != 0)
        .map(|(i, m)| (hash_bytes(m.id().as_str().as_bytes(), rule.seed), i))
        .collect();
    if placed.is_empty() {
        return Vec::new();
    }
    // The order of turns must not depend on the order of configuration.
    placed.sort_unstable_by(|a, b| {
        a.0.cmp(&b.0).then_with(|| members[a.1].id().cmp(members[b.1].id()))
    });
    let weights: Vec<u32> = placed.iter().map(|&(_, i)| members[i].table_weight()).collect();
    // The casts keep the values: sizes are at most 2^24, positions below 2^16.
    let mut ways: Vec<SlotSequence> = placed
        .iter()
        .map(|&(hash, i)| {
            let second = hash_bytes(members[i].id().as_str().as_bytes(), !rule.seed);
            SlotSequence {
                next_slot: scale_to_range(hash, size) as u32,
                stride: 1 + scale_to_range(second, size - 1) as u32,
                position: i as u16,
            }
        })
        .collect();

    let mut slots = vec![0; size];
    // A bit for each slot fits the fastest cache; most of the time below is spent on these reads.
    let mut taken = vec![0u64; size.div_ceil(64)];
    for turn in claim_order(&weights, &slots_per_member(&weights, size)) {
        let way = &mut ways[usize::from(turn)];
        let (mut next, stride) = (way.next_slot, way.stride);
        loop {
            let slot = next as usize;
            next += stride;
            next -= if next >= size as u32 { size as u32 } else { 0 };
            let (word, bit) = (slot / 64, 1 << (slot % 64));
            if taken[word] & bit == 0 {
                taken[word] |= bit;
                slots[slot] = way.position;
                break;
            }
        }
        way.next_slot = next;
    }
    slots
}

/// Returns the number of slots of each weight: at least 1, in sum `size`.
fn slots_per_member(weights: &[u32], size: usize) -> Vec<u32> {
    let mut lightest_first: Vec<usize> = (0..weights.len()).collect();
    lightest_first.sort_by_key(|&i| weights[i]);
    let mut slots = size as u64;
    let mut sum: u64 = weights.iter().map(|&w| u64::from(w)).sum();
    let mut quotas = vec![1; weights.len()];
    let mut rest = &lightest_first[..];
    // Removing a member below one slot raises the weight of a slot, so one pass finds all.
    while let [first, others @ ..] = rest
        && u64::from(weights[*first]) * slots < sum
    {
        slots -= 1;
        sum -= u64::from(weights[*first]);
        rest = others;
    }
    let mut left = slots;
    let mut remainders = Vec::with_capacity(rest.len());
    for &i in rest {
        let exact = u64::from(weights[i]) * slots;
        quotas[i] = (exact / sum) as u32;
        left -= exact / sum;
        remainders.push((exact % sum, i));
    }
    remainders.sort_unstable_by_key(|&(remainder, i)| (std::cmp::Reverse(remainder), i));
    for &(_, i) in &remainders[..left as usize] {
        quotas[i] += 1;
    }
    quotas
}

/// Returns the order of claims: by rounds, in list order within a round.
fn claim_order(weights: &[u32], quotas: &[u32]) -> Vec<u16> {
    let max = u64::from(weights.iter().copied().max().unwrap_or(1));
    // A counting sort: the rounds of a member are an arithmetic series and there are at most about
    // twice as many rounds as slots. Only members whose share is below one slot come later; they
    // claim the slots that are left.
    let last = 2 * quotas.iter().sum::<u32>() as usize + 2;
    let rounds = |i: usize| {
        let weight = u64::from(weights[i]);
        let (step, part) = (max / weight, max % weight);
        (0..quotas[i]).scan((0u64, 0u64), move |(round, rest), _| {
            // In whole rounds and fractions of `weight`; a fraction counts as a whole round.
            *round += step;
            *rest += part;
            if *rest >= weight {
                *rest -= weight;
                *round += 1;
            }
            Some((*round + u64::from(*rest != 0)).min(last as u64) as usize)
        })
    };
    let mut starts = vec![0u32; last + 2];
    for i in 0..weights.len() {
        rounds(i).for_each(|round| starts[round + 1] += 1);
    }
    for round in 1..starts.len() {
        starts[round] += starts[round - 1];
    }
    let mut turns = vec![0; starts[last + 1] as usize];
    for i in 0..weights.len() {
        for round in rounds(i) {
            turns[starts[round] as usize] = i as u16;
            starts[round] += 1;
        }
    }
    turns
}

#[cfg(all(test, not(lvs_loom)))]
mod tests;
