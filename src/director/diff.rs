//! What a reload has to do: what is desired against what is there, as pure functions.

use std::fmt;
use std::net::SocketAddr;

use super::config::{DirectorConfig, ServiceConfig};
use super::overrides::{AdminState, DesiredServer};
use crate::backend::Limits;

/// What is to be done with one server.
#[derive(Clone, Debug, Eq, PartialEq)]
pub(super) enum ServerStep {
    Add(DesiredServer),
    Remove(SocketAddr),
    Weight(SocketAddr, u32),
    Limits(SocketAddr, Limits),
    Tier(SocketAddr, u8),
    State(SocketAddr, AdminState),
}

/// What makes the servers that are those that are to be. In this order they may be carried out.
pub(super) fn diff_servers(before: &[DesiredServer], after: &[DesiredServer]) -> Vec<ServerStep> {
    let find = |all: &[DesiredServer], address| {
        all.iter().find(|it| it.config.address == address).cloned()
    };
    let gone = before.iter().filter(|it| find(after, it.config.address).is_none());
    let mut steps: Vec<_> = gone.map(|it| ServerStep::Remove(it.config.address)).collect();
    // In their order, as `ipvsadm` would add them: for the kernel's rules the last one is the first.
    for server in after {
        let address = server.config.address;
        let Some(was) = find(before, address) else {
            steps.push(ServerStep::Add(server.clone()));
            continue;
        };
        if was.config.weight != server.config.weight {
            steps.push(ServerStep::Weight(address, server.config.weight));
        }
        if was.config.limits() != server.config.limits() {
            steps.push(ServerStep::Limits(address, server.config.limits()));
        }
        if was.config.tier != server.config.tier {
            steps.push(ServerStep::Tier(address, server.config.tier));
        }
        if was.state != server.state {
            steps.push(ServerStep::State(address, server.state));
        }
    }
    steps
}

/// What a new configuration changes.
#[derive(Clone, Debug, Default, Eq, PartialEq)]
pub(super) struct ReloadPlan {
    pub(super) services: Vec<(String, ServiceStep)>,
    pub(super) admin: bool,
    pub(super) vrrp: bool,
    pub(super) sync: bool,
    pub(super) handover: bool,
}

/// What becomes of a service.
#[derive(Clone, Debug, Eq, PartialEq)]
pub(super) enum ServiceStep {
    Add,
    Remove,
    Change(ServiceDiff),
}

/// What of a service is to be touched; nothing else is.
#[derive(Clone, Copy, Debug, Default, Eq, PartialEq)]
pub(super) struct ServiceDiff {
    pub(super) servers: bool,
    pub(super) discovery: bool,
    pub(super) scheduler: bool,
    /// Slow start, fail mode, quorum.
    pub(super) set_rules: bool,
    pub(super) health: bool,
    pub(super) persistence: bool,
    /// How it is carried: options of sockets, limits, timeouts, threads.
    pub(super) forwarding: bool,
    pub(super) listen: bool,
}

impl ReloadPlan {
    /// What leads from one configuration to another.
    pub(super) fn new(before: &DirectorConfig, after: &DirectorConfig) -> Self {
        let mut services = Vec::new();
        for was in &before.services {
            if !after.services.iter().any(|it| is_same_service(was, it)) {
                services.push((was.name.clone(), ServiceStep::Remove));
            }
        }
        for is in &after.services {
            match before.services.iter().find(|was| is_same_service(was, is)) {
                None => services.push((is.name.clone(), ServiceStep::Add)),
                Some(was) => {
                    let mut change = ServiceDiff::new(was, is);
                    change.forwarding |= is.effective_workers(after.workers)
                        != was.effective_workers(before.workers)
                        || after.log.connections != before.log.connections;
                    if change != ServiceDiff::default() {
                        services.push((is.name.clone(), ServiceStep::Change(change)));
                    }
                }
            }
        }
        Self {
            services,
            admin: before.admin != after.admin,
            vrrp: before.vrrp != after.vrrp,
            sync: before.sync != after.sync,
            handover: before.handover() != after.handover(),
        }
    }
}

/// Is a service the same one, however it has changed?
fn is_same_service(one: &ServiceConfig, other: &ServiceConfig) -> bool {
    one.name == other.name && one.protocol == other.protocol
}

impl ServiceDiff {
    fn new(was: &ServiceConfig, is: &ServiceConfig) -> Self {
        Self {
            servers: was.servers != is.servers,
            discovery: was.discovery != is.discovery,
            scheduler: was.scheduler != is.scheduler,
            set_rules: (&was.slow_start, was.fail_mode, was.quorum)
                != (&is.slow_start, is.fail_mode, is.quorum),
            health: (&was.health, &was.ejection) != (&is.health, &is.ejection),
            persistence: was.persistence != is.persistence,
            forwarding: (&was.tcp, &was.udp, was.sorry_server)
                != (&is.tcp, &is.udp, is.sorry_server),
            listen: was.listen != is.listen,
        }
    }

