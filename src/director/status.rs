//! The status of a director: serialized as JSON by the admin API, and the source of its metrics.

use std::collections::BTreeMap;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, OnceLock};

use serde::Serialize;

use super::announce::AnnounceSlot;
use super::applied::{PartStatus, ReloadCounts, ReloadStatusSlot};
use super::counters::CountedSince;
use super::engines::EngineSet;
use super::error::DirectorError;
use super::events::ChangeOrigin;
use super::history::HistoryReader;
use super::overrides::ChangeStamp;
use super::registry::ServiceRegistry;
use super::role::RoleWatch;
use super::service::VirtualService;
use super::state_ages::{ServiceState, StateAges};
use super::supervisor::TaskSupervisor;
use super::sync::{SyncStatus, SyncStatusSlot};
use super::time::{saturating_millis, tokio_now};
use crate::announce::{AnnounceMode, AnnounceStatus};
use crate::backend::{OutcomeCounts, Zone};
use crate::balancer::Fingerprint;
use crate::metrics::{ServerTotals, ServiceTotals};
use crate::packet::PacketStatistics;
use crate::vrrp::VrrpStatus;

/// The status of a director.
#[derive(Clone, Debug, Serialize)]
#[non_exhaustive]
pub struct DirectorStatus {
    /// The version of this crate.
    pub version: &'static str,
    /// The host name of the machine.
    pub host: String,
    /// Time since the start, in milliseconds.
    pub uptime_ms: u64,
    /// Whether this director serves the virtual addresses: it is master, or has no `[vrrp]` table.
    pub active: bool,
    /// The services, in the order of the configuration.
    pub services: Vec<ServiceStatus>,
    /// The election for the virtual addresses, with a `[vrrp]` table.
    pub vrrp: Option<VrrpStatus>,
    /// The announced addresses, with an `[announce]` table.
    pub announce: Option<AnnounceStatus>,
    /// State synchronization with the other director, with a `[sync]` table.
    pub sync: Option<SyncStatus>,
    /// Parts of the configuration that could not be applied. The next reload tries them again.
    pub failed_parts: Vec<PartStatus>,
    /// Log lines that the program has dropped, because nobody read them in time; 0 if the program does
    /// not [count](super::Director::set_dropped_log_lines) them.
    pub dropped_log_lines: u64,
    /// How often each task of the director has panicked and started again; the tasks that have run.
    pub task_restarts: BTreeMap<&'static str, u64>,
}

/// The status of a service.
#[derive(Clone, Debug, Serialize)]
#[non_exhaustive]
pub struct ServiceStatus {
    /// The name in the configuration.
    pub name: String,
    /// The addresses that clients connect to, with real ports where the configuration has 0.
    pub listen: Vec<String>,
    /// `tcp` or `udp`.
    pub protocol: &'static str,
    /// The scheduler, as the configuration writes it.
    pub scheduler: String,
    /// A number of what decides: scheduler, servers, weights. Directors that choose alike have the same.
    pub fingerprint: Fingerprint,
    /// The engine that serves: `proxy`, `ipvs` or `packet`.
    pub engine: &'static str,
    /// Whether the service serves, from the states of its servers.
    pub state: ServiceState,
    /// How long the service has been in this state, in milliseconds, exact to a second.
    pub state_age_ms: u64,
    /// Whether health is ignored because too few servers are healthy.
    pub panicking: bool,
    /// Whether the healthy servers' total weight meets the configured quorum.
    pub quorum: bool,
    /// Totals of both directors since an operator last zeroed the counters.
    pub totals: ServiceTotals,
    /// Connections or flows that this director refused, by reason.
    pub refused: BTreeMap<&'static str, u64>,
    /// Connections or flows of this director at this moment.
    pub active: u64,
    /// Entries of the persistence table.
    pub persistent: usize,
    /// The servers in the order in which they were added: that of the configuration.
    pub servers: Vec<ServerStatus>,
}

