//! Conversion of a real server's checkers.

use std::net::IpAddr;
use std::time::Duration;

use super::global::GlobalSettings;
use super::syntax::KeepalivedDirective;
use super::values::{
    ImportedCommand, number, number_of, optional_switch, parsed, positive_seconds, seconds, switch,
    toml_duration,
};
use crate::director::config::CodeRanges;
use crate::director::import::toml_writer::{ImportedConfig, TomlInlineTable};
use crate::health::{DnsCheck, HttpCheck, SmtpCheck};

/// The directives that are checkers; a `BFD_CHECK` is reported.
const CHECKER_NAMES: [&str; 8] = [
    "TCP_CHECK",
    "HTTP_GET",
    "SSL_GET",
    "SMTP_CHECK",
    "DNS_CHECK",
    "MISC_CHECK",
    "UDP_CHECK",
    "PING_CHECK",
];

/// Settings of a virtual or real server that its checkers inherit.
#[derive(Clone, Debug, Default)]
pub(super) struct CheckerDefaults {
    interval: Option<f64>,
    timeout: Option<f64>,
    retry: Option<u32>,
    delay_before_retry: Option<f64>,
    host: Option<String>,
    /// `alpha`: a server is down until its first check has passed.
    is_down_at_start: Option<bool>,
    /// `delay_loop` of the virtual server, which is the timeout of a `MISC_CHECK`.
    service_interval: Option<f64>,
}

impl CheckerDefaults {
    /// Reads the settings of a block; those that it lacks are inherited.
    pub(super) fn read(
        block: &KeepalivedDirective,
        inherited: &Self,
        output: &mut ImportedConfig,
    ) -> Self {
        let interval = positive_seconds(block, "delay_loop", output).or(inherited.interval);
        let host = block.child_value("virtualhost").map(str::to_owned);
        let retry_keywords: &[&str] = match block.name() {
            "HTTP_GET" | "SSL_GET" => &["retry", "nb_get_retry"],
            _ => &["retry"],
        };
        let retry = block.last_child_of(retry_keywords);
        // keepalived refuses 0 for all checkers of a server.
        let min_retry = u32::from(matches!(block.name(), "virtual_server" | "real_server"));
        let retry = retry.and_then(|retry| number_of(retry, min_retry..=1_000_000, output));
        Self {
            interval,
            timeout: positive_seconds(block, "connect_timeout", output).or(inherited.timeout),
            retry: retry.or(inherited.retry),
            delay_before_retry: seconds(block, "delay_before_retry", output)
                .or(inherited.delay_before_retry),
            host: host.or_else(|| inherited.host.clone()),
            is_down_at_start: optional_switch(block, "alpha", output)
                .or(inherited.is_down_at_start),
            service_interval: inherited.service_interval.or(interval),
        }
    }
}

/// Converts the checkers of a real server to `health` tables.
pub(super) fn import_checks(
    server: &KeepalivedDirective,
    defaults: &CheckerDefaults,
    global: &GlobalSettings<'_>,
    output: &mut ImportedConfig,
) -> Vec<TomlInlineTable> {
    let mut checks = Vec::new();
    for checker in server.children() {
        if checker.name() == "FILE_CHECK" {
            checks.extend(file_check(checker.mark_used(), global, output));
        } else if CHECKER_NAMES.contains(&checker.name()) {
            checks.extend(import_check(checker.mark_used(), defaults, global, output));
        }
    }
    checks
}

/// Converts a checker to a check, or to several: one per `url`.
fn import_check(
    node: &KeepalivedDirective,
    defaults: &CheckerDefaults,
    global: &GlobalSettings<'_>,
    output: &mut ImportedConfig,
) -> Vec<TomlInlineTable> {
    let defaults = CheckerDefaults::read(node, defaults, output);
    let mut check = TomlInlineTable::default();
    match node.name() {
        "TCP_CHECK" => check.insert_string("type", "tcp"),
        "PING_CHECK" => check.insert_string("type", "ping"),
        "SMTP_CHECK" => {
            check.insert_string("type", "smtp");
            if let Some(name) = node.child_value("helo_name") {
                match SmtpCheck::new().helo_name(name) {
                    Ok(_) => check.insert_string("helo_name", name),
                    Err(error) => output.warn(&node.position, format!("`helo_name`: {error}")),
                }
            }
        }
        "DNS_CHECK" => dns_check(node, &mut check, output),
        "MISC_CHECK" => {
            let command =
                ImportedCommand::read_with_user(node, "misc_path", &global.script_user, output);
            let Some(command) = command else {
                output.warn(&node.position, "MISC_CHECK without a program: the check is left out");
                return Vec::new();
            };
            command.write_check(&mut check);
            if node.last_child("misc_dynamic").is_some() {
                check.insert("dynamic", true);
            }
        }
        "UDP_CHECK" => udp_check(node, &mut check, output),
        _ => {
            let urls = node.children_named("url");
            let checks: Vec<_> = urls
                .filter_map(|url| {
                    let mut check = http_check(url, node, &defaults, output)?;
                    write_timing(&mut check, node, &defaults, output);
                    Some(check)
                })
                .collect();
            if checks.is_empty() {
                let report = format!("{} without `url`: the check is left out", node.name());
                output.warn(&node.position, report);
            }
            return checks;
        }
    }
    write_timing(&mut check, node, &defaults, output);
    vec![check]
}

