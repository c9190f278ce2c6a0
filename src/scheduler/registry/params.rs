//! What a scheduler is given in its expression, taken out piece by piece.

use std::fmt::Display;
use std::ops::{Bound, RangeBounds};
use std::str::FromStr;
use std::sync::Arc;
use std::time::Duration;

use crate::scheduler::{
    Scheduler, SchedulerArgument, SchedulerExpression, SchedulerRegistry, SchedulerRegistryError,
};

/// The arguments of one scheduler, for its factory in a [`SchedulerRegistry`].
///
/// Ask for flags and values first and for nested schedulers last: a bare word whose name was asked
/// for before is not taken for a scheduler. When the factory is done, whatever it has not asked for
/// is an error that names all that it did ask for.
///
/// # Examples
/// ```
/// use std::time::Duration;
/// use lvs::scheduler::{SchedulerRegistry, RoundRobin};
///
/// let mut registry = SchedulerRegistry::empty();
/// registry.register("mine", |params| {
///     let fast = params.take_flag("fast")?;
///     let decay = params.take_duration("decay", Duration::from_millis(1)..)?;
///     assert_eq!((fast, decay), (true, Some(Duration::from_secs(5))));
///     Ok(RoundRobin)
/// })?;
/// registry.parse("mine(decay=5s, fast)")?;
///
/// let error = registry.parse("mine(decay=5s, fast, tries=3)").unwrap_err();
/// assert_eq!(error.to_string(), "mine takes no parameter tries, only fast, decay");
/// # Ok::<(), lvs::scheduler::SchedulerRegistryError>(())
/// ```
#[derive(Debug)]
pub struct SchedulerParams<'a> {
    registry: &'a SchedulerRegistry,
    name: String,
    arguments: Vec<SchedulerArgument>,
    known_parameters: Vec<KnownParameter>,
}

/// Something that the scheduler takes.
#[derive(Debug)]
struct KnownParameter {
    name: &'static str,
    /// What its value can be; `None` for what has none.
    expected: Option<String>,
}

const SCHEDULER_PARAMETER: &str = "a scheduler";

impl<'a> SchedulerParams<'a> {
    pub(in crate::scheduler) fn new(
        registry: &'a SchedulerRegistry,
        name: String,
        arguments: Vec<SchedulerArgument>,
    ) -> Result<Self, SchedulerRegistryError> {
        let keys = || {
            arguments.iter().filter_map(|argument| match argument {
                SchedulerArgument::Value { key, .. } => Some(key),
                SchedulerArgument::Expression(_) => None,
            })
        };
        // At most a few hundred in 1024 bytes.
        let twice = keys().enumerate().find(|&(i, key)| keys().take(i).any(|other| other == key));
        if let Some((_, key)) = twice {
            return Err(SchedulerRegistryError::DuplicateParameter {
                scheduler: name,
                parameter: key.clone(),
            });
        }
        Ok(Self { registry, name, arguments, known_parameters: Vec::new() })
    }

    /// The name that the scheduler was asked for by.
    #[must_use]
    pub fn name(&self) -> &str {
        &self.name
    }

    /// Takes out a bare word; tells whether it was there.
    ///
    /// # Errors
    /// [`SchedulerRegistryError::DuplicateParameter`].
    pub fn take_flag(&mut self, name: &'static str) -> Result<bool, SchedulerRegistryError> {
        self.known_parameters.push(KnownParameter { name, expected: None });
        let before = self.arguments.len();
        self.arguments.retain(|argument| flag_name(argument) != Some(name));
        match before - self.arguments.len() {
            0 => Ok(false),
            1 => Ok(true),
            _ => Err(SchedulerRegistryError::DuplicateParameter {
                scheduler: self.name.clone(),
                parameter: name.into(),
            }),
        }
    }

