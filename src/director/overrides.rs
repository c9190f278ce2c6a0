//! What an operator has changed by hand, over what the configuration says.

use std::collections::BTreeMap;
use std::net::SocketAddr;

use serde::{Deserialize, Serialize};

use super::config::RealServer;
use crate::backend::BackendAdminState;

/// A change of one server, by hand.
#[derive(Clone, Copy, Debug, Default, Deserialize, Eq, PartialEq, Serialize)]
#[serde(deny_unknown_fields)]
#[non_exhaustive]
pub struct ServerChange {
    /// Its weight; 0 quiesces it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub weight: Option<u32>,
    /// What it may do.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub state: Option<AdminState>,
}

impl ServerChange {
    /// Its weight, and nothing else.
    #[must_use]
    pub fn weight(weight: u32) -> Self {
        Self { weight: Some(weight), state: None }
    }

    /// What it may do, and nothing else.
    #[must_use]
    pub fn state(state: AdminState) -> Self {
        Self { weight: None, state: Some(state) }
    }
}

/// What a server may do.
#[derive(Clone, Copy, Debug, Default, Deserialize, Eq, PartialEq, Serialize)]
#[serde(rename_all = "lowercase")]
pub enum AdminState {
    /// Serve.
    #[default]
    Up,
    /// Go on with what it has, and take nothing new.
    Drain,
    /// Nothing.
    Down,
}

impl From<AdminState> for BackendAdminState {
    fn from(wanted: AdminState) -> Self {
        match wanted {
            AdminState::Up => Self::Enabled,
            AdminState::Drain => Self::Draining,
            AdminState::Down => Self::Disabled,
        }
    }
}

/// One thing that is done by hand.
#[derive(Clone, Debug, Eq, PartialEq)]
pub(super) enum ServerEdit {
    Change(String, ServerChange),
    Add(RealServer),
    Remove(String),
}

/// What has been changed in one service, by server, with a number for each change: of two directors'
/// the higher one is the later.
#[derive(Clone, Debug, Default, Deserialize, Eq, PartialEq, Serialize)]
pub(super) struct ServiceOverrides {
    servers: BTreeMap<String, (u64, ServerOverride)>,
}

/// Servers that are gone and remembered.
const MAX_REMOVED_OVERRIDES: usize = 256;

/// What has been changed of one server.
#[derive(Clone, Debug, Default, Deserialize, Eq, PartialEq, Serialize)]
struct ServerOverride {
    change: ServerChange,
    /// It is there, or is not, whatever the configuration says.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    presence: Option<PresenceOverride>,
}

#[derive(Clone, Debug, Deserialize, Eq, PartialEq, Serialize)]
#[serde(rename_all = "lowercase")]
enum PresenceOverride {
    Added(RealServer),
    Removed,
}

/// What a server is to be, all in all.
#[derive(Clone, Debug, Eq, PartialEq)]
pub(super) struct DesiredServer {
    pub(super) config: RealServer,
    pub(super) state: AdminState,
}

impl ServiceOverrides {
    /// Notes what is done, over what was before.
    pub(super) fn record(&mut self, edit: &ServerEdit) {
        let number = self.servers.values().map(|(number, _)| *number).max().unwrap_or(0) + 1;
        let name = match edit {
            ServerEdit::Change(server, _) | ServerEdit::Remove(server) => server.clone(),
            ServerEdit::Add(server) => server.address.to_string(),
        };
        let (at, hand) = self.servers.entry(name).or_default();
        *at = number;
        match edit {
            ServerEdit::Change(_, change) => {
                hand.change.weight = change.weight.or(hand.change.weight);
                hand.change.state = change.state.or(hand.change.state);
            }
            ServerEdit::Add(server) => {
                let presence = Some(PresenceOverride::Added(server.clone()));
                *hand = ServerOverride { change: ServerChange::default(), presence };
            }
            ServerEdit::Remove(_) => {
                *hand = ServerOverride {
                    change: ServerChange::default(),
                    presence: Some(PresenceOverride::Removed),
                };
            }
        }
    }

    /// Forgets servers that were added by hand and taken out again, but for the latest: the standby
    /// must be told of those.
    pub(super) fn prune_removed(&mut self, configured: &[RealServer]) {
        let is_gone = |(name, (_, hand)): &(&String, &(u64, ServerOverride))| {
            hand.presence == Some(PresenceOverride::Removed)
                && !configured.iter().any(|it| it.address.to_string() == **name)
        };
        let gone = self.servers.iter().filter(is_gone);
        let mut gone: Vec<_> = gone.map(|(name, (number, _))| (*number, name.clone())).collect();
        gone.sort_unstable();
        let old = gone.len().saturating_sub(MAX_REMOVED_OVERRIDES);
        for (_, name) in gone.into_iter().take(old) {
            self.servers.remove(&name);
        }
    }

