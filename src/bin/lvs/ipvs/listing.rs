//! The lists of services and servers.

use std::fmt::Write as _;

use lvs::ipvs::{
    IpvsDestinationStatus, IpvsFamily, IpvsForwarding, IpvsInfo, IpvsProtocol, IpvsService,
    IpvsServiceKey, IpvsServiceStatus, IpvsStats,
};

use super::command::{ListColumns, ListFormat};
use super::text::{
    AddressWriter, has_scheduler_flags, network_mask, protocol_of, scheduler_flags, tunnel_parts,
};

/// Where ipvsadm cuts the address of a service of IPv4, with its protocol.
const SERVICE_WIDTH: usize = 33;
/// Where it cuts the address of a server of IPv4.
const SERVER_WIDTH: usize = 28;

/// Returns the first line of a list of all services.
pub(super) fn version_line(info: &IpvsInfo) -> String {
    let ((major, minor, patch), size) = (info.version, info.connection_table_size);
    format!("IP Virtual Server version {major}.{minor}.{patch} (size={size})\n")
}

/// Returns the two lines above a list.
pub(super) fn header(columns: ListColumns) -> String {
    const SERVICE: &str = "Prot LocalAddress:Port";
    const SERVER: &str = "  -> RemoteAddress:Port";
    let counters = |[a, b, c, d, e]: [&str; 5]| {
        format!("{SERVICE:<33} {a:>8} {b:>8} {c:>8} {d:>8} {e:>8}\n{SERVER}\n")
    };
    match columns {
        ListColumns::Stats => counters(["Conns", "InPkts", "OutPkts", "InBytes", "OutBytes"]),
        ListColumns::Rate => counters(["CPS", "InPPS", "OutPPS", "InBPS", "OutBPS"]),
        ListColumns::Thresholds => format!(
            "{SERVICE:<33} {:<10} {:<10} {:<10} {:<10}\n{SERVER}\n",
            "Uthreshold", "Lthreshold", "ActiveConn", "InActConn"
        ),
        ListColumns::Persistence => format!(
            "{SERVICE:<33} {:<9} {:<11} {:<10} {:<10}\n{SERVER}\n",
            "Weight", "PersistConn", "ActiveConn", "InActConn"
        ),
        ListColumns::Tunnels => format!(
            "{SERVICE} Scheduler Flags\n{SERVER:<33} Forward TunnelInfo    Weight ActiveConn \
             InActConn\n"
        ),
        ListColumns::Connections => {
            format!("{SERVICE} Scheduler Flags\n{SERVER:<33} Forward Weight ActiveConn InActConn\n")
        }
    }
}

/// Returns the line of a service.
pub(super) fn service_line(
    status: &IpvsServiceStatus,
    format: &ListFormat,
    addresses: &mut AddressWriter,
) -> String {
    let name = service_name(&status.service.key, addresses);
    match format.columns {
        ListColumns::Stats => format!("{name:<33}{}\n", counts(&status.stats, format.is_exact)),
        ListColumns::Rate => {
            let rates: String =
                rates(&status.stats).map(|number| large(number, format.is_exact)).concat();
            format!("{name:<33}{rates}\n")
        }
        _ => format!("{name} {}\n", settings(&status.service)),
    }
}

/// Returns the line of a server.
pub(super) fn server_line(
    status: &IpvsDestinationStatus,
    service: &IpvsServiceKey,
    format: &ListFormat,
    addresses: &mut AddressWriter,
) -> String {
    let server = &status.destination;
    let mut name = addresses.write(server.address, protocol_of(service));
    if server.address.is_ipv4() {
        name = name.chars().take(SERVER_WIDTH).collect();
    }
    let (active, inactive) = (status.active_connections, status.inactive_connections);
    let method = forwarding_name(&server.forwarding);
    let columns = match format.columns {
        ListColumns::Stats => {
            return format!("  -> {name:<28}{}\n", counts(&status.stats, format.is_exact));
        }
        ListColumns::Rate => {
            let [connections, incoming, outgoing, bytes_in, bytes_out] = rates(&status.stats);
            let bytes = [bytes_in, bytes_out].map(|number| large(number, format.is_exact)).concat();
            format!("{connections:>8} {incoming:>8} {outgoing:>8}{bytes}")
        }
        ListColumns::Thresholds => format!(
            "{:<10} {:<10} {active:<10} {inactive:<10}",
            server.upper_threshold, server.lower_threshold
        ),
        ListColumns::Persistence => format!(
            "{:<9} {:<11} {active:<10} {inactive:<10}",
            server.weight, status.persistent_connections
        ),
        ListColumns::Tunnels => format!(
            "{method:<7} {:<13} {:<6} {active:<10} {inactive:<10}",
            tunnel(&server.forwarding),
            server.weight
        ),
        ListColumns::Connections => {
            format!("{method:<7} {:<6} {active:<10} {inactive:<10}", server.weight)
        }
    };
    format!("  -> {name:<28} {columns}\n")
}

