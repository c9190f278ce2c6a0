//! The parameters of schedulers, declared once.
//!
//! Each rule declares its parameters beside its type, as a [`SchedulerInfo`] with one
//! [`SchedulerParameter`] each. The rule's setters, the [registry](super::SchedulerRegistry) and
//! the reference in `docs/schedulers.md` use that declaration, so that a value is accepted or
//! refused everywhere alike and with the same text.

use std::fmt;
use std::time::Duration;

use thiserror::Error;

/// A scheduler of this crate as a reference describes it.
#[derive(Clone, Copy, Debug)]
#[non_exhaustive]
pub struct SchedulerInfo {
    /// The name in configuration, metrics and logs: `wlc`.
    pub name: &'static str,
    /// The type in [`scheduler`](crate::scheduler): `WeightedLeastConnections`.
    pub type_name: &'static str,
    /// The group that the scheduler belongs to.
    pub family: SchedulerFamily,
    /// One sentence about the rule, without a full stop.
    pub summary: &'static str,
    /// The parameters, in the order in which a reference lists them.
    pub parameters: &'static [SchedulerParameter],
}

/// A group of schedulers.
#[derive(Clone, Copy, Debug, Eq, Ord, PartialEq, PartialOrd)]
#[non_exhaustive]
pub enum SchedulerFamily {
    /// The schedulers of Linux IPVS, which decide as the kernel does.
    Ipvs,
    /// Schedulers by weight, load or latency.
    Load,
    /// Consistent hash schedulers.
    Hash,
    /// Schedulers that wrap another scheduler.
    Wrapper,
}

/// A parameter of a scheduler.
#[derive(Clone, Copy, Debug)]
#[non_exhaustive]
pub struct SchedulerParameter {
    /// The name in an expression: `replicas`.
    pub name: &'static str,
    /// The values that the parameter accepts.
    pub kind: ParameterKind,
    /// The default as it is written in an expression; `None` for a parameter that is required.
    pub default: Option<&'static str>,
    /// One sentence about the parameter, without a full stop.
    pub summary: &'static str,
}

/// The values that a [`SchedulerParameter`] accepts.
#[derive(Clone, Copy, Debug, PartialEq)]
#[non_exhaustive]
pub enum ParameterKind {
    /// No value: the name alone switches something on.
    Flag,
    /// A whole number from `min` to `max`.
    Integer {
        /// The smallest value.
        min: u64,
        /// The largest value; `u64::MAX` means no limit.
        max: u64,
    },
    /// A prime number from `min` to `max`.
    Prime {
        /// The smallest value.
        min: u64,
        /// The largest value.
        max: u64,
    },
    /// A decimal number from `min` to `max`.
    Decimal {
        /// The smallest value.
        min: f64,
        /// The largest value.
        max: f64,
    },
    /// A duration from `min` to `max`: a whole number with the unit `us`, `ms`, `s`, `m` or `h`.
    Duration {
        /// The shortest duration.
        min: Duration,
        /// The longest duration; `Duration::MAX` means no limit.
        max: Duration,
    },
    /// The name of a [zone](crate::backend::Zone).
    Zone,
    /// One of several words.
    Choice(&'static [&'static str]),
    /// A nested scheduler, written without a key.
    Scheduler,
}

/// A value that a parameter of a scheduler does not accept.
///
/// Setters and the [registry](super::SchedulerRegistry) return the same error for the same value.
#[derive(Clone, Debug, Eq, Error, PartialEq)]
#[error("{scheduler}: {parameter}={value} is not {expected}")]
#[non_exhaustive]
pub struct SchedulerParameterError {
    /// The name of the scheduler.
    pub scheduler: String,
    /// The name of the parameter.
    pub parameter: String,
    /// The value, as written.
    pub value: String,
    /// The values that the parameter accepts: `a whole number from 1 to 65536`.
    pub expected: String,
}

/// The nested scheduler of a wrapper.
pub(in crate::scheduler) const NESTED_SCHEDULER: SchedulerParameter = SchedulerParameter::new(
    "a scheduler",
    ParameterKind::Scheduler,
    None,
    "The scheduler that selects among the servers",
);

impl SchedulerParameter {
    pub(in crate::scheduler) const fn new(
        name: &'static str,
        kind: ParameterKind,
        default: Option<&'static str>,
        summary: &'static str,
    ) -> Self {
        Self { name, kind, default, summary }
    }

    /// Returns `value` if the parameter accepts it.
    ///
    /// # Errors
    /// [`SchedulerParameterError`], with `scheduler` as the scheduler's name.
    pub(in crate::scheduler) fn check_integer<N: Copy + fmt::Display + TryInto<u64>>(
        &self,
        scheduler: &str,
        value: N,
    ) -> Result<N, SchedulerParameterError> {
        let is_accepted = value.try_into().is_ok_and(|value: u64| match self.kind {
            ParameterKind::Integer { min, max } => (min..=max).contains(&value),
            ParameterKind::Prime { min, max } => (min..=max).contains(&value) && is_prime(value),
            _ => false,
        });
        if is_accepted { Ok(value) } else { Err(self.error(scheduler, value.to_string())) }
    }

