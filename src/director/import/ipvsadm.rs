//! Conversion of `ipvsadm-save` output: one `ipvsadm` command per line.

use std::collections::{BTreeMap, BTreeSet};
use std::iter::Peekable;
use std::net::{IpAddr, SocketAddr};
use std::num::NonZeroU32;

use super::error::ImportError;
use super::ipvs::{
    ImportedMethod, ImportedTunnel, client_address_difference, every_port_warning, netmask_bits,
    scheduler_flags, scheduler_text, service_port,
};
use super::position::SourcePosition;
use super::toml_writer::{ImportedConfig, TomlInlineTable, TomlTable};
use crate::engine::{EngineAddress, EngineProtocol, FirewallMark};
use crate::ipvs::kernel_scheduler;

/// The timeout of `-p` without a value, in seconds.
const DEFAULT_PERSISTENCE_TIMEOUT: &str = "360";

/// A service that is being converted.
struct IpvsadmService {
    position: SourcePosition,
    table: TomlTable,
    /// The servers' addresses.
    servers: BTreeSet<SocketAddr>,
    /// Whether only the kernel forwards so: by a mark, by direct routing or a tunnel.
    needs_kernel: bool,
    /// Whether it is a service of every port.
    is_left_out: bool,
}

/// What `-t`, `-u` or `-f` with `-6` says.
#[derive(Default)]
struct ServiceOption<'a> {
    address: Option<EngineAddress>,
    mark: Option<&'a str>,
    is_ipv6: bool,
}

