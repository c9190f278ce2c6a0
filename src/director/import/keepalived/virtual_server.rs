//! Virtual servers and their real servers.

use std::collections::{BTreeMap, BTreeSet};
use std::net::{IpAddr, SocketAddr};

use super::checker::{Common, checks};
use super::seconds;
use super::syntax::Node;
use crate::director::import::ipvsadm::{bits, rule};
use crate::director::import::output::{Inline, Output, Table, list};
use crate::scheduler::Registry;

pub(super) fn import(nodes: &[Node], output: &mut Output) {
    let mut groups = BTreeMap::new();
    for group in nodes.iter().filter(|node| node.name() == "virtual_server_group") {
        group.see();
        if let Some(name) = group.value() {
            groups.insert(name, group);
        }
    }
    let mut taken = BTreeSet::new();
    let mut number = 0;
    for node in nodes.iter().filter(|node| node.name() == "virtual_server") {
        node.see();
        number += 1;
        if let Some(table) = service(node, number, &groups, &mut taken, output) {
            output.add(table);
        }
    }
}

/// An address, and a port: that which clients ask for where there is none.
fn address(words: &[String]) -> Option<SocketAddr> {
    let (ip, port) = match words {
        [ip] => (ip, "0"),
        [ip, port, ..] => (ip, port.as_str()),
        [] => return None,
    };
    Some(SocketAddr::new(ip.parse::<IpAddr>().ok()?, port.parse().ok()?))
}

/// The addresses of a line of a group: `10.0.0.1-5 80`.
fn range(words: &[String]) -> Option<Vec<SocketAddr>> {
    let (first, last) = words.first()?.split_once('-').unzip();
    let (Some(first), Some(last)) = (first, last) else { return address(words).map(|it| vec![it]) };
    let port = words.get(1).map_or(Some(0), |port| port.parse().ok())?;
    let first: std::net::Ipv4Addr = first.parse().ok()?;
    let last: u8 = last.parse().ok()?;
    let [a, b, c, from] = first.octets();
    (from..=last).map(|d| Some(SocketAddr::from(([a, b, c, d], port)))).collect()
}

fn service(
    node: &Node,
    number: usize,
    groups: &BTreeMap<&str, &Node>,
    taken: &mut BTreeSet<(String, SocketAddr)>,
    output: &mut Output,
) -> Option<Table> {
    let protocol = node.text("protocol").unwrap_or("TCP").to_ascii_lowercase();
    let listens = listens(node, groups, output);
    if !matches!(&*protocol, "tcp" | "udp") {
        output.note(node.line, format!("a service of {protocol}"));
        return None;
    }
    let mut listen = Vec::new();
    for address in listens {
        if address.port() == 0 {
            output.note(node.line, format!("every port of {}", address.ip()));
        } else if !taken.insert((protocol.clone(), address)) {
            output.note(node.line, format!("{address} once more"));
        } else {
            listen.push(address.to_string());
        }
    }
    let mut table = Table::new("[[service]]");
    table.text("name", &format!("{protocol}-{number}"));
    if listen.is_empty() {
        table.text("listen", &format!("127.0.0.1:{number}"));
        table.note("Where should it listen? The original names no address and port.");
    } else {
        table.put("listen", list(listen.iter().map(String::as_str)));
    }
    table.text("protocol", &protocol);
    scheduling(node, &mut table, output);
    if let Some(sorry) = node.get("sorry_server") {
        match address(sorry.values()).filter(|it| protocol == "tcp" && it.port() > 0) {
            Some(address) => table.text("sorry_server", &address.to_string()),
            None => output.note(sorry.line, format!("`{}`", sorry.words.join(" "))),
        }
    }
    for name in ["lb_kind", "lvs_method"] {
        if let Some(kind) = node.text(name).filter(|kind| !kind.eq_ignore_ascii_case("NAT")) {
            table.note(format!(
                "{kind}: servers answered clients themselves. Here they answer the director, which \
                 they see as the client, unless `tcp = {{ source = \"client\" }}`."
            ));
        }
    }
    let common = Common {
        interval: node.number("delay_loop").unwrap_or(60.0),
        timeout: node.number("connect_timeout"),
        retry: node.number("retry"),
        pause: node.number("delay_before_retry"),
    };
    servers(node, &listen, common, &mut table, output);
    Some(table)
}

