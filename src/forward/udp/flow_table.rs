//! The flow table: lookup, expiry and eviction of flows.
//!
//! No I/O and no clock. All flows have the same timeouts, so flows expire in the order in which
//! they were last used; lists in this order replace timers. All operations take constant time. The
//! table never exceeds its capacity.
//!
//! A flow is *answered* once its backend has replied. A full table evicts the flow that has been
//! idle longest among the flows never answered: a flood of spoofed source addresses leaves mostly
//! such flows, and must not evict flows in use. If all flows have been answered, no flow is evicted
//! and the new flow is rejected.

use std::collections::HashMap;
use std::hash::Hash;
use std::time::{Duration, Instant};

/// The id of a flow in one table. An id is not reused until its slot has held 2^31 other flows.
#[derive(Clone, Copy, Debug, Eq, Hash, Ord, PartialEq, PartialOrd)]
pub(super) struct FlowId {
    index: u32,
    generation: u32,
}

impl FlowId {
    /// Returns the id as a number below 2^63.
    pub(super) fn to_u64(self) -> u64 {
        u64::from(self.generation) << 32 | u64::from(self.index)
    }

    pub(super) fn from_u64(number: u64) -> Self {
        Self { index: number as u32, generation: (number >> 32) as u32 }
    }
}

/// The timeout by which a flow expires.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub(super) enum FlowExpiry {
    Idle,
    Total,
}

/// The table is full, and no flow can be evicted.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub(super) struct FlowTableFull;

/// A table of flows by key, with lists in the order of last use.
#[derive(Debug)]
pub(super) struct FlowTable<K, V> {
    capacity: usize,
    idle_timeout: Duration,
    total_timeout: Option<Duration>,
    slots: Vec<FlowSlot<K, V>>,
    index: HashMap<K, u32>,
    free_head: u32,
    /// Flows in the order of last use: [`UNANSWERED`] and [`ANSWERED`].
    by_last_use: [FlowList; 2],
    /// Flows in the order of their start; maintained only with a total timeout.
    by_start: FlowList,
    /// The latest time passed by the caller; the order of the lists requires that time never goes
    /// back.
    latest_now: Option<Instant>,
}

#[derive(Debug)]
struct FlowSlot<K, V> {
    generation: u32,
    /// The link in a `by_last_use` list, or in the list of free slots (`next` only).
    use_link: FlowListLink,
    start_link: FlowListLink,
    flow: Option<FlowEntry<K, V>>,
}

#[derive(Debug)]
struct FlowEntry<K, V> {
    key: K,
    value: V,
    started_at: Instant,
    last_used: Instant,
    answered: bool,
}

#[derive(Clone, Copy, Debug)]
struct FlowListLink {
    previous: u32,
    next: u32,
}

#[derive(Clone, Copy, Debug)]
struct FlowList {
    head: u32,
    tail: u32,
}

/// The largest capacity of a table.
pub(super) const MAX_FLOWS: usize = 1 << 24;

/// The index that marks the end of a list.
const NO_SLOT: u32 = u32::MAX;

/// The lists in `FlowTable::by_last_use`.
const UNANSWERED: usize = 0;
const ANSWERED: usize = 1;

/// Keeps [`FlowId::to_u64`] below 2^63.
const GENERATION_COUNT: u32 = 1 << 31;

impl<K: Clone + Eq + Hash, V> FlowTable<K, V> {
    /// Returns a table for at most `capacity` flows, from 1 to [`MAX_FLOWS`]. A flow expires
    /// `idle_timeout` after its last use, and at the latest `total_timeout` after its start.
    pub(super) fn new(
        capacity: usize,
        idle_timeout: Duration,
        total_timeout: Option<Duration>,
    ) -> Self {
        debug_assert!((1..=MAX_FLOWS).contains(&capacity), "{capacity} flows");
        Self {
            capacity,
            idle_timeout,
            total_timeout,
            slots: Vec::new(),
            index: HashMap::new(),
            free_head: NO_SLOT,
            by_last_use: [FlowList::EMPTY; 2],
            by_start: FlowList::EMPTY,
            latest_now: None,
        }
    }

    pub(super) fn len(&self) -> usize {
        self.index.len()
    }

    pub(super) fn find(&self, key: &K) -> Option<FlowId> {
        let index = *self.index.get(key)?;
        Some(FlowId { index, generation: self.slots[index as usize].generation })
    }

    pub(super) fn get(&self, id: FlowId) -> Option<&V> {
        self.entry(id).map(|entry| &entry.value)
    }

