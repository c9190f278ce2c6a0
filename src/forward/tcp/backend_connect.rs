//! The way from an accepted client to a connected backend.

use std::io::{self, ErrorKind};
use std::net::SocketAddr;
use std::pin::pin;
use std::sync::Arc;
use std::time::Duration;

use tokio::net::TcpStream;
use tokio::time::{Instant, timeout, timeout_at};
use tracing::debug;

use super::client_info::ClientInfo;
use super::connect_progress::ConnectProgress;
use super::context::WorkerContext;
use super::stream::StreamSocket;
use crate::backend::Outcome;
use crate::balancer::PickError;
use crate::forward::address::canonical_address;
use crate::forward::clock::now;
use crate::forward::counters::{RefusalReason, add_relaxed};
use crate::forward::errno::{is_forbidden_error, is_local_error};
use crate::forward::queue::QueueError;
use crate::forward::record::ConnectionPhase;
use crate::{Balancer, Flow, Lease};

/// A stream to a backend, with the backend's lease; without a lease it leads to the sorry server.
#[derive(Debug)]
pub(super) struct BackendConnection {
    pub(super) stream: TcpStream,
    pub(super) lease: Option<Lease<SocketAddr>>,
}

/// Connects a client to a backend of a service.
#[derive(Clone, Copy, Debug)]
pub(super) struct BackendConnector<'a> {
    pub(super) context: &'a WorkerContext,
    /// The forwarder's own balancer, or the balancer of the server name.
    pub(super) service: &'a Balancer<SocketAddr>,
    pub(super) client_info: ClientInfo,
}

