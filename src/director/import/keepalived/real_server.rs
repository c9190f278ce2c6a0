//! Conversion of the real servers of a virtual server.

use std::collections::BTreeSet;
use std::net::SocketAddr;

use super::address_range::parse_address;
use super::checker::{CheckerDefaults, import_checks};
use super::forwarding_method::{OTHER_FAMILY, common_port, reaches, read_method};
use super::global::GlobalSettings;
use super::syntax::KeepalivedDirective;
use super::values::{ImportedCommand, number, switch};
use crate::director::config::ListenAddress;
use crate::director::import::ipvs::ImportedMethod;
use crate::director::import::toml_writer::{ImportedConfig, TomlInlineTable, TomlTable};

/// A converted server, and its checks.
struct ImportedServer {
    table: TomlTable,
    checks: Vec<TomlInlineTable>,
}

/// The maximum weight of a server here; keepalived's is 2147483647.
const MAX_WEIGHT: u32 = 65_535;

/// Converts the real servers; returns their total weight, or `None` if there is none. `removes_down` says that
/// a server that is down leaves the kernel.
pub(super) fn import_servers(
    node: &KeepalivedDirective,
    method: ImportedMethod,
    listen: &[ListenAddress],
    removes_down: bool,
    global: &GlobalSettings<'_>,
    table: &mut TomlTable,
    output: &mut ImportedConfig,
) -> Option<u64> {
    let defaults = CheckerDefaults::read(node, &CheckerDefaults::default(), output);
    let default_weight = weight(node, 1, output).unwrap_or(1);
    let mut known = BTreeSet::new();
    let mut total_weight = 0;
    let mut servers = Vec::new();
    switch(node, "inhibit_on_failure", output);
    for server in node.children_named("real_server") {
        let method = read_method(server, &["lvs_method"], output).unwrap_or(method);
        let Some(address) = server_address(server, method, listen, output) else { continue };
        if !known.insert(address) {
            let report = format!("{address} is defined twice: only the first is converted");
            output.report_skipped(&server.position, report);
            server.mark_all_used();
            continue;
        }
        let weight = weight(server, 0, output).unwrap_or(default_weight);
        total_weight += u64::from(weight);
        let mut table = TomlTable::new("[[service.server]]");
        table.insert_string("address", &address.to_string());
        table.insert("weight", weight);
        method.write(&mut table, &server.position, output);
        write_limits(server, &mut table, output);
        match (switch(server, "inhibit_on_failure", output), removes_down) {
            (true, false) => {
                table.push_comment("inhibit_on_failure: a server that is down is never removed.");
            }
            (true, true) => {
                let report = "`inhibit_on_failure`: a server that is down is removed: persistent clients and \
                              UDP flows would stay with it";
                output.report_skipped(&server.position, report);
            }
            (false, _) => {}
        }
        for key in ["notify_up", "notify_down"] {
            let command = ImportedCommand::read(server, key, &global.script_user, output);
            if let Some(command) = command {
                table.insert(key, command.to_toml());
            }
        }
        let defaults = CheckerDefaults::read(server, &defaults, output);
        let mut checks = import_checks(server, &defaults, global, output);
        if address.port() == 0 {
            checks.retain_mut(|check| give_port(check, server, output));
        }
        servers.push(ImportedServer { table, checks });
    }
    let is_empty = servers.is_empty();
    write_servers(servers, table);
    (!is_empty).then_some(total_weight)
}

/// Returns the weight of a real server, or the default of a virtual server.
fn weight(block: &KeepalivedDirective, min: u32, output: &mut ImportedConfig) -> Option<u32> {
    let weight = number(block, "weight", min..=i32::MAX as u32, output)?;
    if weight > MAX_WEIGHT {
        let report = format!(
            "weight {weight}: a weight is at most {MAX_WEIGHT}, which is written: divide all weights of \
             the service by the same number"
        );
        output.warn(&block.position, report);
    }
    Some(weight.min(MAX_WEIGHT))
}

/// Returns the address; a server without a port has that of the service. Port 0 is each of several, and the
/// packet's own of a mark.
fn server_address(
    server: &KeepalivedDirective,
    method: ImportedMethod,
    listen: &[ListenAddress],
    output: &mut ImportedConfig,
) -> Option<SocketAddr> {
    let Some(mut address) = parse_address(server.values()) else {
        let report = format!("{}: this is no address with a port: left out", server.text());
        output.warn(&server.position, report);
        server.mark_all_used();
        return None;
    };
    if !reaches(method, address, listen) {
        output.report_skipped(&server.position, format!("{}: {OTHER_FAMILY}", server.text()));
        server.mark_all_used();
        return None;
    }
    let is_by_mark = listen.iter().all(|listen| matches!(listen, ListenAddress::Mark(_)));
    let service_port = common_port(listen).unwrap_or(0);
    if address.port() == 0 {
        address.set_port(service_port);
    } else if method != ImportedMethod::Nat && !is_by_mark && address.port() != service_port {
        let port = match service_port {
            0 => "each port of the service".to_owned(),
            port => format!("the port of the service, {port}"),
        };
        let report = format!("{}: without NAT keepalived takes {port}", server.text());
        output.report_skipped(&server.position, report);
        address.set_port(service_port);
    }
    Some(address)
}

/// Gives a check of a server without a port of its own a port; returns whether it can be checked.
fn give_port(
    check: &mut TomlInlineTable,
    server: &KeepalivedDirective,
    output: &mut ImportedConfig,
) -> bool {
    if check.get("port").is_some() {
        return true;
    }
    let own_port = parse_address(server.values()).map_or(0, |address| address.port());
    // A program and a file do not ask the port.
    let needs_port = !matches!(check.get("type"), Some("\"command\"" | "\"file\""));
    if own_port != 0 || !needs_port {
        check.insert("port", own_port.max(1));
        return true;
    }
    let report = format!(
        "{}: the server has the port that the client connects to, and a check without `connect_port` \
         is left out",
        server.text()
    );
    output.warn(&server.position, report);
    false
}

fn write_limits(server: &KeepalivedDirective, table: &mut TomlTable, output: &mut ImportedConfig) {
    let max = number(server, "uthreshold", 0..=1 << 30, output).filter(|max: &u32| *max > 0);
    let resume =
        number(server, "lthreshold", 0..=1 << 30, output).filter(|resume: &u32| *resume > 0);
    if let Some(max) = max {
        table.insert("max_connections", max);
    }
    match (max, resume) {
        (Some(max), Some(resume)) if resume <= max => table.insert("resume_connections", resume),
        (_, Some(resume)) => {
            let report = format!("`lthreshold {resume}` is not below an `uthreshold`: left out");
            output.report_skipped(&server.position, report);
        }
        _ => {}
    }
}

/// Writes the servers; the checks into the service, if all servers have the same.
fn write_servers(servers: Vec<ImportedServer>, table: &mut TomlTable) {
    let first = servers.first().map(|server| server.checks.clone()).unwrap_or_default();
    let is_common = servers.iter().all(|server| server.checks == first);
    if is_common && !first.is_empty() {
        table.insert("health", health_text(&first));
    }
    for ImportedServer { table: mut row, checks } in servers {
        if !is_common {
            row.insert("health", health_text(&checks));
        }
        table.push_subtable(row);
    }
}

fn health_text(checks: &[TomlInlineTable]) -> String {
    match checks {
        [check] => check.to_string(),
        checks => {
            let checks: Vec<_> = checks.iter().map(ToString::to_string).collect();
            format!("[{}]", checks.join(", "))
        }
    }
}
