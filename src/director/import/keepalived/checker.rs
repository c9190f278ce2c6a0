//! How a real server is checked.

use super::syntax::Node;
use super::{command, seconds};
use crate::director::import::output::{Inline, Output, list};
use crate::health::HttpCheck;

/// The names of checkers.
const KINDS: [&str; 9] = [
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

/// What a virtual server says for all of its checkers.
#[derive(Clone, Copy, Debug)]
pub(super) struct Common {
    pub(super) interval: f64,
    pub(super) timeout: Option<f64>,
    pub(super) retry: Option<f64>,
    pub(super) pause: Option<f64>,
}

/// The checks of a real server, each as a value of `health`.
pub(super) fn checks(server: &Node, common: Common, output: &mut Output) -> Vec<Inline> {
    let checkers = server.below().iter().filter(|node| KINDS.contains(&node.name()));
    let mut checks = Vec::new();
    for checker in checkers {
        checker.see();
        checks.extend(check(checker, common, output));
    }
    checks
}

/// One check; one for each URL.
fn check(node: &Node, common: Common, output: &mut Output) -> Vec<Inline> {
    let kind = node.name();
    let mut check = Inline::default();
    match kind {
        "TCP_CHECK" => check.text("type", "tcp"),
        "PING_CHECK" => check.text("type", "ping"),
        "SMTP_CHECK" => {
            check.text("type", "smtp");
            if let Some(name) = node.text("helo_name") {
                check.text("hello", name);
            }
        }
        "DNS_CHECK" => {
            check.text("type", "dns");
            if let Some(name) = node.text("name") {
                check.text("name", name);
                check.text("record_type", node.text("type").unwrap_or("SOA"));
            } else if let Some(kind) = node.text("type").filter(|kind| *kind != "SOA") {
                check.text("name", ".");
                check.text("record_type", kind);
            }
        }
        "MISC_CHECK" => {
            let words = node.get("misc_path").map(command).unwrap_or_default();
            let Some((program, arguments)) = words.split_first() else {
                output.note(node.line, "MISC_CHECK without `misc_path`");
                return Vec::new();
            };
            check.text("type", "command");
            check.text("command", program);
            if !arguments.is_empty() {
                check.put("arguments", list(arguments.iter().map(String::as_str)));
            }
            if node.get("misc_dynamic").is_some() {
                check.put("dynamic", true);
            }
        }
        "FILE_CHECK" => {
            let Some(file) = node.text("file") else {
                output.note(node.line, "FILE_CHECK of a `track_file`, which stands elsewhere");
                return Vec::new();
            };
            check.text("type", "file");
            check.text("file", file);
            if let Some(weight) = node.text("weight").and_then(|it| it.parse::<i32>().ok()) {
                check.put("weight", weight);
            }
        }
        "UDP_CHECK" => {
            check.text("type", "udp");
            if node.get("require_reply").is_some() {
                check.text("expect_bytes", "");
            }
        }
        _ => {
            let urls: Vec<_> = node.all("url").collect();
            if urls.is_empty() {
                output.note(node.line, format!("{kind} without `url`"));
            }
            let host = node.text("virtualhost");
            let checks = urls.iter().map(|url| {
                let mut check = http(url, kind == "SSL_GET", host, output);
                timing(&mut check, node, common, output);
                check
            });
            return checks.collect();
        }
    }
    timing(&mut check, node, common, output);
    vec![check]
}

fn http(url: &Node, is_tls: bool, host: Option<&str>, output: &mut Output) -> Inline {
    let mut check = Inline::default();
    check.text("type", "http");
    let path = url.text("path").unwrap_or("/");
    check.text("path", path);
    if HttpCheck::get(path).is_err() {
        output.note(url.line, format!("path {path:?} is none"));
    }
    if let Some(host) = url.text("virtualhost").or(host) {
        let mut headers = Inline::default();
        headers.text("host", host);
        check.put("headers", headers);
    }
    if let Some(digest) = url.text("digest") {
        check.text("body_digest", &digest.to_ascii_lowercase());
    }
    if let Some(codes) = url.get("status_code") {
        check.text("status", &codes.values().join(", "));
    }
    if is_tls {
        check.put("tls", "{ trust = \"anybody\" }");
    }
    check
}

/// When it asks, and where.
fn timing(check: &mut Inline, node: &Node, common: Common, output: &mut Output) {
    let is_http = matches!(node.name(), "HTTP_GET" | "SSL_GET");
    let interval = node.number("delay_loop").unwrap_or(common.interval).max(0.001);
    let asked = |name| node.number(name);
    let timeout = asked("connect_timeout").or(asked("misc_timeout")).or(common.timeout);
    let timeout = timeout.unwrap_or(5.0).max(0.001);
    let pause = asked("delay_before_retry").or(common.pause);
    let pause = pause.unwrap_or(if is_http { 3.0 } else { 1.0 }).max(0.001);
    let retry = asked("retry").or(asked("nb_get_retry")).or(common.retry);
    let retry = retry.unwrap_or(match node.name() {
        "DNS_CHECK" => 3.0,
        "MISC_CHECK" => 0.0,
        _ => 1.0,
    });
    check.text("interval", &seconds(interval));
    let shortest = if retry > 0.0 { interval.min(pause) } else { interval };
    if retry > 0.0 && pause < interval {
        check.text("fast_interval", &seconds(pause));
    }
    if timeout > shortest {
        let what = format!(
            "{}: a timeout of {timeout} s, which is above the time to the next check; {shortest} s",
            node.name()
        );
        output.note(node.line, what);
    }
    check.text("timeout", &seconds(timeout.min(shortest)));
    check.put("rise", 1);
    check.put("fall", (retry as u32).saturating_add(1));
    if let Some(port) = node.text("connect_port").and_then(|port| port.parse::<u16>().ok()) {
        check.put("port", port);
    }
    if let Some(source) = node.text("bindto").and_then(|it| it.parse::<std::net::IpAddr>().ok()) {
        check.text("source", &source.to_string());
    }
}
