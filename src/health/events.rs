//! The events of a monitor, as a stream.

use std::fmt;
use std::sync::Arc;
use std::time::SystemTime;

use thiserror::Error;
use tokio::sync::broadcast;
use tracing::{info, warn};

use crate::backend::{BackendId, BackendState, Quorum};

/// How many unread events a reader may have before it misses the oldest.
const MAX_UNREAD_EVENTS: usize = 4096;

/// A change of a watched set.
///
/// Its `Display` form is a log line: `service web: server 10.0.0.1:80 is down (was eligible): tcp
/// check: connecting: Connection refused`.
#[derive(Clone, Debug, PartialEq)]
#[non_exhaustive]
pub struct HealthEvent {
    /// The time of the event.
    pub at: SystemTime,
    /// The name of the service, from its [`HealthPlan`](super::HealthPlan).
    pub service: Arc<str>,
    /// The change.
    pub kind: HealthEventKind,
}

/// The kind of a [`HealthEvent`], with its details.
#[derive(Clone, Debug, PartialEq)]
#[non_exhaustive]
pub enum HealthEventKind {
    /// The state of a backend changed, by a check, its traffic, the operator or the program.
    State {
        /// The backend.
        id: BackendId,
        /// The previous state; `None` for a backend that was added.
        from: Option<BackendState>,
        /// The current state; `None` for a backend that was removed.
        to: Option<BackendState>,
        /// The reason, if a check or the traffic of the backend changed the state.
        reason: Option<Arc<str>>,
    },
    /// Panic mode started or ended: see [`FailMode`](crate::backend::FailMode).
    Panic {
        /// Whether panic mode is on, so that health is ignored.
        active: bool,
        /// The number of healthy backends.
        healthy: usize,
        /// The number of backends that the operator has enabled.
        enabled: usize,
    },
    /// The set gained or lost its [`Quorum`].
    Quorum {
        /// Whether the quorum is met.
        met: bool,
        /// The sum of the effective weights of the healthy backends.
        healthy_weight: u64,
        /// The quorum; `None` if it was removed from the set, which is met then.
        quorum: Option<Quorum>,
    },
    /// A check reported a problem for the operator that does not count against the backend.
    Warning {
        /// The backend that was checked.
        id: BackendId,
        /// The problem.
        text: Arc<str>,
    },
    /// A check could not run, or could not finish, for a reason on this machine: a shortage, or a
    /// panic of the check. It counts neither for nor against the backend, and is reported once for each
    /// reason until the check runs again.
    LocalFailure {
        /// The backend that was to be checked.
        id: BackendId,
        /// The name of the check, and the reason.
        reason: Arc<str>,
    },
    /// Members of the set are not checked: they have no address, or no port where the check has none.
    /// They keep their health. Reported once for the members that a change of the set adds.
    NotChecked {
        /// The first of them.
        id: BackendId,
        /// The name of the check.
        check: Arc<str>,
        /// How many more there are.
        others: usize,
    },
    /// A scheduler refused a set with the health that the checks found. The set keeps its previous
    /// health, and the monitor tries again.
    PublishRefused {
        /// The error of the set.
        error: Arc<str>,
    },
}

impl HealthEvent {
    pub(super) fn new(service: &Arc<str>, kind: HealthEventKind) -> Self {
        Self { at: SystemTime::now(), service: Arc::clone(service), kind }
    }

    /// Returns whether the event reports a problem: a backend that is down or ejected, panic mode, a
    /// lost quorum, a warning, a check that does not run, or a refused publication.
    #[must_use]
    pub fn is_alert(&self) -> bool {
        match &self.kind {
            HealthEventKind::State { to, .. } => to.is_some_and(BackendState::is_unhealthy),
            HealthEventKind::Panic { active, .. } => *active,
            HealthEventKind::Quorum { met, .. } => !met,
            HealthEventKind::Warning { .. }
            | HealthEventKind::LocalFailure { .. }
            | HealthEventKind::NotChecked { .. }
            | HealthEventKind::PublishRefused { .. } => true,
        }
    }
}

