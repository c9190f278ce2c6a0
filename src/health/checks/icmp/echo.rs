//! Encodes ICMP echo requests and compares replies: RFC 792 (page 14) and RFC 4443 (section 4).

/// The length of the random beginning of the payload in bytes: enough for every request to differ.
const NONCE_LEN: usize = 16;

/// The length of the payload in bytes, that of `ping`.
const PAYLOAD_LEN: usize = 56;

/// The length of type, code, checksum, identifier and sequence number in bytes.
const HEADER_LEN: usize = 8;

/// The length of the longest reply in bytes: an IPv4 header with all options, and an echo message.
pub(crate) const MAX_REPLY_LEN: usize = 60 + HEADER_LEN + PAYLOAD_LEN;

const ICMPV4_ECHO_REQUEST: u8 = 8;
const ICMPV4_ECHO_REPLY: u8 = 0;
const ICMPV6_ECHO_REQUEST: u8 = 128;
const ICMPV6_ECHO_REPLY: u8 = 129;

/// An echo request.
#[derive(Debug)]
pub(crate) struct IcmpEchoRequest {
    /// The identifier; `None` if the kernel chooses it and filters replies by it.
    identifier: Option<u16>,
    sequence: u16,
    payload: [u8; PAYLOAD_LEN],
}

impl IcmpEchoRequest {
    pub(crate) fn random(own_identifier: bool) -> Self {
        let mut payload = [0x6c; PAYLOAD_LEN];
        fastrand::fill(&mut payload[..NONCE_LEN]);
        let identifier = own_identifier.then(|| fastrand::u16(..));
        Self { identifier, sequence: fastrand::u16(..), payload }
    }

    /// Encodes the message without an IP header. The kernel fills in the checksum of ICMPv6, which
    /// covers the source address.
    pub(crate) fn encode(&self, v4: bool) -> [u8; HEADER_LEN + PAYLOAD_LEN] {
        let mut message = [0; HEADER_LEN + PAYLOAD_LEN];
        message[0] = if v4 { ICMPV4_ECHO_REQUEST } else { ICMPV6_ECHO_REQUEST };
        message[4..6].copy_from_slice(&self.identifier.unwrap_or(0).to_be_bytes());
        message[6..8].copy_from_slice(&self.sequence.to_be_bytes());
        message[HEADER_LEN..].copy_from_slice(&self.payload);
        if v4 {
            let sum = checksum(&message);
            message[2..4].copy_from_slice(&sum.to_be_bytes());
        }
        message
    }

    /// Returns whether a packet is the reply; raw sockets receive it with an IPv4 header in front.
    ///
    /// The caller's socket checks the source address, and the kernel the checksum of ICMPv6.
    pub(crate) fn is_answered_by(&self, packet: &[u8]) -> bool {
        let Some((message, has_no_header)) = strip_ip_header(packet) else { return false };
        let Some((header, payload)) = message.split_first_chunk::<HEADER_LEN>() else {
            return false;
        };
        let [kind, code, _, _, identifier @ .., s1, s0] = *header;
        let valid = match kind {
            ICMPV4_ECHO_REPLY => checksum(message) == 0,
            ICMPV6_ECHO_REPLY => has_no_header,
            _ => false,
        };
        valid
            && code == 0
            && self.identifier.is_none_or(|own| own.to_be_bytes() == identifier)
            && [s1, s0] == self.sequence.to_be_bytes()
            && payload == self.payload
    }
}

/// Returns the message, and whether it had no IPv4 header. No ICMP type in use equals the first
/// byte of an IPv4 header (0x45 to 0x4f).
fn strip_ip_header(packet: &[u8]) -> Option<(&[u8], bool)> {
    let first = *packet.first()?;
    if first >> 4 != 4 {
        return Some((packet, true));
    }
    let words = usize::from(first & 0x0f);
    // An IPv4 header has at least 5 words (RFC 791, section 3.1).
    let message = if words >= 5 { packet.get(words * 4..)? } else { return None };
    Some((message, false))
}

/// Returns the Internet checksum (RFC 1071); 0 of a message that has a valid checksum.
fn checksum(message: &[u8]) -> u16 {
    let pairs = message.chunks(2).map(|pair| match *pair {
        [high, low] => u32::from(u16::from_be_bytes([high, low])),
        [high] => u32::from(high) << 8,
        _ => 0,
    });
    // A message of at most 65,535 bytes cannot overflow the sum.
    let mut sum: u32 = pairs.sum();
    while sum > 0xffff {
        sum = (sum & 0xffff) + (sum >> 16);
    }
    !(sum as u16)
}

#[cfg(all(test, not(lvs_loom)))]
mod tests;
