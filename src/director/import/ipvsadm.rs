//! What `ipvsadm-save` wrote: commands of `ipvsadm`, one a line.

use std::collections::BTreeMap;
use std::iter::Peekable;
use std::net::{IpAddr, SocketAddr};

use super::ImportError;
use super::output::{Inline, Output, Table};
use crate::scheduler::Registry;

/// What is given without a word about it.
const PERSISTENT: &str = "360";

/// A service, and its table.
struct Service {
    table: Table,
    /// Servers have been named that are not behind this machine.
    is_direct: bool,
}

pub(super) fn import(text: &str) -> Result<Output, ImportError> {
    let mut output = Output::default();
    let mut services: BTreeMap<String, Service> = BTreeMap::new();
    let mut order = Vec::new();
    for (n, line) in text.lines().enumerate() {
        let line = line.trim();
        let line = line.strip_prefix("ipvsadm ").unwrap_or(line).trim_start();
        if line.is_empty() || line.starts_with('#') {
            continue;
        }
        let mut command = Command { line: n + 1, words: line.split_whitespace().peekable() };
        match command.words.next() {
            Some("-A" | "--add-service") => {
                if let Some((key, service)) = command.service(&mut output, order.len())? {
                    order.push(key.clone());
                    services.insert(key, service);
                }
            }
            Some("-a" | "--add-server") => command.server(&mut output, &mut services)?,
            _ => output.note(n + 1, format!("`{line}`")),
        }
    }
    for key in order {
        let Some(mut service) = services.remove(&key) else { continue };
        if service.is_direct {
            service.table.note(
                "Servers answered clients themselves (-g, -i). Here they answer the director, which \
                 they see as the client, unless `tcp = { source = \"client\" }`.",
            );
        }
        output.add(service.table);
    }
    Ok(output)
}

struct Command<'a> {
    line: usize,
    words: Peekable<std::str::SplitWhitespace<'a>>,
}

impl<'a> Command<'a> {
    fn wrong(&self, what: impl Into<String>) -> ImportError {
        ImportError::new(self.line, what)
    }