impl fmt::Display for HealthEvent {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "service {}: ", self.service)?;
        match &self.kind {
            HealthEventKind::State { id, from, to, reason } => {
                match (from, to) {
                    (Some(from), Some(to)) => write!(f, "server {id} is {to} (was {from})")?,
                    (None, Some(to)) => write!(f, "server {id} was added and is {to}")?,
                    (_, None) => write!(f, "server {id} was removed")?,
                }
                reason.as_ref().map_or(Ok(()), |reason| write!(f, ": {reason}"))
            }
            HealthEventKind::Panic { active: true, healthy, enabled } => write!(
                f,
                "panic mode is on: {healthy} of {enabled} servers are healthy, health is ignored"
            ),
            HealthEventKind::Panic { active: false, healthy, enabled } => {
                write!(f, "panic mode is off: {healthy} of {enabled} servers are healthy")
            }
            HealthEventKind::Quorum { quorum: None, .. } => {
                f.write_str("the quorum was removed: no healthy weight is required")
            }
            HealthEventKind::Quorum { met, healthy_weight, quorum: Some(quorum) } => {
                let result = if *met { "met" } else { "lost" };
                write!(
                    f,
                    "quorum {result}: healthy weight {healthy_weight}, required {}",
                    quorum.weight()
                )?;
                match *met || quorum.is_advisory() {
                    true => Ok(()),
                    false => f.write_str("; its servers are withheld, they get no connections"),
                }
            }
            HealthEventKind::Warning { id, text } => {
                write!(f, "server {id}: a check warns: {text}")
            }
            HealthEventKind::LocalFailure { id, reason } => {
                write!(f, "server {id} could not be checked: {reason}")
            }
            HealthEventKind::NotChecked { id, check, others } => {
                write!(f, "server {id}")?;
                if *others > 0 {
                    write!(f, " and {others} others")?;
                }
                write!(f, ": no address and port for the {check} check, not checked")
            }
            HealthEventKind::PublishRefused { error } => {
                write!(f, "health changes cannot be applied and are tried again: {error}")
            }
        }
    }
}

/// The sending side of the event stream.
#[derive(Clone, Debug)]
pub(super) struct HealthEventSender(broadcast::Sender<HealthEvent>);

impl HealthEventSender {
    pub(super) fn new() -> Self {
        Self(broadcast::channel(MAX_UNREAD_EVENTS).0)
    }

    /// Logs an event and sends it to all readers. Never waits.
    pub(super) fn send(&self, event: HealthEvent) {
        if event.is_alert() {
            warn!(service = %event.service, "{event}");
        } else {
            info!(service = %event.service, "{event}");
        }
        // Fails only if there are no readers.
        let _ = self.0.send(event);
    }

    pub(super) fn subscribe(&self) -> HealthEvents {
        HealthEvents(self.0.subscribe())
    }
}

/// A stream of [`HealthEvent`]s, from [`Monitor::events`](super::Monitor::events).
///
/// The monitor does not wait for readers: a reader with more than 4096 unread events misses the
/// oldest, and [`MissedEvents`] reports how many.
#[derive(Debug)]
pub struct HealthEvents(broadcast::Receiver<HealthEvent>);

/// The number of events that a slow reader has missed.
#[derive(Clone, Copy, Debug, Eq, PartialEq, Error)]
#[error("{0} health events were missed: the reader was too slow")]
pub struct MissedEvents(pub u64);

impl HealthEvents {
    /// Waits for the next event; returns `None` when the monitor is gone. Cancel safe.
    ///
    /// # Errors
    /// [`MissedEvents`] if the reader missed events; the next call returns the oldest event that is
    /// left.
    pub async fn next(&mut self) -> Option<Result<HealthEvent, MissedEvents>> {
        match self.0.recv().await {
            Ok(event) => Some(Ok(event)),
            Err(broadcast::error::RecvError::Lagged(missed)) => Some(Err(MissedEvents(missed))),
            Err(broadcast::error::RecvError::Closed) => None,
        }
    }

    /// Returns the next event if there is one, without waiting.
    pub fn try_next(&mut self) -> Option<Result<HealthEvent, MissedEvents>> {
        match self.0.try_recv() {
            Ok(event) => Some(Ok(event)),
            Err(broadcast::error::TryRecvError::Lagged(missed)) => Some(Err(MissedEvents(missed))),
            Err(_) => None,
        }
    }
}
