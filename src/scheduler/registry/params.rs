//! The arguments of a scheduler in an expression, as its factory takes them.

use std::fmt::{self, Display};
use std::ops::{Bound, RangeBounds};
use std::str::FromStr;
use std::sync::Arc;
use std::time::Duration;

use crate::backend::Zone;
use crate::scheduler::Scheduler;
use crate::scheduler::parameter::{
    NESTED_SCHEDULER, ParameterKind, SchedulerParameter, SchedulerParameterError,
};
use crate::scheduler::registry::error::SchedulerRegistryError;
use crate::scheduler::registry::expression::{SchedulerArgument, SchedulerExpression};

/// Makes a scheduler of its parameters.
pub(super) type SchedulerFactory = Arc<
    dyn Fn(&mut SchedulerParams<'_>) -> Result<Arc<dyn Scheduler>, SchedulerRegistryError>
        + Send
        + Sync,
>;

/// Builds nested schedulers; implemented by the registry.
pub(super) trait BuildScheduler: fmt::Debug {
    fn build_scheduler(
        &self,
        expression: SchedulerExpression,
    ) -> Result<Arc<dyn Scheduler>, SchedulerRegistryError>;
}

/// The arguments of one scheduler, for its factory in a [`SchedulerRegistry`](super::SchedulerRegistry).
///
/// Take flags and values first and nested schedulers last: a name without a value that was taken as
/// a flag or value before is not taken as a scheduler. An argument that the factory has not taken
/// when it returns is an error that lists the known parameters.
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
///     Ok(RoundRobin::new())
/// })?;
/// registry.parse("mine(decay=5s, fast)")?;
///
/// let error = registry.parse("mine(decay=5s, fast, tries=3)").unwrap_err();
/// assert_eq!(error.to_string(), "mine: unknown parameter tries, its parameters are fast, decay");
/// # Ok::<(), lvs::scheduler::SchedulerRegistryError>(())
/// ```
#[derive(Debug)]
pub struct SchedulerParams<'a> {
    builder: &'a dyn BuildScheduler,
    name: String,
    arguments: Vec<SchedulerArgument>,
    known_parameters: Vec<KnownParameter>,
}

/// A parameter that the factory has asked for.
#[derive(Debug)]
struct KnownParameter {
    name: &'static str,
    /// The values that the parameter accepts; `None` for a flag or a nested scheduler.
    expected: Option<String>,
}

impl<'a> SchedulerParams<'a> {
    pub(super) fn new(
        builder: &'a dyn BuildScheduler,
        name: String,
        arguments: Vec<SchedulerArgument>,
    ) -> Result<Self, SchedulerRegistryError> {
        let keys = || {
            arguments.iter().filter_map(|argument| match argument {
                SchedulerArgument::Value { key, .. } => Some(key),
                SchedulerArgument::Expression(_) => None,
            })
        };
        // Quadratic, but an expression of 1024 bytes has at most a few hundred arguments.
        let twice = keys().enumerate().find(|&(i, key)| keys().take(i).any(|other| other == key));
        if let Some((_, key)) = twice {
            return Err(SchedulerRegistryError::DuplicateParameter {
                scheduler: name,
                parameter: key.clone(),
            });
        }
        Ok(Self { builder, name, arguments, known_parameters: Vec::new() })
    }

    /// Returns the name by which the expression refers to the scheduler.
    #[must_use]
    pub fn name(&self) -> &str {
        &self.name
    }

    /// Takes a flag, a name without a value; returns whether the expression has it.
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

    /// Takes the value of `key=value`, if the expression has it; `expected` describes the accepted
    /// values in an error ("an address").
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

    /// Takes the value of `key=value`, if the expression has it, which must be within `range`.
    ///
    /// # Errors
    /// [`SchedulerRegistryError::InvalidValue`].
    pub fn take_value_in<V: Display + FromStr + PartialOrd>(
        &mut self,
        key: &'static str,
        range: impl RangeBounds<V>,
    ) -> Result<Option<V>, SchedulerRegistryError> {
        let expected = format!("a number{}", describe_range(&range, V::to_string));
        self.take_argument(key, expected, |text| {
            text.parse().ok().filter(|value| range.contains(value))
        })
    }

