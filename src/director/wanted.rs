//! What an operator has changed by hand, over what the configuration says.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};

use crate::backend::Admin;

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
    pub state: Option<Wanted>,
}

impl ServerChange {
    /// Its weight, and nothing else.
    #[must_use]
    pub fn weight(weight: u32) -> Self {
        Self { weight: Some(weight), state: None }
    }

    /// What it may do, and nothing else.
    #[must_use]
    pub fn state(state: Wanted) -> Self {
        Self { weight: None, state: Some(state) }
    }
}

/// What a server may do.
#[derive(Clone, Copy, Debug, Deserialize, Eq, PartialEq, Serialize)]
#[serde(rename_all = "lowercase")]
pub enum Wanted {
    /// Serve.
    Up,
    /// Go on with what it has, and take nothing new.
    Drain,
    /// Nothing.
    Down,
}

impl From<Wanted> for Admin {
    fn from(wanted: Wanted) -> Self {
        match wanted {
            Wanted::Up => Self::Enabled,
            Wanted::Drain => Self::Draining,
            Wanted::Down => Self::Disabled,
        }
    }
}

/// What has been changed in one service, by server, with a number for each change: of two directors'
/// the higher one is the later.
#[derive(Clone, Debug, Default, Deserialize, Eq, PartialEq, Serialize)]
pub(super) struct Changes {
    servers: BTreeMap<String, (u64, ServerChange)>,
}

impl Changes {
    /// Notes what is changed, over what was before.
    pub(super) fn note(&mut self, server: &str, change: ServerChange) {
        let number = self.servers.values().map(|(number, _)| *number).max().unwrap_or(0) + 1;
        let (_, before) = self.servers.get(server).copied().unwrap_or_default();
        let change = ServerChange {
            weight: change.weight.or(before.weight),
            state: change.state.or(before.state),
        };
        self.servers.insert(server.to_owned(), (number, change));
    }

    /// Takes over what is later with somebody else; tells what that is.
    pub(super) fn merge(&mut self, other: &Self) -> Vec<(String, ServerChange)> {
        let mut news = Vec::new();
        for (server, (number, change)) in &other.servers {
            if self.servers.get(server).is_none_or(|(known, _)| known < number) {
                self.servers.insert(server.clone(), (*number, *change));
                news.push((server.clone(), *change));
            }
        }
        news
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_later_change_wins_and_what_it_leaves_open_stays() {
        let (mut a, mut b) = (Changes::default(), Changes::default());
        a.note("one", ServerChange::weight(3));
        assert_eq!(b.merge(&a).len(), 1);
        assert!(b.merge(&a).is_empty(), "it is known");
        b.note("one", ServerChange::state(Wanted::Drain));
        let news = a.merge(&b);
        let both = ServerChange { weight: Some(3), state: Some(Wanted::Drain) };
        assert_eq!(news, [("one".to_owned(), both)]);
        assert!(b.merge(&a).is_empty());
        assert_eq!(a, b);
    }
}
