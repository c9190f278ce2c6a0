//! Conversion of virtual servers and their real servers.

use std::collections::{BTreeMap, BTreeSet};
use std::net::{IpAddr, SocketAddr};

use super::checker::{CheckerDefaults, import_checks};
use super::syntax::KeepalivedDirective;
use super::values::toml_duration;
use crate::director::import::ipvs::{netmask_bits, scheduler_text};
use crate::director::import::toml_writer::{
    ImportedConfig, TomlInlineTable, TomlTable, toml_string_array,
};
use crate::scheduler::SchedulerRegistry;

pub(super) fn import(nodes: &[KeepalivedDirective], output: &mut ImportedConfig) {
    let mut groups = BTreeMap::new();
    for group in nodes.iter().filter(|node| node.name() == "virtual_server_group") {
        group.mark_used();
        if let Some(name) = group.value() {
            groups.insert(name, group);
        }
    }
    let mut listeners = BTreeSet::new();
    let mut number = 0;
    for node in nodes.iter().filter(|node| node.name() == "virtual_server") {
        node.mark_used();
        number += 1;
        if let Some(table) = import_service(node, number, &groups, &mut listeners, output) {
            output.push_table(table);
        }
    }
}

/// Parses an address with an optional port; 0 stands for the port that the client connects to.
fn parse_address(words: &[String]) -> Option<SocketAddr> {
    let (ip, port) = match words {
        [ip] => (ip, "0"),
        [ip, port, ..] => (ip, port.as_str()),
        [] => return None,
    };
    Some(SocketAddr::new(ip.parse::<IpAddr>().ok()?, port.parse().ok()?))
}

/// Parses a line of a virtual server group, such as `10.0.0.1-5 80`.
fn parse_address_range(words: &[String]) -> Option<Vec<SocketAddr>> {
    let (first, last) = words.first()?.split_once('-').unzip();
    let (Some(first), Some(last)) = (first, last) else {
        return parse_address(words).map(|address| vec![address]);
    };
    let port = words.get(1).map_or(Some(0), |port| port.parse().ok())?;
    let first: std::net::Ipv4Addr = first.parse().ok()?;
    let last: u8 = last.parse().ok()?;
    let [a, b, c, from] = first.octets();
    (from..=last).map(|d| Some(SocketAddr::from(([a, b, c, d], port)))).collect()
}

fn import_service(
    node: &KeepalivedDirective,
    number: usize,
    groups: &BTreeMap<&str, &KeepalivedDirective>,
    listeners: &mut BTreeSet<(String, SocketAddr)>,
    output: &mut ImportedConfig,
) -> Option<TomlTable> {
    let protocol = node.child_value("protocol").unwrap_or("TCP").to_ascii_lowercase();
    let listens = listen_addresses(node, groups, output);
    if !matches!(&*protocol, "tcp" | "udp") {
        output.report_skipped(node.line, format!("a service of protocol {protocol}"));
        return None;
    }
    let mut listen = Vec::new();
    for address in listens {
        if address.port() == 0 {
            output.report_skipped(
                node.line,
                format!(
                    "port 0 (every port) of {} is not supported: set the ports in `listen`",
                    address.ip()
                ),
            );
        } else if !listeners.insert((protocol.clone(), address)) {
            output.report_skipped(
                node.line,
                format!("{address} is defined twice: only the first is converted"),
            );
        } else {
            listen.push(address.to_string());
        }
    }
    let mut table = TomlTable::new("[[service]]");
    table.insert_string("name", &format!("{protocol}-{number}"));
    if listen.is_empty() {
        table.insert_string("listen", &format!("127.0.0.1:{number}"));
        table.push_comment("The original names no address and port: set the address to listen on.");
    } else {
        table.insert("listen", toml_string_array(listen.iter().map(String::as_str)));
    }
    table.insert_string("protocol", &protocol);
    import_scheduling(node, &mut table, output);
    if let Some(sorry) = node.last_child("sorry_server") {
        match parse_address(sorry.values())
            .filter(|address| protocol == "tcp" && address.port() > 0)
        {
            Some(address) => table.insert_string("sorry_server", &address.to_string()),
            None => output.report_skipped(sorry.line, format!("`{}`", sorry.words.join(" "))),
        }
    }
    for name in ["lb_kind", "lvs_method"] {
        if let Some(kind) = node.child_value(name).filter(|kind| !kind.eq_ignore_ascii_case("NAT"))
        {
            table.push_comment(format!(
                "{kind}: the servers answered clients directly. Here they answer the director, whose \
                 address they see unless `tcp = {{ source = \"client\" }}`."
            ));
        }
    }
    let common = CheckerDefaults {
        interval: node.child_number("delay_loop").unwrap_or(60.0),
        timeout: node.child_number("connect_timeout"),
        retry: node.child_number("retry"),
        delay_before_retry: node.child_number("delay_before_retry"),
    };
    import_servers(node, &listen, common, &mut table, output);
    Some(table)
}

