//! Conversion of `ipvsadm-save` output: one `ipvsadm` command per line.

use std::collections::BTreeMap;
use std::iter::Peekable;
use std::net::{IpAddr, SocketAddr};

use super::error::ImportError;
use super::ipvs::{
    client_address_difference, every_port_warning, mark_refusal, netmask_bits, scheduler_text,
    service_port,
};
use super::position::SourcePosition;
use super::toml_writer::{ImportedConfig, TomlInlineTable, TomlTable};
use crate::scheduler::SchedulerRegistry;

/// The timeout of `-p` without a value, in seconds.
const DEFAULT_PERSISTENCE_TIMEOUT: &str = "360";

/// A service that is being converted.
struct IpvsadmService {
    table: TomlTable,
    /// Whether a server uses direct routing or a tunnel.
    has_direct_servers: bool,
    /// Whether it is a service of every port.
    is_left_out: bool,
}

pub(super) fn import(text: &str) -> Result<ImportedConfig, ImportError> {
    let mut output = ImportedConfig::default();
    let mut services: BTreeMap<String, IpvsadmService> = BTreeMap::new();
    let mut order = Vec::new();
    for (n, line) in text.lines().enumerate() {
        let line = line.trim();
        let line = line.strip_prefix("ipvsadm ").unwrap_or(line).trim_start();
        if line.is_empty() || line.starts_with('#') {
            continue;
        }
        let arguments: Vec<_> = line.split_whitespace().flat_map(split_option).collect();
        let mut command = IpvsadmCommand {
            position: SourcePosition::of_line(n + 1),
            arguments: arguments.into_iter().peekable(),
        };
        match command.arguments.next() {
            Some("-A" | "--add-service") => {
                if let Some((key, service)) = command.add_service(&mut output, order.len())? {
                    if services.contains_key(&key) {
                        return Err(command.error(format!("the service {key} is added twice")));
                    }
                    if !service.is_left_out {
                        order.push(key.clone());
                    }
                    services.insert(key, service);
                }
            }
            Some("-a" | "--add-server") => command.add_server(&mut output, &mut services)?,
            _ => output.report_skipped(&command.position, format!("`{line}`")),
        }
    }
    for key in order {
        let Some(mut service) = services.remove(&key) else { continue };
        if service.has_direct_servers {
            service.table.push_comment(
                "The servers answered clients directly (-g, -i). Here they answer the director.",
            );
        }
        output.push_table(service.table);
    }
    Ok(output)
}

struct IpvsadmCommand<'a> {
    position: SourcePosition,
    arguments: Peekable<std::vec::IntoIter<&'a str>>,
}

impl<'a> IpvsadmCommand<'a> {
    fn error(&self, reason: impl Into<String>) -> ImportError {
        ImportError::new(&self.position, reason)
    }

