//! Consistent hashing on a ring: `ring`.
//!
//! After D. Karger et al., *Consistent Hashing and Random Trees*, STOC 1997. Each member has many
//! points on a circle of 2^64 hashes; a key belongs to the member of the first point at or after
//! its hash.
//!
//! The `hashring` crate builds the ring, and every decision equals that of its `get`. A pick reads
//! a flat copy: the circle is divided into equal buckets, more than there are points, and each
//! bucket holds the owner of its first point.

use std::hash::{BuildHasher, Hash, Hasher};
use std::sync::Arc;

use hashring::{DefaultHashBuilder, HashRing};

use crate::backend::{MAX_BACKENDS, Members};
use crate::scheduler::hash::seed::SEED;
use crate::scheduler::hash::table_key::{TableKey, is_any_usable};
use crate::scheduler::hashing::{hash_bytes, mix_bits};
use crate::scheduler::parameter::{
    ParameterKind, SchedulerFamily, SchedulerInfo, SchedulerParameter, SchedulerParameterError,
};
use crate::scheduler::traits::previous_as;
use crate::scheduler::{CompileError, PickContext, Picker, Scheduler};

/// `ring`: selects by consistent hashing with virtual nodes, whose number follows the weight.
///
/// Choose it for the same key to the same backend where membership changes: exactly the keys of a
/// removed backend move, and exactly the keys that a new backend gets. The shares are uneven; for
/// even shares see [`maglev`](crate::scheduler::Maglev), and under
/// [`Bounded`](crate::scheduler::BoundedLoad) no backend exceeds its load bound.
///
/// Reads the flow's [key](crate::scheduler::FlowView::key); a flow without a key goes to a random
/// member.
///
/// # Shares
/// A member has 160 points (or the [configured number](RingHash::replicas)) times its weight over
/// the smallest weight, rounded, at least one. If that makes more than 262 144 points, all are
/// scaled down in proportion and rounded down, at least one each. When the only member of the
/// smallest weight is added or removed, the points of the others change in proportion, and some of
/// their keys move.
///
/// Largest share over the mean for equal weights, mean of 20 seeds; the deviation from the mean is
/// about `1 / sqrt(points_per_member)`:
///
/// | points each | 10 members | 100 | 500 |
/// |---|---|---|---|
/// | 160 | 1.12 | 1.20 | 1.26 |
///
/// # Unusable members
/// The ring contains all members in any state by
/// [`table_weight`](crate::backend::Member::table_weight). A key whose owner is not usable goes to
/// the next point clockwise whose owner is usable, so that the keys of a failed member spread over
/// many members, and no other key moves.
///
/// # Cost
/// A pick takes a SipHash-2-4 of the key and nearly always a single read: 13 to 15 ns in addition
/// to the lease for 10 to 100 members of 160 points, and about 25 ns for 1000 members, where many
/// keys make it wait for memory. For 1000 members the copy takes 2.8 MB and 15 ms to build, off the
/// hot path; with the largest number of points 5 MB and 27 ms. A change of state alone builds
/// nothing.
///
/// # Examples
/// ```
/// # use lvs::{BackendSet, Balancer, Flow, Spec, scheduler::RingHash};
/// let set = BackendSet::new();
/// let balancer = Balancer::new(&set, RingHash::new())?;
/// for name in ["a", "b", "c", "d"] {
///     set.insert(Spec::new(name, ()))?;
/// }
/// let owner = |key| balancer.pick(&Flow::new().key(key)).map(|lease| lease.id().clone());
/// let before = (0..100).map(owner).collect::<Result<Vec<_>, _>>()?;
/// set.remove(&"b".into())?;
/// for (key, before) in before.into_iter().enumerate() {
///     assert!(before.as_str() == "b" || owner(key as u64)? == before, "no other key moves");
/// }
/// # Ok::<(), Box<dyn std::error::Error>>(())
/// ```
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
#[must_use]
pub struct RingHash {
    replicas: u32,
    seed: u64,
}

const DEFAULT_REPLICAS: u32 = 160;
/// The largest number of points of a ring.
const MAX_POINTS: u64 = 1 << 18;
/// Every member has at least one point.
const _: () = assert!(MAX_BACKENDS as u64 <= MAX_POINTS / 2);

impl RingHash {
    /// Creates the rule, with 160 points for each member of the smallest weight.
    pub const fn new() -> Self {
        Self { replicas: DEFAULT_REPLICAS, seed: 0 }
    }

    /// Sets the number of points of a member of the smallest weight; more points make shares more
    /// even. Default: 160.
    ///
    /// # Errors
    /// [`SchedulerParameterError`] for a number that is not within 1..=65536.
    pub fn replicas(self, replicas: u32) -> Result<Self, SchedulerParameterError> {
        Ok(Self { replicas: REPLICAS.check_integer("ring", replicas)?, ..self })
    }

