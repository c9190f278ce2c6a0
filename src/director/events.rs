//! The events of a director: what its health checks, its election, its reloads and its operators did.

use std::fmt;
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::SystemTime;

use super::applied::ReloadSummary;
use super::overrides::{ServerChange, ServerEdit};
use crate::announce::{AnnounceEvent, AnnounceMode};
use crate::balancer::Fingerprint;
use crate::events::Events;
use crate::health::HealthEvent;
use crate::vrrp::VrrpEvent;

/// An event of a director.
///
/// Its `Display` form is a log line: `service web: server 10.0.0.1:80 is down (was eligible): ...`.
#[derive(Clone, Debug)]
#[non_exhaustive]
pub enum DirectorEvent {
    /// Health checks, outlier ejection, or a change of a service's servers.
    Health(HealthEvent),
    /// The election for the virtual addresses.
    Vrrp(VrrpEvent),
    /// The announcements of addresses.
    Announce(AnnounceEvent),
    /// A mode of the announcements that an operator has set.
    AnnounceMode(AnnounceModeEvent),
    /// A reload, or the start, which is the first.
    Reload(ReloadEvent),
    /// The tables of two directors differ, or are the same again.
    Table(TableEvent),
    /// A change of a server by an operator.
    Operator(OperatorEvent),
}

/// A reader of [`DirectorEvent`]s, from [`Director::events`](super::Director::events). It ends when the
/// director does.
pub type DirectorEvents = Events<DirectorEvent>;

/// A reload that has ended.
#[derive(Clone, Debug)]
#[non_exhaustive]
pub struct ReloadEvent {
    /// The time of the end.
    pub at: SystemTime,
    /// The changes, with the parts that could not be applied; or the error of a configuration that was
    /// refused, which changed nothing.
    pub result: Result<ReloadSummary, Arc<str>>,
}

/// Two directors decide by different tables about one service for longer than ten seconds, or by the same one again.
#[derive(Clone, Debug, Eq, PartialEq)]
#[non_exhaustive]
pub struct TableEvent {
    /// The time at which that was noticed.
    pub at: SystemTime,
    /// The name of the service.
    pub service: Arc<str>,
    /// The fingerprints of this director and of the other one; `None` if the tables are the same again.
    pub fingerprints: Option<(Fingerprint, Fingerprint)>,
}

impl fmt::Display for TableEvent {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "service {}: ", self.service)?;
        match &self.fingerprints {
            Some((ours, theirs)) => write!(
                f,
                "this director and the active one choose servers by different tables: fingerprint {ours} here, {theirs} \
                 there; compare schedulers, servers and weights"
            ),
            None => f.write_str(
                "this director and the active one choose servers by the same table again",
            ),
        }
    }
}

/// A mode of all announcements of a director, set by an operator.
#[derive(Clone, Debug, Eq, PartialEq)]
#[non_exhaustive]
pub struct AnnounceModeEvent {
    /// The time of the change.
    pub at: SystemTime,
    /// The mode.
    pub mode: AnnounceMode,
    /// The way by which the change came.
    pub origin: ChangeOrigin,
}

impl fmt::Display for AnnounceModeEvent {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "announcements: the mode was set to {} by {}", self.mode, self.origin)
    }
}

/// A change of a server by an operator.
#[derive(Clone, Debug, Eq, PartialEq)]
#[non_exhaustive]
pub struct OperatorEvent {
    /// The time of the change.
    pub at: SystemTime,
    /// The name of the service.
    pub service: Arc<str>,
    /// The server's address.
    pub server: Arc<str>,
    /// The way by which the change came.
    pub origin: ChangeOrigin,
    /// The change.
    pub kind: OperatorEventKind,
}

/// The way by which an operator's change reaches a director.
#[derive(Clone, Debug, Eq, PartialEq)]
#[non_exhaustive]
pub enum ChangeOrigin {
    /// The admin API: `lvs ctl`, the status page, or a program.
    #[non_exhaustive]
    Api {
        /// The address of the client.
        client: SocketAddr,
        /// The name that the operator has given, in the header `Lvs-Operator`.
        operator: Option<Arc<str>>,
    },
    /// The methods of [`Director`](super::Director), called by the program that embeds it.
    Program,
    /// The other director of a pair, whose operator made the change.
    OtherDirector,
}

/// The kind of an [`OperatorEvent`].
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
#[non_exhaustive]
pub enum OperatorEventKind {
    /// The server's weight or administrative state changed.
    Changed(ServerChange),
    /// The server was added.
    Added,
    /// The server was removed.
    Removed,
}

impl DirectorEvent {
    /// Returns the time of the event.
    #[must_use]
    pub fn at(&self) -> SystemTime {
        match self {
            Self::Health(event) => event.at,
            Self::Vrrp(event) => event.at,
            Self::Announce(event) => event.at,
            Self::AnnounceMode(event) => event.at,
            Self::Table(event) => event.at,
            Self::Reload(event) => event.at,
            Self::Operator(event) => event.at,
        }
    }

    /// Returns whether the event reports a problem: an alert of [health](HealthEvent::is_alert) or of
    /// the [election](VrrpEvent::is_alert), of [announcements](AnnounceEvent::is_alert), tables that differ, or a reload that failed in whole or in part. An operator's
    /// change is none.
    #[must_use]
    pub fn is_alert(&self) -> bool {
        match self {
            Self::Health(event) => event.is_alert(),
            Self::Vrrp(event) => event.is_alert(),
            Self::Announce(event) => event.is_alert(),
            Self::Table(event) => event.fingerprints.is_some(),
            Self::Reload(event) => !event.is_complete(),
            Self::AnnounceMode(_) | Self::Operator(_) => false,
        }
    }

