//! The bounded cache of destinations and their servers, for `lblc` and `lblcr`.

use std::collections::HashMap;
use std::hash::{BuildHasher, RandomState};
use std::net::IpAddr;
use std::time::{Duration, Instant};

use crate::backend::Members;
use crate::scheduler::FlowView;
use crate::scheduler::parameter::{ParameterKind, SchedulerParameter};
use crate::sync::{AtomicUsize, Mutex, Ordering, lock};

/// A value for each destination: 16 384 destinations as a target, 24 576 at most.
///
/// Sixteen shards with a lock each; a pick holds one lock.
#[derive(Debug)]
pub(in crate::scheduler) struct DestinationCache<V> {
    shards: Box<[Mutex<DestinationShard<V>>]>,
    /// Keyed for each process, so that clients cannot fill a single shard.
    hasher: RandomState,
    entry_count: AtomicUsize,
    expiration: Duration,
}

/// The destination of a flow.
#[derive(Clone, Copy, Debug, Eq, Hash, PartialEq)]
pub(in crate::scheduler) enum FlowDestination {
    Address(IpAddr),
    Key(u64),
}

#[derive(Debug)]
pub(in crate::scheduler) struct DestinationShard<V> {
    entries: HashMap<FlowDestination, DestinationEntry<V>>,
    next_sweep: Option<Instant>,
    sweep_count: u32,
}

#[derive(Debug)]
struct DestinationEntry<V> {
    /// Always `Some`; an option, so that `with_entry` passes it to its function as it is.
    value: Option<V>,
    last_used: Option<Instant>,
}

const SHARD_COUNT: usize = 16;
/// The kernel's numbers: 16 entries for each of 1024 buckets, and half as many more at most.
const TARGET_ENTRIES: usize = 16 * 1024;
const MAX_ENTRIES: usize = TARGET_ENTRIES * 3 / 2;
pub(in crate::scheduler) const DEFAULT_EXPIRATION: Duration = Duration::from_secs(24 * 60 * 60);
pub(in crate::scheduler) const EXPIRATION: SchedulerParameter = SchedulerParameter::new(
    "expiration",
    ParameterKind::Duration { min: Duration::ZERO, max: Duration::MAX },
    Some("24h"),
    "The time for which an unused destination is remembered",
);
const MIN_IDLE: Duration = Duration::from_secs(6 * 60);
const SWEEP_INTERVAL: Duration = Duration::from_secs(60);
const SWEEPS_PER_FULL_SWEEP: u32 = 30;

impl<V> DestinationCache<V> {
    pub(in crate::scheduler) fn new(expiration: Duration) -> Self {
        let shard =
            || DestinationShard { entries: HashMap::new(), next_sweep: None, sweep_count: 0 };
        Self {
            shards: (0..SHARD_COUNT).map(|_| Mutex::new(shard())).collect(),
            hasher: RandomState::new(),
            entry_count: AtomicUsize::new(0),
            expiration,
        }
    }

    /// Calls `act` with the value of a destination and returns its result. `act` may change the
    /// value or set a missing value, and must not remove a value.
    pub(in crate::scheduler) fn with_entry<R>(
        &self,
        to: FlowDestination,
        now: Option<Instant>,
        act: impl FnOnce(&mut Option<V>) -> R,
    ) -> R {
        let shard = &self.shards[self.hasher.hash_one(to) as usize % SHARD_COUNT];
        let mut shard = lock(shard);
        if let Some(now) = now {
            let removed = shard.sweep(now, self.expiration);
            // Relaxed: bounds the cache, orders nothing.
            self.entry_count.fetch_sub(removed, Ordering::Relaxed);
        }
        if let Some(entry) = shard.entries.get_mut(&to) {
            let result = act(&mut entry.value);
            entry.last_used = now.or(entry.last_used);
            return result;
        }
        let mut value = None;
        let result = act(&mut value);
        if value.is_some() && self.entry_count.load(Ordering::Relaxed) < MAX_ENTRIES {
            self.entry_count.fetch_add(1, Ordering::Relaxed);
            shard.entries.insert(to, DestinationEntry { value, last_used: now });
        }
        result
    }

    #[cfg(all(test, not(lvs_loom)))]
    fn len(&self) -> usize {
        self.shards.iter().map(|shard| lock(shard).entries.len()).sum()
    }
}

