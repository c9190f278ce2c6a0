//! The hash functions that place keys and members: they never change and are equal on every
//! machine.

use std::hash::Hasher;
use std::net::IpAddr;

use siphasher::sip::SipHasher13;

/// Hashes bytes (a name, a cookie, a path) to a key: SipHash-1-3 with `seed` as both halves of its
/// key.
///
/// A client that can choose its keys and knows the seed can direct all of its load to one backend.
/// Where that matters keep the seed secret, and equal on both directors of a pair.
///
/// # Examples
/// ```
/// use lvs::scheduler::hash_bytes;
///
/// assert_eq!(hash_bytes(b"session-1", 0), hash_bytes(b"session-1", 0));
/// assert_ne!(hash_bytes(b"session-1", 0), hash_bytes(b"session-1", 1));
/// ```
#[must_use]
pub fn hash_bytes(bytes: &[u8], seed: u64) -> u64 {
    let mut hasher = SipHasher13::new_with_keys(seed, seed);
    hasher.write(bytes);
    hasher.finish()
}

/// Spreads a 64-bit number over 64 bits, one to one (the finaliser of `splitmix64`).
pub(crate) const fn mix_bits(x: u64) -> u64 {
    let x = (x ^ (x >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
    let x = (x ^ (x >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
    x ^ (x >> 31)
}

/// Returns the key of an address without its port, so that all connections of a client have one
/// key.
pub(crate) fn hash_ip(ip: IpAddr) -> u64 {
    match ip {
        IpAddr::V4(ip) => mix_bits(u64::from(u32::from(ip))),
        IpAddr::V6(ip) => {
            let bits = u128::from(ip);
            mix_bits(mix_bits((bits >> 64) as u64) ^ bits as u64)
        }
    }
}

/// Maps a 64-bit hash to `0..n` without a division.
pub(crate) const fn scale_to_range(hash: u64, n: usize) -> usize {
    ((hash as u128 * n as u128) >> 64) as usize
}

/// Folds an address into 32 bits as the kernel does, in host order.
pub(crate) fn fold_ip(ip: IpAddr) -> u32 {
    match ip {
        IpAddr::V4(ip) => u32::from(ip),
        IpAddr::V6(ip) => {
            let bits = u128::from(ip);
            (bits >> 96) as u32 ^ (bits >> 64) as u32 ^ (bits >> 32) as u32 ^ bits as u32
        }
    }
}

/// Hashes 32 bits to `bits` bits by multiplication, as the kernel does.
pub(crate) const fn hash_32(x: u32, bits: u32) -> u32 {
    x.wrapping_mul(0x61c8_8647) >> (32 - bits)
}

/// Hashes a 32-bit word as the kernel's `hsiphash` does on a 64-bit machine: SipHash-1-3, low half.
///
/// Written for the only length that `mh` needs, it takes a quarter of the time of a general hasher.
#[inline]
pub(crate) const fn hsiphash(value: u32, key: u64) -> u32 {
    let last = (4 << 56) | value as u64;
    let mut v = [
        key ^ 0x736f_6d65_7073_6575,
        key ^ 0x646f_7261_6e64_6f6d,
        key ^ 0x6c79_6765_6e65_7261,
        key ^ 0x7465_6462_7974_6573 ^ last,
    ];
    v = sip_round(v);
    v[0] ^= last;
    v[2] ^= 0xff;
    v = sip_round(sip_round(sip_round(v)));
    (v[0] ^ v[1] ^ v[2] ^ v[3]) as u32
}

#[inline]
const fn sip_round([mut v0, mut v1, mut v2, mut v3]: [u64; 4]) -> [u64; 4] {
    v0 = v0.wrapping_add(v1);
    v2 = v2.wrapping_add(v3);
    v1 = v1.rotate_left(13) ^ v0;
    v3 = v3.rotate_left(16) ^ v2;
    v0 = v0.rotate_left(32).wrapping_add(v3);
    v2 = v2.wrapping_add(v1);
    v1 = v1.rotate_left(17) ^ v2;
    v3 = v3.rotate_left(21) ^ v0;
    [v0, v1, v2.rotate_left(32), v3]
}

#[cfg(all(test, not(lvs_loom)))]
mod tests {
    use super::*;

    fn ip(text: &str) -> IpAddr {
        text.parse().expect("an address")
    }

    #[test]
    fn kernel_hashes_match_the_published_vectors() {
        let key = 2_654_435_761;
        assert_eq!(hsiphash(fold_ip(ip("10.0.0.1")), key), 0x0308_0ce4);
        assert_eq!(hsiphash(fold_ip(ip("192.168.1.100")), key), 0xc15d_2cf8);
        assert_eq!(hsiphash(fold_ip(ip("192.168.1.100")) + 40_000, key), 0xc030_d6af);
        assert_eq!(hsiphash(fold_ip(ip("1.2.3.4")) + 65_535, key), 0x7edf_a076);
        assert_eq!(hash_32(fold_ip(ip("10.0.0.1")), 8), 39);
        assert_eq!(hash_32(fold_ip(ip("10.0.0.1")), 10), 159);
        assert_eq!(hash_32(fold_ip(ip("192.168.1.100")) + 40_000, 10), 1013);
    }

    #[test]
    fn the_short_siphash_is_siphash() {
        for i in 0..1000u64 {
            let (value, key) = (mix_bits(i) as u32, mix_bits(!i));
            let mut hasher = SipHasher13::new_with_keys(key, key);
            hasher.write(&value.to_le_bytes());
            assert_eq!(hsiphash(value, key), hasher.finish() as u32);
        }
    }

    #[test]
    fn an_ipv6_address_folds_by_xor_of_its_words() {
        assert_eq!(
            fold_ip(ip("1:2:3:4:5:6:7:8")),
            0x0001_0002 ^ 0x0003_0004 ^ 0x0005_0006 ^ 0x0007_0008
        );
    }

    #[test]
    fn scaling_covers_the_range_and_stays_in_it() {
        assert_eq!([0, u64::MAX / 2, u64::MAX].map(|h| scale_to_range(h, 10)), [0, 4, 9]);
        assert_eq!(scale_to_range(u64::MAX, 0), 0);
    }
}
