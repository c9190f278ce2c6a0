//! A line of the kernel's list of connections.

use std::net::{IpAddr, Ipv4Addr, SocketAddr};
use std::time::Duration;

use super::service::IpvsProtocol;

/// A connection, a UDP flow or a template of persistence, as a line of the kernel's files
/// `/proc/net/ip_vs_conn` and `/proc/net/ip_vs_conn_sync` has it.
///
/// # Examples
/// ```
/// use lvs::ipvs::{IpvsConnection, IpvsConnectionOrigin};
///
/// let line = "TCP 0A000102 8B3F 0A000001 0050 0A000202 1F90 ESTABLISHED SYNC       893";
/// let connection = IpvsConnection::parse(line).expect("a connection");
/// assert_eq!(connection.client, "10.0.1.2:35647".parse()?);
/// assert_eq!(connection.destination, "10.0.2.2:8080".parse()?);
/// assert_eq!(connection.origin, Some(IpvsConnectionOrigin::Sync));
/// # Ok::<(), std::net::AddrParseError>(())
/// ```
#[derive(Clone, Debug, Eq, Hash, PartialEq)]
#[non_exhaustive]
pub struct IpvsConnection {
    /// The transport protocol; [`Other(0)`](IpvsProtocol::Other) for the template of a service with a
    /// firewall mark.
    pub protocol: IpvsProtocol,
    /// The client. The port of a template is 0.
    pub client: SocketAddr,
    /// The virtual address. In a template of a service with a firewall mark it is the mark.
    pub virtual_address: SocketAddr,
    /// The destination.
    pub destination: SocketAddr,
    /// The kernel's word for the state, such as `ESTABLISHED`.
    pub state: String,
    /// After this time without a packet the kernel forgets the connection.
    pub expires_in: Duration,
    /// How the kernel came to know the connection; `None` if the file does not say.
    pub origin: Option<IpvsConnectionOrigin>,
    /// The persistence engine and its data; `None` without, or if the file does not say.
    pub engine: Option<(String, String)>,
}

/// How a kernel came to know a connection.
#[derive(Clone, Copy, Debug, Eq, Hash, PartialEq)]
#[non_exhaustive]
pub enum IpvsConnectionOrigin {
    /// Its packets passed this machine.
    Local,
    /// A synchronization daemon told of it.
    Sync,
}

impl IpvsConnection {
    /// Parses a line; `None` for the head of the list, and for what is no line of it.
    #[must_use]
    pub fn parse(line: &str) -> Option<Self> {
        let mut words = line.split_ascii_whitespace();
        let protocol = parse_protocol(words.next()?)?;
        let mut address = || parse_address(words.next()?, words.next()?);
        let (client, virtual_address, destination) = (address()?, address()?, address()?);
        let state = words.next()?.to_owned();
        let mut word = words.next()?;
        let origin = match word {
            "LOCAL" => Some(IpvsConnectionOrigin::Local),
            "SYNC" => Some(IpvsConnectionOrigin::Sync),
            _ => None,
        };
        if origin.is_some() {
            word = words.next()?;
        }
        let expires_in = Duration::from_secs(word.parse().ok()?);
        let engine = words.next().zip(words.next());
        let engine = engine.map(|(name, data)| (name.to_owned(), data.to_owned()));
        Some(Self {
            protocol,
            client,
            virtual_address,
            destination,
            state,
            expires_in,
            origin,
            engine,
        })
    }

    /// Returns whether this is a template, by which a client returns to its server, and no connection.
    #[must_use]
    pub fn is_template(&self) -> bool {
        // A UDP client may send from port 0; its flow has another state.
        self.client.port() == 0 && matches!(&*self.state, "NONE" | "ASSURED")
    }
}

fn parse_protocol(word: &str) -> Option<IpvsProtocol> {
    Some(match word {
        "TCP" => IpvsProtocol::Tcp,
        "UDP" => IpvsProtocol::Udp,
        "SCTP" => IpvsProtocol::Sctp,
        "IP" => IpvsProtocol::Other(0),
        // Kernels that are made for debugging have names for these.
        "ICMP" => IpvsProtocol::Other(1),
        "ICMPv6" => IpvsProtocol::Other(58),
        _ => IpvsProtocol::Other(word.strip_prefix("IP_")?.parse().ok()?),
    })
}

