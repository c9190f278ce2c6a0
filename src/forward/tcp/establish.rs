//! From an accepted client to a connected backend.

use std::io::{self, ErrorKind};
use std::net::SocketAddr;
use std::pin::pin;
use std::sync::Arc;
use std::time::Duration;

use tokio::net::TcpStream;
use tokio::time::{Instant, timeout, timeout_at};
use tracing::debug;

use super::stream::Stream;
use super::worker::Crew;
use crate::backend::Outcome;
use crate::balancer::PickError;
use crate::forward::Phase;
use crate::forward::clock::now;
use crate::forward::counters::{Refusal, add};
use crate::forward::queue::QueueError;
use crate::scheduler::Rng;
use crate::{Backend, Balancer, Flow, Lease};

/// A backend that took the connection; without a lease it is the sorry server.
pub(super) type Found = (TcpStream, Option<Lease<SocketAddr>>);

/// How far a connection has come, and what it took: kept by who asks, so that it is known wherever
/// the search is broken off.
#[derive(Debug)]
pub(super) struct Story {
    pub(super) phase: Phase,
    /// The time spent in line.
    pub(super) queue: Micros,
    pub(super) connect: Option<Micros>,
    /// Attempts to connect, the last included.
    pub(super) attempts: u32,
    /// The backend that took it, or the last one tried.
    pub(super) backend: Option<Arc<Backend<SocketAddr>>>,
    /// Those that failed.
    #[expect(clippy::box_collection, reason = "few have any, and all pay for the room")]
    pub(super) tried: Option<Box<Vec<Arc<Backend<SocketAddr>>>>>,
}

impl Default for Story {
    fn default() -> Self {
        Self {
            phase: Phase::Request,
            queue: Micros::default(),
            connect: None,
            attempts: 0,
            backend: None,
            tried: None,
        }
    }
}

/// A duration of up to 71 minutes in four bytes; longer ones count as that.
#[derive(Clone, Copy, Debug, Default)]
pub(super) struct Micros(u32);

impl From<Duration> for Micros {
    fn from(duration: Duration) -> Self {
        Self(u32::try_from(duration.as_micros()).unwrap_or(u32::MAX))
    }
}

impl From<Micros> for Duration {
    fn from(micros: Micros) -> Self {
        Self::from_micros(micros.0.into())
    }
}

/// Who asks.
#[derive(Clone, Copy, Debug)]
pub(super) struct Asker {
    /// Where it is, by what the connection or a PROXY header says; unknown for a Unix socket's.
    pub(super) client: Option<SocketAddr>,
    /// The address that it used.
    pub(super) local: Option<SocketAddr>,
    /// What must go to the same backend each time, if not the client's address.
    pub(super) key: Option<u64>,
}

