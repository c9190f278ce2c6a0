//! The changes a set can take, gathered and published as one.

use std::collections::HashMap;
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use super::account::BackendAccount;
use super::draft::{BackendRecord, SetState, SlowStartProgress};
use super::{
    AgentOverride, Backend, BackendAdminState, BackendId, Health, Limits, MAX_BACKENDS, MAX_WEIGHT,
    OutlierState, SetError, SlowStart, Spec,
};

/// Changes of one set that are published together, or not at all.
///
/// Made by [`BackendSet::edit`](crate::BackendSet::edit). Each method either changes the draft or
/// says why not and leaves it alone.
#[derive(Debug)]
pub struct SetEdit<T> {
    pub(super) state: SetState<T>,
    pub(super) dirty: bool,
    searches: usize,
    /// The serials by name: made when an edit turns out to be a long one.
    serials_by_id: HashMap<BackendId, u64>,
}

/// From how many searches on an index pays.
const MIN_SEARCHES_FOR_INDEX: usize = 8;

impl<T> SetEdit<T> {
    pub(super) fn new(draft: SetState<T>) -> Self {
        Self { state: draft, dirty: false, searches: 0, serials_by_id: HashMap::new() }
    }

    /// Adds a backend at the head of the list.
    ///
    /// # Errors
    /// [`SetError::DuplicateBackend`], [`SetError::InvalidWeight`], [`SetError::InvalidLimits`], [`SetError::Full`].
    pub fn insert(&mut self, spec: impl Into<Spec<T>>) -> Result<Arc<Backend<T>>, SetError> {
        let Spec { id, target, weight, tier, limits, address, admin, health } = spec.into();
        check_weight(&id, weight)?;
        check_limits(&id, limits)?;
        if self.find_position(&id).is_ok() {
            return Err(SetError::DuplicateBackend { id });
        }
        if self.state.records.len() == MAX_BACKENDS {
            return Err(SetError::Full { id });
        }
        let serial = self.state.next_serial;
        self.state.next_serial += 1;
        let shared = Arc::clone(&self.state.context);
        let account = Arc::new(BackendAccount::new(id, serial, limits, shared));
        let backend = Arc::new(Backend { account, target });
        let mut entry = BackendRecord {
            backend: Arc::clone(&backend),
            lease_handles: self.state.new_lease_handles(&backend),
            weight,
            table_weight: weight,
            tier,
            limits,
            address,
            admin,
            health,
            health_reason: None,
            outlier_state: OutlierState::Good,
            outlier_reason: None,
            agent_override: AgentOverride::default(),
            slow_start_progress: SlowStartProgress::Done,
            own_slow_start: None,
            slow_start_percent: 100,
        };
        if entry.is_fully_in_service() {
            self.state.start_slow_start(&mut entry);
        }
        if self.searches >= MIN_SEARCHES_FOR_INDEX {
            self.serials_by_id.insert(backend.id().clone(), serial);
        }
        self.state.records.push_front(entry);
        self.dirty = true;
        Ok(backend)
    }

    /// Takes a backend out. Leases on it go on; it is told apart from a later one of the same name.
    ///
    /// # Errors
    /// [`SetError::UnknownBackend`].
    pub fn remove(&mut self, id: &BackendId) -> Result<Arc<Backend<T>>, SetError> {
        let position = self.find_position(id)?;
        let removed = self.state.records.remove(position);
        let removed = removed.ok_or_else(|| SetError::UnknownBackend { id: id.clone() })?;
        self.dirty = true;
        self.serials_by_id.remove(id);
        Ok(removed.backend)
    }

    /// Gives a backend another target (and address) under its name; its account goes on.
    ///
    /// # Errors
    /// [`SetError::UnknownBackend`].
    pub fn set_target(
        &mut self,
        id: &BackendId,
        target: T,
        address: Option<SocketAddr>,
    ) -> Result<Arc<Backend<T>>, SetError> {
        let position = self.find_position(id)?;
        let account = Arc::clone(&self.state.records[position].backend.account);
        let backend = Arc::new(Backend { account, target });
        let seats = self.state.new_lease_handles(&backend);
        let entry = &mut self.state.records[position];
        entry.backend = Arc::clone(&backend);
        entry.lease_handles = seats;
        entry.address = address;
        self.dirty = true;
        Ok(backend)
    }

    /// Sets the weight; 0 quiesces. As in the kernel an edit counts even if the value is the old
    /// one: `wrr` starts its ring anew.
    ///
    /// # Errors
    /// [`SetError::UnknownBackend`], [`SetError::InvalidWeight`].
    pub fn set_weight(&mut self, id: &BackendId, weight: u32) -> Result<(), SetError> {
        check_weight(id, weight)?;
        let position = self.find_position(id)?;
        let entry = &mut self.state.records[position];
        entry.weight = weight;
        entry.update_table_weight();
        self.dirty = true;
        Ok(())
    }

    /// Sets the connection limits.
    ///
    /// # Errors
    /// [`SetError::UnknownBackend`], [`SetError::InvalidLimits`].
    pub fn set_limits(&mut self, id: &BackendId, limits: Limits) -> Result<(), SetError> {
        check_limits(id, limits)?;
        self.set_field(id, limits, |e| &mut e.limits)
    }

