//! What `lc`, `wlc`, `sed` and `nq` have in common: the member with the least cost for its weight.

use std::marker::PhantomData;
use std::ops::Range;
use std::str::FromStr;
use std::sync::Arc;

use thiserror::Error;

use super::memo::Memo;
use super::{PickContext, Picker};
use crate::backend::{Account, Load, Member, Members};

/// How much an inactive connection counts beside an active one.
///
/// Linux has known two formulas. They differ only in how ties between nearly equal servers fall.
#[derive(Clone, Copy, Debug, Default, Eq, PartialEq)]
#[non_exhaustive]
pub enum Overhead {
    /// 256 for an active connection, 1 for an inactive one: every kernel until early 2026.
    #[default]
    Classic,
    /// 257 for an active connection, 1 for an inactive one: mainline since, and the stable kernels
    /// it was carried to (6.12.117).
    Total,
}

impl Overhead {
    /// The cost of a load.
    #[inline]
    #[must_use]
    pub const fn of(self, load: Load) -> u64 {
        let active = match self {
            Self::Classic => 256,
            Self::Total => 257,
        };
        active * load.active as u64 + load.inactive as u64
    }
}

impl FromStr for Overhead {
    type Err = UnknownOverhead;

    /// Reads `classic` or `total`.
    fn from_str(name: &str) -> Result<Self, UnknownOverhead> {
        match name {
            "classic" => Ok(Self::Classic),
            "total" => Ok(Self::Total),
            _ => Err(UnknownOverhead(name.to_owned())),
        }
    }
}

/// A name that is not that of an [`Overhead`].
#[derive(Clone, Debug, Eq, Error, PartialEq)]
#[error("unknown overhead {0:?}: neither classic nor total")]
pub struct UnknownOverhead(String);

/// What makes one member cheaper than another; a type, so that the comparison is compiled for it.
pub(super) trait Cost: std::fmt::Debug + Send + Sync + 'static {
    /// What a load costs; below 2^41.
    fn cost(load: Load) -> u64;
}

#[derive(Debug)]
pub(super) struct Classic;

impl Cost for Classic {
    #[inline]
    fn cost(load: Load) -> u64 {
        Overhead::Classic.of(load)
    }
}

#[derive(Debug)]
pub(super) struct Total;

impl Cost for Total {
    #[inline]
    fn cost(load: Load) -> u64 {
        Overhead::Total.of(load)
    }
}

/// [`Least`] by connections: `lc` and `wlc`, and what `lblc` and `lblcr` fall back on.
#[derive(Debug)]
pub(super) enum LeastConnected {
    Classic(Least<Classic>),
    Total(Least<Total>),
}

impl LeastConnected {
    pub(super) fn new(
        overhead: Overhead,
        members: &Members,
        weight: impl Fn(&Member) -> u32,
    ) -> Self {
        match overhead {
            Overhead::Classic => Self::Classic(Least::new(members, weight)),
            Overhead::Total => Self::Total(Least::new(members, weight)),
        }
    }
}

impl Picker for LeastConnected {
    fn pick(&self, cx: &mut PickContext<'_>) -> Option<usize> {
        match self {
            Self::Classic(least) => least.pick(cx),
            Self::Total(least) => least.pick(cx),
        }
    }
}

/// Finds the usable member with the least `cost / weight`, the first in the list among equals.
///
/// Small sets are looked through. In larger ones each group of neighbours remembers its best until
/// some load in it changes (see [`Memo`]), so a pick compares the bests.
#[derive(Debug)]
pub(super) struct Least<C> {
    cost: PhantomData<C>,
    slots: Box<[Slot]>,
    /// `None` for a set that is quicker looked through.
    memo: Option<Memo>,
}

/// What a comparison reads of a member, close together.
#[derive(Debug)]
struct Slot {
    account: Arc<Account>,
    /// 0 for a member that is not eligible.
    weight: u32,
}

/// The best so far.
#[derive(Clone, Copy)]
struct Best {
    position: u32,
    cost: u64,
    weight: u32,
}

/// Nobody: a cost of one over nothing, which everybody is better than.
const NOBODY: Best = Best { position: u32::MAX, cost: 1, weight: 0 };
/// Below this, comparing all costs less than keeping versions. The models remember from one on.
const SMALL: usize = if cfg!(lvs_loom) { 0 } else { 24 };

impl<C: Cost> Least<C> {
    /// Compares `cost / weight`; the weight of an eligible member is not 0, and below 2^23.
    pub(super) fn new(members: &Members, weight: impl Fn(&Member) -> u32) -> Self {
        let slot = |m: &Member| Slot {
            account: Arc::clone(m.account()),
            weight: if m.share() == 0 { 0 } else { weight(m) },
        };
        let slots = members.iter().map(slot).collect();
        let memo = (members.len() > SMALL).then(|| Memo::new(members));
        Self { cost: PhantomData, slots, memo }
    }

    /// As [`Picker::pick`].
    #[inline]
    pub(super) fn pick(&self, cx: &PickContext<'_>) -> Option<usize> {
        let best = match &self.memo {
            _ if !cx.is_plain() => self.best_for_retry(cx),
            Some(memo) => self.best_of_groups(memo, cx),
            None => self.best_with_room(0..self.slots.len(), cx),
        };
        (best.position != NOBODY.position).then_some(best.position as usize)
    }

    // The paths stand apart so that the short one is not made to save registers for the others.
    #[inline(never)]
    fn best_of_groups(&self, memo: &Memo, cx: &PickContext<'_>) -> Best {
        let mut best = NOBODY;
        for run in 0..memo.groups() {
            let champion = memo.value(run, |range| self.best_with_room(range, cx).position);
            if let Some(slot) = self.slots.get(champion as usize) {
                best = self.better(best, champion as usize, slot);
            }
        }
        best
    }

    /// What one flow may not have the next one may: nothing is remembered of a retry.
    #[cold]
    fn best_for_retry(&self, cx: &PickContext<'_>) -> Best {
        self.best_of(0..self.slots.len(), |i| cx.usable(i))
    }

    /// The best for a flow that nothing is forbidden to. Who is not eligible has weight 0 and is
    /// never better than anybody.
    #[inline]
    fn best_with_room(&self, range: Range<usize>, cx: &PickContext<'_>) -> Best {
        let members = cx.members();
        if members.is_limited() {
            self.best_of(range, |i| !members[i].is_overloaded())
        } else {
            self.best_of(range, |_| true)
        }
    }

    #[inline]
    fn best_of(&self, range: Range<usize>, usable: impl Fn(usize) -> bool) -> Best {
        let slots = self.slots[range.clone()].iter();
        range.zip(slots).fold(
            NOBODY,
            |best, (i, slot)| {
                if usable(i) { self.better(best, i, slot) } else { best }
            },
        )
    }

    #[inline]
    fn better(&self, best: Best, i: usize, slot: &Slot) -> Best {
        let cost = C::cost(slot.account.load());
        // cost / weight < least / least_weight, without the divisions.
        if cost * u64::from(best.weight) < best.cost * u64::from(slot.weight) {
            // A branch that is guessed lets the next member be compared meanwhile; a conditional move
            // would have it wait.
            std::hint::cold_path();
            Best { position: i as u32, cost, weight: slot.weight }
        } else {
            best
        }
    }
}