    /// Takes out `key=value`; `expected` says in an error what the value can be ("an address").
    ///
    /// # Errors
    /// [`SchedulerRegistryError::InvalidValue`].
    pub fn take_value<V: FromStr>(
        &mut self,
        key: &'static str,
        expected: &str,
    ) -> Result<Option<V>, SchedulerRegistryError> {
        self.take_argument(key, expected.to_owned(), |text| text.parse().ok())
    }

    /// Takes out `key=value` and wants it in a range.
    ///
    /// # Errors
    /// [`SchedulerRegistryError::InvalidValue`].
    pub fn take_value_in<V: Display + FromStr + PartialOrd>(
        &mut self,
        key: &'static str,
        range: impl RangeBounds<V>,
    ) -> Result<Option<V>, SchedulerRegistryError> {
        self.take_argument(key, describe_range(&range, V::to_string), |text| {
            text.parse().ok().filter(|value| range.contains(value))
        })
    }

    /// Takes out `key=duration` and wants it in a range.
    ///
    /// A duration is a whole number with its unit: `100us`, `500ms`, `10s`, `5m`, `1h`.
    ///
    /// # Errors
    /// [`SchedulerRegistryError::InvalidValue`].
    pub fn take_duration(
        &mut self,
        key: &'static str,
        range: impl RangeBounds<Duration>,
    ) -> Result<Option<Duration>, SchedulerRegistryError> {
        let expected = format!(
            "a duration such as 500ms or 10s, {}",
            describe_range(&range, |d| format!("{d:?}"))
        );
        self.take_argument(key, expected, |text| {
            parse_duration(text).filter(|duration| range.contains(duration))
        })
    }

    /// Takes out the next nested scheduler.
    ///
    /// # Errors
    /// [`SchedulerRegistryError::MissingParameter`] if there is none (left), and whatever is wrong with it.
    pub fn take_scheduler(&mut self) -> Result<Arc<dyn Scheduler>, SchedulerRegistryError> {
        self.known_parameters.push(KnownParameter { name: SCHEDULER_PARAMETER, expected: None });
        let asked = |argument: &SchedulerArgument| {
            flag_name(argument)
                .is_some_and(|word| self.known_parameters.iter().any(|k| k.name == word))
        };
        let position = self
            .arguments
            .iter()
            .position(|it| matches!(it, SchedulerArgument::Expression(_)) && !asked(it));
        match position.map(|position| self.arguments.remove(position)) {
            Some(SchedulerArgument::Expression(expression)) => self.registry.build(expression),
            _ => Err(self.missing_parameter(SCHEDULER_PARAMETER)),
        }
    }

    /// The error for a parameter that cannot be left out.
    #[must_use]
    pub fn missing_parameter(&self, parameter: &str) -> SchedulerRegistryError {
        SchedulerRegistryError::MissingParameter {
            scheduler: self.name.clone(),
            parameter: parameter.to_owned(),
        }
    }

    /// The error for parameters that each are good but not together, or that a constructor refused.
    #[must_use]
    pub fn invalid_parameters(
        &self,
        source: impl Into<Box<dyn std::error::Error + Send + Sync>>,
    ) -> SchedulerRegistryError {
        SchedulerRegistryError::InvalidParameters {
            scheduler: self.name.clone(),
            source: source.into(),
        }
    }

    /// Complains about the first argument that nobody asked for.
    pub(in crate::scheduler) fn reject_remaining(self) -> Result<(), SchedulerRegistryError> {
        let Some(left) = self.arguments.into_iter().next() else { return Ok(()) };
        let (parameter, value) = match left {
            SchedulerArgument::Value { key, value } => (key, Some(value)),
            SchedulerArgument::Expression(expression) => (expression.to_string(), None),
        };
        let scheduler = self.name;
        // What is left of a known name was written in the wrong form.
        Err(match (self.known_parameters.iter().find(|known| known.name == parameter), value) {
            (Some(KnownParameter { expected: Some(expected), .. }), _) => {
                SchedulerRegistryError::InvalidValue {
                    scheduler,
                    parameter,
                    value: "without a value".to_owned(),
                    expected: expected.clone(),
                }
            }
            (Some(KnownParameter { expected: None, .. }), Some(value)) => {
                SchedulerRegistryError::InvalidValue {
                    scheduler,
                    parameter,
                    value,
                    expected: "given without a value".to_owned(),
                }
            }
            _ => SchedulerRegistryError::UnknownParameter {
                scheduler,
                parameter,
                known: self.known_parameters.iter().map(|known| known.name.to_owned()).collect(),
            },
        })
    }

