//! Changes of a set that are published as one.

use std::collections::HashMap;
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use super::account::BackendAccount;
use super::set_state::{BackendRecord, SetState, SlowStartProgress};
use super::{
    AgentOverride, Backend, BackendAdminState, BackendId, Health, Limits, MAX_BACKENDS, MAX_WEIGHT,
    OutlierState, SetError, SlowStart, Spec, Zone,
};
use crate::setting::{SettingError, check_range};

/// Changes of one set that are published together, or not at all.
///
/// [`BackendSet::edit`](crate::BackendSet::edit) makes it. A method that returns an error has changed
/// nothing.
#[derive(Debug)]
pub struct SetEdit<T> {
    pub(super) state: SetState<T>,
    pub(super) dirty: bool,
    searches: usize,
    /// The serials by name, built once an edit has searched often.
    serials_by_id: HashMap<BackendId, u64>,
}

/// The number of searches from which on an index is faster.
const MIN_SEARCHES_FOR_INDEX: usize = 8;

impl<T> SetEdit<T> {
    pub(super) fn new(state: SetState<T>) -> Self {
        Self { state, dirty: false, searches: 0, serials_by_id: HashMap::new() }
    }

    /// Adds a backend at the head of the list.
    ///
    /// # Errors
    /// [`SetError::DuplicateBackend`], [`SetError::InvalidWeight`], [`SetError::InvalidLimits`], [`SetError::Full`].
    pub fn insert(&mut self, spec: impl Into<Spec<T>>) -> Result<Arc<Backend<T>>, SetError> {
        let Spec { id, target, weight, tier, zone, limits, address, admin, health } = spec.into();
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
        let context = Arc::clone(&self.state.context);
        let account = Arc::new(BackendAccount::new(id, serial, limits, context));
        let backend = Arc::new(Backend { account, target });
        let health = match self.state.initial_health.health_of(address) {
            Health::Down => Health::Down,
            _ => health,
        };
        let mut record = BackendRecord {
            backend: Arc::clone(&backend),
            lease_handles: self.state.new_lease_handles(&backend),
            weight,
            table_weight: weight,
            tier,
            zone,
            limits,
            address,
            admin,
            health,
            health_reason: (health == Health::Down).then(|| NOT_CHECKED.into()),
            check_problem: None,
            outlier_state: OutlierState::Good,
            outlier_reason: None,
            agent_override: AgentOverride::default(),
            slow_start_progress: SlowStartProgress::Done,
            own_slow_start: None,
            slow_start_percent: 100,
        };
        if record.is_fully_in_service() {
            self.state.start_slow_start(&mut record);
        }
        if self.searches >= MIN_SEARCHES_FOR_INDEX {
            self.serials_by_id.insert(backend.id().clone(), serial);
        }
        self.state.records.push_front(record);
        self.dirty = true;
        Ok(backend)
    }

    /// Removes a backend. Its leases go on, and a later backend of the same name is another one.
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

