//! The flow table: who is there, for how long, and who gives way.
//!
//! Pure: no socket and no clock. Two flows never differ in how long they may last, so the order in
//! which they were touched is the order in which they run out, and lists of that order take the
//! place of timers. All operations take constant time; the table never holds more than its
//! capacity.
//!
//! A flow is *answered* once something has come back. When the table is full, the flow that gives
//! way is the one that has been idle longest among those never answered: what a flood of invented
//! senders leaves behind is mostly that, and a conversation that runs is never sacrificed to it.
//! Where all have been answered nobody gives way, and the newcomer is turned away.

use std::collections::HashMap;
use std::hash::Hash;
use std::time::{Duration, Instant};

/// Names a flow of one table; a name is never given out twice within 2^32 flows of one place.
#[derive(Clone, Copy, Debug, Eq, Hash, Ord, PartialEq, PartialOrd)]
pub(super) struct FlowId {
    index: u32,
    generation: u32,
}

impl FlowId {
    /// A number to find it again by, below 2^63.
    pub(super) fn to_u64(self) -> u64 {
        u64::from(self.generation) << 32 | u64::from(self.index)
    }

    pub(super) fn from_u64(number: u64) -> Self {
        Self { index: number as u32, generation: (number >> 32) as u32 }
    }
}

/// Which of the two bounds a flow ran into.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub(super) enum FlowExpiry {
    Idle,
    Total,
}

/// The table is full, and nobody gives way.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub(super) struct FlowTableFull;

/// Flows by key, and in the order in which they were used.
#[derive(Debug)]
pub(super) struct FlowTable<K, V> {
    capacity: usize,
    idle_timeout: Duration,
    total_timeout: Option<Duration>,
    slots: Vec<FlowSlot<K, V>>,
    index: HashMap<K, u32>,
    free_head: u32,
    /// By the time of the last use: those never answered, and those answered.
    by_last_use: [FlowList; 2],
    /// By the time of their beginning; kept only where there is a total timeout.
    by_start: FlowList,
    /// The latest time that was named; the lists rest on its never going back.
    latest_now: Option<Instant>,
}

#[derive(Debug)]
struct FlowSlot<K, V> {
    generation: u32,
    /// In the list of its state, or of vacant slots (`next` alone).
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

/// No slot.
const NO_SLOT: u32 = u32::MAX;

/// Keeps [`FlowId::to_u64`] below 2^63.
const GENERATION_COUNT: u32 = 1 << 31;

impl<K: Clone + Eq + Hash, V> FlowTable<K, V> {
    /// A table for at most `capacity` flows (at least 1, at most 2^24). A flow ends when nothing
    /// has used it for `idle`, and `total` after its beginning at the latest.
    pub(super) fn new(capacity: usize, idle: Duration, total: Option<Duration>) -> Self {
        Self {
            capacity: capacity.clamp(1, 1 << 24),
            idle_timeout: idle,
            total_timeout: total,
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

    /// When the flow began.
    pub(super) fn started_at(&self, id: FlowId) -> Option<Instant> {
        self.entry(id).map(|entry| entry.started_at)
    }

    /// All flows, in no order that means anything.
    pub(super) fn iter(&self) -> impl Iterator<Item = (FlowId, &V)> {
        self.slots.iter().enumerate().filter_map(|(index, slot)| {
            let id = FlowId { index: index as u32, generation: slot.generation };
            slot.flow.as_ref().map(|entry| (id, &entry.value))
        })
    }

    /// Sees to it that one more flow fits, and returns the one that had to give way for it.
    ///
    /// # Errors
    /// [`FlowTableFull`] if nobody gives way.
    pub(super) fn evict_if_full(&mut self) -> Result<Option<(K, V)>, FlowTableFull> {
        if self.len() < self.capacity {
            return Ok(None);
        }
        match self.by_last_use[0].head {
            NO_SLOT => Err(FlowTableFull),
            index => Ok(self.vacate_slot(index)),
        }
    }

    /// Begins a flow. Gives the value back if the key is there already or there is no room.
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
        self.by_last_use[0].push(&mut self.slots, index, |slot| &mut slot.use_link);
        if self.total_timeout.is_some() {
            self.by_start.push(&mut self.slots, index, |slot| &mut slot.start_link);
        }
        Ok(id)
    }

    /// The flow was used: its idle time begins anew.
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

    /// The flow was used in the other direction; tells whether that was the first time.
    pub(super) fn mark_answered(&mut self, id: FlowId, now: Instant) -> bool {
        match self.entry_mut(id) {
            Some(entry) if !entry.answered => {
                entry.answered = true;
                let now = self.advance_clock(now);
                self.by_last_use[0].remove(&mut self.slots, id.index, |slot| &mut slot.use_link);
                self.by_last_use[1].push(&mut self.slots, id.index, |slot| &mut slot.use_link);
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

    /// Ends a flow.
    pub(super) fn remove(&mut self, id: FlowId) -> Option<(K, V)> {
        self.entry(id)?;
        self.vacate_slot(id.index)
    }

    /// A flow that has run out, if there is one. It is for the caller to [remove](Self::remove) it.
    pub(super) fn next_expired(&self, now: Instant) -> Option<(FlowId, FlowExpiry)> {
        let now = self.latest_now.map_or(now, |latest| latest.max(now));
        let ((at, expiry), index) = self.next_expiry()?;
        let generation = self.slots[index as usize].generation;
        (at <= now).then_some((FlowId { index, generation }, expiry))
    }

    /// When the next flow runs out, if no one uses it before.
    pub(super) fn next_deadline(&self) -> Option<Instant> {
        self.next_expiry().map(|((at, _), _)| at)
    }

    fn next_expiry(&self) -> Option<((Instant, FlowExpiry), u32)> {
        let entry = |index: u32| self.slots.get(index as usize)?.flow.as_ref();
        let idle = |list: FlowList| {
            let at = entry(list.head)?.last_used.checked_add(self.idle_timeout)?;
            Some(((at, FlowExpiry::Idle), list.head))
        };
        let total = |list: FlowList| {
            let at = entry(list.head)?.started_at.checked_add(self.total_timeout?)?;
            Some(((at, FlowExpiry::Total), list.head))
        };
        [idle(self.by_last_use[0]), idle(self.by_last_use[1]), total(self.by_start)]
            .into_iter()
            .flatten()
            .min_by_key(|((at, _), _)| *at)
    }

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
