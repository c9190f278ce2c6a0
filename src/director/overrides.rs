//! Changes of servers by operators, which override the configuration.

use std::collections::BTreeMap;
use std::fmt;
use std::net::SocketAddr;

use serde::{Deserialize, Serialize};

use super::config::RealServer;
use crate::backend::BackendAdminState;

/// A change of one server by an operator.
#[derive(Clone, Copy, Debug, Default, Deserialize, Eq, PartialEq, Serialize)]
#[serde(deny_unknown_fields)]
#[non_exhaustive]
pub struct ServerChange {
    /// The new weight; 0 quiesces the server.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub weight: Option<u32>,
    /// The new administrative state.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub state: Option<BackendAdminState>,
}

impl ServerChange {
    /// Returns a change that changes nothing.
    #[must_use]
    pub fn new() -> Self {
        Self::default()
    }

    /// Returns this change with a new weight; 0 quiesces the server.
    #[must_use]
    pub fn with_weight(self, weight: u32) -> Self {
        Self { weight: Some(weight), ..self }
    }

    /// Returns this change with a new administrative state.
    #[must_use]
    pub fn with_state(self, state: BackendAdminState) -> Self {
        Self { state: Some(state), ..self }
    }
}

impl fmt::Display for ServerChange {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        // The states have the names of the API.
        let state = self.state.map(|state| match state {
            BackendAdminState::Enabled => "up",
            BackendAdminState::Draining => "drain",
            BackendAdminState::Disabled => "down",
        });
        match (self.weight, state) {
            (Some(weight), Some(state)) => write!(f, "weight {weight}, state {state}"),
            (Some(weight), None) => write!(f, "weight {weight}"),
            (None, Some(state)) => write!(f, "state {state}"),
            (None, None) => f.write_str("what it was"),
        }
    }
}

/// An operator's edit of one server.
#[derive(Clone, Debug, Eq, PartialEq)]
pub(super) enum ServerEdit {
    Change(String, ServerChange),
    Add(RealServer),
    Remove(String),
}

/// The overrides of one service, by server. Each has a number that grows with every edit, by which two
/// directors decide whose override is newer.
#[derive(Clone, Debug, Default, Deserialize, Eq, PartialEq, Serialize)]
pub(super) struct ServiceOverrides {
    servers: BTreeMap<String, (u64, ServerOverride)>,
}

/// Overrides that are kept for servers which were added and removed by operators.
const MAX_REMOVED_OVERRIDES: usize = 256;

/// The override of one server.
#[derive(Clone, Debug, Default, Deserialize, Eq, PartialEq, Serialize)]
struct ServerOverride {
    change: ServerChange,
    /// Whether the server exists, whatever the configuration says.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    presence: Option<PresenceOverride>,
}

#[derive(Clone, Debug, Deserialize, Eq, PartialEq, Serialize)]
#[serde(rename_all = "lowercase")]
enum PresenceOverride {
    Added(RealServer),
    Removed,
}

/// A server as the configuration and its override describe it.
#[derive(Clone, Debug, Eq, PartialEq)]
pub(super) struct DesiredServer {
    pub(super) config: RealServer,
    pub(super) state: BackendAdminState,
}

impl ServiceOverrides {
    /// Records an edit, on top of those before.
    pub(super) fn record(&mut self, edit: &ServerEdit) {
        let number = self.servers.values().map(|(number, _)| *number).max().unwrap_or(0) + 1;
        let name = match edit {
            ServerEdit::Change(server, _) | ServerEdit::Remove(server) => server.clone(),
            ServerEdit::Add(server) => server.address.to_string(),
        };
        let (latest, server) = self.servers.entry(name).or_default();
        *latest = number;
        match edit {
            ServerEdit::Change(_, change) => {
                server.change.weight = change.weight.or(server.change.weight);
                server.change.state = change.state.or(server.change.state);
            }
            ServerEdit::Add(added) => {
                let presence = Some(PresenceOverride::Added(added.clone()));
                *server = ServerOverride { change: ServerChange::default(), presence };
            }
            ServerEdit::Remove(_) => {
                let presence = Some(PresenceOverride::Removed);
                *server = ServerOverride { change: ServerChange::default(), presence };
            }
        }
    }

