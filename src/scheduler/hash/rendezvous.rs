//! Rendezvous hashing, highest random weight: `rendezvous`.
//!
//! After D. G. Thaler and C. V. Ravishankar, *Using Name-Based Mappings to Increase Hit Rates*,
//! IEEE/ACM Transactions on Networking 6(1), 1998: a key and a member's name give a score,
//! and the member with the best score gets the key. Weights by the logarithmic method of
//! C. Schindelhauer and G. Schomaker, *Weighted Distributed Hash Tables*, SPAA 2005: with `u`
//! uniform in (0, 1) the least `-ln(u) / w` wins, and each member wins in proportion to `w`.
//!
//! # In integers
//! Among members of equal weight the largest `u` wins, so that 64-bit hashes are compared. One
//! logarithm for each *distinct* weight remains, of the best hash in its group. It is computed in
//! fixed point from a table, so that all machines agree, and is monotonic in `u`, so that the order
//! within a group and the order between groups are consistent. Costs are compared as `score_cost(u)
//! * w' < score_cost(u') * w`, without a division.

use std::cmp::Reverse;
use std::collections::HashMap;
use std::net::SocketAddr;
use std::ops::Range;

use crate::backend::{MAX_BACKENDS, Member, Members};
use crate::scheduler::hash::seed::SEED;
use crate::scheduler::hashing::{hash_bytes, mix_bits, scale_to_range};
use crate::scheduler::parameter::{
    ParameterKind, SchedulerFamily, SchedulerInfo, SchedulerParameter, SchedulerParameterError,
};
use crate::scheduler::traits::previous_as;
use crate::scheduler::{CompileError, LookupTable, PickContext, Picker, Scheduler};

/// `rendezvous`: selects the member with the highest random weight for the key.
///
/// Every key has its own order of all members, and belongs to the first usable member of that
/// order. Choose it for the same key to the same backend with the least possible movement: exactly
/// the keys of a removed member move, each to the second in its order, and a new member gets its
/// share evenly from all others. Weights can have any ratio; a change of weight moves only the
/// difference.
///
/// There are two forms of the same rule:
///
/// - *exact* ([`RendezvousHash::new`]): each key is decided in each pick. No memory but the names,
///   O(members) for a pick: for up to about 64 members.
/// - *table* ([`RendezvousHash::table`]): keys are hashed to rows, and each row is decided in
///   advance. O(1) for a pick. Shares are less even: with `r` rows for each member the deviation
///   from the mean is about `1 / sqrt(r)`.
///
/// For even shares see [`maglev`](crate::scheduler::Maglev).
///
/// Reads the flow's [key](crate::scheduler::FlowView::key); a flow without a key goes to a random
/// member. The placement depends on names, weights and seed only, not on the order of the list.
///
/// # Unusable members
/// A key goes to the first usable member of its order; no other key moves. The weight is the
/// [`table_weight`](crate::backend::Member::table_weight), so that a backend that returns from
/// weight 0 gets the same keys again. In the table form the row of a member that is not eligible
/// holds the next member of its order; for a member that is unusable because of limits, retries or
/// load bounds the pick decides the row again, in O(members).
///
/// # Cost
/// | form | pick at 10 / 100 / 1000 members | memory |
/// |---|---|---|
/// | exact, one weight | 25 ns / 0.1 µs / 1 µs | 20 bytes a member |
/// | exact, 100 different weights | 50 ns / 0.3 µs / 4 µs | 20 bytes a member |
/// | table of 65 536 rows | 2 ns each | and 2 bytes a row (131 KB) |
///
/// Building 65 536 rows takes 2 ms for 10 members, 7 ms for 100 and 45 ms for 1000; with 100
/// different weights 4, 28 and 170 ms. A change of the set updates the table: a member that is
/// added (or comes up) is compared with the owner of each row, and the rows of a removed member are
/// decided again. That takes 0.5 to 1.5 ms for any number of members.
///
/// # Examples
/// ```
/// # use lvs::{BackendSet, Balancer, Flow, Spec, scheduler::RendezvousHash};
/// let set = BackendSet::new();
/// let exact = Balancer::new(&set, RendezvousHash::new())?;
/// let table = Balancer::new(&set, RendezvousHash::table())?;
/// for name in ["a", "b", "c"] {
///     set.insert(Spec::new(name, ()))?;
/// }
/// for balancer in [exact, table] {
///     let flow = Flow::new().key_bytes(b"session-42");
///     let owner = balancer.pick(&flow)?.id().clone();
///     // The key stays when another member is removed or added.
///     let other = ["a", "b", "c"].into_iter().find(|name| *name != owner.as_str());
///     set.remove(&other.ok_or("three names")?.into())?;
///     assert_eq!(*balancer.pick(&flow)?.id(), owner);
///     set.insert(Spec::new(other.ok_or("three names")?, ()))?;
///     assert_eq!(*balancer.pick(&flow)?.id(), owner);
/// }
/// # Ok::<(), Box<dyn std::error::Error>>(())
/// ```
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
#[must_use]
pub struct RendezvousHash {
    /// The number of rows; 0 means the exact form.
    rows: usize,
    seed: u64,
}

