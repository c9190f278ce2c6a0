//! One connection: find it a backend, carry it, and say how it ended.

use std::future::poll_fn;
use std::net::SocketAddr;
use std::pin::{Pin, pin};
use std::sync::Arc;
use std::task::{Context, Poll};
use std::time::Duration;

use tokio::time::{Instant, Sleep, sleep_until};
use tracing::debug;

use super::books::BackendTally;
use super::config::Patience;
use super::establish::{Asker, Found, Times};
use super::relay::{Broke, Relay, Side};
use super::stream::Stream;
use super::worker::Crew;
use crate::backend::Outcome;
use crate::forward::counters::{End, Refusal, add};
use crate::forward::limits::{Place, Slot};
use crate::{Backend, Lease};

/// A client that was accepted.
#[derive(Debug)]
pub(super) struct Arrival {
    pub(super) stream: Stream,
    pub(super) client: Option<SocketAddr>,
    pub(super) local: Option<SocketAddr>,
    pub(super) slot: Slot,
}

/// A connection in the books: whatever becomes of it, its end is written down.
#[derive(Debug)]
pub(super) struct Entry {
    crew: Arc<Crew>,
    asker: Asker,
    begun: Instant,
    times: Times,
    backend: Option<Arc<BackendTally>>,
    end: End,
    passed: [u64; 2],
    place: Option<Place>,
    _slot: Slot,
}

impl Entry {
    fn new(crew: Arc<Crew>, asker: Asker, slot: Slot) -> Self {
        add(&crew.page.tally.accepted, 1);
        Self {
            crew,
            asker,
            begun: Instant::now(),
            times: Times::default(),
            backend: None,
            end: End::Cut,
            passed: [0; 2],
            place: None,
            _slot: slot,
        }
    }

    /// Notes what has passed by now.
    fn note(&mut self, passed: [u64; 2]) {
        let [up, down] = [passed[0] - self.passed[0], passed[1] - self.passed[1]];
        self.passed = passed;
        add(&self.crew.page.tally.bytes_to_servers, up);
        add(&self.crew.page.tally.bytes_to_clients, down);
        if let Some(backend) = &self.backend {
            add(&backend.bytes_in, up);
            add(&backend.bytes_out, down);
        }
    }
}

impl Drop for Entry {
    fn drop(&mut self) {
        let lasted = self.begun.elapsed();
        self.crew.page.duration.record(lasted);
        if let Some(backend) = &self.backend {
            backend.duration.record(lasted);
            backend.end(self.end == End::ServerBroke);
        }
        self.crew.page.tally.end(self.end);
    }
}

/// Carries a connection from its first byte to its last.
///
/// Made when the client is accepted and not in the task, which may be cut before it has run at all.
pub(super) fn serve(crew: Arc<Crew>, arrival: Arrival) -> impl Future<Output = ()> + Send {
    let Arrival { stream, client, local, slot } = arrival;
    let asker = Asker { client, local, key: None };
    let entry = Entry::new(crew, asker, slot);
    // Reset unless it comes to an end in order.
    let client = Unfinished(Some(stream));
    async move {
        // What finding a backend takes is given back before the connection is carried.
        let Some((mut entry, mut relay, lease)) = Box::pin(begin(entry, client)).await else {
            return;
        };
        let end = carry(&mut entry, &mut relay).await;
        if let Some(lease) = lease {
            lease.complete(match end {
                End::Finished => Outcome::Ok,
                End::ServerBroke => Outcome::AppError,
                // A client that goes away is nothing to hold against the backend.
                _ => Outcome::Cancelled,
            });
        }
        entry.end = end;
        let queue = entry.crew.shared.queue.is_some().then(|| Arc::clone(&entry.crew));
        // The sockets are closed before the end is in the books: who sees it there sees it done.
        drop(relay);
        drop(entry);
        if let Some(queue) = queue.as_ref().and_then(|crew| crew.shared.queue.as_ref()) {
            queue.freed();
        }
    }
}