impl BackendConnector<'_> {
    /// Picks a backend and connects to it, or to the sorry server if no backend is available.
    ///
    /// # Errors
    /// The reason to refuse the connection; [`RefusalReason::ClientLeft`] if the client resets it
    /// meanwhile.
    pub(super) async fn connect(
        &self,
        client: &StreamSocket,
        progress: &mut ConnectProgress,
    ) -> Result<BackendConnection, RefusalReason> {
        let result = {
            let search = pin!(self.try_backends(progress));
            tokio::select! {
                biased;
                result = search => Some(result),
                () = client.wait_for_reset() => None,
            }
        };
        let refusal = match result {
            None => return Err(RefusalReason::ClientLeft),
            Some(Ok((stream, lease))) => {
                return Ok(BackendConnection { stream, lease: Some(lease) });
            }
            Some(Err(refusal)) => refusal,
        };
        let config = self.context.config();
        let (Some(sorry_server), true) =
            (config.route.sorry_server, refusal.is_backend_unavailable())
        else {
            return Err(refusal);
        };
        progress.phase = ConnectionPhase::Connect;
        let limit = config.connect.attempt_timeout;
        let error = match timeout(limit, self.connect_to(sorry_server)).await {
            Ok(Ok(stream)) => {
                add_relaxed(&self.context.metrics.counters.sorry_connections, 1);
                progress.backend = None;
                return Ok(BackendConnection { stream, lease: None });
            }
            Ok(Err(error)) => error,
            Err(_) => timeout_error(limit),
        };
        debug!("cannot connect to sorry server {sorry_server}: {error}");
        Err(refusal)
    }

    /// Connects to the first backend that accepts the connection.
    async fn try_backends(
        &self,
        progress: &mut ConnectProgress,
    ) -> Result<(TcpStream, Lease<SocketAddr>), RefusalReason> {
        let policy = self.context.config().connect;
        let max_attempts = self.context.config().options.connect_attempts;
        let counters = &self.context.metrics;
        let mut flow = self.client_info.to_flow();
        let mut last_refusal = None;
        if let Some(failed) = &progress.failed_backends {
            failed.iter().for_each(|backend| flow.exclude(backend));
            last_refusal = Some(RefusalReason::ConnectError);
        }
        let mut time_left = policy.total_timeout;
        while progress.attempts < max_attempts
            && (time_left > Duration::ZERO || last_refusal.is_none())
        {
            // After a failed attempt the refusal names that failure, not that no backend is left.
            let picked = self.pick_or_wait(&mut flow, progress).await;
            let lease = picked.map_err(|refusal| last_refusal.unwrap_or(refusal))?;
            progress.backend = Some(Arc::clone(lease.backend()));
            progress.phase = ConnectionPhase::Connect;
            progress.attempts += 1;
            let started_at = Instant::now();
            let limit = policy.attempt_timeout.min(time_left);
            let deadline = started_at + limit;
            let target = self.target_address(&lease);
            let (outcome, refusal, error) = match timeout_at(deadline, self.connect_to(target))
                .await
            {
                Ok(Ok(stream)) => {
                    let connect_time = started_at.elapsed();
                    progress.connect_time = Some(connect_time.into());
                    lease.observe_latency(connect_time, now());
                    lease.report_connected();
                    return Ok((stream, lease));
                }
                Ok(Err(error)) if is_local_error(&error) || is_forbidden_error(&error) => {
                    (Outcome::Cancelled, RefusalReason::NoResources, error)
                }
                Ok(Err(error)) => (Outcome::ConnectError, RefusalReason::ConnectError, error),
                Err(_) => (Outcome::Timeout, RefusalReason::ConnectTimeout, timeout_error(limit)),
            };
            debug!("cannot connect to backend {} at {target}: {error}", lease.id());
            add_relaxed(&counters.counters.failed_connects, 1);
            let backend_counters =
                counters.backend_counters(lease.backend(), || self.context.snapshot());
            add_relaxed(&backend_counters.failed_connects, 1);
            flow.exclude(lease.backend());
            progress.failed_backends.get_or_insert_default().push(Arc::clone(lease.backend()));
            lease.complete(outcome);
            self.context.forwarder.notify_freed();
            last_refusal = Some(refusal);
            time_left = time_left.saturating_sub(started_at.elapsed());
        }
        Err(last_refusal.unwrap_or(RefusalReason::NoBackend))
    }

    /// Picks a backend, behind the connections that are queued already; waits in the queue if all
    /// backends are at their limits.
    async fn pick_or_wait(
        &self,
        flow: &mut Flow,
        progress: &mut ConnectProgress,
    ) -> Result<Lease<SocketAddr>, RefusalReason> {
        // The queue is for the forwarder's own backends: a connection that waits for a backend of
        // another service would block those behind it.
        let limits = self.context.config().route.queue.filter(|_| self.is_default_service());
        let Some((queue, limits)) = self.context.forwarder.queue.as_ref().zip(limits) else {
            progress.phase = ConnectionPhase::Connect;
            return self.pick(flow).map_err(|error| progress.record_pick_error(error));
        };
        progress.phase = ConnectionPhase::Queue;
        if queue.is_empty() {
            match self.pick(flow) {
                Err(PickError::AllAtLimit) => {}
                picked => return picked.map_err(|error| progress.record_pick_error(error)),
            }
        }
        let queued_at = Instant::now();
        let deadline = queued_at + limits.timeout.saturating_sub(progress.queue_time.into());
        let try_pick = || match self.pick(flow) {
            Err(PickError::AllAtLimit) => None,
            picked => Some(picked),
        };
        let waited = queue.wait(try_pick, deadline).await;
        progress.queue_time = (Duration::from(progress.queue_time) + queued_at.elapsed()).into();
        match waited {
            Ok(picked) => picked.map_err(|error| progress.record_pick_error(error)),
            Err(QueueError::Full) => Err(RefusalReason::Saturated),
            Err(QueueError::Timeout) => Err(RefusalReason::QueueTimeout),
        }
    }

    fn pick(&self, flow: &mut Flow) -> Result<Lease<SocketAddr>, PickError> {
        let now = now();
        // Persistence maps clients to backends of the forwarder's own service.
        let persistence = self.context.config().route.persistence();
        let persistence = persistence.filter(|_| self.is_default_service());
        match (persistence, self.client_info.client) {
            (Some(persistence), Some(client)) => {
                persistence.pick(&flow.clone().source(canonical_address(client)), now)
            }
            _ => {
                *flow = std::mem::take(flow).time(now);
                self.service.pick(flow)
            }
        }
    }

    fn is_default_service(&self) -> bool {
        std::ptr::eq(self.service, self.context.config().route.balancer())
    }

    /// Returns the address to connect to. A backend with port 0 is connected to on the port that the
    /// client used, as an IPVS service of port 0 does.
    fn target_address(&self, lease: &Lease<SocketAddr>) -> SocketAddr {
        let mut target = *lease.target();
        if target.port() == 0 {
            target.set_port(self.client_info.local.map_or(0, |local| local.port()));
        }
        target
    }

    async fn connect_to(&self, target: SocketAddr) -> io::Result<TcpStream> {
        let source_index = self.context.forwarder.next_source_index();
        self.context
            .config()
            .options
            .socket_options
            .connect(target, self.client_info.client, source_index)
            .await
    }
}

impl RefusalReason {
    /// Tells whether no backend was available, rather than the client or this machine at fault: the
    /// sorry server serves then.
    fn is_backend_unavailable(self) -> bool {
        matches!(
            self,
            Self::NoBackend
                | Self::Saturated
                | Self::QueueTimeout
                | Self::Scheduler
                | Self::ConnectError
                | Self::ConnectTimeout
        )
    }
}

fn timeout_error(limit: Duration) -> io::Error {
    io::Error::new(ErrorKind::TimedOut, format!("no answer within {limit:?}"))
}
