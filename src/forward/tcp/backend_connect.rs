//! From an accepted client to a connected backend.

use std::io::{self, ErrorKind};
use std::net::SocketAddr;
use std::pin::pin;
use std::sync::Arc;
use std::time::Duration;

use tokio::net::TcpStream;
use tokio::time::{Instant, timeout, timeout_at};
use tracing::debug;

use super::stream::StreamSocket;
use super::worker::WorkerContext;
use crate::backend::Outcome;
use crate::balancer::PickError;
use crate::forward::ConnectionPhase;
use crate::forward::clock::now;
use crate::forward::counters::{RefusalReason, add_relaxed};
use crate::forward::queue::QueueError;
use crate::scheduler::Rng;
use crate::{Backend, Balancer, Flow, Lease};

/// A backend that took the connection; without a lease it is the sorry server.
pub(super) type BackendConnection = (TcpStream, Option<Lease<SocketAddr>>);

/// How far a connection has come, and what it took: kept by who asks, so that it is known wherever
/// the search is broken off.
#[derive(Debug)]
pub(super) struct ConnectProgress {
    pub(super) phase: ConnectionPhase,
    /// The time spent in line.
    pub(super) queue_time: CompactDuration,
    pub(super) connect_time: Option<CompactDuration>,
    /// Attempts to connect, the last included.
    pub(super) attempts: u32,
    /// The backend that took it, or the last one tried.
    pub(super) backend: Option<Arc<Backend<SocketAddr>>>,
    /// Those that failed.
    #[expect(clippy::box_collection, reason = "few have any, and all pay for the room")]
    pub(super) failed_backends: Option<Box<Vec<Arc<Backend<SocketAddr>>>>>,
}

impl Default for ConnectProgress {
    fn default() -> Self {
        Self {
            phase: ConnectionPhase::Request,
            queue_time: CompactDuration::default(),
            connect_time: None,
            attempts: 0,
            backend: None,
            failed_backends: None,
        }
    }
}

/// A duration of up to 71 minutes in four bytes; longer ones count as that.
#[derive(Clone, Copy, Debug, Default)]
pub(super) struct CompactDuration(u32);

impl From<Duration> for CompactDuration {
    fn from(duration: Duration) -> Self {
        Self(u32::try_from(duration.as_micros()).unwrap_or(u32::MAX))
    }
}

impl From<CompactDuration> for Duration {
    fn from(micros: CompactDuration) -> Self {
        Self::from_micros(micros.0.into())
    }
}

/// Who asks.
#[derive(Clone, Copy, Debug)]
pub(super) struct ClientInfo {
    /// Where it is, by what the connection or a PROXY header says; unknown for a Unix socket's.
    pub(super) client: Option<SocketAddr>,
    /// The address that it used.
    pub(super) local: Option<SocketAddr>,
    /// What must go to the same backend each time, if not the client's address.
    pub(super) flow_key: Option<u64>,
}

impl WorkerContext {
    /// Finds a backend and connects to it, or to the sorry server if there is none.
    pub(super) async fn connect_backend(
        &self,
        client: &StreamSocket,
        service: &Balancer<SocketAddr>,
        asker: ClientInfo,
        story: &mut ConnectProgress,
    ) -> Result<BackendConnection, RefusalReason> {
        let found = {
            let search = pin!(self.try_backends(service, asker, story));
            tokio::select! {
                biased;
                found = search => Some(found),
                () = client.wait_for_reset() => None,
            }
        };
        let refusal = match found {
            None => return Err(RefusalReason::ClientLeft),
            Some(Ok((server, lease))) => return Ok((server, Some(lease))),
            Some(Err(refusal)) => refusal,
        };
        let (Some(sorry), true) = (self.config().sorry_server, refusal.is_backend_unavailable())
        else {
            return Err(refusal);
        };
        story.phase = ConnectionPhase::Connect;
        match timeout(self.config().connect.attempt_timeout, self.connect_to(sorry, asker)).await {
            Ok(Ok(server)) => {
                add_relaxed(&self.metrics.counters.sorry_connections, 1);
                story.backend = None;
                Ok((server, None))
            }
            failed => {
                debug!(%sorry, ?failed, "the sorry server cannot be connected to");
                Err(refusal)
            }
        }
    }