fn listens(node: &Node, groups: &BTreeMap<&str, &Node>, output: &mut Output) -> Vec<SocketAddr> {
    match node.values() {
        [kind, name, ..] if kind == "group" => {
            let Some(group) = groups.get(name.as_str()) else {
                output.note(node.line, format!("there is no virtual_server_group {name}"));
                return Vec::new();
            };
            let mut all = Vec::new();
            for line in group.below() {
                match range(&line.see().words) {
                    Some(addresses) => all.extend(addresses),
                    None => output.note(line.line, format!("`{}`", line.words.join(" "))),
                }
            }
            all
        }
        words => match address(words) {
            Some(address) => vec![address],
            None => {
                output.note(node.line, format!("`{}`", words.join(" ")));
                Vec::new()
            }
        },
    }
}

/// Rule, persistence and quorum.
fn scheduling(node: &Node, table: &mut Table, output: &mut Output) {
    let scheduler = node.text("lvs_sched").or(node.text("lb_algo")).unwrap_or("wlc");
    let flags = ["sh-port", "sh-fallback", "mh-port", "mh-fallback"];
    let flags: Vec<_> = flags.into_iter().filter(|flag| node.get(flag).is_some()).collect();
    let rule = rule(scheduler, &flags);
    match Registry::default().parse(&rule) {
        Ok(_) => table.text("scheduler", &rule),
        Err(_) => output.note(node.line, format!("scheduler `{rule}`")),
    }
    if node.get("ops").is_some() {
        table.put("udp", "{ one_packet = true }");
    }
    if let Some(persistent) = node.get("persistence_timeout") {
        let timeout = persistent.value().and_then(|it| it.parse::<f64>().ok()).unwrap_or(360.0);
        let mut rule = Inline::default();
        rule.text("timeout", &seconds(timeout.clamp(1.0, 1e9)));
        let mask = node.text("persistence_granularity");
        if let Some(bits) = mask.and_then(bits) {
            let is_v6 = mask.is_some_and(|mask| !mask.contains('.'));
            rule.put(if is_v6 { "netmask_v6" } else { "netmask" }, bits);
        }
        table.put("persistence", rule);
    }
    if let Some(weight) = node.number("quorum").filter(|weight| *weight > 1.0) {
        let mut quorum = Inline::default();
        quorum.put("weight", weight as u64);
        if let Some(by) = node.number("hysteresis") {
            quorum.put("hysteresis", by as u64);
        }
        table.put("quorum", quorum);
    }
}

fn servers(node: &Node, listen: &[String], common: Common, table: &mut Table, output: &mut Output) {
    let mut checked: Option<(Vec<Inline>, usize)> = None;
    let mut known = BTreeSet::new();
    let mut tables = Vec::new();
    for server in node.all("real_server") {
        let Some(mut address) = address(server.values()) else {
            output.note(server.line, format!("`{}`", server.words.join(" ")));
            continue;
        };
        if address.port() == 0
            && let [only] = listen
            && let Ok(only) = only.parse::<SocketAddr>()
        {
            address.set_port(only.port());
        }
        if !known.insert(address) {
            output.note(server.line, format!("{address} once more"));
            continue;
        }
        let mut row = Table::new("[[service.server]]");
        row.text("address", &address.to_string());
        let weight = server.number("weight").or(node.number("weight")).unwrap_or(1.0);
        row.put("weight", weight.min(65_535.0) as u32);
        let number = |name| server.number(name).map(|it| it as u32).filter(|it| *it > 0);
        if let Some(most) = number("uthreshold") {
            row.put("max_connections", most);
            if let Some(least) = number("lthreshold").filter(|least| *least <= most) {
                row.put("resume_connections", least);
            }
        }
        if server.get("inhibit_on_failure").is_some() {
            // What is down is not taken out here: its connections and its place stay.
            row.note("inhibit_on_failure: a server that is down is never taken out.");
        }
        let checks = checks(server, common, output);
        match &checked {
            None => checked = Some((checks, server.line)),
            Some((first, line)) if *first != checks => {
                let what =
                    format!("other checks than the server of line {line}, which all have now");
                output.note(server.line, what);
            }
            Some(_) => {}
        }
        tables.push(row);
    }
    match checked.map(|(checks, _)| checks).unwrap_or_default().as_slice() {
        [] => {}
        [one] => table.put("health", one),
        several => {
            let all: Vec<_> = several.iter().map(ToString::to_string).collect();
            table.put("health", format!("[{}]", all.join(", ")));
        }
    }
    tables.into_iter().for_each(|row| table.add(row));
}