fn dns_check(node: &KeepalivedDirective, check: &mut TomlInlineTable, output: &mut ImportedConfig) {
    check.insert_string("type", "dns");
    let name = node.child_value("name").unwrap_or(".");
    let record_type = node.child_value("type").unwrap_or("SOA").to_ascii_uppercase();
    match DnsCheck::query(name, &record_type) {
        Ok(_) => {
            check.insert_string("name", name);
            check.insert_string("record_type", &record_type);
        }
        Err(error) => {
            let report = format!("DNS_CHECK: {error}: the root's SOA record is queried");
            output.warn(&node.position, report);
        }
    }
}

fn udp_check(node: &KeepalivedDirective, check: &mut TomlInlineTable, output: &mut ImportedConfig) {
    check.insert_string("type", "udp");
    let wrong = |node: &KeepalivedDirective, output: &mut ImportedConfig| {
        output.warn(&node.position, format!("{}: these are no hexadecimal digits", node.text()));
    };
    if let Some(payload) = node.last_child("payload") {
        match hexadecimal(payload.values(), false) {
            Some(bytes) => check.insert_string("send_bytes", &bytes),
            None => wrong(payload, output),
        }
    }
    if let Some(reply) = node.last_child("require_reply") {
        match hexadecimal(reply.values(), true) {
            Some(bytes) => check.insert_string("expect_bytes", &bytes),
            None => {
                wrong(reply, output);
                check.insert_string("expect_bytes", "");
            }
        }
        let min = number(node, "min_reply_length", 0..=65_535_u32, output).unwrap_or(0);
        let max = number(node, "max_reply_length", 0..=65_535_u32, output).unwrap_or(255);
        check.insert("reply_lengths", format!("[{min}, {max}]"));
    }
}

/// Returns the pairs of digits of words such as `Ab12f 3`, where a digit that is left is a byte.
fn hexadecimal(words: &[String], allows_any: bool) -> Option<String> {
    let mut digits = String::new();
    for word in words.iter().flat_map(|word| word.split_whitespace()) {
        let is_digit = |byte: &u8| {
            byte.is_ascii_hexdigit() || (allows_any && byte.eq_ignore_ascii_case(&b'x'))
        };
        if !word.as_bytes().iter().all(is_digit) {
            return None;
        }
        for pair in word.as_bytes().chunks(2) {
            if let [single] = pair {
                digits.extend(['0', char::from(*single)]);
            } else {
                digits.extend(pair.iter().map(|byte| char::from(*byte)));
            }
        }
    }
    Some(digits.to_ascii_lowercase())
}

/// Converts a check of a file whose number is added to the weight.
fn file_check(
    node: &KeepalivedDirective,
    global: &GlobalSettings<'_>,
    output: &mut ImportedConfig,
) -> Option<TomlInlineTable> {
    let name = node.child_value("track_file").unwrap_or_default();
    let file = global.files.get(name).and_then(|block| Some((*block, block.child_value("file")?)));
    let Some((block, path)) = file else {
        let report =
            format!("FILE_CHECK: there is no `track_file` {name:?}: the check is left out");
        output.warn(&node.position, report);
        return None;
    };
    block.mark_used();
    let weight = node.last_child("weight").or(block.last_child("weight"));
    let words = weight.map(KeepalivedDirective::values).unwrap_or_default();
    let factor = words.first().map_or(Some(1), |weight| weight.parse::<i32>().ok());
    let Some(factor) = factor else {
        output.warn(&node.position, "FILE_CHECK: the weight is no number: the check is left out");
        return None;
    };
    let mut check = TomlInlineTable::default();
    check.insert_string("type", "file");
    check.insert_string("file", path);
    if factor != 0 {
        check.insert("weight", factor);
    }
    if words.iter().any(|word| word == "reverse") {
        check.insert("reversed", true);
    }
    Some(check)
}