const DEFAULT_ROWS: usize = 65_536;
/// A row names a member in 16 bits.
const _: () = assert!(MAX_BACKENDS <= 1 << u16::BITS);

impl RendezvousHash {
    /// Creates the rule in the exact form.
    pub const fn new() -> Self {
        Self { rows: 0, seed: 0 }
    }

    /// Creates the rule in the table form with 65 536 rows.
    pub const fn table() -> Self {
        Self { rows: DEFAULT_ROWS, ..Self::new() }
    }

    /// Selects the table form and sets its number of rows, of 2 bytes each.
    ///
    /// # Errors
    /// [`SchedulerParameterError`] for a number that is not within 1..=16777216.
    pub fn rows(self, rows: usize) -> Result<Self, SchedulerParameterError> {
        Ok(Self { rows: ROWS.check_integer("rendezvous", rows)?, ..self })
    }

    /// Sets the seed of the hash that places members and keys; see [`hash_bytes`] for when it
    /// should be secret. Default: 0.
    pub const fn seed(self, seed: u64) -> Self {
        Self { seed, ..self }
    }
}

impl Default for RendezvousHash {
    fn default() -> Self {
        Self::new()
    }
}

const TABLE: SchedulerParameter = SchedulerParameter::new(
    "table",
    ParameterKind::Flag,
    Some("off"),
    "Decides keys by a table of 65536 rows, in O(1), instead of one by one, in O(servers)",
);
const ROWS: SchedulerParameter = SchedulerParameter::new(
    "rows",
    ParameterKind::Integer { min: 1, max: 1 << 24 },
    Some("65536"),
    "The rows of the table; switches the table on",
);

impl RendezvousHash {
    pub(in crate::scheduler) const INFO: SchedulerInfo = SchedulerInfo {
        name: "rendezvous",
        type_name: "RendezvousHash",
        family: SchedulerFamily::Hash,
        summary: "Selects the server with the highest random weight for the key",
        parameters: &[TABLE, ROWS, SEED],
    };
}

impl Scheduler for RendezvousHash {
    fn name(&self) -> &str {
        "rendezvous"
    }

    fn compile(
        &self,
        members: &Members,
        previous: Option<&dyn Picker>,
    ) -> Result<Box<dyn Picker>, CompileError> {
        if members.len() > MAX_BACKENDS {
            return Err(CompileError::TooManyMembers { members: members.len(), max: MAX_BACKENDS });
        }
        let candidates = RendezvousCandidates::new(members, self.seed, |m| m.share() != 0);
        let key_seed = mix_bits(self.seed);
        if self.rows == 0 {
            return Ok(Box::new(ExactRendezvousPicker { candidates, key_seed }));
        }
        let previous =
            previous_as::<TableRendezvousPicker>(previous).filter(|old| old.rule == *self);
        let entries = members.iter().map(PlacedMember::from_member).collect();
        let owners = match previous {
            Some(old) => old.rebuild_owners(&candidates, members),
            None => (0..self.rows).map(|row| candidates.owner(row_seed(key_seed, row))).collect(),
        };
        // A row has no owner only if there are no candidates; then no row has an owner.
        let owners = owners.unwrap_or_default();
        Ok(Box::new(TableRendezvousPicker {
            owners,
            candidates,
            key_seed,
            rule: *self,
            placed_members: entries,
        }))
    }
}