/// The status of a real server in one service.
#[derive(Clone, Debug, Serialize)]
#[non_exhaustive]
pub struct ServerStatus {
    /// The address, which identifies the server in the API.
    pub address: String,
    /// The name in the configuration, for people.
    pub name: Option<String>,
    /// Whether the server gets new connections: `eligible`, `down`, `draining`, ...
    pub state: &'static str,
    /// How long the server has been in this state, in milliseconds, exact to a second.
    pub state_age_ms: u64,
    /// The reason for the state, where one is known.
    pub reason: Option<String>,
    /// The configured weight, or that which an operator or an agent has set.
    pub weight: u32,
    /// The tier; servers of tier 0 are chosen first.
    pub tier: u8,
    /// The zone, if one is configured.
    pub zone: Option<Zone>,
    /// The connection limit; 0 means no limit.
    pub max_connections: u32,
    /// The number of connections below which a full server gets new ones again; 0 means three
    /// quarters of the limit.
    pub resume_connections: u32,
    /// Whether an operator has changed something of this server.
    pub by_hand: bool,
    /// Who changed the server by hand last, and when.
    pub changed: Option<ChangeStamp>,
    /// How packets reach the server: `nat`, `dr` or `tunnel`.
    pub method: &'static str,
    /// Connections to the server from this director at this moment.
    pub active: u32,
    /// UDP flows to the server, which IPVS counts as inactive connections.
    pub inactive: u32,
    /// How earlier connections ended.
    pub outcomes: OutcomeCounts,
    /// This director's totals since an operator last zeroed the counters.
    pub totals: ServerTotals,
    /// The median connect time, in milliseconds.
    pub connect_p50_ms: Option<f64>,
    /// The 99th percentile of the connect time, in milliseconds.
    pub connect_p99_ms: Option<f64>,
}

/// Reads the status of a director. A clone reads the same director.
#[derive(Clone, Debug)]
pub(super) struct StatusReader {
    registry: ServiceRegistry,
    role: RoleWatch,
    announce: AnnounceSlot,
    sync: SyncStatusSlot,
    reload: ReloadStatusSlot,
    supervisor: TaskSupervisor,
    dropped_log_lines: Arc<OnceLock<Arc<AtomicU64>>>,
    history: HistoryReader,
    engines: EngineSet,
}

impl StatusReader {
    #[expect(clippy::too_many_arguments, reason = "a director has that many parts")]
    pub(super) fn new(
        registry: ServiceRegistry,
        role: RoleWatch,
        announce: AnnounceSlot,
        sync: SyncStatusSlot,
        reload: ReloadStatusSlot,
        supervisor: TaskSupervisor,
        history: HistoryReader,
        engines: EngineSet,
    ) -> Self {
        let dropped_log_lines = Arc::default();
        Self {
            registry,
            role,
            announce,
            sync,
            reload,
            supervisor,
            dropped_log_lines,
            history,
            engines,
        }
    }

    /// Sets the counter of the log lines that the program drops; the first one that is set stays.
    pub(super) fn set_dropped_log_lines(&self, counter: Arc<AtomicU64>) {
        let _ = self.dropped_log_lines.set(counter);
    }

    /// Returns the status of this moment, with counters since an operator last zeroed them; it waits for
    /// the election's thread, for a second at most.
    pub(super) fn read(&self) -> DirectorStatus {
        let services = self.registry.services();
        let services = services.iter().map(|service| self.service_status(service));
        let services = services.collect();
        let director = self.read_director();
        DirectorStatus { services, ..director }
    }

    /// Returns the status of the director without its services; it waits as [`read`](Self::read) does.
    pub(super) fn read_director(&self) -> DirectorStatus {
        let uptime = tokio_now().saturating_duration_since(self.registry.started_at());
        let mut task_restarts = self.supervisor.restarts();
        let services = self.registry.services();
        let workers = services.iter().map(|service| service.worker_restarts()).sum();
        task_restarts.insert("worker", workers);
        DirectorStatus {
            version: env!("CARGO_PKG_VERSION"),
            host: host_name(),
            uptime_ms: saturating_millis(uptime),
            active: self.role.is_active(),
            services: Vec::new(),
            vrrp: self.role.vrrp_status(),
            announce: self.announce.status(),
            sync: self.sync.status(),
            failed_parts: self.reload.failed_parts(),
            task_restarts,
            dropped_log_lines: self
                .dropped_log_lines
                .get()
                .map_or(0, |counter| counter.load(Ordering::Relaxed)),
        }
    }

