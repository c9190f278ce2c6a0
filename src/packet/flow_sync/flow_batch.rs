//! What one engine tells another of its flows.

use std::net::SocketAddr;

use crate::engine::EngineProtocol;

/// A flow, as the engines of two machines speak of it.
#[derive(Clone, Copy, Debug, Eq, Hash, Ord, PartialEq, PartialOrd)]
#[non_exhaustive]
pub struct SyncedFlow {
    /// The protocol of its packets.
    pub protocol: EngineProtocol,
    /// Where the client's packets go.
    pub virtual_address: SocketAddr,
    /// The server that has the flow.
    pub server: SocketAddr,
    /// Where the client's packets come from, of the family of the virtual address.
    pub client: SocketAddr,
    /// Whether the flow is there; if not, it has ended.
    pub is_open: bool,
}

impl SyncedFlow {
    /// Returns a flow that is there.
    #[must_use]
    pub const fn open(
        protocol: EngineProtocol,
        virtual_address: SocketAddr,
        server: SocketAddr,
        client: SocketAddr,
    ) -> Self {
        Self { protocol, virtual_address, server, client, is_open: true }
    }

    /// Returns the same flow after its end.
    #[must_use]
    pub const fn closed(self) -> Self {
        Self { is_open: false, ..self }
    }
}

/// What has become of flows since the batch before.
///
/// A batch without flows says that all is as it was. [`encode`](Self::encode) and [`parse`](Self::parse) are for the
/// wire.
///
/// # Examples
/// ```
/// use lvs::engine::EngineProtocol;
/// use lvs::packet::{FlowBatch, SyncedFlow};
///
/// let (virtual_address, server) = ("192.0.2.1:80".parse()?, "10.2.0.2:8080".parse()?);
/// let client = "198.51.100.7:40000".parse()?;
/// let flow = SyncedFlow::open(EngineProtocol::Tcp, virtual_address, server, client);
/// let batch = FlowBatch::changes(vec![flow]);
/// assert_eq!(FlowBatch::parse(&batch.encode())?, batch);
/// # Ok::<(), Box<dyn std::error::Error>>(())
/// ```
#[derive(Clone, Debug, Default, Eq, PartialEq)]
#[non_exhaustive]
pub struct FlowBatch {
    /// All flows follow: the batches up to the one that [`ends_all`](Self::ends_all) name every flow that is there.
    pub begins_all: bool,
    /// All flows have been named. Those that were not, since the last batch that [`begins_all`](Self::begins_all), have
    /// ended.
    pub ends_all: bool,
    /// The flows, of which the last one with a protocol, a client and a virtual address counts.
    pub flows: Vec<SyncedFlow>,
}

impl FlowBatch {
    /// The most flows in a batch.
    pub const MAX_FLOWS: usize = 4096;

    /// Returns a batch that is neither the first nor the last of all flows.
    #[must_use]
    pub const fn changes(flows: Vec<SyncedFlow>) -> Self {
        Self { begins_all: false, ends_all: false, flows }
    }
}

/// What an engine has done with a [`FlowBatch`].
#[derive(Clone, Copy, Debug, Default, Eq, PartialEq)]
#[non_exhaustive]
pub struct RestoredFlows {
    /// Flows that are there now, or have ended, as the batch says.
    pub applied: u64,
    /// Flows of a service or a server that the engine does not have.
    pub unknown: u64,
    /// Flows of a virtual address that this machine has itself, and of which it knows better.
    pub own: u64,
}
