//! The error of a setting that is out of its range, and the check that makes it.
//!
//! A builder, the director's configuration and the API call the same check, so they refuse the same
//! values in the same words.

use std::fmt::Debug;
use std::ops::{Bound, RangeBounds};

use thiserror::Error;

/// A value that a setting does not accept.
///
/// A builder that ends in a fallible step, such as [`EjectionPolicyBuilder::build`] or
/// [`Forwarder::run`], stores what its setters are given and returns this error from that step. A setter
/// of a type without such a step returns it itself. Nothing is replaced by the nearest allowed value.
///
/// [`EjectionPolicyBuilder::build`]: crate::health::EjectionPolicyBuilder::build
/// [`Forwarder::run`]: crate::forward::Forwarder::run
///
/// # Examples
/// ```
/// use std::time::Duration;
/// use lvs::SlowStart;
///
/// let refused = SlowStart::new(Duration::from_secs(30)).with_min_percent(0).unwrap_err();
/// assert_eq!(refused.to_string(), "min_percent is 0, must be from 1 to 100");
/// assert_eq!((refused.setting, &*refused.value), ("min_percent", "0"));
/// ```
#[derive(Clone, Debug, Eq, Error, PartialEq)]
#[error("{setting} is {value}, must be {allowed}")]
#[non_exhaustive]
pub struct SettingError {
    /// The name of the setter. It is prefixed with the setter of the value that it belongs to, if there
    /// is one (`success_rate.margin`), and followed by the name of the argument if the setter has
    /// several (`client_prefixes.ipv4`).
    pub setting: &'static str,
    /// The refused value.
    pub value: String,
    /// The values that the setting accepts, such as `from 1 to 100` or `at least 1s`.
    pub allowed: String,
}

impl SettingError {
    /// Makes an error for values that no range describes.
    pub(crate) fn new(
        setting: &'static str,
        value: impl Debug,
        allowed: impl Into<String>,
    ) -> Self {
        Self { setting, value: format!("{value:?}"), allowed: allowed.into() }
    }
}

/// Returns `value` if it is within a range; NaN is within none.
pub(crate) fn check_range<T: Debug + PartialOrd>(
    setting: &'static str,
    value: T,
    range: impl RangeBounds<T>,
) -> Result<T, SettingError> {
    if range.contains(&value) {
        return Ok(value);
    }
    let allowed = match (range.start_bound(), range.end_bound()) {
        (Bound::Included(min), Bound::Included(max)) => format!("from {min:?} to {max:?}"),
        (start, end) => {
            let start = match start {
                Bound::Included(min) => Some(format!("at least {min:?}")),
                Bound::Excluded(min) => Some(format!("above {min:?}")),
                Bound::Unbounded => None,
            };
            let end = match end {
                Bound::Included(max) => Some(format!("at most {max:?}")),
                Bound::Excluded(max) => Some(format!("below {max:?}")),
                Bound::Unbounded => None,
            };
            start.into_iter().chain(end).collect::<Vec<_>>().join(" and ")
        }
    };
    Err(SettingError::new(setting, value, allowed))
}

#[cfg(all(test, not(lvs_loom)))]
mod tests {
    use std::time::Duration;

    use super::*;

    fn text<T: Debug + PartialOrd>(value: T, range: impl RangeBounds<T>) -> String {
        check_range("x", value, range).expect_err("out of range").to_string()
    }

    #[test]
    fn a_value_out_of_range_is_named_with_the_range() {
        assert_eq!(check_range("x", 5, 1..=5), Ok(5));
        assert_eq!(text(0, 1..=5), "x is 0, must be from 1 to 5");
        assert_eq!(text(0, 1..), "x is 0, must be at least 1");
        assert_eq!(text(6, ..=5), "x is 6, must be at most 5");
        assert_eq!(text(f64::NAN, 0.5..=1.0), "x is NaN, must be from 0.5 to 1.0");
        let positive = (Bound::Excluded(0.0), Bound::Excluded(f64::INFINITY));
        assert_eq!(text(0.0, positive), "x is 0.0, must be above 0.0 and below inf");
        let second = Duration::from_secs(1);
        assert_eq!(text(second, second * 2..), "x is 1s, must be at least 2s");
        assert_eq!(text(second / 2, second..=60 * second), "x is 500ms, must be from 1s to 60s");
    }
}
