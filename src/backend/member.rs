//! The list that schedulers see.

use std::net::SocketAddr;
use std::ops::{Index, Range};
use std::sync::Arc;
use std::time::{Duration, Instant};

use super::account::{BackendAccount, SetContext};
use super::board::group_ranges;
use super::{BackendId, BackendState, Limits, Load, TrafficEstimate};

/// One backend as a scheduler sees it: its attributes at the time of the snapshot, and its live
/// counters.
// On one cache line: a pick among a thousand members waits for memory more than for anything else.
#[derive(Clone, Debug)]
#[repr(align(64))]
pub struct Member {
    pub(super) account: Arc<BackendAccount>,
    pub(super) weight: u32,
    pub(super) table_weight: u32,
    pub(super) share: u32,
    pub(super) tier: u8,
    pub(super) state: BackendState,
    pub(super) limits: Limits,
    pub(super) address: Option<SocketAddr>,
    /// Where on the board its changes will be counted once this list is published.
    pub(super) load_group: u8,
}

impl Member {
    /// The stable name.
    #[must_use]
    pub fn id(&self) -> &BackendId {
        self.account.id()
    }

    /// The weight as configured; 0 quiesces.
    #[inline]
    #[must_use]
    pub fn weight(&self) -> u32 {
        self.weight
    }

    /// The last weight that was not 0: what hash tables are built from, so that quiescing a backend
    /// moves no other key.
    #[must_use]
    pub fn table_weight(&self) -> u32 {
        self.table_weight
    }

    /// The weight that counts for new work now: 0 for a member that is not eligible, scaled down
    /// during slow start. Only the ratio between the shares of one list means something.
    #[inline]
    #[must_use]
    pub fn share(&self) -> u32 {
        self.share
    }

    /// The priority tier; 0 is served first.
    #[must_use]
    pub fn tier(&self) -> u8 {
        self.tier
    }

    /// Whether the member may be given new work, and if not, why.
    #[inline]
    #[must_use]
    pub fn state(&self) -> BackendState {
        self.state
    }

    /// The connection limits.
    #[must_use]
    pub fn limits(&self) -> Limits {
        self.limits
    }

    /// The address, where the backend has one.
    #[must_use]
    pub fn address(&self) -> Option<SocketAddr> {
        self.address
    }

    /// The connections it carries this moment (one atomic read).
    #[inline]
    #[must_use]
    pub fn load(&self) -> Load {
        self.account.load()
    }

    /// Tells whether it is at its connection limit, or was and has not fallen far enough yet.
    #[inline]
    #[must_use]
    pub fn is_overloaded(&self) -> bool {
        self.account.is_overloaded(self.limits)
    }

    /// Tells whether one more connection is within the limit, though it may be
    /// [recovering](Self::is_overloaded) from having reached it.
    #[must_use]
    pub fn has_room(&self) -> bool {
        self.limits == Limits::NONE || self.load().total() < self.limits.max_connections()
    }

    /// What traffic says of it, projected to `now` (or to the latest moment anybody has named).
    #[must_use]
    pub fn estimate(&self, now: Option<Instant>) -> TrafficEstimate {
        self.account.estimate(now)
    }

    /// Sets how fast its estimates forget.
    ///
    /// For a scheduler's `compile`; where several schedulers share a set the last one decides.
    pub fn set_estimate_decay(&self, decay: Duration) {
        self.account.set_estimate_decay(decay);
    }

    /// A number that no other backend of the set ever has, for finding a member again in a later
    /// list. It means nothing outside this process.
    #[inline]
    #[must_use]
    pub fn serial(&self) -> u64 {
        self.account.serial()
    }

    #[inline]
    pub(crate) fn account(&self) -> &Arc<BackendAccount> {
        &self.account
    }

    /// A copy with another share, for schedulers that wrap others and give each its own list.
    #[must_use]
    pub fn with_share(&self, share: u32) -> Self {
        Self { share, ..self.clone() }
    }

    /// A copy with another weight (and share), for wrappers that divide a backend's weight.
    #[must_use]
    pub fn with_weight(&self, weight: u32) -> Self {
        let share = if self.share == 0 { 0 } else { weight };
        Self { weight, table_weight: weight, share, ..self.clone() }
    }
}

const _: () = assert!(size_of::<Member>() == 64);

