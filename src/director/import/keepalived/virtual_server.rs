//! Conversion of virtual servers.

use std::collections::{BTreeMap, BTreeSet};

use super::address_range::parse_address;
use super::forwarding_method::{OTHER_FAMILY, common_port, is_ipv6, reaches, read_method};
use super::global::GlobalSettings;
use super::listen_addresses::{AddressRules, accepted_addresses, listen_addresses, needs_kernel};
use super::real_server::import_servers;
use super::syntax::KeepalivedDirective;
use super::values::{ImportedCommand, number, toml_duration};
use crate::director::config::{ListenAddress, ServiceProtocol};
use crate::director::import::error::ImportError;
use crate::director::import::ipvs::{
    ImportedMethod, ImportedTunnel, client_address_difference, netmask_bits, scheduler_text,
};
use crate::director::import::toml_writer::{
    ImportedConfig, TomlInlineTable, TomlTable, toml_string_array,
};
use crate::ipvs::kernel_scheduler;

/// The timeout of persistence without a value, in seconds.
const DEFAULT_PERSISTENCE_TIMEOUT: u32 = 360;
/// The number of listeners of all services.
const MAX_LISTENERS: usize = 16_384;

/// Converts the services. Returns whether the kernel forwards them: those of a file share one engine, which
/// is the kernel's if one of them needs it.
pub(super) fn import(
    nodes: &[KeepalivedDirective],
    global: &GlobalSettings<'_>,
    output: &mut ImportedConfig,
) -> Result<bool, ImportError> {
    let mut groups = BTreeMap::new();
    for group in nodes.iter().filter(|node| node.name() == "virtual_server_group") {
        if let Some(name) = group.value() {
            groups.entry(name).or_insert(group);
        }
    }
    let mut listeners = BTreeSet::new();
    let services = || nodes.iter().filter(|node| node.name() == "virtual_server");
    let in_kernel =
        global.sync_daemon.is_some() || services().any(|node| needs_kernel(node, &groups));
    let mut has_services = false;
    for (n, node) in services().enumerate() {
        let listen = listen_addresses(node.mark_used(), &groups, output)?;
        match import_service(node, n + 1, listen, in_kernel, &mut listeners, global, output) {
            Some(table) => {
                has_services = true;
                output.push_table(table);
            }
            None => node.mark_all_used(),
        }
        if listeners.len() > MAX_LISTENERS {
            let reason = format!("the services have more than {MAX_LISTENERS} addresses and ports");
            return Err(ImportError::new(&node.position, reason));
        }
    }
    Ok(in_kernel && has_services)
}

/// Converts a service; `None` if it is left out, which is reported.
fn import_service(
    node: &KeepalivedDirective,
    number: usize,
    addresses: Vec<ListenAddress>,
    in_kernel: bool,
    listeners: &mut BTreeSet<(ServiceProtocol, ListenAddress)>,
    global: &GlobalSettings<'_>,
    output: &mut ImportedConfig,
) -> Option<TomlTable> {
    if node.children_named("real_server").next().is_none() {
        let report = format!("{} has no real server: left out, as in keepalived", node.text());
        output.report_skipped(&node.position, report);
        return None;
    }
    let is_by_mark = addresses.iter().all(|listen| matches!(listen, ListenAddress::Mark(_)));
    let protocol = protocol(node, is_by_mark && !addresses.is_empty(), output)?;
    let of_service = if protocol == "udp" { ServiceProtocol::Udp } else { ServiceProtocol::Tcp };
    let method = read_method(node, &["lb_kind", "lvs_method"], output);
    let method = method.unwrap_or(ImportedMethod::Nat);
    let rules = AddressRules { protocol: of_service, in_kernel, method };
    let listen = accepted_addresses(node, addresses, rules, listeners, output);
    if listen.is_empty() {
        let report = format!("{}: the service has no address and port: left out", node.text());
        output.warn(&node.position, report);
        return None;
    }
    if !is_by_mark && let Some(family) = node.last_child("ip_family") {
        let report = format!("{}: for services by firewall mark only", family.text());
        output.report_skipped(&family.position, report);
    }
    let mut table = TomlTable::new("[[service]]");
    let kind = if is_by_mark { "fwmark" } else { protocol };
    table.insert_string("name", &format!("{kind}-{number}"));
    let texts: Vec<_> = listen.iter().map(ToString::to_string).collect();
    table.insert("listen", toml_string_array(texts.iter().map(String::as_str)));
    table.insert_string("protocol", protocol);
    if in_kernel {
        table.insert_string("engine", "ipvs");
    }
    let is_persistent = import_scheduling(node, protocol, is_ipv6(&listen[0]), &mut table, output);
    let has_mark = listen.iter().any(|listen| matches!(listen, ListenAddress::Mark(_)));
    let removes_down = in_kernel && (is_persistent || has_mark || protocol == "udp");
    let has_sorry_server = import_sorry_server(node, method, &listen, &mut table, output);
    let total_weight =
        import_servers(node, method, &listen, removes_down, global, &mut table, output);
    let Some(total_weight) = total_weight else {
        let report = format!("{}: no real server is left: left out", node.text());
        output.warn(&node.position, report);
        return None;
    };
    if !in_kernel {
        output.report_skipped(&node.position, client_address_difference(protocol));
    }
    import_quorum(node, has_sorry_server, total_weight, global, &mut table, output);
    Some(table)
}

