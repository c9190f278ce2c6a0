//! How a director stands: everything, as JSON by serde.

use std::collections::BTreeMap;
use std::time::Duration;

use serde::{Deserialize, Serialize};

use super::config::ServiceProtocol;
use super::frontend::{AnyForwarderHandle, FrontendCounters};
use super::handle::Director;
use super::service::{VirtualService, tokio_now};
use super::sync::StateSync;
use crate::backend::OutcomeCounts;
use crate::forward::{TcpCounters, UdpCounters};
use crate::histogram::DurationHistogram;
use crate::vrrp::VrrpStatus;

/// Everything.
#[derive(Clone, Debug, Serialize)]
#[non_exhaustive]
pub struct DirectorStatus {
    /// Of this crate.
    pub version: &'static str,
    /// For how long it has run, in milliseconds.
    pub uptime_ms: u64,
    /// Serves the virtual addresses: it is master, or has no standby.
    pub active: bool,
    /// Each service, in the order of the configuration.
    pub services: Vec<ServiceStatus>,
    /// The virtual addresses and the election.
    pub vrrp: Option<VrrpStatus>,
    /// What the standby is told, or this one as a standby.
    pub sync: Option<SyncStatus>,
}

/// A service.
#[derive(Clone, Debug, Serialize)]
#[non_exhaustive]
pub struct ServiceStatus {
    /// Its name.
    pub name: String,
    /// Where clients come, with the real ports where 0 was asked for.
    pub listen: Vec<String>,
    /// `tcp` or `udp`.
    pub protocol: &'static str,
    /// The rule.
    pub scheduler: String,
    /// Health is ignored, because too few servers are healthy.
    pub panicking: bool,
    /// The weight that must be healthy is.
    pub quorum: bool,
    /// What was done, by both directors, since counts were last zeroed.
    pub totals: ServiceTotals,
    /// What was refused, by reason, by this director.
    pub refused: BTreeMap<&'static str, u64>,
    /// Connections or flows that this director carries now.
    pub active: u64,
    /// Clients whose server is remembered.
    pub persistent: usize,
    /// Each server, in the order in which they came: that of the configuration.
    pub servers: Vec<ServerStatus>,
}

/// A real server.
#[derive(Clone, Debug, Serialize)]
#[non_exhaustive]
pub struct ServerStatus {
    /// Its address, by which it is addressed.
    pub address: String,
    /// What people call it.
    pub name: Option<String>,
    /// What becomes of new connections: `eligible`, `down`, `draining`, ...
    pub state: &'static str,
    /// Why, where that is known.
    pub reason: Option<String>,
    /// The weight that is set.
    pub weight: u32,
    /// Those of tier 0 come first.
    pub tier: u8,
    /// The most connections; 0 is no bound.
    pub max_connections: u32,
    /// Something was changed by hand.
    pub by_hand: bool,
    /// Connections that it has now from this director.
    pub active: u32,
    /// Those that count as inactive: flows of UDP.
    pub inactive: u32,
    /// How those before ended.
    pub outcomes: OutcomeCounts,
    /// What this director did, since counts were last zeroed.
    pub totals: ServerTotals,
    /// How long connecting took, in milliseconds: the median.
    pub connect_p50_ms: Option<f64>,
    /// And what one in a hundred exceeded.
    pub connect_p99_ms: Option<f64>,
}

/// What a service has done since it was begun, by whichever director was active.
#[derive(Clone, Copy, Debug, Default, Deserialize, Eq, PartialEq, Serialize)]
#[non_exhaustive]
pub struct ServiceTotals {
    /// Connections taken, or flows begun.
    pub accepted: u64,
    /// Connections or flows that no server took.
    pub refused: u64,
    /// Bytes to servers.
    pub bytes_to_servers: u64,
    /// Bytes to clients.
    pub bytes_to_clients: u64,
}

impl ServiceTotals {
    pub(super) fn saturating_add(self, other: Self) -> Self {
        self.combine(other, u64::saturating_add)
    }

    /// What is left of these without the others; nothing is less than 0.
    pub(super) fn saturating_sub(self, other: Self) -> Self {
        self.combine(other, u64::saturating_sub)
    }

    fn combine(self, other: Self, by: fn(u64, u64) -> u64) -> Self {
        Self {
            accepted: by(self.accepted, other.accepted),
            refused: by(self.refused, other.refused),
            bytes_to_servers: by(self.bytes_to_servers, other.bytes_to_servers),
            bytes_to_clients: by(self.bytes_to_clients, other.bytes_to_clients),
        }
    }
}

/// What a server has been given, and gave.
#[derive(Clone, Copy, Debug, Default, Eq, PartialEq, Serialize)]
#[non_exhaustive]
pub struct ServerTotals {
    /// Connections made, or flows begun.
    pub connections: u64,
    /// Connections that it refused or did not answer, or errors that came for flows.
    pub failed: u64,
    /// Bytes to it.
    pub bytes_in: u64,
    /// Bytes from it.
    pub bytes_out: u64,
}