/// Returns the key of a row, by which its members are ordered.
fn row_seed(key_seed: u64, row: usize) -> u64 {
    mix_bits(key_seed ^ mix_bits(row as u64 + 1))
}

/// The members that compete for keys.
#[derive(Debug)]
struct RendezvousCandidates {
    /// Heaviest first: a good first candidate avoids the logarithms of lighter groups.
    groups: Box<[WeightGroup]>,
    name_hashes: Box<[NameHashes]>,
    /// The position of each name in the list of members.
    positions: Box<[u16]>,
}

/// Members of equal weight, as a range of [`RendezvousCandidates::name_hashes`].
#[derive(Debug)]
struct WeightGroup {
    weight: u32,
    range: Range<usize>,
}

/// Two hashes of a member's name.
#[derive(Clone, Copy, Debug, Eq, Ord, PartialEq, PartialOrd)]
struct NameHashes(u64, u64);

impl NameHashes {
    fn from_member(member: &Member, seed: u64) -> Self {
        let name = member.id().as_str().as_bytes();
        Self(hash_bytes(name, seed), hash_bytes(name, !seed) | 1)
    }

    /// Returns the score for a key: uniform, and never 0.
    #[inline]
    fn score(self, key: u64) -> u64 {
        let product = u128::from(key ^ self.0) * u128::from(self.1);
        ((product >> 64) as u64 ^ product as u64) | 1
    }
}

/// The result of a member for a key.
#[derive(Clone, Copy, Debug)]
struct RendezvousRank {
    score: u64,
    weight: u32,
    name_hashes: NameHashes,
    position: u16,
}

impl RendezvousRank {
    /// Returns whether this rank precedes another in the order of [`RendezvousCandidates::best`].
    fn is_better_than(&self, other: &Self) -> bool {
        if self.weight == other.weight {
            return (self.score, other.name_hashes) > (other.score, self.name_hashes);
        }
        let ours = u128::from(score_cost(self.score)) * u128::from(other.weight);
        let theirs = u128::from(score_cost(other.score)) * u128::from(self.weight);
        ours < theirs || (ours == theirs && self.weight > other.weight)
    }
}

impl RendezvousCandidates {
    fn new(members: &Members, seed: u64, competes: impl Fn(&Member) -> bool) -> Self {
        let mut list: Vec<(Reverse<u32>, NameHashes, u16)> = members
            .iter()
            .enumerate()
            .filter(|(_, m)| m.table_weight() != 0 && competes(m))
            // The cast keeps the value: `compile` has checked the length.
            .map(|(i, m)| (Reverse(m.table_weight()), NameHashes::from_member(m, seed), i as u16))
            .collect();
        list.sort_unstable();
        let mut groups: Vec<WeightGroup> = Vec::new();
        for (i, &(Reverse(weight), ..)) in list.iter().enumerate() {
            match groups.last_mut() {
                Some(group) if group.weight == weight => group.range.end = i + 1,
                _ => groups.push(WeightGroup { weight, range: i..i + 1 }),
            }
        }
        Self {
            groups: groups.into(),
            name_hashes: list.iter().map(|&(_, name, _)| name).collect(),
            positions: list.iter().map(|&(.., position)| position).collect(),
        }
    }

