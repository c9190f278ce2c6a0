//! Virtual routers.

use std::collections::{BTreeMap, BTreeSet};
use std::net::IpAddr;

use super::syntax::Node;
use super::{command, seconds};
use crate::director::import::output::{Inline, Output, Table, list};
use crate::vrrp::VirtualAddress;

pub(super) fn import(nodes: &[Node], output: &mut Output) {
    let mut scripts = BTreeMap::new();
    for script in nodes.iter().filter(|node| node.name() == "vrrp_script") {
        if let Some(name) = script.see().value() {
            scripts.insert(name, script);
        }
    }
    let instances: Vec<_> = nodes.iter().filter(|node| node.name() == "vrrp_instance").collect();
    let mut grouped = BTreeSet::new();
    let mut commands = Vec::new();
    for group in nodes.iter().filter(|node| node.name() == "vrrp_sync_group") {
        group.see();
        let members = group.all("group").flat_map(|it| it.below().iter());
        grouped.extend(members.flat_map(|it| it.see().words.iter().map(String::as_str)));
        commands.extend(notify(group));
    }
    if instances.len() > 1 && instances.iter().any(|it| !grouped.contains(it.value().unwrap_or("")))
    {
        let what = "virtual routers that were master one by one are so together, or not at all";
        output.note(instances[0].line, what);
    }
    let mut ids = BTreeSet::new();
    for instance in &instances {
        instance.see();
        let interface = instance.text("interface").unwrap_or("eth0").to_owned();
        let id = instance.number("virtual_router_id").filter(|id| (1.0..256.0).contains(id));
        let Some(id) = id.map(|id| id as u8).filter(|id| ids.insert((interface.clone(), *id)))
        else {
            let what = "without a `virtual_router_id` of its own there is no virtual router";
            output.note(instance.line, what);
            continue;
        };
        if let Some(mut table) = router(instance, &interface, id, &scripts, output) {
            if let Some(commands) = Some(notify(instance)).filter(|it| !it.is_empty()) {
                for (key, command) in commands {
                    table.put(key, command);
                }
            } else if grouped.contains(instance.value().unwrap_or("")) {
                for (key, command) in std::mem::take(&mut commands) {
                    table.put(key, command);
                }
            }
            output.add(table);
        }
    }
}

/// What is run when its state changes.
fn notify(node: &Node) -> Vec<(&'static str, String)> {
    let keys = ["notify", "notify_master", "notify_backup", "notify_fault"];
    let commands = keys.into_iter().filter_map(|key| {
        let words = command(node.get(key)?);
        (!words.is_empty()).then(|| (key, list(words.iter().map(String::as_str))))
    });
    commands.collect()
}

fn router(
    node: &Node,
    interface: &str,
    id: u8,
    scripts: &BTreeMap<&str, &Node>,
    output: &mut Output,
) -> Option<Table> {
    let mut table = Table::new("[[vrrp]]");
    if let Some(name) = node.value() {
        table.text("name", name);
    }
    table.text("interface", interface);
    table.put("virtual_router_id", id);
    // It says where to begin; who is master is for priorities to say.
    let _ = node.get("state");
    let priority = node.number("priority").unwrap_or(100.0);
    table.put("priority", priority.clamp(1.0, 255.0) as u8);
    let version = node.number("version").or(node.number("vrrp_version")).unwrap_or(2.0) as u8;
    version_of(node, version, &mut table, output);
    if node.get("nopreempt").is_some() {
        table.put("preempt", false);
    } else if let Some(delay) = node.number("preempt_delay").filter(|delay| *delay > 0.0) {
        table.text("preempt_delay", &seconds(delay));
    }
    if node.get("use_vmac").is_some() {
        table.put("virtual_mac", true);
    }
    let addresses = addresses(node, interface, output);
    if addresses.is_empty() {
        output.note(node.line, "a virtual router without addresses is none");
        return None;
    }
    table.put("addresses", list(addresses.iter().map(String::as_str)));
    for key in ["unicast_src_ip", "mcast_src_ip"] {
        if let Some(source) = node.text(key).and_then(|it| it.parse::<IpAddr>().ok()) {
            table.text(if source.is_ipv6() { "source_v6" } else { "source" }, &source.to_string());
        }
    }
    let mut peers = Vec::new();
    for peer in node.all("unicast_peer").flat_map(Node::below) {
        match peer.see().name().parse::<IpAddr>() {
            Ok(peer) => peers.push(peer.to_string()),
            Err(_) => output.note(peer.line, format!("`{}`", peer.words.join(" "))),
        }
    }
    if !peers.is_empty() {
        table.put("peers", list(peers.iter().map(String::as_str)));
    }
    routes(node, interface, &mut table, output);
    tracks(node, scripts, &mut table, output);
    Some(table)
}

/// The version, and what belongs to it.
fn version_of(node: &Node, version: u8, table: &mut Table, output: &mut Output) {
    let interval = node.number("advert_int").unwrap_or(1.0);
    let is_v6 =
        node.all("virtual_ipaddress").flat_map(Node::below).any(|it| it.name().contains(':'));
    // The old version knows no IPv6, and no parts of a second.
    let version = if is_v6 || interval.fract() != 0.0 { 3 } else { version.clamp(2, 3) };
    table.put("version", version);
    let (least, most) = if version == 2 { (1.0, 255.0) } else { (0.01, 40.95) };
    let kept = interval.clamp(least, most);
    if kept != interval {
        output.note(node.line, format!("advert_int {interval}: it is {kept}"));
    }
    table.text("advert_interval", &seconds(kept));
    if let Some(authentication) = node.get("authentication") {
        let kind = authentication.text("auth_type").unwrap_or("PASS");
        let _ = authentication.get("auth_pass");
        let what = format!("authentication of type {kind}: who needs one has `auth_key`");
        output.note(authentication.line, what);
        if version == 2 && kind.eq_ignore_ascii_case("PASS") {
            table.put("ignore_passwords", true);
        }
    }
}