fn http_check(
    url: &KeepalivedDirective,
    checker: &KeepalivedDirective,
    defaults: &CheckerDefaults,
    output: &mut ImportedConfig,
) -> Option<TomlInlineTable> {
    let path = url.child_value("path").unwrap_or_default();
    let mut validator = match HttpCheck::get(path) {
        Ok(validator) => validator,
        Err(error) => {
            let report = format!("`path {path}`: {error}: the check is left out");
            output.warn(&url.position, report);
            return None;
        }
    };
    let mut check = TomlInlineTable::default();
    check.insert_string("type", "http");
    check.insert_string("path", path);
    let host = url.child_value("virtualhost").map(str::to_owned).or_else(|| defaults.host.clone());
    if let Some(host) = &host {
        let mut headers = TomlInlineTable::default();
        headers.insert_string("host", host);
        check.insert("headers", headers);
    }
    if let Some(node) = url.last_child("digest") {
        let digest = node.value().unwrap_or_default().to_ascii_lowercase();
        match validator.clone().body_digest(&digest) {
            Ok(_) => check.insert_string("body_digest", &digest),
            Err(error) => output.warn(&node.position, format!("{}: {error}", node.text())),
        }
    }
    if let Some(node) = url.last_child("status_code") {
        let codes = node.values().join(", ");
        match codes.parse::<CodeRanges>() {
            Ok(_) => check.insert_string("status", &codes),
            Err(error) => output.warn(&node.position, format!("`status_code`: {error}")),
        }
    }
    if let Some(node) = url.last_child("regex") {
        let regex = regex_with_options(url, node, output);
        let is_negated = url.last_child("regex_no_match").is_some();
        let tested = match is_negated {
            true => validator.body_does_not_match(&regex),
            false => validator.body_matches(&regex),
        };
        validator = match tested {
            Ok(validator) => {
                check.insert_string(if is_negated { "body_not" } else { "body" }, &regex);
                validator
            }
            Err(error) => {
                output.warn(&node.position, format!("{}: {error}", node.text()));
                HttpCheck::get(path).ok()?
            }
        };
    }
    drop(validator);
    if checker.name() == "SSL_GET" {
        let sends_name = switch(checker, "enable_sni", output);
        let sni = checker.child_value("sni_name").map(str::to_owned);
        let name = sni.or_else(|| host.filter(|_| sends_name));
        let mut tls = TomlInlineTable::default();
        tls.insert_string("trust", "any");
        if let Some(name) = name {
            tls.insert_string("name", &name);
        }
        check.insert("tls", tls);
    }
    Some(check)
}

/// Returns a regular expression with its options as flags.
fn regex_with_options(
    url: &KeepalivedDirective,
    node: &KeepalivedDirective,
    output: &mut ImportedConfig,
) -> String {
    let mut flags = String::new();
    for option in url.last_child("regex_options").into_iter().flat_map(|node| node.values()) {
        match option.as_str() {
            "caseless" => flags.push('i'),
            "multiline" => flags.push('m'),
            "dotall" => flags.push('s'),
            "extended" => flags.push('x'),
            "utf" | "ucp" => {}
            option => {
                output.warn(&node.position, format!("`regex_options {option}` has no effect"))
            }
        }
    }
    let regex = node.value().unwrap_or_default();
    if flags.is_empty() { regex.to_owned() } else { format!("(?{flags}){regex}") }
}

/// Writes intervals, timeout, rise, fall, port and source address.
fn write_timing(
    check: &mut TomlInlineTable,
    node: &KeepalivedDirective,
    defaults: &CheckerDefaults,
    output: &mut ImportedConfig,
) {
    const DEFAULT_INTERVAL: f64 = 60.0;
    let name = node.name();
    let delay_loop = defaults.interval.unwrap_or(DEFAULT_INTERVAL).max(0.001);
    let service_interval = defaults.service_interval.unwrap_or(DEFAULT_INTERVAL);
    let timeout = match name {
        "MISC_CHECK" => seconds(node, "misc_timeout", output)
            .filter(|timeout| *timeout > 0.0)
            .unwrap_or(service_interval),
        _ => defaults.timeout.unwrap_or(5.0),
    };
    let timeout = timeout.max(0.001);
    let pause = defaults.delay_before_retry.unwrap_or(match name {
        "HTTP_GET" | "SSL_GET" => 3.0,
        "DNS_CHECK" => delay_loop,
        _ => 1.0,
    });
    let retry = defaults.retry.unwrap_or(match name {
        "DNS_CHECK" => 3,
        "MISC_CHECK" => 0,
        _ => 1,
    });
    // keepalived waits for a check to end before it counts the time to the next one.
    let interval = delay_loop.max(timeout);
    let retry_interval = pause.max(timeout);
    let lengthened = |what: &str, original: f64, interval: f64| {
        format!(
            "{name}: {what} begin every {interval} s in place of {original} s, because no check waits \
             for the one before, whose timeout is {timeout} s"
        )
    };
    if interval > delay_loop {
        output.report_skipped(&node.position, lengthened("checks", delay_loop, interval));
    }
    check.insert_string("interval", &toml_duration(interval));
    if retry > 0 && retry_interval < interval {
        check.insert_string("fast_interval", &toml_duration(retry_interval));
    }
    if retry > 0 && retry_interval > pause && pause < delay_loop {
        output.report_skipped(&node.position, lengthened("retries", pause, retry_interval));
    }
    check.insert_string("timeout", &toml_duration(timeout));
    check.insert("rise", 1);
    check.insert("fall", retry.saturating_add(1));
    if defaults.is_down_at_start == Some(true) {
        check.insert_string("init", "down");
    }
    if let Some(port) = number(node, "connect_port", 1..=u16::MAX, output) {
        check.insert("port", port);
    }
    let source = node.last_child("bindto");
    if let Some(source) = source.and_then(|source| parsed::<IpAddr>(source, output)) {
        check.insert_string("source", &source.to_string());
    }
    debug_assert!(Duration::try_from_secs_f64(interval).is_ok(), "`seconds` has a bound");
}