async fn begin(
    mut entry: Entry,
    mut client: Unfinished,
) -> Option<(Entry, Relay, Option<Lease<SocketAddr>>)> {
    let crew = Arc::clone(&entry.crew);
    let mut tried = None;
    let found = match client.stream() {
        Some(stream) => begin_with(&crew, &mut entry, stream, &mut tried).await,
        None => return None,
    };
    match found {
        Ok(found) => {
            let Found { server, lease, times } = found;
            entry.times = times;
            if let Some(lease) = &lease {
                let tally = crew.page.backend(lease.backend(), || crew.snapshot());
                add(&tally.connections, 1);
                tally.connect_time.record(times.connect);
                entry.backend = Some(tally);
            }
            let relay = Relay::new(client.0.take()?, Stream::Tcp(server), Vec::new());
            Some((entry, relay, lease))
        }
        Err((refusal, times)) => {
            entry.times = times;
            debug!(?refusal, client = ?entry.asker.client, "connection refused");
            entry.end = End::Refused(refusal);
            drop(client);
            None
        }
    }
}

async fn begin_with(
    crew: &Crew,
    entry: &mut Entry,
    client: &Stream,
    tried: &mut Option<Arc<Backend<SocketAddr>>>,
) -> Result<Found, (Refusal, Times)> {
    if let (Some(clients), Some(source)) = (&crew.shared.per_client, entry.asker.client) {
        let place = clients.enter(source.ip());
        entry.place = Some(place.ok_or((Refusal::ClientLimit, Times::default()))?);
    }
    crew.establish(client, entry.asker, tried).await
}

/// A client that nobody serves yet: reset when dropped.
#[derive(Debug)]
struct Unfinished(Option<Stream>);

impl Unfinished {
    fn stream(&self) -> Option<&Stream> {
        self.0.as_ref()
    }
}

impl Drop for Unfinished {
    fn drop(&mut self) {
        if let Some(stream) = &self.0 {
            stream.reset_on_close();
        }
    }
}

/// Relays until both sides have ended, one broke, or time is up.
async fn carry(entry: &mut Entry, relay: &mut Relay) -> End {
    let mut watch = Watch {
        patience: entry.crew.config().patience,
        begun: entry.begun,
        active: Instant::now(),
        half_closed: false,
    };
    let first = watch.due().map_or(watch.active, |(at, _)| at);
    // Rings too early rather than late: what is due is worked out anew when it does, so that a byte
    // that passes only moves a number.
    let mut alarm = pin!(sleep_until(first));
    poll_fn(|cx| {
        let polled = relay.poll(cx);
        let passed = relay.passed();
        if passed != entry.passed {
            entry.note(passed);
            watch.active = Instant::now();
        }
        if let Poll::Ready(ended) = polled {
            return Poll::Ready(end_of(ended));
        }
        if relay.is_half_closed() && !watch.half_closed {
            watch.half_closed = true;
            watch.active = Instant::now();
        }
        watch.poll(cx, alarm.as_mut())
    })
    .await
}

fn end_of(ended: Result<(), Broke>) -> End {
    match ended {
        Ok(()) => End::Finished,
        Err(Broke { side, error }) => {
            debug!(?side, %error, "connection broke");
            match side {
                Side::Client => End::ClientBroke,
                Side::Server => End::ServerBroke,
            }
        }
    }
}

/// Knows when a connection has been silent, half closed or there for too long.
#[derive(Debug)]
struct Watch {
    patience: Patience,
    begun: Instant,
    /// When a byte last passed, or one side ended.
    active: Instant,
    half_closed: bool,
}

impl Watch {
    /// What comes first.
    fn due(&self) -> Option<(Instant, End)> {
        let after =
            |start: Instant, limit: Option<Duration>, end| Some((start.checked_add(limit?)?, end));
        let half_closed = self.patience.half_closed.filter(|_| self.half_closed);
        let ends = [
            after(self.begun, self.patience.total, End::TotalTime),
            after(self.active, half_closed, End::HalfClosed),
            after(self.active, self.patience.idle, End::Idle),
        ];
        ends.into_iter().flatten().min_by_key(|(at, _)| *at)
    }

    fn poll(&self, cx: &mut Context<'_>, mut alarm: Pin<&mut Sleep>) -> Poll<End> {
        let Some((at, end)) = self.due() else { return Poll::Pending };
        if at < alarm.deadline() {
            alarm.as_mut().reset(at);
        }
        while alarm.as_mut().poll(cx).is_ready() {
            if at <= alarm.deadline() {
                debug!(?end, "connection timed out");
                return Poll::Ready(end);
            }
            alarm.as_mut().reset(at);
        }
        Poll::Pending
    }
}

#[expect(clippy::disallowed_methods, reason = "a shell: time begins here")]
pub(in crate::forward) fn now() -> std::time::Instant {
    std::time::Instant::now()
}