    fn next_value(&mut self, option: &str) -> Result<&'a str, ImportError> {
        self.arguments.next().ok_or_else(|| self.error(format!("{option} requires a value")))
    }

    /// Parses an address with an optional port, which may be a name of `/etc/services`; 0 stands for
    /// every port.
    fn parse_address(&self, text: &str, protocol: &str) -> Result<SocketAddr, ImportError> {
        let bare = || text.trim_matches(['[', ']']).parse::<IpAddr>().ok();
        let with_name = || {
            let (host, service) = text.rsplit_once(':')?;
            let ip = host.trim_matches(['[', ']']).parse().ok()?;
            Some(SocketAddr::new(ip, service_port(service, protocol)?))
        };
        let address = text.parse().ok().or_else(|| Some(SocketAddr::new(bare()?, 0)));
        address.or_else(with_name).ok_or_else(|| {
            self.error(format!(
                "{text:?} is not a numeric address with the number or a known name of a port: use \
                 the output of `ipvsadm-save -n`"
            ))
        })
    }

    /// Converts `-A`; `None` for a service that is not supported.
    fn add_service(
        &mut self,
        output: &mut ImportedConfig,
        number: usize,
    ) -> Result<Option<(String, IpvsadmService)>, ImportError> {
        let (mut key, mut protocol, mut address) = (String::new(), "tcp", None);
        let (mut scheduler, mut flags) = ("wlc", Vec::new());
        let (mut persistent, mut mask, mut is_ops) = (None, None, false);
        while let Some(option) = self.arguments.next() {
            match option {
                "-t" | "--tcp-service" | "-u" | "--udp-service" => {
                    let text = self.next_value(option)?;
                    protocol = protocol_of(option);
                    (key, address) =
                        (format!("{protocol} {text}"), Some(self.parse_address(text, protocol)?));
                }
                "-f" | "--fwmark-service" => {
                    let mark = self.next_value(option)?;
                    return Err(self.error(mark_refusal(mark)));
                }
                "--sctp-service" => {
                    let text = self.next_value(option)?;
                    output.warn(
                        &self.position,
                        format!("service `{option} {text}` with its servers is left out: no SCTP"),
                    );
                    return Ok(None);
                }
                "-s" | "--scheduler" => scheduler = self.next_value(option)?,
                "-b" | "--sched-flags" => flags.extend(self.next_value(option)?.split(',')),
                "-p" | "--persistent" => {
                    let seconds = self.arguments.next_if(|value| value.parse::<u32>().is_ok());
                    persistent = Some(seconds.unwrap_or(DEFAULT_PERSISTENCE_TIMEOUT));
                }
                "-M" | "--netmask" => mask = Some(self.next_value(option)?),
                "-o" | "--ops" => is_ops = true,
                "--pe" => {
                    let engine = self.next_value(option)?;
                    output.report_skipped(&self.position, format!("persistence engine `{engine}`"));
                }
                _ => output.report_skipped(&self.position, format!("`{option}`")),
            }
        }
        let address = address
            .ok_or_else(|| self.error("-A requires -t or -u with the address of the service"))?;
        let mut table = TomlTable::new("[[service]]");
        table.insert_string("name", &format!("{protocol}-{}", number + 1));
        if address.port() == 0 {
            output.warn(&self.position, every_port_warning(address.ip()));
        }
        table.insert_string("listen", &address.to_string());
        table.insert_string("protocol", protocol);
        let flags = scheduler_flags(scheduler, &flags, &self.position, output);
        let rule = scheduler_text(scheduler, &flags.iter().map(String::as_str).collect::<Vec<_>>());
        if SchedulerRegistry::default().parse(&rule).is_ok() {
            table.insert_string("scheduler", &rule);
        } else {
            output.report_skipped(&self.position, format!("scheduler `{rule}`"));
        }
        if let Some(seconds) = persistent {
            let mut persistence = TomlInlineTable::default();
            persistence.insert_string(
                "timeout",
                &format!("{}s", seconds.parse::<u32>().unwrap_or(360).max(1)),
            );
            if let Some(mask) = mask {
                let bits = netmask_bits(mask)
                    .ok_or_else(|| self.error(format!("{mask:?} is not a netmask")))?;
                persistence.insert(if address.is_ipv6() { "netmask_v6" } else { "netmask" }, bits);
            }
            table.insert("persistence", persistence);
        }
        if address.port() != 0 {
            output.report_skipped(&self.position, client_address_difference(protocol));
        }
        if is_ops {
            table.insert("udp", "{ one_packet = true }");
        }
        let is_left_out = address.port() == 0;
        Ok(Some((key, IpvsadmService { table, has_direct_servers: false, is_left_out })))
    }

    /// Converts `-a`.
    fn add_server(
        &mut self,
        output: &mut ImportedConfig,
        services: &mut BTreeMap<String, IpvsadmService>,
    ) -> Result<(), ImportError> {
        let (mut key, mut protocol, mut service_port, mut address) =
            (String::new(), "tcp", 0, None);
        let mut keys: BTreeMap<&str, &str> = BTreeMap::new();
        let mut is_direct = true;
        while let Some(option) = self.arguments.next() {
            match option {
                "-t" | "--tcp-service" | "-u" | "--udp-service" => {
                    let text = self.next_value(option)?;
                    protocol = protocol_of(option);
                    key = format!("{protocol} {text}");
                    service_port = self.parse_address(text, protocol)?.port();
                }
                // `add_service` has reported the service with its servers.
                "--sctp-service" => return Ok(()),
                "-r" | "--real-server" => {
                    let text = self.next_value(option)?;
                    address = Some(self.parse_address(text, protocol)?);
                }
                "-m" | "--masquerading" => is_direct = false,
                "-g" | "--gatewaying" | "-i" | "--ipip" => {}
                "-w" | "--weight" => {
                    keys.insert("weight", self.next_value(option)?);
                }
                "-x" | "--u-threshold" => {
                    keys.insert("max_connections", self.next_value(option)?);
                }
                "-y" | "--l-threshold" => {
                    keys.insert("resume_connections", self.next_value(option)?);
                }
                "--tun-type" | "--tun-port" => {
                    let value = self.next_value(option)?;
                    output.report_skipped(&self.position, format!("`{option} {value}`"));
                }
                _ => output.report_skipped(&self.position, format!("`{option}`")),
            }
        }
        let mut address: SocketAddr =
            address.ok_or_else(|| self.error("-a requires -r with the address of the server"))?;
        let unknown_service =
            || ImportError::new(&self.position, "no `-A` line before this one adds the service");
        let service = services.get_mut(&key).ok_or_else(unknown_service)?;
        // ipvsadm gives a server that answers clients directly the port of the service.
        if address.port() == 0 || is_direct {
            if address.port() != 0 && address.port() != service_port {
                let report = format!(
                    "the server {address}: without -m ipvsadm takes the port of the service, \
                     {service_port}"
                );
                output.report_skipped(&self.position, report);
            }
            address.set_port(service_port);
        }
        let mut table = TomlTable::new("[[service.server]]");
        table.insert_string("address", &address.to_string());
        if keys.get("max_connections").is_none_or(|value| *value == "0") {
            keys.remove("resume_connections");
        }
        for (key, value) in keys {
            match value.parse::<u16>() {
                Ok(0) if key != "weight" => {}
                Ok(value) => table.insert(key, value),
                Err(_) => {
                    return Err(
                        self.error(format!("{key}: {value:?} is not a number from 0 to 65535"))
                    );
                }
            }
        }
        service.has_direct_servers |= is_direct;
        service.table.push_subtable(table);
        Ok(())
    }
}

