//! The changes a set can take, gathered and published as one.

use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Instant;

use super::account::{Account, Shared};
use super::board::group_size;
use super::{
    Admin, Backend, BackendId, Health, Limits, MAX_MEMBERS, MAX_WEIGHT, Member, Members, Seat,
    SetError, SlowStart, Snapshot, Spec, State,
};

/// How far a backend's slow start has come.
#[derive(Clone, Copy, Debug, PartialEq)]
enum Ramp {
    /// It counts in full.
    Done,
    /// It came up, and no tick has said yet when that was.
    Waiting,
    /// It came up at this moment.
    Since(Instant),
}

/// The writer's record of a backend.
#[derive(Debug)]
struct Entry<T> {
    backend: Arc<Backend<T>>,
    seats: Arc<[Arc<Seat<T>>]>,
    weight: u32,
    last_weight: u32,
    tier: u8,
    limits: Limits,
    address: Option<SocketAddr>,
    admin: Admin,
    health: Health,
    ramp: Ramp,
    percent: u8,
}

impl<T> Clone for Entry<T> {
    fn clone(&self) -> Self {
        let (backend, seats) = (Arc::clone(&self.backend), Arc::clone(&self.seats));
        Self { backend, seats, ..*self }
    }
}

impl<T> Entry<T> {
    fn state(&self) -> State {
        State::of(self.admin, self.health, self.weight)
    }

    /// Eligible but for its weight.
    fn is_up(&self) -> bool {
        self.admin == Admin::Enabled && self.health == Health::Up
    }
}

/// The writer's whole state; copied for each edit, so that a refused one leaves no trace.
#[derive(Debug)]
pub(super) struct Draft<T> {
    shared: Arc<Shared>,
    /// In the kernel's order: newest first.
    entries: Vec<Entry<T>>,
    pub(super) slow_start: Option<SlowStart>,
    ticked: bool,
    next_serial: u64,
    generation: u64,
}

impl<T> Clone for Draft<T> {
    fn clone(&self) -> Self {
        Self { shared: Arc::clone(&self.shared), entries: self.entries.clone(), ..*self }
    }
}

impl<T> Draft<T> {
    pub(super) fn new(shared: Arc<Shared>) -> Self {
        Self {
            shared,
            entries: Vec::new(),
            slow_start: None,
            ticked: false,
            next_serial: 0,
            generation: 0,
        }
    }

    /// Works out what readers are to see.
    pub(super) fn snapshot(&mut self) -> Snapshot<T> {
        self.generation += 1;
        let size = group_size(self.entries.len());
        let ramping = self.entries.iter().any(|e| e.percent < 100);
        let members = self.entries.iter().enumerate().map(|(i, e)| {
            let state = e.state();
            let scale = if ramping { u32::from(e.percent) } else { 1 };
            Member {
                account: Arc::clone(&e.backend.account),
                weight: e.weight,
                last_weight: e.last_weight,
                share: if state == State::Eligible { e.weight * scale } else { 0 },
                tier: e.tier,
                state,
                limits: e.limits,
                address: e.address,
                // Below GROUPS, which is 256.
                group: (i / size) as u8,
            }
        });
        let lanes = 0..=usize::from(self.shared.workers());
        let seats = lanes.flat_map(|lane| self.entries.iter().map(move |e| &e.seats[lane]));
        Snapshot {
            generation: self.generation,
            shared: Arc::clone(&self.shared),
            accounts: self.entries.iter().map(|e| Arc::clone(&e.backend.account)).collect(),
            seats: seats.map(Arc::clone).collect(),
            members: Members::new(members),
            backends: self.entries.iter().map(|e| Arc::clone(&e.backend)).collect(),
        }
    }

    /// Moves what leases read to the state that is about to be published.
    pub(super) fn settle(&self, snapshot: &Snapshot<T>) {
        for member in snapshot.members.iter() {
            member.account.set_limits(member.limits);
            member.account.set_group(member.group);
        }
    }