    /// Connects to the first backend that lets itself be connected to.
    async fn try_backends(
        &self,
        service: &Balancer<SocketAddr>,
        asker: ClientInfo,
        story: &mut ConnectProgress,
    ) -> Result<(TcpStream, Lease<SocketAddr>), RefusalReason> {
        let effort = self.config().connect;
        let mut flow = build_flow(asker);
        let mut last = None;
        if let Some(tried) = &story.failed_backends {
            tried.iter().for_each(|backend| flow.exclude(backend));
            last = Some(RefusalReason::ConnectError);
        }
        let mut left = effort.total_timeout;
        while story.attempts < effort.max_attempts && (left > Duration::ZERO || last.is_none()) {
            // Where a backend was tried, what became of it is the reason, not that none was left.
            let picked = self.pick_or_wait(service, &mut flow, asker, story).await;
            let lease = picked.map_err(|why| last.unwrap_or(why))?;
            story.backend = Some(Arc::clone(lease.backend()));
            story.phase = ConnectionPhase::Connect;
            story.attempts += 1;
            let begun = Instant::now();
            let until = begun + effort.attempt_timeout.min(left);
            let target = self.target_address(&lease, asker);
            let (outcome, refusal) = match timeout_at(until, self.connect_to(target, asker)).await {
                Ok(Ok(stream)) => {
                    let took = begun.elapsed();
                    story.connect_time = Some(took.into());
                    lease.observe_latency(took, now());
                    return Ok((stream, lease));
                }
                Ok(Err(error)) if is_local_error(&error) => {
                    (Outcome::Cancelled, RefusalReason::NoResources)
                }
                Ok(Err(_)) => (Outcome::ConnectError, RefusalReason::ConnectError),
                Err(_) => (Outcome::Timeout, RefusalReason::ConnectTimeout),
            };
            debug!(backend = %lease.id(), ?refusal, "cannot connect");
            add_relaxed(&self.metrics.counters.failed_connects, 1);
            add_relaxed(
                &self.metrics.backend_counters(lease.backend(), || self.snapshot()).failed_connects,
                1,
            );
            flow.exclude(lease.backend());
            story.failed_backends.get_or_insert_default().push(Arc::clone(lease.backend()));
            lease.complete(outcome);
            self.forwarder.notify_freed();
            last = Some(refusal);
            left = left.saturating_sub(begun.elapsed());
        }
        Err(last.unwrap_or(RefusalReason::NoBackend))
    }

    /// Picks, after those who wait already, and waits for a place if there is none.
    async fn pick_or_wait(
        &self,
        service: &Balancer<SocketAddr>,
        flow: &mut Flow,
        asker: ClientInfo,
        story: &mut ConnectProgress,
    ) -> Result<Lease<SocketAddr>, RefusalReason> {
        // In line is who waits for the forwarder's own backends: those of another service would
        // hold them up.
        let line = self.config().queue.filter(|_| self.is_default_service(service));
        let Some((queue, line)) = self.forwarder.queue.as_ref().zip(line) else {
            story.phase = ConnectionPhase::Connect;
            return self.pick(service, flow, asker).map_err(|why| story.record_pick_error(why));
        };
        story.phase = ConnectionPhase::Queue;
        if queue.is_empty() {
            match self.pick(service, flow, asker) {
                Err(PickError::AllAtLimit) => {}
                picked => return picked.map_err(|why| story.record_pick_error(why)),
            }
        }
        let begun = Instant::now();
        let until = begun + line.timeout.saturating_sub(story.queue_time.into());
        let look = || match self.pick(service, flow, asker) {
            Err(PickError::AllAtLimit) => None,
            picked => Some(picked),
        };
        let waited = queue.wait(look, until).await;
        story.queue_time = (Duration::from(story.queue_time) + begun.elapsed()).into();
        match waited {
            Ok(picked) => picked.map_err(|why| story.record_pick_error(why)),
            Err(QueueError::Full) => Err(RefusalReason::Saturated),
            Err(QueueError::Timeout) => Err(RefusalReason::QueueTimeout),
        }
    }