    fn take_argument<V>(
        &mut self,
        wanted: &'static str,
        expected: String,
        read: impl FnOnce(&str) -> Option<V>,
    ) -> Result<Option<V>, SchedulerRegistryError> {
        let position = self
            .arguments
            .iter()
            .position(|it| matches!(it, SchedulerArgument::Value { key, .. } if key == wanted));
        self.known_parameters
            .push(KnownParameter { name: wanted, expected: Some(expected.clone()) });
        let Some(SchedulerArgument::Value { key, value }) =
            position.map(|i| self.arguments.remove(i))
        else {
            return Ok(None);
        };
        match read(&value) {
            Some(value) => Ok(Some(value)),
            None => {
                let scheduler = self.name.clone();
                Err(SchedulerRegistryError::InvalidValue {
                    scheduler,
                    parameter: key,
                    value,
                    expected,
                })
            }
        }
    }
}

fn flag_name(argument: &SchedulerArgument) -> Option<&str> {
    match argument {
        SchedulerArgument::Expression(it) if it.arguments().is_empty() => {
            Some(SchedulerExpression::name(it))
        }
        _ => None,
    }
}

/// Says in words what lies in a range.
fn describe_range<V>(range: &impl RangeBounds<V>, show: impl Fn(&V) -> String) -> String {
    let from = match range.start_bound() {
        Bound::Included(start) => Some(format!("from {}", show(start))),
        Bound::Excluded(start) => Some(format!("above {}", show(start))),
        Bound::Unbounded => None,
    };
    let to = match range.end_bound() {
        Bound::Included(end) => Some(format!("to {}", show(end))),
        Bound::Excluded(end) => Some(format!("below {}", show(end))),
        Bound::Unbounded => None,
    };
    match (from, to) {
        (Some(from), Some(to)) => format!("{from} {to}"),
        (Some(from), None) => format!("{from} on"),
        (None, Some(to)) => to,
        (None, None) => "any".to_owned(),
    }
}

fn parse_duration(text: &str) -> Option<Duration> {
    let unit = text.find(|c: char| !c.is_ascii_digit())?;
    let (number, unit) = text.split_at(unit);
    let number: u64 = number.parse().ok()?;
    match unit.trim_start() {
        "us" => Some(Duration::from_micros(number)),
        "ms" => Some(Duration::from_millis(number)),
        "s" => Some(Duration::from_secs(number)),
        "m" => number.checked_mul(60).map(Duration::from_secs),
        "h" => number.checked_mul(3600).map(Duration::from_secs),
        _ => None,
    }
}

#[cfg(all(test, not(lvs_loom)))]
mod tests {
    use super::*;
    use crate::scheduler::RoundRobin;

    /// What one factory says to one expression.
    fn built(text: &str) -> Result<(), String> {
        let mut registry = SchedulerRegistry::default();
        registry
            .register("all", |params| {
                params.take_flag("fast")?;
                let n = params.take_value_in("n", 1..=9_u8)?;
                params.take_value_in("x", 1.0..)?;
                params.take_value::<std::net::IpAddr>("ip", "an address")?;
                params.take_duration("t", Duration::from_millis(1)..=Duration::from_secs(60))?;
                params.take_scheduler()?;
                match n {
                    Some(9) => Err(params.invalid_parameters("nine is too many for me")),
                    _ => Ok(RoundRobin),
                }
            })
            .expect("a free name");
        registry.parse(text).map(drop).map_err(|error| error.to_string())
    }

