//! The virtual services that run, for everything that reads or edits them.

use std::sync::Arc;
use std::time::Instant;

use super::error::DirectorError;
use super::event_log::EventLog;
use super::events::{ChangeOrigin, DirectorEvent, OperatorEvent};
use super::overrides::ServerEdit;
use super::service::VirtualService;
use super::time::tokio_now;
use crate::health::{Monitor, MonitorCounters};
use crate::sync::ArcSwap;

/// The services of a director, the monitor of their health checks, and the director's events. A clone is another handle on
/// the same services. It owns no task.
#[derive(Clone, Debug)]
pub(super) struct ServiceRegistry {
    shared: Arc<RegistryShared>,
}

#[derive(Debug)]
struct RegistryShared {
    services: ArcSwap<Vec<Arc<VirtualService>>>,
    monitor: Monitor,
    events: EventLog,
    started_at: Instant,
}

impl ServiceRegistry {
    pub(super) fn new() -> Self {
        let events = EventLog::new();
        let log = events.clone();
        let monitor = Monitor::with_event_observer(move |event| {
            log.publish(DirectorEvent::Health(event.clone()));
        });
        let shared = RegistryShared {
            services: ArcSwap::from_pointee(Vec::new()),
            monitor,
            events,
            started_at: tokio_now(),
        };
        Self { shared: Arc::new(shared) }
    }

    /// Returns the services in the order of the configuration.
    pub(super) fn services(&self) -> Arc<Vec<Arc<VirtualService>>> {
        self.shared.services.load_full()
    }

    pub(super) fn find_service(&self, name: &str) -> Result<Arc<VirtualService>, DirectorError> {
        let service = self.services().iter().find(|service| service.name == name).cloned();
        service.ok_or_else(|| DirectorError::NoService(name.to_owned()))
    }

    /// Replaces the services that readers see.
    pub(super) fn publish_services(&self, services: Vec<Arc<VirtualService>>) {
        self.shared.services.store(Arc::new(services));
    }

    /// Applies an operator's edits of one service's servers, all of them or none.
    pub(super) fn edit_servers(
        &self,
        service: &str,
        edits: &[ServerEdit],
        origin: &ChangeOrigin,
    ) -> Result<(), DirectorError> {
        let edits = self.find_service(service)?.edit_servers(edits, &origin.to_string())?;
        self.publish_edits(service, &edits, origin);
        Ok(())
    }

    /// Publishes an event for each edit of one service's servers.
    pub(super) fn publish_edits(&self, service: &str, edits: &[ServerEdit], origin: &ChangeOrigin) {
        for edit in edits {
            let event = OperatorEvent::new(service, edit, origin.clone());
            self.shared.events.publish(DirectorEvent::Operator(event));
        }
    }

    pub(super) fn monitor(&self) -> &Monitor {
        &self.shared.monitor
    }

    pub(super) fn events(&self) -> &EventLog {
        &self.shared.events
    }

    pub(super) fn monitor_counters(&self) -> MonitorCounters {
        self.shared.monitor.counters()
    }

    pub(super) fn started_at(&self) -> Instant {
        self.shared.started_at
    }
}
