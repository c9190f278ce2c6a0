//! The values of options.

use std::fmt;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};
use std::num::NonZeroU32;
use std::ops::RangeInclusive;
use std::str::FromStr;

use lvs::ipvs::{IpvsDaemonState, IpvsFamily, IpvsNetmask, IpvsProtocol, IpvsSchedulerFlags};

use super::error::IpvsArgumentError;
use super::names::{NameLookup, resolve};

/// The longest timeout in seconds: 31 days.
const MAX_TIMEOUT_SECS: u32 = 86_400 * 31;

/// Parses a number within a range.
pub(super) fn parse_number<T: FromStr + PartialOrd + fmt::Display>(
    option: &'static str,
    text: &str,
    range: RangeInclusive<T>,
) -> Result<T, IpvsArgumentError> {
    let number = text.parse().ok().filter(|number| range.contains(number));
    number.ok_or_else(|| {
        let allowed = format!("a number from {} to {}", range.start(), range.end());
        IpvsArgumentError::value(option, text, allowed)
    })
}

/// Parses a timeout in seconds.
pub(super) fn parse_timeout(
    option: &'static str,
    text: &str,
    min: u32,
) -> Result<u32, IpvsArgumentError> {
    parse_number(option, text, min..=MAX_TIMEOUT_SECS)
}

/// Parses the mark of a firewall.
pub(super) fn parse_mark(
    option: &'static str,
    text: &str,
) -> Result<NonZeroU32, IpvsArgumentError> {
    parse_number(option, text, NonZeroU32::MIN..=NonZeroU32::MAX)
}

/// Parses the state of a daemon.
pub(super) fn parse_state(
    option: &'static str,
    text: &str,
) -> Result<IpvsDaemonState, IpvsArgumentError> {
    match text {
        "master" => Ok(IpvsDaemonState::Master),
        "backup" => Ok(IpvsDaemonState::Backup),
        _ => Err(IpvsArgumentError::value(option, text, "master or backup")),
    }
}

/// Parses the address of a multicast group.
pub(super) fn parse_group(option: &'static str, text: &str) -> Result<IpAddr, IpvsArgumentError> {
    let group = text.parse().ok().filter(IpAddr::is_multicast);
    group.ok_or_else(|| IpvsArgumentError::value(option, text, "a multicast address"))
}

/// Parses `HOST[:PORT]`, where an address of IPv6 with a port is in brackets. Names are looked up, those of
/// hosts for IPv4 only.
pub(super) fn parse_address(
    option: &'static str,
    text: &str,
    protocol: Option<IpvsProtocol>,
    names: &NameLookup,
) -> Result<(IpAddr, Option<u16>), IpvsArgumentError> {
    let refused = |allowed| IpvsArgumentError::value(option, text, allowed);
    let parse_port = |port: &str| {
        let allowed = "an address with the number of a port, or the name of a known one";
        names.port(port, protocol).ok_or_else(|| refused(allowed))
    };
    if let Some(bracketed) = text.strip_prefix('[') {
        let split = bracketed.split_once("]:").and_then(|(ip, port)| {
            let ip: Ipv6Addr = ip.parse().ok()?;
            Some((ip, port))
        });
        let allowed = "an address of IPv6 with a port: [2001:db8::1]:80";
        let (ip, port) = split.ok_or_else(|| refused(allowed))?;
        return Ok((ip.into(), Some(parse_port(port)?)));
    }
    if let Ok(ip) = text.parse::<Ipv6Addr>() {
        return Ok((ip.into(), None));
    }
    let (host, port) = match text.rsplit_once(':') {
        Some((host, port)) => (host, Some(parse_port(port)?)),
        None => (text, None),
    };
    // A bare number is a forgotten host, although the system reads it as an address.
    let is_number = text.bytes().all(|octet| octet.is_ascii_digit());
    let ip = if is_number { None } else { parse_host(host) };
    let ip =
        ip.ok_or_else(|| refused("an address, or the name of a host with an address of IPv4"))?;
    Ok((ip.into(), port))
}

fn parse_host(host: &str) -> Option<Ipv4Addr> {
    host.parse().ok().or_else(|| resolve(host))
}

/// Parses the mask of persistence for a family of clients.
pub(super) fn parse_netmask(
    option: &'static str,
    text: &str,
    family: IpvsFamily,
) -> Result<IpvsNetmask, IpvsArgumentError> {
    if family == IpvsFamily::V6 {
        return parse_number(option, text, 1..=128).map(IpvsNetmask::V6);
    }
    let refused = || IpvsArgumentError::value(option, text, "a mask, such as 255.255.255.0");
    parse_host(text).map(IpvsNetmask::V4).ok_or_else(refused)
}

/// Parses flags of a scheduler, separated by commas.
pub(super) fn parse_scheduler_flags(
    option: &'static str,
    text: &str,
    scheduler: &str,
) -> Result<IpvsSchedulerFlags, IpvsArgumentError> {
    let mut flags = IpvsSchedulerFlags::default();
    for flag in text.split(',').filter(|flag| !flag.is_empty()) {
        let of_scheduler = match flag {
            "flag-1" | "flag-2" | "flag-3" => None,
            "sh-fallback" | "sh-port" => Some("sh"),
            "mh-fallback" | "mh-port" => Some("mh"),
            _ => {
                let allowed =
                    "sh-fallback, sh-port, mh-fallback, mh-port, flag-1, flag-2 or flag-3";
                return Err(IpvsArgumentError::value(option, flag, allowed));
            }
        };
        if of_scheduler.is_some_and(|name| name != scheduler) {
            let (flag, scheduler) = (flag.to_owned(), scheduler.to_owned());
            return Err(IpvsArgumentError::SchedulerFlag { flag, scheduler });
        }
        match flag {
            "flag-1" | "sh-fallback" | "mh-fallback" => flags.flag1 = true,
            "flag-3" => flags.flag3 = true,
            _ => flags.flag2 = true,
        }
    }
    Ok(flags)
}