    #[test]
    fn all_kinds_of_parameters_are_taken_out_in_any_order() {
        assert_eq!(built("all(rr)"), Ok(()));
        assert_eq!(built("all(t=1s, rr, ip=::1, n=8, x=1.5, fast)"), Ok(()));
        assert_eq!(built("all(fast, all(fast, priority(rr)))"), Ok(()));
    }

    #[test]
    fn a_bad_value_is_named_together_with_what_is_good() {
        let bad = |text: &str| built(text).expect_err(text);
        assert_eq!(bad("all(rr, n=10)"), "all: n cannot be 10, only from 1 to 9");
        assert_eq!(bad("all(rr, n=-1)"), "all: n cannot be -1, only from 1 to 9");
        assert_eq!(bad("all(rr, n=300)"), "all: n cannot be 300, only from 1 to 9");
        assert_eq!(bad("all(rr, x=NaN)"), "all: x cannot be NaN, only from 1 on");
        assert_eq!(bad("all(rr, ip=x)"), "all: ip cannot be x, only an address");
        assert_eq!(
            bad("all(rr, t=61s)"),
            "all: t cannot be 61s, only a duration such as 500ms or 10s, from 1ms to 60s"
        );
        assert_eq!(bad("all(rr, n=9)"), "all cannot be made so");
    }

    #[test]
    fn what_is_left_over_missing_or_given_twice_is_named() {
        let bad = |text: &str| built(text).expect_err(text);
        assert_eq!(
            bad("all(rr, m=1)"),
            "all takes no parameter m, only fast, n, x, ip, t, a scheduler"
        );
        assert_eq!(
            bad("all(rr, priority(rr))"),
            "all takes no parameter priority(rr), only fast, n, x, ip, t, a scheduler"
        );
        assert_eq!(bad("all(fast)"), "all needs a scheduler");
        assert_eq!(bad("all"), "all needs a scheduler");
        assert_eq!(bad("all(rr, n=1, n=1)"), "all is given n twice");
        assert_eq!(bad("all(fast, rr, fast)"), "all is given fast twice");
        assert_eq!(bad("rr(n=1)"), "rr takes no parameter n, only its bare name");
    }

    #[test]
    fn a_known_parameter_in_the_wrong_form_is_told_how_to_write_it() {
        let bad = |text: &str| built(text).expect_err(text);
        assert_eq!(bad("all(n, rr)"), "all: n cannot be without a value, only from 1 to 9");
        assert_eq!(bad("all(rr, fast=yes)"), "all: fast cannot be yes, only given without a value");
    }

    #[test]
    fn an_error_inside_a_nested_scheduler_names_that_one() {
        assert_eq!(
            built("all(priority(rr, panic=101))"),
            Err("priority: panic cannot be 101, only from 0 to 100".to_owned())
        );
    }

    #[test]
    fn durations_are_whole_numbers_with_a_unit() {
        assert_eq!(parse_duration("500ms"), Some(Duration::from_millis(500)));
        assert_eq!(parse_duration("100us"), Some(Duration::from_micros(100)));
        assert_eq!(parse_duration("5 m"), Some(Duration::from_secs(300)));
        assert_eq!(parse_duration("2h"), Some(Duration::from_secs(7200)));
        for bad in
            ["", "5", "s", "-5s", "1.5s", "5days", "99999999999999999999s", "18446744073709551615h"]
        {
            assert_eq!(parse_duration(bad), None, "{bad}");
        }
    }

    #[test]
    fn ranges_are_put_into_words() {
        assert_eq!(describe_range(&(..5), i32::to_string), "below 5");
        assert_eq!(describe_range(&(..=5), i32::to_string), "to 5");
        assert_eq!(describe_range(&(1..5), i32::to_string), "from 1 below 5");
        assert_eq!(describe_range(&(..), i32::to_string), "any");
    }
}
