//! What the machine has: its settings are files, and the rest is asked of iproute2.

use std::fs;
use std::net::IpAddr;
use std::process::Command;

use super::error::RealServerError;

/// The bit of `CAP_NET_ADMIN` in a set of capabilities.
const CAP_NET_ADMIN: u64 = 1 << 12;

/// Runs `ip`, and returns what it prints.
pub(super) fn ip(arguments: &str) -> Result<String, RealServerError> {
    let command = || format!("ip {arguments}");
    let output = Command::new("ip")
        .args(arguments.split(' '))
        .output()
        .map_err(|source| RealServerError::Start { command: command(), source })?;
    if output.status.success() {
        return Ok(String::from_utf8_lossy(&output.stdout).into_owned());
    }
    let output = String::from_utf8_lossy(&output.stderr).trim().to_owned();
    Err(RealServerError::Ip { command: command(), output })
}

/// Refuses to go on without the capability that the changes need.
pub(super) fn check_privilege() -> Result<(), RealServerError> {
    let status = fs::read_to_string("/proc/self/status").unwrap_or_default();
    let effective = status.lines().find_map(|line| line.strip_prefix("CapEff:"));
    let effective = effective.and_then(|digits| u64::from_str_radix(digits.trim(), 16).ok());
    match effective.is_some_and(|capabilities| capabilities & CAP_NET_ADMIN != 0) {
        true => Ok(()),
        false => Err(RealServerError::Privilege),
    }
}

/// Refuses to go on without GUE in the kernel, which loads the module if it may.
pub(super) fn check_gue() -> Result<(), RealServerError> {
    ip("fou show").map(drop).map_err(|error| RealServerError::MissingGue(Box::new(error)))
}

/// Returns the names of the interfaces that have an address.
pub(super) fn address_owners(address: IpAddr) -> Result<Vec<String>, RealServerError> {
    let family = if address.is_ipv6() { "-6" } else { "-4" };
    // Such as `1: lo    inet 192.0.2.10/32 scope global lo`.
    let listed = ip(&format!("{family} -oneline address show to {address}"))?;
    Ok(listed
        .lines()
        .filter_map(|line| line.split_whitespace().nth(1))
        .map(str::to_owned)
        .collect())
}

/// Tells whether an interface is up; `None` if there is none of this name.
pub(super) fn is_link_up(interface: &str) -> Result<Option<bool>, RealServerError> {
    // All of them: for a name that there is not, the program fails as for any other reason. Such as
    // `2: tunl0@NONE: <NOARP,UP> mtu 1480 ...`.
    let listed = ip("-oneline link show")?;
    let links = listed.lines().filter_map(|line| {
        let mut words = line.split_whitespace();
        let name = words.nth(1)?.trim_end_matches(':');
        let flags = words.next()?.trim_matches(['<', '>']);
        (name.split('@').next() == Some(interface)).then_some(flags)
    });
    Ok(links.map(|flags| flags.split(',').any(|flag| flag == "UP")).next())
}

/// The mode of a tunnel over IPv6 that takes packets of either family out of others.
pub(super) const ANY_MODE: &str = "any";

/// Returns the mode of a tunnel over IPv6, as `ip` is told it.
pub(super) fn tunnel_mode(interface: &str) -> Result<&'static str, RealServerError> {
    // Such as `ip6tnl0: ipv6/ipv6 remote :: local :: ...`.
    let shown = ip(&format!("-6 tunnel show {interface}"))?;
    let families = shown.split_whitespace().nth(1).unwrap_or_default();
    Ok(match families.split('/').next() {
        Some("any") => ANY_MODE,
        Some("ip") => "ipip6",
        _ => "ip6ip6",
    })
}

fn setting_path(key: &str) -> String {
    format!("/proc/sys/{}", key.replace('.', "/"))
}

/// Reads a setting by its name for sysctl.
pub(super) fn read_setting(key: &str) -> Result<u8, RealServerError> {
    let parse = |text: String| text.trim().parse().map_err(std::io::Error::other);
    fs::read_to_string(setting_path(key))
        .and_then(parse)
        .map_err(|source| RealServerError::ReadSetting { key: key.to_owned(), source })
}

/// Changes a setting.
pub(super) fn write_setting(key: &str, value: u8) -> Result<(), RealServerError> {
    fs::write(setting_path(key), value.to_string())
        .map_err(|source| RealServerError::WriteSetting { key: key.to_owned(), value, source })
}