impl ServerTotals {
    pub(super) fn saturating_add(self, other: Self) -> Self {
        self.combine(other, u64::saturating_add)
    }

    pub(super) fn saturating_sub(self, other: Self) -> Self {
        self.combine(other, u64::saturating_sub)
    }

    fn combine(self, other: Self, by: fn(u64, u64) -> u64) -> Self {
        Self {
            connections: by(self.connections, other.connections),
            failed: by(self.failed, other.failed),
            bytes_in: by(self.bytes_in, other.bytes_in),
            bytes_out: by(self.bytes_out, other.bytes_out),
        }
    }
}

/// How the standby is kept up.
#[derive(Clone, Debug, Default, Serialize)]
#[non_exhaustive]
pub struct SyncStatus {
    /// Standbys that are being told, by this director when it is active.
    pub followers: usize,
    /// It follows an active director, and was told everything.
    pub in_sync: bool,
    /// For how long it has heard nothing from the director that it follows, in milliseconds.
    pub silent_ms: Option<u64>,
    /// Bytes sent to standbys.
    pub sent: u64,
    /// Bytes received from the active director.
    pub received: u64,
    /// Why it could not follow, the last time.
    pub error: Option<String>,
}

pub(super) fn saturating_millis(time: Duration) -> u64 {
    u64::try_from(time.as_millis()).unwrap_or(u64::MAX)
}

/// From when counts are counted.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub(super) enum CountedSince {
    /// The start, so that they never go back.
    Start,
    /// When an operator zeroed them.
    LastZeroed,
}

impl Director {
    /// How it stands.
    #[must_use]
    pub fn status(&self) -> DirectorStatus {
        self.status_since(CountedSince::LastZeroed)
    }

    pub(super) fn status_since(&self, since: CountedSince) -> DirectorStatus {
        let inner = &self.shared;
        let up = tokio_now().saturating_duration_since(inner.started_at);
        DirectorStatus {
            version: env!("CARGO_PKG_VERSION"),
            uptime_ms: saturating_millis(up),
            active: inner.is_active(),
            services: inner.services().iter().map(|service| service.status(since)).collect(),
            vrrp: self.vrrp().and_then(|vrrp| vrrp.status()),
            sync: inner.state_sync().map(|sync| StateSync::status(&sync)),
        }
    }
}

/// What all carriers of a service have counted.
#[derive(Clone, Debug, Default)]
pub(super) struct ServiceCounters {
    pub(super) totals: ServiceTotals,
    pub(super) active: u64,
    pub(super) refused: BTreeMap<&'static str, u64>,
    pub(super) servers: BTreeMap<String, ServerCounters>,
}

/// Of one server.
#[derive(Clone, Debug, Default)]
pub(super) struct ServerCounters {
    pub(super) totals: ServerTotals,
    pub(super) connect_time: DurationHistogram,
}

impl ServiceCounters {
    /// Adds what one carrier has counted.
    pub(super) fn add_frontend(&mut self, hold: &AnyForwarderHandle) {
        match hold {
            AnyForwarderHandle::Tcp(handle) => {
                let counters = handle.counters();
                self.add_totals(&FrontendCounters::Tcp(counters));
                self.add_refusals(tcp_refusals_by_reason(&counters));
                for backend in handle.backends() {
                    let server = self.servers.entry(backend.id.to_string()).or_default();
                    server.totals = server.totals.saturating_add(ServerTotals {
                        connections: backend.connections,
                        failed: backend.failed_connects,
                        bytes_in: backend.bytes_in,
                        bytes_out: backend.bytes_out,
                    });
                    server.connect_time.merge(&backend.connect_time);
                }
            }
            AnyForwarderHandle::Udp(handle) => {
                let counters = handle.counters();
                self.add_totals(&FrontendCounters::Udp(counters));
                self.add_refusals(udp_refusals_by_reason(&counters));
                for backend in handle.backends() {
                    let server = self.servers.entry(backend.id.to_string()).or_default();
                    server.totals = server.totals.saturating_add(ServerTotals {
                        connections: backend.flows_started,
                        failed: backend.errors,
                        bytes_in: backend.to_server.bytes,
                        bytes_out: backend.from_server.bytes,
                    });
                }
            }
        }
    }

    /// Adds what carriers have counted that are gone.
    pub(super) fn merge(&mut self, gone: &Self) {
        self.totals = self.totals.saturating_add(gone.totals);
        self.add_refusals(gone.refused.iter().map(|(reason, count)| (*reason, *count)));
        for (name, server) in &gone.servers {
            let sum = self.servers.entry(name.clone()).or_default();
            sum.totals = sum.totals.saturating_add(server.totals);
            sum.connect_time.merge(&server.connect_time);
        }
    }

    fn add_totals(&mut self, counted: &FrontendCounters) {
        self.totals = self.totals.saturating_add(counted.totals());
        self.active += counted.active();
    }