    /// Lets slow starts move on; `true` if a share changed.
    pub(super) fn advance(&mut self, now: Instant) -> bool {
        self.ticked = true;
        let slow = self.slow_start;
        let mut changed = false;
        for e in &mut self.entries {
            let since = match e.ramp {
                Ramp::Done => continue,
                Ramp::Waiting => now,
                Ramp::Since(since) => since,
            };
            // Those on their way when slow start was ended have arrived.
            let age = now.saturating_duration_since(since);
            let percent = slow.map_or(100, |slow| slow.percent(age));
            changed |= percent != e.percent;
            e.percent = percent;
            e.ramp = if percent == 100 { Ramp::Done } else { Ramp::Since(since) };
        }
        changed
    }

    pub(super) fn is_ramping(&self) -> bool {
        self.entries.iter().any(|e| e.ramp != Ramp::Done)
    }

    fn seats(&self, backend: &Arc<Backend<T>>) -> Arc<[Arc<Seat<T>>]> {
        Seat::for_lanes(backend, self.shared.workers())
    }

    fn start_ramp(&self, entry: &mut Entry<T>) {
        if let (true, Some(slow)) = (self.ticked, self.slow_start) {
            entry.ramp = Ramp::Waiting;
            entry.percent = slow.percent(std::time::Duration::ZERO);
        }
    }
}

/// Changes of one set that are published together, or not at all.
///
/// Made by [`BackendSet::edit`](crate::BackendSet::edit). Each method either changes the draft or
/// says why not and leaves it alone.
#[derive(Debug)]
pub struct Edit<T> {
    pub(super) draft: Draft<T>,
    pub(super) dirty: bool,
}

impl<T> Edit<T> {
    /// Adds a backend at the head of the list.
    ///
    /// # Errors
    /// [`SetError::Duplicate`], [`SetError::Weight`], [`SetError::Limits`], [`SetError::Full`].
    pub fn insert(&mut self, spec: impl Into<Spec<T>>) -> Result<Arc<Backend<T>>, SetError> {
        let Spec { id, target, weight, tier, limits, address, admin, health } = spec.into();
        check_weight(&id, weight)?;
        check_limits(&id, limits)?;
        if self.find(&id).is_ok() {
            return Err(SetError::Duplicate { id });
        }
        if self.draft.entries.len() == MAX_MEMBERS {
            return Err(SetError::Full { id });
        }
        let serial = self.draft.next_serial;
        self.draft.next_serial += 1;
        let shared = Arc::clone(&self.draft.shared);
        let account = Arc::new(Account::new(id, serial, limits, shared));
        let backend = Arc::new(Backend { account, target });
        let mut entry = Entry {
            backend: Arc::clone(&backend),
            seats: self.draft.seats(&backend),
            weight,
            last_weight: weight,
            tier,
            limits,
            address,
            admin,
            health,
            ramp: Ramp::Done,
            percent: 100,
        };
        if entry.is_up() {
            self.draft.start_ramp(&mut entry);
        }
        self.draft.entries.insert(0, entry);
        self.dirty = true;
        Ok(backend)
    }

    /// Takes a backend out. Leases on it go on; it is told apart from a later one of the same name.
    ///
    /// # Errors
    /// [`SetError::Unknown`].
    pub fn remove(&mut self, id: &BackendId) -> Result<Arc<Backend<T>>, SetError> {
        let position = self.find(id)?;
        self.dirty = true;
        Ok(self.draft.entries.remove(position).backend)
    }

