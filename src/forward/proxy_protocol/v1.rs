//! Version 1: a line of text (section 2.1).

use std::fmt::{self, Display};
use std::io::Write as _;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};
use std::ops::Range;
use std::str::FromStr;

use super::{Addresses, Header, MAX_LINE, Parsed, ProxyError, Transport};

/// What every line begins with.
const SIGNATURE: &[u8] = b"PROXY ";

/// The shortest line: `PROXY UNKNOWN` and its end.
pub(super) const SHORTEST: usize = 15;

/// One of the protocols that a line may name.
struct Protocol {
    word: &'static [u8],
    family: Family,
    /// The lengths of its shortest and longest line.
    lengths: (usize, usize),
}

#[derive(Clone, Copy, Eq, PartialEq)]
enum Family {
    V4,
    V6,
    Unknown,
}

const PROTOCOLS: [Protocol; 3] = [
    Protocol { word: b"TCP4 ", family: Family::V4, lengths: (32, 56) },
    // The specification counts 104 bytes for the longest, without the dotted form: see `v6`.
    Protocol { word: b"TCP6 ", family: Family::V6, lengths: (22, MAX_LINE) },
    Protocol { word: b"UNKNOWN", family: Family::Unknown, lengths: (SHORTEST, MAX_LINE) },
];

/// Reads bytes of which the first is that of the signature.
pub(super) fn parse(bytes: &[u8]) -> Result<Parsed, ProxyError> {
    let same = common(bytes, SIGNATURE);
    if same < SIGNATURE.len() {
        return match same == bytes.len() {
            true => Ok(Parsed::Incomplete { at_least: SHORTEST - same }),
            false => Err(ProxyError::NotProxy { at: same }),
        };
    }
    let named = &bytes[same..];
    let Some(protocol) = PROTOCOLS.iter().find(|protocol| named.starts_with(protocol.word)) else {
        return unnamed(named);
    };
    let begin = SIGNATURE.len() + protocol.word.len();
    let end = match find_end(bytes, begin, protocol)? {
        Ok(end) => end,
        Err(at_least) => return Ok(Parsed::Incomplete { at_least }),
    };
    let header = match protocol.family {
        Family::Unknown => Header::unknown(),
        Family::V4 => fields(bytes, begin..end, v4)?,
        Family::V6 => fields(bytes, begin..end, v6)?,
    };
    Ok(Parsed::Complete { header, len: end + 2 })
}

/// What to say while no protocol is named in full.
fn unnamed(named: &[u8]) -> Result<Parsed, ProxyError> {
    let may_come = PROTOCOLS.iter().filter(|protocol| protocol.word.starts_with(named));
    match may_come.map(|protocol| protocol.lengths.0).min() {
        Some(shortest) => {
            Ok(Parsed::Incomplete { at_least: shortest - SIGNATURE.len() - named.len() })
        }
        None => {
            let same = PROTOCOLS.iter().map(|protocol| common(named, protocol.word)).max();
            let at = SIGNATURE.len() + same.unwrap_or_default();
            Err(ProxyError::Line { expected: "TCP4, TCP6 or UNKNOWN", at })
        }
    }
}

/// Finds where the line ends, or else how many bytes are missing at the least.
fn find_end(
    bytes: &[u8],
    begin: usize,
    protocol: &Protocol,
) -> Result<Result<usize, usize>, ProxyError> {
    let (shortest, longest) = protocol.lengths;
    let missing = |least: usize| Ok(Err(shortest.saturating_sub(bytes.len()).max(least)));
    for (at, &byte) in bytes.iter().enumerate().take(longest - 1).skip(begin) {
        match byte {
            b'\r' => {
                return match bytes.get(at + 1) {
                    Some(b'\n') => Ok(Ok(at)),
                    Some(_) => Err(ProxyError::Line { expected: "LF", at: at + 1 }),
                    None => missing(1),
                };
            }
            _ if protocol.family.allows(byte, at == begin) => {}
            _ => return Err(ProxyError::Line { expected: protocol.family.expects(), at }),
        }
    }
    match bytes.len() >= longest - 1 {
        true => Err(ProxyError::Unterminated { longest }),
        false => missing(2),
    }
}

impl Family {
    /// Tells whether a byte can stand behind the protocol's name.
    fn allows(self, byte: u8, first: bool) -> bool {
        match self {
            Self::V4 => matches!(byte, b'0'..=b'9' | b'.' | b' '),
            Self::V6 => byte.is_ascii_hexdigit() || matches!(byte, b':' | b'.' | b' '),
            // What stands there is ignored, but it belongs to the same line.
            Self::Unknown => byte != b'\n' && (!first || byte == b' '),
        }
    }