    /// Returns the best of the members that `admit` accepts by position, for a uniform score that
    /// is not 0.
    #[inline]
    fn best(
        &self,
        score: impl Fn(NameHashes) -> u64,
        admit: impl Fn(u16) -> bool,
    ) -> Option<RendezvousRank> {
        let mut best: Option<(RendezvousRank, u64)> = None;
        for group in &self.groups {
            let range = group.range.clone();
            let (mut top, mut at) = (0, usize::MAX);
            for (i, &name) in self.name_hashes[range.clone()].iter().enumerate() {
                let score = score(name);
                if score > top && admit(self.positions[range.start + i]) {
                    (top, at) = (score, range.start + i);
                }
            }
            if at == usize::MAX {
                continue;
            }
            let least = match &best {
                // The only group: its cost is not compared.
                None if self.groups.len() == 1 => 0,
                None => score_cost(top),
                Some((rank, least)) => {
                    // cost / weight >= least / rank.weight, first by a bound that is cheap to
                    // compute.
                    let limit = u128::from(*least) * u128::from(group.weight);
                    if u128::from(min_score_cost(top)) * u128::from(rank.weight) >= limit {
                        continue;
                    }
                    let cost = score_cost(top);
                    if u128::from(cost) * u128::from(rank.weight) >= limit {
                        continue;
                    }
                    cost
                }
            };
            let (name, position) = (self.name_hashes[at], self.positions[at]);
            best = Some((
                RendezvousRank { score: top, weight: group.weight, name_hashes: name, position },
                least,
            ));
        }
        best.map(|(rank, _)| rank)
    }

    /// Returns the position of the best member.
    #[inline]
    fn owner(&self, key: u64) -> Option<u16> {
        self.best(|name| name.score(key), |_| true).map(|rank| rank.position)
    }

    /// Returns the position of the best usable member.
    #[cold]
    fn usable_owner(&self, key: u64, cx: &PickContext<'_>) -> Option<usize> {
        let rank = self.best(|name| name.score(key), |position| cx.is_usable(position.into()))?;
        Some(rank.position.into())
    }
}

#[derive(Debug)]
struct ExactRendezvousPicker {
    candidates: RendezvousCandidates,
    key_seed: u64,
}

impl Picker for ExactRendezvousPicker {
    fn pick(&self, cx: &mut PickContext<'_>) -> Option<usize> {
        let key = mix_bits(cx.key() ^ self.key_seed);
        let owner = usize::from(self.candidates.owner(key)?);
        if cx.is_usable(owner) { Some(owner) } else { self.candidates.usable_owner(key, cx) }
    }
}

#[derive(Debug)]
struct TableRendezvousPicker {
    /// The best eligible member of each row, by position.
    owners: Box<[u16]>,
    key_seed: u64,
    candidates: RendezvousCandidates,
    rule: RendezvousHash,
    /// The members by position, to find them in a later list.
    placed_members: Box<[PlacedMember]>,
}

/// A member as it competed for rows.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
struct PlacedMember {
    serial: u64,
    /// 0 for a member that did not compete.
    weight: u32,
}

impl PlacedMember {
    fn from_member(member: &Member) -> Self {
        let weight = if member.share() == 0 { 0 } else { member.table_weight() };
        Self { serial: member.serial(), weight }
    }
}

impl Picker for TableRendezvousPicker {
    fn pick(&self, cx: &mut PickContext<'_>) -> Option<usize> {
        let row = scale_to_range(mix_bits(cx.key() ^ self.key_seed), self.owners.len());
        let owner = usize::from(*self.owners.get(row)?);
        if cx.is_usable(owner) {
            Some(owner)
        } else {
            self.candidates.usable_owner(row_seed(self.key_seed, row), cx)
        }
    }

    fn lookup_table(&self, _members: &Members, _destination: SocketAddr) -> Option<LookupTable> {
        // Every owner is eligible: the table is of the eligible members alone.
        Some(LookupTable::mixed(self.key_seed, self.owners.iter().copied().map(Some).collect()))
    }
}

