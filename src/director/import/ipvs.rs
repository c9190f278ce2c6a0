//! What the configurations of keepalived and ipvsadm have in common: IPVS.

/// A rule with the kernel's flags.
pub(super) fn scheduler_text(scheduler: &str, flags: &[&str]) -> String {
    let known: Vec<_> = flags.iter().copied().filter(|it| it.starts_with(scheduler)).collect();
    if known.is_empty() {
        scheduler.to_owned()
    } else {
        format!("{scheduler}({})", known.join(", "))
    }
}

/// The bits of a mask: of `255.255.255.0` or of `64`.
pub(super) fn netmask_bits(mask: &str) -> Option<u32> {
    match mask.parse::<std::net::Ipv4Addr>() {
        Ok(mask) => {
            let bits = u32::from(mask).leading_ones();
            (u32::from(mask).count_ones() == bits).then_some(bits)
        }
        Err(_) => mask.parse().ok().filter(|bits| *bits <= 128),
    }
}
