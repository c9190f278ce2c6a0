//! A connection from accept to end: what it holds and counts, and the record of its end.

use std::fmt;
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::{Duration, SystemTime};

use tokio::time::Instant;

use super::connect_progress::ConnectProgress;
use super::context::WorkerContext;
use super::metrics::AtomicTcpBackendCounters;
use super::relay::RelayedBytes;
use crate::Lease;
use crate::backend::{BackendId, Outcome};
use crate::forward::connection_table::{ConnectionEntry, ConnectionKey};
use crate::forward::counters::{ConnectionEnd, RefusalReason, add_relaxed};
use crate::forward::descriptors::DescriptorPermit;
use crate::forward::limits::{ClientPermit, ConnectionPermit};
use crate::forward::record::{ConnectionPhase, ConnectionRecord, Termination, TerminationReason};

/// An accepted connection. Its drop counts the end, completes the lease and reports the record.
#[derive(Debug)]
pub(super) struct TcpSession {
    pub(super) context: Arc<WorkerContext>,
    pub(super) client: Option<SocketAddr>,
    /// The client that a PROXY header named; boxed, since few connections have one and every
    /// connection pays for the space.
    proxied_client: Option<Box<SocketAddr>>,
    /// The address that the client connected to, by a PROXY header or the connection, if it differs from
    /// the listener's.
    local: Option<Box<SocketAddr>>,
    pub(super) accepted_at: Instant,
    pub(super) progress: ConnectProgress,
    pub(super) backend_counters: Option<Arc<AtomicTcpBackendCounters>>,
    pub(super) lease: Option<Lease<SocketAddr>>,
    table_key: Option<ConnectionKey>,
    end: ConnectionEnd,
    pub(super) bytes_relayed: RelayedBytes,
    /// Whether the PROXY header and the ClientHello have been read, where they are expected.
    pub(super) has_read_preamble: bool,
    pub(super) has_client_ended: bool,
    /// Whether the backend sent the last bytes, so that an idle timeout is the client's.
    pub(super) is_awaiting_client: bool,
    pub(super) client_permit: Option<Box<ClientPermit>>,
    _permits: SessionPermits,
}

/// What a session may take; released when it ends.
type SessionPermits = (ConnectionPermit, DescriptorPermit<2>);

impl TcpSession {
    pub(super) fn new(
        context: Arc<WorkerContext>,
        client: Option<SocketAddr>,
        local: Option<SocketAddr>,
        permits: SessionPermits,
    ) -> Self {
        let local =
            local.filter(|local| Some(*local) != context.forwarder.listen_address).map(Box::new);
        add_relaxed(&context.metrics.counters.accepted, 1);
        Self {
            context,
            client,
            proxied_client: None,
            local,
            accepted_at: Instant::now(),
            progress: ConnectProgress::default(),
            backend_counters: None,
            lease: None,
            table_key: None,
            end: ConnectionEnd::Cut,
            bytes_relayed: RelayedBytes::default(),
            has_read_preamble: false,
            has_client_ended: false,
            is_awaiting_client: true,
            client_permit: None,
            _permits: permits,
        }
    }

    /// Counts the bytes relayed since the last call.
    pub(super) fn count_bytes(&mut self, RelayedBytes { to_backend, to_client }: RelayedBytes) {
        self.bytes_relayed.to_backend += to_backend;
        self.bytes_relayed.to_client += to_client;
        self.is_awaiting_client = to_client != 0 && !self.has_client_ended;
        add_relaxed(&self.context.metrics.counters.bytes_to_backends, to_backend);
        add_relaxed(&self.context.metrics.counters.bytes_to_clients, to_client);
        if let Some(counters) = &self.backend_counters {
            add_relaxed(&counters.bytes_in, to_backend);
            add_relaxed(&counters.bytes_out, to_client);
        }
    }

