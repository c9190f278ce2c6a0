//! What a forwarder was told: the part of it that its workers share.

use std::fmt;
use std::net::SocketAddr;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::Arc;
use std::time::Duration;

use tracing::error;

use super::preamble::PreambleConfig;
use super::socket_options::SocketOptions;
use crate::Balancer;
use crate::balancer::Persistence;
use crate::forward::sni::ServerNameTable;
use crate::forward::{ConnectionRate, ConnectionRecord};

/// Defaults are those of IPVS where it has them: 15 minutes for a connection, two for one that is
/// closing.
#[derive(Debug)]
pub(super) struct ForwarderConfig {
    pub(super) name: Arc<str>,
    pub(super) balancer: Balancer<SocketAddr>,
    pub(super) persistence: Option<Arc<Persistence<SocketAddr>>>,
    pub(super) sorry_server: Option<SocketAddr>,
    pub(super) max_connections: usize,
    pub(super) max_connections_per_client: Option<u32>,
    /// The bits of an IPv4 and of an IPv6 address that make a client.
    pub(super) client_prefixes: [u8; 2],
    pub(super) accept_rate: Option<ConnectionRate>,
    pub(super) queue: Option<QueueLimits>,
    pub(super) socket_options: SocketOptions,
    pub(super) connect: ConnectPolicy,
    pub(super) timeouts: ConnectionTimeouts,
    pub(super) cut_on_down: bool,
    pub(super) preamble: PreambleConfig,
    pub(super) on_end: Option<OnEndCallback>,
}

/// Whom to tell of connections that have ended.
#[derive(Clone)]
pub(super) struct OnEndCallback(Arc<dyn Fn(&ConnectionRecord) + Send + Sync>);

impl OnEndCallback {
    pub(super) fn new(call: impl Fn(&ConnectionRecord) + Send + Sync + 'static) -> Self {
        Self(Arc::new(call))
    }

    /// Called while a connection is cleaned up: a panic would keep it in the books for ever.
    pub(super) fn call(&self, record: &ConnectionRecord) {
        if catch_unwind(AssertUnwindSafe(|| (self.0)(record))).is_err() {
            error!(%record, "whoever was to be told of the end of a connection panicked");
        }
    }
}

impl fmt::Debug for OnEndCallback {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Observer")
    }
}

/// How hard a backend is looked for.
#[derive(Clone, Copy, Debug)]
pub(super) struct ConnectPolicy {
    /// For one attempt.
    pub(super) attempt_timeout: Duration,
    /// For all of them.
    pub(super) total_timeout: Duration,
    pub(super) max_attempts: u32,
}

/// How long a connection may be silent, half closed, or there at all.
#[derive(Clone, Copy, Debug)]
pub(super) struct ConnectionTimeouts {
    pub(super) idle: Option<Duration>,
    pub(super) half_closed: Option<Duration>,
    pub(super) total: Option<Duration>,
}

/// How many may wait for a place at a backend, and how long.
#[derive(Clone, Copy, Debug)]
pub(super) struct QueueLimits {
    pub(super) capacity: usize,
    pub(super) timeout: Duration,
}

impl ForwarderConfig {
    /// All whose backends may be chosen.
    pub(super) fn balancers(&self) -> impl Iterator<Item = &Balancer<SocketAddr>> {
        let services = self.preamble.services.iter().flat_map(ServerNameTable::values);
        std::iter::once(&self.balancer).chain(services)
    }

    pub(super) fn new(balancer: Balancer<SocketAddr>) -> Self {
        Self {
            name: "tcp".into(),
            balancer,
            persistence: None,
            sorry_server: None,
            max_connections: DEFAULT_MAX_CONNECTIONS,
            max_connections_per_client: None,
            client_prefixes: [32, 64],
            accept_rate: None,
            queue: None,
            socket_options: SocketOptions::default(),
            connect: ConnectPolicy {
                attempt_timeout: Duration::from_secs(5),
                total_timeout: Duration::from_secs(15),
                max_attempts: 3,
            },
            timeouts: ConnectionTimeouts {
                idle: Some(Duration::from_secs(900)),
                half_closed: Some(Duration::from_secs(120)),
                total: None,
            },
            cut_on_down: false,
            preamble: PreambleConfig::default(),
            on_end: None,
        }
    }
}

/// Within the descriptors of a service that was given 20 480: each connection takes two.
const DEFAULT_MAX_CONNECTIONS: usize = 10_000;