    pub(super) fn get_mut(&mut self, id: FlowId) -> Option<&mut V> {
        self.entry_mut(id).map(|entry| &mut entry.value)
    }

    pub(super) fn key(&self, id: FlowId) -> Option<&K> {
        self.entry(id).map(|entry| &entry.key)
    }

    /// Returns the time at which the flow started.
    pub(super) fn started_at(&self, id: FlowId) -> Option<Instant> {
        self.entry(id).map(|entry| entry.started_at)
    }

    /// Iterates over all flows in arbitrary order.
    pub(super) fn iter(&self) -> impl Iterator<Item = (FlowId, &V)> {
        self.slots.iter().enumerate().filter_map(|(index, slot)| {
            let id = FlowId { index: index as u32, generation: slot.generation };
            slot.flow.as_ref().map(|entry| (id, &entry.value))
        })
    }

    /// Makes room for one more flow, and returns the flow evicted for it, if any.
    ///
    /// # Errors
    /// [`FlowTableFull`] if no flow can be evicted.
    pub(super) fn evict_if_full(&mut self) -> Result<Option<(K, V)>, FlowTableFull> {
        if self.len() < self.capacity {
            return Ok(None);
        }
        match self.by_last_use[UNANSWERED].head {
            NO_SLOT => Err(FlowTableFull),
            index => Ok(self.vacate_slot(index)),
        }
    }

    /// Evicts the flow that has been idle longest, answered or not, if it was last used before `now`.
    pub(super) fn evict_idlest(&mut self, now: Instant) -> Option<(K, V)> {
        let last_used = |list: FlowList| {
            let entry = self.slots.get(list.head as usize)?.flow.as_ref()?;
            Some((entry.last_used, list.head))
        };
        let heads = self.by_last_use.map(last_used).into_iter().flatten();
        let (at, index) = heads.min_by_key(|(at, _)| *at)?;
        if at < now { self.vacate_slot(index) } else { None }
    }

    /// Inserts a flow. Returns the value as error if the table has the key already or is full.
    pub(super) fn insert(&mut self, key: K, value: V, now: Instant) -> Result<FlowId, V> {
        if self.len() >= self.capacity || self.index.contains_key(&key) {
            return Err(value);
        }
        let now = self.advance_clock(now);
        let index = match self.free_head {
            NO_SLOT => {
                self.slots.push(FlowSlot {
                    generation: 0,
                    use_link: FlowListLink::NONE,
                    start_link: FlowListLink::NONE,
                    flow: None,
                });
                (self.slots.len() - 1) as u32
            }
            index => {
                self.free_head = self.slots[index as usize].use_link.next;
                index
            }
        };
        self.index.insert(key.clone(), index);
        let slot = &mut self.slots[index as usize];
        slot.flow =
            Some(FlowEntry { key, value, started_at: now, last_used: now, answered: false });
        let id = FlowId { index, generation: slot.generation };
        self.by_last_use[UNANSWERED].push(&mut self.slots, index, |slot| &mut slot.use_link);
        if self.total_timeout.is_some() {
            self.by_start.push(&mut self.slots, index, |slot| &mut slot.start_link);
        }
        Ok(id)
    }

    /// Records the use of a flow: its idle timeout restarts.
    pub(super) fn touch(&mut self, id: FlowId, now: Instant) {
        let now = self.advance_clock(now);
        let Some(entry) = self.entry_mut(id) else { return };
        entry.last_used = now;
        let list = usize::from(entry.answered);
        if self.by_last_use[list].tail != id.index {
            self.by_last_use[list].remove(&mut self.slots, id.index, |slot| &mut slot.use_link);
            self.by_last_use[list].push(&mut self.slots, id.index, |slot| &mut slot.use_link);
        }
    }

    /// Records a reply, and returns whether it is the first reply of the flow.
    pub(super) fn mark_answered(&mut self, id: FlowId, now: Instant) -> bool {
        match self.entry_mut(id) {
            Some(entry) if !entry.answered => {
                entry.answered = true;
                let now = self.advance_clock(now);
                self.by_last_use[UNANSWERED]
                    .remove(&mut self.slots, id.index, |slot| &mut slot.use_link);
                self.by_last_use[ANSWERED]
                    .push(&mut self.slots, id.index, |slot| &mut slot.use_link);
                if let Some(entry) = self.entry_mut(id) {
                    entry.last_used = now;
                }
                true
            }
            Some(_) => {
                self.touch(id, now);
                false
            }
            None => false,
        }
    }

