//! How often the state of each server has changed, for metrics: a server that flaps.

use std::collections::BTreeMap;
use std::sync::Arc;

use crate::backend::BackendId;
use crate::health::{HealthEvent, HealthEventKind};
use crate::sync::{Mutex, lock};

/// Counts the changes of each server's state. A clone counts in the same counters.
#[derive(Clone, Debug, Default)]
pub(super) struct StateChangeCounters(Arc<Mutex<CountersByService>>);

type CountersByService = BTreeMap<Arc<str>, BTreeMap<BackendId, u64>>;

impl StateChangeCounters {
    /// Counts a change of a state, and forgets a server that was removed.
    pub(super) fn record(&self, event: &HealthEvent) {
        let HealthEventKind::State { id, from: Some(_), to, .. } = &event.kind else { return };
        let mut services = lock(&self.0);
        let servers = services.entry(Arc::clone(&event.service)).or_default();
        match to {
            Some(_) => *servers.entry(id.clone()).or_default() += 1,
            None => drop(servers.remove(id)),
        }
    }

    /// Forgets the services that have gone.
    pub(super) fn retain_services(&self, is_kept: impl Fn(&str) -> bool) {
        lock(&self.0).retain(|name, _| is_kept(name));
    }

    /// Returns the counters of a service; a server whose state has never changed has none.
    pub(super) fn of_service(&self, name: &str) -> BTreeMap<BackendId, u64> {
        lock(&self.0).get(name).cloned().unwrap_or_default()
    }
}