    /// Moves a backend to another priority tier.
    ///
    /// # Errors
    /// [`SetError::UnknownBackend`].
    pub fn set_tier(&mut self, id: &BackendId, tier: u8) -> Result<(), SetError> {
        self.set_field(id, tier, |e| &mut e.tier)
    }

    /// Sets what the operator wants of a backend.
    ///
    /// # Errors
    /// [`SetError::UnknownBackend`].
    pub fn set_admin(&mut self, id: &BackendId, admin: BackendAdminState) -> Result<(), SetError> {
        self.set_field(id, admin, |e| &mut e.admin)
    }

    /// Sets what checks say of a backend; one that comes up begins its slow start.
    ///
    /// # Errors
    /// [`SetError::UnknownBackend`].
    pub fn set_health(&mut self, id: &BackendId, health: Health) -> Result<(), SetError> {
        self.set_field(id, health, |e| &mut e.health)
    }

    /// As [`set_health`](Self::set_health), and says why, for operators and events.
    ///
    /// # Errors
    /// [`SetError::UnknownBackend`].
    pub fn set_health_with_reason(
        &mut self,
        id: &BackendId,
        health: Health,
        why: impl Into<Arc<str>>,
    ) -> Result<(), SetError> {
        let position = self.find_position(id)?;
        // The reason is that of the last change: another one for the same is no news.
        if self.state.records[position].health != health {
            self.set_health(id, health)?;
            self.state.records[position].health_reason = Some(why.into());
        }
        Ok(())
    }

    /// Sets what its traffic says of a backend, and why. One that returns to good standing begins
    /// its slow start.
    ///
    /// # Errors
    /// [`SetError::UnknownBackend`].
    pub fn set_outlier_state(
        &mut self,
        id: &BackendId,
        standing: OutlierState,
        why: impl Into<Arc<str>>,
    ) -> Result<(), SetError> {
        let position = self.find_position(id)?;
        if self.state.records[position].outlier_state != standing {
            self.set_field(id, standing, |e| &mut e.outlier_state)?;
            self.state.records[position].outlier_reason = Some(why.into());
        }
        Ok(())
    }

    /// Sets what a backend asks for by its checker: laid over what is configured.
    ///
    /// # Errors
    /// [`SetError::UnknownBackend`].
    pub fn set_agent_override(
        &mut self,
        id: &BackendId,
        advice: AgentOverride,
    ) -> Result<(), SetError> {
        self.set_field(id, advice, |e| &mut e.agent_override)
    }

    /// Begins a slow start of a backend's own, whatever the set's. It grows with each
    /// [`tick`](crate::BackendSet::tick).
    ///
    /// # Errors
    /// [`SetError::UnknownBackend`].
    pub fn start_slow_start(&mut self, id: &BackendId, ramp: SlowStart) -> Result<(), SetError> {
        let position = self.find_position(id)?;
        let entry = &mut self.state.records[position];
        entry.slow_start_progress = SlowStartProgress::AwaitingTick;
        entry.own_slow_start = Some(ramp);
        entry.slow_start_percent = ramp.percent_at_age(Duration::ZERO);
        self.dirty = true;
        Ok(())
    }

    /// The backends of the draft with the operator's word on each, newest first.
    #[cfg(feature = "discovery")]
    pub(crate) fn backends(&self) -> impl Iterator<Item = (&Arc<Backend<T>>, BackendAdminState)> {
        self.state.records.iter().map(|entry| (&entry.backend, entry.admin))
    }

    /// Sets one field; a value that was there already is no change.
    fn set_field<V: PartialEq>(
        &mut self,
        id: &BackendId,
        value: V,
        field: impl Fn(&mut BackendRecord<T>) -> &mut V,
    ) -> Result<(), SetError> {
        let position = self.find_position(id)?;
        let mut entry = self.state.records[position].clone();
        let was_up = entry.is_fully_in_service();
        if *field(&mut entry) == value {
            return Ok(());
        }
        *field(&mut entry) = value;
        entry.update_table_weight();
        if entry.is_fully_in_service() && !was_up {
            self.state.start_slow_start(&mut entry);
        }
        self.state.records[position] = entry;
        self.dirty = true;
        Ok(())
    }

    fn find_position(&mut self, id: &BackendId) -> Result<usize, SetError> {
        self.searches += 1;
        let entries = &self.state.records;
        if self.searches == MIN_SEARCHES_FOR_INDEX {
            let serials = entries.iter().map(|e| (e.backend.id().clone(), e.serial()));
            self.serials_by_id = serials.collect();
        }
        let found = if self.searches < MIN_SEARCHES_FOR_INDEX {
            entries.iter().position(|e| e.backend.id() == id)
        } else {
            // Newest first: by falling serial.
            let serial = self.serials_by_id.get(id).copied();
            serial.and_then(|it| entries.binary_search_by(|e| it.cmp(&e.serial())).ok())
        };
        found.ok_or_else(|| SetError::UnknownBackend { id: id.clone() })
    }
}

fn check_weight(id: &BackendId, weight: u32) -> Result<(), SetError> {
    if weight > MAX_WEIGHT {
        return Err(SetError::InvalidWeight { id: id.clone(), weight });
    }
    Ok(())
}

fn check_limits(id: &BackendId, limits: Limits) -> Result<(), SetError> {
    if !limits.is_valid() {
        return Err(SetError::InvalidLimits { id: id.clone(), limits });
    }
    Ok(())
}
