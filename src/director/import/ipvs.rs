//! Values of IPVS that keepalived and ipvsadm share.

use super::position::SourcePosition;
use super::toml_writer::{ImportedConfig, TomlInlineTable, TomlTable};
use crate::director::config::{TunnelChecksumConfig, TunnelEncapsulation};

/// Returns a scheduler with the kernel's flags that belong to it, such as `sh(sh-port)`.
pub(super) fn scheduler_text(scheduler: &str, flags: &[&str]) -> String {
    let known: Vec<_> = flags.iter().copied().filter(|flag| flag.starts_with(scheduler)).collect();
    if known.is_empty() {
        scheduler.to_owned()
    } else {
        format!("{scheduler}({})", known.join(", "))
    }
}

/// Returns the flags of a scheduler by the names of `sh` and `mh`; the others are reported.
pub(super) fn scheduler_flags(
    scheduler: &str,
    flags: &[&str],
    position: &SourcePosition,
    output: &mut ImportedConfig,
) -> Vec<String> {
    let mut known = Vec::new();
    for flag in flags {
        let flag_name = match (scheduler, *flag) {
            ("sh" | "mh", "flag-1") => format!("{scheduler}-fallback"),
            ("sh" | "mh", "flag-2") => format!("{scheduler}-port"),
            _ => (*flag).to_owned(),
        };
        if flag_name.strip_prefix(scheduler).is_some_and(|rest| rest.starts_with('-')) {
            known.push(flag_name);
        } else {
            let report = format!("the flag `{flag}` has no effect with the scheduler {scheduler}");
            output.report_skipped(position, report);
        }
    }
    known
}

/// How packets reach a server.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub(super) enum ImportedMethod {
    Nat,
    DirectRouting,
    Tunnel(ImportedTunnel),
}

/// The encapsulation of a tunnel, by the names that ipvsadm and keepalived share.
#[derive(Clone, Copy, Debug, Default, Eq, PartialEq)]
pub(super) struct ImportedTunnel {
    pub(super) kind: TunnelEncapsulation,
    pub(super) port: Option<u16>,
    pub(super) checksum: TunnelChecksumConfig,
}

impl ImportedMethod {
    pub(super) fn is_tunnel(self) -> bool {
        matches!(self, Self::Tunnel(_))
    }

    /// Writes the keys of a server; what the kernel's tunnels do not have is left out and reported.
    pub(super) fn write(
        self,
        table: &mut TomlTable,
        position: &SourcePosition,
        output: &mut ImportedConfig,
    ) {
        let tunnel = match self {
            Self::Nat => return,
            Self::DirectRouting => return table.insert_string("method", "dr"),
            Self::Tunnel(tunnel) => tunnel,
        };
        table.insert_string("method", "tunnel");
        let mut keys = TomlInlineTable::default();
        match (tunnel.kind, tunnel.port) {
            (TunnelEncapsulation::Ipip, _) => {}
            (TunnelEncapsulation::Gue, Some(port)) => {
                keys.insert_string("kind", "gue");
                keys.insert("port", port);
            }
            (TunnelEncapsulation::Gue, None) => {
                let report = "a tunnel of type gue requires a port: the tunnel is IP in IP";
                return output.warn(position, report);
            }
            (TunnelEncapsulation::Gre, _) => keys.insert_string("kind", "gre"),
        }
        match (tunnel.kind, tunnel.checksum) {
            (_, TunnelChecksumConfig::None) => {}
            (TunnelEncapsulation::Gue | TunnelEncapsulation::Gre, TunnelChecksumConfig::Full) => {
                keys.insert_string("checksum", "full");
            }
            (TunnelEncapsulation::Gue, TunnelChecksumConfig::Remote) => {
                keys.insert_string("checksum", "remote");
            }
            _ => output.report_skipped(position, "this type of tunnel has no such checksum"),
        }
        if keys != TomlInlineTable::default() {
            table.insert("tunnel", keys);
        }
    }
}

impl ImportedTunnel {
    /// Returns the type of a tunnel by its name.
    pub(super) fn kind(name: &str) -> Option<TunnelEncapsulation> {
        match name {
            "ipip" => Some(TunnelEncapsulation::Ipip),
            "gue" => Some(TunnelEncapsulation::Gue),
            "gre" => Some(TunnelEncapsulation::Gre),
            _ => None,
        }
    }

    /// Returns the checksum of an option by its name.
    pub(super) fn checksum(name: &str) -> Option<TunnelChecksumConfig> {
        match name {
            "nocsum" => Some(TunnelChecksumConfig::None),
            "csum" => Some(TunnelChecksumConfig::Full),
            "remcsum" => Some(TunnelChecksumConfig::Remote),
            _ => None,
        }
    }
}

/// Returns the difference of a service that the kernel no longer forwards: IPVS leaves the client's address
/// in the packets.
pub(super) fn client_address_difference(protocol: &str) -> &'static str {
    match protocol {
        "udp" => "the servers see the director's address in place of the client's",
        _ => {
            "the servers see the director's address in place of the client's, unless \
             `tcp = { source = \"client\" }`"
        }
    }
}

/// Returns why a service of every port is left out.
pub(super) fn every_port_warning(ip: std::net::IpAddr) -> String {
    format!(
        "the service of every port of {ip} (port 0) is left out: a service listens on the ports that \
         it names; write a service for each port, or one for a firewall mark"
    )
}

/// Returns the port of a service's name in `/etc/services`, or of a number.
pub(super) fn service_port(name: &str, protocol: &str) -> Option<u16> {
    if let Ok(port) = name.parse() {
        return Some(port);
    }
    let text = std::fs::read_to_string("/etc/services").ok()?;
    text.lines().find_map(|line| {
        let mut words = line.split('#').next()?.split_whitespace();
        let (official, number) = (words.next()?, words.next()?);
        let (port, line_protocol) = number.split_once('/')?;
        let is_known = official == name || words.any(|alias| alias == name);
        if is_known && line_protocol == protocol { port.parse().ok() } else { None }
    })
}

/// Returns the prefix length of a mask such as `255.255.255.0` or `64`.
pub(super) fn netmask_bits(mask: &str) -> Option<u32> {
    match mask.parse::<std::net::Ipv4Addr>() {
        Ok(mask) => {
            let bits = u32::from(mask).leading_ones();
            (u32::from(mask).count_ones() == bits).then_some(bits)
        }
        Err(_) => mask.parse().ok().filter(|bits| *bits <= 128),
    }
}
