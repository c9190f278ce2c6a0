//! What the workers of a UDP forwarder go by.

use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use crate::balancer::Persistence;
use crate::{Balancer, Lease};

/// Whether runs of datagrams of one size are received and sent as one.
///
/// Coalesced traffic passes the layers of the kernel once for up to 64 datagrams: a tenth of the
/// CPU time where senders send in runs (`UDP_SEGMENT`) or the network card puts runs together.
#[derive(Clone, Copy, Debug, Default, Eq, PartialEq)]
#[non_exhaustive]
pub enum Coalesce {
    /// Datagrams that wait together are sent as one; and a socket on which four of one size are
    /// seen in a row begins to receive them as one.
    #[default]
    Auto,
    /// All sockets receive runs as one from the start. For traffic that is known to be bulk; a
    /// system call more for each flow.
    Always,
    /// Every datagram by itself: for kernels before 5.0, and to see what it costs.
    Never,
}

/// What workers go by.
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
    /// Whose picks and states count.
    pub(super) fn active_balancer(&self) -> &Balancer<SocketAddr> {
        self.persistence.as_ref().map_or(&self.balancer, |it| it.balancer())
    }

    pub(super) fn effective_idle_timeout(&self) -> Duration {
        if self.one_packet {
            self.idle_timeout.min(ONE_PACKET_REPLY_TIMEOUT)
        } else {
            self.idle_timeout
        }
    }

    /// Where to send. Port 0 means the one that the client asked for.
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

    /// Tells whether replies are missing that were asked for.
    pub(super) fn has_missing_replies(&self, requests: u64, replies: u64) -> bool {
        self.replies.is_some_and(|each| replies < requests.saturating_mul(u64::from(each)))
    }
}

/// As many as are safe with the descriptors of a service that was given 20 480.
pub(super) const DEFAULT_MAX_FLOWS: usize = 10_000;
pub(super) const DEFAULT_IDLE_TIMEOUT: Duration = Duration::from_secs(60);
pub(super) const DEFAULT_ATTEMPTS: u32 = 3;
/// How long a reply finds its client under one-packet scheduling: what a DNS client waits.
const ONE_PACKET_REPLY_TIMEOUT: Duration = Duration::from_secs(5);