    /// Takes the value of `key=duration`, if the expression has it, which must be within `range`.
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
        let expected =
            format!("a duration{}", describe_range(&range, |duration| format!("{duration:?}")));
        self.take_argument(key, expected, |text| {
            parse_duration(text).filter(|duration| range.contains(duration))
        })
    }

    /// Takes the next nested scheduler and builds it.
    ///
    /// # Errors
    /// [`SchedulerRegistryError::MissingParameter`] if the expression has none (left), and the
    /// errors of the nested scheduler.
    pub fn take_scheduler(&mut self) -> Result<Arc<dyn Scheduler>, SchedulerRegistryError> {
        self.known_parameters.push(KnownParameter { name: NESTED_SCHEDULER.name, expected: None });
        let is_flag_or_value = |argument: &SchedulerArgument| {
            flag_name(argument)
                .is_some_and(|name| self.known_parameters.iter().any(|known| known.name == name))
        };
        let position = self.arguments.iter().position(|argument| {
            matches!(argument, SchedulerArgument::Expression(_)) && !is_flag_or_value(argument)
        });
        match position.map(|position| self.arguments.remove(position)) {
            Some(SchedulerArgument::Expression(expression)) => {
                self.builder.build_scheduler(expression)
            }
            _ => Err(self.missing_parameter(NESTED_SCHEDULER.name)),
        }
    }

    /// Returns the error for a required parameter that the expression does not have.
    #[must_use]
    pub fn missing_parameter(&self, parameter: &str) -> SchedulerRegistryError {
        SchedulerRegistryError::MissingParameter {
            scheduler: self.name.clone(),
            parameter: parameter.to_owned(),
        }
    }

    /// Returns the error for parameters that are valid each but not together, or that a constructor
    /// refused.
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

    /// Refuses the first argument that the factory has not taken.
    pub(super) fn reject_remaining(self) -> Result<(), SchedulerRegistryError> {
        let Some(left) = self.arguments.into_iter().next() else { return Ok(()) };
        let (parameter, value) = match left {
            SchedulerArgument::Value { key, value } => (key, Some(value)),
            SchedulerArgument::Expression(expression) => (expression.to_string(), None),
        };
        let scheduler = self.name;
        // An argument of a known name is left if it was written in the wrong form.
        let known = self.known_parameters.iter().find(|known| known.name == parameter);
        Err(match (known, value) {
            (Some(KnownParameter { expected: Some(expected), .. }), _) => {
                let expected = expected.clone();
                SchedulerRegistryError::MissingValue { scheduler, parameter, expected }
            }
            (Some(KnownParameter { expected: None, .. }), Some(value)) => {
                SchedulerRegistryError::UnexpectedValue { scheduler, parameter, value }
            }
            _ => SchedulerRegistryError::UnknownParameter {
                scheduler,
                parameter,
                known: self.known_parameters.iter().map(|known| known.name.to_owned()).collect(),
            },
        })
    }

    /// Takes a declared flag.
    pub(super) fn take_declared_flag(
        &mut self,
        parameter: &SchedulerParameter,
    ) -> Result<bool, SchedulerRegistryError> {
        self.take_flag(parameter.name)
    }

    /// Takes the value of a declared integer or prime.
    pub(super) fn take_declared_integer<N: Copy + Display + FromStr + TryInto<u64>>(
        &mut self,
        parameter: &SchedulerParameter,
    ) -> Result<Option<N>, SchedulerRegistryError> {
        let scheduler = self.name.clone();
        self.take_argument(parameter.name, parameter.kind.to_string(), |text| {
            text.parse().ok().filter(|&value| parameter.check_integer(&scheduler, value).is_ok())
        })
    }

    /// Takes the value of a declared decimal number.
    pub(super) fn take_declared_decimal(
        &mut self,
        parameter: &SchedulerParameter,
    ) -> Result<Option<f64>, SchedulerRegistryError> {
        let scheduler = self.name.clone();
        self.take_argument(parameter.name, parameter.kind.to_string(), |text| {
            text.parse().ok().filter(|&value| parameter.check_decimal(&scheduler, value).is_ok())
        })
    }

    /// Takes the value of a declared duration.
    pub(super) fn take_declared_duration(
        &mut self,
        parameter: &SchedulerParameter,
    ) -> Result<Option<Duration>, SchedulerRegistryError> {
        let scheduler = self.name.clone();
        self.take_argument(parameter.name, parameter.kind.to_string(), |text| {
            parse_duration(text)
                .filter(|&duration| parameter.check_duration(&scheduler, duration).is_ok())
        })
    }

    /// Takes the name of a zone.
    pub(super) fn take_declared_zone(
        &mut self,
        parameter: &SchedulerParameter,
    ) -> Result<Option<Zone>, SchedulerRegistryError> {
        let read = |text: &str| Zone::new(text).ok();
        self.take_argument(parameter.name, parameter.kind.to_string(), read)
    }

    /// Takes the value of a declared choice.
    pub(super) fn take_declared_choice<V: FromStr>(
        &mut self,
        parameter: &SchedulerParameter,
    ) -> Result<Option<V>, SchedulerRegistryError> {
        debug_assert!(matches!(parameter.kind, ParameterKind::Choice(_)));
        self.take_value(parameter.name, &parameter.kind.to_string())
    }

    fn take_argument<V>(
        &mut self,
        name: &'static str,
        expected: String,
        read: impl FnOnce(&str) -> Option<V>,
    ) -> Result<Option<V>, SchedulerRegistryError> {
        let position = self.arguments.iter().position(
            |argument| matches!(argument, SchedulerArgument::Value { key, .. } if key == name),
        );
        let argument = position.map(|position| self.arguments.remove(position));
        let result = match argument {
            Some(SchedulerArgument::Value { key, value }) => match read(&value) {
                Some(value) => Ok(Some(value)),
                None => Err(SchedulerParameterError {
                    scheduler: self.name.clone(),
                    parameter: key,
                    value,
                    expected: expected.clone(),
                }
                .into()),
            },
            _ => Ok(None),
        };
        self.known_parameters.push(KnownParameter { name, expected: Some(expected) });
        result
    }
}

