//! Conversion of a real server's checkers.

use super::syntax::KeepalivedDirective;
use super::values::{command_words, toml_duration};
use crate::director::import::toml_writer::{ImportedConfig, TomlInlineTable, toml_string_array};
use crate::health::HttpCheck;

/// The directives that are checkers.
const CHECKER_NAMES: [&str; 9] = [
    "TCP_CHECK",
    "HTTP_GET",
    "SSL_GET",
    "SMTP_CHECK",
    "DNS_CHECK",
    "MISC_CHECK",
    "UDP_CHECK",
    "PING_CHECK",
    "FILE_CHECK",
];

/// Settings of a virtual server that its checkers inherit.
#[derive(Clone, Copy, Debug)]
pub(super) struct CheckerDefaults {
    pub(super) interval: f64,
    pub(super) timeout: Option<f64>,
    pub(super) retry: Option<f64>,
    pub(super) delay_before_retry: Option<f64>,
}

/// Converts the checkers of a real server to `health` tables.
pub(super) fn import_checks(
    server: &KeepalivedDirective,
    common: CheckerDefaults,
    output: &mut ImportedConfig,
) -> Vec<TomlInlineTable> {
    let checkers = server.children().iter().filter(|node| CHECKER_NAMES.contains(&node.name()));
    let mut checks = Vec::new();
    for checker in checkers {
        checker.mark_used();
        checks.extend(import_check(checker, common, output));
    }
    checks
}

/// Converts a checker to a check, or to several: one per `url`.
fn import_check(
    node: &KeepalivedDirective,
    common: CheckerDefaults,
    output: &mut ImportedConfig,
) -> Vec<TomlInlineTable> {
    let kind = node.name();
    let mut check = TomlInlineTable::default();
    match kind {
        "TCP_CHECK" => check.insert_string("type", "tcp"),
        "PING_CHECK" => check.insert_string("type", "ping"),
        "SMTP_CHECK" => {
            check.insert_string("type", "smtp");
            if let Some(name) = node.child_value("helo_name") {
                check.insert_string("helo_name", name);
            }
        }
        "DNS_CHECK" => {
            check.insert_string("type", "dns");
            if let Some(name) = node.child_value("name") {
                check.insert_string("name", name);
                check.insert_string("record_type", node.child_value("type").unwrap_or("SOA"));
            } else if let Some(kind) = node.child_value("type").filter(|kind| *kind != "SOA") {
                check.insert_string("name", ".");
                check.insert_string("record_type", kind);
            }
        }
        "MISC_CHECK" => {
            let words = node.last_child("misc_path").map(command_words).unwrap_or_default();
            let Some((program, arguments)) = words.split_first() else {
                output.report_skipped(node.line, "MISC_CHECK without `misc_path`");
                return Vec::new();
            };
            check.insert_string("type", "command");
            check.insert_string("command", program);
            if !arguments.is_empty() {
                check.insert("arguments", toml_string_array(arguments.iter().map(String::as_str)));
            }
            if node.last_child("misc_dynamic").is_some() {
                check.insert("dynamic", true);
            }
        }
        "FILE_CHECK" => {
            let Some(file) = node.child_value("file") else {
                output
                    .report_skipped(node.line, "FILE_CHECK with a `track_file` in place of `file`");
                return Vec::new();
            };
            check.insert_string("type", "file");
            check.insert_string("file", file);
            if let Some(weight) =
                node.child_value("weight").and_then(|weight| weight.parse::<i32>().ok())
            {
                check.insert("weight", weight);
            }
        }
        "UDP_CHECK" => {
            check.insert_string("type", "udp");
            if node.last_child("require_reply").is_some() {
                check.insert_string("expect_bytes", "");
            }
        }
        _ => {
            let urls: Vec<_> = node.children_named("url").collect();
            if urls.is_empty() {
                output.report_skipped(node.line, format!("{kind} without `url`"));
            }
            let host = node.child_value("virtualhost");
            let checks = urls.iter().map(|url| {
                let mut check = http_check(url, kind == "SSL_GET", host, output);
                write_timing(&mut check, node, common, output);
                check
            });
            return checks.collect();
        }
    }
    write_timing(&mut check, node, common, output);
    vec![check]
}

fn http_check(
    url: &KeepalivedDirective,
    is_tls: bool,
    host: Option<&str>,
    output: &mut ImportedConfig,
) -> TomlInlineTable {
    let mut check = TomlInlineTable::default();
    check.insert_string("type", "http");
    let path = url.child_value("path").unwrap_or("/");
    check.insert_string("path", path);
    if HttpCheck::get(path).is_err() {
        output.report_skipped(url.line, format!("path {path:?} is not a valid HTTP path"));
    }
    if let Some(host) = url.child_value("virtualhost").or(host) {
        let mut headers = TomlInlineTable::default();
        headers.insert_string("host", host);
        check.insert("headers", headers);
    }
    if let Some(digest) = url.child_value("digest") {
        check.insert_string("body_digest", &digest.to_ascii_lowercase());
    }
    if let Some(codes) = url.last_child("status_code") {
        check.insert_string("status", &codes.values().join(", "));
    }
    if is_tls {
        check.insert("tls", "{ trust = \"any\" }");
    }
    check
}

/// Writes intervals, timeout, rise, fall, port and source address.
fn write_timing(
    check: &mut TomlInlineTable,
    node: &KeepalivedDirective,
    common: CheckerDefaults,
    output: &mut ImportedConfig,
) {
    let is_http = matches!(node.name(), "HTTP_GET" | "SSL_GET");
    let interval = node.child_number("delay_loop").unwrap_or(common.interval).max(0.001);
    let number = |name| node.child_number(name);
    let timeout = number("connect_timeout").or(number("misc_timeout")).or(common.timeout);
    let timeout = timeout.unwrap_or(5.0).max(0.001);
    let pause = number("delay_before_retry").or(common.delay_before_retry);
    let pause = pause.unwrap_or(if is_http { 3.0 } else { 1.0 }).max(0.001);
    let retry = number("retry").or(number("nb_get_retry")).or(common.retry);
    let retry = retry.unwrap_or(match node.name() {
        "DNS_CHECK" => 3.0,
        "MISC_CHECK" => 0.0,
        _ => 1.0,
    });
    check.insert_string("interval", &toml_duration(interval));
    let shortest = if retry > 0.0 { interval.min(pause) } else { interval };
    if retry > 0.0 && pause < interval {
        check.insert_string("fast_interval", &toml_duration(pause));
    }
    if timeout > shortest {
        let report = format!(
            "{}: the timeout of {timeout} s is above the interval: set to {shortest} s",
            node.name()
        );
        output.report_skipped(node.line, report);
    }
    check.insert_string("timeout", &toml_duration(timeout.min(shortest)));
    check.insert("rise", 1);
    check.insert("fall", (retry as u32).saturating_add(1));
    if let Some(port) = node.child_value("connect_port").and_then(|port| port.parse::<u16>().ok()) {
        check.insert("port", port);
    }
    if let Some(source) =
        node.child_value("bindto").and_then(|address| address.parse::<std::net::IpAddr>().ok())
    {
        check.insert_string("source", &source.to_string());
    }
}
