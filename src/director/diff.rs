//! The differences of two configurations, as pure functions.

use std::collections::BTreeMap;
use std::fmt;
use std::net::SocketAddr;

use super::config::{CheckConfig, DirectorConfig, EngineKind, OneOrMany, ServiceConfig};
use super::overrides::DesiredServer;
use crate::backend::{BackendAdminState, Limits, Zone};

/// A change of one server.
#[derive(Clone, Debug, Eq, PartialEq)]
pub(super) enum ServerStep {
    Add(DesiredServer),
    Remove(SocketAddr),
    Weight(SocketAddr, u32),
    Limits(SocketAddr, Limits),
    Tier(SocketAddr, u8),
    Zone(SocketAddr, Option<Zone>),
    State(SocketAddr, BackendAdminState),
}

/// Returns the steps from one list of servers to another, in an order in which they can be applied.
pub(super) fn diff_servers(before: &[DesiredServer], after: &[DesiredServer]) -> Vec<ServerStep> {
    let find = |servers: &[DesiredServer], address| {
        servers.iter().find(|server| server.config.address == address).cloned()
    };
    let addresses = before.iter().map(|server| server.config.address);
    let removed = addresses.filter(|address| find(after, *address).is_none());
    let mut steps: Vec<_> = removed.map(ServerStep::Remove).collect();
    // In the order of the configuration, as `ipvsadm` would add them: the schedulers of IPVS begin with
    // the server that was added last.
    for server in after {
        let address = server.config.address;
        let Some(old) = find(before, address) else {
            steps.push(ServerStep::Add(server.clone()));
            continue;
        };
        if old.config.weight != server.config.weight {
            steps.push(ServerStep::Weight(address, server.config.weight));
        }
        if old.config.limits() != server.config.limits() {
            steps.push(ServerStep::Limits(address, server.config.limits()));
        }
        if old.config.tier != server.config.tier {
            steps.push(ServerStep::Tier(address, server.config.tier));
        }
        if old.config.zone != server.config.zone {
            steps.push(ServerStep::Zone(address, server.config.zone));
        }
        if old.state != server.state {
            steps.push(ServerStep::State(address, server.state));
        }
    }
    steps
}

/// What a new configuration changes, part by part.
#[derive(Clone, Debug, Default, Eq, PartialEq)]
pub(super) struct ReloadPlan {
    pub(super) services: Vec<(String, ServiceStep)>,
    pub(super) admin: bool,
    pub(super) vrrp: bool,
    pub(super) announce: bool,
    pub(super) sync: bool,
    pub(super) handover: bool,
    pub(super) ipvs: bool,
    pub(super) packet: bool,
    /// The level and the format, which the program applies.
    pub(super) log: bool,
    /// The worker threads that services share.
    pub(super) workers: bool,
    pub(super) drain_timeout: bool,
}

/// A change of one service.
#[derive(Clone, Debug, Eq, PartialEq)]
pub(super) enum ServiceStep {
    Add,
    Remove,
    Change(ServiceDiff),
}

/// The aspects of a service that change.
#[derive(Clone, Copy, Debug, Default, Eq, PartialEq)]
pub(super) struct ServiceDiff {
    pub(super) servers: bool,
    pub(super) discovery: bool,
    pub(super) scheduler: bool,
    /// Slow start, fail mode, quorum with its programs.
    pub(super) set_rules: bool,
    pub(super) health: bool,
    pub(super) persistence: bool,
    /// Options of its forwarders: limits, timeouts, threads, PROXY headers.
    pub(super) forwarding: bool,
    pub(super) listen: bool,
}