impl Crew {
    /// Finds a backend and connects to it, or to the sorry server if there is none.
    pub(super) async fn establish(
        &self,
        client: &Stream,
        service: &Balancer<SocketAddr>,
        asker: Asker,
        story: &mut Story,
    ) -> Result<Found, Refusal> {
        let found = {
            let search = pin!(self.search(service, asker, story));
            tokio::select! {
                biased;
                found = search => Some(found),
                () = client.reset() => None,
            }
        };
        let refusal = match found {
            None => return Err(Refusal::ClientLeft),
            Some(Ok((server, lease))) => return Ok((server, Some(lease))),
            Some(Err(refusal)) => refusal,
        };
        let (Some(sorry), true) = (self.config().sorry_server, refusal.is_want_of_backends())
        else {
            return Err(refusal);
        };
        story.phase = Phase::Connect;
        match timeout(self.config().effort.timeout, self.dial(sorry, asker)).await {
            Ok(Ok(server)) => {
                add(&self.page.tally.sorry, 1);
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
    async fn search(
        &self,
        service: &Balancer<SocketAddr>,
        asker: Asker,
        story: &mut Story,
    ) -> Result<(TcpStream, Lease<SocketAddr>), Refusal> {
        let effort = self.config().effort;
        let mut flow = flow_of(asker);
        let mut last = None;
        if let Some(tried) = &story.tried {
            tried.iter().for_each(|backend| flow.exclude(backend));
            last = Some(Refusal::ConnectError);
        }
        let mut left = effort.total;
        while story.attempts < effort.attempts && (left > Duration::ZERO || last.is_none()) {
            // Where a backend was tried, what became of it is the reason, not that none was left.
            let picked = self.pick_in_turn(service, &mut flow, asker, story).await;
            let lease = picked.map_err(|why| last.unwrap_or(why))?;
            story.backend = Some(Arc::clone(lease.backend()));
            story.phase = Phase::Connect;
            story.attempts += 1;
            let begun = Instant::now();
            let until = begun + effort.timeout.min(left);
            let target = self.target_of(&lease, asker);
            let (outcome, refusal) = match timeout_at(until, self.dial(target, asker)).await {
                Ok(Ok(stream)) => {
                    let took = begun.elapsed();
                    story.connect = Some(took.into());
                    lease.observe_latency(took, now());
                    return Ok((stream, lease));
                }
                Ok(Err(error)) if is_local(&error) => (Outcome::Cancelled, Refusal::NoResources),
                Ok(Err(_)) => (Outcome::ConnectError, Refusal::ConnectError),
                Err(_) => (Outcome::Timeout, Refusal::ConnectTimeout),
            };
            debug!(backend = %lease.id(), ?refusal, "cannot connect");
            add(&self.page.tally.failed_connects, 1);
            add(&self.page.backend(lease.backend(), || self.snapshot()).failed_connects, 1);
            flow.exclude(lease.backend());
            story.tried.get_or_insert_default().push(Arc::clone(lease.backend()));
            lease.complete(outcome);
            self.shared.freed();
            last = Some(refusal);
            left = left.saturating_sub(begun.elapsed());
        }
        Err(last.unwrap_or(Refusal::NoBackend))
    }

    /// Picks, after those who wait already, and waits for a place if there is none.
    async fn pick_in_turn(
        &self,
        service: &Balancer<SocketAddr>,
        flow: &mut Flow,
        asker: Asker,
        story: &mut Story,
    ) -> Result<Lease<SocketAddr>, Refusal> {
        // In line is who waits for the forwarder's own backends: those of another service would
        // hold them up.
        let line = self.config().queue.filter(|_| self.is_own(service));
        let Some((queue, line)) = self.shared.queue.as_ref().zip(line) else {
            story.phase = Phase::Connect;
            return self.pick(service, flow, asker).map_err(|why| story.give_up(why));
        };
        story.phase = Phase::Queue;
        if queue.is_empty() {
            match self.pick(service, flow, asker) {
                Err(PickError::Saturated) => {}
                picked => return picked.map_err(|why| story.give_up(why)),
            }
        }
        let begun = Instant::now();
        let until = begun + line.patience.saturating_sub(story.queue.into());
        let look = || match self.pick(service, flow, asker) {
            Err(PickError::Saturated) => None,
            picked => Some(picked),
        };
        let waited = queue.wait(look, until).await;
        story.queue = (Duration::from(story.queue) + begun.elapsed()).into();
        match waited {
            Ok(picked) => picked.map_err(|why| story.give_up(why)),
            Err(QueueError::Full) => Err(Refusal::Saturated),
            Err(QueueError::Timeout) => Err(Refusal::QueueTimeout),
        }
    }

    fn pick(
        &self,
        service: &Balancer<SocketAddr>,
        flow: &mut Flow,
        asker: Asker,
    ) -> Result<Lease<SocketAddr>, PickError> {
        let now = now();
        // Affinity is to backends of the forwarder's own service.
        let persistence = self.config().persistence.as_ref().filter(|_| self.is_own(service));
        match (persistence, asker.client) {
            (Some(persistence), Some(client)) => {
                let client = SocketAddr::new(client.ip().to_canonical(), client.port());
                persistence.pick(client, flow.clone(), &mut Rng::from_entropy(), now)
            }
            _ => {
                *flow = std::mem::take(flow).at(now);
                service.pick(flow)
            }
        }
    }

    fn is_own(&self, service: &Balancer<SocketAddr>) -> bool {
        std::ptr::eq(service, &self.config().balancer)
    }

    /// A backend without a port of its own is asked on the port that the client asked for, as an
    /// IPVS service without a port has it.
    fn target_of(&self, lease: &Lease<SocketAddr>, asker: Asker) -> SocketAddr {
        let mut target = *lease.target();
        if target.port() == 0 {
            target.set_port(asker.local.map_or(0, |local| local.port()));
        }
        target
    }

    async fn dial(&self, target: SocketAddr, asker: Asker) -> io::Result<TcpStream> {
        self.config().sockets.connect(target, asker.client, self.shared.next_turn()).await
    }
}

impl Story {
    /// Nobody was chosen, and waiting in line has no part in it.
    fn give_up(&mut self, why: PickError) -> Refusal {
        self.phase = Phase::Connect;
        why.into()
    }
}

fn flow_of(asker: Asker) -> Flow {
    // A listener for both families sees IPv4 clients as mapped ones; hash them as what they are.
    let canonical = |it: SocketAddr| SocketAddr::new(it.ip().to_canonical(), it.port());
    let mut flow = asker.client.map_or_else(Flow::new, |client| Flow::from(canonical(client)));
    if let Some(local) = asker.local {
        flow = flow.to_destination(canonical(local));
    }
    match asker.key {
        Some(key) => flow.key(key),
        None => flow,
    }
}

impl Refusal {
    /// Is it that no backend could be had, rather than the client or this machine?
    fn is_want_of_backends(self) -> bool {
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
fn is_local(error: &io::Error) -> bool {
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
            assert!(is_local(&local), "{local}");
        }
        for remote in [ErrorKind::ConnectionRefused, ErrorKind::HostUnreachable] {
            assert!(!is_local(&remote.into()), "{remote}");
        }
    }
}
