//! A connection in the books: what is known of it, and how its end is written down.

use std::net::SocketAddr;
use std::sync::Arc;
use std::time::{Duration, SystemTime};

use tokio::time::Instant;

use super::backend_connect::ConnectProgress;
use super::metrics::AtomicTcpBackendCounters;
use super::worker::WorkerContext;
use crate::Lease;
use crate::backend::Outcome;
use crate::forward::connection_table::{ConnectionEntry, ConnectionKey};
use crate::forward::counters::{ConnectionEnd, RefusalReason, add_relaxed};
use crate::forward::limits::{ClientPermit, ConnectionPermit};
use crate::forward::{ConnectionPhase, ConnectionRecord, Termination, TerminationReason};

/// A connection in the books: whatever becomes of it, its end is written down.
#[derive(Debug)]
pub(super) struct TcpSession {
    pub(super) worker: Arc<WorkerContext>,
    pub(super) client: Option<SocketAddr>,
    /// Whom a PROXY header named; apart, since few have one and all pay for it.
    pub(super) proxied_client: Option<Box<SocketAddr>>,
    /// The address that the client used, where clients may use several.
    local: Option<Box<SocketAddr>>,
    pub(super) accepted_at: Instant,
    pub(super) progress: ConnectProgress,
    pub(super) backend_counters: Option<Arc<AtomicTcpBackendCounters>>,
    pub(super) lease: Option<Lease<SocketAddr>>,
    table_key: Option<ConnectionKey>,
    end: ConnectionEnd,
    /// To the server and to the client.
    pub(super) bytes_relayed: [u64; 2],
    /// Has it said what it must say first?
    pub(super) has_read_preamble: bool,
    pub(super) has_client_ended: bool,
    /// Has the server spoken last?
    pub(super) is_awaiting_client: bool,
    pub(super) client_permit: Option<Box<ClientPermit>>,
    _connection_permit: ConnectionPermit,
}

impl TcpSession {
    pub(super) fn new(
        crew: Arc<WorkerContext>,
        client: Option<SocketAddr>,
        local: Option<SocketAddr>,
        slot: ConnectionPermit,
    ) -> Self {
        let local =
            local.filter(|local| Some(*local) != crew.forwarder.listen_address).map(Box::new);
        add_relaxed(&crew.metrics.counters.accepted, 1);
        Self {
            worker: crew,
            client,
            proxied_client: None,
            local,
            accepted_at: Instant::now(),
            progress: ConnectProgress::default(),
            backend_counters: None,
            lease: None,
            table_key: None,
            end: ConnectionEnd::Cut,
            bytes_relayed: [0; 2],
            has_read_preamble: false,
            has_client_ended: false,
            is_awaiting_client: true,
            client_permit: None,
            _connection_permit: slot,
        }
    }

    /// Notes what has passed since the last time.
    pub(super) fn count_bytes(&mut self, [up, down]: [u64; 2]) {
        self.bytes_relayed[0] += up;
        self.bytes_relayed[1] += down;
        self.is_awaiting_client = down != 0 && !self.has_client_ended;
        add_relaxed(&self.worker.metrics.counters.bytes_to_backends, up);
        add_relaxed(&self.worker.metrics.counters.bytes_to_clients, down);
        if let Some(backend) = &self.backend_counters {
            add_relaxed(&backend.bytes_in, up);
            add_relaxed(&backend.bytes_out, down);
        }
    }

    /// It is carried from now on: by whoever gave the lease, or by the sorry server.
    pub(super) fn start_relaying(&mut self, lease: Option<Lease<SocketAddr>>) {
        self.progress.phase = ConnectionPhase::Data;
        if let Some(lease) = &lease {
            let tally =
                self.worker.metrics.backend_counters(lease.backend(), || self.worker.snapshot());
            add_relaxed(&tally.connections, 1);
            tally
                .connect_time
                .record(self.progress.connect_time.map(Into::into).unwrap_or_default());
            self.backend_counters = Some(tally);
        }
        self.table_key = Some(self.worker.metrics.connections.insert(ConnectionEntry {
            client: self.client_addr(),
            local: self.local.clone(),
            backend: lease.as_ref().map(|lease| Arc::clone(lease.backend())),
            started_at: self.accepted_at.into_std(),
        }));
        self.lease = lease;
    }

    /// It is carried no longer.
    fn remove_from_table(&mut self) {
        if let Some(listed) = self.table_key.take() {
            self.worker.metrics.connections.remove(listed);
        }
    }