impl ReloadPlan {
    /// Returns the differences of two configurations.
    pub(super) fn new(before: &DirectorConfig, after: &DirectorConfig) -> Self {
        let mut services = Vec::new();
        for old in &before.services {
            if !after.services.iter().any(|new| is_same_service(old, new)) {
                services.push((old.name.clone(), ServiceStep::Remove));
            }
        }
        for new in &after.services {
            match before.services.iter().find(|old| is_same_service(old, new)) {
                None => services.push((new.name.clone(), ServiceStep::Add)),
                Some(old) => {
                    let mut diff = ServiceDiff::new(old, new);
                    diff.forwarding |= new.workers != old.workers
                        || (new.workers.is_none() && after.workers != before.workers)
                        || after.log.connection_format() != before.log.connection_format();
                    if diff != ServiceDiff::default() {
                        services.push((new.name.clone(), ServiceStep::Change(diff)));
                    }
                }
            }
        }
        Self {
            services,
            admin: before.admin != after.admin,
            vrrp: before.vrrp != after.vrrp,
            announce: before.announce != after.announce
                || (after.announce.is_some() && before.drain_timeout() != after.drain_timeout()),
            sync: before.sync != after.sync,
            handover: before.handover() != after.handover(),
            ipvs: before.ipvs != after.ipvs,
            packet: before.packet != after.packet,
            log: (before.log.level, before.log.format) != (after.log.level, after.log.format),
            workers: before.workers != after.workers,
            drain_timeout: before.drain_timeout() != after.drain_timeout(),
        }
    }

    /// Adds aspects to the change of a service, unless it is added as a whole.
    pub(super) fn change_service(&mut self, name: &str, aspects: ServiceDiff) {
        let mut steps = self.services.iter_mut().filter(|(service, _)| service == name);
        match steps.find(|(_, step)| *step != ServiceStep::Remove) {
            Some((_, ServiceStep::Change(diff))) => *diff = diff.union(aspects),
            Some(_) => {}
            None => self.services.push((name.to_owned(), ServiceStep::Change(aspects))),
        }
    }
}

/// Returns whether two configurations are of the same service: a reload changes it in place.
fn is_same_service(old: &ServiceConfig, new: &ServiceConfig) -> bool {
    old.name == new.name && old.protocol == new.protocol
}

/// Returns the servers with checks of their own, and the checks, in the order of the addresses.
fn own_checks(service: &ServiceConfig) -> BTreeMap<SocketAddr, &OneOrMany<CheckConfig>> {
    let servers = service.servers.iter();
    servers.filter_map(|server| Some((server.address, server.health.as_ref()?))).collect()
}

/// Returns whether something changes that an engine in the kernel is asked for, and that no change of the set or
/// of the scheduler tells it. The engine `packet` asks the scheduler itself.
fn engine_request_changes(old: &ServiceConfig, new: &ServiceConfig) -> bool {
    let engines = new.engines();
    let has = |kind| engines.contains(&kind);
    let methods_change = old.forwarding_methods() != new.forwarding_methods();
    let ipvs_changes = old.scheduler != new.scheduler
        || old.has_virtual_address_checks() != new.has_virtual_address_checks();
    methods_change && (has(EngineKind::Ipvs) || has(EngineKind::Packet))
        || ipvs_changes && has(EngineKind::Ipvs)
}

/// Returns whether checks of the virtual addresses go elsewhere.
fn checked_addresses_change(old: &ServiceConfig, new: &ServiceConfig) -> bool {
    new.has_virtual_address_checks() && old.listen != new.listen
}

impl ServiceDiff {
    fn new(old: &ServiceConfig, new: &ServiceConfig) -> Self {
        Self {
            servers: old.servers != new.servers,
            discovery: old.discovery != new.discovery,
            scheduler: old.scheduler != new.scheduler,
            set_rules: (&old.slow_start, old.fail_mode, old.quorum)
                != (&new.slow_start, new.fail_mode, new.quorum)
                || (&old.quorum_up, &old.quorum_down) != (&new.quorum_up, &new.quorum_down),
            health: (&old.health, &old.ejection, old.tcp.check_proxy_header(), own_checks(old))
                != (&new.health, &new.ejection, new.tcp.check_proxy_header(), own_checks(new))
                || checked_addresses_change(old, new),
            persistence: old.persistence != new.persistence,
            forwarding: (&old.tcp, &old.udp, &old.on_end, old.engines())
                != (&new.tcp, &new.udp, &new.on_end, new.engines())
                || (old.sorry_server, old.sorry_server_method)
                    != (new.sorry_server, new.sorry_server_method)
                || engine_request_changes(old, new),
            listen: (&old.listen, old.freebind) != (&new.listen, new.freebind),
        }
    }