    /// All of a service that is new.
    pub(super) const ALL_OF_NEW_SERVICE: Self = Self {
        servers: false,
        discovery: true,
        scheduler: false,
        set_rules: false,
        health: true,
        persistence: false,
        forwarding: true,
        listen: true,
    };

    /// Must the listeners be served by other forwarders?
    pub(super) fn needs_new_frontends(self) -> bool {
        self.forwarding || self.persistence
    }
}

impl fmt::Display for ReloadPlan {
    /// A line for each thing that changes.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let mut lines = Vec::new();
        for (name, step) in &self.services {
            lines.push(match step {
                ServiceStep::Add => format!("service {name}: added"),
                ServiceStep::Remove => format!("service {name}: removed"),
                ServiceStep::Change(change) => format!("service {name}: {change}"),
            });
        }
        let rest = [
            (self.admin, "[admin]"),
            (self.vrrp, "[vrrp]"),
            (self.sync, "[sync]"),
            (self.handover, "handover"),
        ];
        lines.extend(rest.iter().filter(|(is, _)| *is).map(|(_, what)| (*what).to_owned()));
        if lines.is_empty() {
            lines.push("nothing".to_owned());
        }
        f.write_str(&lines.join("\n"))
    }
}

impl fmt::Display for ServiceDiff {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let all = [
            (self.listen, "listen"),
            (self.servers, "servers"),
            (self.discovery, "discovery"),
            (self.scheduler, "scheduler"),
            (self.set_rules, "rules"),
            (self.health, "health"),
            (self.persistence, "persistence"),
            (self.forwarding, "carriage"),
        ];
        let said: Vec<_> = all.into_iter().filter(|(is, _)| *is).map(|(_, what)| what).collect();
        f.write_str(&said.join(", "))
    }
}

#[cfg(test)]
mod tests {
    use super::super::config::RealServer;
    use super::*;

    fn server(port: u16, weight: u32, state: AdminState) -> DesiredServer {
        let mut is = RealServer::new(SocketAddr::from(([10, 0, 0, 1], port)));
        is.weight = weight;
        DesiredServer { config: is, state }
    }

    #[test]
    fn servers_that_stay_are_touched_where_they_change() {
        let address = |port| SocketAddr::from(([10, 0, 0, 1], port));
        let before = [
            server(1, 1, AdminState::Up),
            server(2, 1, AdminState::Up),
            server(3, 1, AdminState::Up),
        ];
        let after = [
            server(4, 1, AdminState::Drain),
            server(1, 1, AdminState::Up),
            server(3, 5, AdminState::Down),
            server(5, 1, AdminState::Up),
        ];
        let steps = [
            ServerStep::Remove(address(2)),
            ServerStep::Add(server(4, 1, AdminState::Drain)),
            ServerStep::Weight(address(3), 5),
            ServerStep::State(address(3), AdminState::Down),
            ServerStep::Add(server(5, 1, AdminState::Up)),
        ];
        assert_eq!(diff_servers(&before, &after), steps);
        assert_eq!(diff_servers(&after, &after), []);
    }

    #[test]
    fn only_what_differs_is_planned() {
        let text = "[[service]]\nname = \"a\"\nlisten = \"127.0.0.1:1\"\n\
            [[service]]\nname = \"b\"\nlisten = \"127.0.0.1:2\"\nscheduler = \"rr\"\n";
        let plan = |text: &str, other: &str| {
            let read = |text| DirectorConfig::parse(text).expect("sound");
            ReloadPlan::new(&read(text), &read(other)).to_string()
        };
        assert_eq!(plan(text, text), "nothing");
        assert_eq!(plan(text, &text.replace("\"rr\"", "\"wrr\"")), "service b: scheduler");
        let other = text.replace("name = \"a\"", "name = \"c\"");
        assert_eq!(plan(text, &other), "service a: removed\nservice c: added");
        let other = text.replace("scheduler = \"rr\"", "scheduler = \"rr\"\nprotocol = \"udp\"");
        assert_eq!(plan(text, &other), "service b: removed\nservice b: added");
        let other = format!("workers = 1\n[admin]\nlisten = \"127.0.0.1:9\"\n{text}");
        assert_eq!(plan(text, &other), "service a: carriage\nservice b: carriage\n[admin]");
        let other = format!("{text}[service.tcp]\nidle_timeout = \"never\"\n");
        assert_eq!(plan(text, &other), "service b: carriage");
    }
}