    /// Removes a flow.
    pub(super) fn remove(&mut self, id: FlowId) -> Option<(K, V)> {
        self.entry(id)?;
        self.vacate_slot(id.index)
    }

    /// Returns an expired flow, if any, which the caller must [remove](Self::remove).
    pub(super) fn next_expired(&self, now: Instant) -> Option<(FlowId, FlowExpiry)> {
        let now = self.latest_now.map_or(now, |latest| latest.max(now));
        let ((deadline, expiry), index) = self.next_expiry()?;
        let generation = self.slots[index as usize].generation;
        (deadline <= now).then_some((FlowId { index, generation }, expiry))
    }

    /// Returns the time at which the next flow expires if it is not used before.
    pub(super) fn next_deadline(&self) -> Option<Instant> {
        self.next_expiry().map(|((deadline, _), _)| deadline)
    }

    fn next_expiry(&self) -> Option<((Instant, FlowExpiry), u32)> {
        let entry = |index: u32| self.slots.get(index as usize)?.flow.as_ref();
        let idle = |list: FlowList| {
            let deadline = entry(list.head)?.last_used.checked_add(self.idle_timeout)?;
            Some(((deadline, FlowExpiry::Idle), list.head))
        };
        let total = |list: FlowList| {
            let deadline = entry(list.head)?.started_at.checked_add(self.total_timeout?)?;
            Some(((deadline, FlowExpiry::Total), list.head))
        };
        [idle(self.by_last_use[UNANSWERED]), idle(self.by_last_use[ANSWERED]), total(self.by_start)]
            .into_iter()
            .flatten()
            .min_by_key(|((deadline, _), _)| *deadline)
    }

    /// Returns the given time, or the latest time if the given time is earlier.
    fn advance_clock(&mut self, now: Instant) -> Instant {
        let latest = self.latest_now.map_or(now, |latest| latest.max(now));
        self.latest_now = Some(latest);
        latest
    }

    fn entry(&self, id: FlowId) -> Option<&FlowEntry<K, V>> {
        let slot = self.slots.get(id.index as usize)?;
        slot.flow.as_ref().filter(|_| slot.generation == id.generation)
    }

    fn entry_mut(&mut self, id: FlowId) -> Option<&mut FlowEntry<K, V>> {
        let slot = self.slots.get_mut(id.index as usize)?;
        slot.flow.as_mut().filter(|_| slot.generation == id.generation)
    }

    fn vacate_slot(&mut self, index: u32) -> Option<(K, V)> {
        let slot = &mut self.slots[index as usize];
        let entry = slot.flow.take()?;
        slot.generation = (slot.generation + 1) % GENERATION_COUNT;
        self.by_last_use[usize::from(entry.answered)]
            .remove(&mut self.slots, index, |slot| &mut slot.use_link);
        if self.total_timeout.is_some() {
            self.by_start.remove(&mut self.slots, index, |slot| &mut slot.start_link);
        }
        self.slots[index as usize].use_link.next = self.free_head;
        self.free_head = index;
        self.index.remove(&entry.key);
        Some((entry.key, entry.value))
    }
}

impl FlowListLink {
    const NONE: Self = Self { previous: NO_SLOT, next: NO_SLOT };
}

impl FlowList {
    const EMPTY: Self = Self { head: NO_SLOT, tail: NO_SLOT };

    fn push<K, V>(
        &mut self,
        slots: &mut [FlowSlot<K, V>],
        index: u32,
        link: impl Fn(&mut FlowSlot<K, V>) -> &mut FlowListLink,
    ) {
        *link(&mut slots[index as usize]) = FlowListLink { previous: self.tail, next: NO_SLOT };
        match self.tail {
            NO_SLOT => self.head = index,
            tail => link(&mut slots[tail as usize]).next = index,
        }
        self.tail = index;
    }

    fn remove<K, V>(
        &mut self,
        slots: &mut [FlowSlot<K, V>],
        index: u32,
        link: impl Fn(&mut FlowSlot<K, V>) -> &mut FlowListLink,
    ) {
        let FlowListLink { previous, next } =
            std::mem::replace(link(&mut slots[index as usize]), FlowListLink::NONE);
        match previous {
            NO_SLOT => self.head = next,
            previous => link(&mut slots[previous as usize]).next = next,
        }
        match next {
            NO_SLOT => self.tail = previous,
            next => link(&mut slots[next as usize]).previous = previous,
        }
    }
}
