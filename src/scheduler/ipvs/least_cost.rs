//! Selection of the member with the least cost for its weight, for `lc`, `wlc`, `sed` and `nq`.

use std::marker::PhantomData;
use std::ops::Range;
use std::str::FromStr;
use std::sync::Arc;

use thiserror::Error;

use crate::backend::{BackendAccount, Load, Member, Members};
use crate::scheduler::group_cache::GroupCache;
use crate::scheduler::parameter::{ParameterKind, SchedulerParameter};
use crate::scheduler::{PickContext, Picker};

/// The cost of an inactive connection relative to an active connection.
///
/// Linux has had two formulas. They differ only in the selection between nearly equal servers.
#[derive(Clone, Copy, Debug, Default, Eq, PartialEq)]
#[non_exhaustive]
pub enum ConnectionOverhead {
    /// 256 for an active connection, 1 for an inactive one: every kernel until early 2026.
    #[default]
    Classic,
    /// 257 for an active connection, 1 for an inactive one: mainline since, and the stable kernels
    /// with a backport (6.12.117).
    Total,
}

impl ConnectionOverhead {
    pub(in crate::scheduler) const PARAMETER: SchedulerParameter = SchedulerParameter::new(
        "overhead",
        ParameterKind::Choice(&["classic", "total"]),
        Some("classic"),
        "The kernel's formula for the cost of active and inactive connections",
    );

    /// Returns the cost of a load.
    #[inline]
    #[must_use]
    pub const fn cost(self, load: Load) -> u64 {
        let active = match self {
            Self::Classic => 256,
            Self::Total => 257,
        };
        active * load.active as u64 + load.inactive as u64
    }
}

impl FromStr for ConnectionOverhead {
    type Err = ParseOverheadError;

    /// Reads `classic` or `total`.
    fn from_str(name: &str) -> Result<Self, ParseOverheadError> {
        match name {
            "classic" => Ok(Self::Classic),
            "total" => Ok(Self::Total),
            _ => Err(ParseOverheadError(name.to_owned())),
        }
    }
}

/// A text that names no [`ConnectionOverhead`].
#[derive(Clone, Debug, Eq, Error, PartialEq)]
#[error("overhead {0:?} is unknown: use classic or total")]
pub struct ParseOverheadError(String);

/// The cost of a load; a type, so that the comparison is compiled for each formula.
pub(in crate::scheduler) trait LoadCost:
    std::fmt::Debug + Send + Sync + 'static
{
    /// Returns the cost of a load; below 2^41.
    fn cost(load: Load) -> u64;
}

#[derive(Debug)]
pub(in crate::scheduler) struct ClassicCost;

impl LoadCost for ClassicCost {
    #[inline]
    fn cost(load: Load) -> u64 {
        ConnectionOverhead::Classic.cost(load)
    }
}

#[derive(Debug)]
pub(in crate::scheduler) struct TotalCost;

impl LoadCost for TotalCost {
    #[inline]
    fn cost(load: Load) -> u64 {
        ConnectionOverhead::Total.cost(load)
    }
}

/// Selects by connections: the picker of `lc` and `wlc`, and the fallback of `lblc` and `lblcr`.
#[derive(Debug)]
pub(in crate::scheduler) enum LeastConnectionsPicker {
    Classic(LeastCost<ClassicCost>),
    Total(LeastCost<TotalCost>),
}

impl LeastConnectionsPicker {
    pub(in crate::scheduler) fn new(
        overhead: ConnectionOverhead,
        members: &Members,
        weight: impl Fn(&Member) -> u32,
    ) -> Self {
        match overhead {
            ConnectionOverhead::Classic => Self::Classic(LeastCost::new(members, weight)),
            ConnectionOverhead::Total => Self::Total(LeastCost::new(members, weight)),
        }
    }
}

impl Picker for LeastConnectionsPicker {
    fn pick(&self, cx: &mut PickContext<'_>) -> Option<usize> {
        match self {
            Self::Classic(least) => least.pick(cx),
            Self::Total(least) => least.pick(cx),
        }
    }
}

/// Finds the usable member with the least `cost / weight`, the first in the list among equals.
///
/// Small sets are scanned. In larger sets the best member of each group of neighbours is cached
/// until a load in the group changes (see [`GroupCache`]), and a pick compares the best members.
#[derive(Debug)]
pub(in crate::scheduler) struct LeastCost<C> {
    cost: PhantomData<C>,
    candidates: Box<[CostCandidate]>,
    /// `None` for a set that is scanned.
    group_cache: Option<GroupCache>,
}