fn listen_addresses(
    node: &KeepalivedDirective,
    groups: &BTreeMap<&str, &KeepalivedDirective>,
    output: &mut ImportedConfig,
) -> Vec<SocketAddr> {
    match node.values() {
        [kind, name, ..] if kind == "group" => {
            let Some(group) = groups.get(name.as_str()) else {
                output
                    .report_skipped(node.line, format!("there is no virtual_server_group {name}"));
                return Vec::new();
            };
            let mut listens = Vec::new();
            for line in group.children() {
                match parse_address_range(&line.mark_used().words) {
                    Some(addresses) => listens.extend(addresses),
                    None => output.report_skipped(line.line, format!("`{}`", line.words.join(" "))),
                }
            }
            listens
        }
        words => match parse_address(words) {
            Some(address) => vec![address],
            None => {
                output.report_skipped(node.line, format!("`{}`", words.join(" ")));
                Vec::new()
            }
        },
    }
}

/// Converts scheduler, persistence and quorum.
fn import_scheduling(
    node: &KeepalivedDirective,
    table: &mut TomlTable,
    output: &mut ImportedConfig,
) {
    let scheduler = node.child_value("lvs_sched").or(node.child_value("lb_algo")).unwrap_or("wlc");
    let flags = ["sh-port", "sh-fallback", "mh-port", "mh-fallback"];
    let flags: Vec<_> = flags.into_iter().filter(|flag| node.last_child(flag).is_some()).collect();
    let rule = scheduler_text(scheduler, &flags);
    match SchedulerRegistry::default().parse(&rule) {
        Ok(_) => table.insert_string("scheduler", &rule),
        Err(_) => output.report_skipped(node.line, format!("scheduler `{rule}`")),
    }
    if node.last_child("ops").is_some() {
        table.insert("udp", "{ one_packet = true }");
    }
    if let Some(persistent) = node.last_child("persistence_timeout") {
        let timeout =
            persistent.value().and_then(|timeout| timeout.parse::<f64>().ok()).unwrap_or(360.0);
        let mut persistence = TomlInlineTable::default();
        persistence.insert_string("timeout", &toml_duration(timeout.clamp(1.0, 1e9)));
        let mask = node.child_value("persistence_granularity");
        if let Some(bits) = mask.and_then(netmask_bits) {
            let is_v6 = mask.is_some_and(|mask| !mask.contains('.'));
            persistence.insert(if is_v6 { "netmask_v6" } else { "netmask" }, bits);
        }
        table.insert("persistence", persistence);
    }
    if let Some(weight) = node.child_number("quorum").filter(|weight| *weight > 1.0) {
        let mut quorum = TomlInlineTable::default();
        quorum.insert("weight", weight as u64);
        if let Some(hysteresis) = node.child_number("hysteresis") {
            quorum.insert("hysteresis", hysteresis as u64);
        }
        table.insert("quorum", quorum);
    }
}

fn import_servers(
    node: &KeepalivedDirective,
    listen: &[String],
    common: CheckerDefaults,
    table: &mut TomlTable,
    output: &mut ImportedConfig,
) {
    let mut checked: Option<(Vec<TomlInlineTable>, usize)> = None;
    let mut known = BTreeSet::new();
    let mut tables = Vec::new();
    for server in node.children_named("real_server") {
        let Some(mut address) = parse_address(server.values()) else {
            output.report_skipped(server.line, format!("`{}`", server.words.join(" ")));
            continue;
        };
        if address.port() == 0
            && let [listen] = listen
            && let Ok(listen) = listen.parse::<SocketAddr>()
        {
            address.set_port(listen.port());
        }
        if !known.insert(address) {
            output.report_skipped(
                server.line,
                format!("{address} is defined twice: only the first is converted"),
            );
            continue;
        }
        let mut row = TomlTable::new("[[service.server]]");
        row.insert_string("address", &address.to_string());
        let weight = server.child_number("weight").or(node.child_number("weight")).unwrap_or(1.0);
        row.insert("weight", weight.min(65_535.0) as u32);
        let number = |name| {
            server.child_number(name).map(|number| number as u32).filter(|number| *number > 0)
        };
        if let Some(max) = number("uthreshold") {
            row.insert("max_connections", max);
            if let Some(resume) = number("lthreshold").filter(|resume| *resume <= max) {
                row.insert("resume_connections", resume);
            }
        }
        if server.last_child("inhibit_on_failure").is_some() {
            row.push_comment("inhibit_on_failure: a server that is down is never removed.");
        }
        let checks = import_checks(server, common, output);
        match &checked {
            None => checked = Some((checks, server.line)),
            Some((first, line)) if *first != checks => {
                let report = format!(
                    "checks of this server: all servers of the service have the checks of line \
                         {line}"
                );
                output.report_skipped(server.line, report);
            }
            Some(_) => {}
        }
        tables.push(row);
    }
    match checked.map(|(checks, _)| checks).unwrap_or_default().as_slice() {
        [] => {}
        [check] => table.insert("health", check),
        checks => {
            let checks: Vec<_> = checks.iter().map(ToString::to_string).collect();
            table.insert("health", format!("[{}]", checks.join(", ")));
        }
    }
    tables.into_iter().for_each(|row| table.push_subtable(row));
}