    /// Returns the source of the event as the API names it: `health`, `vrrp`, `announce`, `sync`, `reload` or
    /// `operator`.
    #[must_use]
    pub fn source(&self) -> &'static str {
        match self {
            Self::Health(_) => "health",
            Self::Vrrp(_) => "vrrp",
            Self::Announce(_) => "announce",
            Self::Table(_) => "sync",
            Self::Reload(_) => "reload",
            Self::AnnounceMode(_) | Self::Operator(_) => "operator",
        }
    }
}

impl fmt::Display for DirectorEvent {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Health(event) => event.fmt(f),
            Self::Vrrp(event) => event.fmt(f),
            Self::Announce(event) => event.fmt(f),
            Self::AnnounceMode(event) => event.fmt(f),
            Self::Table(event) => event.fmt(f),
            Self::Reload(event) => event.fmt(f),
            Self::Operator(event) => event.fmt(f),
        }
    }
}

/// The number of changes that the text of a reload's event names.
const MAX_SHOWN_CHANGES: usize = 10;

impl ReloadEvent {
    pub(super) fn new(result: Result<ReloadSummary, Arc<str>>) -> Self {
        Self { at: SystemTime::now(), result }
    }

    /// Returns whether the whole configuration was applied.
    #[must_use]
    pub fn is_complete(&self) -> bool {
        self.result.as_ref().is_ok_and(ReloadSummary::is_complete)
    }
}

impl fmt::Display for ReloadEvent {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match &self.result {
            Ok(summary) => {
                // A log line has no line feeds; a summary has a line for each change, and of hundreds of
                // services there are as many.
                let text = summary.to_string();
                let changes: Vec<&str> = text.lines().collect();
                let shown = &changes[..changes.len().min(MAX_SHOWN_CHANGES)];
                write!(f, "reload: {}", shown.join("; "))?;
                if changes.len() > shown.len() {
                    write!(f, "; and {} more changes", changes.len() - shown.len())?;
                }
                summary.failures().iter().try_for_each(|failure| write!(f, "; {failure}"))
            }
            Err(error) => write!(f, "reload: refused, nothing has changed: {error}"),
        }
    }
}

impl OperatorEvent {
    pub(super) fn new(service: &str, edit: &ServerEdit, origin: ChangeOrigin) -> Self {
        let (server, kind) = match edit {
            ServerEdit::Change(server, change) => {
                (server.as_str().into(), OperatorEventKind::Changed(*change))
            }
            ServerEdit::Add(server) => {
                (server.address.to_string().into(), OperatorEventKind::Added)
            }
            ServerEdit::Remove(server) => (server.as_str().into(), OperatorEventKind::Removed),
        };
        Self { at: SystemTime::now(), service: service.into(), server, origin, kind }
    }
}

impl fmt::Display for OperatorEvent {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { service, server, origin, .. } = self;
        write!(f, "service {service}: server {server} was ")?;
        match self.kind {
            OperatorEventKind::Changed(change) => write!(f, "changed to {change}")?,
            OperatorEventKind::Added => f.write_str("added")?,
            OperatorEventKind::Removed => f.write_str("removed")?,
        }
        write!(f, " by {origin}")
    }
}

impl fmt::Display for ChangeOrigin {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Api { client, operator: Some(name) } => write!(f, "{name} at {client}"),
            Self::Api { client, operator: None } => write!(f, "the API client {client}"),
            Self::Program => f.write_str("the program"),
            Self::OtherDirector => f.write_str("the operator of the other director"),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::backend::BackendAdminState;
    use crate::director::DirectorConfig;
    use crate::director::diff::ReloadPlan;

    #[test]
    fn the_line_of_a_reload_is_short_whatever_changes() {
        let text: String = (10..22)
            .map(|n| {
                format!(
                    "[[service]]\nname = \"s{n}\"\nlisten = \"127.0.0.1:80{n}\"\n\
                     scheduler = \"rr\"\n"
                )
            })
            .collect();
        let config = DirectorConfig::parse(&text).expect("a valid configuration");
        let plan = ReloadPlan::new(&DirectorConfig::default(), &config);
        let line = ReloadEvent::new(Ok(ReloadSummary::new(plan, Vec::new()))).to_string();
        assert!(line.starts_with("reload: service s10: added; service s11: added;"), "{line}");
        assert!(line.ends_with("service s19: added; and 2 more changes"), "{line}");
    }

    #[test]
    fn log_lines_name_what_was_changed_and_by_whom() {
        let line = |edit, origin| {
            let event = OperatorEvent::new("web", &edit, origin);
            DirectorEvent::Operator(event).to_string()
        };
        let server = || "10.0.0.1:80".to_owned();
        let change = ServerChange::new().with_weight(3).with_state(BackendAdminState::Draining);
        assert_eq!(
            line(
                ServerEdit::Change(server(), change),
                ChangeOrigin::Api { client: ([127, 0, 0, 1], 9).into(), operator: None }
            ),
            "service web: server 10.0.0.1:80 was changed to weight 3, state drain by the API client \
             127.0.0.1:9"
        );
        assert_eq!(
            line(ServerEdit::Remove(server()), ChangeOrigin::Program),
            "service web: server 10.0.0.1:80 was removed by the program"
        );
        let client = ([127, 0, 0, 1], 9).into();
        let alice = ChangeOrigin::Api { client, operator: Some("alice".into()) };
        assert_eq!(
            line(ServerEdit::Remove(server()), alice),
            "service web: server 10.0.0.1:80 was removed by alice at 127.0.0.1:9"
        );
        let refused = DirectorEvent::Reload(ReloadEvent::new(Err("no".into())));
        assert_eq!(refused.to_string(), "reload: refused, nothing has changed: no");
        assert!(refused.is_alert());
    }
}