    /// The aspects that a new service lacks: it is made with its servers and scheduler only.
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

    /// Returns the aspects that change in either.
    pub(super) fn union(self, other: Self) -> Self {
        Self {
            servers: self.servers || other.servers,
            discovery: self.discovery || other.discovery,
            scheduler: self.scheduler || other.scheduler,
            set_rules: self.set_rules || other.set_rules,
            health: self.health || other.health,
            persistence: self.persistence || other.persistence,
            forwarding: self.forwarding || other.forwarding,
            listen: self.listen || other.listen,
        }
    }

    /// Returns whether new forwarders must take over the listeners.
    pub(super) fn needs_new_frontends(self) -> bool {
        self.forwarding || self.persistence
    }
}

impl fmt::Display for ReloadPlan {
    /// Writes a line for each change.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let mut lines = Vec::new();
        for (name, step) in &self.services {
            lines.push(match step {
                ServiceStep::Add => format!("service {name}: added"),
                ServiceStep::Remove => format!("service {name}: removed"),
                ServiceStep::Change(diff) => format!("service {name}: updated {diff}"),
            });
        }
        let parts = [
            (self.admin, "[admin]: updated"),
            (self.vrrp, "[vrrp]: updated"),
            (self.announce, "[announce]: updated"),
            (self.sync, "[sync]: updated"),
            (self.handover, "handover: updated"),
            (self.ipvs, "[ipvs]: updated"),
            (self.packet, "[packet]: updated"),
            (self.log, "[log]: updated"),
            (self.workers, "workers: updated"),
            (self.drain_timeout, "drain_timeout: updated"),
        ];
        lines.extend(
            parts.iter().filter(|(is_changed, _)| *is_changed).map(|(_, name)| (*name).to_owned()),
        );
        if lines.is_empty() {
            lines.push("no change".to_owned());
        }
        f.write_str(&lines.join("\n"))
    }
}

impl fmt::Display for ServiceDiff {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let aspects = [
            (self.listen, "listen"),
            (self.servers, "servers"),
            (self.discovery, "discovery"),
            (self.scheduler, "scheduler"),
            (self.set_rules, "rules"),
            (self.health, "health"),
            (self.persistence, "persistence"),
            (self.forwarding, "forwarding"),
        ];
        let changed = aspects.into_iter().filter(|(is_changed, _)| *is_changed);
        let names: Vec<_> = changed.map(|(_, name)| name).collect();
        f.write_str(&names.join(", "))
    }
}

#[cfg(test)]
mod tests {
    use super::super::config::RealServer;
    use super::*;

    fn server(port: u16, weight: u32, state: BackendAdminState) -> DesiredServer {
        let mut config = RealServer::new(SocketAddr::from(([10, 0, 0, 1], port)));
        config.weight = weight;
        DesiredServer { config, state }
    }

    #[test]
    fn a_server_moves_to_a_zone_and_leaves_it() {
        let zone = Zone::new("eu-1a").expect("a name");
        let before = server(1, 1, BackendAdminState::Enabled);
        let mut moved = before.clone();
        moved.config.zone = Some(zone);
        let address = before.config.address;
        for (from, to, step) in [(&before, &moved, Some(zone)), (&moved, &before, None)] {
            let steps = diff_servers(std::slice::from_ref(from), std::slice::from_ref(to));
            assert_eq!(steps, [ServerStep::Zone(address, step)]);
        }
    }

    #[test]
    fn servers_that_stay_change_in_place() {
        let address = |port| SocketAddr::from(([10, 0, 0, 1], port));
        let before = [
            server(1, 1, BackendAdminState::Enabled),
            server(2, 1, BackendAdminState::Enabled),
            server(3, 1, BackendAdminState::Enabled),
        ];
        let after = [
            server(4, 1, BackendAdminState::Draining),
            server(1, 1, BackendAdminState::Enabled),
            server(3, 5, BackendAdminState::Disabled),
            server(5, 1, BackendAdminState::Enabled),
        ];
        let steps = [
            ServerStep::Remove(address(2)),
            ServerStep::Add(server(4, 1, BackendAdminState::Draining)),
            ServerStep::Weight(address(3), 5),
            ServerStep::State(address(3), BackendAdminState::Disabled),
            ServerStep::Add(server(5, 1, BackendAdminState::Enabled)),
        ];
        assert_eq!(diff_servers(&before, &after), steps);
        assert_eq!(diff_servers(&after, &after), []);
    }

