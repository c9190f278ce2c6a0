//! The names of hosts and ports, or their numbers.

use std::collections::HashMap;
use std::fs;
use std::net::{IpAddr, Ipv4Addr, SocketAddr, ToSocketAddrs};

use lvs::ipvs::IpvsProtocol;

/// Where the system has the names of ports.
const SERVICES_FILE: &str = "/etc/services";
/// The number of host names that are remembered.
const MAX_HOSTS: usize = 1 << 16;
/// ipvsadm cuts an address with its port after this number of characters.
const MAX_ADDRESS_LEN: usize = 59;

/// Looks up names as the system does: hosts by its resolver, ports in `/etc/services`.
#[derive(Debug, Default)]
pub(super) struct NameLookup {
    ports: HashMap<(IpvsProtocol, u16), String>,
    names: HashMap<(IpvsProtocol, String), u16>,
    hosts: HashMap<IpAddr, String>,
}

impl NameLookup {
    /// Reads the names of ports; without the file there are none.
    pub(super) fn of_system() -> Self {
        Self::of_services(&fs::read_to_string(SERVICES_FILE).unwrap_or_default())
    }

    /// Reads the names of ports from a text in the format of `/etc/services`.
    fn of_services(text: &str) -> Self {
        let mut lookup = Self::default();
        for line in text.lines() {
            let mut words = line.split('#').next().unwrap_or_default().split_whitespace();
            let (Some(name), Some(number)) = (words.next(), words.next()) else { continue };
            let Some((port, protocol)) = number.split_once('/') else { continue };
            let (Ok(port), Some(protocol)) = (port.parse(), protocol_of(protocol)) else {
                continue;
            };
            // The first line with a port or a name counts.
            lookup.ports.entry((protocol, port)).or_insert_with(|| name.to_owned());
            for name in std::iter::once(name).chain(words) {
                lookup.names.entry((protocol, name.to_owned())).or_insert(port);
            }
        }
        lookup
    }

    /// Returns the number of a port that is a number or a name.
    pub(super) fn port(&self, text: &str, protocol: Option<IpvsProtocol>) -> Option<u16> {
        let named = || self.names.get(&(protocol?, text.to_owned())).copied();
        text.parse().ok().or_else(named)
    }

    /// Writes an address and a port by their names, of which either may have none.
    pub(super) fn named(&mut self, address: SocketAddr, protocol: Option<IpvsProtocol>) -> String {
        let port = address.port();
        let port_name = protocol.and_then(|protocol| self.ports.get(&(protocol, port)).cloned());
        let port = port_name.unwrap_or_else(|| port.to_string());
        join(&self.host(address.ip()), address.is_ipv6(), &port)
    }

    fn host(&mut self, ip: IpAddr) -> String {
        if let Some(name) = self.hosts.get(&ip) {
            return name.clone();
        }
        let name = dns_lookup::lookup_addr(&ip).unwrap_or_else(|_| ip_text(ip));
        if self.hosts.len() == MAX_HOSTS {
            self.hosts.clear();
        }
        self.hosts.insert(ip, name.clone());
        name
    }
}

/// Writes an address and a port as numbers.
pub(super) fn numeric(address: SocketAddr) -> String {
    join(&ip_text(address.ip()), address.is_ipv6(), &address.port().to_string())
}

/// Looks up a host, of which the first address of IPv4 counts.
pub(super) fn resolve(host: &str) -> Option<Ipv4Addr> {
    let addresses = (host, 0).to_socket_addrs().ok()?;
    addresses.into_iter().find_map(|address| match address.ip() {
        IpAddr::V4(ip) => Some(ip),
        IpAddr::V6(_) => None,
    })
}

/// Writes an address as `inet_ntop` does.
pub(super) fn ip_text(ip: IpAddr) -> String {
    match ip {
        IpAddr::V6(v6) if v6.segments()[..6] == [0; 6] && v6.segments()[6] != 0 => {
            let [.., a, b, c, d] = v6.octets();
            format!("::{a}.{b}.{c}.{d}")
        }
        ip => ip.to_string(),
    }
}

fn join(host: &str, is_ipv6: bool, port: &str) -> String {
    let text = if is_ipv6 { format!("[{host}]:{port}") } else { format!("{host}:{port}") };
    text.chars().take(MAX_ADDRESS_LEN).collect()
}

fn protocol_of(word: &str) -> Option<IpvsProtocol> {
    match word {
        "tcp" => Some(IpvsProtocol::Tcp),
        "udp" => Some(IpvsProtocol::Udp),
        "sctp" => Some(IpvsProtocol::Sctp),
        _ => None,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const SERVICES: &str = "\
# comment
domain          53/tcp                          # Domain Name Server
domain          53/udp
http            80/tcp          www             # WorldWideWeb HTTP
www-other       80/tcp
broken          port/tcp
";

    #[test]
    fn names_and_aliases_of_ports_are_those_of_the_protocol() {
        let mut lookup = NameLookup::of_services(SERVICES);
        let (tcp, udp) = (Some(IpvsProtocol::Tcp), Some(IpvsProtocol::Udp));
        for (text, protocol, port) in [
            ("80", tcp, Some(80)),
            ("http", tcp, Some(80)),
            ("www", tcp, Some(80)),
            ("http", udp, None),
            ("domain", udp, Some(53)),
            ("domain", None, None),
            ("65536", tcp, None),
            ("broken", tcp, None),
        ] {
            assert_eq!(lookup.port(text, protocol), port, "{text}");
        }
        let host: IpAddr = [192, 0, 2, 1].into();
        lookup.hosts.insert(host, "web.example".to_owned());
        let mut named = |port, protocol| lookup.named(SocketAddr::new(host, port), protocol);
        assert_eq!(named(80, tcp), "web.example:http");
        assert_eq!(named(80, udp), "web.example:80");
        assert_eq!(named(53, None), "web.example:53");
        assert_eq!(named(81, tcp), "web.example:81");
    }

    #[test]
    fn addresses_are_written_as_by_the_c_library() {
        for (address, text) in [
            ("10.0.0.1:80", "10.0.0.1:80"),
            ("[2001:db8::1]:80", "[2001:db8::1]:80"),
            ("[::ffff:10.0.0.1]:80", "[::ffff:10.0.0.1]:80"),
            ("[::1]:80", "[::1]:80"),
            ("[::a00:1]:80", "[::10.0.0.1]:80"),
        ] {
            assert_eq!(numeric(address.parse().unwrap()), text);
        }
        let long = join(&"a".repeat(70), false, "80");
        assert_eq!(long, "a".repeat(59));
    }
}