    /// Sets the seed of the hash that places points and keys; see [`hash_bytes`] for when it should
    /// be secret. Default: 0.
    pub const fn seed(self, seed: u64) -> Self {
        Self { seed, ..self }
    }

    fn build_ring(&self, members: &Members) -> HashRing<RingPoint> {
        let points = points_per_member(members, self.replicas);
        let mut all = Vec::with_capacity(points.iter().sum::<u64>() as usize);
        for (owner, (member, &count)) in members.iter().zip(&points).enumerate() {
            let name = hash_bytes(member.id().as_str().as_bytes(), self.seed);
            // The casts keep the values: at most 2^18 points, and so as many owners.
            let point = |replica| RingPoint {
                name_hash: name,
                replica: replica as u32,
                owner: owner as u32,
            };
            all.extend((0..count).map(point));
        }
        let mut ring = HashRing::new();
        ring.batch_add(all);
        ring
    }
}

impl Default for RingHash {
    fn default() -> Self {
        Self::new()
    }
}

const REPLICAS: SchedulerParameter = SchedulerParameter::new(
    "replicas",
    ParameterKind::Integer { min: 1, max: 65_536 },
    Some("160"),
    "The points on the ring of a server of the smallest weight",
);

impl RingHash {
    pub(in crate::scheduler) const INFO: SchedulerInfo = SchedulerInfo {
        name: "ring",
        type_name: "RingHash",
        family: SchedulerFamily::Hash,
        summary: "Selects the next virtual node on a hash ring",
        parameters: &[REPLICAS, SEED],
    };
}

impl Scheduler for RingHash {
    fn name(&self) -> &str {
        "ring"
    }

    fn compile(
        &self,
        members: &Members,
        previous: Option<&dyn Picker>,
    ) -> Result<Box<dyn Picker>, CompileError> {
        let table_key = TableKey::from_members(members);
        if let Some(old) = previous_as::<RingHashPicker>(previous)
            && old.rule == *self
            && *old.table_key == table_key
        {
            return Ok(Box::new(old.clone()));
        }
        if members.len() > MAX_BACKENDS {
            return Err(CompileError::TooManyMembers { members: members.len(), max: MAX_BACKENDS });
        }
        Ok(Box::new(RingHashPicker {
            ring: Arc::new(BucketedRing::new(self.build_ring(members))),
            key_seed: mix_bits(self.seed),
            rule: *self,
            table_key: Arc::new(table_key),
        }))
    }
}

/// Returns the number of points of each member.
fn points_per_member(members: &Members, replicas: u32) -> Vec<u64> {
    let weights = || members.iter().map(|m| u64::from(m.table_weight()));
    let smallest = weights().filter(|&w| w != 0).min().unwrap_or(1);
    let plain = weights().map(|w| (w * u64::from(replicas) + smallest / 2) / smallest);
    if plain.clone().sum::<u64>() <= MAX_POINTS {
        return plain.collect();
    }
    // Rounding up to one point adds at most one point for each member.
    let (sum, room) = (weights().sum::<u64>(), MAX_POINTS - members.len() as u64);
    weights().map(|w| if w == 0 { 0 } else { (w * room / sum).max(1) }).collect()
}

/// A virtual node; its place does not depend on its owner's position.
#[derive(Clone, Copy, Debug)]
struct RingPoint {
    name_hash: u64,
    replica: u32,
    owner: u32,
}

impl Hash for RingPoint {
    fn hash<H: Hasher>(&self, state: &mut H) {
        (self.name_hash, self.replica).hash(state);
    }
}

#[derive(Clone, Debug)]
struct RingHashPicker {
    ring: Arc<BucketedRing>,
    key_seed: u64,
    rule: RingHash,
    table_key: Arc<TableKey>,
}

impl Picker for RingHashPicker {
    fn pick(&self, cx: &mut PickContext<'_>) -> Option<usize> {
        let hash = DefaultHashBuilder.hash_one(cx.key() ^ self.key_seed);
        let owner = self.ring.owner(hash)?;
        if cx.is_usable(owner) { Some(owner) } else { self.walk_clockwise(hash, cx) }
    }
}

impl RingHashPicker {
    #[cold]
    fn walk_clockwise(&self, hash: u64, cx: &PickContext<'_>) -> Option<usize> {
        if !is_any_usable(cx) {
            return None;
        }
        self.ring.owners_clockwise(hash).find(|&owner| cx.is_usable(owner))
    }
}

