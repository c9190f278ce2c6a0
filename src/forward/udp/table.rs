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
pub(super) enum Expiry {
    Idle,
    Total,
}

/// The table is full, and nobody gives way.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub(super) struct Full;

/// Flows by key, and in the order in which they were used.
#[derive(Debug)]
pub(super) struct FlowTable<K, V> {
    capacity: usize,
    idle: Duration,
    total: Option<Duration>,
    slots: Vec<Slot<K, V>>,
    index: HashMap<K, u32>,
    vacant: u32,
    /// By the time of the last use: those never answered, and those answered.
    idlest: [List; 2],
    /// By the time of their beginning; kept only where there is a total timeout.
    oldest: List,
    /// The latest time that was named; the lists rest on its never going back.
    latest: Option<Instant>,
}

#[derive(Debug)]
struct Slot<K, V> {
    generation: u32,
    /// In the list of its state, or of vacant slots (`next` alone).
    used: Link,
    born: Link,
    flow: Option<Entry<K, V>>,
}

#[derive(Debug)]
struct Entry<K, V> {
    key: K,
    value: V,
    born: Instant,
    used: Instant,
    answered: bool,
}

#[derive(Clone, Copy, Debug)]
struct Link {
    previous: u32,
    next: u32,
}

#[derive(Clone, Copy, Debug)]
struct List {
    head: u32,
    tail: u32,
}

/// No slot.
const NONE: u32 = u32::MAX;

/// Keeps [`FlowId::to_u64`] below 2^63.
const GENERATIONS: u32 = 1 << 31;

