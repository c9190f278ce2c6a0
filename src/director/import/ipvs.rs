//! Values of IPVS that keepalived and ipvsadm share.

/// Returns a scheduler with the kernel's flags that belong to it, such as `sh(sh-port)`.
pub(super) fn scheduler_text(scheduler: &str, flags: &[&str]) -> String {
    let known: Vec<_> = flags.iter().copied().filter(|flag| flag.starts_with(scheduler)).collect();
    if known.is_empty() {
        scheduler.to_owned()
    } else {
        format!("{scheduler}({})", known.join(", "))
    }
}

/// Returns why a service by firewall mark is refused.
pub(super) fn mark_refusal(mark: &str) -> String {
    format!(
        "the service by firewall mark {mark} cannot be converted: no engine of this program forwards by \
         mark; remove the service from the file, and name its addresses and ports in its place"
    )
}

/// Returns the difference of every service: IPVS leaves the client's address in the packets.
pub(super) fn client_address_difference(protocol: &str) -> &'static str {
    match protocol {
        "udp" => "the servers see the director's address in place of the client's",
        _ => {
            "the servers see the director's address in place of the client's, unless \
             `tcp = { source = \"client\" }`"
        }
    }
}

/// Returns why a service of every port is left out.
pub(super) fn every_port_warning(ip: std::net::IpAddr) -> String {
    format!(
        "the service of every port of {ip} (port 0) is left out: a service listens on the ports that \
         it names; write a service for each port"
    )
}

/// Returns the port of a service's name in `/etc/services`, or of a number.
pub(super) fn service_port(name: &str, protocol: &str) -> Option<u16> {
    if let Ok(port) = name.parse() {
        return Some(port);
    }
    let text = std::fs::read_to_string("/etc/services").ok()?;
    text.lines().find_map(|line| {
        let mut words = line.split('#').next()?.split_whitespace();
        let (official, number) = (words.next()?, words.next()?);
        let (port, line_protocol) = number.split_once('/')?;
        let is_known = official == name || words.any(|alias| alias == name);
        if is_known && line_protocol == protocol { port.parse().ok() } else { None }
    })
}

/// Returns the prefix length of a mask such as `255.255.255.0` or `64`.
pub(super) fn netmask_bits(mask: &str) -> Option<u32> {
    match mask.parse::<std::net::Ipv4Addr>() {
        Ok(mask) => {
            let bits = u32::from(mask).leading_ones();
            (u32::from(mask).count_ones() == bits).then_some(bits)
        }
        Err(_) => mask.parse().ok().filter(|bits| *bits <= 128),
    }
}