    /// Drops overrides of servers that operators added and removed again, except the newest, which the
    /// standby still has to receive.
    pub(super) fn prune_removed(&mut self, configured: &[RealServer]) {
        let is_removed = |(name, (_, server)): &(&String, &(u64, ServerOverride))| {
            server.presence == Some(PresenceOverride::Removed)
                && !configured.iter().any(|server| server.address.to_string() == **name)
        };
        let removed = self.servers.iter().filter(is_removed);
        let mut removed: Vec<_> =
            removed.map(|(name, (number, _))| (*number, name.clone())).collect();
        removed.sort_unstable();
        let excess = removed.len().saturating_sub(MAX_REMOVED_OVERRIDES);
        for (_, name) in removed.into_iter().take(excess) {
            self.servers.remove(&name);
        }
    }

    /// Adopts another director's overrides where they are newer; returns what they change.
    pub(super) fn merge(&mut self, other: &Self) -> Vec<ServerEdit> {
        let mut edits = Vec::new();
        for (name, (number, server)) in &other.servers {
            let known = self.servers.get(name);
            if known.is_some_and(|(known, _)| known >= number) {
                continue;
            }
            let before = known.map(|(_, server)| server.clone()).unwrap_or_default();
            match &server.presence {
                presence if *presence == before.presence => {}
                Some(PresenceOverride::Added(added)) => edits.push(ServerEdit::Add(added.clone())),
                Some(PresenceOverride::Removed) => edits.push(ServerEdit::Remove(name.clone())),
                None => {}
            }
            if server.change != before.change && server.change != ServerChange::default() {
                edits.push(ServerEdit::Change(name.clone(), server.change));
            }
            self.servers.insert(name.clone(), (*number, server.clone()));
        }
        edits
    }

    /// Drops overrides of what a new configuration changes: the file is newer than the override.
    pub(super) fn rebase(&mut self, before: &[RealServer], after: &[RealServer]) {
        let find = |servers: &[RealServer], name: &str| {
            servers.iter().find(|server| server.address.to_string() == name).cloned()
        };
        self.servers.retain(|name, (_, server)| {
            match (find(before, name), find(after, name)) {
                // The server was removed from the file: it loses all overrides.
                (Some(_), None) => return false,
                (None, Some(_)) => {
                    server.presence = None;
                    server.change.weight = None;
                }
                (Some(before), Some(after)) if before != after => {
                    server.presence = None;
                    if before.weight != after.weight {
                        server.change.weight = None;
                    }
                }
                _ => {}
            }
            *server != ServerOverride::default()
        });
    }

    /// Returns the servers with the overrides applied: those of the configuration in its order, then
    /// those that operators added.
    pub(super) fn apply_to(&self, configured: &[RealServer]) -> Vec<DesiredServer> {
        let mut servers: Vec<RealServer> = Vec::new();
        for server in configured {
            match self.presence(&server.address) {
                None => servers.push(server.clone()),
                Some(PresenceOverride::Added(instead)) => servers.push(instead.clone()),
                Some(PresenceOverride::Removed) => {}
            }
        }
        for (_, overridden) in self.servers.values() {
            if let Some(PresenceOverride::Added(server)) = &overridden.presence
                && !configured.iter().any(|other| other.address == server.address)
            {
                servers.push(server.clone());
            }
        }
        let desired = servers.into_iter().map(|mut server| {
            let change = self.server_change(&server.address.to_string());
            server.weight = change.weight.unwrap_or(server.weight);
            DesiredServer { config: server, state: change.state.unwrap_or_default() }
        });
        desired.collect()
    }

    fn presence(&self, server: &SocketAddr) -> Option<&PresenceOverride> {
        self.servers.get(&server.to_string()).and_then(|(_, server)| server.presence.as_ref())
    }

    /// Returns the weight and the state that operators have set for a server.
    pub(super) fn server_change(&self, server: &str) -> ServerChange {
        self.servers.get(server).map(|(_, server)| server.change).unwrap_or_default()
    }

    /// Iterates over the servers that have overrides.
    pub(super) fn iter(&self) -> impl Iterator<Item = (&str, ServerChange)> {
        self.servers.iter().map(|(name, (_, server))| (&**name, server.change))
    }