    #[test]
    fn a_plan_has_the_differences_only() {
        let text = "[[service]]\nname = \"a\"\nlisten = \"127.0.0.1:1\"\n\
            [[service]]\nname = \"b\"\nlisten = \"127.0.0.1:2\"\nscheduler = \"rr\"\n";
        let plan = |text: &str, other: &str| {
            let read = |text| DirectorConfig::parse(text).expect("sound");
            ReloadPlan::new(&read(text), &read(other)).to_string()
        };
        assert_eq!(plan(text, text), "no change");
        assert_eq!(plan(text, &text.replace("\"rr\"", "\"wrr\"")), "service b: updated scheduler");
        let other = text.replace("name = \"a\"", "name = \"c\"");
        assert_eq!(plan(text, &other), "service a: removed\nservice c: added");
        let other = text.replace("scheduler = \"rr\"", "scheduler = \"rr\"\nprotocol = \"udp\"");
        assert_eq!(plan(text, &other), "service b: removed\nservice b: added");
        let other = format!("workers = 1\n[admin]\nlisten = \"127.0.0.1:9\"\n{text}");
        assert_eq!(
            plan(text, &other),
            "service a: updated forwarding\nservice b: updated forwarding\n[admin]: updated\n\
             workers: updated"
        );
        let other = format!("[log]\nlevel = \"debug\"\n{text}");
        assert_eq!(plan(text, &other), "[log]: updated");
        let other = format!("{text}[service.tcp]\nidle_timeout = \"never\"\n");
        assert_eq!(plan(text, &other), "service b: updated forwarding");
    }

    /// No key is left out of the comparison: what a reload does not see it does not apply.
    #[test]
    fn a_plan_has_every_key_of_the_example() {
        let example = include_str!("../../examples/director.toml");
        let read = |text: &str| DirectorConfig::parse(text);
        // Other files are not part of the text, and a value that is the default changes nothing.
        let example = example.replacen("include", "# include", 1);
        let example = example.replacen("drain_timeout = \"10s\"", "drain_timeout = \"11s\"", 1);
        let example = example.replacen("engine = \"proxy\"", "# engine", 1);
        let full = read(&example).expect("sound");
        let lines: Vec<_> = example.lines().collect();
        let (mut seen, mut unseen) = (0, Vec::new());
        // A line less, or the whole of an inline table's key less.
        let shorter = |n: usize| {
            let less = |line: &str| {
                let lines = lines.iter().enumerate();
                let kept = lines.map(|(at, kept)| if at == n { line } else { kept });
                kept.collect::<Vec<_>>().join("\n")
            };
            let parts = lines[n].split(", ").enumerate().map(|(part, _)| {
                let parts = lines[n].split(", ").enumerate();
                let kept = parts.filter(|(at, _)| *at != part).map(|(_, text)| text);
                kept.collect::<Vec<_>>().join(", ")
            });
            let is_inline_table = lines[n].contains("= {");
            let mut texts = vec![less("")];
            texts.extend(parts.filter(|_| is_inline_table).map(|line| less(&line)));
            texts
        };
        for (n, line) in lines.iter().enumerate() {
            for text in shorter(n) {
                // The line is needed, or no line of a key.
                let Ok(less) = read(&text) else { continue };
                if ReloadPlan::new(&full, &less) != ReloadPlan::default() {
                    seen += 1;
                } else if format!("{less:?}") != format!("{full:?}") {
                    unseen.push(*line);
                }
            }
        }
        assert_eq!(unseen, [""; 0]);
        assert!(seen > 100, "{seen}");
    }
}
