//! The addresses and marks of virtual servers, and whether the kernel must serve them.

use std::collections::{BTreeMap, BTreeSet};

use super::address_range::{parse_address, parse_range};
use super::forwarding_method::{is_ipv6, read_method};
use super::syntax::KeepalivedDirective;
use crate::director::config::{ListenAddress, ServiceProtocol};
use crate::director::import::error::ImportError;
use crate::director::import::ipvs::{ImportedMethod, every_port_warning};
use crate::director::import::toml_writer::ImportedConfig;
use crate::engine::FirewallMark;

/// Returns whether only the kernel forwards as a service says: by a mark, or by direct routing or a tunnel.
pub(super) fn needs_kernel(
    node: &KeepalivedDirective,
    groups: &BTreeMap<&str, &KeepalivedDirective>,
) -> bool {
    let is_by_mark = match node.values() {
        [kind, name, ..] if kind == "group" => groups
            .get(name.as_str())
            .is_some_and(|group| group.children().iter().any(|line| line.name() == "fwmark")),
        [kind, ..] => kind == "fwmark",
        [] => false,
    };
    let has_direct_server = |block: &KeepalivedDirective, names: &[&str]| {
        let method = read_method(block, names, &mut ImportedConfig::default());
        method.is_some_and(|method| method != ImportedMethod::Nat)
    };
    let servers = node.children_named("real_server");
    let mut methods = servers.map(|server| has_direct_server(server, &["lvs_method"]));
    node.children_named("real_server").next().is_some()
        && (is_by_mark
            || has_direct_server(node, &["lb_kind", "lvs_method"])
            || has_direct_server(node, &["sorry_server_lvs_method"])
            || methods.any(|is_direct| is_direct))
}

/// Returns whether all servers of a service are reached by tunnels.
fn has_tunnels_only(node: &KeepalivedDirective, of_service: ImportedMethod) -> bool {
    let is_tunnel = |method: Option<ImportedMethod>| method.unwrap_or(of_service).is_tunnel();
    let read = |block, names: &[&str]| read_method(block, names, &mut ImportedConfig::default());
    let mut servers = node.children_named("real_server");
    servers.all(|server| is_tunnel(read(server, &["lvs_method"])))
        && is_tunnel(read(node, &["sorry_server_lvs_method"]))
}

/// Returns the addresses of the service, or of its group.
pub(super) fn listen_addresses(
    node: &KeepalivedDirective,
    groups: &BTreeMap<&str, &KeepalivedDirective>,
    output: &mut ImportedConfig,
) -> Result<Vec<ListenAddress>, ImportError> {
    let parse_mark = |line: &KeepalivedDirective, mark: Option<&String>, is_ipv6: bool| {
        let mark = mark.and_then(|mark| mark.parse().ok()).ok_or_else(|| {
            let reason =
                format!("{}: a firewall mark is a number from 1 to 4294967295", line.text());
            ImportError::new(&line.position, reason)
        })?;
        let mark = if is_ipv6 { FirewallMark::ipv6(mark) } else { FirewallMark::ipv4(mark) };
        Ok(ListenAddress::Mark(mark))
    };
    match node.values() {
        [kind, name, ..] if kind == "group" => {
            let Some(group) = groups.get(name.as_str()) else {
                let report = format!("there is no virtual_server_group {name}");
                output.warn(&node.position, report);
                return Ok(Vec::new());
            };
            group.mark_used();
            let (mut listens, mut marks) = (Vec::new(), Vec::new());
            for line in group.children() {
                if line.mark_used().name() == "fwmark" {
                    marks.push(line);
                    continue;
                }
                match parse_range(&line.words) {
                    Ok(addresses) => {
                        listens.extend(addresses.into_iter().map(ListenAddress::Address));
                    }
                    Err(reason) => {
                        let report = format!("{} is left out: {reason}", line.text());
                        output.warn(&line.position, report);
                    }
                }
            }
            // The marks are of the family of the addresses.
            let of_addresses = listens.first().map(is_ipv6);
            let is_ipv6 = of_addresses.unwrap_or_else(|| is_mark_ipv6(node, output));
            for line in marks {
                listens.push(parse_mark(line, line.values().first(), is_ipv6)?);
            }
            Ok(listens)
        }
        [kind, mark @ ..] if kind == "fwmark" => {
            Ok(vec![parse_mark(node, mark.first(), is_mark_ipv6(node, output))?])
        }
        words => {
            let address = parse_address(words);
            if address.is_none() {
                let report = format!("{}: this is no address with a port", node.text());
                output.warn(&node.position, report);
            }
            Ok(address.into_iter().map(ListenAddress::Address).collect())
        }
    }
}