    /// Gives a backend another target and address under its name; its account stays.
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
        let lease_handles = self.state.new_lease_handles(&backend);
        let record = &mut self.state.records[position];
        record.backend = Arc::clone(&backend);
        record.lease_handles = lease_handles;
        record.address = address;
        self.dirty = true;
        Ok(backend)
    }

    /// Sets the weight; 0 quiesces. As in the kernel, an edit with the same weight counts as a change:
    /// `wrr` starts its ring again.
    ///
    /// # Errors
    /// [`SetError::UnknownBackend`], [`SetError::InvalidWeight`].
    pub fn set_weight(&mut self, id: &BackendId, weight: u32) -> Result<(), SetError> {
        check_weight(id, weight)?;
        let position = self.find_position(id)?;
        let record = &mut self.state.records[position];
        record.weight = weight;
        record.update_table_weight();
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

    /// Sets the zone of a backend, or that none is known.
    ///
    /// # Errors
    /// [`SetError::UnknownBackend`].
    pub fn set_zone(&mut self, id: &BackendId, zone: Option<Zone>) -> Result<(), SetError> {
        self.set_field(id, zone, |e| &mut e.zone)
    }

    /// Sets the operator's state of a backend.
    ///
    /// # Errors
    /// [`SetError::UnknownBackend`].
    pub fn set_admin(&mut self, id: &BackendId, admin: BackendAdminState) -> Result<(), SetError> {
        self.set_field(id, admin, |e| &mut e.admin)
    }

    /// Sets the health that checks found; a backend that comes up starts its slow start.
    ///
    /// # Errors
    /// [`SetError::UnknownBackend`].
    pub fn set_health(&mut self, id: &BackendId, health: Health) -> Result<(), SetError> {
        self.set_field(id, health, |e| &mut e.health)
    }

    /// Sets the health as [`set_health`](Self::set_health) does, with a reason for operators and events.
    ///
    /// # Errors
    /// [`SetError::UnknownBackend`].
    pub fn set_health_with_reason(
        &mut self,
        id: &BackendId,
        health: Health,
        reason: impl Into<Arc<str>>,
    ) -> Result<(), SetError> {
        let position = self.find_position(id)?;
        self.set_health(id, health)?;
        self.dirty |=
            replace_text(&mut self.state.records[position].health_reason, Some(reason.into()));
        Ok(())
    }

    /// Sets the reason for which a check of a backend does not run; `None` when it runs. It shows as the
    /// [reason](super::BackendStatus::reason) of the state, and changes no state.
    ///
    /// # Errors
    /// [`SetError::UnknownBackend`].
    pub fn set_check_problem(
        &mut self,
        id: &BackendId,
        problem: Option<Arc<str>>,
    ) -> Result<(), SetError> {
        let position = self.find_position(id)?;
        self.dirty |= replace_text(&mut self.state.records[position].check_problem, problem);
        Ok(())
    }

    /// Sets the outlier state of a backend, with a reason. A backend that returns to
    /// [`Good`](OutlierState::Good) starts its slow start.
    ///
    /// # Errors
    /// [`SetError::UnknownBackend`].
    pub fn set_outlier_state(
        &mut self,
        id: &BackendId,
        outlier_state: OutlierState,
        reason: impl Into<Arc<str>>,
    ) -> Result<(), SetError> {
        let position = self.find_position(id)?;
        if self.state.records[position].outlier_state != outlier_state {
            self.set_field(id, outlier_state, |e| &mut e.outlier_state)?;
            self.state.records[position].outlier_reason = Some(reason.into());
        }
        Ok(())
    }

    /// Sets what a backend asks for through its health check, on top of what is configured.
    ///
    /// # Errors
    /// [`SetError::UnknownBackend`].
    pub fn set_agent_override(
        &mut self,
        id: &BackendId,
        agent_override: AgentOverride,
    ) -> Result<(), SetError> {
        self.set_field(id, agent_override, |e| &mut e.agent_override)
    }

    /// Starts a slow start of this backend alone, which replaces that of the set. It advances with
    /// [`advance_slow_start`](crate::BackendSet::advance_slow_start).
    ///
    /// # Errors
    /// [`SetError::UnknownBackend`].
    pub fn start_slow_start(
        &mut self,
        id: &BackendId,
        slow_start: SlowStart,
    ) -> Result<(), SetError> {
        let position = self.find_position(id)?;
        let record = &mut self.state.records[position];
        record.slow_start_progress = SlowStartProgress::AwaitingTick;
        record.own_slow_start = Some(slow_start);
        record.slow_start_percent = slow_start.percent_at_age(Duration::ZERO);
        self.dirty = true;
        Ok(())
    }

    /// Returns the backends of the edited set with the operator's state of each, newest first.
    #[cfg(feature = "discovery")]
    pub(crate) fn backends(&self) -> impl Iterator<Item = (&Arc<Backend<T>>, BackendAdminState)> {
        self.state.records.iter().map(|record| (&record.backend, record.admin))
    }

    /// Sets one field; the same value is no change.
    fn set_field<V: PartialEq>(
        &mut self,
        id: &BackendId,
        value: V,
        field: impl Fn(&mut BackendRecord<T>) -> &mut V,
    ) -> Result<(), SetError> {
        let position = self.find_position(id)?;
        let mut record = self.state.records[position].clone();
        let was_up = record.is_fully_in_service();
        if *field(&mut record) == value {
            return Ok(());
        }
        *field(&mut record) = value;
        record.update_table_weight();
        if record.is_fully_in_service() && !was_up {
            self.state.start_slow_start(&mut record);
        }
        self.state.records[position] = record;
        self.dirty = true;
        Ok(())
    }

    fn find_position(&mut self, id: &BackendId) -> Result<usize, SetError> {
        self.searches += 1;
        let records = &self.state.records;
        if self.searches == MIN_SEARCHES_FOR_INDEX {
            let serials = records.iter().map(|e| (e.backend.id().clone(), e.serial()));
            self.serials_by_id = serials.collect();
        }
        let found = if self.searches < MIN_SEARCHES_FOR_INDEX {
            records.iter().position(|e| e.backend.id() == id)
        } else {
            // Newest first: by descending serial.
            let serial = self.serials_by_id.get(id).copied();
            serial.and_then(|serial| records.binary_search_by(|e| serial.cmp(&e.serial())).ok())
        };
        found.ok_or_else(|| SetError::UnknownBackend { id: id.clone() })
    }
}

/// The reason of a backend that is down from the start.
const NOT_CHECKED: &str = "not checked yet";

/// Replaces a text; returns whether it differs from the one before.
fn replace_text(text: &mut Option<Arc<str>>, new: Option<Arc<str>>) -> bool {
    let differs = *text != new;
    if differs {
        *text = new;
    }
    differs
}

/// Checks a weight, as a set does that gets it.
///
/// # Errors
/// [`SettingError`] if the weight is above [`MAX_WEIGHT`].
pub(crate) fn validate_weight(weight: u32) -> Result<(), SettingError> {
    check_range("weight", weight, 0..=MAX_WEIGHT).map(drop)
}

fn check_weight(id: &BackendId, weight: u32) -> Result<(), SetError> {
    let checked = validate_weight(weight);
    checked.map_err(|source| SetError::InvalidWeight { id: id.clone(), source })
}

fn check_limits(id: &BackendId, limits: Limits) -> Result<(), SetError> {
    let checked = limits.validate();
    checked.map_err(|source| SetError::InvalidLimits { id: id.clone(), source })
}