    /// As [`Self::check_integer`], for a decimal number; NaN is refused.
    pub(in crate::scheduler) fn check_decimal(
        &self,
        scheduler: &str,
        value: f64,
    ) -> Result<f64, SchedulerParameterError> {
        match self.kind {
            ParameterKind::Decimal { min, max } if (min..=max).contains(&value) => Ok(value),
            _ => Err(self.error(scheduler, value.to_string())),
        }
    }

    /// As [`Self::check_integer`], for a duration.
    pub(in crate::scheduler) fn check_duration(
        &self,
        scheduler: &str,
        value: Duration,
    ) -> Result<Duration, SchedulerParameterError> {
        match self.kind {
            ParameterKind::Duration { min, max } if (min..=max).contains(&value) => Ok(value),
            _ => Err(self.error(scheduler, format!("{value:?}"))),
        }
    }

    pub(in crate::scheduler) fn error(
        &self,
        scheduler: &str,
        value: String,
    ) -> SchedulerParameterError {
        SchedulerParameterError {
            scheduler: scheduler.to_owned(),
            parameter: self.name.to_owned(),
            value,
            expected: self.kind.to_string(),
        }
    }
}

impl fmt::Display for SchedulerFamily {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Ipvs => "Linux IPVS",
            Self::Load => "Weight, load and latency",
            Self::Hash => "Consistent hashing",
            Self::Wrapper => "Wrappers",
        })
    }
}

impl fmt::Display for ParameterKind {
    /// Describes the accepted values so that they follow "is not": `a whole number from 1 to 65536`.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match *self {
            Self::Flag => f.write_str("a flag without a value"),
            Self::Integer { min, max: u64::MAX } => write!(f, "a whole number of at least {min}"),
            Self::Integer { min, max } => write!(f, "a whole number from {min} to {max}"),
            Self::Prime { min, max } => write!(f, "a prime number from {min} to {max}"),
            Self::Decimal { min, max } => write!(f, "a number from {min} to {max}"),
            Self::Duration { min: Duration::ZERO, max: Duration::MAX } => f.write_str("a duration"),
            Self::Duration { min, max: Duration::MAX } => {
                write!(f, "a duration of at least {min:?}")
            }
            Self::Duration { min, max } => write!(f, "a duration from {min:?} to {max:?}"),
            Self::Zone => f.write_str(
                "the name of a zone: 1 to 64 ASCII letters, digits, `.`, `_`, `-` and `/`",
            ),
            Self::Choice(words) => f.write_str(&words.join(" or ")),
            Self::Scheduler => f.write_str("a scheduler"),
        }
    }
}

fn is_prime(n: u64) -> bool {
    n >= 2 && (2..).take_while(|d| d * d <= n).all(|d| !n.is_multiple_of(d))
}

#[cfg(all(test, not(lvs_loom)))]
mod tests {
    use super::*;

    fn parameter(kind: ParameterKind) -> SchedulerParameter {
        SchedulerParameter::new("n", kind, None, "A number")
    }

    #[test]
    fn an_error_names_scheduler_parameter_value_and_range() {
        let number = parameter(ParameterKind::Integer { min: 1, max: 9 });
        assert_eq!(number.check_integer("ring", 9_u32), Ok(9));
        let error = number.check_integer("ring", 10_u32).expect_err("above the range");
        assert_eq!(error.to_string(), "ring: n=10 is not a whole number from 1 to 9");
        let quantile = parameter(ParameterKind::Decimal { min: 0.0, max: 1.0 });
        let error = quantile.check_decimal("hot_cold", f64::NAN).expect_err("NaN");
        assert_eq!(error.to_string(), "hot_cold: n=NaN is not a number from 0 to 1");
        let decay = ParameterKind::Duration { min: Duration::from_millis(1), max: Duration::MAX };
        let error = parameter(decay).check_duration("peak_ewma", Duration::ZERO);
        let error = error.expect_err("below the range");
        assert_eq!(error.to_string(), "peak_ewma: n=0ns is not a duration of at least 1ms");
    }

    #[test]
    fn a_prime_parameter_refuses_other_numbers() {
        let size = parameter(ParameterKind::Prime { min: 2, max: 100 });
        let accepted: Vec<u64> = (0..20).filter(|&n| size.check_integer("x", n).is_ok()).collect();
        assert_eq!(accepted, [2, 3, 5, 7, 11, 13, 17, 19]);
        assert!(size.check_integer("x", 101_u64).is_err());
    }
}
