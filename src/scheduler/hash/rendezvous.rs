//! Rendezvous hashing, highest random weight: `rendezvous`.
//!
//! After D. G. Thaler and C. V. Ravishankar, *Using Name-Based Mappings to Increase Hit Rates*,
//! IEEE/ACM Transactions on Networking 6(1), 1998: a key and a member's name together make a
//! number, and the member with the best one has the key. Weights by the logarithmic method of
//! C. Schindelhauer and G. Schomaker, *Weighted Distributed Hash Tables*, SPAA 2005: with `u`
//! uniform in (0, 1) the least `-ln(u) / w` wins, and each member wins in proportion to `w`.
//!
//! # In integers
//! Among members of one weight the largest `u` wins, so nothing but 64-bit hashes is compared. One
//! logarithm for each *distinct* weight remains, of the best hash in its group. It is computed in
//! fixed point from a table, so that two machines always agree, and rises with every step of `u`
//! or stays, so that the order within a group and the order between groups never contradict each
//! other. Costs are compared as `score_cost(u) * w' < score_cost(u') * w`, without a division.

use std::cmp::Reverse;
use std::collections::HashMap;
use std::ops::Range;

use crate::backend::{MAX_BACKENDS, Member, Members};
use crate::scheduler::hash::seed::SEED;
use crate::scheduler::hashing::{hash_bytes, mix_bits, scale_to_range};
use crate::scheduler::parameter::{
    ParameterKind, SchedulerFamily, SchedulerInfo, SchedulerParameter, SchedulerParameterError,
};
use crate::scheduler::traits::previous_as;
use crate::scheduler::{CompileError, PickContext, Picker, Scheduler};

/// `rendezvous`: every key has its own order of all members, and the first usable one has it.
///
/// Choose it for the same key to the same backend with the least possible movement: exactly the
/// keys of a removed member move, each to the second in its order, and a new member takes its share
/// from all alike. Weights of any ratio are honoured and may change smoothly: only the difference
/// moves.
///
/// Two forms decide by the same rule:
///
/// - *exact* ([`RendezvousHash::new`]): each key on its own. No memory but the names, O(members) a pick:
///   good to some 64 members.
/// - *table* ([`RendezvousHash::table`]): keys fall into rows, and each row is decided in advance. O(1)
///   a pick. Shares become as uneven as rows are few: with `r` rows for each member the deviation
///   from the mean is about `1 / sqrt(r)`.
///
/// For shares that are even, too, see [`maglev`](crate::scheduler::Maglev).
///
/// Reads [`Flow::hash`](crate::Flow::hash); a flow without a key goes anywhere. The placement
/// depends on names, weights and seed alone, not on the order of the list.
///
/// # Unusable members
/// A key goes to the first member of its order that is usable; no other key moves. The weight is the
/// [`table_weight`](crate::backend::Member::table_weight), so that a backend that comes back from
/// weight 0 gets the same keys again. In the table form the row of a member that is not eligible
/// holds the next in its order; what only the pick itself can find out (limits, retries, load
/// bounds) makes it decide that row anew, O(members).
///
/// # Cost
/// | form | pick at 10 / 100 / 1000 members | memory |
/// |---|---|---|
/// | exact, one weight | 25 ns / 0.1 µs / 1 µs | 20 bytes a member |
/// | exact, 100 different weights | 50 ns / 0.3 µs / 4 µs | 20 bytes a member |
/// | table of 65 536 rows | 2 ns each | and 2 bytes a row (131 KB) |
///
/// Building 65 536 rows takes 2 ms for 10 members, 7 ms for 100 and 45 ms for 1000; with 100
/// different weights 4, 28 and 170 ms. Changes of a table in service are worked in: a member that
/// comes (or comes up) is compared with the owner of each row, one that goes leaves its own rows to
/// be decided anew. That takes 0.5 to 1.5 ms, whatever the number of members. With one member or
/// none every row is the same or there are none.
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
///     // Whoever else goes, the key stays.
///     let other = ["a", "b", "c"].into_iter().find(|name| *name != owner.as_str());
///     set.remove(&other.ok_or("three names")?.into())?;
///     assert_eq!(*balancer.pick(&flow)?.id(), owner);
///     set.insert(Spec::new(other.ok_or("three names")?, ()))?;
///     assert_eq!(*balancer.pick(&flow)?.id(), owner, "or comes");
/// }
/// # Ok::<(), Box<dyn std::error::Error>>(())
/// ```
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
#[must_use]
pub struct RendezvousHash {
    /// 0 is the exact form.
    rows: usize,
    seed: u64,
}

