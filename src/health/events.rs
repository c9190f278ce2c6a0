//! What happened, as a stream.

use std::fmt;
use std::sync::Arc;
use std::time::SystemTime;

use tokio::sync::broadcast;
use tracing::{info, warn};

use crate::backend::{BackendId, State};

/// How many events wait for a reader that is behind.
const BACKLOG: usize = 4096;

/// Something changed.
///
/// It displays as a line for people: `web: server 10.0.0.1:80 is down (was eligible): connecting:
/// Connection refused`.
#[derive(Clone, Debug, PartialEq)]
#[non_exhaustive]
pub struct Event {
    /// When.
    pub at: SystemTime,
    /// The service, by the name of its [`Plan`](super::Plan).
    pub service: Arc<str>,
    /// What.
    pub kind: EventKind,
}

/// What changed.
#[derive(Clone, Debug, PartialEq)]
#[non_exhaustive]
pub enum EventKind {
    /// A backend's state, whoever changed it.
    State {
        /// Whose.
        id: BackendId,
        /// What it was; `None` for a new one.
        from: Option<State>,
        /// What it is; `None` for one that was taken out.
        to: Option<State>,
        /// Why, where a check or its traffic said so.
        why: Option<Arc<str>>,
    },
    /// Health is ignored from now on, or heeded again: see
    /// [`FailMode`](crate::backend::FailMode).
    Panic {
        /// Ignored.
        on: bool,
        /// How many are healthy.
        healthy: usize,
        /// Of how many that the operator wants.
        wanted: usize,
    },
    /// The set has lost or gained its [`Quorum`](crate::backend::Quorum).
    Quorum {
        /// Gained.
        held: bool,
    },
    /// A check passed, and there is something that the operator should see to.
    Warning {
        /// Whose check.
        id: BackendId,
        /// What it said.
        text: Arc<str>,
    },
    /// A scheduler refused what checks wanted to publish. Health stays as it was, and is tried again.
    Refused {
        /// What it said.
        error: Arc<str>,
    },
}

impl Event {
    pub(super) fn new(service: &Arc<str>, kind: EventKind) -> Self {
        Self { at: SystemTime::now(), service: Arc::clone(service), kind }
    }

    /// Tells whether somebody may want to be woken: something is down, ejected, lost or refused.
    #[must_use]
    pub fn is_bad(&self) -> bool {
        match &self.kind {
            EventKind::State { to, .. } => to.is_some_and(State::is_unhealthy),
            EventKind::Panic { on, .. } => *on,
            EventKind::Quorum { held } => !held,
            EventKind::Warning { .. } | EventKind::Refused { .. } => true,
        }
    }
}

impl fmt::Display for Event {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}: ", self.service)?;
        match &self.kind {
            EventKind::State { id, from, to, why } => {
                match (from, to) {
                    (Some(from), Some(to)) => write!(f, "server {id} is {to} (was {from})")?,
                    (None, Some(to)) => write!(f, "server {id} is new and {to}")?,
                    (_, None) => write!(f, "server {id} was taken out")?,
                }
                why.as_ref().map_or(Ok(()), |why| write!(f, ": {why}"))
            }
            EventKind::Panic { on: true, healthy, wanted } => {
                write!(f, "panic: {healthy} of {wanted} servers are healthy, all are used")
            }
            EventKind::Panic { on: false, healthy, wanted } => {
                write!(f, "panic is over: {healthy} of {wanted} servers are healthy")
            }
            EventKind::Quorum { held: true } => f.write_str("quorum gained"),
            EventKind::Quorum { held: false } => f.write_str("quorum lost"),
            EventKind::Warning { id, text } => write!(f, "server {id}: warning: {text}"),
            EventKind::Refused { error } => write!(f, "health cannot be published: {error}"),
        }
    }
}

/// Where events go in.
#[derive(Clone, Debug)]
pub(super) struct Sender(broadcast::Sender<Event>);

impl Sender {
    pub(super) fn new() -> Self {
        Self(broadcast::channel(BACKLOG).0)
    }

    /// Sends to those who listen, and to the log. Never waits.
    pub(super) fn send(&self, event: Event) {
        if event.is_bad() {
            warn!(service = %event.service, "{event}");
        } else {
            info!(service = %event.service, "{event}");
        }
        // Nobody may be listening.
        let _ = self.0.send(event);
    }

    pub(super) fn subscribe(&self) -> Events {
        Events(self.0.subscribe())
    }
}

/// A stream of [`Event`]s, from [`Monitor::events`](super::Monitor::events) on.
///
/// Readers are never waited for: one that is more than 4096 events behind misses some, and is told
/// how many.
#[derive(Debug)]
pub struct Events(broadcast::Receiver<Event>);

/// So many events were missed by a reader that was too far behind.
#[derive(Clone, Copy, Debug, Eq, PartialEq, thiserror::Error)]
#[error("{0} events were missed")]
pub struct Missed(pub u64);

impl Events {
    /// The next event; `None` when the monitor is gone. Cancel safe.
    ///
    /// # Errors
    /// [`Missed`] says that some were; the stream goes on with the oldest that is left.
    pub async fn next(&mut self) -> Option<Result<Event, Missed>> {
        match self.0.recv().await {
            Ok(event) => Some(Ok(event)),
            Err(broadcast::error::RecvError::Lagged(missed)) => Some(Err(Missed(missed))),
            Err(broadcast::error::RecvError::Closed) => None,
        }
    }

    /// The next event, if there is one already.
    pub fn try_next(&mut self) -> Option<Result<Event, Missed>> {
        match self.0.try_recv() {
            Ok(event) => Some(Ok(event)),
            Err(broadcast::error::TryRecvError::Lagged(missed)) => Some(Err(Missed(missed))),
            Err(_) => None,
        }
    }
}
