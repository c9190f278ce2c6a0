//! Changes of servers by operators, which override the configuration.

use std::collections::BTreeMap;
use std::fmt;
use std::net::SocketAddr;

use serde::{Deserialize, Serialize};

use super::config::RealServer;
use super::time::unix_millis;
use crate::backend::{BackendAdminState, Limits};

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
    /// The new maximum of concurrent connections; 0 means no limit.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub max_connections: Option<u32>,
    /// The new number of connections below which a full server gets new ones again; 0 means three
    /// quarters of the maximum.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub resume_connections: Option<u32>,
    /// The new tier for the `priority` scheduler.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub tier: Option<u8>,
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

    /// Returns this change with a new maximum of concurrent connections; 0 means no limit.
    #[must_use]
    pub fn with_max_connections(self, max_connections: u32) -> Self {
        Self { max_connections: Some(max_connections), ..self }
    }

    /// Returns this change with a new number of connections below which a full server gets new ones
    /// again; 0 means three quarters of the maximum.
    #[must_use]
    pub fn with_resume_connections(self, resume_connections: u32) -> Self {
        Self { resume_connections: Some(resume_connections), ..self }
    }

    /// Returns this change with a new tier for the `priority` scheduler.
    #[must_use]
    pub fn with_tier(self, tier: u8) -> Self {
        Self { tier: Some(tier), ..self }
    }

    /// Returns what this change leaves of another one that was made before it.
    fn on_top_of(self, before: Self) -> Self {
        Self {
            weight: self.weight.or(before.weight),
            state: self.state.or(before.state),
            max_connections: self.max_connections.or(before.max_connections),
            resume_connections: self.resume_connections.or(before.resume_connections),
            tier: self.tier.or(before.tier),
        }
    }

    /// Returns limits with this change applied, or `None` if it does not change them.
    pub(super) fn changed_limits(self, before: Limits) -> Option<Limits> {
        if self.max_connections.is_none() && self.resume_connections.is_none() {
            return None;
        }
        let limits = Limits::new(self.max_connections.unwrap_or(before.max_connections()));
        Some(limits.with_resume_below(self.resume_connections.unwrap_or(before.resume_below())))
    }
}

impl fmt::Display for ServerChange {
    /// Writes what is set, such as `weight 3, state drain`.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let state = self.state.map(|state| match state {
            BackendAdminState::Enabled => "state up",
            BackendAdminState::Draining => "state drain",
            BackendAdminState::Disabled => "state down",
        });
        let parts = [
            self.weight.map(|weight| format!("weight {weight}")),
            state.map(str::to_owned),
            self.max_connections.map(|max| format!("max_connections {max}")),
            self.resume_connections.map(|resume| format!("resume_connections {resume}")),
            self.tier.map(|tier| format!("tier {tier}")),
        ];
        let parts: Vec<_> = parts.into_iter().flatten().collect();
        f.write_str(if parts.is_empty() { "what it was" } else { "" })?;
        f.write_str(&parts.join(", "))
    }
}

/// Who changed a server by hand, and when.
#[derive(Clone, Debug, Deserialize, Eq, PartialEq, Serialize)]
#[non_exhaustive]
pub struct ChangeStamp {
    /// The way by which the change came, as [`ChangeOrigin`](super::ChangeOrigin) writes it, such as
    /// `alice at 127.0.0.1:40312`.
    pub by: String,
    /// The time of the change, in milliseconds since 1970.
    pub at_ms: u64,
}

