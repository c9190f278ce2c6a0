//! The lines of a `virtual_server_group`: addresses, ranges and networks, with a port.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};

/// The number of addresses of a line.
const MAX_ADDRESSES: u128 = 4096;

/// Parses the words of an address with an optional port; 0 stands for every port. The end of a range and
/// the length of a network after the address are ignored, as in keepalived.
pub(super) fn parse_address(words: &[String]) -> Option<SocketAddr> {
    let (ip, port) = match words {
        [ip] => (ip, "0"),
        [ip, port, ..] => (ip, port.as_str()),
        [] => return None,
    };
    let ip = ip.split(['-', '/']).next()?;
    Some(SocketAddr::new(ip.parse::<IpAddr>().ok()?, port.parse().ok()?))
}

/// Parses a line such as `10.0.0.1 80`, `10.0.0.1-5 80`, `10.0.0.250-10.0.1.4 80` or `10.0.0.8/29 80`, or
/// such a line with IPv6 addresses.
///
/// # Errors
/// The reason why the line is not converted.
pub(super) fn parse_range(words: &[String]) -> Result<Vec<SocketAddr>, String> {
    let wrong = || "it is not an address, a range or a network with a port".to_owned();
    let first = words.first().ok_or_else(wrong)?;
    let port = words.get(1).map_or(Some(0), |port| port.parse().ok()).ok_or_else(wrong)?;
    let ends = if let Some((start, end)) = first.split_once('-') {
        let start: IpAddr = start.parse().map_err(|_| wrong())?;
        Some((start, range_end(start, end).ok_or_else(wrong)?))
    } else if let Some((start, length)) = first.split_once('/') {
        let start: IpAddr = start.parse().map_err(|_| wrong())?;
        Some((start, network_end(start, length.parse().map_err(|_| wrong())?).ok_or_else(wrong)?))
    } else {
        None
    };
    let Some((start, end)) = ends else {
        return parse_address(words).map(|address| vec![address]).ok_or_else(wrong);
    };
    let (start_bits, end_bits) = (bits(start), bits(end));
    if end_bits < start_bits {
        return Err("the range ends before it starts".to_owned());
    }
    if end_bits - start_bits >= MAX_ADDRESSES {
        return Err(format!("it has more than {MAX_ADDRESSES} addresses"));
    }
    let address = |bits: u128| match start {
        IpAddr::V4(_) => IpAddr::V4(Ipv4Addr::from_bits(bits as u32)),
        IpAddr::V6(_) => IpAddr::V6(Ipv6Addr::from_bits(bits)),
    };
    Ok((start_bits..=end_bits).map(|bits| SocketAddr::new(address(bits), port)).collect())
}

fn bits(ip: IpAddr) -> u128 {
    match ip {
        IpAddr::V4(ip) => u128::from(ip.to_bits()),
        IpAddr::V6(ip) => ip.to_bits(),
    }
}

/// Returns the end of a range: an address, or the last part of one, decimal for IPv4 and hexadecimal for
/// IPv6.
fn range_end(start: IpAddr, end: &str) -> Option<IpAddr> {
    if let Ok(end) = end.parse::<IpAddr>() {
        return (end.is_ipv6() == start.is_ipv6()).then_some(end);
    }
    Some(match start {
        IpAddr::V4(start) => {
            let [a, b, c, _] = start.octets();
            IpAddr::from([a, b, c, end.parse().ok()?])
        }
        IpAddr::V6(start) => {
            let mut segments = start.segments();
            segments[7] = u16::from_str_radix(end, 16).ok()?;
            IpAddr::from(segments)
        }
    })
}

/// Returns the last address of a network; `None` if the address has host bits, as in keepalived.
fn network_end(start: IpAddr, length: u32) -> Option<IpAddr> {
    let (width, first) = (if start.is_ipv4() { 32 } else { 128 }, bits(start));
    let host_bits = match width - length.clamp(1, width) {
        0 => 0,
        count => u128::MAX >> (128 - count),
    };
    if !(1..=width).contains(&length) || first & host_bits != 0 {
        return None;
    }
    Some(match start {
        IpAddr::V4(_) => Ipv4Addr::from_bits((first | host_bits) as u32).into(),
        IpAddr::V6(_) => Ipv6Addr::from_bits(first | host_bits).into(),
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ranges_and_networks_are_expanded() {
        let ends = |line: &str| {
            let words: Vec<_> = line.split(' ').map(str::to_owned).collect();
            let addresses = parse_range(&words)?;
            let (first, last) = (addresses[0], addresses[addresses.len() - 1]);
            Ok::<_, String>(format!("{} {first} {last}", addresses.len()))
        };
        let expect = |text: &str| Ok(text.to_owned());
        assert_eq!(ends("10.0.0.1 80"), expect("1 10.0.0.1:80 10.0.0.1:80"));
        assert_eq!(ends("10.0.0.1-5 80"), expect("5 10.0.0.1:80 10.0.0.5:80"));
        assert_eq!(ends("10.0.0.254-10.0.1.2 80"), expect("5 10.0.0.254:80 10.0.1.2:80"));
        assert_eq!(ends("10.0.0.8/30 80"), expect("4 10.0.0.8:80 10.0.0.11:80"));
        assert_eq!(ends("2001:db8::9-b 80"), expect("3 [2001:db8::9]:80 [2001:db8::b]:80"));
        assert_eq!(ends("2001:db8::4/126 80"), expect("4 [2001:db8::4]:80 [2001:db8::7]:80"));
        for wrong in ["10.0.0.9/30 80", "10.0.0.5-1 80", "10.0.0.0/8 80", "x 80", "10.0.0.1-::1 80"]
        {
            assert!(ends(wrong).is_err(), "{wrong}");
        }
    }
}
