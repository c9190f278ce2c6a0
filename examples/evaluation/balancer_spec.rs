//! What a balancer is to do, and the configurations of each product that say it.

use std::fmt::Write;
use std::net::SocketAddr;
use std::path::PathBuf;
use std::time::Duration;

use crate::network::{BACK, FRONT, GATEWAY, Machine, VIRTUAL};

/// The product that balances.
#[derive(Clone, Copy, Debug, Eq, Ord, PartialEq, PartialOrd)]
pub(crate) enum Product {
    LvsProxy,
    LvsPacket,
    Haproxy,
}

impl Product {
    pub(crate) const ALL: [Self; 3] = [Self::LvsProxy, Self::LvsPacket, Self::Haproxy];

    pub(crate) fn name(self) -> &'static str {
        match self {
            Self::LvsProxy => "lvs, proxy",
            Self::LvsPacket => "lvs, packet",
            Self::Haproxy => "HAProxy",
        }
    }

    /// Returns the name of two balancers that share a virtual address.
    pub(crate) fn pair_name(self) -> &'static str {
        match self {
            Self::LvsProxy | Self::LvsPacket => self.name(),
            Self::Haproxy => "keepalived, HAProxy",
        }
    }

    /// Returns the product's name of weighted round robin.
    pub(crate) fn round_robin(self) -> &'static str {
        match self {
            Self::LvsProxy | Self::LvsPacket => "wrr",
            Self::Haproxy => "roundrobin",
        }
    }
}

/// A real server in a balancer's configuration.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Real {
    pub(crate) address: SocketAddr,
    pub(crate) weight: u32,
    pub(crate) max_connections: Option<u32>,
}

/// One of two directors that share the virtual address.
#[derive(Clone, Copy, Debug)]
pub(crate) struct PairMember {
    pub(crate) machine: Machine,
    pub(crate) peer: Machine,
    pub(crate) priority: u8,
}

/// The interval and the timeout of health checks; two failures take a server down.
pub(crate) const CHECK: Duration = Duration::from_millis(100);
/// The interval of VRRP advertisements.
pub(crate) const ADVERT: Duration = Duration::from_millis(100);
/// The address of the admin server of a director with the packet engine.
pub(crate) const ADMIN: &str = "127.0.0.1:9000";

/// The configuration of a balancer, for any product.
#[derive(Clone, Debug)]
pub(crate) struct BalancerSpec<'a> {
    pub(crate) listen: SocketAddr,
    pub(crate) servers: &'a [Real],
    pub(crate) scheduler: &'a str,
    pub(crate) pair: Option<PairMember>,
    /// The folder of the packet engine, which only this engine needs.
    pub(crate) pin_folder: Option<PathBuf>,
}

