//! Services and servers as the arguments that add them.

use std::fmt::Write as _;

use lvs::ipvs::{
    IpvsDestination, IpvsFamily, IpvsForwarding, IpvsProtocol, IpvsService, IpvsServiceKey,
};

use super::text::{
    AddressWriter, forwarding_option, has_scheduler_flags, network_mask, protocol_of,
    scheduler_flags, tunnel_parts,
};

/// Returns the arguments that name a service.
pub(super) fn service_arguments(key: &IpvsServiceKey, addresses: &mut AddressWriter) -> String {
    match key {
        IpvsServiceKey::Address { protocol, address } => {
            let option = match protocol {
                IpvsProtocol::Udp => "-u",
                IpvsProtocol::Sctp => "--sctp-service",
                _ => "-t",
            };
            format!("{option} {}", addresses.write(*address, Some(*protocol)))
        }
        IpvsServiceKey::Mark { family: IpvsFamily::V6, mark } => format!("-f {mark} -6"),
        IpvsServiceKey::Mark { mark, .. } => format!("-f {mark}"),
        _ => String::new(),
    }
}

/// Returns the line that adds a service which these arguments name.
pub(super) fn add_service_line(service: &IpvsService, named: &str) -> String {
    let mut line = format!("-A {named} -s {}", service.scheduler);
    if let Some(persistence) = service.persistence {
        let _ = write!(line, " -p {}", persistence.timeout_secs);
        if let Some(mask) = network_mask(service) {
            let _ = write!(line, " -M {mask}");
        }
    }
    if let Some(engine) = &service.persistence_engine {
        let _ = write!(line, " --pe {engine}");
    }
    if service.one_packet {
        line += " -o";
    }
    if has_scheduler_flags(service) {
        let _ = write!(line, " -b {}", scheduler_flags(service));
    }
    line + "\n"
}

/// Returns the line that adds a server to a service which these arguments name. As of ipvsadm, without its
/// thresholds.
pub(super) fn add_server_line(
    server: &IpvsDestination,
    service: &IpvsServiceKey,
    named: &str,
    addresses: &mut AddressWriter,
) -> String {
    let address = addresses.write(server.address, protocol_of(service));
    let option = forwarding_option(&server.forwarding);
    let mut line = format!("-a {named} -r {address} {option} -w {}", server.weight);
    if let IpvsForwarding::Tunnel(tunnel) = server.forwarding {
        let options = ["--tun-nocsum", "--tun-csum", "--tun-remcsum"];
        let (kind, port, checksum) = tunnel_parts(tunnel, options);
        if !kind.is_empty() {
            let _ = write!(line, " --tun-type {kind}");
        }
        if let Some(port) = port {
            let _ = write!(line, " --tun-port {port}");
        }
        if let Some(checksum) = checksum {
            let _ = write!(line, " {checksum}");
        }
    }
    line + "\n"
}
