//! Conversion of one VRRP instance: its election, addresses and routes.

use std::collections::BTreeSet;
use std::fmt::Write;
use std::net::IpAddr;

use super::global::GlobalSettings;
use super::syntax::KeepalivedDirective;
use super::values::{number, parsed, seconds, switch, toml_duration};
use crate::director::import::toml_writer::{
    ImportedConfig, TomlInlineTable, TomlTable, toml_string_array,
};
use crate::vrrp::{AuthKey, VirtualAddress};

/// What must differ between two virtual routers: the interface, the number, and whether it is IPv6.
pub(super) type RouterIdentity = (String, u8, bool);

/// Converts an instance without its tracked items and programs; `None` if it is left out, which is
/// reported.
pub(super) fn import_virtual_router(
    node: &KeepalivedDirective,
    global: &GlobalSettings<'_>,
    output: &mut ImportedConfig,
) -> Option<(TomlTable, RouterIdentity)> {
    let name = node.value().unwrap_or_default();
    let interface = node.child_value("interface").unwrap_or(&global.interface).to_owned();
    let Some(id) = number(node, "virtual_router_id", 1..=255_u8, output) else {
        let report = format!("vrrp_instance {name} has no `virtual_router_id`: it is left out");
        output.warn(&node.position, report);
        return None;
    };
    let mut known = BTreeSet::new();
    let mut addresses = addresses(node, "virtual_ipaddress", &interface, &mut known, output);
    // keepalived takes the family of the first address, and ignores those of the other one.
    let is_v6 = addresses.first().is_some_and(|address| address.ip().is_ipv6());
    addresses.retain(|address| {
        let is_kept = address.ip().is_ipv6() == is_v6;
        if !is_kept {
            let report = format!(
                "vrrp_instance {name}: {address} is not of the family of the first address: it is left \
                 out, as in keepalived; see `virtual_ipaddress_excluded`"
            );
            output.warn(&node.position, report);
        }
        is_kept
    });
    if addresses.is_empty() {
        let report = format!("vrrp_instance {name} has no addresses: it is left out");
        output.warn(&node.position, report);
        return None;
    }
    let excluded =
        self::addresses(node, "virtual_ipaddress_excluded", &interface, &mut known, output);
    let mut table = TomlTable::new("[[vrrp]]");
    if !name.is_empty() {
        table.insert_string("name", name);
    }
    table.insert_string("interface", &interface);
    table.insert("virtual_router_id", id);
    let priority = priority(node, output);
    table.insert("priority", priority);
    import_version(node, is_v6, global, &mut table, output);
    import_preemption(node, priority, &mut table, output);
    if let Some(delay) = global.start_delay.filter(|delay| *delay > 0.0) {
        table.insert_string("start_delay", &toml_duration(delay));
    }
    if node.last_child("use_vmac").is_some() {
        table.insert("virtual_mac", true);
    }
    // Words without a value, which need no key here.
    for key in ["native_ipv6", "accept", "track_src_ip", "check_unicast_src"] {
        let _ = node.last_child(key);
    }
    for (key, addresses) in [("addresses", &addresses), ("excluded_addresses", &excluded)] {
        let texts: Vec<_> = addresses.iter().map(ToString::to_string).collect();
        if !texts.is_empty() {
            table.insert(key, toml_string_array(texts.iter().map(String::as_str)));
        }
    }
    import_peers(node, is_v6, &mut table, output);
    import_routes(node, &interface, is_v6, &mut table, output);
    Some((table, (interface, id, is_v6)))
}

/// Returns the priority; without one keepalived takes that of the initial state.
pub(super) fn priority(node: &KeepalivedDirective, output: &mut ImportedConfig) -> u8 {
    if node.last_child("priority").is_none() && is_initial_master(node) {
        let report = "`state MASTER` without `priority`: the priority is 255, as in keepalived";
        output.report_skipped(&node.position, report);
        return 255;
    }
    number(node, "priority", 1..=255, output).unwrap_or(100)
}

/// Tells whether the initial state is MASTER, which keepalived keeps if a `BACKUP` follows.
fn is_initial_master(node: &KeepalivedDirective) -> bool {
    // All are read, and so marked as used.
    let states: Vec<_> = node.children_named("state").map(KeepalivedDirective::value).collect();
    states.contains(&Some("MASTER"))
}