    /// Holds it against the backend that it did not serve, and says whether another may be tried.
    pub(super) fn release_for_retry(&mut self) -> bool {
        let attempts = self.worker.config().connect.max_attempts;
        let Some(lease) = self.lease.take_if(|_| self.progress.attempts < attempts) else {
            return false;
        };
        self.remove_from_table();
        add_relaxed(&self.worker.metrics.counters.failed_connects, 1);
        if let Some(tally) = self.backend_counters.take() {
            add_relaxed(&tally.failed_connects, 1);
            tally.count_end(true);
        }
        self.progress.failed_backends.get_or_insert_default().push(Arc::clone(lease.backend()));
        lease.complete(Outcome::ConnectError);
        self.worker.forwarder.notify_freed();
        true
    }

    /// Counts it for its client, once.
    pub(super) fn acquire_client_permit(&mut self) -> Result<(), RefusalReason> {
        if let (Some(clients), Some(source), None) =
            (&self.worker.forwarder.client_limits, self.client_addr(), &self.client_permit)
        {
            let place = clients.try_acquire(source.ip()).ok_or(RefusalReason::ClientLimit)?;
            self.client_permit = Some(Box::new(place));
        }
        Ok(())
    }

    /// Closes the entry; one that is dropped without a word was cut.
    pub(super) fn finish(mut self, end: ConnectionEnd) {
        self.end = end;
    }

    /// The address that the client used.
    pub(super) fn local_addr(&self) -> Option<SocketAddr> {
        self.local.as_deref().copied().or(self.worker.forwarder.listen_address)
    }

    /// Who asks: whom a PROXY header named, or the address the connection came from.
    pub(super) fn client_addr(&self) -> Option<SocketAddr> {
        self.proxied_client.as_deref().copied().or(self.client)
    }

    fn to_record(&self, lasted: Duration) -> ConnectionRecord {
        let config = self.worker.config();
        let backend = self.progress.backend.as_ref();
        ConnectionRecord {
            accepted_at: SystemTime::now().checked_sub(lasted).unwrap_or(SystemTime::UNIX_EPOCH),
            service: Arc::clone(&config.name),
            client: self.client,
            proxied_client: self.proxied_client.as_deref().copied(),
            local: self.local_addr(),
            backend: backend.map(|backend| backend.id().clone()),
            backend_address: backend.map(|backend| *backend.target()),
            queue_time: self.progress.queue_time.into(),
            connect_time: self.progress.connect_time.map(Into::into),
            total_time: lasted,
            bytes_to_backend: self.bytes_relayed[0],
            bytes_to_client: self.bytes_relayed[1],
            attempts: self.progress.attempts,
            listener_connections: self.worker.forwarder.metrics.counters().active,
            backend_connections: backend.map(|backend| backend.load().active.into()),
            termination: self.termination(),
        }
    }

    fn termination(&self) -> Termination {
        let phase = self.progress.phase;
        let silent = || match self.is_awaiting_client || phase == ConnectionPhase::Last {
            true => TerminationReason::ClientTimeout,
            false => TerminationReason::BackendTimeout,
        };
        let (cause, phase) = match self.end {
            ConnectionEnd::Finished => return Termination::NORMAL,
            ConnectionEnd::ClientAborted => (TerminationReason::Client, phase),
            ConnectionEnd::BackendAborted => (TerminationReason::Backend, phase),
            ConnectionEnd::IdleTimeout | ConnectionEnd::HalfClosedTimeout => (silent(), phase),
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
        Termination::new(cause, phase)
    }
}

impl Drop for TcpSession {
    fn drop(&mut self) {
        self.remove_from_table();
        let lasted = self.accepted_at.elapsed();
        if let Some(observer) = &self.worker.config().on_end {
            observer.call(&self.to_record(lasted));
        }
        self.worker.metrics.duration.record(lasted);
        if let Some(tally) = &self.backend_counters {
            tally.duration.record(lasted);
            tally.count_end(self.end == ConnectionEnd::BackendAborted);
        }
        if let Some(lease) = self.lease.take() {
            lease.complete(match self.end {
                ConnectionEnd::Finished => Outcome::Ok,
                ConnectionEnd::BackendAborted => Outcome::AppError,
                // A client that goes away is nothing to hold against the backend.
                _ => Outcome::Cancelled,
            });
        }
        // Also without a lease: a search that was broken off may have had one.
        self.worker.forwarder.notify_freed();
        self.worker.metrics.counters.count_end(self.end);
    }
}