    /// Gives a backend another target (and address) under its name; its account goes on.
    ///
    /// # Errors
    /// [`SetError::Unknown`].
    pub fn set_target(
        &mut self,
        id: &BackendId,
        target: T,
        address: Option<SocketAddr>,
    ) -> Result<Arc<Backend<T>>, SetError> {
        let position = self.find(id)?;
        let account = Arc::clone(&self.draft.entries[position].backend.account);
        let backend = Arc::new(Backend { account, target });
        let seats = self.draft.seats(&backend);
        let entry = &mut self.draft.entries[position];
        entry.backend = Arc::clone(&backend);
        entry.seats = seats;
        entry.address = address;
        self.dirty = true;
        Ok(backend)
    }

    /// Sets the weight; 0 quiesces. As in the kernel an edit counts even if the value is the old
    /// one: `wrr` starts its ring anew.
    ///
    /// # Errors
    /// [`SetError::Unknown`], [`SetError::Weight`].
    pub fn set_weight(&mut self, id: &BackendId, weight: u32) -> Result<(), SetError> {
        check_weight(id, weight)?;
        let position = self.find(id)?;
        let entry = &mut self.draft.entries[position];
        entry.weight = weight;
        if weight != 0 {
            entry.last_weight = weight;
        }
        self.dirty = true;
        Ok(())
    }

    /// Sets the connection limits.
    ///
    /// # Errors
    /// [`SetError::Unknown`], [`SetError::Limits`].
    pub fn set_limits(&mut self, id: &BackendId, limits: Limits) -> Result<(), SetError> {
        check_limits(id, limits)?;
        self.change(id, limits, |e| &mut e.limits)
    }

    /// Moves a backend to another priority tier.
    ///
    /// # Errors
    /// [`SetError::Unknown`].
    pub fn set_tier(&mut self, id: &BackendId, tier: u8) -> Result<(), SetError> {
        self.change(id, tier, |e| &mut e.tier)
    }

    /// Sets what the operator wants of a backend.
    ///
    /// # Errors
    /// [`SetError::Unknown`].
    pub fn set_admin(&mut self, id: &BackendId, admin: Admin) -> Result<(), SetError> {
        self.change(id, admin, |e| &mut e.admin)
    }

    /// Sets what checks say of a backend; one that comes up begins its slow start.
    ///
    /// # Errors
    /// [`SetError::Unknown`].
    pub fn set_health(&mut self, id: &BackendId, health: Health) -> Result<(), SetError> {
        self.change(id, health, |e| &mut e.health)
    }

    /// The backends of the draft with the operator's word on each, newest first.
    #[cfg(feature = "discovery")]
    pub(crate) fn backends(&self) -> impl Iterator<Item = (&Arc<Backend<T>>, Admin)> {
        self.draft.entries.iter().map(|entry| (&entry.backend, entry.admin))
    }

    /// Sets one field; a value that was there already is no change.
    fn change<V: PartialEq>(
        &mut self,
        id: &BackendId,
        value: V,
        field: impl Fn(&mut Entry<T>) -> &mut V,
    ) -> Result<(), SetError> {
        let position = self.find(id)?;
        let mut entry = self.draft.entries[position].clone();
        let was_up = entry.is_up();
        if *field(&mut entry) == value {
            return Ok(());
        }
        *field(&mut entry) = value;
        if entry.is_up() && !was_up {
            self.draft.start_ramp(&mut entry);
        }
        self.draft.entries[position] = entry;
        self.dirty = true;
        Ok(())
    }

    fn find(&self, id: &BackendId) -> Result<usize, SetError> {
        self.draft
            .entries
            .iter()
            .position(|e| e.backend.id() == id)
            .ok_or_else(|| SetError::Unknown { id: id.clone() })
    }
}

fn check_weight(id: &BackendId, weight: u32) -> Result<(), SetError> {
    if weight > MAX_WEIGHT {
        return Err(SetError::Weight { id: id.clone(), weight });
    }
    Ok(())
}

fn check_limits(id: &BackendId, limits: Limits) -> Result<(), SetError> {
    if !limits.is_sound() {
        return Err(SetError::Limits { id: id.clone(), limits });
    }
    Ok(())
}