/// The fields of a member that a comparison reads, close together.
#[derive(Debug)]
struct CostCandidate {
    account: Arc<BackendAccount>,
    /// 0 for a member that is not eligible.
    weight: u32,
}

/// The best candidate so far.
#[derive(Clone, Copy)]
struct BestCandidate {
    position: u32,
    cost: u64,
    weight: u32,
}

/// Makes the best candidate of a member that undercuts the best before.
///
/// Cold, so that the comparison is a predicted branch, and the next member is compared meanwhile; a
/// conditional move would wait for the result. Few members of a list are cheaper than all before them.
#[cold]
#[inline(never)]
fn new_best(i: usize, cost: u64, weight: u32) -> BestCandidate {
    BestCandidate { position: i as u32, cost, weight }
}

/// No candidate: a cost of 1/0, which every member undercuts.
const NO_CANDIDATE: BestCandidate = BestCandidate { position: u32::MAX, cost: 1, weight: 0 };
/// Up to this size a scan is cheaper than the cache. The loom models use the cache for any size.
const MAX_SCANNED_MEMBERS: usize = if cfg!(lvs_loom) { 0 } else { 24 };

impl<C: LoadCost> LeastCost<C> {
    /// Creates a picker that compares `cost / weight`; the weight of an eligible member is not 0,
    /// and below 2^23.
    pub(in crate::scheduler) fn new(members: &Members, weight: impl Fn(&Member) -> u32) -> Self {
        let candidate = |m: &Member| CostCandidate {
            account: Arc::clone(m.account()),
            weight: if m.share() == 0 { 0 } else { weight(m) },
        };
        let candidates = members.iter().map(candidate).collect();
        let group_cache = (members.len() > MAX_SCANNED_MEMBERS).then(|| GroupCache::new(members));
        Self { cost: PhantomData, candidates, group_cache }
    }

    /// As [`Picker::pick`].
    #[inline]
    pub(in crate::scheduler) fn pick(&self, cx: &PickContext<'_>) -> Option<usize> {
        let best = match &self.group_cache {
            _ if !cx.is_unrestricted() => self.best_for_retry(cx),
            Some(group_cache) => self.best_of_groups(group_cache, cx),
            None => self.best_below_limit(0..self.candidates.len(), cx),
        };
        (best.position != NO_CANDIDATE.position).then_some(best.position as usize)
    }

    // Separate functions, so that the short path does not save registers for the others.
    #[inline(never)]
    fn best_of_groups(&self, group_cache: &GroupCache, cx: &PickContext<'_>) -> BestCandidate {
        let mut best = NO_CANDIDATE;
        for run in 0..group_cache.group_count() {
            let position = group_cache
                .value_or_compute(run, |range| self.best_below_limit(range, cx).position);
            if let Some(candidate) = self.candidates.get(position as usize) {
                best = self.better_of(best, position as usize, candidate);
            }
        }
        best
    }

    /// Scans all members: the exclusions of a retry are not valid for other flows and not cached.
    #[cold]
    fn best_for_retry(&self, cx: &PickContext<'_>) -> BestCandidate {
        self.best_in_range(0..self.candidates.len(), |i| cx.is_usable(i))
    }

    /// Returns the best member for a flow without exclusions. A member that is not eligible has
    /// weight 0 and is never better than another.
    #[inline]
    fn best_below_limit(&self, range: Range<usize>, cx: &PickContext<'_>) -> BestCandidate {
        let members = cx.members();
        if members.has_limits() {
            self.best_in_range(range, |i| !members[i].is_overloaded())
        } else {
            self.best_in_range(range, |_| true)
        }
    }

    #[inline]
    fn best_in_range(&self, range: Range<usize>, usable: impl Fn(usize) -> bool) -> BestCandidate {
        let candidates = self.candidates[range.clone()].iter();
        range.zip(candidates).fold(NO_CANDIDATE, |best, (i, candidate)| {
            if usable(i) { self.better_of(best, i, candidate) } else { best }
        })
    }

    #[inline]
    fn better_of(&self, best: BestCandidate, i: usize, candidate: &CostCandidate) -> BestCandidate {
        let cost = C::cost(candidate.account.load());
        // cost / weight < least / least_weight, without the divisions.
        if cost * u64::from(best.weight) < best.cost * u64::from(candidate.weight) {
            new_best(i, cost, candidate.weight)
        } else {
            best
        }
    }
}
