//! The addresses and the flow key of a client that a backend is chosen for.

use std::net::SocketAddr;

use crate::Flow;
use crate::forward::address::canonical_address;
use crate::forward::proxy_protocol::ProxyHeader;

/// The addresses and the flow key of a client.
#[derive(Clone, Copy, Debug)]
pub(super) struct ClientInfo {
    /// The client's address, from the connection or a PROXY header; `None` for a Unix socket.
    pub(super) client: Option<SocketAddr>,
    /// The address that the client connected to, from the connection or a PROXY header.
    pub(super) local: Option<SocketAddr>,
    /// The key for schedulers that hash, if it is not the client's address.
    pub(super) flow_key: Option<u64>,
}

impl ClientInfo {
    /// Returns the flow to pick a backend for.
    pub(super) fn to_flow(self) -> Flow {
        // A dual-stack listener sees IPv4 clients as mapped addresses; they hash as IPv4.
        let client = self.client.map(canonical_address);
        let mut flow = client.map_or_else(Flow::new, Flow::from);
        if let Some(local) = self.local {
            flow = flow.destination(canonical_address(local));
        }
        match self.flow_key {
            Some(key) => flow.key(key),
            None => flow,
        }
    }

    /// Returns a PROXY header with the addresses only.
    pub(super) fn to_proxy_header(self) -> ProxyHeader {
        match self.client.zip(self.local) {
            Some((client, local)) => ProxyHeader::proxied(client, local),
            None => ProxyHeader::unknown(),
        }
    }
}
