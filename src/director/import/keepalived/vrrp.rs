//! Conversion of VRRP instances.

use std::collections::{BTreeMap, BTreeSet};
use std::net::IpAddr;

use super::syntax::KeepalivedDirective;
use super::values::{command_words, toml_duration};
use crate::director::import::toml_writer::{
    ImportedConfig, TomlInlineTable, TomlTable, toml_string_array,
};
use crate::vrrp::VirtualAddress;

pub(super) fn import(nodes: &[KeepalivedDirective], output: &mut ImportedConfig) {
    let mut scripts = BTreeMap::new();
    for script in nodes.iter().filter(|node| node.name() == "vrrp_script") {
        if let Some(name) = script.mark_used().value() {
            scripts.insert(name, script);
        }
    }
    let instances: Vec<_> = nodes.iter().filter(|node| node.name() == "vrrp_instance").collect();
    let mut grouped = BTreeSet::new();
    let mut commands = Vec::new();
    for group in nodes.iter().filter(|node| node.name() == "vrrp_sync_group") {
        group.mark_used();
        let members = group.children_named("group").flat_map(|list| list.children().iter());
        grouped
            .extend(members.flat_map(|member| member.mark_used().words.iter().map(String::as_str)));
        commands.extend(notify_commands(group));
    }
    if instances.len() > 1
        && instances.iter().any(|node| !grouped.contains(node.value().unwrap_or("")))
    {
        let report = "independent vrrp_instances: here one director is master of all or of none";
        output.report_skipped(instances[0].line, report);
    }
    let mut ids = BTreeSet::new();
    for instance in &instances {
        instance.mark_used();
        let interface = instance.child_value("interface").unwrap_or("eth0").to_owned();
        let id = instance.child_number("virtual_router_id").filter(|id| (1.0..256.0).contains(id));
        let Some(id) = id.map(|id| id as u8).filter(|id| ids.insert((interface.clone(), *id)))
        else {
            let report = "a vrrp_instance without a unique `virtual_router_id`";
            output.report_skipped(instance.line, report);
            continue;
        };
        if let Some(mut table) = import_virtual_router(instance, &interface, id, &scripts, output) {
            if let Some(commands) =
                Some(notify_commands(instance)).filter(|commands| !commands.is_empty())
            {
                for (key, command) in commands {
                    table.insert(key, command);
                }
            } else if grouped.contains(instance.value().unwrap_or("")) {
                for (key, command) in std::mem::take(&mut commands) {
                    table.insert(key, command);
                }
            }
            output.push_table(table);
        }
    }
}

/// Returns the notify programs, each with its key.
fn notify_commands(node: &KeepalivedDirective) -> Vec<(&'static str, String)> {
    let keys = ["notify", "notify_master", "notify_backup", "notify_fault"];
    let commands = keys.into_iter().filter_map(|key| {
        let words = command_words(node.last_child(key)?);
        (!words.is_empty()).then(|| (key, toml_string_array(words.iter().map(String::as_str))))
    });
    commands.collect()
}

fn import_virtual_router(
    node: &KeepalivedDirective,
    interface: &str,
    id: u8,
    scripts: &BTreeMap<&str, &KeepalivedDirective>,
    output: &mut ImportedConfig,
) -> Option<TomlTable> {
    let mut table = TomlTable::new("[[vrrp]]");
    if let Some(name) = node.value() {
        table.insert_string("name", name);
    }
    table.insert_string("interface", interface);
    table.insert("virtual_router_id", id);
    // `state` is the initial state only: the priorities decide who becomes master.
    let _ = node.last_child("state");
    let priority = node.child_number("priority").unwrap_or(100.0);
    table.insert("priority", priority.clamp(1.0, 255.0) as u8);
    let version =
        node.child_number("version").or(node.child_number("vrrp_version")).unwrap_or(2.0) as u8;
    import_version(node, version, &mut table, output);
    if node.last_child("nopreempt").is_some() {
        table.insert("preempt", false);
    } else if let Some(delay) = node.child_number("preempt_delay").filter(|delay| *delay > 0.0) {
        table.insert_string("preempt_delay", &toml_duration(delay));
    }
    if node.last_child("use_vmac").is_some() {
        table.insert("virtual_mac", true);
    }
    let addresses = virtual_addresses(node, interface, output);
    if addresses.is_empty() {
        output.report_skipped(node.line, "a vrrp_instance without addresses");
        return None;
    }
    table.insert("addresses", toml_string_array(addresses.iter().map(String::as_str)));
    for key in ["unicast_src_ip", "mcast_src_ip"] {
        if let Some(source) =
            node.child_value(key).and_then(|address| address.parse::<IpAddr>().ok())
        {
            table.insert_string(
                if source.is_ipv6() { "source_v6" } else { "source" },
                &source.to_string(),
            );
        }
    }
    let mut peers = Vec::new();
    for peer in node.children_named("unicast_peer").flat_map(KeepalivedDirective::children) {
        match peer.mark_used().name().parse::<IpAddr>() {
            Ok(peer) => peers.push(peer.to_string()),
            Err(_) => output.report_skipped(peer.line, format!("`{}`", peer.words.join(" "))),
        }
    }
    if !peers.is_empty() {
        table.insert("peers", toml_string_array(peers.iter().map(String::as_str)));
    }
    import_routes(node, interface, &mut table, output);
    import_tracks(node, scripts, &mut table, output);
    Some(table)
}