/// Returns whether a service by mark is one of IPv6: by `ip_family`, or by its servers, those of tunnels only
/// if all have one family.
fn is_mark_ipv6(node: &KeepalivedDirective, output: &mut ImportedConfig) -> bool {
    match node.last_child("ip_family").map(|family| (family, family.value())) {
        Some((_, Some("inet"))) => return false,
        Some((_, Some("inet6"))) => return true,
        Some((family, _)) => {
            let report = format!("{}: not inet or inet6: ignored, as in keepalived", family.text());
            output.report_skipped(&family.position, report);
        }
        None => {}
    }
    let unreported = &mut ImportedConfig::default();
    let of_service = read_method(node, &["lb_kind", "lvs_method"], unreported);
    let mut families = BTreeSet::new();
    for server in node.children_named("real_server") {
        let Some(address) = parse_address(server.values()) else { continue };
        let method = read_method(server, &["lvs_method"], unreported).or(of_service);
        if !method.is_some_and(ImportedMethod::is_tunnel) {
            return address.is_ipv6();
        }
        families.insert(address.is_ipv6());
    }
    families.into_iter().eq([true])
}

/// What decides which addresses a service may have.
#[derive(Clone, Copy)]
pub(super) struct AddressRules {
    pub(super) protocol: ServiceProtocol,
    pub(super) in_kernel: bool,
    /// The forwarding method of servers without one of their own.
    pub(super) method: ImportedMethod,
}

/// Returns the addresses that the service gets; the others are reported.
pub(super) fn accepted_addresses(
    node: &KeepalivedDirective,
    addresses: Vec<ListenAddress>,
    rules: AddressRules,
    listeners: &mut BTreeSet<(ServiceProtocol, ListenAddress)>,
    output: &mut ImportedConfig,
) -> Vec<ListenAddress> {
    // The kernel leads to servers of another family by tunnels alone.
    let has_one_family = rules.in_kernel && !has_tunnels_only(node, rules.method);
    let (mut accepted, mut of_other_family): (Vec<ListenAddress>, _) = (Vec::new(), Vec::new());
    for address in addresses {
        let is_other_family =
            accepted.first().is_some_and(|first| is_ipv6(first) != is_ipv6(&address));
        match &address {
            ListenAddress::Address(socket) if socket.port() == 0 => {
                output.warn(&node.position, every_port_warning(socket.ip()));
            }
            ListenAddress::Address(socket) if rules.in_kernel && socket.ip().is_unspecified() => {
                let report =
                    format!("{address} is left out: a service of the kernel has one address");
                output.warn(&node.position, report);
            }
            _ if has_one_family && is_other_family => of_other_family.push(address),
            _ if !listeners.insert(address.with_protocol(rules.protocol)) => {
                let report = format!("{address} is defined twice: only the first is converted");
                output.warn(&node.position, report);
            }
            _ => accepted.push(address),
        }
    }
    if let (Some(first), [other, more @ ..]) = (accepted.first(), &*of_other_family) {
        let more = match more.len() {
            0 => String::new(),
            count => format!(" and {count} more"),
        };
        let report = format!(
            "left out: {other}{more}: not of the family of {first}, and only tunnels lead to servers of \
             another: write a service of its own"
        );
        output.warn(&node.position, report);
    }
    accepted
}
