//! Version 1: a line of text (section 2.1).

use std::fmt::{self, Display};
use std::io::Write as _;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};
use std::ops::Range;
use std::str::FromStr;

use super::address::{ProxyAddresses, to_ipv6};
use super::error::ProxyHeaderError;
use super::format::{MAX_V1_LINE, MIN_V1_LINE, common_prefix_len};
use super::header::{ParsedProxyHeader, ProxyHeader, ProxyTransport};

/// What every line begins with.
const SIGNATURE: &[u8] = b"PROXY ";

/// One of the protocols that a line may name.
struct V1Protocol {
    name: &'static [u8],
    family: V1AddressFamily,
    /// The lengths of its shortest and longest line.
    line_lengths: (usize, usize),
}

#[derive(Clone, Copy, Eq, PartialEq)]
enum V1AddressFamily {
    V4,
    V6,
    Unknown,
}

const PROTOCOLS: [V1Protocol; 3] = [
    V1Protocol { name: b"TCP4 ", family: V1AddressFamily::V4, line_lengths: (32, 56) },
    // The specification counts 104 bytes for the longest, without the dotted form: see `parse_ipv6`.
    V1Protocol { name: b"TCP6 ", family: V1AddressFamily::V6, line_lengths: (22, MAX_V1_LINE) },
    V1Protocol {
        name: b"UNKNOWN",
        family: V1AddressFamily::Unknown,
        line_lengths: (MIN_V1_LINE, MAX_V1_LINE),
    },
];

/// Reads bytes of which the first is that of the signature.
pub(super) fn parse(bytes: &[u8]) -> Result<ParsedProxyHeader, ProxyHeaderError> {
    let same = common_prefix_len(bytes, SIGNATURE);
    if same < SIGNATURE.len() {
        return match same == bytes.len() {
            true => Ok(ParsedProxyHeader::Incomplete { at_least: MIN_V1_LINE - same }),
            false => Err(ProxyHeaderError::NotProxy { offset: same }),
        };
    }
    let named = &bytes[same..];
    let Some(protocol) = PROTOCOLS.iter().find(|protocol| named.starts_with(protocol.name)) else {
        return parse_partial_protocol(named);
    };
    let begin = SIGNATURE.len() + protocol.name.len();
    let end = match find_line_end(bytes, begin, protocol)? {
        Ok(end) => end,
        Err(at_least) => return Ok(ParsedProxyHeader::Incomplete { at_least }),
    };
    let header = match protocol.family {
        V1AddressFamily::Unknown => ProxyHeader::unknown(),
        V1AddressFamily::V4 => parse_addresses(bytes, begin..end, parse_ipv4)?,
        V1AddressFamily::V6 => parse_addresses(bytes, begin..end, parse_ipv6)?,
    };
    Ok(ParsedProxyHeader::Complete { header, len: end + 2 })
}

/// What to say while no protocol is named in full.
fn parse_partial_protocol(named: &[u8]) -> Result<ParsedProxyHeader, ProxyHeaderError> {
    let may_come = PROTOCOLS.iter().filter(|protocol| protocol.name.starts_with(named));
    match may_come.map(|protocol| protocol.line_lengths.0).min() {
        Some(shortest) => {
            Ok(ParsedProxyHeader::Incomplete { at_least: shortest - SIGNATURE.len() - named.len() })
        }
        None => {
            let same =
                PROTOCOLS.iter().map(|protocol| common_prefix_len(named, protocol.name)).max();
            let at = SIGNATURE.len() + same.unwrap_or_default();
            Err(ProxyHeaderError::Line { expected: "TCP4, TCP6 or UNKNOWN", at })
        }
    }
}

/// Finds where the line ends, or else how many bytes are missing at the least.
fn find_line_end(
    bytes: &[u8],
    begin: usize,
    protocol: &V1Protocol,
) -> Result<Result<usize, usize>, ProxyHeaderError> {
    let (shortest, longest) = protocol.line_lengths;
    let missing = |least: usize| Ok(Err(shortest.saturating_sub(bytes.len()).max(least)));
    for (at, &byte) in bytes.iter().enumerate().take(longest - 1).skip(begin) {
        match byte {
            b'\r' => {
                return match bytes.get(at + 1) {
                    Some(b'\n') => Ok(Ok(at)),
                    Some(_) => Err(ProxyHeaderError::Line { expected: "LF", at: at + 1 }),
                    None => missing(1),
                };
            }
            _ if protocol.family.allows(byte, at == begin) => {}
            _ => {
                return Err(ProxyHeaderError::Line {
                    expected: protocol.family.expected_text(),
                    at,
                });
            }
        }
    }
    match bytes.len() >= longest - 1 {
        true => Err(ProxyHeaderError::Unterminated { longest }),
        false => missing(2),
    }
}