pub(super) fn import(text: &str) -> Result<ImportedConfig, ImportError> {
    let mut output = ImportedConfig::default();
    let mut services: BTreeMap<EngineAddress, IpvsadmService> = BTreeMap::new();
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
                        order.push(key);
                    }
                    services.insert(key, service);
                }
            }
            Some("-a" | "--add-server") => command.add_server(&mut output, &mut services)?,
            _ => output.report_skipped(&command.position, format!("`{line}`")),
        }
    }
    let converted = order.into_iter().filter_map(|key| Some((key, services.remove(&key)?)));
    let converted: Vec<_> = converted.collect();
    // The services share one engine.
    let in_kernel = converted.iter().any(|(_, service)| service.needs_kernel);
    for (key, IpvsadmService { position, mut table, .. }) in converted {
        match (in_kernel, key) {
            (true, EngineAddress::Socket { address, .. }) if address.ip().is_unspecified() => {
                let reason = format!("{address}: a service of the kernel has one address");
                return Err(ImportError::new(&position, reason));
            }
            (true, _) => table.insert_string("engine", "ipvs"),
            (false, _) => output.report_skipped(&position, client_address_difference(name_of(key))),
        }
        output.push_table(table);
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

    /// Reads an option that names the service; returns whether it is one.
    fn read_service_option(
        &mut self,
        option: &str,
        service: &mut ServiceOption<'a>,
    ) -> Result<bool, ImportError> {
        match option {
            "-t" | "--tcp-service" | "-u" | "--udp-service" => {
                let protocol = match option {
                    "-t" | "--tcp-service" => EngineProtocol::Tcp,
                    _ => EngineProtocol::Udp,
                };
                let text = self.next_value(option)?;
                let address = self.parse_address(text, protocol_name(protocol))?;
                service.address = Some(EngineAddress::Socket { protocol, address });
            }
            "-f" | "--fwmark-service" => service.mark = Some(self.next_value(option)?),
            "-6" | "--ipv6" => service.is_ipv6 = true,
            _ => return Ok(false),
        }
        Ok(true)
    }

    /// Returns what the options name.
    fn service_address(&self, service: &ServiceOption<'_>) -> Result<EngineAddress, ImportError> {
        let Some(text) = service.mark else {
            let reason = "an option -t, -u or -f is required, which names the service";
            return service.address.ok_or_else(|| self.error(reason));
        };
        // ipvsadm writes those from 2^31 on as negative numbers.
        let negative = text.parse::<i32>().ok().filter(|mark| *mark < 0);
        let positive = negative.map_or_else(|| text.parse().unwrap_or(0), i32::cast_unsigned);
        let mark = NonZeroU32::new(positive).ok_or_else(|| {
            self.error(format!("{text:?}: a firewall mark is a number from 1 to 4294967295"))
        })?;
        let mark =
            if service.is_ipv6 { FirewallMark::ipv6(mark) } else { FirewallMark::ipv4(mark) };
        Ok(EngineAddress::Mark(mark))
    }

    /// Converts `-A`; `None` for a service that is not supported.
    fn add_service(
        &mut self,
        output: &mut ImportedConfig,
        number: usize,
    ) -> Result<Option<(EngineAddress, IpvsadmService)>, ImportError> {
        let mut service = ServiceOption::default();
        let (mut scheduler, mut flags) = ("wlc", Vec::new());
        let (mut persistent, mut mask, mut is_ops) = (None, None, false);
        while let Some(option) = self.arguments.next() {
            if self.read_service_option(option, &mut service)? {
                continue;
            }
            match option {
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
        let key = self.service_address(&service)?;
        // A mark has packets of every protocol: the service is one of UDP if datagrams are to be scheduled
        // one by one.
        let (name, protocol, listen) = match key {
            EngineAddress::Socket { protocol, address } => {
                let protocol = protocol_name(protocol);
                if address.port() == 0 {
                    output.warn(&self.position, every_port_warning(address.ip()));
                }
                (protocol, protocol, address.to_string())
            }
            EngineAddress::Mark(mark) => {
                ("fwmark", if is_ops { "udp" } else { "tcp" }, mark.to_string())
            }
        };
        let mut table = TomlTable::new("[[service]]");
        table.insert_string("name", &format!("{name}-{}", number + 1));
        table.insert_string("listen", &listen);
        table.insert_string("protocol", protocol);
        let flags = scheduler_flags(scheduler, &flags, &self.position, output);
        let rule = scheduler_text(scheduler, &flags.iter().map(String::as_str).collect::<Vec<_>>());
        match kernel_scheduler(&rule) {
            Ok(_) => table.insert_string("scheduler", &rule),
            Err(reason) => {
                output.report_skipped(&self.position, format!("scheduler `{rule}`: {reason}"));
            }
        }
        if let Some(seconds) = persistent {
            let mut persistence = TomlInlineTable::default();
            persistence.insert_string(
                "timeout",
                &format!("{}s", seconds.parse::<u32>().unwrap_or(360).max(1)),
            );
            if let Some(mask) = mask {
                let bits = netmask_bits(mask)
                    .filter(|bits| *bits <= if key.is_ipv6() { 128 } else { 32 })
                    .ok_or_else(|| self.error(format!("{mask:?} is not a netmask")))?;
                persistence.insert(if key.is_ipv6() { "netmask_v6" } else { "netmask" }, bits);
            }
            table.insert("persistence", persistence);
        }
        match (is_ops, protocol) {
            (true, "udp") => table.insert("udp", "{ one_packet = true }"),
            (true, _) => output.report_skipped(&self.position, "`-o`: the service is not of UDP"),
            (false, _) => {}
        }
        let is_left_out =
            matches!(key, EngineAddress::Socket { address, .. } if address.port() == 0);
        let service = IpvsadmService {
            position: self.position.clone(),
            table,
            servers: BTreeSet::new(),
            needs_kernel: matches!(key, EngineAddress::Mark(_)),
            is_left_out,
        };
        Ok(Some((key, service)))
    }

    /// Converts `-a`.
    fn add_server(
        &mut self,
        output: &mut ImportedConfig,
        services: &mut BTreeMap<EngineAddress, IpvsadmService>,
    ) -> Result<(), ImportError> {
        let (mut service, mut address) = (ServiceOption::default(), None);
        let mut keys: BTreeMap<&str, &str> = BTreeMap::new();
        let mut method = ImportedMethod::DirectRouting;
        let mut tunnel = ImportedTunnel::default();
        while let Some(option) = self.arguments.next() {
            if self.read_service_option(option, &mut service)? {
                continue;
            }
            match option {
                // `add_service` has reported the service with its servers.
                "--sctp-service" => return Ok(()),
                "-r" | "--real-server" => {
                    let text = self.next_value(option)?;
                    let protocol = service.address.map_or("tcp", name_of);
                    address = Some(self.parse_address(text, protocol)?);
                }
                "-m" | "--masquerading" => method = ImportedMethod::Nat,
                "-g" | "--gatewaying" => method = ImportedMethod::DirectRouting,
                "-i" | "--ipip" => method = ImportedMethod::Tunnel(tunnel),
                "-w" | "--weight" => {
                    keys.insert("weight", self.next_value(option)?);
                }
                "-x" | "--u-threshold" => {
                    keys.insert("max_connections", self.next_value(option)?);
                }
                "-y" | "--l-threshold" => {
                    keys.insert("resume_connections", self.next_value(option)?);
                }
                "--tun-type" => {
                    let kind = self.next_value(option)?;
                    tunnel.kind = ImportedTunnel::kind(kind)
                        .ok_or_else(|| self.error(format!("{kind:?} is no type of a tunnel")))?;
                }
                "--tun-port" => {
                    let port = self.next_value(option)?;
                    let number = port.parse().ok().filter(|port| *port > 0);
                    tunnel.port = Some(number.ok_or_else(|| {
                        self.error(format!("{port:?} is not a port from 1 to 65535"))
                    })?);
                }
                _ => match option.strip_prefix("--tun-").and_then(ImportedTunnel::checksum) {
                    Some(checksum) => tunnel.checksum = checksum,
                    None => output.report_skipped(&self.position, format!("`{option}`")),
                },
            }
        }
        if method.is_tunnel() {
            method = ImportedMethod::Tunnel(tunnel);
        }
        let mut address: SocketAddr =
            address.ok_or_else(|| self.error("-a requires -r with the address of the server"))?;
        let key = self.service_address(&service)?;
        let unknown_service =
            || ImportError::new(&self.position, "no `-A` line before this one adds the service");
        let service = services.get_mut(&key).ok_or_else(unknown_service)?;
        if key.is_ipv6() != address.is_ipv6() && !method.is_tunnel() {
            let reason = format!(
                "the server {address} is not of the family of the service: only -i reaches it"
            );
            return Err(self.error(reason));
        }
        // ipvsadm gives a server that answers clients directly the port of the service, but not of a mark.
        if let EngineAddress::Socket { address: virtual_address, .. } = key
            && (address.port() == 0 || method != ImportedMethod::Nat)
        {
            let service_port = virtual_address.port();
            if address.port() != 0 && address.port() != service_port {
                let report = format!(
                    "the server {address}: without -m ipvsadm takes the port of the service, \
                     {service_port}"
                );
                output.report_skipped(&self.position, report);
            }
            address.set_port(service_port);
        }
        if !service.servers.insert(address) {
            return Err(self.error(format!("the server {address} is added twice")));
        }
        let mut table = TomlTable::new("[[service.server]]");
        table.insert_string("address", &address.to_string());
        method.write(&mut table, &self.position, output);
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
        service.needs_kernel |= method != ImportedMethod::Nat;
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

fn protocol_name(protocol: EngineProtocol) -> &'static str {
    match protocol {
        EngineProtocol::Tcp => "tcp",
        EngineProtocol::Udp => "udp",
    }
}

fn name_of(service: EngineAddress) -> &'static str {
    match service {
        EngineAddress::Socket { protocol, .. } => protocol_name(protocol),
        EngineAddress::Mark(_) => "tcp",
    }
}
