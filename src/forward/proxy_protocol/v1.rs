//! Version 1: a line of text (section 2.1 of the specification).

use std::fmt::{self, Display};
use std::io::Write as _;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};
use std::ops::Range;
use std::str::FromStr;

use super::address::{ProxyAddresses, to_ipv6};
use super::error::ProxyHeaderError;
use super::format::{MAX_V1_LINE, MIN_V1_LINE, common_prefix_len};
use super::header::{ParsedProxyHeader, ProxyHeader, ProxyTransport};

/// The beginning of every line.
const SIGNATURE: &[u8] = b"PROXY ";

/// A protocol that a line may name.
struct V1Protocol {
    name: &'static [u8],
    family: V1AddressFamily,
    /// The minimum and maximum length of a line.
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
    // The specification counts at most 104 bytes, without the dotted form: see `parse_ipv6`.
    V1Protocol { name: b"TCP6 ", family: V1AddressFamily::V6, line_lengths: (22, MAX_V1_LINE) },
    V1Protocol {
        name: b"UNKNOWN",
        family: V1AddressFamily::Unknown,
        line_lengths: (MIN_V1_LINE, MAX_V1_LINE),
    },
];

/// Parses bytes that begin with the first byte of the signature.
pub(super) fn parse(bytes: &[u8]) -> Result<ParsedProxyHeader, ProxyHeaderError> {
    let matched = common_prefix_len(bytes, SIGNATURE);
    if matched < SIGNATURE.len() {
        return match matched == bytes.len() {
            true => Ok(ParsedProxyHeader::Incomplete { at_least: MIN_V1_LINE - matched }),
            false => Err(ProxyHeaderError::NotProxy { offset: matched }),
        };
    }
    let name = &bytes[matched..];
    let Some(protocol) = PROTOCOLS.iter().find(|protocol| name.starts_with(protocol.name)) else {
        return parse_partial_protocol(name);
    };
    let begin = SIGNATURE.len() + protocol.name.len();
    let end = match find_line_end(bytes, begin, protocol)? {
        LineEnd::At(end) => end,
        LineEnd::Missing { at_least } => return Ok(ParsedProxyHeader::Incomplete { at_least }),
    };
    let header = match protocol.family {
        V1AddressFamily::Unknown => ProxyHeader::unknown(),
        V1AddressFamily::V4 => parse_addresses(bytes, begin..end, parse_ipv4)?,
        V1AddressFamily::V6 => parse_addresses(bytes, begin..end, parse_ipv6)?,
    };
    Ok(ParsedProxyHeader::Complete { header, len: end + 2 })
}

/// Returns the result for a prefix of a protocol name, or the error for an unknown name.
fn parse_partial_protocol(name: &[u8]) -> Result<ParsedProxyHeader, ProxyHeaderError> {
    let candidates = PROTOCOLS.iter().filter(|protocol| protocol.name.starts_with(name));
    match candidates.map(|protocol| protocol.line_lengths.0).min() {
        Some(shortest) => {
            Ok(ParsedProxyHeader::Incomplete { at_least: shortest - SIGNATURE.len() - name.len() })
        }
        None => {
            let matched =
                PROTOCOLS.iter().map(|protocol| common_prefix_len(name, protocol.name)).max();
            let at = SIGNATURE.len() + matched.unwrap_or_default();
            Err(ProxyHeaderError::Line { expected: "TCP4, TCP6 or UNKNOWN", at })
        }
    }
}

/// The result of the search for the end of a line.
enum LineEnd {
    /// The offset of CR LF.
    At(usize),
    Missing {
        /// The minimum number of missing bytes.
        at_least: usize,
    },
}

