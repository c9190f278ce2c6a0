//! The Internet checksum (RFC 1071) over an advertisement, in the two readings there are of version 3.

use std::net::IpAddr;

use super::advert::IPPROTO_VRRP;

/// What the checksum of a version 3 message over IPv4 covers. RFC 5798 could be read either way, and
/// was; over IPv6 it is always the pseudo-header and the message, in version 2 the message alone.
#[derive(Clone, Copy, Debug, Default, Eq, Hash, PartialEq)]
pub enum ChecksumCoverage {
    /// The pseudo-header of IPv4 and the message: what keepalived does unless told otherwise.
    #[default]
    WithPseudoHeader,
    /// The message alone: RFC 9568, Cisco, Juniper, and keepalived's `v3_checksum_as_v2`.
    MessageOnly,
}

/// The sum that makes one whose checksum is 0 right, or that is 0 for one that is right.
pub(super) fn internet_checksum(message: &[u8], pseudo: Option<(IpAddr, IpAddr)>) -> u16 {
    let mut sum = sum_words(message);
    if let Some((source, destination)) = pseudo {
        sum += sum_address(source) + sum_address(destination);
        // Both kinds of pseudo-header add up to the length and the protocol.
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
    let (pairs, odd) = bytes.as_chunks::<2>();
    let odd = odd.first().map_or(0, |last| u64::from(*last) << 8);
    pairs.iter().map(|pair| u64::from(u16::from_be_bytes(*pair))).sum::<u64>() + odd
}

#[cfg(test)]
mod tests {
    use super::*;

    /// RFC 1071, section 3.
    #[test]
    fn the_sum_of_the_rfc() {
        let bytes = [0x00, 0x01, 0xf2, 0x03, 0xf4, 0xf5, 0xf6, 0xf7];
        assert_eq!(internet_checksum(&bytes, None), !0xddf2);
        assert_eq!(internet_checksum(&[1, 2, 3], None), !(0x0102 + 0x0300));
        assert_eq!(internet_checksum(&[], None), 0xffff);
    }
}