/// Returns the protocol; `None` for one that no service can have. A mark has packets of every protocol: the
/// service is one of UDP if datagrams are to be scheduled one by one.
fn protocol(
    node: &KeepalivedDirective,
    is_by_mark: bool,
    output: &mut ImportedConfig,
) -> Option<&'static str> {
    if is_by_mark {
        let _ = node.last_child("protocol");
        return Some(if node.last_child("ops").is_some() { "udp" } else { "tcp" });
    }
    let Some(protocol) = node.last_child("protocol") else {
        let report =
            "the virtual_server has no `protocol`: it is a UDP service, as in keepalived 2";
        output.warn(&node.position, report);
        return Some("udp");
    };
    match protocol.value().unwrap_or_default().to_ascii_lowercase().as_str() {
        "tcp" => Some("tcp"),
        "udp" => Some("udp"),
        _ => {
            let report = format!("{}: the service is left out", protocol.text());
            output.warn(&node.position, report);
            None
        }
    }
}

/// Converts scheduler and persistence; returns whether there is persistence.
fn import_scheduling(
    node: &KeepalivedDirective,
    protocol: &str,
    is_v6: bool,
    table: &mut TomlTable,
    output: &mut ImportedConfig,
) -> bool {
    let scheduler = node.last_child_of(&["lvs_sched", "lb_algo"]);
    let scheduler = scheduler.and_then(KeepalivedDirective::value).unwrap_or("wlc");
    let mut flags = Vec::new();
    for (keyword, general, suffix) in [
        ("sh-fallback", "flag-1", "fallback"),
        ("sh-port", "flag-2", "port"),
        ("mh-fallback", "flag-1", "fallback"),
        ("mh-port", "flag-2", "port"),
    ] {
        let is_this = keyword.starts_with(scheduler);
        let is_general = node.last_child(general).is_some() && is_this;
        if node.last_child(keyword).is_some() || is_general {
            flags.push(format!("{}-{suffix}", &keyword[..2]));
        }
    }
    let rule = scheduler_text(scheduler, &flags.iter().map(String::as_str).collect::<Vec<_>>());
    match kernel_scheduler(&rule) {
        Ok(_) => table.insert_string("scheduler", &rule),
        Err(error) => {
            let report = format!("scheduler `{rule}`: {error}: the service has the default, wlc");
            output.warn(&node.position, report);
        }
    }
    match node.last_child("ops") {
        Some(_) if protocol == "udp" => table.insert("udp", "{ one_packet = true }"),
        Some(ops) => {
            output.report_skipped(&ops.position, "`ops` is for UDP only, as in keepalived")
        }
        None => {}
    }
    let mask = node.last_child("persistence_granularity");
    let timeout = node.last_child("persistence_timeout");
    let timeout = match timeout.map(|node| (node, node.value())) {
        None => mask.map(|_| DEFAULT_PERSISTENCE_TIMEOUT),
        Some((_, None)) => Some(DEFAULT_PERSISTENCE_TIMEOUT),
        Some((node, Some(text))) => {
            let timeout = text.parse().ok().filter(|timeout| (1..=2_678_400).contains(timeout));
            if timeout.is_none() {
                let report = format!("{}: there is no persistence, as in keepalived", node.text());
                output.report_skipped(&node.position, report);
            }
            timeout
        }
    };
    let Some(timeout) = timeout else { return false };
    let mut persistence = TomlInlineTable::default();
    persistence.insert_string("timeout", &toml_duration(f64::from(timeout)));
    if let Some(mask) = mask {
        let text = mask.value().unwrap_or_default();
        match netmask_bits(text).filter(|_| text.contains('.') != is_v6) {
            Some(bits) => {
                persistence.insert(if is_v6 { "netmask_v6" } else { "netmask" }, bits);
            }
            None => {
                let family = if is_v6 { "a prefix length of IPv6" } else { "a netmask of IPv4" };
                let report = format!("{}: this is not {family}: left out", mask.text());
                output.warn(&mask.position, report);
            }
        }
    }
    table.insert("persistence", persistence);
    true
}