/// Finds the CR LF of a line and checks the characters before it.
fn find_line_end(
    bytes: &[u8],
    begin: usize,
    protocol: &V1Protocol,
) -> Result<LineEnd, ProxyHeaderError> {
    let (shortest, longest) = protocol.line_lengths;
    let missing = |min: usize| {
        Ok(LineEnd::Missing { at_least: shortest.saturating_sub(bytes.len()).max(min) })
    };
    for (at, &byte) in bytes.iter().enumerate().take(longest - 1).skip(begin) {
        match byte {
            b'\r' => {
                return match bytes.get(at + 1) {
                    Some(b'\n') => Ok(LineEnd::At(at)),
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
    /// Returns whether a byte may follow the protocol name.
    fn allows(self, byte: u8, is_first: bool) -> bool {
        match self {
            Self::V4 => matches!(byte, b'0'..=b'9' | b'.' | b' '),
            Self::V6 => byte.is_ascii_hexdigit() || matches!(byte, b':' | b'.' | b' '),
            // The rest of the line is ignored, but a lone LF does not end a line.
            Self::Unknown => byte != b'\n' && (!is_first || byte == b' '),
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

/// Parses addresses and ports, separated by single spaces.
fn parse_addresses(
    bytes: &[u8],
    range: Range<usize>,
    parse_ip: fn(&str) -> Option<IpAddr>,
) -> Result<ProxyHeader, ProxyHeaderError> {
    let mut fields = V1Fields { bytes, position: range.start, end: range.end };
    let source = fields.next("source address", parse_ip)?;
    let destination = fields.next("destination address", parse_ip)?;
    let source_port = fields.next("source port", parse_port)?;
    let destination_port = fields.next("destination port", parse_port)?;
    if fields.position <= fields.end {
        return Err(ProxyHeaderError::Line { expected: "CR", at: fields.position - 1 });
    }
    Ok(ProxyHeader::proxied(
        SocketAddr::new(source, source_port),
        SocketAddr::new(destination, destination_port),
    ))
}

/// The remaining fields of a line.
struct V1Fields<'a> {
    bytes: &'a [u8],
    /// The offset of the next field; greater than `end` after the last field.
    position: usize,
    end: usize,
}

impl V1Fields<'_> {
    fn next<T>(
        &mut self,
        expected: &'static str,
        parse: fn(&str) -> Option<T>,
    ) -> Result<T, ProxyHeaderError> {
        let at = self.position.min(self.end);
        let rest = &self.bytes[at..self.end];
        let len = rest.iter().position(|&byte| byte == b' ').unwrap_or(rest.len());
        self.position = at + len + 1;
        let field = str::from_utf8(&rest[..len]).ok().and_then(parse);
        field.ok_or(ProxyHeaderError::Line { expected, at })
    }
}

/// Parses four decimal numbers without leading zeros: the standard library is as strict as the
/// specification.
fn parse_ipv4(field: &str) -> Option<IpAddr> {
    field.parse::<Ipv4Addr>().ok().map(IpAddr::V4)
}

/// Parses hexadecimal groups, also with the last two in dotted form. The specification does not
/// allow the dotted form, but `inet_ntop(3)` writes it for mapped addresses, and so do senders that
/// use `inet_ntop`.
fn parse_ipv6(field: &str) -> Option<IpAddr> {
    field.parse::<Ipv6Addr>().ok().map(IpAddr::V6)
}

fn parse_port(field: &str) -> Option<u16> {
    // `u16::from_str` alone would accept a sign and leading zeros.
    match field.as_bytes() {
        [b'0', _, ..] => None,
        digits if digits.iter().all(u8::is_ascii_digit) => u16::from_str(field).ok(),
        _ => None,
    }
}

/// Appends the header as a line.
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

fn write_line<A: Display>(out: &mut Vec<u8>, protocol: &str, ips: (A, A), ports: (u16, u16)) {
    let (source, destination) = ips;
    let (source_port, destination_port) = ports;
    // Writing to a vector cannot fail.
    let _ =
        write!(out, "PROXY {protocol} {source} {destination} {source_port} {destination_port}\r\n");
}

/// Displays an address as hexadecimal groups, also where the standard library writes the dotted
/// form, which the specification does not allow.
struct Ipv6Groups(Ipv6Addr);

impl Display for Ipv6Groups {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.0.segments() {
            [0, 0, 0, 0, 0, 0xffff, high, low] => write!(f, "::ffff:{high:x}:{low:x}"),
            _ => self.0.fmt(f),
        }
    }
}
