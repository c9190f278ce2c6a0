//! What a scheduler is given in its expression, taken out piece by piece.

use std::fmt::Display;
use std::ops::{Bound, RangeBounds};
use std::str::FromStr;
use std::sync::Arc;
use std::time::Duration;

use super::{Argument, Expression, Registry, RegistryError, Scheduler};

/// The arguments of one scheduler, for its factory in a [`Registry`].
///
/// Ask for flags and values first and for nested schedulers last: a bare word whose name was asked
/// for before is not taken for a scheduler. When the factory is done, whatever it has not asked for
/// is an error that names all that it did ask for.
///
/// # Examples
/// ```
/// use std::time::Duration;
/// use lvs::scheduler::{Registry, RoundRobin};
///
/// let mut registry = Registry::empty();
/// registry.register("mine", |params| {
///     let fast = params.flag("fast")?;
///     let decay = params.duration("decay", Duration::from_millis(1)..)?;
///     assert_eq!((fast, decay), (true, Some(Duration::from_secs(5))));
///     Ok(RoundRobin)
/// })?;
/// registry.parse("mine(decay=5s, fast)")?;
///
/// let error = registry.parse("mine(decay=5s, fast, tries=3)").unwrap_err();
/// assert_eq!(error.to_string(), "mine takes no parameter tries, only fast, decay");
/// # Ok::<(), lvs::scheduler::RegistryError>(())
/// ```
#[derive(Debug)]
pub struct Params<'a> {
    registry: &'a Registry,
    name: String,
    arguments: Vec<Argument>,
    known: Vec<Known>,
}

/// Something that the scheduler takes.
#[derive(Debug)]
struct Known {
    name: &'static str,
    /// What its value can be; `None` for what has none.
    expected: Option<String>,
}

const A_SCHEDULER: &str = "a scheduler";

impl<'a> Params<'a> {
    pub(super) fn new(
        registry: &'a Registry,
        name: String,
        arguments: Vec<Argument>,
    ) -> Result<Self, RegistryError> {
        let keys = || {
            arguments.iter().filter_map(|argument| match argument {
                Argument::Value { key, .. } => Some(key),
                Argument::Expression(_) => None,
            })
        };
        // At most a few hundred in 1024 bytes.
        let twice = keys().enumerate().find(|&(i, key)| keys().take(i).any(|other| other == key));
        if let Some((_, key)) = twice {
            return Err(RegistryError::Twice { scheduler: name, parameter: key.clone() });
        }
        Ok(Self { registry, name, arguments, known: Vec::new() })
    }

    /// The name that the scheduler was asked for by.
    #[must_use]
    pub fn name(&self) -> &str {
        &self.name
    }

    /// Takes out a bare word; tells whether it was there.
    ///
    /// # Errors
    /// [`RegistryError::Twice`].
    pub fn flag(&mut self, name: &'static str) -> Result<bool, RegistryError> {
        self.known.push(Known { name, expected: None });
        let before = self.arguments.len();
        self.arguments.retain(|argument| bare_word(argument) != Some(name));
        match before - self.arguments.len() {
            0 => Ok(false),
            1 => Ok(true),
            _ => Err(RegistryError::Twice { scheduler: self.name.clone(), parameter: name.into() }),
        }
    }

    /// Takes out `key=value`; `expected` says in an error what the value can be ("an address").
    ///
    /// # Errors
    /// [`RegistryError::Value`].
    pub fn value<V: FromStr>(
        &mut self,
        key: &'static str,
        expected: &str,
    ) -> Result<Option<V>, RegistryError> {
        self.take(key, expected.to_owned(), |text| text.parse().ok())
    }

    /// Takes out `key=value` and wants it in a range.
    ///
    /// # Errors
    /// [`RegistryError::Value`].
    pub fn value_in<V: Display + FromStr + PartialOrd>(
        &mut self,
        key: &'static str,
        range: impl RangeBounds<V>,
    ) -> Result<Option<V>, RegistryError> {
        self.take(key, limits(&range, V::to_string), |text| {
            text.parse().ok().filter(|value| range.contains(value))
        })
    }

    /// Takes out `key=duration` and wants it in a range.
    ///
    /// A duration is a whole number with its unit: `100us`, `500ms`, `10s`, `5m`, `1h`.
    ///
    /// # Errors
    /// [`RegistryError::Value`].
    pub fn duration(
        &mut self,
        key: &'static str,
        range: impl RangeBounds<Duration>,
    ) -> Result<Option<Duration>, RegistryError> {
        let expected =
            format!("a duration such as 500ms or 10s, {}", limits(&range, |d| format!("{d:?}")));
        self.take(key, expected, |text| {
            parse_duration(text).filter(|duration| range.contains(duration))
        })
    }