    fn pick(
        &self,
        service: &Balancer<SocketAddr>,
        flow: &mut Flow,
        asker: ClientInfo,
    ) -> Result<Lease<SocketAddr>, PickError> {
        let now = now();
        // Affinity is to backends of the forwarder's own service.
        let persistence =
            self.config().persistence.as_ref().filter(|_| self.is_default_service(service));
        match (persistence, asker.client) {
            (Some(persistence), Some(client)) => {
                let client = SocketAddr::new(client.ip().to_canonical(), client.port());
                persistence.pick(client, flow.clone(), &mut Rng::from_entropy(), now)
            }
            _ => {
                *flow = std::mem::take(flow).time(now);
                service.pick(flow)
            }
        }
    }

    fn is_default_service(&self, service: &Balancer<SocketAddr>) -> bool {
        std::ptr::eq(service, &self.config().balancer)
    }

    /// A backend without a port of its own is asked on the port that the client asked for, as an
    /// IPVS service without a port has it.
    fn target_address(&self, lease: &Lease<SocketAddr>, asker: ClientInfo) -> SocketAddr {
        let mut target = *lease.target();
        if target.port() == 0 {
            target.set_port(asker.local.map_or(0, |local| local.port()));
        }
        target
    }

    async fn connect_to(&self, target: SocketAddr, asker: ClientInfo) -> io::Result<TcpStream> {
        self.config()
            .socket_options
            .connect(target, asker.client, self.forwarder.next_source_index())
            .await
    }
}

impl ConnectProgress {
    /// Nobody was chosen, and waiting in line has no part in it.
    fn record_pick_error(&mut self, why: PickError) -> RefusalReason {
        self.phase = ConnectionPhase::Connect;
        why.into()
    }
}

fn build_flow(asker: ClientInfo) -> Flow {
    // A listener for both families sees IPv4 clients as mapped ones; hash them as what they are.
    let canonical = |it: SocketAddr| SocketAddr::new(it.ip().to_canonical(), it.port());
    let mut flow = asker.client.map_or_else(Flow::new, |client| Flow::from(canonical(client)));
    if let Some(local) = asker.local {
        flow = flow.destination(canonical(local));
    }
    match asker.flow_key {
        Some(key) => flow.key(key),
        None => flow,
    }
}

impl RefusalReason {
    /// Is it that no backend could be had, rather than the client or this machine?
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

/// Tells whether a failure to connect is this machine's and says nothing about the backend.
fn is_local_error(error: &io::Error) -> bool {
    const ENFILE: i32 = 23;
    const EMFILE: i32 = 24;
    #[cfg(target_os = "linux")]
    const ENOBUFS: i32 = 105;
    #[cfg(not(target_os = "linux"))]
    const ENOBUFS: i32 = 55;

    matches!(
        error.kind(),
        ErrorKind::AddrNotAvailable | ErrorKind::OutOfMemory | ErrorKind::PermissionDenied
    ) || matches!(error.raw_os_error(), Some(ENFILE | EMFILE | ENOBUFS))
}

#[cfg(all(test, not(lvs_loom)))]
mod tests {
    use super::*;

    #[test]
    fn shortages_of_this_machine_are_not_the_backends_fault() {
        for local in [ErrorKind::AddrNotAvailable.into(), io::Error::from_raw_os_error(24)] {
            assert!(is_local_error(&local), "{local}");
        }
        for remote in [ErrorKind::ConnectionRefused, ErrorKind::HostUnreachable] {
            assert!(!is_local_error(&remote.into()), "{remote}");
        }
    }
}