/// Converts version, interval and authentication.
fn import_version(
    node: &KeepalivedDirective,
    is_v6: bool,
    global: &GlobalSettings<'_>,
    table: &mut TomlTable,
    output: &mut ImportedConfig,
) {
    let own = number(node, "version", 2..=3_u8, output);
    let version = if is_v6 { 3 } else { own.unwrap_or(global.vrrp_version) };
    if is_v6 && own == Some(2) {
        let report = "`version 2` does not support IPv6: version 3 is used";
        output.report_skipped(&node.position, report);
    }
    table.insert("version", version);
    let interval = number(node, "advert_int", 0.01..=255.0_f64, output).unwrap_or(1.0);
    // As keepalived rounds: whole seconds in version 2, hundredths in version 3.
    let (unit, min, max) = if version == 2 { (1.0, 1.0, 255.0) } else { (0.01, 0.01, 40.95) };
    let rounded = ((interval / unit).round() * unit).clamp(min, max);
    if (rounded - interval).abs() > 1e-9 {
        let report = format!(
            "advert_int {interval}: version {version} has no such interval; it is {rounded}, as in \
             keepalived"
        );
        output.report_skipped(&node.position, report);
    }
    table.insert_string("advert_interval", &toml_duration(rounded));
    let as_v2 = switch(node, "v3_checksum_as_v2", output) || global.checksum_as_v2;
    if as_v2 && version == 3 && !is_v6 {
        table.insert("checksum_as_v2", true);
    }
    if let Some(authentication) = node.last_child("authentication") {
        authentication.mark_all_used();
        let kind = authentication.child_value("auth_type").unwrap_or("PASS").to_owned();
        if version == 3 {
            let report = "`authentication` is of version 2 only, as in keepalived";
            output.report_skipped(&authentication.position, report);
        } else {
            let report = format!(
                "vrrp_instance {}: `auth_type {kind}` is not supported. A keepalived with it refuses this \
                 director's advertisements, and BOTH WOULD BE MASTER: remove `authentication` from \
                 every keepalived of this virtual router first, or replace all of them at once; `auth_key` \
                 signs advertisements between directors",
                node.value().unwrap_or_default()
            );
            output.warn(&authentication.position, report);
            if kind.eq_ignore_ascii_case("PASS") {
                table.insert("ignore_passwords", true);
            }
        }
    }
    if let Some(hmac) = node.last_child("auth_hmac") {
        match hmac_key(hmac) {
            Some(key) => table.insert_string("auth_key", &key),
            None => {
                let report = "`auth_hmac` is converted with a single key of the id 1 in the file itself, \
                              mode enforce, and anti_replay time only: set `auth_key`; without it, this \
                              director and keepalived refuse each other's advertisements, and BOTH \
                              WOULD BE MASTER";
                output.warn(&hmac.position, report);
            }
        }
        hmac.mark_all_used();
    }
}

/// Returns the key of an `auth_hmac` block in hexadecimal digits, if this crate can have it.
fn hmac_key(hmac: &KeepalivedDirective) -> Option<String> {
    let mut keys = hmac.children_named("key");
    let (Some(key), None) = (keys.next(), keys.next()) else { return None };
    let is_default =
        |name: &str, default: &str| hmac.child_value(name).is_none_or(|value| value == default);
    let [id, secret] = key.values() else { return None };
    let is_supported = id == "1"
        && is_default("active_key", "1")
        && is_default("anti_replay", "time")
        && is_default("mode", "enforce")
        && !secret.starts_with("file:");
    if !is_supported {
        return None;
    }
    let bytes = match secret.strip_prefix("hex:") {
        Some(digits) => crate::director::config::decode_hex(digits)?,
        None => secret.clone().into_bytes(),
    };
    AuthKey::new(1, &bytes).ok()?;
    Some(bytes.iter().fold(String::new(), |mut digits, byte| {
        let _ = write!(digits, "{byte:02x}");
        digits
    }))
}

/// Converts `nopreempt` and `preempt_delay`, which keepalived ignores for the initial state MASTER.
fn import_preemption(
    node: &KeepalivedDirective,
    priority: u8,
    table: &mut TomlTable,
    output: &mut ImportedConfig,
) {
    let is_master = is_initial_master(node);
    let nopreempt = node.last_child_of(&["nopreempt", "preempt"]);
    let nopreempt = nopreempt.filter(|node| node.name() == "nopreempt");
    let delay = seconds(node, "preempt_delay", output).filter(|delay| *delay > 0.0);
    if (nopreempt.is_some() || delay.is_some()) && (is_master || priority == 255) {
        let report = "`nopreempt` and `preempt_delay` have no effect with `state MASTER` or priority 255, \
                      as in keepalived";
        output.report_skipped(&node.position, report);
    } else if nopreempt.is_some() {
        table.insert("preempt", false);
        if delay.is_some() {
            let report = "`preempt_delay` has no effect with `nopreempt`, as in keepalived";
            output.report_skipped(&node.position, report);
        }
    } else if let Some(delay) = delay {
        table.insert_string("preempt_delay", &toml_duration(delay));
    }
}

