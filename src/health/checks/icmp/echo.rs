//! ICMP echo messages: RFC 792 (page 14) and RFC 4443 (section 4).

/// Bytes of random numbers at the payload's beginning: enough that no two requests are alike.
const NONCE_LEN: usize = 16;

/// Bytes of payload, as many as `ping` sends.
const PAYLOAD_LEN: usize = 56;

/// Type, code, checksum, identifier, sequence number.
const HEADER_LEN: usize = 8;

/// The longest packet that can be an answer: an IPv4 header with all options, and an echo.
pub(crate) const MAX_REPLY_LEN: usize = 60 + HEADER_LEN + PAYLOAD_LEN;

const ICMPV4_ECHO_REQUEST: u8 = 8;
const ICMPV4_ECHO_REPLY: u8 = 0;
const ICMPV6_ECHO_REQUEST: u8 = 128;
const ICMPV6_ECHO_REPLY: u8 = 129;

/// One request for an echo.
#[derive(Debug)]
pub(crate) struct IcmpEchoRequest {
    /// `None` where the kernel chooses it, and knows by it whose an answer is.
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

    /// The message without IP header. That of ICMPv6 has no checksum, which the kernel fills in: it
    /// takes the source address.
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

    /// Tells whether a packet is the answer; an IPv4 header, which raw sockets show, may come first.
    ///
    /// Which address it is from the caller's socket has seen to, and the kernel to the checksum of
    /// ICMPv6.
    pub(crate) fn is_answered_by(&self, packet: &[u8]) -> bool {
        let Some((message, bare)) = strip_ip_header(packet) else { return false };
        let Some((header, payload)) = message.split_first_chunk::<HEADER_LEN>() else {
            return false;
        };
        let [kind, code, _, _, identifier @ .., s1, s0] = *header;
        let valid = match kind {
            ICMPV4_ECHO_REPLY => checksum(message) == 0,
            ICMPV6_ECHO_REPLY => bare,
            _ => false,
        };
        valid
            && code == 0
            && self.identifier.is_none_or(|own| own.to_be_bytes() == identifier)
            && [s1, s0] == self.sequence.to_be_bytes()
            && payload == self.payload
    }
}

/// The message, and whether it came without an IP header. No ICMP type in use looks like the first
/// byte of one (0x45 to 0x4f).
fn strip_ip_header(packet: &[u8]) -> Option<(&[u8], bool)> {
    let first = *packet.first()?;
    if first >> 4 != 4 {
        return Some((packet, true));
    }
    let words = usize::from(first & 0x0f);
    // Less is no IPv4 header (RFC 791, section 3.1).
    let message = if words >= 5 { packet.get(words * 4..)? } else { return None };
    Some((message, false))
}

/// The Internet checksum (RFC 1071); 0 over a message that has the right one.
fn checksum(message: &[u8]) -> u16 {
    let pairs = message.chunks(2).map(|pair| match *pair {
        [high, low] => u32::from(u16::from_be_bytes([high, low])),
        [high] => u32::from(high) << 8,
        _ => 0,
    });
    // At most 65,535 bytes, so it cannot overflow.
    let mut sum: u32 = pairs.sum();
    while sum > 0xffff {
        sum = (sum & 0xffff) + (sum >> 16);
    }
    !(sum as u16)
}

#[cfg(all(test, not(lvs_loom)))]
mod tests;
