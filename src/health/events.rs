//! What happened, as a stream.

use std::fmt;
use std::sync::Arc;
use std::time::SystemTime;

use tokio::sync::broadcast;
use tracing::{info, warn};

use crate::backend::{BackendId, BackendState};

/// How many events wait for a reader that is behind.
const MAX_UNREAD_EVENTS: usize = 4096;

/// Something changed.
///
/// It displays as a line for people: `web: server 10.0.0.1:80 is down (was eligible): connecting:
/// Connection refused`.
#[derive(Clone, Debug, PartialEq)]
#[non_exhaustive]
pub struct HealthEvent {
    /// When.
    pub at: SystemTime,
    /// The service, by the name of its [`Plan`](super::Plan).
    pub service: Arc<str>,
    /// What.
    pub kind: HealthEventKind,
}

/// What changed.
#[derive(Clone, Debug, PartialEq)]
#[non_exhaustive]
pub enum HealthEventKind {
    /// A backend's state, whoever changed it.
    State {
        /// Whose.
        id: BackendId,
        /// What it was; `None` for a new one.
        from: Option<BackendState>,
        /// What it is; `None` for one that was taken out.
        to: Option<BackendState>,
        /// Why, where a check or its traffic said so.
        reason: Option<Arc<str>>,
    },
    /// Health is ignored from now on, or heeded again: see
    /// [`FailMode`](crate::backend::FailMode).
    Panic {
        /// Ignored.
        active: bool,
        /// How many are healthy.
        healthy: usize,
        /// Of how many that the operator wants.
        enabled: usize,
    },
    /// The set has lost or gained its [`Quorum`](crate::backend::Quorum).
    Quorum {
        /// Gained.
        met: bool,
    },
    /// A check passed, and there is something that the operator should see to.
    Warning {
        /// Whose check.
        id: BackendId,
        /// What it said.
        text: Arc<str>,
    },
    /// A scheduler refused what checks wanted to publish. Health stays as it was, and is tried again.
    PublishRefused {
        /// What it said.
        error: Arc<str>,
    },
}

impl HealthEvent {
    pub(super) fn new(service: &Arc<str>, kind: HealthEventKind) -> Self {
        Self { at: SystemTime::now(), service: Arc::clone(service), kind }
    }

    /// Tells whether somebody may want to be woken: something is down, ejected, lost or refused.
    #[must_use]
    pub fn is_alert(&self) -> bool {
        match &self.kind {
            HealthEventKind::State { to, .. } => to.is_some_and(BackendState::is_unhealthy),
            HealthEventKind::Panic { active: on, .. } => *on,
            HealthEventKind::Quorum { met: held } => !held,
            HealthEventKind::Warning { .. } | HealthEventKind::PublishRefused { .. } => true,
        }
    }
}

impl fmt::Display for HealthEvent {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}: ", self.service)?;
        match &self.kind {
            HealthEventKind::State { id, from, to, reason: why } => {
                match (from, to) {
                    (Some(from), Some(to)) => write!(f, "server {id} is {to} (was {from})")?,
                    (None, Some(to)) => write!(f, "server {id} is new and {to}")?,
                    (_, None) => write!(f, "server {id} was taken out")?,
                }
                why.as_ref().map_or(Ok(()), |why| write!(f, ": {why}"))
            }
            HealthEventKind::Panic { active: true, healthy, enabled: wanted } => {
                write!(f, "panic: {healthy} of {wanted} servers are healthy, all are used")
            }
            HealthEventKind::Panic { active: false, healthy, enabled: wanted } => {
                write!(f, "panic is over: {healthy} of {wanted} servers are healthy")
            }
            HealthEventKind::Quorum { met: true } => f.write_str("quorum gained"),
            HealthEventKind::Quorum { met: false } => f.write_str("quorum lost"),
            HealthEventKind::Warning { id, text } => write!(f, "server {id}: warning: {text}"),
            HealthEventKind::PublishRefused { error } => {
                write!(f, "health cannot be published: {error}")
            }
        }
    }
}

/// Where events go in.
#[derive(Clone, Debug)]
pub(super) struct HealthEventSender(broadcast::Sender<HealthEvent>);

impl HealthEventSender {
    pub(super) fn new() -> Self {
        Self(broadcast::channel(MAX_UNREAD_EVENTS).0)
    }

    /// Sends to those who listen, and to the log. Never waits.
    pub(super) fn send(&self, event: HealthEvent) {
        if event.is_alert() {
            warn!(service = %event.service, "{event}");
        } else {
            info!(service = %event.service, "{event}");
        }
        // Nobody may be listening.
        let _ = self.0.send(event);
    }

    pub(super) fn subscribe(&self) -> HealthEvents {
        HealthEvents(self.0.subscribe())
    }
}

/// A stream of [`HealthEvent`]s, from [`Monitor::events`](super::Monitor::events) on.
///
/// Readers are never waited for: one that is more than 4096 events behind misses some, and is told
/// how many.
#[derive(Debug)]
pub struct HealthEvents(broadcast::Receiver<HealthEvent>);

/// So many events were missed by a reader that was too far behind.
#[derive(Clone, Copy, Debug, Eq, PartialEq, thiserror::Error)]
#[error("{0} events were missed")]
pub struct MissedEvents(pub u64);

impl HealthEvents {
    /// The next event; `None` when the monitor is gone. Cancel safe.
    ///
    /// # Errors
    /// [`MissedEvents`] says that some were; the stream goes on with the oldest that is left.
    pub async fn next(&mut self) -> Option<Result<HealthEvent, MissedEvents>> {
        match self.0.recv().await {
            Ok(event) => Some(Ok(event)),
            Err(broadcast::error::RecvError::Lagged(missed)) => Some(Err(MissedEvents(missed))),
            Err(broadcast::error::RecvError::Closed) => None,
        }
    }

    /// The next event, if there is one already.
    pub fn try_next(&mut self) -> Option<Result<HealthEvent, MissedEvents>> {
        match self.0.try_recv() {
            Ok(event) => Some(Ok(event)),
            Err(broadcast::error::TryRecvError::Lagged(missed)) => Some(Err(MissedEvents(missed))),
            Err(_) => None,
        }
    }
}