/// Converts version, interval and authentication.
fn import_version(
    node: &KeepalivedDirective,
    version: u8,
    table: &mut TomlTable,
    output: &mut ImportedConfig,
) {
    let interval = node.child_number("advert_int").unwrap_or(1.0);
    let is_v6 = node
        .children_named("virtual_ipaddress")
        .flat_map(KeepalivedDirective::children)
        .any(|address| address.name().contains(':'));
    // Version 2 has no IPv6, and intervals of whole seconds only.
    let version = if is_v6 || interval.fract() != 0.0 { 3 } else { version.clamp(2, 3) };
    table.insert("version", version);
    let (min, max) = if version == 2 { (1.0, 255.0) } else { (0.01, 40.95) };
    let clamped = interval.clamp(min, max);
    if clamped != interval {
        output.report_skipped(
            node.line,
            format!("advert_int {interval}: set to {clamped}, the nearest allowed value"),
        );
    }
    table.insert_string("advert_interval", &toml_duration(clamped));
    if let Some(authentication) = node.last_child("authentication") {
        let kind = authentication.child_value("auth_type").unwrap_or("PASS");
        let _ = authentication.last_child("auth_pass");
        let report = format!("authentication of type {kind}: use `auth_key`");
        output.report_skipped(authentication.line, report);
        if version == 2 && kind.eq_ignore_ascii_case("PASS") {
            table.insert("ignore_passwords", true);
        }
    }
}

/// Returns the virtual addresses, those excluded from advertisements too.
fn virtual_addresses(
    node: &KeepalivedDirective,
    interface: &str,
    output: &mut ImportedConfig,
) -> Vec<String> {
    let (mut addresses, mut known) = (Vec::new(), BTreeSet::new());
    for key in ["virtual_ipaddress", "virtual_ipaddress_excluded"] {
        for line in node.children_named(key).flat_map(KeepalivedDirective::children) {
            let directive = || format!("`{}`", line.words.join(" "));
            match line.mark_used().name().parse::<VirtualAddress>() {
                Ok(address) if known.insert(address.ip()) => addresses.push(address.to_string()),
                Ok(_) => output.report_skipped(
                    line.line,
                    format!("{} is defined twice: only the first is converted", directive()),
                ),
                Err(_) => output.report_skipped(line.line, directive()),
            }
            let mut rest = line.values().iter();
            while let (Some(key), value) = (rest.next(), rest.next()) {
                let value = value.map_or("", |value| value);
                if !(key == "dev" && value == interface) {
                    output.report_skipped(line.line, format!("`{key} {value}` of {}", line.name()));
                }
            }
        }
    }
    addresses
}

/// Converts virtual routes.
fn import_routes(
    node: &KeepalivedDirective,
    interface: &str,
    table: &mut TomlTable,
    output: &mut ImportedConfig,
) {
    let mut routes = Vec::new();
    for line in node.children_named("virtual_routes").flat_map(KeepalivedDirective::children) {
        match parse_route(&line.mark_used().words, interface) {
            Some(route) => routes.push(route.to_string()),
            None => output.report_skipped(line.line, format!("route `{}`", line.words.join(" "))),
        }
    }
    if !routes.is_empty() {
        table.insert("routes", format!("[{}]", routes.join(", ")));
    }
}