    /// Returns whether a server has an override.
    pub(super) fn contains(&self, server: &str) -> bool {
        self.servers.contains_key(server)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn server(port: u16, weight: u32) -> RealServer {
        let mut server = RealServer::new(SocketAddr::from(([10, 0, 0, 1], port)));
        server.weight = weight;
        server
    }

    fn weight(port: u16, weight: u32) -> ServerEdit {
        ServerEdit::Change(format!("10.0.0.1:{port}"), ServerChange::new().with_weight(weight))
    }

    fn drain(port: u16) -> ServerEdit {
        ServerEdit::Change(
            format!("10.0.0.1:{port}"),
            ServerChange::new().with_state(BackendAdminState::Draining),
        )
    }

    #[test]
    fn the_newer_override_wins_and_keeps_what_it_does_not_set() {
        let (mut a, mut b) = (ServiceOverrides::default(), ServiceOverrides::default());
        a.record(&weight(1, 3));
        assert_eq!(b.merge(&a), [weight(1, 3)]);
        assert_eq!(b.merge(&a), [], "the override is known already");
        b.record(&drain(1));
        let both = ServerChange { weight: Some(3), state: Some(BackendAdminState::Draining) };
        assert_eq!(a.merge(&b), [ServerEdit::Change("10.0.0.1:1".into(), both)]);
        assert_eq!(a.server_change("10.0.0.1:1"), both);
        assert_eq!(b.merge(&a), []);
        assert_eq!(a, b);
        a.record(&ServerEdit::Add(server(2, 5)));
        a.record(&ServerEdit::Remove("10.0.0.1:1".into()));
        let expected = [ServerEdit::Remove("10.0.0.1:1".into()), ServerEdit::Add(server(2, 5))];
        assert_eq!(b.merge(&a), expected);
    }

    #[test]
    fn overrides_take_precedence_over_the_configuration() {
        let mut changes = ServiceOverrides::default();
        let file = [server(1, 1), server(2, 2)];
        changes.record(&weight(1, 7));
        changes.record(&ServerEdit::Remove("10.0.0.1:2".into()));
        changes.record(&ServerEdit::Add(server(3, 3)));
        changes.record(&drain(3));
        let desired = |server, state| DesiredServer { config: server, state };
        let expected = [
            desired(server(1, 7), BackendAdminState::Enabled),
            desired(server(3, 3), BackendAdminState::Draining),
        ];
        assert_eq!(changes.apply_to(&file), expected);
        changes.record(&ServerEdit::Add(server(2, 5)));
        assert_eq!(changes.apply_to(&file)[1], desired(server(2, 5), BackendAdminState::Enabled));
    }

    #[test]
    fn overrides_of_removed_servers_are_bounded() {
        let mut changes = ServiceOverrides::default();
        changes.record(&ServerEdit::Remove("10.0.0.1:65535".into()));
        for port in 1..2_000 {
            changes.record(&ServerEdit::Add(server(port, 1)));
            changes.record(&ServerEdit::Remove(format!("10.0.0.1:{port}")));
            changes.prune_removed(&[server(65_535, 1)]);
        }
        assert_eq!(changes.servers.len(), MAX_REMOVED_OVERRIDES + 1);
        assert!(changes.contains("10.0.0.1:65535") && changes.contains("10.0.0.1:1999"));
    }

    #[test]
    fn a_new_configuration_drops_the_overrides_of_what_it_changes_only() {
        let mut changes = ServiceOverrides::default();
        changes.record(&weight(1, 7));
        changes.record(&drain(1));
        changes.record(&drain(2));
        changes.record(&ServerEdit::Remove("10.0.0.1:4".into()));
        changes.record(&ServerEdit::Add(server(3, 3)));
        let before = [server(1, 1), server(2, 1), server(4, 1)];
        let mut same = changes.clone();
        same.rebase(&before, &before);
        assert_eq!(same, changes);
        changes.rebase(&before, &[server(1, 2), server(3, 1), server(4, 1)]);
        let desired = |server, state| DesiredServer { config: server, state };
        let expected = [
            desired(server(1, 2), BackendAdminState::Draining),
            desired(server(3, 1), BackendAdminState::Enabled),
        ];
        assert_eq!(changes.apply_to(&[server(1, 2), server(3, 1), server(4, 1)]), expected);
        assert!(!changes.contains("10.0.0.1:2") && !changes.contains("10.0.0.1:3"));
    }
}