impl TableRendezvousPicker {
    /// Returns the owners of all rows for a later list: only changed members compete again.
    fn rebuild_owners(
        &self,
        candidates: &RendezvousCandidates,
        members: &Members,
    ) -> Option<Box<[u16]>> {
        let weights_before: HashMap<u64, u32> =
            self.placed_members.iter().map(|entry| (entry.serial, entry.weight)).collect();
        let stays = |member: &Member| {
            let PlacedMember { serial, weight } = PlacedMember::from_member(member);
            weight != 0 && weights_before.get(&serial) == Some(&weight)
        };
        let stayed: HashMap<u64, RendezvousRank> =
            (candidates.name_hashes.iter().zip(&candidates.positions))
                .map(|(&name, &position)| (&members[usize::from(position)], name, position))
                .filter(|(member, ..)| stays(member))
                .map(|(member, name, position)| {
                    (
                        member.serial(),
                        RendezvousRank {
                            score: 0,
                            weight: member.table_weight(),
                            name_hashes: name,
                            position,
                        },
                    )
                })
                .collect();
        let now: Vec<Option<RendezvousRank>> =
            self.placed_members.iter().map(|entry| stayed.get(&entry.serial).copied()).collect();
        let newcomers =
            RendezvousCandidates::new(members, self.rule.seed, |m| m.share() != 0 && !stays(m));
        let owner = |row: usize| {
            let key = row_seed(self.key_seed, row);
            let old = self.owners.get(row).and_then(|&old| now[usize::from(old)]);
            let Some(old) = old else { return candidates.owner(key) };
            let old = RendezvousRank { score: old.name_hashes.score(key), ..old };
            let newcomer = newcomers.best(|name| name.score(key), |_| true);
            Some(newcomer.filter(|rank| rank.is_better_than(&old)).unwrap_or(old).position)
        };
        (0..self.rule.rows).map(owner).collect()
    }
}

/// Fractional bits of [`score_cost`].
const COST_FRACTION_BITS: u32 = 57;
/// `LOG2_TABLE[i]` is `log2(1 + i / 1024)`.
const LOG2_TABLE: [u64; 1025] = build_log2_table();

/// Returns the cost of a hash: `-log2(hash / 2^64)`, by linear interpolation; it never rises with
/// the hash.
fn score_cost(hash: u64) -> u64 {
    let zeros = hash.leading_zeros();
    // The hash as a number from 1 to 2: the first 10 bits behind the point, and the rest.
    let mantissa = (hash << zeros) & (u64::MAX >> 1);
    let (i, rest) = ((mantissa >> 53) as usize, mantissa & ((1 << 53) - 1));
    // Interpolated from the upper end, so that costs near 0 keep their precision.
    let step = u128::from(LOG2_TABLE[i + 1] - LOG2_TABLE[i]) * u128::from((1u64 << 53) - rest);
    (u64::from(zeros) << COST_FRACTION_BITS)
        + ((1 << COST_FRACTION_BITS) - LOG2_TABLE[i + 1])
        + (step >> 53) as u64
}

/// Returns a lower bound of [`score_cost`]: `-log2(u) >= 1.4427 * (1 - u)`.
fn min_score_cost(hash: u64) -> u64 {
    let distance = !hash >> (64 - COST_FRACTION_BITS);
    distance + (distance >> 2) + (distance >> 3)
}

const fn build_log2_table() -> [u64; 1025] {
    let mut table = [1 << COST_FRACTION_BITS; 1025];
    let mut i = 0;
    while i < 1024 {
        // One bit of the logarithm for each squaring of a number from 1 to 2, in 1/2^63.
        let mut x = (1024 + i as u64) << 53;
        let (mut log, mut bit) = (0, COST_FRACTION_BITS);
        while bit > 0 {
            bit -= 1;
            let square = (x as u128 * x as u128) >> 63;
            let is_carry = square >> 64 != 0;
            x = if is_carry { (square >> 1) as u64 } else { square as u64 };
            log |= (is_carry as u64) << bit;
        }
        table[i] = log;
        i += 1;
    }
    table
}

#[cfg(all(test, not(lvs_loom)))]
mod tests;