    fn add_refusals(&mut self, reasons: impl IntoIterator<Item = (&'static str, u64)>) {
        for (reason, count) in reasons {
            *self.refused.entry(reason).or_default() += count;
        }
    }
}

fn tcp_refusals_by_reason(counters: &TcpCounters) -> [(&'static str, u64); 12] {
    let refused = &counters.refused;
    [
        ("no_server", refused.no_backend),
        ("saturated", refused.saturated),
        ("queue_timeout", refused.queue_timeout),
        ("scheduler", refused.scheduler),
        ("connect_error", refused.connect_error),
        ("connect_timeout", refused.connect_timeout),
        ("no_resources", refused.no_resources),
        ("client_limit", refused.client_limit),
        ("bad_preamble", refused.bad_preamble),
        ("preamble_timeout", refused.preamble_timeout),
        ("no_service", refused.no_service),
        ("client_left", refused.client_left),
    ]
}

fn udp_refusals_by_reason(counters: &UdpCounters) -> [(&'static str, u64); 11] {
    let shed = &counters.shed;
    [
        ("max_flows", shed.max_flows),
        ("client_limit", shed.max_flows_per_client),
        ("no_server", shed.no_backend),
        ("saturated", shed.saturated),
        ("scheduler", shed.scheduler),
        ("unreachable", shed.unreachable),
        ("no_resources", shed.no_resources),
        ("draining", shed.draining),
        ("send_buffer", shed.send_buffer),
        ("rejected", shed.rejected),
        ("damaged", shed.damaged),
    ]
}

/// What an operator has zeroed: counts as they were then.
#[derive(Debug, Default)]
pub(super) struct CounterBaseline {
    totals: ServiceTotals,
    refused: BTreeMap<&'static str, u64>,
    servers: BTreeMap<String, ServerTotals>,
}

impl VirtualService {
    /// Lets counts begin anew for those who look; metrics go on.
    pub(super) fn zero_counters(&self) {
        let measured = self.counters();
        let servers = measured.servers.iter();
        let zero = CounterBaseline {
            totals: self.totals(),
            refused: measured.refused.clone(),
            servers: servers.map(|(name, it)| (name.clone(), it.totals)).collect(),
        };
        self.lock_state().counter_baseline = zero;
    }

    pub(super) fn status(&self, since: CountedSince) -> ServiceStatus {
        let mut measured = self.counters();
        let mut totals = self.totals();
        let parts = self.lock_state();
        if since == CountedSince::LastZeroed {
            totals = totals.saturating_sub(parts.counter_baseline.totals);
            for (reason, count) in &mut measured.refused {
                *count -= parts
                    .counter_baseline
                    .refused
                    .get(reason)
                    .copied()
                    .unwrap_or_default()
                    .min(*count);
            }
            for (name, server) in &mut measured.servers {
                let zero = parts.counter_baseline.servers.get(name).copied().unwrap_or_default();
                server.totals = server.totals.saturating_sub(zero);
            }
        }
        measured.refused.retain(|_, count| *count > 0);
        let wanted = parts.overrides.apply_to(&parts.config.servers);
        let names = wanted.into_iter().map(|it| (it.config.address.to_string(), it.config.name));
        let mut names: BTreeMap<_, _> = names.collect();
        let snapshot = self.balancer.snapshot();
        // The set has the newest first.
        let all: Vec<_> = snapshot.iter().enumerate().collect();
        let servers = all.into_iter().rev().map(|(position, (backend, member))| {
            let address = backend.id().to_string();
            let known = measured.servers.remove(&address).unwrap_or_default();
            let connect = |part| known.connect_time.quantile(part).map(|it| it.as_secs_f64() * 1e3);
            let load = backend.load();
            ServerStatus {
                name: names.remove(&address).flatten(),
                state: member.state().name(),
                reason: snapshot.reason(position).map(ToString::to_string),
                weight: member.weight(),
                tier: member.tier(),
                max_connections: member.limits().max_connections(),
                by_hand: parts.overrides.contains(&address),
                active: load.active,
                inactive: load.inactive,
                outcomes: backend.outcomes(),
                totals: known.totals,
                connect_p50_ms: connect(0.5),
                connect_p99_ms: connect(0.99),
                address,
            }
        });
        ServiceStatus {
            name: self.name.clone(),
            listen: parts.frontends.iter().map(|it| it.local_address().to_string()).collect(),
            protocol: self.protocol.name(),
            scheduler: parts.config.scheduler.clone(),
            panicking: snapshot.is_panicking(),
            quorum: snapshot.has_quorum(),
            totals,
            refused: measured.refused.clone(),
            active: measured.active,
            persistent: parts.persistence.as_ref().map_or(0, |it| it.len()),
            servers: servers.collect(),
        }
    }
}

impl ServiceProtocol {
    pub(super) fn name(self) -> &'static str {
        match self {
            Self::Tcp => "tcp",
            Self::Udp => "udp",
        }
    }
}
