//! The counters of a service's forwarders, and their metrics.

use std::collections::BTreeMap;

use metrics::{counter, gauge};

#[cfg(feature = "ipvs")]
use crate::engine::EngineCounters;
use crate::forward::{TcpCounters, TcpHandle, UdpCounters, UdpHandle, descriptor_usage};
use crate::histogram::DurationHistogram;

/// What a service has done since its first start, whichever director was active.
#[derive(Clone, Copy, Debug, Default, Eq, PartialEq)]
#[cfg_attr(feature = "serde", derive(serde::Deserialize, serde::Serialize))]
#[non_exhaustive]
pub struct ServiceTotals {
    /// Connections accepted, or UDP flows started.
    pub accepted: u64,
    /// Connections or flows that no server accepted; `None` where nothing counts them.
    pub refused: Option<u64>,
    /// Bytes sent to servers.
    pub bytes_to_servers: u64,
    /// Bytes sent to clients; `None` where nothing counts them, because servers answer by themselves.
    pub bytes_to_clients: Option<u64>,
}

impl ServiceTotals {
    pub(crate) fn of_tcp(counters: &TcpCounters) -> Self {
        Self {
            accepted: counters.accepted,
            refused: Some(counters.refused.sum()),
            bytes_to_servers: counters.bytes_to_backends,
            bytes_to_clients: Some(counters.bytes_to_clients),
        }
    }

    pub(crate) fn of_udp(counters: &UdpCounters) -> Self {
        Self {
            accepted: counters.flows_started,
            refused: Some(counters.shed.sum()),
            bytes_to_servers: counters.to_servers.bytes,
            bytes_to_clients: Some(counters.to_clients.bytes),
        }
    }

    #[cfg(feature = "ipvs")]
    pub(crate) fn of_engine(counters: &EngineCounters) -> Self {
        Self {
            accepted: counters.connections,
            refused: None,
            bytes_to_servers: counters.bytes_to_servers,
            bytes_to_clients: counters.bytes_to_clients,
        }
    }

    pub(crate) fn saturating_add(self, other: Self) -> Self {
        self.combine(other, u64::saturating_add)
    }

    /// Subtracts each counter; no counter goes below 0.
    #[cfg(feature = "director")]
    pub(crate) fn saturating_sub(self, other: Self) -> Self {
        self.combine(other, u64::saturating_sub)
    }

    fn combine(self, other: Self, by: fn(u64, u64) -> u64) -> Self {
        Self {
            accepted: by(self.accepted, other.accepted),
            refused: combine_known(self.refused, other.refused, by),
            bytes_to_servers: by(self.bytes_to_servers, other.bytes_to_servers),
            bytes_to_clients: combine_known(self.bytes_to_clients, other.bytes_to_clients, by),
        }
    }
}

/// Combines two counters, of which one may be unknown: then the other one is what is known.
fn combine_known(one: Option<u64>, other: Option<u64>, by: fn(u64, u64) -> u64) -> Option<u64> {
    match (one, other) {
        (None, None) => None,
        (one, other) => Some(by(one.unwrap_or(0), other.unwrap_or(0))),
    }
}

/// What a director has sent to and received from one server.
#[derive(Clone, Copy, Debug, Default, Eq, PartialEq)]
#[cfg_attr(feature = "serde", derive(serde::Serialize))]
#[non_exhaustive]
pub struct ServerTotals {
    /// Connections established, or UDP flows started.
    pub connections: u64,
    /// Connections that the server refused or did not answer, or ICMP errors for UDP flows; `None` where
    /// nothing counts them.
    pub failed: Option<u64>,
    /// Bytes sent to the server.
    pub bytes_in: u64,
    /// Bytes received from the server; `None` where nothing counts them, because it answers clients by
    /// itself.
    pub bytes_out: Option<u64>,
}

impl ServerTotals {
    pub(crate) fn saturating_add(self, other: Self) -> Self {
        self.combine(other, u64::saturating_add)
    }

    #[cfg(feature = "director")]
    pub(crate) fn saturating_sub(self, other: Self) -> Self {
        self.combine(other, u64::saturating_sub)
    }

