//! What `lc`, `wlc`, `sed` and `nq` have in common: the member with the least cost for its weight.

use std::ops::Range;

use super::PickContext;
use super::memo::Memo;
use crate::backend::{Load, Member, Members};

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

    /// What the cost is divided by; not 0 for a member with a share.
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
    /// `None` for a set that is quicker looked through.
    memo: Option<Memo>,
}

/// One candidate: where it is, and its cost and weight.
type Candidate = (usize, u64, u32);

/// Below this, comparing all costs less than keeping versions.
const SMALL: usize = 24;
/// What a group remembers that has nobody usable.
const NOBODY: u32 = u32::MAX;

impl<C: Cost> Least<C> {
    pub(super) fn new(cost: C, members: &Members) -> Self {
        Self { cost, memo: (members.len() > SMALL).then(|| Memo::new(members)) }
    }

    #[inline]
    pub(super) fn pick(&self, cx: &PickContext<'_>) -> Option<usize> {
        let all = 0..cx.members().len();
        match &self.memo {
            // What one flow may not have, the next one may: remember nothing of a retry.
            Some(memo) if cx.is_plain() => self.best_of_groups(memo, cx),
            _ => self.best_of(all, cx),
        }
        .map(|(i, ..)| i)
    }

    fn best_of_groups(&self, memo: &Memo, cx: &PickContext<'_>) -> Option<Candidate> {
        let mut best = None;
        for run in 0..memo.groups() {
            let look = |range| self.best_of(range, cx).map_or(NOBODY, |(i, ..)| i as u32);
            let champion = memo.value(run, look);
            if champion != NOBODY {
                best = self.better(best, champion as usize, &cx.members()[champion as usize]);
            }
        }
        best
    }

    fn best_of(&self, range: Range<usize>, cx: &PickContext<'_>) -> Option<Candidate> {
        let mut best = None;
        for i in range {
            if cx.usable(i) {
                best = self.better(best, i, &cx.members()[i]);
            }
        }
        best
    }

    #[inline]
    fn better(&self, best: Option<Candidate>, i: usize, member: &Member) -> Option<Candidate> {
        let (cost, weight) = (self.cost.cost(member.load()), self.cost.weight(member));
        match best {
            // cost / weight < least / least_weight, without the divisions: a cost is below 2^41 and
            // a weight below 2^23.
            Some((_, least, least_weight))
                if cost * u64::from(least_weight) >= least * u64::from(weight) =>
            {
                best
            }
            _ => Some((i, cost, weight)),
        }
    }
}
