//! The entries of one service in the kernel's list of connections.

use std::collections::{BTreeMap, HashSet};
use std::net::SocketAddr;
use std::ops::ControlFlow;

use crate::BackendId;
use crate::engine::{EngineEntry, EngineEntryKind, EngineEntryOrigin, EngineRequest};
use crate::ipvs::connection::{IpvsConnection, IpvsConnectionOrigin};
use crate::ipvs::service::{IpvsProtocol, IpvsServiceKey};

/// The entries of a service, as they are found.
pub(super) struct FoundEntries {
    key: IpvsServiceKey,
    kind: EngineEntryKind,
    limit: usize,
    backends: BTreeMap<SocketAddr, BackendId>,
    /// While the list changes, the kernel lists some twice.
    known: HashSet<(IpvsProtocol, SocketAddr, SocketAddr)>,
    pub(super) entries: Vec<EngineEntry>,
}

impl FoundEntries {
    pub(super) fn new(
        request: &EngineRequest,
        key: IpvsServiceKey,
        kind: EngineEntryKind,
        limit: usize,
    ) -> Self {
        let snapshot = request.balancer.snapshot();
        let backends = snapshot
            .backends()
            .iter()
            .map(|backend| (request.destination_address(*backend.target()), backend.id().clone()));
        let (backends, known, entries) = (backends.collect(), HashSet::new(), Vec::new());
        Self { key, kind, limit, backends, known, entries }
    }

    /// Adds a connection if it is one of the service, until the limit is reached.
    pub(super) fn add(&mut self, connection: IpvsConnection) -> ControlFlow<()> {
        let IpvsConnection { protocol, client, virtual_address, destination, .. } = connection;
        if self.is_wanted(&connection) && self.known.insert((protocol, client, virtual_address)) {
            let mut entry = EngineEntry::new(client, virtual_address, destination);
            entry.backend = self.backend(destination).cloned();
            entry.state = connection.state;
            entry.expires_in = connection.expires_in;
            if connection.origin == Some(IpvsConnectionOrigin::Sync) {
                entry.origin = EngineEntryOrigin::Sync;
            }
            self.entries.push(entry);
        }
        match self.entries.len() >= self.limit {
            true => ControlFlow::Break(()),
            false => ControlFlow::Continue(()),
        }
    }

    fn is_wanted(&self, connection: &IpvsConnection) -> bool {
        let is_template = self.kind == EngineEntryKind::PersistentClient;
        // What went to a socket of this machine is a connection of its program.
        connection.is_template() == is_template
            && connection.destination != connection.virtual_address
            && self.is_of_service(connection)
    }

    fn is_of_service(&self, connection: &IpvsConnection) -> bool {
        let virtual_address = connection.virtual_address;
        match self.key {
            IpvsServiceKey::Address { protocol, address } => {
                (protocol, address) == (connection.protocol, virtual_address)
            }
            // The kernel does not list the mark of a connection: those that its servers have.
            IpvsServiceKey::Mark { mark, .. } => match connection.is_template() {
                true => leading_bits(virtual_address) == mark.get(),
                false => self.backend(connection.destination).is_some(),
            },
        }
    }

    fn backend(&self, destination: SocketAddr) -> Option<&BackendId> {
        // A server without a port of its own gets connections on that which the client asked for; in the
        // template of a mark no server has a port.
        let lowest = SocketAddr::new(destination.ip(), 0);
        let of_machine = self.backends.range(lowest..).next().filter(|(address, _)| {
            address.ip() == lowest.ip() && (address.port() == 0 || destination.port() == 0)
        });
        self.backends.get(&destination).or(of_machine.map(|(_, id)| id))
    }
}

/// Returns the first 32 bits, where the template of a mark has the mark.
fn leading_bits(address: SocketAddr) -> u32 {
    match address {
        SocketAddr::V4(address) => address.ip().to_bits(),
        SocketAddr::V6(address) => (address.ip().to_bits() >> 96) as u32,
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::backend::{BackendSet, Spec};
    use crate::balancer::Balancer;
    use crate::engine::{EngineAddress, EngineProtocol};
    use crate::ipvs::address::IpvsFamily;
    use crate::scheduler::RoundRobin;

    fn address(text: &str) -> SocketAddr {
        text.parse().expect("an address")
    }

    /// Returns client, backend and origin of the entries that are found in the lines.
    fn find(key: IpvsServiceKey, kind: EngineEntryKind, limit: usize) -> Vec<String> {
        let set = BackendSet::new();
        set.insert(Spec::from(address("10.0.2.2:8080"))).expect("a new server");
        let balancer = Balancer::new(&set, RoundRobin::new()).expect("a valid set");
        let listen = EngineAddress::Socket {
            protocol: EngineProtocol::Tcp,
            address: address("10.0.0.1:80"),
        };
        let request = EngineRequest::new("web", listen, balancer, "rr");
        let mut found = FoundEntries::new(&request, key, kind, limit);
        for line in [
            "TCP 0A000102 8B3F 0A000001 0050 0A000202 1F90 ESTABLISHED SYNC 893",
            "TCP 0A000102 8B3F 0A000001 0050 0A000202 1F90 ESTABLISHED SYNC 893",
            // Of a server that has left, of another port, of another protocol, of this machine.
            "TCP 0A000103 8B3F 0A000001 0050 0A000203 1F90 TIME_WAIT LOCAL 93",
            "TCP 0A000104 8B3F 0A000001 0051 0A000202 1F91 ESTABLISHED LOCAL 893",
            "UDP 0A000105 8B3F 0A000001 0050 0A000202 1F90 UDP LOCAL 93",
            "TCP 0A000106 8B3F 0A000001 0050 0A000001 0050 ESTABLISHED LOCAL 893",
            "TCP 0A000100 0000 0A000001 0050 0A000202 1F90 ASSURED LOCAL 290",
            "IP 0A000200 0000 00000007 0000 0A000202 0000 NONE LOCAL 290",
        ] {
            let connection = IpvsConnection::parse(line).expect("a line");
            if found.add(connection).is_break() {
                break;
            }
        }
        let text = |entry: EngineEntry| {
            let backend = if entry.backend.is_some() { "a" } else { "-" };
            format!("{} {backend} {} {}", entry.client, entry.state, entry.origin.name())
        };
        found.entries.into_iter().map(text).collect()
    }

    #[test]
    fn entries_are_those_of_the_service_each_once() {
        let key = IpvsServiceKey::tcp(address("10.0.0.1:80"));
        let connections = ["10.0.1.2:35647 a ESTABLISHED sync", "10.0.1.3:35647 - TIME_WAIT local"];
        assert_eq!(find(key, EngineEntryKind::Connection, 9), connections);
        assert_eq!(find(key, EngineEntryKind::Connection, 1), connections[..1]);
        let clients = ["10.0.1.0:0 a ASSURED local"];
        assert_eq!(find(key, EngineEntryKind::PersistentClient, 9), clients);
    }

    #[test]
    fn a_mark_has_the_connections_of_its_servers_and_its_own_templates() {
        let mark = 7.try_into().expect("not 0");
        let key = IpvsServiceKey::Mark { family: IpvsFamily::V4, mark };
        let clients = ["10.0.2.0:0 a NONE local"];
        assert_eq!(find(key, EngineEntryKind::PersistentClient, 9), clients);
        assert_eq!(
            find(key, EngineEntryKind::Connection, 9),
            ["10.0.1.2:35647 a ESTABLISHED sync", "10.0.1.5:35647 a UDP local"]
        );
    }
}
