//! The kernel's schedulers.

use super::service::IpvsSchedulerFlags;
use crate::scheduler::{SchedulerArgument, SchedulerExpression};

/// The schedulers of Linux 6.12.
const KERNEL_SCHEDULERS: [&str; 14] =
    ["dh", "fo", "lblc", "lblcr", "lc", "mh", "nq", "ovf", "rr", "sed", "sh", "twos", "wlc", "wrr"];

/// Returns the kernel's scheduler of an expression, such as `"wlc"` or `"mh(mh-port)"`, and its flags.
///
/// # Errors
/// A text that says what the kernel does not have.
pub(crate) fn kernel_scheduler(
    expression: &str,
) -> Result<(&'static str, IpvsSchedulerFlags), String> {
    let expression: SchedulerExpression =
        expression.parse().map_err(|_| format!("the kernel has no scheduler {expression:?}"))?;
    let name = KERNEL_SCHEDULERS.into_iter().find(|name| *name == expression.name());
    let name = name.ok_or_else(|| {
        let known = KERNEL_SCHEDULERS.join(", ");
        format!("the kernel has no scheduler {:?}, its schedulers are {known}", expression.name())
    })?;
    let mut flags = IpvsSchedulerFlags::default();
    for argument in expression.arguments() {
        let flag = match argument {
            SchedulerArgument::Expression(flag) if flag.arguments().is_empty() => flag.name(),
            SchedulerArgument::Expression(_) | SchedulerArgument::Value { .. } => "",
        };
        match (name, flag) {
            ("sh", "sh-fallback") | ("mh", "mh-fallback") => flags.flag1 = true,
            ("sh", "sh-port") | ("mh", "mh-port") => flags.flag2 = true,
            _ => {
                return Err(format!("the kernel's scheduler {name} has no argument `{argument}`"));
            }
        }
    }
    Ok((name, flags))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn expressions_become_names_and_flags() {
        let flags =
            |text| kernel_scheduler(text).map(|(name, flags)| (name, flags.flag1, flags.flag2));
        assert_eq!(flags("wlc"), Ok(("wlc", false, false)));
        assert_eq!(flags("sh(sh-port)"), Ok(("sh", false, true)));
        assert_eq!(flags("mh(mh-port, mh-fallback)"), Ok(("mh", true, true)));
        for text in ["p2c", "priority(wlc)", "lc(overhead=total)", "rr(sh-port)", "wlc(", ""] {
            assert!(flags(text).is_err(), "{text:?}");
        }
    }
}