    /// Takes out the next nested scheduler.
    ///
    /// # Errors
    /// [`RegistryError::Missing`] if there is none (left), and whatever is wrong with it.
    pub fn scheduler(&mut self) -> Result<Arc<dyn Scheduler>, RegistryError> {
        self.known.push(Known { name: A_SCHEDULER, expected: None });
        let asked = |argument: &Argument| {
            bare_word(argument).is_some_and(|word| self.known.iter().any(|k| k.name == word))
        };
        let position = self
            .arguments
            .iter()
            .position(|it| matches!(it, Argument::Expression(_)) && !asked(it));
        match position.map(|position| self.arguments.remove(position)) {
            Some(Argument::Expression(expression)) => self.registry.build(expression),
            _ => Err(self.missing(A_SCHEDULER)),
        }
    }

    /// The error for a parameter that cannot be left out.
    #[must_use]
    pub fn missing(&self, parameter: &str) -> RegistryError {
        RegistryError::Missing { scheduler: self.name.clone(), parameter: parameter.to_owned() }
    }

    /// The error for parameters that each are good but not together, or that a constructor refused.
    #[must_use]
    pub fn refuse(
        &self,
        source: impl Into<Box<dyn std::error::Error + Send + Sync>>,
    ) -> RegistryError {
        RegistryError::Refused { scheduler: self.name.clone(), source: source.into() }
    }

    /// Complains about the first argument that nobody asked for.
    pub(super) fn finish(self) -> Result<(), RegistryError> {
        let Some(left) = self.arguments.into_iter().next() else { return Ok(()) };
        let (parameter, value) = match left {
            Argument::Value { key, value } => (key, Some(value)),
            Argument::Expression(expression) => (expression.to_string(), None),
        };
        let scheduler = self.name;
        // What is left of a known name was written in the wrong form.
        Err(match (self.known.iter().find(|known| known.name == parameter), value) {
            (Some(Known { expected: Some(expected), .. }), _) => RegistryError::Value {
                scheduler,
                parameter,
                value: "without a value".to_owned(),
                expected: expected.clone(),
            },
            (Some(Known { expected: None, .. }), Some(value)) => RegistryError::Value {
                scheduler,
                parameter,
                value,
                expected: "given without a value".to_owned(),
            },
            _ => RegistryError::UnknownParameter {
                scheduler,
                parameter,
                known: self.known.iter().map(|known| known.name.to_owned()).collect(),
            },
        })
    }

    fn take<V>(
        &mut self,
        wanted: &'static str,
        expected: String,
        read: impl FnOnce(&str) -> Option<V>,
    ) -> Result<Option<V>, RegistryError> {
        let position = self
            .arguments
            .iter()
            .position(|it| matches!(it, Argument::Value { key, .. } if key == wanted));
        self.known.push(Known { name: wanted, expected: Some(expected.clone()) });
        let Some(Argument::Value { key, value }) = position.map(|i| self.arguments.remove(i))
        else {
            return Ok(None);
        };
        match read(&value) {
            Some(value) => Ok(Some(value)),
            None => {
                let scheduler = self.name.clone();
                Err(RegistryError::Value { scheduler, parameter: key, value, expected })
            }
        }
    }
}

fn bare_word(argument: &Argument) -> Option<&str> {
    match argument {
        Argument::Expression(it) if it.arguments().is_empty() => Some(Expression::name(it)),
        _ => None,
    }
}

/// Says in words what lies in a range.
fn limits<V>(range: &impl RangeBounds<V>, show: impl Fn(&V) -> String) -> String {
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
        let mut registry = Registry::default();
        registry
            .register("all", |params| {
                params.flag("fast")?;
                let n = params.value_in("n", 1..=9_u8)?;
                params.value_in("x", 1.0..)?;
                params.value::<std::net::IpAddr>("ip", "an address")?;
                params.duration("t", Duration::from_millis(1)..=Duration::from_secs(60))?;
                params.scheduler()?;
                match n {
                    Some(9) => Err(params.refuse("nine is too many for me")),
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
        assert_eq!(limits(&(..5), i32::to_string), "below 5");
        assert_eq!(limits(&(..=5), i32::to_string), "to 5");
        assert_eq!(limits(&(1..5), i32::to_string), "from 1 below 5");
        assert_eq!(limits(&(..), i32::to_string), "any");
    }
}
