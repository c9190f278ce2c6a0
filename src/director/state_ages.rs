//! How long each service and each server has had its state.
//!
//! The states are looked at with each sample of the traffic, so that an age is exact to a second, and
//! nothing has to tell of a change.

use std::collections::BTreeMap;
use std::net::SocketAddr;
use std::time::{Duration, Instant};

use serde::Serialize;

use crate::BackendId;
use crate::backend::{BackendState, Snapshot};

/// The state of a service, which follows from those of its servers.
#[derive(Clone, Copy, Debug, Eq, Ord, PartialEq, PartialOrd, Serialize)]
#[serde(rename_all = "lowercase")]
#[non_exhaustive]
pub enum ServiceState {
    /// No server is eligible, or the healthy servers do not meet the quorum.
    Down,
    /// It serves, and a check or outlier detection keeps a server out, or health is ignored.
    Degraded,
    /// It serves. Servers that operators keep out do not count. A service whose `server_names` lead to
    /// others alone is always up; they have states of their own.
    Up,
}

impl ServiceState {
    pub(super) fn of(snapshot: &Snapshot<SocketAddr>) -> Self {
        let has = |states: &[BackendState]| {
            snapshot.members().iter().any(|member| states.contains(&member.state()))
        };
        if !snapshot.has_quorum() || !has(&[BackendState::Eligible]) {
            Self::Down
        } else if snapshot.is_panicking() || has(&[BackendState::Down, BackendState::Ejected]) {
            Self::Degraded
        } else {
            Self::Up
        }
    }
}

/// The states of one service and its servers, each with the time since when.
#[derive(Clone, Debug, Default)]
pub(super) struct StateAges {
    /// The publication that was looked at last: the servers' states change with the next one at the
    /// earliest.
    generation: Option<u64>,
    service: Option<(ServiceState, Instant)>,
    servers: BTreeMap<BackendId, (BackendState, Instant)>,
}

impl StateAges {
    /// Looks at the states of this moment.
    pub(super) fn observe(
        &mut self,
        state: ServiceState,
        snapshot: &Snapshot<SocketAddr>,
        now: Instant,
    ) {
        if self.service.is_none_or(|(known, _)| known != state) {
            self.service = Some((state, now));
        }
        if self.generation.replace(snapshot.generation()) == Some(snapshot.generation()) {
            return;
        }
        let mut before = std::mem::take(&mut self.servers);
        let servers = snapshot.iter().map(|(backend, member)| {
            let known = before.remove(backend.id()).filter(|(known, _)| *known == member.state());
            (backend.id().clone(), known.unwrap_or((member.state(), now)))
        });
        self.servers = servers.collect();
    }

    /// Returns how long the service has been in a state; zero if the state is new.
    pub(super) fn service_age(&self, state: ServiceState, now: Instant) -> Duration {
        age(self.service.as_ref(), state, now)
    }

    /// Returns how long a server has been in a state; zero if the state is new.
    pub(super) fn server_age(
        &self,
        server: &BackendId,
        state: BackendState,
        now: Instant,
    ) -> Duration {
        age(self.servers.get(server), state, now)
    }
}

fn age<S: Copy + PartialEq>(known: Option<&(S, Instant)>, state: S, now: Instant) -> Duration {
    let known = known.filter(|(known, _)| *known == state);
    known.map_or(Duration::ZERO, |(_, since)| now.saturating_duration_since(*since))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::backend::{BackendAdminState, BackendSet, Health, Spec};

    #[test]
    fn an_age_begins_when_a_state_is_seen_first() {
        let set = BackendSet::new();
        let servers = [1, 2].map(|port| SocketAddr::from(([10, 0, 0, 1], port)));
        set.edit(|edit| {
            servers.iter().try_for_each(|server| edit.insert(Spec::from(*server)).map(drop))
        })
        .expect("the servers are new");
        let [a, b] = servers.map(|server| BackendId::from(&*server.to_string()));
        let start = crate::director::time::tokio_now();
        let at = |seconds| start + Duration::from_secs(seconds);
        let mut ages = StateAges::default();
        let observe = |ages: &mut StateAges, seconds| {
            let snapshot = set.snapshot();
            ages.observe(ServiceState::of(&snapshot), &snapshot, at(seconds));
        };
        observe(&mut ages, 0);
        observe(&mut ages, 5);
        assert_eq!(ages.service_age(ServiceState::Up, at(7)), Duration::from_secs(7));

        set.edit(|edit| edit.set_health(&a, Health::Down)).expect("the server exists");
        // Before the next look the new state has no age.
        assert_eq!(ages.server_age(&a, BackendState::Down, at(8)), Duration::ZERO);
        observe(&mut ages, 9);
        assert_eq!(ServiceState::of(&set.snapshot()), ServiceState::Degraded);
        assert_eq!(ages.service_age(ServiceState::Degraded, at(10)), Duration::from_secs(1));
        assert_eq!(ages.server_age(&a, BackendState::Down, at(12)), Duration::from_secs(3));
        assert_eq!(ages.server_age(&b, BackendState::Eligible, at(12)), Duration::from_secs(12));

        set.edit(|edit| edit.set_admin(&b, BackendAdminState::Draining)).expect("it exists");
        assert_eq!(ServiceState::of(&set.snapshot()), ServiceState::Down);
        set.edit(|edit| edit.remove(&a).map(drop)).expect("the server exists");
        observe(&mut ages, 20);
        assert_eq!(ages.server_age(&a, BackendState::Down, at(21)), Duration::ZERO);
    }
}
