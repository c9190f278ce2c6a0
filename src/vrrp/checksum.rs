//! The Internet checksum (RFC 1071) of an advertisement, in both variants that version 3 has.

use std::net::IpAddr;

/// The IP protocol number of VRRP, which is part of the pseudo-header.
pub(in crate::vrrp) const IPPROTO_VRRP: u8 = 112;

/// Which bytes the checksum of a version 3 message over IPv4 covers.
///
/// RFC 5798 is ambiguous, and implementations differ. Over IPv6 the checksum always covers the
/// pseudo-header and the message; in version 2, the message only.
#[derive(Clone, Copy, Debug, Default, Eq, Hash, PartialEq)]
pub enum ChecksumCoverage {
    /// The pseudo-header of IPv4 and the message: keepalived's default.
    #[default]
    WithPseudoHeader,
    /// The message only: RFC 9568, Cisco, Juniper, and keepalived's `v3_checksum_as_v2`.
    MessageOnly,
}

/// Computes the checksum of a message, with the pseudo-header of this source and destination if
/// there are any. The result is 0 for a message whose checksum field is right, and the value for the
/// field if the field is 0.
pub(super) fn internet_checksum(message: &[u8], pseudo_header: Option<(IpAddr, IpAddr)>) -> u16 {
    let mut sum = sum_words(message);
    if let Some((source, destination)) = pseudo_header {
        sum += sum_address(source) + sum_address(destination);
        // In both address families the rest of the pseudo-header is the length and the protocol.
        sum += message.len() as u64 + u64::from(IPPROTO_VRRP);
    }
    while sum > 0xffff {
        sum = (sum & 0xffff) + (sum >> 16);
    }
    !(sum as u16)
}

fn sum_address(address: IpAddr) -> u64 {
    match address {
        IpAddr::V4(address) => sum_words(&address.octets()),
        IpAddr::V6(address) => sum_words(&address.octets()),
    }
}

fn sum_words(bytes: &[u8]) -> u64 {
    let (pairs, last) = bytes.as_chunks::<2>();
    let last = last.first().map_or(0, |byte| u64::from(*byte) << 8);
    pairs.iter().map(|pair| u64::from(u16::from_be_bytes(*pair))).sum::<u64>() + last
}

#[cfg(test)]
mod tests {
    use super::*;

    /// RFC 1071, section 3.
    #[test]
    fn the_checksum_equals_the_rfcs_example() {
        let bytes = [0x00, 0x01, 0xf2, 0x03, 0xf4, 0xf5, 0xf6, 0xf7];
        assert_eq!(internet_checksum(&bytes, None), !0xddf2);
        assert_eq!(internet_checksum(&[1, 2, 3], None), !(0x0102 + 0x0300));
        assert_eq!(internet_checksum(&[], None), 0xffff);
    }
}
