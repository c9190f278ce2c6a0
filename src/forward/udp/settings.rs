//! The settings of a UDP forwarder, shared by its workers.

use std::net::SocketAddr;
use std::sync::Arc;

use super::earlier_flows::EarlierFlows;
use super::flow_record::FlowEndCallback;
use super::options::{Coalesce, UdpOptions};
use crate::forward::limits::ClientLimits;
use crate::forward::route::Route;

/// What a forwarder serves, and its options.
#[derive(Debug)]
pub(super) struct UdpSettings {
    pub(super) name: Arc<str>,
    pub(super) route: Route,
    pub(super) options: UdpOptions,
    pub(super) on_end: Option<FlowEndCallback>,
}

/// What the workers of a forwarder share.
#[derive(Debug)]
pub(super) struct UdpContext {
    pub(super) settings: UdpSettings,
    /// The address of the listening socket.
    pub(super) address: SocketAddr,
    pub(super) client_limits: Option<Arc<ClientLimits>>,
    /// The number of flows that each worker may have.
    pub(super) max_worker_flows: usize,
    pub(super) earlier_flows: Arc<EarlierFlows>,
}

impl UdpContext {
    pub(super) fn new(
        settings: UdpSettings,
        address: SocketAddr,
        workers: usize,
        earlier_flows: Arc<EarlierFlows>,
    ) -> Arc<Self> {
        let prefixes = settings.options.client_prefixes;
        let limit = settings.options.max_flows_per_client;
        let client_limits =
            limit.map(|limit| ClientLimits::builder(limit).prefixes(prefixes).build());
        let max_worker_flows = settings.options.max_flows.div_ceil(workers);
        Arc::new(Self { settings, address, client_limits, max_worker_flows, earlier_flows })
    }

    /// Returns the address of a server as it is connected to: port 0 stands for the port of the
    /// listener.
    pub(super) fn server_address(&self, server: SocketAddr) -> SocketAddr {
        let mut target = server;
        if target.port() == 0 {
            target.set_port(self.address.port());
        }
        target
    }
}

impl UdpSettings {
    pub(super) fn may_coalesce(&self) -> bool {
        self.options.coalesce != Coalesce::Never
    }

    pub(super) fn coalesces_always(&self) -> bool {
        self.options.coalesce == Coalesce::Always
    }

    pub(super) fn coalesces_when_detected(&self) -> bool {
        self.options.coalesce == Coalesce::Auto
    }

    /// Returns whether fewer replies than expected have arrived.
    pub(super) fn has_missing_replies(&self, requests: u64, replies: u64) -> bool {
        let expected = self.options.replies;
        expected.is_some_and(|expected| replies < requests.saturating_mul(u64::from(expected)))
    }
}