/// Splits an option and its value in one word, such as `--weight=3`, `-w3` or `-w=3`.
fn split_option(word: &str) -> Vec<&str> {
    const WITH_VALUE: &str = "tufrspbMwxy";
    let mut characters = word.chars();
    let is_short = characters.next() == Some('-')
        && characters.next().is_some_and(|letter| WITH_VALUE.contains(letter));
    match word.split_once('=') {
        Some((option, value)) if word.starts_with("--") => vec![option, value],
        _ if is_short && word.len() > 2 => vec![&word[..2], word[2..].trim_start_matches('=')],
        _ => vec![word],
    }
}

/// Returns the flags of a scheduler by the names of `sh` and `mh`; the others are reported.
fn scheduler_flags(
    scheduler: &str,
    flags: &[&str],
    position: &SourcePosition,
    output: &mut ImportedConfig,
) -> Vec<String> {
    let mut known = Vec::new();
    for flag in flags {
        let flag_name = match (scheduler, *flag) {
            ("sh" | "mh", "flag-1") => format!("{scheduler}-fallback"),
            ("sh" | "mh", "flag-2") => format!("{scheduler}-port"),
            _ => (*flag).to_owned(),
        };
        if flag_name.strip_prefix(scheduler).is_some_and(|rest| rest.starts_with('-')) {
            known.push(flag_name);
        } else {
            let report = format!("the flag `{flag}` has no effect with the scheduler {scheduler}");
            output.report_skipped(position, report);
        }
    }
    known
}

fn protocol_of(option: &str) -> &'static str {
    if matches!(option, "-u" | "--udp-service") { "udp" } else { "tcp" }
}