/// A ring from which a pick reads a single word, nearly always.
///
/// The first `bucket_bits` bits of a hash are its bucket; there are more buckets than points. The
/// word of a bucket holds the owner of the first point at or after the bucket's start, and the
/// offset of that point in the bucket to [`OFFSET_BITS`] bits. A hash before that point belongs to
/// its owner; a hash behind it belongs to the first owner of the next bucket, unless the bucket has
/// more points. In that case, and if the offsets are equal, the points are searched. Buckets are
/// small, because in a large ring a pick mostly waits for memory.
#[derive(Debug)]
struct BucketedRing {
    bucket_bits: u32,
    /// From the top: [`CROWDED_FLAG`], the offset, 16 bits for the owner.
    buckets: Box<[u32]>,
    /// The index of the first point at or after the beginning of every [`BUCKETS_PER_START`]-th
    /// bucket.
    bucket_starts: Box<[u32]>,
    /// The hashes of the points, in ring order.
    hashes: Box<[u64]>,
    /// The owners of the points, in the same order.
    owners: Box<[u16]>,
}

const OFFSET_BITS: u32 = 15;
/// The offset of a bucket without a point.
const MAX_OFFSET: u32 = (1 << OFFSET_BITS) - 1;
/// The bucket has more than one point.
const CROWDED_FLAG: u32 = 1 << 31;
const BUCKETS_PER_START: usize = 16;
/// An owner is stored in 16 bits.
const _: () = assert!(MAX_BACKENDS <= 1 << u16::BITS);

impl BucketedRing {
    fn new(ring: HashRing<RingPoint>) -> Self {
        let bits = (ring.len() * 3 / 2).max(2).next_power_of_two().trailing_zeros();
        let (hashes, owners): (Vec<u64>, Vec<u16>) = ring
            .into_iter()
            .map(|point| (DefaultHashBuilder.hash_one(point), point.owner as u16))
            .unzip();
        let mut flat = Self {
            bucket_bits: bits,
            buckets: Box::default(),
            bucket_starts: Box::default(),
            hashes: hashes.into(),
            owners: owners.into(),
        };
        if !flat.hashes.is_empty() {
            let mut first = 0;
            let firsts: Vec<usize> = (0..1 << bits)
                .map(|bucket| {
                    while flat.hashes.get(first).is_some_and(|&hash| flat.bucket_of(hash) < bucket)
                    {
                        first += 1;
                    }
                    first
                })
                .collect();
            flat.bucket_starts =
                firsts.iter().step_by(BUCKETS_PER_START).map(|&first| first as u32).collect();
            flat.buckets =
                (0..).zip(firsts).map(|(at, first)| flat.bucket_word(at, first)).collect();
        }
        flat
    }

    /// Returns the word of a bucket, given the index of the first point at or after its start.
    fn bucket_word(&self, bucket: usize, first: usize) -> u32 {
        let inside = |i| self.hashes.get(i).filter(|&&hash| self.bucket_of(hash) == bucket);
        let cut = inside(first).map_or(MAX_OFFSET, |&hash| self.bucket_offset(hash));
        let crowded = if inside(first + 1).is_some() { CROWDED_FLAG } else { 0 };
        crowded | cut << u16::BITS | self.owner_of_point(first) as u32
    }

    #[inline]
    fn bucket_of(&self, hash: u64) -> usize {
        (hash >> (u64::BITS - self.bucket_bits)) as usize
    }

    /// Returns the offset of a hash in its bucket.
    #[inline]
    fn bucket_offset(&self, hash: u64) -> u32 {
        ((hash << self.bucket_bits) >> (u64::BITS - OFFSET_BITS)) as u32
    }

    /// Returns the owner of the first point at or after a hash.
    #[inline]
    fn owner(&self, hash: u64) -> Option<usize> {
        let bucket = self.bucket_of(hash);
        let entry = *self.buckets.get(bucket)?;
        let (cut, first) = (self.bucket_offset(hash), entry >> u16::BITS & MAX_OFFSET);
        if cut == first || (cut > first && entry & CROWDED_FLAG != 0) {
            return Some(self.owner_of_point(self.first_point_at(hash)));
        }
        // Without a branch, because both cases are about equally frequent.
        let place = (bucket + usize::from(cut > first)) & (self.buckets.len() - 1);
        Some(usize::from(self.buckets[place] as u16))
    }

    /// Returns the owners of all points, clockwise from a hash on.
    fn owners_clockwise(&self, hash: u64) -> impl Iterator<Item = usize> {
        let (before, from) = self.owners.split_at(self.first_point_at(hash));
        from.iter().chain(before).map(|&owner| usize::from(owner))
    }

    /// Returns the index of the first point at or after a hash; the number of points if there is
    /// none.
    #[inline(never)]
    fn first_point_at(&self, hash: u64) -> usize {
        let start = self
            .bucket_starts
            .get(self.bucket_of(hash) / BUCKETS_PER_START)
            .map_or(0, |&start| start as usize);
        let from = self.hashes.get(start..).unwrap_or_default();
        start + from.iter().take_while(|&&point| point < hash).count()
    }

    /// Returns the owner of a point; the index behind the last point means the first.
    #[inline]
    fn owner_of_point(&self, index: usize) -> usize {
        usize::from(self.owners[if index < self.owners.len() { index } else { 0 }])
    }
}

#[cfg(all(test, not(lvs_loom)))]
mod tests;
