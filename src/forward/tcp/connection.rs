//! One connection: find it a backend, carry it, and say how it ended.

use std::future::poll_fn;
use std::net::SocketAddr;
use std::pin::{Pin, pin};
use std::sync::Arc;
use std::task::{Context, Poll};
use std::time::{Duration, SystemTime};

use tokio::time::{Instant, Sleep, sleep_until};
use tracing::{Instrument, debug, debug_span};

use super::books::BackendTally;
use super::establish::{Asker, Story};
use super::preamble::Said;
use super::relay::{Broke, Relay, Side};
use super::stream::{Leg, Stream};
use super::worker::Crew;
use crate::Lease;
use crate::backend::Outcome;
use crate::forward::counters::{End, Refusal, add};
use crate::forward::limits::{Place, Slot};
use crate::forward::{Cause, Phase, Record, Termination};

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
struct Entry {
    crew: Arc<Crew>,
    client: Option<SocketAddr>,
    /// Whom a PROXY header named; apart, since few have one and all pay for it.
    told: Option<Box<SocketAddr>>,
    local: Option<SocketAddr>,
    begun: Instant,
    story: Story,
    tally: Option<Arc<BackendTally>>,
    lease: Option<Lease<SocketAddr>>,
    end: End,
    /// To the server and to the client.
    passed: [u64; 2],
    /// Has it said what it must say first?
    has_spoken: bool,
    /// Has the server spoken last?
    is_clients_turn: bool,
    place: Option<Place>,
    _slot: Slot,
}

impl Entry {
    fn new(
        crew: Arc<Crew>,
        client: Option<SocketAddr>,
        local: Option<SocketAddr>,
        slot: Slot,
    ) -> Self {
        add(&crew.page.tally.accepted, 1);
        Self {
            crew,
            client,
            told: None,
            local,
            begun: Instant::now(),
            story: Story::default(),
            tally: None,
            lease: None,
            end: End::Cut,
            passed: [0; 2],
            has_spoken: false,
            is_clients_turn: true,
            place: None,
            _slot: slot,
        }
    }

    /// Notes what has passed by now.
    fn note(&mut self, passed: [u64; 2]) {
        let [up, down] = [passed[0] - self.passed[0], passed[1] - self.passed[1]];
        self.passed = passed;
        self.is_clients_turn = down != 0;
        add(&self.crew.page.tally.bytes_to_servers, up);
        add(&self.crew.page.tally.bytes_to_clients, down);
        if let Some(backend) = &self.tally {
            add(&backend.bytes_in, up);
            add(&backend.bytes_out, down);
        }
    }

    /// Holds it against the backend that it did not serve, and says whether another may be tried.
    fn turn_to_another(&mut self) -> bool {
        let attempts = self.crew.config().effort.attempts;
        let Some(lease) = self.lease.take_if(|_| self.story.attempts < attempts) else {
            return false;
        };
        add(&self.crew.page.tally.failed_connects, 1);
        if let Some(tally) = self.tally.take() {
            add(&tally.failed_connects, 1);
            tally.end(true);
        }
        self.story.tried.push(Arc::clone(lease.backend()));
        lease.complete(Outcome::ConnectError);
        true
    }

    /// Closes the entry; one that is dropped without a word was cut.
    fn close(mut self, end: End) {
        self.end = end;
    }

    fn record(&self, lasted: Duration) -> Record {
        let config = self.crew.config();
        let backend = self.story.backend.as_ref();
        Record {
            accepted: SystemTime::now().checked_sub(lasted).unwrap_or(SystemTime::UNIX_EPOCH),
            service: Arc::clone(&config.name),
            client: self.client,
            told_client: self.told.as_deref().copied(),
            local: self.local,
            backend: backend.map(|backend| backend.id().clone()),
            backend_address: backend.map(|backend| *backend.target()),
            queue_time: self.story.queue,
            connect_time: self.story.connect,
            total_time: lasted,
            bytes_to_server: self.passed[0],
            bytes_to_client: self.passed[1],
            attempts: self.story.attempts,
            listener_connections: self.crew.shared.books.counters().active,
            backend_connections: backend.map(|backend| backend.load().active.into()),
            termination: self.termination(),
        }
    }

    fn termination(&self) -> Termination {
        let phase = self.story.phase;
        let silent = || match self.is_clients_turn || phase == Phase::Last {
            true => Cause::ClientTimeout,
            false => Cause::ServerTimeout,
        };
        let (cause, phase) = match self.end {
            End::Finished => return Termination::NORMAL,
            End::ClientBroke => (Cause::Client, phase),
            End::ServerBroke => (Cause::Server, phase),
            End::Idle | End::HalfClosed => (silent(), phase),
            End::TotalTime => (Cause::Proxy, phase),
            End::Cut => (Cause::Killed, phase),
            End::Refused(refusal) => match refusal {
                Refusal::NoBackend | Refusal::ConnectError => (Cause::Server, Phase::Connect),
                Refusal::ConnectTimeout => (Cause::ServerTimeout, Phase::Connect),
                Refusal::Scheduler => (Cause::Proxy, Phase::Connect),
                Refusal::NoResources => (Cause::Resources, Phase::Connect),
                Refusal::Saturated => (Cause::Proxy, Phase::Queue),
                Refusal::QueueTimeout => (Cause::ServerTimeout, Phase::Queue),
                Refusal::ClientLimit | Refusal::BadPreamble | Refusal::NoService => {
                    (Cause::Proxy, Phase::Request)
                }
                Refusal::PreambleTimeout => (Cause::ClientTimeout, Phase::Request),
                Refusal::ClientLeft => (Cause::Client, phase),
            },
        };
        Termination::new(cause, phase)
    }
}

