//! The list that schedulers see.

use std::net::SocketAddr;
use std::ops::{Index, Range};
use std::sync::Arc;
use std::time::{Duration, Instant};

use super::account::{BackendAccount, SetContext};
use super::load_versions::group_ranges;
use super::{BackendId, BackendState, Limits, Load, TrafficEstimate, Zone};

/// A backend as a scheduler sees it: its attributes at the time of the snapshot, and its counters as
/// they are now.
// On one cache line: a pick among a thousand members mostly waits for memory.
#[derive(Clone, Debug)]
#[repr(align(64))]
pub struct Member {
    pub(super) account: Arc<BackendAccount>,
    pub(super) weight: u32,
    pub(super) table_weight: u32,
    pub(super) share: u32,
    pub(super) tier: u8,
    pub(super) zone: Option<Zone>,
    pub(super) state: BackendState,
    pub(super) limits: Limits,
    pub(super) address: Option<SocketAddr>,
    /// The group of load versions that counts its changes once this list is published.
    pub(super) load_group: u8,
}

impl Member {
    /// Returns the stable name.
    #[must_use]
    pub fn id(&self) -> &BackendId {
        self.account.id()
    }

    /// Returns the effective weight; 0 quiesces.
    #[inline]
    #[must_use]
    pub fn weight(&self) -> u32 {
        self.weight
    }

    /// Returns the last weight that was not 0. Hash tables are built from it, so that quiescing a
    /// backend moves no other key.
    #[must_use]
    pub fn table_weight(&self) -> u32 {
        self.table_weight
    }

    /// Returns the weight that counts for new work now: 0 for a member that is not eligible, reduced
    /// during slow start. Only the ratio between the shares of one list has a meaning.
    #[inline]
    #[must_use]
    pub fn share(&self) -> u32 {
        self.share
    }

    /// Returns the priority tier; tier 0 serves first.
    #[must_use]
    pub fn tier(&self) -> u8 {
        self.tier
    }

    /// Returns the zone, if it is known.
    #[must_use]
    pub fn zone(&self) -> Option<Zone> {
        self.zone
    }

    /// Returns the state, which says whether the member may get new work.
    #[inline]
    #[must_use]
    pub fn state(&self) -> BackendState {
        self.state
    }

    /// Returns the connection limits.
    #[must_use]
    pub fn limits(&self) -> Limits {
        self.limits
    }

    /// Returns the address, if the backend has one.
    #[must_use]
    pub fn address(&self) -> Option<SocketAddr> {
        self.address
    }

    /// Returns the connections of this moment, by one atomic read.
    #[inline]
    #[must_use]
    pub fn load(&self) -> Load {
        self.account.load()
    }

    /// Tells whether the member is at its limit, or was and has not fallen below the lower limit yet.
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

    /// Returns the traffic estimate, projected to `now`, or to the latest time that any caller gave.
    #[must_use]
    pub fn estimate(&self, now: Option<Instant>) -> TrafficEstimate {
        self.account.estimate(now)
    }

    /// Sets the decay of the member's traffic estimates.
    ///
    /// For a scheduler's `compile`. If several schedulers share a set, the last call holds.
    pub fn set_estimate_decay(&self, decay: Duration) {
        self.account.set_estimate_decay(decay);
    }

    /// Returns a number that no other backend of the set ever has, to find a member again in a later
    /// list. It has no meaning outside this process.
    #[inline]
    #[must_use]
    pub fn serial(&self) -> u64 {
        self.account.serial()
    }

    #[inline]
    pub(crate) fn account(&self) -> &Arc<BackendAccount> {
        &self.account
    }

    /// Returns a copy with another share, for schedulers that wrap others and give each its own list.
    #[must_use]
    pub fn with_share(&self, share: u32) -> Self {
        Self { share, ..self.clone() }
    }

    /// Returns a copy with another weight and share, for wrappers that divide a backend's weight.
    #[must_use]
    pub fn with_weight(&self, weight: u32) -> Self {
        let share = if self.share == 0 { 0 } else { weight };
        Self { weight, table_weight: weight, share, ..self.clone() }
    }
}

const _: () = assert!(size_of::<Member>() == 64);

/// The parts of a member that nearly every pick reads.
#[derive(Clone, Copy, Debug)]
pub(crate) struct PickView<'a> {
    pub(crate) account: &'a BackendAccount,
    pub(crate) share: u32,
}

/// The members of a set at one moment, newest first: the order of the kernel's list.
///
/// A position is valid only for the list that it was taken from.
#[derive(Clone, Debug, Default)]
pub struct Members {
    list: Box<[Member]>,
    /// At the same positions. Apart from the list and close together, so that those of a thousand
    /// members stay in the processor's cache.
    accounts: Box<[Arc<BackendAccount>]>,
    shares: Box<[u32]>,
    share_sum: u64,
    has_limits: bool,
    /// By descending serial, as in a set; a wrapper's own list may have another order.
    is_sorted_by_serial: bool,
}

impl Members {
    /// Makes a list, for schedulers that wrap others.
    #[must_use]
    pub fn new(list: impl IntoIterator<Item = Member>) -> Self {
        let list: Box<[Member]> = list.into_iter().collect();
        let share_sum = list.iter().map(|m| u64::from(m.share)).sum();
        let has_limits = list.iter().any(|m| m.limits != Limits::NONE);
        let is_sorted_by_serial = list.is_sorted_by(|a, b| a.serial() > b.serial());
        let accounts = list.iter().map(|m| Arc::clone(&m.account)).collect();
        let shares = list.iter().map(|m| m.share).collect();
        Self { list, accounts, shares, share_sum, has_limits, is_sorted_by_serial }
    }

    /// Returns the number of members, eligible or not.
    #[inline]
    #[must_use]
    pub fn len(&self) -> usize {
        self.list.len()
    }

    /// Tells whether there is no member.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.list.is_empty()
    }

    /// Iterates over the members in list order.
    pub fn iter(&self) -> std::slice::Iter<'_, Member> {
        self.list.iter()
    }

    /// Returns the member at a position.
    #[must_use]
    pub fn get(&self, position: usize) -> Option<&Member> {
        self.list.get(position)
    }

    /// Returns the account of the member at a position.
    #[inline]
    pub(crate) fn account(&self, position: usize) -> Option<&BackendAccount> {
        self.accounts.get(position).map(|account| &**account)
    }

    /// Returns the share of the member at a position; 0 if there is none.
    #[inline]
    pub(crate) fn share(&self, position: usize) -> u32 {
        self.shares.get(position).copied().unwrap_or_default()
    }

    /// Returns the account and the share of the member at a position.
    #[inline]
    pub(crate) fn pick_view(&self, position: usize) -> Option<PickView<'_>> {
        Some(PickView { account: self.account(position)?, share: self.share(position) })
    }

    /// Returns the sum of all shares; 0 means that no member may be chosen.
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

    /// Returns the position of a [`Member::serial`]: O(log n) in the list of a set, O(n) in a list of
    /// another order.
    #[must_use]
    pub fn position_of_serial(&self, serial: u64) -> Option<usize> {
        if self.is_sorted_by_serial {
            return self.list.binary_search_by(|m| serial.cmp(&m.serial())).ok();
        }
        self.list.iter().position(|m| m.serial() == serial)
    }

    /// Returns the ranges of neighbours that share a load version.
    pub(crate) fn load_group_ranges(&self) -> Vec<(usize, Range<usize>)> {
        group_ranges(self.list.iter().map(|m| usize::from(m.load_group)))
    }

    /// Returns what all backends of the set share; `None` for an empty list.
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