    /// Returns the status of one service.
    pub(super) fn read_service(&self, name: &str) -> Result<ServiceStatus, DirectorError> {
        let service = self.registry.find_service(name)?;
        Ok(self.service_status(&service))
    }

    fn service_status(&self, service: &VirtualService) -> ServiceStatus {
        service_status(
            service,
            &self.history.read_series(&service.name, |series| series.ages.clone()),
        )
    }

    pub(super) fn is_active(&self) -> bool {
        self.role.is_active()
    }

    pub(super) fn registry(&self) -> &ServiceRegistry {
        &self.registry
    }

    /// Returns what the packet engine has counted, if it runs.
    pub(super) fn packet_statistics(&self) -> Option<PacketStatistics> {
        self.engines.packet_statistics()
    }

    pub(super) fn reload_counts(&self) -> ReloadCounts {
        self.reload.counts()
    }

    #[cfg(test)]
    pub(super) fn announcements(&self) -> &AnnounceSlot {
        &self.announce
    }

    /// Sets an operator's mode of the announcements.
    pub(super) fn set_announce_mode(
        &self,
        mode: AnnounceMode,
        origin: ChangeOrigin,
    ) -> Result<(), DirectorError> {
        self.announce.set_mode(mode, origin, self.registry.events())
    }

    /// Refuses an operator's change while this director is a standby that follows another one.
    pub(super) fn refuse_on_standby(&self) -> Result<(), DirectorError> {
        match self.sync.followed_peer().filter(|_| !self.is_active()) {
            Some(peer) => Err(DirectorError::Standby { peer }),
            None => Ok(()),
        }
    }
}

fn host_name() -> String {
    let name = std::fs::read_to_string("/proc/sys/kernel/hostname").unwrap_or_default();
    name.trim_end().to_owned()
}

fn service_status(service: &VirtualService, ages: &StateAges) -> ServiceStatus {
    let now = tokio_now();
    let (totals, mut counters) = service.counters_since(CountedSince::LastZeroed);
    counters.refused.retain(|_, count| *count > 0);
    let configured = service.desired_servers().into_iter();
    let mut names: BTreeMap<_, _> =
        configured.map(|server| (server.config.address.to_string(), server.config.name)).collect();
    let (overrides, methods) = (service.overrides(), service.forwarding_methods());
    let snapshot = service.balancer.snapshot();
    let state = service.state(&snapshot);
    // The set has the newest server first.
    let members: Vec<_> = snapshot.iter().enumerate().collect();
    let servers = members.into_iter().rev().map(|(position, (backend, member))| {
        let address = backend.id().to_string();
        let server = counters.servers.remove(&address).unwrap_or_default();
        let connect_ms =
            |quantile| server.connect_time.quantile(quantile).map(|time| time.as_secs_f64() * 1e3);
        let load = backend.load();
        ServerStatus {
            name: names.remove(&address).flatten(),
            state: member.state().name(),
            state_age_ms: saturating_millis(ages.server_age(backend.id(), member.state(), now)),
            reason: snapshot.reason(position).map(ToString::to_string),
            weight: member.weight(),
            tier: member.tier(),
            zone: member.zone(),
            max_connections: member.limits().max_connections(),
            resume_connections: member.limits().resume_below(),
            method: methods.get(backend.id()).name(),
            by_hand: overrides.contains(&address),
            changed: overrides.stamp(&address).cloned(),
            active: load.active.saturating_add(server.kernel_active),
            inactive: load.inactive.saturating_add(server.kernel_inactive),
            outcomes: backend.outcomes(),
            totals: server.totals,
            connect_p50_ms: connect_ms(0.5),
            connect_p99_ms: connect_ms(0.99),
            address,
        }
    });
    ServiceStatus {
        servers: servers.collect(),
        state,
        state_age_ms: saturating_millis(ages.service_age(state, now)),
        name: service.name.clone(),
        listen: service.local_addresses(),
        protocol: service.protocol_name(),
        scheduler: service.scheduler(),
        fingerprint: service.balancer.fingerprint(),
        engine: service.engine().name(),
        panicking: snapshot.is_panicking(),
        quorum: snapshot.has_quorum(),
        totals,
        refused: counters.refused,
        active: counters.active,
        persistent: service.persistence().map_or(0, |table| table.len()),
    }
}