    /// Counts the connection for its backend and lists it in the connection table. Without a lease
    /// the sorry server has the connection.
    pub(super) fn start_relaying(&mut self, lease: Option<Lease<SocketAddr>>) {
        self.progress.phase = ConnectionPhase::Data;
        if let Some(lease) = &lease {
            let counters =
                self.context.metrics.backend_counters(lease.backend(), || self.context.snapshot());
            add_relaxed(&counters.connections, 1);
            counters
                .connect_time
                .record(self.progress.connect_time.map(Into::into).unwrap_or_default());
            self.backend_counters = Some(counters);
        }
        self.table_key = Some(self.context.metrics.connections.insert(ConnectionEntry {
            client: self.client_addr(),
            local: self.local.clone(),
            backend: lease.as_ref().map(|lease| Arc::clone(lease.backend())),
            started_at: self.accepted_at.into_std(),
        }));
        self.lease = lease;
    }

    fn remove_from_table(&mut self) {
        if let Some(key) = self.table_key.take() {
            self.context.metrics.connections.remove(key);
        }
    }

    /// Completes the lease with a connect error, and returns whether another backend may be tried.
    pub(super) fn release_for_retry(&mut self) -> bool {
        let max_attempts = self.context.config().options.connect_attempts;
        let Some(lease) = self.lease.take_if(|_| self.progress.attempts < max_attempts) else {
            return false;
        };
        self.remove_from_table();
        add_relaxed(&self.context.metrics.counters.failed_connects, 1);
        if let Some(counters) = self.backend_counters.take() {
            add_relaxed(&counters.failed_connects, 1);
            counters.count_end(true);
        }
        self.progress.failed_backends.get_or_insert_default().push(Arc::clone(lease.backend()));
        lease.complete(Outcome::ConnectError);
        self.context.forwarder.notify_freed();
        true
    }

    /// Counts the connection against the limit of its client, once.
    ///
    /// # Errors
    /// [`RefusalReason::ClientLimit`] if the client is at its limit.
    pub(super) fn acquire_client_permit(&mut self) -> Result<(), RefusalReason> {
        if let (Some(limits), Some(client), None) =
            (&self.context.forwarder.client_limits, self.client_addr(), &self.client_permit)
        {
            let permit = limits.try_acquire(client.ip()).ok_or(RefusalReason::ClientLimit)?;
            self.client_permit = Some(Box::new(permit));
        }
        Ok(())
    }

    /// Ends the session; a session that is dropped otherwise ends as [`ConnectionEnd::Cut`].
    pub(super) fn finish(mut self, end: ConnectionEnd) {
        self.end = end;
    }

    /// Sets the addresses that a PROXY header named: the client's, and that which it connected to.
    pub(super) fn set_proxied(&mut self, client: SocketAddr, destination: SocketAddr) {
        self.proxied_client = Some(Box::new(client));
        self.local = Some(Box::new(destination));
    }

    /// Returns the address that the client connected to: that which a PROXY header named, or else that of
    /// the connection.
    pub(super) fn local_addr(&self) -> Option<SocketAddr> {
        self.local.as_deref().copied().or(self.context.forwarder.listen_address)
    }

    /// Returns the client that a PROXY header named, or else the peer address of the connection.
    pub(super) fn client_addr(&self) -> Option<SocketAddr> {
        self.proxied_client.as_deref().copied().or(self.client)
    }

