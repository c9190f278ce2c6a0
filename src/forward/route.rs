//! [`Route`]: where a forwarder sends its clients.

use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use crate::Balancer;
use crate::balancer::Persistence;

/// The longest timeout (30 years), short enough to be added to any instant.
pub(super) const MAX_TIMEOUT: Duration = Duration::from_secs(30 * 365 * 86_400);

/// Where a forwarder sends its clients: the balancer that picks a backend, or the persistence around
/// it, and what happens if no backend can serve. A [`Forwarder`](super::Forwarder) and a
/// [`UdpForwarder`](super::UdpForwarder) take the same routes; several forwarders may share one.
///
/// A [`Balancer`] and a shared [`Persistence`] are routes without queue and sorry server.
///
/// # Examples
/// ```no_run
/// use std::net::SocketAddr;
/// use std::time::Duration;
/// use lvs::forward::{Forwarder, Route, UdpForwarder};
/// # fn example(balancer: lvs::Balancer<SocketAddr>) -> Result<(), lvs::forward::ForwardError> {
/// let route = Route::new(balancer)
///     .queue(1000, Duration::from_secs(5))
///     .sorry_server(([10, 0, 0, 9], 53).into());
/// let tcp = Forwarder::bind(([0, 0, 0, 0], 53).into(), route.clone())?;
/// let udp = UdpForwarder::bind(([0, 0, 0, 0], 53).into(), route)?;
/// # Ok(())
/// # }
/// ```
#[derive(Clone, Debug)]
#[must_use]
pub struct Route {
    picker: RoutePicker,
    pub(super) queue: Option<QueueLimits>,
    pub(super) sorry_server: Option<SocketAddr>,
}

#[derive(Clone, Debug)]
enum RoutePicker {
    Balancer(Balancer<SocketAddr>),
    Persistence(Arc<Persistence<SocketAddr>>),
}

/// How many connections may wait for a backend below its limit, and how long.
#[derive(Clone, Copy, Debug)]
pub(super) struct QueueLimits {
    pub(super) capacity: usize,
    pub(super) timeout: Duration,
}

impl Route {
    /// Makes a route to the backends that a balancer picks.
    pub fn new(balancer: Balancer<SocketAddr>) -> Self {
        Self::with_picker(RoutePicker::Balancer(balancer))
    }

    /// Makes a route that sends the connections and flows of a client to the same backend.
    pub fn persistent(persistence: Arc<Persistence<SocketAddr>>) -> Self {
        Self::with_picker(RoutePicker::Persistence(persistence))
    }

    fn with_picker(picker: RoutePicker) -> Self {
        Self { picker, queue: None, sorry_server: None }
    }

    /// Queues up to `capacity` connections, first in first out and for up to `timeout` each, while all
    /// backends are at their [limits](crate::Limits). Without a queue such connections are reset, or
    /// go to the sorry server. Each TCP forwarder has a queue of its own; a UDP forwarder has none, since
    /// a datagram that waits is sent again by its client.
    pub fn queue(self, capacity: usize, timeout: Duration) -> Self {
        let queue = Some(QueueLimits { capacity, timeout: timeout.min(MAX_TIMEOUT) });
        Self { queue, ..self }
    }

    /// Sets the server for clients that no backend can serve: no backend is eligible, all are at their
    /// limits and the queue is full or timed out, or no backend tried could be connected to. It has no
    /// lease and no counters of a backend.
    ///
    /// A UDP flow of the sorry server goes to a backend as soon as the set of backends changes and one can
    /// serve.
    pub fn sorry_server(self, address: SocketAddr) -> Self {
        Self { sorry_server: Some(address), ..self }
    }

    pub(super) fn balancer(&self) -> &Balancer<SocketAddr> {
        match &self.picker {
            RoutePicker::Balancer(balancer) => balancer,
            RoutePicker::Persistence(persistence) => persistence.balancer(),
        }
    }

    pub(super) fn persistence(&self) -> Option<&Persistence<SocketAddr>> {
        match &self.picker {
            RoutePicker::Balancer(_) => None,
            RoutePicker::Persistence(persistence) => Some(persistence),
        }
    }
}

impl From<Balancer<SocketAddr>> for Route {
    fn from(balancer: Balancer<SocketAddr>) -> Self {
        Self::new(balancer)
    }
}

impl From<Arc<Persistence<SocketAddr>>> for Route {
    fn from(persistence: Arc<Persistence<SocketAddr>>) -> Self {
        Self::persistent(persistence)
    }
}