    /// Takes over what is later with somebody else; `true` if there was anything.
    pub(super) fn merge(&mut self, other: &Self) -> bool {
        let mut is_news = false;
        for (server, (number, hand)) in &other.servers {
            if self.servers.get(server).is_none_or(|(known, _)| known < number) {
                self.servers.insert(server.clone(), (*number, hand.clone()));
                is_news = true;
            }
        }
        is_news
    }

    /// Forgets what the configuration has changed since: the file that was written later goes before
    /// the hand.
    pub(super) fn rebase(&mut self, before: &[RealServer], after: &[RealServer]) {
        let find = |all: &[RealServer], name: &str| {
            all.iter().find(|server| server.address.to_string() == name).cloned()
        };
        self.servers.retain(|name, (_, hand)| {
            match (find(before, name), find(after, name)) {
                // It left the file, and takes all with it.
                (Some(_), None) => return false,
                (None, Some(_)) => {
                    hand.presence = None;
                    hand.change.weight = None;
                }
                (Some(before), Some(after)) if before != after => {
                    hand.presence = None;
                    if before.weight != after.weight {
                        hand.change.weight = None;
                    }
                }
                _ => {}
            }
            *hand != ServerOverride::default()
        });
    }

    /// What the servers are to be: those of the configuration in its order, then those added by hand.
    pub(super) fn apply_to(&self, configured: &[RealServer]) -> Vec<DesiredServer> {
        let mut servers: Vec<RealServer> = Vec::new();
        for server in configured {
            match self.presence(&server.address) {
                None => servers.push(server.clone()),
                Some(PresenceOverride::Added(instead)) => servers.push(instead.clone()),
                Some(PresenceOverride::Removed) => {}
            }
        }
        for (_, hand) in self.servers.values() {
            if let Some(PresenceOverride::Added(server)) = &hand.presence
                && !configured.iter().any(|it| it.address == server.address)
            {
                servers.push(server.clone());
            }
        }
        let finished = servers.into_iter().map(|mut server| {
            let change = self.server_change(&server.address.to_string());
            server.weight = change.weight.unwrap_or(server.weight);
            DesiredServer { config: server, state: change.state.unwrap_or_default() }
        });
        finished.collect()
    }

    fn presence(&self, server: &SocketAddr) -> Option<&PresenceOverride> {
        self.servers.get(&server.to_string()).and_then(|(_, hand)| hand.presence.as_ref())
    }

    /// What has been changed of a server.
    pub(super) fn server_change(&self, server: &str) -> ServerChange {
        self.servers.get(server).map(|(_, hand)| hand.change).unwrap_or_default()
    }

    /// Every server that something was changed of.
    pub(super) fn iter(&self) -> impl Iterator<Item = (&str, ServerChange)> {
        self.servers.iter().map(|(server, (_, hand))| (&**server, hand.change))
    }

    /// Has anything been done to a server by hand?
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
        ServerEdit::Change(format!("10.0.0.1:{port}"), ServerChange::weight(weight))
    }

    fn drain(port: u16) -> ServerEdit {
        ServerEdit::Change(format!("10.0.0.1:{port}"), ServerChange::state(AdminState::Drain))
    }

    #[test]
    fn the_later_change_wins_and_what_it_leaves_open_stays() {
        let (mut a, mut b) = (ServiceOverrides::default(), ServiceOverrides::default());
        a.record(&weight(1, 3));
        assert!(b.merge(&a));
        assert!(!b.merge(&a), "it is known");
        b.record(&drain(1));
        assert!(a.merge(&b));
        let both = ServerChange { weight: Some(3), state: Some(AdminState::Drain) };
        assert_eq!(a.server_change("10.0.0.1:1"), both);
        assert!(!b.merge(&a));
        assert_eq!(a, b);
    }

    #[test]
    fn what_is_done_by_hand_lies_over_the_configuration() {
        let mut changes = ServiceOverrides::default();
        let file = [server(1, 1), server(2, 2)];
        changes.record(&weight(1, 7));
        changes.record(&ServerEdit::Remove("10.0.0.1:2".into()));
        changes.record(&ServerEdit::Add(server(3, 3)));
        changes.record(&drain(3));
        let is = |server, state| DesiredServer { config: server, state };
        let all = [is(server(1, 7), AdminState::Up), is(server(3, 3), AdminState::Drain)];
        assert_eq!(changes.apply_to(&file), all);
        changes.record(&ServerEdit::Add(server(2, 5)));
        assert_eq!(changes.apply_to(&file)[1], is(server(2, 5), AdminState::Up));
    }

    #[test]
    fn servers_that_come_and_go_are_forgotten() {
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
    fn what_the_file_changes_goes_before_the_hand_and_nothing_else_does() {
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
        let is = |server, state| DesiredServer { config: server, state };
        let all = [is(server(1, 2), AdminState::Drain), is(server(3, 1), AdminState::Up)];
        assert_eq!(changes.apply_to(&[server(1, 2), server(3, 1), server(4, 1)]), all);
        assert!(!changes.contains("10.0.0.1:2") && !changes.contains("10.0.0.1:3"));
    }
}