/// Virtual addresses: those that are told, and those that are not.
fn addresses(node: &Node, interface: &str, output: &mut Output) -> Vec<String> {
    let (mut addresses, mut known) = (Vec::new(), BTreeSet::new());
    for key in ["virtual_ipaddress", "virtual_ipaddress_excluded"] {
        for line in node.all(key).flat_map(Node::below) {
            let said = || format!("`{}`", line.words.join(" "));
            match line.see().name().parse::<VirtualAddress>() {
                Ok(address) if known.insert(address.ip()) => addresses.push(address.to_string()),
                Ok(_) => output.note(line.line, format!("{} once more", said())),
                Err(_) => output.note(line.line, said()),
            }
            let mut rest = line.values().iter();
            while let (Some(key), value) = (rest.next(), rest.next()) {
                let value = value.map_or("", |value| value);
                if !(key == "dev" && value == interface) {
                    output.note(line.line, format!("`{key} {value}` of {}", line.name()));
                }
            }
        }
    }
    addresses
}

/// Virtual routes.
fn routes(node: &Node, interface: &str, table: &mut Table, output: &mut Output) {
    let mut routes = Vec::new();
    for line in node.all("virtual_routes").flat_map(Node::below) {
        match route(&line.see().words, interface) {
            Some(route) => routes.push(route.to_string()),
            None => output.note(line.line, format!("route `{}`", line.words.join(" "))),
        }
    }
    if !routes.is_empty() {
        table.put("routes", format!("[{}]", routes.join(", ")));
    }
}

/// A route by the interface of its virtual router; others are not carried.
fn route(words: &[String], interface: &str) -> Option<Inline> {
    let mut route = Inline::default();
    let mut has_target = false;
    let mut words = words.iter();
    while let Some(word) = words.next() {
        let mut address = || words.next()?.parse::<IpAddr>().ok().map(|it| it.to_string());
        match word.as_str() {
            "src" => route.text("source", &address()?),
            "via" | "gw" => route.text("via", &address()?),
            "dev" => {
                words.next().filter(|it| *it == interface)?;
            }
            "metric" => route.put("metric", words.next()?.parse::<u32>().ok()?),
            target => {
                let target = if target == "default" { "0.0.0.0/0" } else { target };
                route.text("to", &target.parse::<VirtualAddress>().ok()?.to_string());
                has_target = true;
            }
        }
    }
    has_target.then_some(route)
}

/// Links and scripts that the priority depends on.
fn tracks(node: &Node, scripts: &BTreeMap<&str, &Node>, table: &mut Table, output: &mut Output) {
    let mut known = BTreeSet::new();
    for line in node.all("track_interface").flat_map(Node::below) {
        let (names, weight) = weighted(line.see());
        for name in names.iter().filter(|name| known.insert(format!("interface {name}"))) {
            let mut track = Table::new("[[vrrp.track]]");
            track.text("name", &format!("interface {name}"));
            track.text("interface", name);
            impact(&mut track, weight, line, output);
            table.add(track);
        }
    }
    for line in node.all("track_script").flat_map(Node::below) {
        let (names, weight) = weighted(line.see());
        for name in names.iter().filter(|name| known.insert((*name).to_string())) {
            let Some(script) = scripts.get(name.as_str()) else {
                output.note(line.line, format!("there is no vrrp_script {name}"));
                continue;
            };
            let words = script.get("script").map(command).unwrap_or_default();
            let Some((program, arguments)) = words.split_first() else {
                output.note(script.line, format!("vrrp_script {name} without `script`"));
                continue;
            };
            let mut check = Inline::default();
            check.text("type", "command");
            check.text("command", program);
            if !arguments.is_empty() {
                check.put("arguments", list(arguments.iter().map(String::as_str)));
            }
            let interval = script.number("interval").unwrap_or(1.0).max(0.001);
            check.text("interval", &seconds(interval));
            let timeout = script.number("timeout").unwrap_or(interval).clamp(0.001, interval);
            check.text("timeout", &seconds(timeout));
            for key in ["rise", "fall"] {
                let times = script.number(key).unwrap_or(1.0).max(1.0) as u32;
                check.put(key, times);
            }
            let mut track = Table::new("[[vrrp.track]]");
            track.text("name", name);
            let own = script.text("weight").and_then(|weight| weight.parse().ok());
            impact(&mut track, weight.or(own), line, output);
            track.put("check", check);
            table.add(track);
        }
    }
}

/// The names of a line, and the weight behind them.
fn weighted(node: &Node) -> (Vec<String>, Option<i32>) {
    let words = &node.words;
    let end = words.iter().position(|word| word == "weight").unwrap_or(words.len());
    (words[..end].to_vec(), words.get(end + 1).and_then(|weight| weight.parse().ok()))
}

fn impact(track: &mut Table, weight: Option<i32>, line: &Node, output: &mut Output) {
    match weight.filter(|weight| *weight != 0) {
        None => {}
        Some(weight) if weight.unsigned_abs() < 255 => track.put("weight", weight),
        Some(weight) => {
            output.note(line.line, format!("weight {weight}: it is {}", weight.signum() * 254));
            track.put("weight", weight.signum() * 254);
        }
    }
}