    fn expects(self) -> &'static str {
        match self {
            Self::V4 => "an IPv4 address, a port or CR",
            Self::V6 => "an IPv6 address, a port or CR",
            Self::Unknown => "a space or CR",
        }
    }
}

/// Reads addresses and ports, between them one space each and nothing else.
fn fields(
    bytes: &[u8],
    range: Range<usize>,
    ip: fn(&str) -> Option<IpAddr>,
) -> Result<Header, ProxyError> {
    let mut rest = Fields { bytes, at: range.start, end: range.end };
    let source = rest.next("source address", ip)?;
    let destination = rest.next("destination address", ip)?;
    let source_port = rest.next("source port", port)?;
    let destination_port = rest.next("destination port", port)?;
    if rest.at <= rest.end {
        return Err(ProxyError::Line { expected: "CR", at: rest.at - 1 });
    }
    Ok(Header::proxied(
        SocketAddr::new(source, source_port),
        SocketAddr::new(destination, destination_port),
    ))
}

/// The fields of a line that are still to be read.
struct Fields<'a> {
    bytes: &'a [u8],
    /// Where the next one begins; behind `end` where there is none.
    at: usize,
    end: usize,
}

impl Fields<'_> {
    fn next<T>(
        &mut self,
        expected: &'static str,
        read: fn(&str) -> Option<T>,
    ) -> Result<T, ProxyError> {
        let at = self.at.min(self.end);
        let rest = &self.bytes[at..self.end];
        let len = rest.iter().position(|&byte| byte == b' ').unwrap_or(rest.len());
        self.at = at + len + 1;
        let field = str::from_utf8(&rest[..len]).ok().and_then(read);
        field.ok_or(ProxyError::Line { expected, at })
    }
}

/// The standard library's reader wants four decimal numbers without leading zeros, as the
/// specification does.
fn v4(field: &str) -> Option<IpAddr> {
    field.parse::<Ipv4Addr>().ok().map(IpAddr::V4)
}

/// Reads hexadecimal groups; also with the last two in dotted form, which the specification does
/// not have, but which `inet_ntop(3)` writes for mapped addresses, and so do the senders that use
/// it.
fn v6(field: &str) -> Option<IpAddr> {
    field.parse::<Ipv6Addr>().ok().map(IpAddr::V6)
}

fn port(field: &str) -> Option<u16> {
    // Not left to `u16`: it would take a sign and leading zeros.
    match field.as_bytes() {
        [b'0', _, ..] => None,
        digits if digits.iter().all(u8::is_ascii_digit) => u16::from_str(field).ok(),
        _ => None,
    }
}

/// How many bytes both begin with.
pub(super) fn common(bytes: &[u8], signature: &[u8]) -> usize {
    bytes.iter().zip(signature).take_while(|(a, b)| a == b).count()
}

/// Appends a line.
pub(super) fn encode(header: &Header, out: &mut Vec<u8>) {
    let (Transport::Stream, &Addresses::Inet { source, destination }) =
        (header.transport, &header.addresses)
    else {
        out.extend_from_slice(b"PROXY UNKNOWN\r\n");
        return;
    };
    let ports = (source.port(), destination.port());
    match (source.ip(), destination.ip()) {
        (IpAddr::V4(source), IpAddr::V4(destination)) => {
            write_line(out, "TCP4", (source, destination), ports);
        }
        (source, destination) => {
            write_line(out, "TCP6", (Groups(wide(source)), Groups(wide(destination))), ports);
        }
    }
}

fn write_line<A: Display>(out: &mut Vec<u8>, word: &str, ips: (A, A), ports: (u16, u16)) {
    let (source, destination) = ips;
    let (source_port, destination_port) = ports;
    // A vector takes whatever is written to it.
    let _ = write!(out, "PROXY {word} {source} {destination} {source_port} {destination_port}\r\n");
}

/// An address among addresses of IPv6.
pub(super) fn wide(ip: IpAddr) -> Ipv6Addr {
    match ip {
        IpAddr::V4(ip) => ip.to_ipv6_mapped(),
        IpAddr::V6(ip) => ip,
    }
}

/// Writes hexadecimal groups, also where the standard library would write the dotted form, which
/// the specification does not have.
struct Groups(Ipv6Addr);

impl Display for Groups {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.0.segments() {
            [0, 0, 0, 0, 0, 0xffff, high, low] => write!(f, "::ffff:{high:x}:{low:x}"),
            _ => self.0.fmt(f),
        }
    }
}