impl Drop for Entry {
    fn drop(&mut self) {
        let lasted = self.begun.elapsed();
        if let Some(observer) = &self.crew.config().on_end {
            observer.call(&self.record(lasted));
        }
        self.crew.page.duration.record(lasted);
        if let Some(tally) = &self.tally {
            tally.duration.record(lasted);
            tally.end(self.end == End::ServerBroke);
        }
        if let Some(lease) = self.lease.take() {
            lease.complete(match self.end {
                End::Finished => Outcome::Ok,
                End::ServerBroke => Outcome::AppError,
                // A client that goes away is nothing to hold against the backend.
                _ => Outcome::Cancelled,
            });
            if let Some(queue) = &self.crew.shared.queue {
                queue.freed();
            }
        }
        self.crew.page.tally.end(self.end);
    }
}

/// Carries a connection from its first byte to its last.
///
/// Its entry is made when the client is accepted and not in the task, which may be cut before it has
/// run at all.
pub(super) fn serve(crew: Arc<Crew>, arrival: Arrival) -> impl Future<Output = ()> + Send {
    let Arrival { stream, client, local, slot } = arrival;
    let span = debug_span!("connection", service = &*crew.config().name, client = ?client);
    let mut entry = Entry::new(crew, client, local, slot);
    let serve = async move {
        let mut client = Leg::from(stream);
        loop {
            // What finding a backend takes is given back before the connection is carried.
            let mut relay = match Box::pin(begin(&mut entry, client)).await {
                Ok(relay) => relay,
                Err(refusal) => {
                    debug!(?refusal, "connection refused");
                    return entry.close(End::Refused(refusal));
                }
            };
            let end = carry(&mut entry, &mut relay).await;
            // A backend that died with the connection in its accept queue has refused it late.
            if end == End::ServerBroke
                && let Some(untouched) = relay.into_untouched()
                && entry.turn_to_another()
            {
                client = untouched;
                continue;
            }
            return entry.close(end);
        }
    };
    serve.instrument(span)
}

/// Finds a backend for the client, and makes of both what carries the bytes.
async fn begin(entry: &mut Entry, client: Leg) -> Result<Relay, Refusal> {
    let crew = Arc::clone(&entry.crew);
    let preamble = &crew.config().preamble;
    let mut said = Said::default();
    if !entry.has_spoken {
        said = preamble.hear(&client).await?;
        entry.has_spoken = true;
        entry.told = said.client().map(Box::new);
    }
    let address = entry.told.as_deref().copied().or(entry.client);
    if let (Some(clients), Some(source), None) = (&crew.shared.per_client, address, &entry.place) {
        entry.place = Some(clients.enter(source.ip()).ok_or(Refusal::ClientLimit)?);
    }
    let service = preamble.service(&said, &crew.config().balancer)?;
    let asker = Asker { client: address, local: entry.local, key: preamble.key(&said) };
    let (server, lease) = crew.establish(&client, service, asker, &mut entry.story).await?;
    preamble.introduce(&mut said, asker);
    entry.story.phase = Phase::Data;
    if let Some(lease) = &lease {
        let tally = crew.page.backend(lease.backend(), || crew.snapshot());
        add(&tally.connections, 1);
        tally.connect_time.record(entry.story.connect.unwrap_or_default());
        entry.tally = Some(tally);
    }
    entry.lease = lease;
    Ok(Relay::new(client, Stream::Tcp(server).into(), said.bytes))
}

/// Relays until both sides have ended, one broke, or time is up.
async fn carry(entry: &mut Entry, relay: &mut Relay) -> End {
    let crew = Arc::clone(&entry.crew);
    let mut watch =
        Watch { crew: &crew, begun: entry.begun, active: Instant::now(), half_closed: false };
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
            if relay.has_server_ended() {
                entry.story.phase = Phase::Last;
            }
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
struct Watch<'a> {
    crew: &'a Crew,
    begun: Instant,
    /// When a byte last passed, or one side ended.
    active: Instant,
    half_closed: bool,
}

impl Watch<'_> {
    /// What comes first.
    fn due(&self) -> Option<(Instant, End)> {
        let after =
            |start: Instant, limit: Option<Duration>, end| Some((start.checked_add(limit?)?, end));
        let patience = self.crew.config().patience;
        let half_closed = patience.half_closed.filter(|_| self.half_closed);
        let ends = [
            after(self.begun, patience.total, End::TotalTime),
            after(self.active, half_closed, End::HalfClosed),
            after(self.active, patience.idle, End::Idle),
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
