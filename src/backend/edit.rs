//! The changes a set can take, gathered and published as one.

use std::collections::HashMap;
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use super::account::Account;
use super::draft::{Draft, Entry, Ramp};
use super::{
    Admin, Advice, Backend, BackendId, Health, Limits, MAX_MEMBERS, MAX_WEIGHT, SetError,
    SlowStart, Spec, Standing,
};

/// Changes of one set that are published together, or not at all.
///
/// Made by [`BackendSet::edit`](crate::BackendSet::edit). Each method either changes the draft or
/// says why not and leaves it alone.
#[derive(Debug)]
pub struct Edit<T> {
    pub(super) draft: Draft<T>,
    pub(super) dirty: bool,
    searches: usize,
    /// The serials by name: made when an edit turns out to be a long one.
    index: HashMap<BackendId, u64>,
}

/// From how many searches on an index pays.
const LONG: usize = 8;

impl<T> Edit<T> {
    pub(super) fn new(draft: Draft<T>) -> Self {
        Self { draft, dirty: false, searches: 0, index: HashMap::new() }
    }

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
            health_why: None,
            standing: Standing::Good,
            standing_why: None,
            advice: Advice::default(),
            ramp: Ramp::Done,
            ramp_by: None,
            percent: 100,
        };
        if entry.is_up() {
            self.draft.start_ramp(&mut entry);
        }
        if self.searches >= LONG {
            self.index.insert(backend.id().clone(), serial);
        }
        self.draft.entries.push_front(entry);
        self.dirty = true;
        Ok(backend)
    }

    /// Takes a backend out. Leases on it go on; it is told apart from a later one of the same name.
    ///
    /// # Errors
    /// [`SetError::Unknown`].
    pub fn remove(&mut self, id: &BackendId) -> Result<Arc<Backend<T>>, SetError> {
        let position = self.find(id)?;
        let removed = self.draft.entries.remove(position);
        let removed = removed.ok_or_else(|| SetError::Unknown { id: id.clone() })?;
        self.dirty = true;
        self.index.remove(id);
        Ok(removed.backend)
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
        entry.remember_weight();
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

    /// As [`set_health`](Self::set_health), and says why, for operators and events.
    ///
    /// # Errors
    /// [`SetError::Unknown`].
    pub fn set_health_because(
        &mut self,
        id: &BackendId,
        health: Health,
        why: impl Into<Arc<str>>,
    ) -> Result<(), SetError> {
        let position = self.find(id)?;
        // The reason is that of the last change: another one for the same is no news.
        if self.draft.entries[position].health != health {
            self.set_health(id, health)?;
            self.draft.entries[position].health_why = Some(why.into());
        }
        Ok(())
    }

    /// Sets what its traffic says of a backend, and why. One that returns to good standing begins
    /// its slow start.
    ///
    /// # Errors
    /// [`SetError::Unknown`].
    pub fn set_standing(
        &mut self,
        id: &BackendId,
        standing: Standing,
        why: impl Into<Arc<str>>,
    ) -> Result<(), SetError> {
        let position = self.find(id)?;
        if self.draft.entries[position].standing != standing {
            self.change(id, standing, |e| &mut e.standing)?;
            self.draft.entries[position].standing_why = Some(why.into());
        }
        Ok(())
    }

    /// Sets what a backend asks for by its checker: laid over what is configured.
    ///
    /// # Errors
    /// [`SetError::Unknown`].
    pub fn set_advice(&mut self, id: &BackendId, advice: Advice) -> Result<(), SetError> {
        self.change(id, advice, |e| &mut e.advice)
    }

    /// Begins a slow start of a backend's own, whatever the set's. It grows with each
    /// [`tick`](crate::BackendSet::tick).
    ///
    /// # Errors
    /// [`SetError::Unknown`].
    pub fn begin_ramp(&mut self, id: &BackendId, ramp: SlowStart) -> Result<(), SetError> {
        let position = self.find(id)?;
        let entry = &mut self.draft.entries[position];
        entry.ramp = Ramp::Waiting;
        entry.ramp_by = Some(ramp);
        entry.percent = ramp.percent(Duration::ZERO);
        self.dirty = true;
        Ok(())
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
        entry.remember_weight();
        if entry.is_up() && !was_up {
            self.draft.start_ramp(&mut entry);
        }
        self.draft.entries[position] = entry;
        self.dirty = true;
        Ok(())
    }

    fn find(&mut self, id: &BackendId) -> Result<usize, SetError> {
        self.searches += 1;
        let entries = &self.draft.entries;
        if self.searches == LONG {
            let serials = entries.iter().map(|e| (e.backend.id().clone(), e.serial()));
            self.index = serials.collect();
        }
        let found = if self.searches < LONG {
            entries.iter().position(|e| e.backend.id() == id)
        } else {
            // Newest first: by falling serial.
            let serial = self.index.get(id).copied();
            serial.and_then(|it| entries.binary_search_by(|e| it.cmp(&e.serial())).ok())
        };
        found.ok_or_else(|| SetError::Unknown { id: id.clone() })
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