/// Parses an address, of IPv4 in eight hexadecimal digits, and a port in four.
fn parse_address(address: &str, port: &str) -> Option<SocketAddr> {
    let port = u16::from_str_radix(port, 16).ok()?;
    let address = match u32::from_str_radix(address, 16) {
        Ok(bits) => Ipv4Addr::from_bits(bits).into(),
        Err(_) => IpAddr::V6(address.parse().ok()?),
    };
    Some(SocketAddr::new(address, port))
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    /// Writes an address as the kernel does.
    fn of_kernel(address: SocketAddr) -> String {
        match address.ip() {
            IpAddr::V4(ip) => format!("{:08X} {:04X}", ip.to_bits(), address.port()),
            IpAddr::V6(ip) => {
                let groups = ip.segments().map(|group| format!("{group:04x}"));
                format!("{} {:04X}", groups.join(":"), address.port())
            }
        }
    }

    proptest! {
        #[test]
        fn a_line_of_the_kernel_is_parsed(
            (client, virtual_address, destination) in any::<[(std::net::IpAddr, u16); 3]>()
                .prop_map(|all| all.map(SocketAddr::from).into()),
            protocol in prop::sample::select(vec!["TCP", "UDP", "SCTP", "IP", "IP_50"]),
            state in "[A-Z_]{2,11}",
            secs in any::<u32>(),
            origin in prop::option::of(prop::sample::select(vec!["LOCAL", "SYNC"])),
            engine in prop::option::of(("[a-z]{3}", "[!-~]{1,20}")),
        ) {
            let addresses = [client, virtual_address, destination].map(of_kernel).join(" ");
            let mut line = format!("{protocol:<3} {addresses} {state:<11} ");
            if let Some(origin) = origin {
                line += &format!("{origin:<6} ");
            }
            line += &format!("{secs:7}");
            if let Some((name, data)) = &engine {
                line += &format!(" {name} {data}");
            }
            let parsed = IpvsConnection::parse(&format!("{line}\n")).expect("a line");
            prop_assert_eq!(parsed.client, client);
            prop_assert_eq!(parsed.virtual_address, virtual_address);
            prop_assert_eq!(parsed.destination, destination);
            prop_assert_eq!(&parsed.state, &state);
            prop_assert_eq!(parsed.expires_in, Duration::from_secs(secs.into()));
            let expected = origin.map(|origin| match origin {
                "SYNC" => IpvsConnectionOrigin::Sync,
                _ => IpvsConnectionOrigin::Local,
            });
            prop_assert_eq!(parsed.origin, expected);
            prop_assert_eq!(&parsed.engine, &engine);
            let is_template = client.port() == 0 && matches!(&*state, "NONE" | "ASSURED");
            prop_assert_eq!(parsed.is_template(), is_template);
            // A line that was cut is none, or one whose last word is shorter.
            let words = line.split_ascii_whitespace().count() - engine.map_or(0, |_| 2);
            for kept in 0..words {
                let cut: Vec<_> = line.split_ascii_whitespace().take(kept).collect();
                prop_assert_eq!(IpvsConnection::parse(&cut.join(" ")), None);
            }
        }

        #[test]
        fn any_text_is_parsed_or_not(text in any::<String>()) {
            let _ = IpvsConnection::parse(&text);
        }
    }

    #[test]
    fn what_is_no_connection_is_none() {
        let row = |text: &str| format!("TCP 0A000102 8B3F 0A000001 0050 {text}");
        for line in [
            "",
            "Pro FromIP   FPrt ToIP     TPrt DestIP   DPrt State       Origin Expires",
            "XYZ 0A000102 8B3F 0A000001 0050 0A000202 1F90 ESTABLISHED LOCAL 893",
            &row("0A000202 1F90 ESTABLISHED SYNC soon"),
            &row("0A00020200 1F90 ESTABLISHED SYNC 893"),
            &row("0A000202 11F90 ESTABLISHED SYNC 893"),
            &row("10.0.2.2 1F90 ESTABLISHED SYNC 893"),
        ] {
            assert_eq!(IpvsConnection::parse(line), None, "{line}");
        }
    }

    #[test]
    fn templates_are_told_from_flows_with_port_0() {
        let template = |row: &str| IpvsConnection::parse(row).expect("a line").is_template();
        assert!(template("TCP 0A000100 0000 0A000001 0050 0A000202 1F90 NONE LOCAL 290"));
        assert!(template("IP 0A000100 0000 00000007 0000 0A000202 0000 ASSURED SYNC 290"));
        assert!(!template("UDP 0A000102 0000 0A000001 0035 0A000202 0035 UDP LOCAL 290"));
        assert!(!template("TCP 0A000102 8B3F 0A000001 0050 0A000202 1F90 NONE LOCAL 290"));
    }
}