    fn combine(self, other: Self, by: fn(u64, u64) -> u64) -> Self {
        Self {
            connections: by(self.connections, other.connections),
            failed: combine_known(self.failed, other.failed, by),
            bytes_in: by(self.bytes_in, other.bytes_in),
            bytes_out: combine_known(self.bytes_out, other.bytes_out, by),
        }
    }
}

/// The counters of one server in one service.
#[derive(Clone, Debug, Default)]
#[cfg_attr(feature = "serde", derive(serde::Serialize))]
#[non_exhaustive]
pub struct ServerCounters {
    /// The totals.
    pub totals: ServerTotals,
    /// How long successful attempts to connect took; empty for UDP.
    pub connect_time: DurationHistogram,
    /// Established connections that an engine of the kernel has at this moment.
    pub kernel_active: u32,
    /// Other connections, and UDP flows, that an engine of the kernel has at this moment.
    pub kernel_inactive: u32,
}

/// The sum of the counters of a service's forwarders: one, or one for each address.
///
/// # Examples
/// ```
/// use lvs::forward::TcpHandle;
/// use lvs::metrics::ServiceCounters;
///
/// fn record(listeners: &[TcpHandle]) {
///     let mut counters = ServiceCounters::default();
///     listeners.iter().for_each(|handle| counters.add_tcp(handle));
///     counters.record("web");
/// }
/// # record(&[]);
/// ```
#[derive(Clone, Debug, Default)]
#[cfg_attr(feature = "serde", derive(serde::Serialize))]
#[non_exhaustive]
pub struct ServiceCounters {
    /// The totals.
    pub totals: ServiceTotals,
    /// Connections or flows at this moment.
    pub active: u64,
    /// Connections or flows refused, by the name of the reason.
    pub refused: BTreeMap<&'static str, u64>,
    /// Connections or flows ended, by the name of the reason.
    pub ended: BTreeMap<&'static str, u64>,
    /// Connections or flows that went to the sorry server.
    pub sorry: u64,
    /// Connections that waited for another to end: the forwarder was at its limit.
    pub waited: u64,
    /// Calls that failed to accept a connection or to receive a datagram.
    pub failed_accepts: u64,
    /// The counters of each server, by its identifier.
    pub servers: BTreeMap<String, ServerCounters>,
}

impl ServiceCounters {
    /// Adds the counters of a TCP forwarder.
    pub fn add_tcp(&mut self, handle: &TcpHandle) {
        let counters = handle.counters();
        self.totals = self.totals.saturating_add(ServiceTotals::of_tcp(&counters));
        self.active += counters.active;
        add_reasons(&mut self.refused, counters.refused.by_reason());
        add_reasons(&mut self.ended, counters.ended_by_reason());
        self.sorry += counters.sorry_connections;
        self.waited += counters.connection_limit_waits;
        self.failed_accepts += counters.failed_accepts;
        for backend in handle.backends() {
            let server = self.servers.entry(backend.id.to_string()).or_default();
            server.totals = server.totals.saturating_add(ServerTotals {
                connections: backend.connections,
                failed: Some(backend.failed_connects),
                bytes_in: backend.bytes_in,
                bytes_out: Some(backend.bytes_out),
            });
            server.connect_time.merge(&backend.connect_time);
        }
    }

    /// Adds the counters of a UDP forwarder.
    pub fn add_udp(&mut self, handle: &UdpHandle) {
        let counters = handle.counters();
        self.totals = self.totals.saturating_add(ServiceTotals::of_udp(&counters));
        self.active += counters.flows_active;
        add_reasons(&mut self.refused, counters.shed.by_reason());
        add_reasons(&mut self.ended, counters.flows_ended.by_reason());
        self.sorry += counters.sorry_flows;
        self.failed_accepts += counters.failed_receives;
        for backend in handle.backends() {
            let server = self.servers.entry(backend.id.to_string()).or_default();
            server.totals = server.totals.saturating_add(ServerTotals {
                connections: backend.flows_started,
                failed: Some(backend.errors),
                bytes_in: backend.to_server.bytes,
                bytes_out: Some(backend.from_server.bytes),
            });
        }
    }

