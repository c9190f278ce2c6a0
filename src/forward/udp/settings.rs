//! The settings of a UDP forwarder, shared by its workers.

use std::fmt;
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use crate::balancer::Persistence;
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

/// The settings that all workers read.
#[derive(Debug)]
pub(super) struct UdpSettings {
    pub(super) address: SocketAddr,
    pub(super) balancer: Balancer<SocketAddr>,
    pub(super) persistence: Option<Arc<Persistence<SocketAddr>>>,
    pub(super) idle_timeout: Duration,
    pub(super) total_timeout: Option<Duration>,
    pub(super) max_flows: usize,
    pub(super) attempts: u32,
    pub(super) replies: Option<u32>,
    pub(super) one_packet: bool,
    pub(super) coalesce: Coalesce,
}

impl UdpSettings {
    /// Returns how log lines name the forwarder.
    pub(super) fn label(&self) -> impl fmt::Display {
        fmt::from_fn(|f| write!(f, "UDP service at {}", self.address))
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

    /// Returns the address of a leased backend; port 0 stands for the port of the listener.
    pub(super) fn backend_address(&self, lease: &Lease<SocketAddr>) -> SocketAddr {
        let mut target = *lease.target();
        if target.port() == 0 {
            target.set_port(self.address.port());
        }
        target
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
pub(super) const DEFAULT_MAX_FLOWS: usize = 10_000;
pub(super) const DEFAULT_IDLE_TIMEOUT: Duration = Duration::from_secs(60);
pub(super) const DEFAULT_ATTEMPTS: u32 = 3;

/// How long a one-packet flow waits for replies: as long as a DNS client does.
const ONE_PACKET_REPLY_TIMEOUT: Duration = Duration::from_secs(5);