impl<K: Clone + Eq + Hash, V> FlowTable<K, V> {
    /// A table for at most `capacity` flows (at least 1, at most 2^24). A flow ends when nothing
    /// has used it for `idle`, and `total` after its beginning at the latest.
    pub(super) fn new(capacity: usize, idle: Duration, total: Option<Duration>) -> Self {
        Self {
            capacity: capacity.clamp(1, 1 << 24),
            idle,
            total,
            slots: Vec::new(),
            index: HashMap::new(),
            vacant: NONE,
            idlest: [List::EMPTY; 2],
            oldest: List::EMPTY,
            latest: None,
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
    pub(super) fn born(&self, id: FlowId) -> Option<Instant> {
        self.entry(id).map(|entry| entry.born)
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
    /// [`Full`] if nobody gives way.
    pub(super) fn make_room(&mut self) -> Result<Option<(K, V)>, Full> {
        if self.len() < self.capacity {
            return Ok(None);
        }
        match self.idlest[0].head {
            NONE => Err(Full),
            index => Ok(self.take(index)),
        }
    }

    /// Begins a flow. Gives the value back if the key is there already or there is no room.
    pub(super) fn insert(&mut self, key: K, value: V, now: Instant) -> Result<FlowId, V> {
        if self.len() >= self.capacity || self.index.contains_key(&key) {
            return Err(value);
        }
        let now = self.later(now);
        let index = match self.vacant {
            NONE => {
                self.slots.push(Slot {
                    generation: 0,
                    used: Link::NONE,
                    born: Link::NONE,
                    flow: None,
                });
                (self.slots.len() - 1) as u32
            }
            index => {
                self.vacant = self.slots[index as usize].used.next;
                index
            }
        };
        self.index.insert(key.clone(), index);
        let slot = &mut self.slots[index as usize];
        slot.flow = Some(Entry { key, value, born: now, used: now, answered: false });
        let id = FlowId { index, generation: slot.generation };
        self.idlest[0].push(&mut self.slots, index, |slot| &mut slot.used);
        if self.total.is_some() {
            self.oldest.push(&mut self.slots, index, |slot| &mut slot.born);
        }
        Ok(id)
    }

    /// The flow was used: its idle time begins anew.
    pub(super) fn touch(&mut self, id: FlowId, now: Instant) {
        let now = self.later(now);
        let Some(entry) = self.entry_mut(id) else { return };
        entry.used = now;
        let list = usize::from(entry.answered);
        if self.idlest[list].tail != id.index {
            self.idlest[list].remove(&mut self.slots, id.index, |slot| &mut slot.used);
            self.idlest[list].push(&mut self.slots, id.index, |slot| &mut slot.used);
        }
    }

    /// The flow was used in the other direction; tells whether that was the first time.
    pub(super) fn answer(&mut self, id: FlowId, now: Instant) -> bool {
        match self.entry_mut(id) {
            Some(entry) if !entry.answered => {
                entry.answered = true;
                let now = self.later(now);
                self.idlest[0].remove(&mut self.slots, id.index, |slot| &mut slot.used);
                self.idlest[1].push(&mut self.slots, id.index, |slot| &mut slot.used);
                if let Some(entry) = self.entry_mut(id) {
                    entry.used = now;
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
        self.take(id.index)
    }

    /// A flow that has run out, if there is one. It is for the caller to [remove](Self::remove) it.
    pub(super) fn expired(&self, now: Instant) -> Option<(FlowId, Expiry)> {
        let now = self.latest.map_or(now, |latest| latest.max(now));
        let ((at, expiry), index) = self.first_to_expire()?;
        let generation = self.slots[index as usize].generation;
        (at <= now).then_some((FlowId { index, generation }, expiry))
    }

    /// When the next flow runs out, if no one uses it before.
    pub(super) fn next_deadline(&self) -> Option<Instant> {
        self.first_to_expire().map(|((at, _), _)| at)
    }

    fn first_to_expire(&self) -> Option<((Instant, Expiry), u32)> {
        let entry = |index: u32| self.slots.get(index as usize)?.flow.as_ref();
        let idle = |list: List| {
            let at = entry(list.head)?.used.checked_add(self.idle)?;
            Some(((at, Expiry::Idle), list.head))
        };
        let total = |list: List| {
            let at = entry(list.head)?.born.checked_add(self.total?)?;
            Some(((at, Expiry::Total), list.head))
        };
        [idle(self.idlest[0]), idle(self.idlest[1]), total(self.oldest)]
            .into_iter()
            .flatten()
            .min_by_key(|((at, _), _)| *at)
    }

    fn later(&mut self, now: Instant) -> Instant {
        let latest = self.latest.map_or(now, |latest| latest.max(now));
        self.latest = Some(latest);
        latest
    }

    fn entry(&self, id: FlowId) -> Option<&Entry<K, V>> {
        let slot = self.slots.get(id.index as usize)?;
        slot.flow.as_ref().filter(|_| slot.generation == id.generation)
    }

    fn entry_mut(&mut self, id: FlowId) -> Option<&mut Entry<K, V>> {
        let slot = self.slots.get_mut(id.index as usize)?;
        slot.flow.as_mut().filter(|_| slot.generation == id.generation)
    }

    fn take(&mut self, index: u32) -> Option<(K, V)> {
        let slot = &mut self.slots[index as usize];
        let entry = slot.flow.take()?;
        slot.generation = (slot.generation + 1) % GENERATIONS;
        self.idlest[usize::from(entry.answered)]
            .remove(&mut self.slots, index, |slot| &mut slot.used);
        if self.total.is_some() {
            self.oldest.remove(&mut self.slots, index, |slot| &mut slot.born);
        }
        self.slots[index as usize].used.next = self.vacant;
        self.vacant = index;
        self.index.remove(&entry.key);
        Some((entry.key, entry.value))
    }
}

impl Link {
    const NONE: Self = Self { previous: NONE, next: NONE };
}

impl List {
    const EMPTY: Self = Self { head: NONE, tail: NONE };

    fn push<K, V>(
        &mut self,
        slots: &mut [Slot<K, V>],
        index: u32,
        link: impl Fn(&mut Slot<K, V>) -> &mut Link,
    ) {
        *link(&mut slots[index as usize]) = Link { previous: self.tail, next: NONE };
        match self.tail {
            NONE => self.head = index,
            tail => link(&mut slots[tail as usize]).next = index,
        }
        self.tail = index;
    }

    fn remove<K, V>(
        &mut self,
        slots: &mut [Slot<K, V>],
        index: u32,
        link: impl Fn(&mut Slot<K, V>) -> &mut Link,
    ) {
        let Link { previous, next } =
            std::mem::replace(link(&mut slots[index as usize]), Link::NONE);
        match previous {
            NONE => self.head = next,
            previous => link(&mut slots[previous as usize]).next = next,
        }
        match next {
            NONE => self.tail = previous,
            next => link(&mut slots[next as usize]).previous = previous,
        }
    }
}