/// Converts a route; `None` for one that uses another interface than its virtual router.
fn parse_route(words: &[String], interface: &str) -> Option<TomlInlineTable> {
    let mut route = TomlInlineTable::default();
    let mut has_target = false;
    let mut words = words.iter();
    while let Some(word) = words.next() {
        let mut address =
            || words.next()?.parse::<IpAddr>().ok().map(|address| address.to_string());
        match word.as_str() {
            "src" => route.insert_string("source", &address()?),
            "via" | "gw" => route.insert_string("via", &address()?),
            "dev" => {
                words.next().filter(|device| *device == interface)?;
            }
            "metric" => route.insert("metric", words.next()?.parse::<u32>().ok()?),
            target => {
                let target = if target == "default" { "0.0.0.0/0" } else { target };
                route.insert_string("to", &target.parse::<VirtualAddress>().ok()?.to_string());
                has_target = true;
            }
        }
    }
    has_target.then_some(route)
}

/// Converts tracked interfaces and scripts.
fn import_tracks(
    node: &KeepalivedDirective,
    scripts: &BTreeMap<&str, &KeepalivedDirective>,
    table: &mut TomlTable,
    output: &mut ImportedConfig,
) {
    let mut known = BTreeSet::new();
    for line in node.children_named("track_interface").flat_map(KeepalivedDirective::children) {
        let (names, weight) = names_and_weight(line.mark_used());
        for name in names.iter().filter(|name| known.insert(format!("interface {name}"))) {
            let mut track = TomlTable::new("[[vrrp.track]]");
            track.insert_string("name", &format!("interface {name}"));
            track.insert_string("interface", name);
            write_weight(&mut track, weight, line, output);
            table.push_subtable(track);
        }
    }
    for line in node.children_named("track_script").flat_map(KeepalivedDirective::children) {
        let (names, weight) = names_and_weight(line.mark_used());
        for name in names.iter().filter(|name| known.insert((*name).to_string())) {
            let Some(script) = scripts.get(name.as_str()) else {
                output.report_skipped(line.line, format!("there is no vrrp_script {name}"));
                continue;
            };
            let words = script.last_child("script").map(command_words).unwrap_or_default();
            let Some((program, arguments)) = words.split_first() else {
                output.report_skipped(script.line, format!("vrrp_script {name} without `script`"));
                continue;
            };
            let mut check = TomlInlineTable::default();
            check.insert_string("type", "command");
            check.insert_string("command", program);
            if !arguments.is_empty() {
                check.insert("arguments", toml_string_array(arguments.iter().map(String::as_str)));
            }
            let interval = script.child_number("interval").unwrap_or(1.0).max(0.001);
            check.insert_string("interval", &toml_duration(interval));
            let timeout = script.child_number("timeout").unwrap_or(interval).clamp(0.001, interval);
            check.insert_string("timeout", &toml_duration(timeout));
            for key in ["rise", "fall"] {
                let times = script.child_number(key).unwrap_or(1.0).max(1.0) as u32;
                check.insert(key, times);
            }
            let mut track = TomlTable::new("[[vrrp.track]]");
            track.insert_string("name", name);
            let script_weight = script.child_value("weight").and_then(|weight| weight.parse().ok());
            write_weight(&mut track, weight.or(script_weight), line, output);
            track.insert("check", check);
            table.push_subtable(track);
        }
    }
}

/// Returns the names of a line, and the weight after them.
fn names_and_weight(node: &KeepalivedDirective) -> (Vec<String>, Option<i32>) {
    let words = &node.words;
    let end = words.iter().position(|word| word == "weight").unwrap_or(words.len());
    (words[..end].to_vec(), words.get(end + 1).and_then(|weight| weight.parse().ok()))
}

fn write_weight(
    track: &mut TomlTable,
    weight: Option<i32>,
    line: &KeepalivedDirective,
    output: &mut ImportedConfig,
) {
    match weight.filter(|weight| *weight != 0) {
        None => {}
        Some(weight) if weight.unsigned_abs() < 255 => track.insert("weight", weight),
        Some(weight) => {
            output.report_skipped(
                line.line,
                format!(
                    "weight {weight}: set to {}, the nearest allowed value",
                    weight.signum() * 254
                ),
            );
            track.insert("weight", weight.signum() * 254);
        }
    }
}
