//! What `lblc` and `lblcr` have in common: a bounded memory of where destinations went.

use std::collections::HashMap;
use std::hash::{BuildHasher, RandomState};
use std::net::IpAddr;
use std::time::{Duration, Instant};

use super::Flow;
use crate::backend::Members;
use crate::sync::{AtomicUsize, Mutex, Ordering, lock};

/// What is remembered for each destination: 16 384 of them as a goal, half as many more at most.
///
/// Sixteen shards with a lock each; a pick holds one of them.
#[derive(Debug)]
pub(super) struct Memory<V> {
    shards: Box<[Mutex<Shard<V>>]>,
    /// Keyed for each process, so that nobody outside can fill one shard.
    hasher: RandomState,
    entries: AtomicUsize,
    expiration: Duration,
}

/// What a flow aims at.
#[derive(Clone, Copy, Debug, Eq, Hash, PartialEq)]
pub(super) enum Destination {
    Address(IpAddr),
    Key(u64),
}

#[derive(Debug)]
pub(super) struct Shard<V> {
    entries: HashMap<Destination, Entry<V>>,
    sweep_at: Option<Instant>,
    sweeps: u32,
}

#[derive(Debug)]
struct Entry<V> {
    /// Always there, as a place for whoever looks at it.
    value: Option<V>,
    last_use: Option<Instant>,
}

const SHARDS: usize = 16;
/// The kernel's numbers: 16 entries for each of 1024 buckets, and half as many again.
const ENTRIES_GOAL: usize = 16 * 1024;
const ENTRIES_MAX: usize = ENTRIES_GOAL * 3 / 2;
/// How long an entry is kept at least, and how often and how thoroughly the memory is swept.
pub(super) const EXPIRATION_DEFAULT: Duration = Duration::from_secs(24 * 60 * 60);
const IDLE_MIN: Duration = Duration::from_secs(6 * 60);
const SWEEP_PERIOD: Duration = Duration::from_secs(60);
const FULL_SWEEP_EVERY: u32 = 30;

impl<V> Memory<V> {
    pub(super) fn new(expiration: Duration) -> Self {
        let shard = || Shard { entries: HashMap::new(), sweep_at: None, sweeps: 0 };
        Self {
            shards: (0..SHARDS).map(|_| Mutex::new(shard())).collect(),
            hasher: RandomState::new(),
            entries: AtomicUsize::new(0),
            expiration,
        }
    }

    /// Looks at what is remembered of a destination; `act` answers with the choice, and may change
    /// the value or, where there is none, leave one; nobody takes one away.
    pub(super) fn with<R>(
        &self,
        to: Destination,
        now: Option<Instant>,
        act: impl FnOnce(&mut Option<V>) -> R,
    ) -> R {
        let shard = &self.shards[self.hasher.hash_one(to) as usize % SHARDS];
        let mut shard = lock(shard);
        if let Some(now) = now {
            let forgotten = shard.sweep(now, self.expiration);
            // Relaxed: bounds the memory, orders nothing.
            self.entries.fetch_sub(forgotten, Ordering::Relaxed);
        }
        if let Some(entry) = shard.entries.get_mut(&to) {
            let answer = act(&mut entry.value);
            entry.last_use = now.or(entry.last_use);
            return answer;
        }
        let mut value = None;
        let answer = act(&mut value);
        if value.is_some() && self.entries.load(Ordering::Relaxed) < ENTRIES_MAX {
            self.entries.fetch_add(1, Ordering::Relaxed);
            shard.entries.insert(to, Entry { value, last_use: now });
        }
        answer
    }

    #[cfg(all(test, not(lvs_loom)))]
    fn len(&self) -> usize {
        self.shards.iter().map(|shard| lock(shard).entries.len()).sum()
    }
}

impl<V> Shard<V> {
    /// Forgets old entries, once a minute at most; answers with how many.
    fn sweep(&mut self, now: Instant, expiration: Duration) -> usize {
        match self.sweep_at {
            Some(at) if now < at => return 0,
            Some(_) => self.sweeps = self.sweeps.wrapping_add(1),
            None => {}
        }
        self.sweep_at = now.checked_add(SWEEP_PERIOD);
        let before = self.entries.len();
        let idle = |entry: &Entry<V>| {
            entry.last_use.map_or(Duration::MAX, |last| now.saturating_duration_since(last))
        };
        let goal = ENTRIES_GOAL / SHARDS;
        if self.sweeps % FULL_SWEEP_EVERY == FULL_SWEEP_EVERY - 1 {
            self.entries.retain(|_, entry| idle(entry) < expiration);
        } else if before > goal {
            let mut surplus = ((before - goal) * 4 / 3).min(goal / 2);
            self.entries.retain(|_, entry| {
                let forget = surplus > 0 && idle(entry) >= IDLE_MIN;
                surplus -= usize::from(forget);
                !forget
            });
        }
        before - self.entries.len()
    }
}

impl Destination {
    /// The address aimed at, or the key of a flow without one.
    pub(super) fn of(flow: &Flow) -> Option<Self> {
        match flow.destination() {
            Some(to) => Some(Self::Address(to.ip())),
            None => flow.hash().map(Self::Key),
        }
    }
}

/// The kernel's test for a cached server: more active connections than its weight, while another
/// has less than half of its own.
pub(super) fn is_overloaded(members: &Members, i: usize) -> bool {
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

    fn remember(memory: &Memory<u8>, key: u64, now: Instant) {
        memory.with(Destination::Key(key), Some(now), |value| *value = Some(0));
    }

    #[test]
    fn the_memory_is_bounded() {
        let memory = Memory::new(EXPIRATION_DEFAULT);
        let now = start();
        (0..100_000).for_each(|key| remember(&memory, key, now));
        assert_eq!(memory.len(), ENTRIES_MAX);
    }

    #[test]
    fn what_is_idle_goes_when_there_is_too_much_and_everything_goes_in_the_end() {
        let memory = Memory::new(EXPIRATION_DEFAULT);
        let now = start();
        (0..20_000).for_each(|key| remember(&memory, key, now));
        let look_at_all = |now| {
            for key in 1_000_000..1_000_400 {
                memory.with(Destination::Key(key), Some(now), |_| ());
            }
        };
        look_at_all(now + 2 * SWEEP_PERIOD);
        assert_eq!(memory.len(), 20_000, "nothing was idle for six minutes");
        look_at_all(now + 7 * SWEEP_PERIOD);
        let left = memory.len();
        assert!(left < 20_000 && left > 14_000, "{left}: back to the goal and a little below");
        for minute in 8..40 {
            look_at_all(now + minute * SWEEP_PERIOD + EXPIRATION_DEFAULT);
        }
        assert_eq!(memory.len(), 0);
        assert_eq!(memory.entries.load(Ordering::Relaxed), 0);
    }

    #[test]
    fn without_time_nothing_is_forgotten_and_nothing_grows_past_the_bound() {
        let memory = Memory::new(EXPIRATION_DEFAULT);
        for key in 0..2 * ENTRIES_MAX as u64 {
            memory.with(Destination::Key(key), None, |value| *value = Some(0));
        }
        assert_eq!(memory.len(), ENTRIES_MAX);
    }
}
