//! What `lc`, `wlc`, `sed` and `nq` have in common: the member with the least cost for its weight.

use std::ops::Range;
use std::sync::Arc;

use super::PickContext;
use super::memo::Memo;
use crate::backend::{Account, Limits, Load, Member, Members};

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

/// What makes one member cheaper than another.
pub(super) trait Cost: std::fmt::Debug + Send + Sync + 'static {
    /// What the member's load costs.
    fn cost(&self, load: Load) -> u64;

    /// What the cost of an eligible member is divided by; not 0.
    #[inline]
    fn weight(&self, member: &Member) -> u32 {
        member.share()
    }
}

/// Finds the usable member with the least `cost / weight`, the first in the list among equals.
///
/// Small sets are looked through. In larger ones each group of neighbours remembers its best until
/// some load in it changes (see [`Memo`]), so a pick compares the bests.
#[derive(Debug)]
pub(super) struct Least<C> {
    cost: C,
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
    limited: bool,
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
/// Below this, comparing all costs less than keeping versions.
const SMALL: usize = 24;

impl<C: Cost> Least<C> {
    pub(super) fn new(cost: C, members: &Members) -> Self {
        let slot = |m: &Member| Slot {
            account: Arc::clone(m.account()),
            weight: if m.share() == 0 { 0 } else { cost.weight(m) },
            limited: m.limits() != Limits::NONE,
        };
        let slots = members.iter().map(slot).collect();
        Self { cost, slots, memo: (members.len() > SMALL).then(|| Memo::new(members)) }
    }

    #[inline]
    pub(super) fn pick(&self, cx: &PickContext<'_>) -> Option<usize> {
        let best = match &self.memo {
            // What one flow may not have the next one may: nothing is remembered of a retry.
            _ if !cx.is_plain() => self.best_of(0..self.slots.len(), |i| cx.usable(i)),
            Some(memo) => self.best_of_groups(memo, cx),
            None => self.best_of(0..self.slots.len(), |i| self.usable(i, cx)),
        };
        (best.position != NOBODY.position).then_some(best.position as usize)
    }

    fn best_of_groups(&self, memo: &Memo, cx: &PickContext<'_>) -> Best {
        let mut best = NOBODY;
        for run in 0..memo.groups() {
            let look = |range| self.best_of(range, |i| self.usable(i, cx)).position;
            let champion = memo.value(run, look);
            if champion != NOBODY.position {
                best = self.better(best, champion as usize);
            }
        }
        best
    }

    #[inline]
    fn best_of(&self, range: Range<usize>, usable: impl Fn(usize) -> bool) -> Best {
        range.fold(NOBODY, |best, i| if usable(i) { self.better(best, i) } else { best })
    }

    /// [`PickContext::usable`] for a flow that nothing is forbidden to.
    #[inline]
    fn usable(&self, i: usize, cx: &PickContext<'_>) -> bool {
        let slot = &self.slots[i];
        slot.weight != 0 && !(slot.limited && cx.members()[i].is_overloaded())
    }

    #[inline]
    fn better(&self, best: Best, i: usize) -> Best {
        let slot = &self.slots[i];
        let cost = self.cost.cost(slot.account.load());
        // cost / weight < least / least_weight, without the divisions: a cost is below 2^41 and a
        // weight below 2^23.
        if cost * u64::from(best.weight) < best.cost * u64::from(slot.weight) {
            Best { position: i as u32, cost, weight: slot.weight }
        } else {
            best
        }
    }
}
