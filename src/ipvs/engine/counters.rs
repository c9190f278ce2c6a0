//! The kernel's counters of a service, as they grew while the engine watched.

use std::collections::BTreeMap;
use std::net::SocketAddr;

use crate::BackendId;
use crate::engine::{EngineCounters, EngineServerCounters};
use crate::ipvs::destination::{IpvsDestinationStatus, IpvsForwarding};
use crate::ipvs::service::IpvsServiceStatus;
use crate::ipvs::stats::IpvsStats;

/// Sums up what the kernel counts. The kernel's counters of a service or a destination may begin anew,
/// when another program zeroes them or adds it again, or go on from an earlier value, when a destination
/// returns that was removed a short time ago.
#[derive(Debug, Default)]
pub(super) struct CounterSums {
    service: CounterSum,
    destinations: BTreeMap<SocketAddr, CounterSum>,
}

/// The sum of the increases of one object's counters.
#[derive(Debug, Default)]
struct CounterSum {
    last: Option<CountedTraffic>,
    sum: CountedTraffic,
    /// Whether the destination's answers pass this machine, which counts them then.
    counts_answers: bool,
}

#[derive(Clone, Copy, Debug, Default, Eq, PartialEq)]
struct CountedTraffic {
    connections: u64,
    bytes_in: u64,
    bytes_out: u64,
}

impl From<IpvsStats> for CountedTraffic {
    fn from(stats: IpvsStats) -> Self {
        Self {
            connections: stats.connections,
            bytes_in: stats.incoming_bytes,
            bytes_out: stats.outgoing_bytes,
        }
    }
}

impl CounterSum {
    fn add(&mut self, now: CountedTraffic) -> CountedTraffic {
        let last = self.last.replace(now).unwrap_or_default();
        // A counter that is less than it was began anew.
        let growth = |now: u64, last: u64| now.checked_sub(last).unwrap_or(now);
        self.sum.connections += growth(now.connections, last.connections);
        self.sum.bytes_in += growth(now.bytes_in, last.bytes_in);
        self.sum.bytes_out += growth(now.bytes_out, last.bytes_out);
        self.sum
    }

    fn server(&self) -> EngineServerCounters {
        EngineServerCounters {
            connections: self.sum.connections,
            bytes_in: self.sum.bytes_in,
            bytes_out: self.counts_answers.then_some(self.sum.bytes_out),
            active: 0,
            inactive: 0,
        }
    }
}

impl CounterSums {
    /// Takes what the kernel counted before the engine had the service, which does not count.
    pub(super) fn start_from(
        service: &IpvsServiceStatus,
        destinations: &[IpvsDestinationStatus],
    ) -> Self {
        let begin =
            |stats: IpvsStats| CounterSum { last: Some(stats.into()), ..CounterSum::default() };
        let destinations = destinations.iter();
        let destinations =
            destinations.map(|status| (status.destination.address, begin(status.stats)));
        Self { service: begin(service.stats), destinations: destinations.collect() }
    }

    /// Adds a reading of the kernel. `ids` are the backends of the set, with the addresses of their
    /// destinations; counters of others are forgotten.
    pub(super) fn add(
        &mut self,
        service: &IpvsServiceStatus,
        destinations: &[IpvsDestinationStatus],
        ids: &BTreeMap<SocketAddr, BackendId>,
    ) -> EngineCounters {
        let sum = self.service.add(service.stats.into());
        self.destinations.retain(|address, _| ids.contains_key(address));
        let mut counters = EngineCounters {
            connections: sum.connections,
            bytes_to_servers: sum.bytes_in,
            ..EngineCounters::default()
        };
        for status in destinations {
            let counts_answers = status.destination.forwarding == IpvsForwarding::Nat;
            if counts_answers {
                counters.bytes_to_clients = Some(sum.bytes_out);
            }
            let Some(id) = ids.get(&status.destination.address) else { continue };
            let counted = self.destinations.entry(status.destination.address).or_default();
            counted.add(status.stats.into());
            counted.counts_answers = counts_answers;
            let mut server = counted.server();
            server.active = status.active_connections;
            server.inactive = status.inactive_connections;
            counters.servers.insert(id.clone(), server);
        }
        // A destination that is gone has no connections that the kernel reports; what it had counts.
        for (address, counted) in &self.destinations {
            let Some(id) = ids.get(address) else { continue };
            counters.servers.entry(id.clone()).or_insert_with(|| counted.server());
        }
        counters
    }
}
