//! The order in which ipvsadm lists services and servers.
//!
//! It compares by the sign of a 32-bit difference. That is no order where two values differ by 2³¹ or
//! more: 192.0.2.1 comes before 10.0.0.1, which comes before 100.0.0.1, which comes before 192.0.2.1. So
//! the result depends on the algorithm too, the merge sort of glibc, and the sort functions of Rust, which
//! may panic without an order, cannot be used.

use std::cmp::Ordering;
use std::net::{IpAddr, SocketAddr};

use lvs::ipvs::{IpvsFamily, IpvsServiceKey};

/// Sorts services.
pub(super) fn sort_services<T>(services: Vec<T>, key: impl Fn(&T) -> IpvsServiceKey) -> Vec<T> {
    merge_sort(services, &|one, other| compare_services(&key(one), &key(other)))
}

/// Sorts servers.
pub(super) fn sort_servers<T>(servers: Vec<T>, address: impl Fn(&T) -> SocketAddr) -> Vec<T> {
    merge_sort(servers, &|one, other| compare_addresses(address(one), address(other)))
}

/// Returns a number that is greater than 0 if the first service is the later one.
fn compare_services(one: &IpvsServiceKey, other: &IpvsServiceKey) -> i32 {
    let mark = |key: &IpvsServiceKey| match key {
        IpvsServiceKey::Mark { mark, .. } => mark.get(),
        _ => 0,
    };
    let family = |key: &IpvsServiceKey| i32::from(key.family() == IpvsFamily::V6);
    let differences = [difference(mark(one), mark(other)), family(one) - family(other)];
    let first = differences.into_iter().find(|difference| *difference != 0);
    first.unwrap_or_else(|| match (one, other) {
        (
            IpvsServiceKey::Address { protocol: protocol1, address: address1 },
            IpvsServiceKey::Address { protocol: protocol2, address: address2 },
        ) => match protocol1.cmp(protocol2) {
            Ordering::Equal => compare_addresses(*address1, *address2),
            ordering => ordering as i32,
        },
        _ => 0,
    })
}

/// Compares as the first one's family is compared.
fn compare_addresses(one: SocketAddr, other: SocketAddr) -> i32 {
    let count = if one.is_ipv6() { 4 } else { 1 };
    let (words1, words2) = (words(one.ip()), words(other.ip()));
    let mut differences =
        words1.into_iter().zip(words2).take(count).map(|(one, other)| difference(one, other));
    let address = differences.find(|difference| *difference != 0);
    address.unwrap_or_else(|| i32::from(one.port()) - i32::from(other.port()))
}

const fn difference(one: u32, other: u32) -> i32 {
    one.wrapping_sub(other).cast_signed()
}

fn words(ip: IpAddr) -> [u32; 4] {
    match ip {
        IpAddr::V4(ip) => [ip.to_bits(), 0, 0, 0],
        IpAddr::V6(ip) => {
            let bits = ip.to_bits();
            [96, 64, 32, 0].map(|shift| (bits >> shift) as u32)
        }
    }
}

fn merge_sort<T>(mut items: Vec<T>, compare: &impl Fn(&T, &T) -> i32) -> Vec<T> {
    if items.len() < 2 {
        return items;
    }
    let later = items.split_off(items.len() / 2);
    let mut first = merge_sort(items, compare).into_iter().peekable();
    let mut second = merge_sort(later, compare).into_iter().peekable();
    let mut sorted = Vec::with_capacity(first.len() + second.len());
    while let (Some(one), Some(other)) = (first.peek(), second.peek()) {
        let is_second = compare(one, other) > 0;
        sorted.extend(if is_second { second.next() } else { first.next() });
    }
    sorted.extend(first);
    sorted.extend(second);
    sorted
}

#[cfg(test)]
mod tests {
    use lvs::ipvs::IpvsProtocol;

    use super::*;

    fn sorted(addresses: &[&str]) -> Vec<String> {
        let addresses = addresses.iter().map(|text| text.parse().unwrap()).collect();
        sort_servers(addresses, |address| *address).iter().map(SocketAddr::to_string).collect()
    }

    #[test]
    fn addresses_and_ports_ascend_where_they_are_near() {
        let expected = ["10.0.0.1:80", "10.0.0.1:443", "10.0.0.2:80", "100.0.0.1:1"];
        assert_eq!(
            sorted(&["100.0.0.1:1", "10.0.0.1:443", "10.0.0.2:80", "10.0.0.1:80"]),
            expected
        );
        let expected = ["[2001:db8::1]:80", "[2001:db8::2]:80", "[2001:db8:1::]:80"];
        assert_eq!(
            sorted(&["[2001:db8:1::]:80", "[2001:db8::2]:80", "[2001:db8::1]:80"]),
            expected
        );
    }

    #[test]
    fn addresses_that_are_far_apart_are_sorted_as_by_ipvsadm() {
        // The difference is more than half of all addresses.
        assert_eq!(sorted(&["10.0.0.1:80", "192.0.2.1:80"]), ["192.0.2.1:80", "10.0.0.1:80"]);
        // In a circle: the result depends on what was first.
        assert_eq!(sorted(&["10.0.0.1:1", "100.0.0.1:1", "192.0.2.1:1"]).len(), 3);
    }

    #[test]
    fn services_go_by_mark_family_protocol_and_address() {
        let address = |protocol, text: &str| IpvsServiceKey::Address {
            protocol,
            address: text.parse().unwrap(),
        };
        let mark =
            |family, mark: u32| IpvsServiceKey::Mark { family, mark: mark.try_into().unwrap() };
        let expected = vec![
            address(IpvsProtocol::Tcp, "10.0.0.1:80"),
            address(IpvsProtocol::Tcp, "10.0.0.1:81"),
            address(IpvsProtocol::Udp, "10.0.0.1:53"),
            address(IpvsProtocol::Sctp, "10.0.0.1:53"),
            address(IpvsProtocol::Tcp, "[2001:db8::1]:80"),
            mark(IpvsFamily::V4, 1),
            mark(IpvsFamily::V6, 1),
            mark(IpvsFamily::V4, 2),
        ];
        let reversed = expected.iter().rev().copied().collect();
        assert_eq!(sort_services(reversed, |key| *key), expected);
    }
}