impl ChangeStamp {
    /// Returns the stamp of a change that somebody makes now.
    pub(super) fn now(by: impl Into<String>) -> Self {
        Self { by: by.into(), at_ms: unix_millis() }
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
    /// Who edited the server last.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    stamp: Option<ChangeStamp>,
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
    pub(super) fn record(&mut self, edit: &ServerEdit, stamp: &ChangeStamp) {
        let number = self.servers.values().map(|(number, _)| *number).max().unwrap_or(0) + 1;
        let name = match edit {
            ServerEdit::Change(server, _) | ServerEdit::Remove(server) => server.clone(),
            ServerEdit::Add(server) => server.address.to_string(),
        };
        let (latest, server) = self.servers.entry(name).or_default();
        *latest = number;
        match edit {
            ServerEdit::Change(_, change) => server.change = change.on_top_of(server.change),
            ServerEdit::Add(added) => {
                let presence = Some(PresenceOverride::Added(added.clone()));
                *server = ServerOverride { presence, ..ServerOverride::default() };
            }
            ServerEdit::Remove(_) => {
                let presence = Some(PresenceOverride::Removed);
                *server = ServerOverride { presence, ..ServerOverride::default() };
            }
        }
        server.stamp = Some(stamp.clone());
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
                    let state = server.change.state;
                    server.change = ServerChange { state, ..ServerChange::default() };
                }
                (Some(before), Some(after)) if before != after => {
                    server.presence = None;
                    let change = &mut server.change;
                    if before.weight != after.weight {
                        change.weight = None;
                    }
                    if before.limits() != after.limits() {
                        (change.max_connections, change.resume_connections) = (None, None);
                    }
                    if before.tier != after.tier {
                        change.tier = None;
                    }
                }
                _ => {}
            }
            server.presence.is_some() || server.change != ServerChange::default()
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
            server.tier = change.tier.unwrap_or(server.tier);
            if let Some(limits) = change.changed_limits(server.limits()) {
                server.max_connections = Some(limits.max_connections());
                server.resume_connections = Some(limits.resume_below());
            }
            DesiredServer { config: server, state: change.state.unwrap_or_default() }
        });
        desired.collect()
    }

    fn presence(&self, server: &SocketAddr) -> Option<&PresenceOverride> {
        self.servers.get(&server.to_string()).and_then(|(_, server)| server.presence.as_ref())
    }

    /// Returns what operators have set for a server.
    pub(super) fn server_change(&self, server: &str) -> ServerChange {
        self.servers.get(server).map(|(_, server)| server.change).unwrap_or_default()
    }

    /// Iterates over the servers that have overrides.
    pub(super) fn iter(&self) -> impl Iterator<Item = (&str, ServerChange)> {
        self.servers.iter().map(|(name, (_, server))| (&**name, server.change))
    }

    /// Returns who edited a server last, if it has an override.
    pub(super) fn stamp(&self, server: &str) -> Option<&ChangeStamp> {
        self.servers.get(server)?.1.stamp.as_ref()
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

    fn stamp() -> ChangeStamp {
        ChangeStamp { by: "alice".to_owned(), at_ms: 7 }
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
        a.record(&weight(1, 3), &stamp());
        assert_eq!(b.merge(&a), [weight(1, 3)]);
        assert_eq!(b.merge(&a), [], "the override is known already");
        b.record(&drain(1), &stamp());
        let both = ServerChange::new().with_weight(3).with_state(BackendAdminState::Draining);
        assert_eq!(a.merge(&b), [ServerEdit::Change("10.0.0.1:1".into(), both)]);
        assert_eq!(a.server_change("10.0.0.1:1"), both);
        assert_eq!(b.merge(&a), []);
        assert_eq!(a, b);
        a.record(&ServerEdit::Add(server(2, 5)), &stamp());
        a.record(&ServerEdit::Remove("10.0.0.1:1".into()), &stamp());
        let expected = [ServerEdit::Remove("10.0.0.1:1".into()), ServerEdit::Add(server(2, 5))];
        assert_eq!(b.merge(&a), expected);
        assert_eq!(b.stamp("10.0.0.1:1"), Some(&stamp()));
    }

    #[test]
    fn limits_are_changed_one_by_one_until_the_file_changes_them() {
        let edit = |change| ServerEdit::Change("10.0.0.1:1".to_owned(), change);
        let mut changes = ServiceOverrides::default();
        let mut file = server(1, 1);
        file.max_connections = Some(100);
        changes.record(&edit(ServerChange::new().with_resume_connections(5)), &stamp());
        let limits = |changes: &ServiceOverrides, file: &RealServer| {
            let desired = changes.apply_to(std::slice::from_ref(file)).remove(0).config;
            (desired.limits().max_connections(), desired.limits().resume_below(), desired.tier)
        };
        assert_eq!(limits(&changes, &file), (100, 5, 0));
        let change = ServerChange::new().with_max_connections(20).with_tier(2);
        changes.record(&edit(change), &stamp());
        assert_eq!(limits(&changes, &file), (20, 5, 2));
        let mut newer = file.clone();
        newer.max_connections = Some(50);
        changes.rebase(std::slice::from_ref(&file), std::slice::from_ref(&newer));
        assert_eq!(limits(&changes, &newer), (50, 0, 2));
        assert_eq!(change.to_string(), "max_connections 20, tier 2");
        assert_eq!(ServerChange::new().to_string(), "what it was");
    }

    #[test]
    fn overrides_take_precedence_over_the_configuration() {
        let mut changes = ServiceOverrides::default();
        let file = [server(1, 1), server(2, 2)];
        changes.record(&weight(1, 7), &stamp());
        changes.record(&ServerEdit::Remove("10.0.0.1:2".into()), &stamp());
        changes.record(&ServerEdit::Add(server(3, 3)), &stamp());
        changes.record(&drain(3), &stamp());
        let desired = |server, state| DesiredServer { config: server, state };
        let expected = [
            desired(server(1, 7), BackendAdminState::Enabled),
            desired(server(3, 3), BackendAdminState::Draining),
        ];
        assert_eq!(changes.apply_to(&file), expected);
        changes.record(&ServerEdit::Add(server(2, 5)), &stamp());
        assert_eq!(changes.apply_to(&file)[1], desired(server(2, 5), BackendAdminState::Enabled));
    }

    #[test]
    fn overrides_of_removed_servers_are_bounded() {
        let mut changes = ServiceOverrides::default();
        changes.record(&ServerEdit::Remove("10.0.0.1:65535".into()), &stamp());
        for port in 1..2_000 {
            changes.record(&ServerEdit::Add(server(port, 1)), &stamp());
            changes.record(&ServerEdit::Remove(format!("10.0.0.1:{port}")), &stamp());
            changes.prune_removed(&[server(65_535, 1)]);
        }
        assert_eq!(changes.servers.len(), MAX_REMOVED_OVERRIDES + 1);
        assert!(changes.contains("10.0.0.1:65535") && changes.contains("10.0.0.1:1999"));
    }

    #[test]
    fn a_new_configuration_drops_the_overrides_of_what_it_changes_only() {
        let mut changes = ServiceOverrides::default();
        changes.record(&weight(1, 7), &stamp());
        changes.record(&drain(1), &stamp());
        changes.record(&drain(2), &stamp());
        changes.record(&ServerEdit::Remove("10.0.0.1:4".into()), &stamp());
        changes.record(&ServerEdit::Add(server(3, 3)), &stamp());
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
