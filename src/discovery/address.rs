//! Addresses as text, whose IPv6 scope may be the name of an interface.

use std::fs;
use std::net::SocketAddr;

/// Parses an address with a port. The scope of a link-local IPv6 address is a number, or the name of an
/// interface of this machine: `[fe80::1%eth0]:80`.
pub(crate) fn parse_socket_address(text: &str) -> Option<SocketAddr> {
    if let Ok(address) = text.parse() {
        return Some(address);
    }
    let (begin, rest) = text.split_once('%')?;
    let (interface, end) = rest.split_once(']')?;
    format!("{begin}%{}]{end}", interface_index(interface)?).parse().ok()
}

/// Returns the number of an interface.
fn interface_index(name: &str) -> Option<u32> {
    // A name of the system has none of these, and must not lead elsewhere.
    if name.is_empty() || name.starts_with('.') || name.contains(['/', '\0']) {
        return None;
    }
    fs::read_to_string(format!("/sys/class/net/{name}/ifindex")).ok()?.trim().parse().ok()
}

#[cfg(all(test, target_os = "linux", not(lvs_loom)))]
mod tests {
    use super::*;

    #[test]
    fn a_scope_is_a_number_or_the_name_of_an_interface() {
        let index = interface_index("lo").expect("every machine has one");
        let by_name = parse_socket_address("[fe80::1%lo]:80").expect("an address");
        assert_eq!(by_name, format!("[fe80::1%{index}]:80").parse().expect("an address"));
        assert_eq!(parse_socket_address("10.0.0.1:80"), "10.0.0.1:80".parse().ok());
        for wrong in ["[fe80::1%no-such]:80", "[fe80::1%]:80", "[fe80::1%../lo]:80", "a%lo]:80"] {
            assert_eq!(parse_socket_address(wrong), None, "{wrong}");
        }
    }
}
