//! What this machine's kernel needs so that it accepts the answers to checks of virtual addresses.
//!
//! A server answers such a check from the virtual address, and the active director has this address itself.
//! The kernel takes IPv4 packets from an address of its own for forged, unless it is told otherwise; to IPv6 it
//! does not object.

use std::collections::BTreeMap;
use std::fs;
use std::net::IpAddr;

use super::config::ServiceConfig;
use super::error::ServiceError;
use crate::vrrp::RouteLookup;

/// Refuses a service whose checks of the virtual addresses would fail for ever, on a standby before it takes
/// over. `virtual_interfaces` are those of addresses that this machine may not have yet.
///
/// A server to which there is no route yet is not looked at.
pub(super) fn require_check_answers(
    config: &ServiceConfig,
    virtual_interfaces: &BTreeMap<IpAddr, String>,
) -> Result<(), ServiceError> {
    for server in config.servers_checked_at_virtual_address() {
        for address in config.virtual_addresses() {
            let virtual_address = address.ip();
            if let Some((setting, value)) = missing_setting(
                virtual_address,
                server.ip(),
                virtual_interfaces.get(&virtual_address),
            ) {
                return Err(ServiceError::CheckAnswers { server, virtual_address, setting, value });
            }
        }
    }
    Ok(())
}

/// Returns the name of a setting that has another value than answers need, and the value.
fn missing_setting(
    virtual_address: IpAddr,
    server: IpAddr,
    configured: Option<&String>,
) -> Option<(String, u8)> {
    if virtual_address.is_ipv6() {
        return None;
    }
    let mut routes = RouteLookup::open().ok()?;
    let arrival = routes.interface_toward(server).ok()?;
    // Answers of a server on this very machine are not looked at by the kernel.
    if arrival == "lo" {
        return None;
    }
    let setting = |name: &str| {
        // Such as `eth0.5`, whose point separates nothing.
        format!("net.ipv4.conf.{}.{name}", arrival.replace('.', "/"))
    };
    if read(&arrival, "accept_local").max(read("all", "accept_local")) == 0 {
        return Some((setting("accept_local"), 1));
    }
    let present = routes.interface_of(virtual_address).ok().flatten();
    let owner = present.as_ref().or(configured);
    let is_elsewhere = owner.is_some_and(|owner| *owner != arrival);
    let is_strict = read(&arrival, "rp_filter").max(read("all", "rp_filter")) == 1;
    (is_elsewhere && is_strict).then(|| (setting("rp_filter"), 2))
}

/// Reads a setting of an interface; 0 if the kernel does not have it.
fn read(interface: &str, name: &str) -> u8 {
    let text = fs::read_to_string(format!("/proc/sys/net/ipv4/conf/{interface}/{name}"));
    text.ok().and_then(|text| text.trim().parse().ok()).unwrap_or_default()
}
