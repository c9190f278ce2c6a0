//! The settings of a UDP forwarder, shared by its workers.

use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use crate::balancer::Persistence;
use crate::forward::limits::ClientLimits;
use crate::{Balancer, Lease};

/// Whether several datagrams of one size are received and sent as one message (GRO and GSO).
///
/// The kernel's network stack processes a coalesced message of up to 64 datagrams once: a tenth of
/// the CPU time where senders use `UDP_SEGMENT` or the network card coalesces datagrams.
#[derive(Clone, Copy, Debug, Default, Eq, PartialEq)]
#[non_exhaustive]
pub enum Coalesce {
    /// Datagrams received together are sent as one message; a socket that receives four datagrams
    /// of one size in a row enables coalesced receiving.
    #[default]
    Auto,
    /// All sockets enable coalesced receiving from the start. For known bulk traffic; costs one
    /// more system call for each flow.
    Always,
    /// Each datagram is received and sent separately: for kernels before 5.0, and for comparison.
    Never,
}

/// The settings of a forwarder.
#[derive(Debug)]
pub(super) struct UdpSettings {
    pub(super) name: Arc<str>,
    pub(super) balancer: Balancer<SocketAddr>,
    pub(super) persistence: Option<Arc<Persistence<SocketAddr>>>,
    pub(super) idle_timeout: Duration,
    pub(super) total_timeout: Option<Duration>,
    pub(super) max_flows: usize,
    pub(super) max_flows_per_client: Option<u32>,
    pub(super) attempts: u32,
    pub(super) replies: Option<u32>,
    pub(super) one_packet: bool,
    pub(super) coalesce: Coalesce,
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
}

impl UdpContext {
    pub(super) fn new(settings: UdpSettings, address: SocketAddr, workers: usize) -> Arc<Self> {
        let client_limits =
            settings.max_flows_per_client.map(|limit| ClientLimits::builder(limit).build());
        let max_worker_flows = settings.max_flows.div_ceil(workers);
        Arc::new(Self { settings, address, client_limits, max_worker_flows })
    }

    /// Returns the address of a leased backend; port 0 stands for the port of the listener.
    pub(super) fn backend_address(&self, lease: &Lease<SocketAddr>) -> SocketAddr {
        let mut target = *lease.target();
        if target.port() == 0 {
            target.set_port(self.address.port());
        }
        target
    }
}

impl UdpSettings {
    pub(super) fn new(balancer: Balancer<SocketAddr>) -> Self {
        Self {
            name: "udp".into(),
            balancer,
            persistence: None,
            idle_timeout: DEFAULT_IDLE_TIMEOUT,
            total_timeout: None,
            max_flows: DEFAULT_MAX_FLOWS,
            max_flows_per_client: None,
            attempts: DEFAULT_ATTEMPTS,
            replies: None,
            one_packet: false,
            coalesce: Coalesce::Auto,
        }
    }

    /// Returns the balancer that picks: that of the persistence, if set.
    pub(super) fn active_balancer(&self) -> &Balancer<SocketAddr> {
        self.persistence.as_ref().map_or(&self.balancer, |persistence| persistence.balancer())
    }

    pub(super) fn effective_idle_timeout(&self) -> Duration {
        if self.one_packet {
            self.idle_timeout.min(ONE_PACKET_REPLY_TIMEOUT)
        } else {
            self.idle_timeout
        }
    }

    pub(super) fn may_coalesce(&self) -> bool {
        self.coalesce != Coalesce::Never
    }

    pub(super) fn coalesces_always(&self) -> bool {
        self.coalesce == Coalesce::Always
    }

    pub(super) fn coalesces_when_detected(&self) -> bool {
        self.coalesce == Coalesce::Auto
    }

    /// Returns whether fewer replies than expected have arrived.
    pub(super) fn has_missing_replies(&self, requests: u64, replies: u64) -> bool {
        self.replies.is_some_and(|expected| replies < requests.saturating_mul(u64::from(expected)))
    }
}

/// Safe for a service with a limit of 20 480 descriptors.
const DEFAULT_MAX_FLOWS: usize = 10_000;
const DEFAULT_IDLE_TIMEOUT: Duration = Duration::from_secs(60);
const DEFAULT_ATTEMPTS: u32 = 3;

/// How long a one-packet flow waits for replies: as long as a DNS client does.
const ONE_PACKET_REPLY_TIMEOUT: Duration = Duration::from_secs(5);