/// Converts a block of virtual addresses.
fn addresses(
    node: &KeepalivedDirective,
    key: &str,
    interface: &str,
    known: &mut BTreeSet<IpAddr>,
    output: &mut ImportedConfig,
) -> Vec<VirtualAddress> {
    let mut addresses = Vec::new();
    for line in node.children_named(key).flat_map(KeepalivedDirective::children) {
        match line.mark_used().name().parse::<VirtualAddress>() {
            Ok(address) if known.insert(address.ip()) => addresses.push(address),
            Ok(address) => {
                let report = format!("{address} is defined twice: only the first is converted");
                output.report_skipped(&line.position, report);
            }
            Err(error) => {
                let report = format!("{}: {error}: the address is left out", line.text());
                output.warn(&line.position, report);
            }
        }
        let mut rest = line.values().iter().map(String::as_str);
        while let Some(word) = rest.next() {
            match word {
                "dev" => {
                    let device = rest.next().unwrap_or_default();
                    if device != interface {
                        let report = format!(
                            "{} is added to the interface of the virtual router, {interface}, and not to \
                             {device}",
                            line.name()
                        );
                        output.warn(&line.position, report);
                    }
                }
                "brd" | "scope" | "label" | "peer" | "preferred_lft" => {
                    let value = rest.next().unwrap_or_default();
                    let report = format!("`{word} {value}` of {}", line.name());
                    output.report_skipped(&line.position, report);
                }
                word => {
                    let report = format!("`{word}` of {}", line.name());
                    output.report_skipped(&line.position, report);
                }
            }
        }
    }
    addresses
}

/// Converts the source address, and the peers of unicast.
fn import_peers(
    node: &KeepalivedDirective,
    is_v6: bool,
    table: &mut TomlTable,
    output: &mut ImportedConfig,
) {
    let source = node.last_child_of(&["mcast_src_ip", "unicast_src_ip"]);
    if let Some(source) = source.and_then(|source| parsed::<IpAddr>(source, output)) {
        match source.is_ipv6() == is_v6 {
            true => {
                table.insert_string(if is_v6 { "source_v6" } else { "source" }, &source.to_string())
            }
            false => {
                let report = format!("the source address {source} is of another family: left out");
                output.warn(&node.position, report);
            }
        }
    }
    let mut peers = Vec::new();
    for peer in node.children_named("unicast_peer").flat_map(KeepalivedDirective::children) {
        match peer.mark_used().name().parse::<IpAddr>() {
            Ok(ip) if ip.is_ipv6() == is_v6 => {
                peers.push(ip.to_string());
                if !peer.values().is_empty() {
                    let report = format!("{}: the hop limit is not checked", peer.text());
                    output.report_skipped(&peer.position, report);
                }
            }
            _ => {
                let report = format!("{}: this is no address of a peer: left out", peer.text());
                output.warn(&peer.position, report);
            }
        }
    }
    if !peers.is_empty() {
        table.insert("peers", toml_string_array(peers.iter().map(String::as_str)));
    }
}

/// Converts virtual routes.
fn import_routes(
    node: &KeepalivedDirective,
    interface: &str,
    is_v6: bool,
    table: &mut TomlTable,
    output: &mut ImportedConfig,
) {
    let mut routes = Vec::new();
    for line in node.children_named("virtual_routes").flat_map(KeepalivedDirective::children) {
        match parse_route(&line.mark_used().words, interface, is_v6) {
            Some(route) => routes.push(route.to_string()),
            None => {
                let report = format!("the route {} is left out", line.text());
                output.warn(&line.position, report);
            }
        }
    }
    if !routes.is_empty() {
        table.insert("routes", format!("[{}]", routes.join(", ")));
    }
}

/// Parses a route; `None` for one that a virtual router cannot have, such as one of another family than
/// its addresses.
fn parse_route(words: &[String], interface: &str, is_v6: bool) -> Option<TomlInlineTable> {
    let mut route = TomlInlineTable::default();
    let mut has_target = false;
    let mut words = words.iter();
    while let Some(word) = words.next() {
        let mut address = || words.next()?.parse().ok().filter(|ip: &IpAddr| ip.is_ipv6() == is_v6);
        match word.as_str() {
            "src" => route.insert_string("source", &address()?.to_string()),
            "via" | "gw" => route.insert_string("via", &address()?.to_string()),
            "dev" => {
                words.next().filter(|device| *device == interface)?;
            }
            "metric" => route.insert("metric", words.next()?.parse::<u32>().ok()?),
            "to" | "no_track" => {}
            target => {
                let target = match (target, is_v6) {
                    ("default", false) => "0.0.0.0/0",
                    ("default", true) => "::/0",
                    (target, _) => target,
                };
                let target: VirtualAddress = target.parse().ok()?;
                if target.ip().is_ipv6() != is_v6 {
                    return None;
                }
                route.insert_string("to", &target.to_string());
                has_target = true;
            }
        }
    }
    has_target.then_some(route)
}