impl BalancerSpec<'_> {
    /// Returns the configuration of a director with the proxy engine.
    pub(crate) fn proxy_toml(&self) -> String {
        let engine = "engine = \"proxy\"\n\
                      tcp = { cut_on_down = true, connect_timeout = \"1s\" }\n";
        let mut text = self.service_toml(engine);
        if let Some(member) = self.pair {
            text += &vrrp_toml(member, FRONT, (51, VIRTUAL));
        }
        text
    }

    /// Returns the configuration of a director with the packet engine. The director of a pair has the
    /// servers' gateway too, and tells the other one of its flows.
    pub(crate) fn packet_toml(&self) -> String {
        let mut text = format!("[admin]\nlisten = \"{ADMIN}\"\n");
        // All is IPv4: the table of the other family is small.
        text += "[packet]\nipv6_flows = 1024\n";
        if let Some(folder) = &self.pin_folder {
            let _ = writeln!(text, "pin_folder = {folder:?}");
        }
        text += &self.service_toml("engine = \"packet\"\n");
        if let Some(member) = self.pair {
            text += &vrrp_toml(member, FRONT, (51, VIRTUAL));
            text += &vrrp_toml(member, BACK, (52, GATEWAY));
            let (own, other) = (member.machine.back_address(), member.peer.back_address());
            let key = "5a".repeat(32);
            let _ = write!(
                text,
                "[sync]\nlisten = \"{own}:8849\"\npeer = \"{other}:8849\"\nkey = \"{key}\"\n"
            );
        }
        text
    }

    fn service_toml(&self, engine: &str) -> String {
        let Self { listen, servers, scheduler, .. } = self;
        let check = CHECK.as_millis();
        let mut text = format!(
            "[[service]]\nname = \"web\"\nlisten = \"{listen}\"\nscheduler = {scheduler:?}\n{engine}\
             health = {{ type = \"http\", path = \"/health\", interval = \"{check}ms\", \
             timeout = \"{check}ms\", rise = 1, fall = 2 }}\n"
        );
        for server in *servers {
            let Real { address, weight, max_connections } = server;
            let max_connections = max_connections.map_or_else(String::new, |max_connections| {
                format!("max_connections = {max_connections}\n")
            });
            let _ = write!(
                text,
                "[[service.server]]\naddress = \"{address}\"\nweight = {weight}\n{max_connections}"
            );
        }
        text
    }

    pub(crate) fn haproxy_conf(&self) -> String {
        let Self { listen, servers, scheduler, pair, .. } = self;
        let transparent = if pair.is_some() { " transparent" } else { "" };
        let check = CHECK.as_millis();
        let mut text = format!(
            "global\n maxconn 8000\ndefaults\n mode tcp\n retries 3\n option redispatch 1\n \
             timeout connect 1s\n timeout client 60s\n timeout server 60s\n timeout check {check}ms\n\
             listen web\n bind {listen}{transparent}\n balance {scheduler}\n \
             option httpchk GET /health\n \
             default-server check inter {check}ms rise 1 fall 2 on-marked-down shutdown-sessions\n"
        );
        for (number, server) in servers.iter().enumerate() {
            let Real { address, weight, max_connections } = server;
            let max_connections = max_connections
                .map_or_else(String::new, |max_connections| format!(" maxconn {max_connections}"));
            let _ = writeln!(text, " server s{number} {address} weight {weight}{max_connections}");
        }
        text
    }

    /// Returns the configuration of keepalived, if the balancer is one of two.
    pub(crate) fn keepalived_conf(&self) -> Option<String> {
        let PairMember { priority, .. } = self.pair?;
        let advert = ADVERT.as_secs_f64();
        Some(format!(
            "global_defs {{\n vrrp_version 3\n vrrp_rt_priority 10\n}}\nvrrp_instance V {{\n \
             interface {FRONT}\n virtual_router_id 51\n priority {priority}\n advert_int {advert}\n \
             virtual_ipaddress {{\n {VIRTUAL}/24\n }}\n}}\n"
        ))
    }
}

fn vrrp_toml(member: PairMember, interface: &str, (router, address): (u8, &str)) -> String {
    let (priority, advert) = (member.priority, ADVERT.as_millis());
    format!(
        "[[vrrp]]\ninterface = \"{interface}\"\nvirtual_router_id = {router}\n\
         priority = {priority}\nadvert_interval = \"{advert}ms\"\naddresses = [\"{address}/24\"]\n"
    )
}

#[cfg(test)]
mod tests {
    use lvs::director::DirectorConfig;

    use super::*;

    #[test]
    fn a_director_accepts_its_configurations() {
        let address = ([10, 88, 2, 3], 9001).into();
        let servers = [Real { address, weight: 2, max_connections: Some(4) }];
        let [machine, peer] = [Machine::FirstDirector, Machine::SecondDirector];
        let pair = PairMember { machine, peer, priority: 150 };
        for pair in [None, Some(pair)] {
            let spec = BalancerSpec {
                listen: ([10, 88, 1, 100], 80).into(),
                servers: &servers,
                scheduler: "wrr",
                pair,
                pin_folder: Some("/run/evaluation".into()),
            };
            for text in [spec.proxy_toml(), spec.packet_toml()] {
                DirectorConfig::parse(&text).unwrap_or_else(|error| panic!("{error}\n{text}"));
            }
        }
    }
}
