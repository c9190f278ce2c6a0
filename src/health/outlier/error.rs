//! Errors of an ejection policy, and the range checks that make them.

use std::fmt::Display;
use std::time::Duration;

use thiserror::Error;

/// The longest duration that a policy accepts: one day.
const MAX_EJECTION_SETTING: Duration = Duration::from_secs(86_400);

/// Why [`EjectionPolicyBuilder::build`](crate::health::EjectionPolicyBuilder::build) refused the settings.
#[derive(Clone, Debug, Eq, Error, PartialEq)]
#[non_exhaustive]
pub enum EjectionPolicyError {
    /// A parameter is outside its allowed range.
    #[error("{parameter} is {value}, must be from {min} to {max}")]
    OutOfRange {
        /// The setter of the parameter, prefixed with the setter of its detector if it belongs to
        /// one: `success_rate.margin`.
        parameter: &'static str,
        /// The refused value.
        value: String,
        /// The smallest allowed value.
        min: String,
        /// The largest allowed value.
        max: String,
    },
}

/// Checks that a value is within a range. Refuses NaN.
pub(super) fn check_range<T>(
    parameter: &'static str,
    value: T,
    min: T,
    max: T,
) -> Result<(), EjectionPolicyError>
where
    T: Display + PartialOrd,
{
    if value >= min && value <= max {
        return Ok(());
    }
    let [value, min, max] = [value, min, max].map(|number| number.to_string());
    Err(EjectionPolicyError::OutOfRange { parameter, value, min, max })
}

/// Checks that a count, if it is set, is not 0.
pub(super) fn check_at_least_one(
    parameter: &'static str,
    value: Option<u32>,
) -> Result<(), EjectionPolicyError> {
    value.map_or(Ok(()), |value| check_range(parameter, value, 1, u32::MAX))
}

/// Checks that a duration is at least `min` and at most one day.
pub(super) fn check_time(
    parameter: &'static str,
    value: Duration,
    min: Duration,
) -> Result<(), EjectionPolicyError> {
    if value >= min && value <= MAX_EJECTION_SETTING {
        return Ok(());
    }
    let [value, min, max] = [value, min, MAX_EJECTION_SETTING].map(|time| format!("{time:?}"));
    Err(EjectionPolicyError::OutOfRange { parameter, value, min, max })
}
