//! Conversion of `lvs_timeouts` and `lvs_sync_daemon` to the table `[ipvs]`.

use super::global::GlobalSettings;
use super::syntax::KeepalivedDirective;
use crate::director::import::toml_writer::{ImportedConfig, TomlInlineTable, TomlTable};

/// The kernel's limit of a timeout, 24 days.
const MAX_TIMEOUT_SECS: u32 = 24 * 86_400;

/// Converts the settings of the kernel's IPVS, if it forwards a service.
pub(super) fn import(
    nodes: &[KeepalivedDirective],
    global: &GlobalSettings<'_>,
    in_kernel: bool,
    output: &mut ImportedConfig,
) {
    if !in_kernel {
        if let Some(timeouts) = global.timeouts {
            let report = format!(
                "{}: the timeouts are those of the tables `tcp` and `udp`",
                timeouts.text()
            );
            output.warn(&timeouts.position, report);
        }
        if let Some(daemon) = global.sync_daemon {
            let report = format!("{}: the kernel forwards no service", daemon.text());
            output.report_skipped(&daemon.position, report);
        }
        return;
    }
    let mut table = TomlTable::new("[ipvs]");
    let timeouts = global.timeouts.is_some_and(|node| write_timeouts(node, &mut table, output));
    let sync = global.sync_daemon.and_then(|node| sync_daemon(node, nodes, output));
    if let Some(sync) = &sync {
        table.insert("sync", sync);
    }
    if timeouts || sync.is_some() {
        output.push_table(table);
    }
}

/// Writes the timeouts of `lvs_timeouts tcp 900 tcpfin 120 udp 300`; returns whether there is one.
fn write_timeouts(
    node: &KeepalivedDirective,
    table: &mut TomlTable,
    output: &mut ImportedConfig,
) -> bool {
    let mut is_any = false;
    for option in node.values().chunks(2) {
        let key = match option[0].as_str() {
            "tcp" => Some("tcp_timeout"),
            "tcpfin" => Some("tcp_fin_timeout"),
            "udp" => Some("udp_timeout"),
            _ => None,
        };
        let seconds = option.get(1).and_then(|text| text.parse::<u32>().ok());
        let seconds = seconds.filter(|seconds| (1..=MAX_TIMEOUT_SECS).contains(seconds));
        match (key, seconds) {
            (Some(key), Some(seconds)) => {
                table.insert_string(key, &format!("{seconds}s"));
                is_any = true;
            }
            _ => {
                let report = format!(
                    "{}: `{}` is no timeout of 1 to {MAX_TIMEOUT_SECS} seconds: left out",
                    node.text(),
                    option.join(" ")
                );
                output.report_skipped(&node.position, report);
            }
        }
    }
    is_any
}

/// Converts `lvs_sync_daemon INTERFACE INSTANCE id ID ...`, or the `lvs_sync_daemon_interface` of an
/// instance.
fn sync_daemon(
    node: &KeepalivedDirective,
    nodes: &[KeepalivedDirective],
    output: &mut ImportedConfig,
) -> Option<TomlInlineTable> {
    let mut words = node.values().iter().map(String::as_str);
    let interface = words.next().unwrap_or_default();
    if !(1..16).contains(&interface.len()) {
        let report = format!("{}: the name of an interface has 1 to 15 bytes", node.text());
        output.warn(&node.position, report);
        return None;
    }
    if !output.has_table("[[vrrp]]") {
        let report = format!(
            "{}: left out: without a vrrp_instance there is no role by which the daemon would send or receive",
            node.text()
        );
        output.warn(&node.position, report);
        return None;
    }
    let (mut id, mut instance) = (None, None);
    while let Some(word) = words.next() {
        match word {
            "id" => id = words.next().and_then(|id| id.parse::<u8>().ok()),
            "inst" => instance = words.next(),
            "maxlen" | "port" | "ttl" | "group" => {
                let value = words.next().unwrap_or_default();
                let report = format!(
                    "{}: `{word} {value}`: both directors have the kernel's default",
                    node.text()
                );
                output.report_skipped(&node.position, report);
            }
            // Without the keyword in older versions of keepalived.
            number if instance.is_some() && number.parse::<u8>().is_ok() => {
                id = number.parse().ok()
            }
            name => instance = Some(name),
        }
    }
    let is_owner = |router: &&KeepalivedDirective| match instance {
        Some(name) => router.value() == Some(name),
        None => router.children().iter().any(|child| std::ptr::eq(child, node)),
    };
    let routers = nodes.iter().filter(|router| router.name() == "vrrp_instance");
    let owner = routers.clone().find(is_owner);
    if routers.count() > 1 {
        let report = format!(
            "{}: the daemon sends while the director is active, which is when all of its virtual routers are \
             master",
            node.text()
        );
        output.report_skipped(&node.position, report);
    }
    let router_id = || owner?.child_value("virtual_router_id")?.parse().ok();
    let mut sync = TomlInlineTable::default();
    sync.insert_string("interface", interface);
    // As keepalived does.
    sync.insert("id", id.or_else(router_id).unwrap_or(0));
    Some(sync)
}