/// Converts the sorry server; returns whether there is one.
fn import_sorry_server(
    node: &KeepalivedDirective,
    service_method: ImportedMethod,
    listen: &[ListenAddress],
    table: &mut TomlTable,
    output: &mut ImportedConfig,
) -> bool {
    let Some(sorry) = node.last_child("sorry_server") else { return false };
    let Some(mut address) = parse_address(sorry.values()) else {
        let report = format!("{}: this is no address with a port", sorry.text());
        output.warn(&sorry.position, report);
        return false;
    };
    let method = read_method(node, &["sorry_server_lvs_method"], output).unwrap_or(service_method);
    if !reaches(method, address, listen) {
        let report = format!("{}: {OTHER_FAMILY}", sorry.text());
        output.report_skipped(&sorry.position, report);
        return false;
    }
    let is_by_mark = matches!(listen, [ListenAddress::Mark(_), ..]);
    if address.port() == 0 || (method != ImportedMethod::Nat && !is_by_mark) {
        address.set_port(common_port(listen).unwrap_or(0));
    }
    if address.port() == 0 && method == ImportedMethod::Nat && !is_by_mark {
        output.warn(&sorry.position, format!("{}: a port is required", sorry.text()));
        return false;
    }
    table.insert_string("sorry_server", &address.to_string());
    match method {
        ImportedMethod::Nat => {}
        ImportedMethod::DirectRouting => table.insert_string("sorry_server_method", "dr"),
        ImportedMethod::Tunnel(tunnel) => {
            table.insert_string("sorry_server_method", "tunnel");
            if tunnel != ImportedTunnel::default() {
                let report = format!("{}: the tunnel to a sorry server is IP in IP", sorry.text());
                output.warn(&sorry.position, report);
            }
        }
    }
    true
}

/// Converts the quorum with its programs. Without a sorry server keepalived goes on below the quorum.
fn import_quorum(
    node: &KeepalivedDirective,
    has_sorry_server: bool,
    total_weight: u64,
    global: &GlobalSettings<'_>,
    table: &mut TomlTable,
    output: &mut ImportedConfig,
) {
    let mut weight = number(node, "quorum", 1..=u64::from(u32::MAX), output).unwrap_or(1);
    let mut hysteresis = number(node, "hysteresis", 0..=u64::from(u32::MAX), output).unwrap_or(0);
    let commands: Vec<_> = ["quorum_up", "quorum_down"]
        .into_iter()
        .filter_map(|key| {
            let command = ImportedCommand::read(node, key, &global.script_user, output)?;
            Some((key, command.to_toml()))
        })
        .collect();
    if weight > total_weight.max(1) {
        let report = format!(
            "`quorum {weight}` is above the total weight: {total_weight}, as in keepalived"
        );
        output.report_skipped(&node.position, report);
        weight = total_weight.max(1);
    }
    if hysteresis >= weight {
        if hysteresis > 0 {
            let report = format!("`hysteresis {hysteresis}`: {}, as in keepalived", weight - 1);
            output.report_skipped(&node.position, report);
        }
        hysteresis = weight - 1;
    }
    if weight == 1 && commands.is_empty() {
        return;
    }
    let mut quorum = TomlInlineTable::default();
    quorum.insert("weight", weight);
    if hysteresis > 0 {
        quorum.insert("hysteresis", hysteresis);
    }
    if !has_sorry_server {
        quorum.insert("advisory", true);
    }
    table.insert("quorum", quorum);
    for (key, command) in commands {
        table.insert(key, command);
    }
}
