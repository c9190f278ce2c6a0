//! The directors, which all serve.

use std::collections::BTreeMap;
use std::net::Ipv6Addr;

use crate::machines::{Process, Signal, until};
use crate::traffic::start_echo_server;
use crate::world::{Carrier, DIRECTORS, Daemon, World};

/// Three directors, a router, and two servers.
pub(crate) struct Cluster {
    /// Before their world.
    directors: BTreeMap<&'static str, Process>,
    pub(crate) world: World,
}

impl Cluster {
    /// Starts all, and waits until the router uses all directors; `None` without root or a program.
    pub(crate) fn start(daemon: Daemon, with_bfd: bool, more: &str) -> Option<Self> {
        Self::start_with(daemon, with_bfd, Carrier::Proxy, more)
    }

    /// As [`start`](Self::start), with another engine.
    pub(crate) fn start_with(
        daemon: Daemon,
        with_bfd: bool,
        carrier: Carrier,
        more: &str,
    ) -> Option<Self> {
        let mut world = World::new(daemon, with_bfd, carrier)?;
        for side in ["w", "v"] {
            // On all addresses, those that they have in common included.
            world.servers(side, Ipv6Addr::UNSPECIFIED.into(), &[80]);
            start_echo_server(&world, side);
        }
        let directors = DIRECTORS.map(|side| (side, world.director(side, more))).into();
        world.until_served_by(&DIRECTORS);
        Some(Self { directors, world })
    }

    pub(crate) fn start_director(&mut self, side: &'static str) {
        self.directors.insert(side, self.world.director(side, ""));
    }

    /// Stops a director in order.
    pub(crate) fn stop(&mut self, side: &str) {
        self.directors.get_mut(side).expect("a director").stop();
    }

    /// Asks a director to stop.
    pub(crate) fn signal_stop(&self, side: &str) {
        self.directors[side].signal(Signal::TERM);
    }

    /// Kills a director's process.
    pub(crate) fn kill(&mut self, side: &str) {
        self.directors.get_mut(side).expect("a director").kill();
    }

    /// Waits until a director has this state of its addresses.
    #[track_caller]
    pub(crate) fn until_state(&self, side: &str, state: &str) {
        until(&format!("{side} is {state}"), || {
            let status = self.world.status(side);
            status.is_some_and(|status| {
                let addresses = status["announce"]["addresses"].as_array().cloned();
                addresses.is_some_and(|all| all.iter().all(|address| address["state"] == state))
            })
        });
    }

    /// Makes all servers of a director up or down, by hand.
    pub(crate) fn set_servers(&self, side: &str, state: &str) {
        for (service, servers) in self.world.checked_services() {
            let change = |server: &&str| format!(r#""{server}": {{"state": "{state}"}}"#);
            let changes: Vec<_> = servers.iter().map(change).collect();
            let path = format!("/api/v1/services/{service}/servers");
            self.change(side, &path, &format!("{{{}}}", changes.join(", ")));
        }
    }

    /// Changes the weight of a director's first server, by hand.
    pub(crate) fn set_weight(&self, side: &str, weight: u32) {
        let (service, [server, _]) = self.world.checked_services()[0];
        let path = format!("/api/v1/services/{service}/servers/{server}");
        self.change(side, &path, &format!(r#"{{"weight": {weight}}}"#));
    }

    /// Sets the mode of a director's announcements.
    pub(crate) fn set_mode(&self, side: &str, mode: &str) {
        self.change(side, "/api/v1/announce", &format!(r#"{{"mode": "{mode}"}}"#));
    }

    fn change(&self, side: &str, path: &str, body: &str) {
        let answer = self.world.patch(side, path, body);
        assert!(answer.starts_with("HTTP/1.1 204"), "{answer}");
    }
}
