//! A connection in the books: what is known of it, and how its end is written down.

use std::net::SocketAddr;
use std::sync::Arc;
use std::time::{Duration, SystemTime};

use tokio::time::Instant;

use super::books::BackendTally;
use super::establish::Story;
use super::worker::Crew;
use crate::Lease;
use crate::backend::Outcome;
use crate::forward::counters::{End, Refusal, add};
use crate::forward::limits::{Place, Slot};
use crate::forward::live::{self, Listed};
use crate::forward::{Cause, Phase, Record, Termination};

/// A connection in the books: whatever becomes of it, its end is written down.
#[derive(Debug)]
pub(super) struct Entry {
    pub(super) crew: Arc<Crew>,
    pub(super) client: Option<SocketAddr>,
    /// Whom a PROXY header named; apart, since few have one and all pay for it.
    pub(super) told: Option<Box<SocketAddr>>,
    /// The address that the client used, where clients may use several.
    local: Option<Box<SocketAddr>>,
    pub(super) begun: Instant,
    pub(super) story: Story,
    pub(super) tally: Option<Arc<BackendTally>>,
    pub(super) lease: Option<Lease<SocketAddr>>,
    listed: Option<Listed>,
    end: End,
    /// To the server and to the client.
    pub(super) passed: [u64; 2],
    /// Has it said what it must say first?
    pub(super) has_spoken: bool,
    pub(super) has_client_ended: bool,
    /// Has the server spoken last?
    pub(super) is_clients_turn: bool,
    pub(super) place: Option<Box<Place>>,
    _slot: Slot,
}

impl Entry {
    pub(super) fn new(
        crew: Arc<Crew>,
        client: Option<SocketAddr>,
        local: Option<SocketAddr>,
        slot: Slot,
    ) -> Self {
        let local = local.filter(|local| Some(*local) != crew.shared.address).map(Box::new);
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
            listed: None,
            end: End::Cut,
            passed: [0; 2],
            has_spoken: false,
            has_client_ended: false,
            is_clients_turn: true,
            place: None,
            _slot: slot,
        }
    }

    /// Notes what has passed since the last time.
    pub(super) fn note(&mut self, [up, down]: [u64; 2]) {
        self.passed[0] += up;
        self.passed[1] += down;
        self.is_clients_turn = down != 0 && !self.has_client_ended;
        add(&self.crew.page.tally.bytes_to_servers, up);
        add(&self.crew.page.tally.bytes_to_clients, down);
        if let Some(backend) = &self.tally {
            add(&backend.bytes_in, up);
            add(&backend.bytes_out, down);
        }
    }

    /// It is carried from now on: by whoever gave the lease, or by the sorry server.
    pub(super) fn enter(&mut self, lease: Option<Lease<SocketAddr>>) {
        self.story.phase = Phase::Data;
        if let Some(lease) = &lease {
            let tally = self.crew.page.backend(lease.backend(), || self.crew.snapshot());
            add(&tally.connections, 1);
            tally.connect_time.record(self.story.connect.map(Into::into).unwrap_or_default());
            self.tally = Some(tally);
        }
        self.listed = Some(self.crew.page.live.enter(live::Entry {
            client: self.source(),
            local: self.local.clone(),
            backend: lease.as_ref().map(|lease| Arc::clone(lease.backend())),
            begun: self.begun.into_std(),
        }));
        self.lease = lease;
    }

    /// It is carried no longer.
    fn leave(&mut self) {
        if let Some(listed) = self.listed.take() {
            self.crew.page.live.leave(listed);
        }
    }

    /// Holds it against the backend that it did not serve, and says whether another may be tried.
    pub(super) fn turn_to_another(&mut self) -> bool {
        let attempts = self.crew.config().effort.attempts;
        let Some(lease) = self.lease.take_if(|_| self.story.attempts < attempts) else {
            return false;
        };
        self.leave();
        add(&self.crew.page.tally.failed_connects, 1);
        if let Some(tally) = self.tally.take() {
            add(&tally.failed_connects, 1);
            tally.end(true);
        }
        self.story.tried.get_or_insert_default().push(Arc::clone(lease.backend()));
        lease.complete(Outcome::ConnectError);
        self.crew.shared.freed();
        true
    }

    /// Counts it for its client, once.
    pub(super) fn take_place(&mut self) -> Result<(), Refusal> {
        if let (Some(clients), Some(source), None) =
            (&self.crew.shared.per_client, self.source(), &self.place)
        {
            let place = clients.enter(source.ip()).ok_or(Refusal::ClientLimit)?;
            self.place = Some(Box::new(place));
        }
        Ok(())
    }

    /// Closes the entry; one that is dropped without a word was cut.
    pub(super) fn close(mut self, end: End) {
        self.end = end;
    }

    /// The address that the client used.
    pub(super) fn local(&self) -> Option<SocketAddr> {
        self.local.as_deref().copied().or(self.crew.shared.address)
    }

    /// Who asks: whom a PROXY header named, or the address the connection came from.
    pub(super) fn source(&self) -> Option<SocketAddr> {
        self.told.as_deref().copied().or(self.client)
    }

    fn record(&self, lasted: Duration) -> Record {
        let config = self.crew.config();
        let backend = self.story.backend.as_ref();
        Record {
            accepted: SystemTime::now().checked_sub(lasted).unwrap_or(SystemTime::UNIX_EPOCH),
            service: Arc::clone(&config.name),
            client: self.client,
            told_client: self.told.as_deref().copied(),
            local: self.local(),
            backend: backend.map(|backend| backend.id().clone()),
            backend_address: backend.map(|backend| *backend.target()),
            queue_time: self.story.queue.into(),
            connect_time: self.story.connect.map(Into::into),
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
            End::BackendDown => (Cause::BackendDown, phase),
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
        self.leave();
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
        }
        // Also without a lease: a search that was broken off may have had one.
        self.crew.shared.freed();
        self.crew.page.tally.end(self.end);
    }
}