impl V1AddressFamily {
    /// Tells whether a byte can stand behind the protocol's name.
    fn allows(self, byte: u8, first: bool) -> bool {
        match self {
            Self::V4 => matches!(byte, b'0'..=b'9' | b'.' | b' '),
            Self::V6 => byte.is_ascii_hexdigit() || matches!(byte, b':' | b'.' | b' '),
            // What stands there is ignored, but it belongs to the same line.
            Self::Unknown => byte != b'\n' && (!first || byte == b' '),
        }
    }

    fn expected_text(self) -> &'static str {
        match self {
            Self::V4 => "an IPv4 address, a port or CR",
            Self::V6 => "an IPv6 address, a port or CR",
            Self::Unknown => "a space or CR",
        }
    }
}

/// Reads addresses and ports, between them one space each and nothing else.
fn parse_addresses(
    bytes: &[u8],
    range: Range<usize>,
    ip: fn(&str) -> Option<IpAddr>,
) -> Result<ProxyHeader, ProxyHeaderError> {
    let mut rest = V1Fields { bytes, position: range.start, end: range.end };
    let source = rest.next("source address", ip)?;
    let destination = rest.next("destination address", ip)?;
    let source_port = rest.next("source port", parse_port)?;
    let destination_port = rest.next("destination port", parse_port)?;
    if rest.position <= rest.end {
        return Err(ProxyHeaderError::Line { expected: "CR", at: rest.position - 1 });
    }
    Ok(ProxyHeader::proxied(
        SocketAddr::new(source, source_port),
        SocketAddr::new(destination, destination_port),
    ))
}

/// The fields of a line that are still to be read.
struct V1Fields<'a> {
    bytes: &'a [u8],
    /// Where the next one begins; behind `end` where there is none.
    position: usize,
    end: usize,
}

impl V1Fields<'_> {
    fn next<T>(
        &mut self,
        expected: &'static str,
        read: fn(&str) -> Option<T>,
    ) -> Result<T, ProxyHeaderError> {
        let at = self.position.min(self.end);
        let rest = &self.bytes[at..self.end];
        let len = rest.iter().position(|&byte| byte == b' ').unwrap_or(rest.len());
        self.position = at + len + 1;
        let field = str::from_utf8(&rest[..len]).ok().and_then(read);
        field.ok_or(ProxyHeaderError::Line { expected, at })
    }
}

/// The standard library's reader wants four decimal numbers without leading zeros, as the
/// specification does.
fn parse_ipv4(field: &str) -> Option<IpAddr> {
    field.parse::<Ipv4Addr>().ok().map(IpAddr::V4)
}

/// Reads hexadecimal groups; also with the last two in dotted form, which the specification does
/// not have, but which `inet_ntop(3)` writes for mapped addresses, and so do the senders that use
/// it.
fn parse_ipv6(field: &str) -> Option<IpAddr> {
    field.parse::<Ipv6Addr>().ok().map(IpAddr::V6)
}

fn parse_port(field: &str) -> Option<u16> {
    // Not left to `u16`: it would take a sign and leading zeros.
    match field.as_bytes() {
        [b'0', _, ..] => None,
        digits if digits.iter().all(u8::is_ascii_digit) => u16::from_str(field).ok(),
        _ => None,
    }
}

/// Appends a line.
pub(super) fn encode(header: &ProxyHeader, out: &mut Vec<u8>) {
    let (ProxyTransport::Stream, &ProxyAddresses::Inet { source, destination }) =
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
            write_line(
                out,
                "TCP6",
                (Ipv6Groups(to_ipv6(source)), Ipv6Groups(to_ipv6(destination))),
                ports,
            );
        }
    }
}

fn write_line<A: Display>(out: &mut Vec<u8>, word: &str, ips: (A, A), ports: (u16, u16)) {
    let (source, destination) = ips;
    let (source_port, destination_port) = ports;
    // A vector takes whatever is written to it.
    let _ = write!(out, "PROXY {word} {source} {destination} {source_port} {destination_port}\r\n");
}

/// Writes hexadecimal groups, also where the standard library would write the dotted form, which
/// the specification does not have.
struct Ipv6Groups(Ipv6Addr);

impl Display for Ipv6Groups {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.0.segments() {
            [0, 0, 0, 0, 0, 0xffff, high, low] => write!(f, "::ffff:{high:x}:{low:x}"),
            _ => self.0.fmt(f),
        }
    }
}