    /// Returns the other end of the relay for a log line: `backend ID`, or the sorry server.
    pub(super) fn server_label(&self) -> ServerLabel<'_> {
        ServerLabel(self.lease.as_ref().map(Lease::id))
    }

    fn to_record(&self, duration: Duration) -> ConnectionRecord {
        let config = self.context.config();
        let backend = self.progress.backend.as_ref();
        ConnectionRecord {
            accepted_at: SystemTime::now().checked_sub(duration).unwrap_or(SystemTime::UNIX_EPOCH),
            service: Arc::clone(&config.name),
            client: self.client,
            proxied_client: self.proxied_client.as_deref().copied(),
            local: self.local_addr(),
            backend: backend.map(|backend| backend.id().clone()),
            backend_address: backend.map(|backend| *backend.target()),
            queue_time: self.progress.queue_time.into(),
            connect_time: self.progress.connect_time.map(Into::into),
            total_time: duration,
            bytes_to_backend: self.bytes_relayed.to_backend,
            bytes_to_client: self.bytes_relayed.to_client,
            attempts: self.progress.attempts,
            listener_connections: self.context.forwarder.metrics.counters().active,
            backend_connections: backend.map(|backend| backend.load().active.into()),
            termination: self.termination(),
            refusal: match self.end {
                ConnectionEnd::Refused(refusal) => Some(refusal.name()),
                _ => None,
            },
        }
    }

    fn termination(&self) -> Termination {
        let phase = self.progress.phase;
        let idle_side = || match self.is_awaiting_client || phase == ConnectionPhase::Last {
            true => TerminationReason::ClientTimeout,
            false => TerminationReason::BackendTimeout,
        };
        let (reason, phase) = match self.end {
            ConnectionEnd::Finished => return Termination::NORMAL,
            ConnectionEnd::ClientAborted => (TerminationReason::Client, phase),
            ConnectionEnd::BackendAborted => (TerminationReason::Backend, phase),
            ConnectionEnd::IdleTimeout | ConnectionEnd::HalfClosedTimeout => (idle_side(), phase),
            ConnectionEnd::TotalTimeout => (TerminationReason::Proxy, phase),
            ConnectionEnd::BackendDown => (TerminationReason::BackendDown, phase),
            ConnectionEnd::Cut => (TerminationReason::Killed, phase),
            ConnectionEnd::Refused(refusal) => match refusal {
                RefusalReason::NoBackend | RefusalReason::ConnectError => {
                    (TerminationReason::Backend, ConnectionPhase::Connect)
                }
                RefusalReason::ConnectTimeout => {
                    (TerminationReason::BackendTimeout, ConnectionPhase::Connect)
                }
                RefusalReason::Scheduler => (TerminationReason::Proxy, ConnectionPhase::Connect),
                RefusalReason::NoResources => {
                    (TerminationReason::Resources, ConnectionPhase::Connect)
                }
                RefusalReason::Saturated => (TerminationReason::Proxy, ConnectionPhase::Queue),
                RefusalReason::QueueTimeout => {
                    (TerminationReason::BackendTimeout, ConnectionPhase::Queue)
                }
                RefusalReason::ClientLimit
                | RefusalReason::BadPreamble
                | RefusalReason::NoService => (TerminationReason::Proxy, ConnectionPhase::Request),
                RefusalReason::PreambleTimeout => {
                    (TerminationReason::ClientTimeout, ConnectionPhase::Request)
                }
                RefusalReason::ClientLeft => (TerminationReason::Client, phase),
            },
        };
        Termination::new(reason, phase)
    }
}

/// The backend, or the sorry server, as a log line names it.
#[derive(Debug)]
pub(super) struct ServerLabel<'a>(Option<&'a BackendId>);

impl fmt::Display for ServerLabel<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.0 {
            Some(backend) => write!(f, "backend {backend}"),
            None => f.write_str("the sorry server"),
        }
    }
}

impl Drop for TcpSession {
    fn drop(&mut self) {
        self.remove_from_table();
        let duration = self.accepted_at.elapsed();
        if let Some(callback) = &self.context.config().on_end {
            callback.call(&self.to_record(duration));
        }
        self.context.metrics.duration.record(duration);
        if let Some(counters) = &self.backend_counters {
            counters.duration.record(duration);
            counters.count_end(self.end == ConnectionEnd::BackendAborted);
        }
        if let Some(lease) = self.lease.take() {
            lease.complete(match self.end {
                ConnectionEnd::Finished => Outcome::Ok,
                ConnectionEnd::BackendAborted => Outcome::AppError,
                // The backend is not at fault.
                _ => Outcome::Cancelled,
            });
        }
        // Also without a lease: a search for a backend that was dropped may have had one.
        self.context.forwarder.notify_freed();
        self.context.metrics.counters.count_end(self.end);
    }
}