impl<V> DestinationShard<V> {
    /// Removes old entries, at most once a minute; returns their number.
    fn sweep(&mut self, now: Instant, expiration: Duration) -> usize {
        match self.next_sweep {
            Some(at) if now < at => return 0,
            Some(_) => self.sweep_count = self.sweep_count.wrapping_add(1),
            None => {}
        }
        self.next_sweep = now.checked_add(SWEEP_INTERVAL);
        let before = self.entries.len();
        let idle = |entry: &DestinationEntry<V>| {
            entry.last_used.map_or(Duration::MAX, |last| now.saturating_duration_since(last))
        };
        let goal = TARGET_ENTRIES / SHARD_COUNT;
        if self.sweep_count % SWEEPS_PER_FULL_SWEEP == SWEEPS_PER_FULL_SWEEP - 1 {
            self.entries.retain(|_, entry| idle(entry) < expiration);
        } else if before > goal {
            let mut surplus = ((before - goal) * 4 / 3).min(goal / 2);
            self.entries.retain(|_, entry| {
                let forget = surplus > 0 && idle(entry) >= MIN_IDLE;
                surplus -= usize::from(forget);
                !forget
            });
        }
        before - self.entries.len()
    }
}

impl FlowDestination {
    /// Returns the destination address, or the key of a flow without a destination.
    pub(in crate::scheduler) fn from_flow(flow: FlowView<'_>) -> Option<Self> {
        match flow.destination() {
            Some(to) => Some(Self::Address(to.ip())),
            None => flow.key().map(Self::Key),
        }
    }
}

/// Returns whether the kernel regards a cached server as overloaded: it has more active connections
/// than its weight, and another server has fewer than half of its weight.
pub(in crate::scheduler) fn is_overloaded_for_locality(members: &Members, i: usize) -> bool {
    let active = |i: usize| u64::from(members[i].load().active);
    let weight =
        |i: usize| if members[i].share() == 0 { 0 } else { u64::from(members[i].weight()) };
    active(i) > weight(i) && (0..members.len()).any(|i| 2 * active(i) < weight(i))
}

#[cfg(all(test, not(lvs_loom)))]
mod tests {
    use super::*;

    #[expect(clippy::disallowed_methods, reason = "any instant serves as a start")]
    fn start() -> Instant {
        Instant::now()
    }

    fn remember(cache: &DestinationCache<u8>, key: u64, now: Instant) {
        cache.with_entry(FlowDestination::Key(key), Some(now), |value| *value = Some(0));
    }

    #[test]
    fn the_cache_is_bounded() {
        let cache = DestinationCache::new(DEFAULT_EXPIRATION);
        let now = start();
        (0..100_000).for_each(|key| remember(&cache, key, now));
        assert_eq!(cache.len(), MAX_ENTRIES);
    }

    #[test]
    fn idle_entries_are_removed_above_the_target_and_all_entries_after_the_expiration() {
        let cache = DestinationCache::new(DEFAULT_EXPIRATION);
        let now = start();
        (0..20_000).for_each(|key| remember(&cache, key, now));
        let look_at_all = |now| {
            for key in 1_000_000..1_000_400 {
                cache.with_entry(FlowDestination::Key(key), Some(now), |_| ());
            }
        };
        look_at_all(now + 2 * SWEEP_INTERVAL);
        assert_eq!(cache.len(), 20_000, "nothing was idle for six minutes");
        look_at_all(now + 7 * SWEEP_INTERVAL);
        let left = cache.len();
        assert!(left < 20_000 && left > 14_000, "{left}: back to the goal and a little below");
        for minute in 8..40 {
            look_at_all(now + minute * SWEEP_INTERVAL + DEFAULT_EXPIRATION);
        }
        assert_eq!(cache.len(), 0);
        assert_eq!(cache.entry_count.load(Ordering::Relaxed), 0);
    }

    #[test]
    fn without_time_no_entry_is_removed_and_the_bound_holds() {
        let cache = DestinationCache::new(DEFAULT_EXPIRATION);
        for key in 0..2 * MAX_ENTRIES as u64 {
            cache.with_entry(FlowDestination::Key(key), None, |value| *value = Some(0));
        }
        assert_eq!(cache.len(), MAX_ENTRIES);
    }
}
