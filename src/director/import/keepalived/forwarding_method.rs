//! How IPVS forwards to a server.

use std::net::SocketAddr;

use super::syntax::KeepalivedDirective;
use crate::director::config::ListenAddress;
use crate::director::import::ipvs::{ImportedMethod, ImportedTunnel};
use crate::director::import::toml_writer::ImportedConfig;

/// Why a server of another address family than its service's is left out.
pub(super) const OTHER_FAMILY: &str =
    "the address is not of the family of the service: left out, as in keepalived";

/// Reads the last directive of these names, such as `lvs_method TUN type gue port 6080 csum`; what is unknown
/// is reported.
pub(super) fn read_method(
    block: &KeepalivedDirective,
    names: &[&str],
    output: &mut ImportedConfig,
) -> Option<ImportedMethod> {
    let node = block.last_child_of(names)?;
    match node.value() {
        Some("NAT") => Some(ImportedMethod::Nat),
        Some("DR") => Some(ImportedMethod::DirectRouting),
        Some("TUN") => Some(ImportedMethod::Tunnel(read_tunnel(node, output))),
        _ => {
            let report = format!("{}: not NAT, DR or TUN: ignored, as in keepalived", node.text());
            output.report_skipped(&node.position, report);
            None
        }
    }
}

fn read_tunnel(node: &KeepalivedDirective, output: &mut ImportedConfig) -> ImportedTunnel {
    let mut tunnel = ImportedTunnel::default();
    let mut words = node.values().iter().skip(1).map(String::as_str);
    while let Some(word) = words.next() {
        let is_known = match word {
            "type" => {
                let kind = words.next().and_then(ImportedTunnel::kind);
                kind.map(|kind| tunnel.kind = kind).is_some()
            }
            "port" => {
                tunnel.port =
                    words.next().and_then(|port| port.parse().ok()).filter(|port| *port > 0);
                tunnel.port.is_some()
            }
            checksum => {
                let checksum = ImportedTunnel::checksum(checksum);
                checksum.map(|checksum| tunnel.checksum = checksum).is_some()
            }
        };
        if !is_known {
            let report = format!(
                "{}: {word:?} is no option of a tunnel, or has no valid value",
                node.text()
            );
            output.warn(&node.position, report);
        }
    }
    tunnel
}

/// Tells whether keepalived takes a server with this address: only a tunnel reaches one of another family
/// than the service's.
pub(super) fn reaches(
    method: ImportedMethod,
    server: SocketAddr,
    listen: &[ListenAddress],
) -> bool {
    method.is_tunnel() || listen.iter().any(|listen| is_ipv6(listen) == server.is_ipv6())
}

/// Returns whether packets to a service are of IPv6.
pub(super) fn is_ipv6(listen: &ListenAddress) -> bool {
    match listen {
        ListenAddress::Address(address) => address.is_ipv6(),
        ListenAddress::Mark(mark) => mark.is_ipv6,
        ListenAddress::Unix(_) => false,
    }
}

/// Returns the port that all addresses of a service have; `None` if they have several, and for marks.
pub(super) fn common_port(listen: &[ListenAddress]) -> Option<u16> {
    let mut ports = listen.iter().filter_map(|listen| match listen {
        ListenAddress::Address(address) => Some(address.port()),
        ListenAddress::Mark(_) | ListenAddress::Unix(_) => None,
    });
    let first = ports.next()?;
    ports.all(|port| port == first).then_some(first)
}