fn flag_name(argument: &SchedulerArgument) -> Option<&str> {
    match argument {
        SchedulerArgument::Expression(expression) if expression.arguments().is_empty() => {
            Some(SchedulerExpression::name(expression))
        }
        _ => None,
    }
}

/// Describes a range so that it follows the noun: `from 1 to 9`.
fn describe_range<V>(range: &impl RangeBounds<V>, show: impl Fn(&V) -> String) -> String {
    let end = match range.end_bound() {
        Bound::Included(end) => Some(format!("of at most {}", show(end))),
        Bound::Excluded(end) => Some(format!("below {}", show(end))),
        Bound::Unbounded => None,
    };
    match (range.start_bound(), range.end_bound(), end) {
        (Bound::Included(start), Bound::Included(last), _) => {
            format!(" from {} to {}", show(start), show(last))
        }
        (Bound::Included(start), _, None) => format!(" of at least {}", show(start)),
        (Bound::Included(start), _, Some(end)) => format!(" of at least {} and {end}", show(start)),
        (Bound::Excluded(start), _, None) => format!(" above {}", show(start)),
        (Bound::Excluded(start), _, Some(end)) => format!(" above {} and {end}", show(start)),
        (Bound::Unbounded, _, Some(end)) => format!(" {end}"),
        (Bound::Unbounded, _, None) => String::new(),
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
mod tests;