const DEFAULT_ROWS: usize = 65_536;
/// A row names a member in 16 bits.
const _: () = assert!(MAX_BACKENDS <= 1 << u16::BITS);

impl RendezvousHash {
    /// The exact form.
    pub const fn new() -> Self {
        Self { rows: 0, seed: 0 }
    }

    /// The table form with 65 536 rows.
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

    /// Sets what places names and keys; see [`hash_bytes`] for when it should be secret.
    /// Default: 0.
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
        let field = RendezvousCandidates::new(members, self.seed, |m| m.share() != 0);
        let key_seed = mix_bits(self.seed);
        if self.rows == 0 {
            return Ok(Box::new(ExactRendezvousPicker { candidates: field, key_seed }));
        }
        let previous =
            previous_as::<TableRendezvousPicker>(previous).filter(|old| old.rule == *self);
        let entries = members.iter().map(PlacedMember::from_member).collect();
        let owners = match previous {
            Some(old) => old.rebuild_owners(&field, members),
            None => (0..self.rows).map(|row| field.owner(row_seed(key_seed, row))).collect(),
        };
        // A row without an owner is there only if the field is empty, and then all are.
        let owners = owners.unwrap_or_default();
        Ok(Box::new(TableRendezvousPicker {
            owners,
            candidates: field,
            key_seed,
            rule: *self,
            placed_members: entries,
        }))
    }
}

/// The seed of a row; keys of the exact form are spread likewise.
fn row_seed(key_seed: u64, row: usize) -> u64 {
    mix_bits(key_seed ^ mix_bits(row as u64 + 1))
}

/// Who competes for keys.
#[derive(Debug)]
struct RendezvousCandidates {
    /// Heaviest first: the first good candidate spares the lighter ones their logarithm.
    groups: Box<[WeightGroup]>,
    name_hashes: Box<[NameHashes]>,
    /// Of each name, in the list of members.
    positions: Box<[u16]>,
}

/// Members of one weight, as a range of [`RendezvousCandidates::names`].
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

    /// Meets a key: uniform, and never 0.
    #[inline]
    fn score(self, key: u64) -> u64 {
        let product = u128::from(key ^ self.0) * u128::from(self.1);
        ((product >> 64) as u64 ^ product as u64) | 1
    }
}

/// How well a member did for one key.
#[derive(Clone, Copy, Debug)]
struct RendezvousRank {
    score: u64,
    weight: u32,
    name_hashes: NameHashes,
    position: u16,
}

impl RendezvousRank {
    /// The order that [`RendezvousCandidates::best`] goes by.
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
            // The cast keeps the value: `compile` has looked at the length.
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

    /// The best of those who are admitted (by position), by any uniform score that is not 0.
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
                // Nobody to compare with, and nobody to come.
                None if self.groups.len() == 1 => 0,
                None => score_cost(top),
                Some((rank, least)) => {
                    // cost / weight >= least / rank.weight, first by what is quick to know.
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

    /// The position of the best of all.
    #[inline]
    fn owner(&self, key: u64) -> Option<u16> {
        self.best(|name| name.score(key), |_| true).map(|rank| rank.position)
    }

    /// The position of the best that is usable.
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
    /// What each position stood for, to find it again in a later list.
    placed_members: Box<[PlacedMember]>,
}

/// Who competed, and how.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
struct PlacedMember {
    serial: u64,
    /// 0 for one that did not compete.
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
}

impl TableRendezvousPicker {
    /// The owners of all rows in a later list: only what has changed competes again.
    fn rebuild_owners(
        &self,
        field: &RendezvousCandidates,
        members: &Members,
    ) -> Option<Box<[u16]>> {
        let weights_before: HashMap<u64, u32> =
            self.placed_members.iter().map(|entry| (entry.serial, entry.weight)).collect();
        let stays = |member: &Member| {
            let PlacedMember { serial, weight } = PlacedMember::from_member(member);
            weight != 0 && weights_before.get(&serial) == Some(&weight)
        };
        let stayed: HashMap<u64, RendezvousRank> = (field.name_hashes.iter().zip(&field.positions))
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
            let Some(old) = old else { return field.owner(key) };
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

/// The cost of a hash: `-log2(hash / 2^64)`, by linear interpolation; it never rises with the hash.
fn score_cost(hash: u64) -> u64 {
    let zeros = hash.leading_zeros();
    // The hash as a number from 1 to 2: its first 10 bits behind the point, and the rest.
    let mantissa = (hash << zeros) & (u64::MAX >> 1);
    let (i, rest) = ((mantissa >> 53) as usize, mantissa & ((1 << 53) - 1));
    // From the upper end down, so that costs next to 0 keep their precision.
    let step = u128::from(LOG2_TABLE[i + 1] - LOG2_TABLE[i]) * u128::from((1u64 << 53) - rest);
    (u64::from(zeros) << COST_FRACTION_BITS)
        + ((1 << COST_FRACTION_BITS) - LOG2_TABLE[i + 1])
        + (step >> 53) as u64
}

/// Something that [`score_cost`] is never below: `-log2(u) >= 1.4427 * (1 - u)`.
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
            let carry = square >> 64 != 0;
            x = if carry { (square >> 1) as u64 } else { square as u64 };
            log |= (carry as u64) << bit;
        }
        table[i] = log;
        i += 1;
    }
    table
}