    /// Adds the counters of a service that an engine of the kernel serves.
    #[cfg(feature = "ipvs")]
    pub fn add_engine(&mut self, counters: &EngineCounters) {
        self.totals = self.totals.saturating_add(ServiceTotals::of_engine(counters));
        for (id, counted) in &counters.servers {
            let server = self.servers.entry(id.to_string()).or_default();
            server.totals = server.totals.saturating_add(ServerTotals {
                connections: counted.connections,
                failed: None,
                bytes_in: counted.bytes_in,
                bytes_out: counted.bytes_out,
            });
            server.kernel_active += counted.active;
            server.kernel_inactive += counted.inactive;
            self.active += u64::from(counted.active) + u64::from(counted.inactive);
        }
    }

    /// Records the counters, without the connect times: see the [table](super#the-metrics).
    pub fn record(&self, service: &str) {
        let count = |name: &'static str, value: u64| {
            counter!(name, "service" => service.to_owned()).absolute(value);
        };
        count("lvs_service_accepted_total", self.totals.accepted);
        let count_known = |name: &'static str, value: Option<u64>| {
            if let Some(value) = value {
                count(name, value);
            }
        };
        count_known("lvs_service_refused_total", self.totals.refused);
        count("lvs_service_to_servers_bytes_total", self.totals.bytes_to_servers);
        count_known("lvs_service_to_clients_bytes_total", self.totals.bytes_to_clients);
        count("lvs_service_sorry_total", self.sorry);
        count("lvs_service_limit_waits_total", self.waited);
        count("lvs_service_failed_accepts_total", self.failed_accepts);
        for (name, reasons) in [
            ("lvs_service_refused_by_reason_total", &self.refused),
            ("lvs_service_ended_total", &self.ended),
        ] {
            for (reason, times) in reasons.iter().filter(|(_, times)| **times > 0) {
                counter!(name, "service" => service.to_owned(), "reason" => *reason)
                    .absolute(*times);
            }
        }
        gauge!("lvs_service_connections", "service" => service.to_owned()).set(self.active as f64);
        for (id, server) in &self.servers {
            let count = |name: &'static str, value: u64| {
                let (service, server) = (service.to_owned(), id.clone());
                counter!(name, "service" => service, "server" => server).absolute(value);
            };
            count("lvs_server_connections_total", server.totals.connections);
            count("lvs_server_in_bytes_total", server.totals.bytes_in);
            for (name, value) in [
                ("lvs_server_failed_connections_total", server.totals.failed),
                ("lvs_server_out_bytes_total", server.totals.bytes_out),
            ] {
                if let Some(value) = value {
                    count(name, value);
                }
            }
        }
    }

    /// Adds the counters of forwarders that have ended; they have no active connections.
    #[cfg(feature = "director")]
    pub(crate) fn merge(&mut self, ended: &Self) {
        self.totals = self.totals.saturating_add(ended.totals);
        for (sum, reasons) in [(&mut self.refused, &ended.refused), (&mut self.ended, &ended.ended)]
        {
            add_reasons(sum, reasons.iter().map(|(reason, count)| (*reason, *count)));
        }
        self.sorry += ended.sorry;
        self.waited += ended.waited;
        self.failed_accepts += ended.failed_accepts;
        for (name, server) in &ended.servers {
            let sum = self.servers.entry(name.clone()).or_default();
            sum.totals = sum.totals.saturating_add(server.totals);
            sum.connect_time.merge(&server.connect_time);
        }
    }
}

/// Records how many descriptors the connections and flows of this process have taken, and how many they
/// may take: [`descriptor_usage`], whose cost this has.
pub fn record_descriptors() {
    let usage = descriptor_usage();
    gauge!("lvs_client_descriptors").set(usage.used as f64);
    gauge!("lvs_max_client_descriptors").set(usage.allowed as f64);
}

fn add_reasons(
    sum: &mut BTreeMap<&'static str, u64>,
    reasons: impl IntoIterator<Item = (&'static str, u64)>,
) {
    for (reason, count) in reasons {
        *sum.entry(reason).or_default() += count;
    }
}