    fn value(&mut self, option: &str) -> Result<&'a str, ImportError> {
        self.words.next().ok_or_else(|| self.wrong(format!("{option} of what?")))
    }

    /// An address and a port; without one it is every port.
    fn address(&self, text: &str) -> Result<SocketAddr, ImportError> {
        let bare = || text.trim_matches(['[', ']']).parse::<IpAddr>().ok();
        let address = text.parse().ok().or_else(|| Some(SocketAddr::new(bare()?, 0)));
        address.ok_or_else(|| {
            self.wrong(format!("{text:?} is no address: let `ipvsadm-save -n` write numbers"))
        })
    }

    /// `-A`
    fn service(
        &mut self,
        output: &mut Output,
        number: usize,
    ) -> Result<Option<(String, Service)>, ImportError> {
        let (mut key, mut protocol, mut address) = (String::new(), "tcp", None);
        let (mut scheduler, mut flags) = ("wlc", Vec::new());
        let (mut persistent, mut mask, mut is_ops) = (None, None, false);
        while let Some(option) = self.words.next() {
            match option {
                "-t" | "--tcp-service" | "-u" | "--udp-service" => {
                    let text = self.value(option)?;
                    protocol = protocol_of(option);
                    (key, address) = (format!("{protocol} {text}"), Some(self.address(text)?));
                }
                "-f" | "--fwmark-service" | "--sctp-service" => {
                    let text = self.value(option)?;
                    output.note(
                        self.line,
                        format!("a service of `{option} {text}`, and its servers"),
                    );
                    return Ok(None);
                }
                "-s" | "--scheduler" => scheduler = self.value(option)?,
                "-b" | "--sched-flags" => flags.extend(self.value(option)?.split(',')),
                "-p" | "--persistent" => {
                    let seconds = self.words.next_if(|it| it.parse::<u32>().is_ok());
                    persistent = Some(seconds.unwrap_or(PERSISTENT));
                }
                "-M" | "--netmask" => mask = Some(self.value(option)?),
                "-o" | "--ops" => is_ops = true,
                "--pe" => {
                    let engine = self.value(option)?;
                    output.note(self.line, format!("persistence engine `{engine}`"));
                }
                _ => output.note(self.line, format!("`{option}`")),
            }
        }
        let address = address.ok_or_else(|| self.wrong("of which service?"))?;
        let mut table = Table::new("[[service]]");
        table.text("name", &format!("{protocol}-{}", number + 1));
        if address.port() == 0 {
            output.note(self.line, "a service of every port: port 1 stands there now");
        }
        let listen = SocketAddr::new(address.ip(), address.port().max(1));
        table.text("listen", &listen.to_string());
        table.text("protocol", protocol);
        let rule = rule(scheduler, &flags);
        if Registry::default().parse(&rule).is_ok() {
            table.text("scheduler", &rule);
        } else {
            output.note(self.line, format!("scheduler `{rule}`"));
        }
        if let Some(seconds) = persistent {
            let mut rule = Inline::default();
            rule.text("timeout", &format!("{}s", seconds.parse::<u32>().unwrap_or(360).max(1)));
            if let Some(mask) = mask {
                let bits = bits(mask).ok_or_else(|| self.wrong(format!("{mask:?} is no mask")))?;
                rule.put(if address.is_ipv6() { "netmask_v6" } else { "netmask" }, bits);
            }
            table.put("persistence", rule);
        }
        if is_ops {
            table.put("udp", "{ one_packet = true }");
        }
        Ok(Some((key, Service { table, is_direct: false })))
    }

    /// `-a`
    fn server(
        &mut self,
        output: &mut Output,
        services: &mut BTreeMap<String, Service>,
    ) -> Result<(), ImportError> {
        let (mut key, mut service_port, mut address) = (String::new(), 0, None);
        let mut keys: BTreeMap<&str, &str> = BTreeMap::new();
        let mut is_direct = true;
        while let Some(option) = self.words.next() {
            match option {
                "-t" | "--tcp-service" | "-u" | "--udp-service" => {
                    let text = self.value(option)?;
                    key = format!("{} {text}", protocol_of(option));
                    service_port = self.address(text)?.port();
                }
                // It was named with its service.
                "-f" | "--fwmark-service" | "--sctp-service" => return Ok(()),
                "-r" | "--real-server" => {
                    let text = self.value(option)?;
                    address = Some(self.address(text)?);
                }
                "-m" | "--masquerading" => is_direct = false,
                "-g" | "--gatewaying" | "-i" | "--ipip" => {}
                "-w" | "--weight" => drop(keys.insert("weight", self.value(option)?)),
                "-x" | "--u-threshold" => drop(keys.insert("max_connections", self.value(option)?)),
                "-y" | "--l-threshold" => {
                    keys.insert("resume_connections", self.value(option)?);
                }
                "--tun-type" | "--tun-port" => {
                    let value = self.value(option)?;
                    output.note(self.line, format!("`{option} {value}`"));
                }
                _ => output.note(self.line, format!("`{option}`")),
            }
        }
        let mut address: SocketAddr = address.ok_or_else(|| self.wrong("which server?"))?;
        let unknown = || ImportError::new(self.line, "there is no such service above");
        let service = services.get_mut(&key).ok_or_else(unknown)?;
        if address.port() == 0 {
            address.set_port(service_port);
        }
        let mut table = Table::new("[[service.server]]");
        table.text("address", &address.to_string());
        if keys.get("max_connections").is_none_or(|it| *it == "0") {
            keys.remove("resume_connections");
        }
        for (key, value) in keys {
            match value.parse::<u16>() {
                Ok(0) if key != "weight" => {}
                Ok(value) => table.put(key, value),
                Err(_) => return Err(self.wrong(format!("{key}: {value:?} is no number"))),
            }
        }
        service.is_direct |= is_direct;
        service.table.add(table);
        Ok(())
    }
}

fn protocol_of(option: &str) -> &'static str {
    if matches!(option, "-u" | "--udp-service") { "udp" } else { "tcp" }
}

/// A rule with the kernel's flags.
pub(super) fn rule(scheduler: &str, flags: &[&str]) -> String {
    let known: Vec<_> = flags.iter().copied().filter(|it| it.starts_with(scheduler)).collect();
    if known.is_empty() {
        scheduler.to_owned()
    } else {
        format!("{scheduler}({})", known.join(", "))
    }
}

/// The bits of a mask: of `255.255.255.0` or of `64`.
pub(super) fn bits(mask: &str) -> Option<u32> {
    match mask.parse::<std::net::Ipv4Addr>() {
        Ok(mask) => {
            let bits = u32::from(mask).leading_ones();
            (u32::from(mask).count_ones() == bits).then_some(bits)
        }
        Err(_) => mask.parse().ok().filter(|bits| *bits <= 128),
    }
}