fn service_name(key: &IpvsServiceKey, addresses: &mut AddressWriter) -> String {
    match key {
        IpvsServiceKey::Address { protocol, address } => {
            let protocol_name = match protocol {
                IpvsProtocol::Tcp => "TCP",
                IpvsProtocol::Udp => "UDP",
                IpvsProtocol::Sctp => "SCTP",
                _ => "?",
            };
            let name = format!("{protocol_name:<4} {}", addresses.write(*address, Some(*protocol)));
            let width = if address.is_ipv4() { SERVICE_WIDTH } else { usize::MAX };
            name.chars().take(width).collect()
        }
        IpvsServiceKey::Mark { family: IpvsFamily::V6, mark } => format!("FWM  {mark} IPv6"),
        IpvsServiceKey::Mark { mark, .. } => format!("FWM  {mark}"),
        _ => "?".to_owned(),
    }
}

/// Writes scheduler, flags and persistence.
fn settings(service: &IpvsService) -> String {
    let mut text = service.scheduler.clone();
    if has_scheduler_flags(service) {
        let _ = write!(text, " ({})", scheduler_flags(service));
    }
    if let Some(persistence) = service.persistence {
        let _ = write!(text, " persistent {}", persistence.timeout_secs);
        if let Some(mask) = network_mask(service) {
            let _ = write!(text, " mask {mask}");
        }
        if let Some(engine) = &service.persistence_engine {
            let _ = write!(text, " pe {engine}");
        }
    }
    if service.one_packet {
        text += " ops";
    }
    text
}

fn forwarding_name(forwarding: &IpvsForwarding) -> &'static str {
    match forwarding {
        IpvsForwarding::Nat => "Masq",
        IpvsForwarding::Local => "Local",
        IpvsForwarding::Tunnel(_) => "Tunnel",
        IpvsForwarding::DirectRouting => "Route",
        _ => "?",
    }
}

fn tunnel(forwarding: &IpvsForwarding) -> String {
    let IpvsForwarding::Tunnel(tunnel) = forwarding else { return "n/a".to_owned() };
    let (kind, port, checksum) = tunnel_parts(*tunnel, ["-c", "+c", "r+c"]);
    let port = port.map(|port| port.to_string());
    let parts = [(!kind.is_empty()).then_some(kind), port.as_deref(), checksum];
    match parts.into_iter().flatten().collect::<Vec<_>>().join(":") {
        text if text.is_empty() => "n/a".to_owned(),
        text => text,
    }
}

fn counts(stats: &IpvsStats, is_exact: bool) -> String {
    let counts = [
        stats.connections,
        stats.incoming_packets,
        stats.outgoing_packets,
        stats.incoming_bytes,
        stats.outgoing_bytes,
    ];
    counts.map(|number| large(number, is_exact)).concat()
}

const fn rates(stats: &IpvsStats) -> [u64; 5] {
    [
        stats.connection_rate,
        stats.incoming_packet_rate,
        stats.outgoing_packet_rate,
        stats.incoming_byte_rate,
        stats.outgoing_byte_rate,
    ]
}

/// Writes a number in nine columns, or with a space before it where it has more digits.
fn large(number: u64, is_exact: bool) -> String {
    match number {
        _ if is_exact && number > 99_999_999 => format!(" {number}"),
        0..=99_999_999 => format!("{number:>9}"),
        100_000_000..=999_999_999 => format!("{:>8}K", number / 1000),
        1_000_000_000..=99_999_999_999 => format!("{:>8}M", number / 1_000_000),
        100_000_000_000..=99_999_999_999_999 => format!("{:>8}G", number / 1_000_000_000),
        _ => format!("{:>8}T", number / 1_000_000_000_000),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn large_numbers_have_a_unit_or_all_digits() {
        for (number, short, exact) in [
            (0, "        0", "        0"),
            (99_999_999, " 99999999", " 99999999"),
            (100_000_000, "  100000K", " 100000000"),
            (999_999_999, "  999999K", " 999999999"),
            (1_000_000_000, "    1000M", " 1000000000"),
            (99_999_999_999, "   99999M", " 99999999999"),
            (100_000_000_000, "     100G", " 100000000000"),
            (99_999_999_999_999, "   99999G", " 99999999999999"),
            (100_000_000_000_000, "     100T", " 100000000000000"),
            (u64::MAX, "18446744T", " 18446744073709551615"),
        ] {
            assert_eq!(large(number, false), short);
            assert_eq!(large(number, true), exact);
        }
    }
}