#[cfg(all(test, not(lvs_loom)))]
mod tests {
    use std::hash::Hasher;

    use siphasher::sip::SipHasher24;

    use super::*;
    use crate::scheduler::Rng;
    use crate::scheduler::testing::{backend_name, set_with_weights};
    use crate::{BackendSet, Flow, Health, Spec};

    #[test]
    fn the_cost_is_the_logarithm_and_never_rises() {
        assert_eq!(score_cost(1), 64 << COST_FRACTION_BITS);
        assert_eq!(score_cost(1 << 63), 1 << COST_FRACTION_BITS);
        assert_eq!(score_cost(u64::MAX), 0);
        let mut rng = Rng::with_seed(2);
        for _ in 0..20_000 {
            let hash = (rng.next_u64() >> rng.below(64)) | 1;
            let exact = 64.0 - (hash as f64).log2();
            let ours = score_cost(hash) as f64 / f64::from(1 << 28) / f64::from(1 << 29);
            assert!((ours - exact).abs() < 2e-7, "{hash}: {ours} for {exact}");
            assert!(
                score_cost(hash) <= score_cost((hash - 1) | 1)
                    && score_cost(hash) >= score_cost(hash.saturating_add(2))
            );
            assert!(min_score_cost(hash) <= score_cost(hash), "{hash}");
        }
        for step in 0..4096 {
            let hash = u64::MAX - step;
            assert!(
                min_score_cost(hash) <= score_cost(hash)
                    && score_cost(hash) <= score_cost(hash - 1),
                "{step}"
            );
        }
    }

    #[test]
    fn ranks_and_the_best_of_a_field_go_by_one_order() {
        let snapshot = set_with_weights(&[1, 5, 5, 2, 9, 1, 5, 60_000]).snapshot();
        let field = RendezvousCandidates::new(snapshot.members(), 3, |_| true);
        for key in (0..2000).map(mix_bits) {
            let best = field.best(|name| name.score(key), |_| true).expect("members");
            for only in 0..8 {
                let other = field.best(|name| name.score(key), |i| i == only).expect("admitted");
                assert_eq!(best.is_better_than(&other), only != best.position);
                assert!(!other.is_better_than(&best));
            }
        }
    }

    #[test]
    fn members_win_by_their_weights() {
        for rule in [RendezvousHash::new(), RendezvousHash::table().seed(4)] {
            let snapshot = set_with_weights(&[1, 2, 3, 10, 0, 4]).snapshot();
            let picker = rule.compile(snapshot.members(), None).expect("small");
            let mut counts = [0i64; 6];
            let mut rng = Rng::with_seed(3);
            for key in 0..100_000 {
                let flow = Flow::new().key(key);
                let mut cx = PickContext::new(snapshot.members(), &flow, &mut rng);
                counts[5 - picker.pick(&mut cx).expect("usable")] += 1;
            }
            for (count, weight) in counts.into_iter().zip([1, 2, 3, 10, 0, 4]) {
                // Four deviations of what is binomial.
                let mean = weight * 5000;
                let deviation = (mean as f64 * (1.0 - weight as f64 / 20.0)).sqrt();
                assert!((count - mean).abs() as f64 <= 4.5 * deviation, "{counts:?}");
            }
        }
    }

