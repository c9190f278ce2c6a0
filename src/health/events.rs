//! The events of a monitor.

use std::fmt;
use std::sync::Arc;
use std::time::SystemTime;

use tracing::{info, warn};

use crate::backend::{BackendId, BackendState, Quorum};
use crate::events::{EventSender, Events};

/// A change of a watched set.
///
/// Its `Display` form is a log line: `service web: server 10.0.0.1:80 is down (was eligible): tcp
/// check: connecting: Connection refused`.
#[derive(Clone, Debug, Eq, PartialEq, serde::Serialize)]
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
#[derive(Clone, Debug, Eq, PartialEq, serde::Serialize)]
#[serde(rename_all = "snake_case")]
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

/// Logs the events of a monitor and sends them to its readers.
#[derive(Clone)]
pub(super) struct HealthEventSender {
    sender: Arc<EventSender<HealthEvent>>,
    observe: Option<Arc<HealthEventObserver>>,
}

/// A function that is called with each event, before the readers get it.
pub(super) type HealthEventObserver = dyn Fn(&HealthEvent) + Send + Sync;

impl fmt::Debug for HealthEventSender {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_tuple("HealthEventSender").field(&self.sender).finish()
    }
}

impl HealthEventSender {
    pub(super) fn new(observe: Option<Arc<HealthEventObserver>>) -> Self {
        Self { sender: Arc::new(EventSender::new()), observe }
    }

    /// Logs an event and sends it to all readers. Never waits.
    pub(super) fn send(&self, event: HealthEvent) {
        if event.is_alert() {
            warn!(service = %event.service, "{event}");
        } else {
            info!(service = %event.service, "{event}");
        }
        if let Some(observe) = &self.observe {
            observe(&event);
        }
        self.sender.send(event);
    }

    pub(super) fn subscribe(&self) -> HealthEvents {
        self.sender.subscribe()
    }
}

/// A reader of [`HealthEvent`]s, from [`Monitor::events`](super::Monitor::events). It ends when the
/// monitor and every handle on its sets are dropped.
pub type HealthEvents = Events<HealthEvent>;
