//! Traffic counters of services and servers, and their arithmetic.
//!
//! Counters never decrease, not even when an operator zeroes them: the zero is a [`CounterBaseline`]
//! that the status subtracts.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};

use crate::histogram::DurationHistogram;

/// What a service has done since its first start, whichever director was active.
#[derive(Clone, Copy, Debug, Default, Deserialize, Eq, PartialEq, Serialize)]
#[non_exhaustive]
pub struct ServiceTotals {
    /// Connections accepted, or UDP flows started.
    pub accepted: u64,
    /// Connections or flows that no server accepted.
    pub refused: u64,
    /// Bytes sent to servers.
    pub bytes_to_servers: u64,
    /// Bytes sent to clients.
    pub bytes_to_clients: u64,
}

impl ServiceTotals {
    pub(super) fn saturating_add(self, other: Self) -> Self {
        self.combine(other, u64::saturating_add)
    }

    /// Subtracts each counter; no counter goes below 0.
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

/// What a director has sent to and received from one server.
#[derive(Clone, Copy, Debug, Default, Eq, PartialEq, Serialize)]
#[non_exhaustive]
pub struct ServerTotals {
    /// Connections established, or UDP flows started.
    pub connections: u64,
    /// Connections that the server refused or did not answer, or ICMP errors for UDP flows.
    pub failed: u64,
    /// Bytes sent to the server.
    pub bytes_in: u64,
    /// Bytes received from the server.
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

/// The counters of one server in one service.
#[derive(Clone, Debug, Default)]
pub(super) struct ServerCounters {
    pub(super) totals: ServerTotals,
    pub(super) connect_time: DurationHistogram,
}

/// The counters of all frontends of a service.
#[derive(Clone, Debug, Default)]
pub(super) struct ServiceCounters {
    pub(super) totals: ServiceTotals,
    /// Connections or flows at this moment.
    pub(super) active: u64,
    pub(super) refused: BTreeMap<&'static str, u64>,
    pub(super) servers: BTreeMap<String, ServerCounters>,
}

impl ServiceCounters {
    /// Adds the counters of frontends that have ended; they have no active connections.
    pub(super) fn merge(&mut self, ended: &Self) {
        self.totals = self.totals.saturating_add(ended.totals);
        self.add_refusals(ended.refused.iter().map(|(reason, count)| (*reason, *count)));
        for (name, server) in &ended.servers {
            let sum = self.servers.entry(name.clone()).or_default();
            sum.totals = sum.totals.saturating_add(server.totals);
            sum.connect_time.merge(&server.connect_time);
        }
    }

    pub(super) fn add_refusals(&mut self, reasons: impl IntoIterator<Item = (&'static str, u64)>) {
        for (reason, count) in reasons {
            *self.refused.entry(reason).or_default() += count;
        }
    }

    /// Returns the counters of a server, and creates them at 0 where there are none.
    pub(super) fn server_mut(&mut self, id: String) -> &mut ServerCounters {
        self.servers.entry(id).or_default()
    }
}

/// The start from which a reader wants counters counted.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub(super) enum CountedSince {
    /// The first start: counters never decrease, as Prometheus expects.
    Start,
    /// The last time that an operator zeroed the counters.
    LastZeroed,
}

/// Counters at the time when an operator zeroed them.
#[derive(Debug, Default)]
pub(super) struct CounterBaseline {
    totals: ServiceTotals,
    refused: BTreeMap<&'static str, u64>,
    servers: BTreeMap<String, ServerTotals>,
}

impl CounterBaseline {
    pub(super) fn new(totals: ServiceTotals, counters: &ServiceCounters) -> Self {
        let servers = counters.servers.iter();
        Self {
            totals,
            refused: counters.refused.clone(),
            servers: servers.map(|(name, server)| (name.clone(), server.totals)).collect(),
        }
    }

    /// Leaves what was counted after the baseline.
    pub(super) fn subtract_from(&self, totals: &mut ServiceTotals, counters: &mut ServiceCounters) {
        *totals = totals.saturating_sub(self.totals);
        for (reason, count) in &mut counters.refused {
            *count = count.saturating_sub(self.refused.get(reason).copied().unwrap_or_default());
        }
        for (name, server) in &mut counters.servers {
            let zero = self.servers.get(name).copied().unwrap_or_default();
            server.totals = server.totals.saturating_sub(zero);
        }
    }
}