    /// The rule of github/glb-director, src/glb-director/tests/rendezvous_table.py, has another
    /// score and goes from the lowest up. The vectors are those of its test_rendezvous_table.py.
    #[test]
    fn the_order_by_siphash_is_that_of_the_glb_director() {
        let seed = 0x49a3_d861_d661_ae5a_b06e_d932_6871_a2f5_u128.to_be_bytes();
        let digest = |parts: &[&[u8]]| {
            let mut hasher = SipHasher24::new_with_key(&seed);
            hasher.write(&parts.concat());
            hasher.finish().to_le_bytes()
        };
        let set = BackendSet::new();
        for host in 1..=4 {
            set.insert(Spec::new(format!("1.1.1.{host}"), ())).expect("new");
        }
        let snapshot = set.snapshot();
        let members = snapshot.members();
        let field = RendezvousCandidates::new(members, 0, |_| true);
        let host_of = |name: NameHashes| -> u8 {
            let member = members
                .iter()
                .find(|m| NameHashes::from_member(m, 0) == name)
                .expect("in the field");
            member.id().as_str()[6..].parse().expect("a digit")
        };
        for (row, row_seed, order) in [
            (0x0000_u32, 0x491c_53a7_2df4_c837_u64, [4, 3, 2, 1]),
            (0xffff, 0xf223_c0cc_6516_1620, [1, 2, 4, 3]),
            (0xbb44, 0xe290_f8f4_30eb_33d3, [4, 1, 2, 3]),
        ] {
            let seed_of_row = digest(&[&row.to_be_bytes()]);
            assert_eq!(u64::from_be_bytes(seed_of_row), row_seed);
            let score =
                |name| !u64::from_be_bytes(digest(&[&seed_of_row, &[1, 1, 1, host_of(name)]]));
            let mut chosen: Vec<u16> = Vec::new();
            while let Some(rank) = field.best(score, |i| !chosen.contains(&i)) {
                chosen.push(rank.position);
            }
            // The list is newest first.
            assert_eq!(chosen.iter().map(|i| 4 - i).collect::<Vec<_>>(), order);
        }
    }

    fn owners(picker: &dyn Picker) -> &[u16] {
        &previous_as::<TableRendezvousPicker>(Some(picker)).expect("a table").owners
    }

    #[test]
    fn a_table_that_was_changed_is_the_table_that_is_built_anew() {
        let rule = RendezvousHash::new().rows(500).expect("in range").seed(8);
        let set = BackendSet::new();
        let mut rng = Rng::with_seed(5);
        let mut picker = rule.compile(set.snapshot().members(), None).expect("small");
        let mut names: Vec<usize> = Vec::new();
        for i in 0..150 {
            let pick = rng.below(names.len() as u64) as usize;
            match rng.below(6) {
                _ if names.is_empty() => {
                    set.insert(Spec::new(backend_name(i), ())).expect("new");
                    names.push(i);
                }
                0 | 1 => {
                    let weight = 1 + rng.below(4) as u32;
                    set.insert(Spec::new(backend_name(i), ()).weight(weight)).expect("new");
                    names.push(i);
                }
                2 => {
                    set.remove(&backend_name(names.swap_remove(pick)).into()).expect("known");
                }
                3 => {
                    let weight = rng.below(4) as u32;
                    set.set_weight(&backend_name(names[pick]).into(), weight).expect("known");
                }
                state => {
                    let health = if state == 4 { Health::Down } else { Health::Up };
                    set.set_health(&backend_name(names[pick]).into(), health).expect("known");
                }
            }
            let snapshot = set.snapshot();
            picker = rule.compile(snapshot.members(), Some(&*picker)).expect("small");
            let anew = rule.compile(snapshot.members(), None).expect("small");
            assert_eq!(owners(&*picker), owners(&*anew));
        }
    }

    #[test]
    fn a_row_goes_to_the_next_in_its_order() {
        let set = set_with_weights(&[3, 1, 2, 2, 5]);
        let snapshot = set.snapshot();
        let rule = RendezvousHash::new().rows(64).expect("in range");
        let picker = rule.compile(snapshot.members(), None).expect("small");
        let mut rng = Rng::with_seed(6);
        for key in 0..200 {
            // What a retry passes by is what a set without that member would choose.
            let flow = Flow::new().key(key);
            let mut cx = PickContext::new(snapshot.members(), &flow, &mut rng);
            let first = picker.pick(&mut cx).expect("usable");
            let retry = flow.excluding(&snapshot.backends()[first]);
            let mut cx = PickContext::new(snapshot.members(), &retry, &mut rng);
            let second = picker.pick(&mut cx).expect("usable");
            let id = snapshot.members()[first].id();
            set.set_health(id, Health::Down).expect("known");
            let without = set.snapshot();
            let down = rule.compile(without.members(), Some(&*picker)).expect("small");
            let flow = Flow::new().key(key);
            let mut cx = PickContext::new(without.members(), &flow, &mut rng);
            assert_eq!(down.pick(&mut cx), Some(second));
            set.set_health(id, Health::Up).expect("known");
        }
    }
}