/// What nearly every pick reads of a member.
#[derive(Clone, Copy, Debug)]
pub(crate) struct PickView<'a> {
    pub(crate) account: &'a BackendAccount,
    pub(crate) share: u32,
}

/// The members of a set at one moment, newest first: the order of the kernel's list.
///
/// A position means something only together with the list it was taken from.
#[derive(Clone, Debug, Default)]
pub struct Members {
    list: Box<[Member]>,
    /// At the same positions, and close together, for the rules and for the lease behind them: so a
    /// thousand members stay near the processor.
    accounts: Box<[Arc<BackendAccount>]>,
    shares: Box<[u32]>,
    share_sum: u64,
    has_limits: bool,
    /// In the order of a set, by descending serial; a wrapper's own list may be in any.
    is_sorted_by_serial: bool,
}

impl Members {
    /// Makes a list of its own, for schedulers that wrap others.
    #[must_use]
    pub fn new(list: impl IntoIterator<Item = Member>) -> Self {
        let list: Box<[Member]> = list.into_iter().collect();
        let share_sum = list.iter().map(|m| u64::from(m.share)).sum();
        let limited = list.iter().any(|m| m.limits != Limits::NONE);
        let ordered = list.is_sorted_by(|a, b| a.serial() > b.serial());
        let accounts = list.iter().map(|m| Arc::clone(&m.account)).collect();
        let shares = list.iter().map(|m| m.share).collect();
        Self {
            list,
            accounts,
            shares,
            share_sum,
            has_limits: limited,
            is_sorted_by_serial: ordered,
        }
    }

    /// How many members there are, eligible or not.
    #[inline]
    #[must_use]
    pub fn len(&self) -> usize {
        self.list.len()
    }

    /// Tells whether there are none at all.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.list.is_empty()
    }

    /// Goes through them in list order.
    pub fn iter(&self) -> std::slice::Iter<'_, Member> {
        self.list.iter()
    }

    /// Returns the member at a position.
    #[must_use]
    pub fn get(&self, position: usize) -> Option<&Member> {
        self.list.get(position)
    }

    /// The account of the member at a position.
    #[inline]
    pub(crate) fn account(&self, position: usize) -> Option<&BackendAccount> {
        self.accounts.get(position).map(|account| &**account)
    }

    /// The share of the member at a position; 0 where there is none.
    #[inline]
    pub(crate) fn share(&self, position: usize) -> u32 {
        self.shares.get(position).copied().unwrap_or_default()
    }

    /// The account with the share.
    #[inline]
    pub(crate) fn pick_view(&self, position: usize) -> Option<PickView<'_>> {
        Some(PickView { account: self.account(position)?, share: self.share(position) })
    }

    /// The sum of all shares; 0 says that nobody may be chosen.
    #[inline]
    #[must_use]
    pub fn share_sum(&self) -> u64 {
        self.share_sum
    }

    /// Tells whether any member has a connection limit.
    #[inline]
    #[must_use]
    pub fn has_limits(&self) -> bool {
        self.has_limits
    }

    /// Finds the position of a [`Member::serial`]: O(log n) in the list of a set, O(n) in one that
    /// was put together in another order.
    #[must_use]
    pub fn position_of_serial(&self, serial: u64) -> Option<usize> {
        if self.is_sorted_by_serial {
            return self.list.binary_search_by(|m| serial.cmp(&m.serial())).ok();
        }
        self.list.iter().position(|m| m.serial() == serial)
    }

    /// The runs of neighbours that share a version on the board.
    pub(crate) fn load_group_ranges(&self) -> Vec<(usize, Range<usize>)> {
        group_ranges(self.list.iter().map(|m| usize::from(m.load_group)))
    }

    /// What the set of these members shares; `None` for an empty list.
    pub(crate) fn context(&self) -> Option<&Arc<SetContext>> {
        self.list.first().map(|m| m.account.context())
    }
}

impl Index<usize> for Members {
    type Output = Member;

    /// # Panics
    /// When the position is not below [`Members::len`].
    #[inline]
    fn index(&self, position: usize) -> &Member {
        &self.list[position]
    }
}

impl<'a> IntoIterator for &'a Members {
    type Item = &'a Member;
    type IntoIter = std::slice::Iter<'a, Member>;

    fn into_iter(self) -> Self::IntoIter {
        self.list.iter()
    }
}
