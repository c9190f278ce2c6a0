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
