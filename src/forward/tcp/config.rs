//! The settings of a TCP forwarder that its worker threads share.

use std::fmt;
use std::net::SocketAddr;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::Arc;
use std::time::Duration;

use tracing::error;

use super::options::TcpOptions;
use super::preamble::PreambleConfig;
use crate::Balancer;
use crate::forward::sni::ServerNameTable;
use crate::forward::{ConnectionRate, ConnectionRecord, Route};

/// The settings of a forwarder.
///
/// The defaults are those of IPVS where IPVS has the setting: 15 minutes for an idle connection, two
/// for a half-closed connection.
#[derive(Debug)]
pub(super) struct ForwarderConfig {
    pub(super) name: Arc<str>,
    pub(super) route: Route,
    pub(super) options: TcpOptions,
    pub(super) accept_rate: Option<ConnectionRate>,
    pub(super) connect: ConnectPolicy,
    pub(super) timeouts: ConnectionTimeouts,
    pub(super) cut_on_down: bool,
    pub(super) preamble: PreambleConfig,
    pub(super) on_end: Option<OnEndCallback>,
}

/// The callback for connections that have ended.
#[derive(Clone)]
pub(super) struct OnEndCallback(Arc<dyn Fn(&ConnectionRecord) + Send + Sync>);

impl OnEndCallback {
    pub(super) fn new(call: impl Fn(&ConnectionRecord) + Send + Sync + 'static) -> Self {
        Self(Arc::new(call))
    }

    /// Calls the callback. A panic is caught, since the session is being dropped: the connection would
    /// be counted as active for ever.
    pub(super) fn call(&self, record: &ConnectionRecord) {
        if catch_unwind(AssertUnwindSafe(|| (self.0)(record))).is_err() {
            error!(
                "service {}: the `on_end` callback panicked; the record of the connection: {record}",
                record.service,
            );
        }
    }
}

impl fmt::Debug for OnEndCallback {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("OnEndCallback")
    }
}

/// The timeouts of the attempts to connect to backends.
#[derive(Clone, Copy, Debug)]
pub(super) struct ConnectPolicy {
    /// The timeout of one attempt.
    pub(super) attempt_timeout: Duration,
    /// The timeout of all attempts together.
    pub(super) total_timeout: Duration,
}

/// How long a connection may be idle, half-closed and idle, or open at all.
#[derive(Clone, Copy, Debug)]
pub(super) struct ConnectionTimeouts {
    pub(super) idle: Option<Duration>,
    pub(super) half_closed: Option<Duration>,
    pub(super) total: Option<Duration>,
}

impl ForwarderConfig {
    /// Returns the forwarder's own balancer, those of the server names, and that of clients without
    /// TLS.
    pub(super) fn balancers(&self) -> impl Iterator<Item = &Balancer<SocketAddr>> {
        let services = self.preamble.services.iter().flat_map(ServerNameTable::values);
        let without_tls = self.preamble.service_without_tls.iter();
        std::iter::once(self.route.balancer()).chain(services).chain(without_tls)
    }

    pub(super) fn new(route: Route) -> Self {
        Self {
            name: "tcp".into(),
            route,
            options: TcpOptions::default(),
            accept_rate: None,
            connect: ConnectPolicy {
                attempt_timeout: Duration::from_secs(5),
                total_timeout: Duration::from_secs(15),
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
