//! Schedulers by name, for configuration files and command lines.
//!
//! Choose a type ([`RoundRobin`](super::RoundRobin)) where the rule is fixed in the program, and a
//! [`Registry`] where an operator writes it. Parsing is off the hot path and costs a few small
//! allocations; what it returns picks exactly as fast as the type itself.

use std::collections::BTreeMap;
use std::fmt;
use std::sync::Arc;

use thiserror::Error;

use super::expression::is_name;
use super::slip::closest;
use super::{Expression, ExpressionError, Params, Scheduler, builtin};

/// Builds schedulers from their [expressions](Expression).
///
/// # Examples
/// A built-in rule:
/// ```
/// use lvs::scheduler::Registry;
/// use lvs::{BackendSet, Balancer, Flow};
///
/// let set = BackendSet::new();
/// set.insert(lvs::Spec::new("a", ()))?;
/// let balancer = Balancer::new(&set, Registry::default().parse("priority(rr, panic=0)")?)?;
/// assert_eq!(balancer.scheduler().name(), "priority");
/// assert_eq!(balancer.pick(&Flow::new())?.id().as_str(), "a");
///
/// let error = Registry::default().parse("priorty(rr)").unwrap_err();
/// assert_eq!(error.to_string(), "no scheduler is named priorty, did you mean priority?");
/// # Ok::<(), Box<dyn std::error::Error>>(())
/// ```
/// A rule of one's own, here one that wraps another and takes a parameter:
/// ```
/// use lvs::scheduler::{Priority, Registry};
///
/// let mut registry = Registry::default();
/// registry.register("careful", |params| {
///     let spare = params.value_in("spare", 0..=100)?.unwrap_or(50);
///     Priority::new(params.scheduler()?)
///         .with_overprovisioning(100 + spare)
///         .map_err(|error| params.refuse(error))
/// })?;
/// let scheduler = registry.parse("careful(rr, spare=20)")?;
/// assert_eq!(scheduler.name(), "priority");
///
/// let error = registry.parse("careful(rr, spare=200)").unwrap_err();
/// assert_eq!(error.to_string(), "careful: spare cannot be 200, only from 0 to 100");
/// # Ok::<(), lvs::scheduler::RegistryError>(())
/// ```
#[derive(Clone)]
pub struct Registry {
    factories: BTreeMap<String, Factory>,
}

type Factory =
    Arc<dyn Fn(&mut Params<'_>) -> Result<Arc<dyn Scheduler>, RegistryError> + Send + Sync>;

/// Why a text names no scheduler, or a name could not be registered.
#[derive(Debug, Error)]
#[non_exhaustive]
pub enum RegistryError {
    /// The text is no expression.
    #[error(transparent)]
    Syntax(#[from] ExpressionError),
    /// Nobody registered this name.
    #[error("no scheduler is named {name}{}", did_you_mean(suggestion))]
    Unknown {
        /// The name asked for.
        name: String,
        /// A known name that looks much like it.
        suggestion: Option<String>,
    },
    /// The name to be registered is taken.
    #[error("scheduler {name} is already registered")]
    Duplicate {
        /// The name.
        name: String,
    },
    /// The name to be registered could not be written in an expression.
    #[error("{name:?} cannot name a scheduler, only ASCII letters, digits, '_' and '-' can")]
    Name {
        /// The name.
        name: String,
    },
    /// The scheduler takes no such parameter.
    #[error("{scheduler} takes no parameter {parameter}, only {}", list(known))]
    UnknownParameter {
        /// The scheduler.
        scheduler: String,
        /// What it was given, as written.
        parameter: String,
        /// What it takes.
        known: Vec<String>,
    },
    /// The value of a parameter is none that it can have.
    #[error("{scheduler}: {parameter} cannot be {value}, only {expected}")]
    Value {
        /// The scheduler.
        scheduler: String,
        /// The parameter.
        parameter: String,
        /// What was given, as written.
        value: String,
        /// What it can be.
        expected: String,
    },
    /// The scheduler cannot do without this parameter.
    #[error("{scheduler} needs {parameter}")]
    Missing {
        /// The scheduler.
        scheduler: String,
        /// What it needs: a parameter's name, or "a scheduler".
        parameter: String,
    },
    /// A parameter is given more than once.
    #[error("{scheduler} is given {parameter} twice")]
    Twice {
        /// The scheduler.
        scheduler: String,
        /// The parameter.
        parameter: String,
    },
    /// The scheduler refused its parameters taken together.
    #[error("{scheduler} cannot be made so")]
    Refused {
        /// The scheduler.
        scheduler: String,
        /// What it said.
        source: Box<dyn std::error::Error + Send + Sync>,
    },
}

impl Registry {
    /// A registry that knows no names at all; [`Registry::default`] knows the built-in ones.
    #[must_use]
    pub const fn empty() -> Self {
        Self { factories: BTreeMap::new() }
    }

    /// Adds a scheduler under a name.
    ///
    /// The factory takes what it knows out of its [`Params`]; what it leaves is reported to whoever
    /// wrote it. It runs once for each place where the name is used.
    ///
    /// # Errors
    /// [`RegistryError::Duplicate`], [`RegistryError::Name`].
    pub fn register<S: Scheduler + 'static>(
        &mut self,
        name: impl Into<String>,
        factory: impl Fn(&mut Params<'_>) -> Result<S, RegistryError> + Send + Sync + 'static,
    ) -> Result<(), RegistryError> {
        let name = name.into();
        if !is_name(&name) {
            return Err(RegistryError::Name { name });
        }
        if self.factories.contains_key(&name) {
            return Err(RegistryError::Duplicate { name });
        }
        let factory: Factory = Arc::new(move |params| Ok(Arc::new(factory(params)?)));
        self.factories.insert(name, factory);
        Ok(())
    }

    /// Makes the scheduler that a text describes.
    ///
    /// # Errors
    /// All of [`RegistryError`] but those of [`Registry::register`].
    pub fn parse(&self, text: &str) -> Result<Arc<dyn Scheduler>, RegistryError> {
        self.build(text.parse()?)
    }

    /// Makes the scheduler that an expression describes.
    ///
    /// # Errors
    /// As [`Registry::parse`].
    pub fn build(&self, expression: Expression) -> Result<Arc<dyn Scheduler>, RegistryError> {
        let (name, arguments) = expression.into_parts();
        let Some(factory) = self.factories.get(&name) else {
            let suggestion = closest(&name, self.names()).map(str::to_owned);
            return Err(RegistryError::Unknown { name, suggestion });
        };
        let mut params = Params::new(self, name, arguments)?;
        let scheduler = factory(&mut params)?;
        params.finish()?;
        Ok(scheduler)
    }

    /// Every known name, in alphabetical order.
    pub fn names(&self) -> impl Iterator<Item = &str> {
        self.factories.keys().map(String::as_str)
    }
}

impl Default for Registry {
    /// Knows every scheduler of this crate.
    fn default() -> Self {
        let factories = builtin::SCHEDULERS
            .iter()
            .map(|&(name, factory)| (name.to_owned(), Arc::new(factory) as Factory))
            .collect();
        Self { factories }
    }
}

impl fmt::Debug for Registry {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_set().entries(self.factories.keys()).finish()
    }
}

/// Makes one of the built-in schedulers from its expression.
///
/// # Errors
/// As [`Registry::parse`].
///
/// # Examples
/// ```
/// let scheduler = lvs::scheduler::parse("rr")?;
/// assert_eq!(scheduler.name(), "rr");
/// # Ok::<(), lvs::scheduler::RegistryError>(())
/// ```
pub fn parse(text: &str) -> Result<Arc<dyn Scheduler>, RegistryError> {
    Registry::default().parse(text)
}

fn did_you_mean(suggestion: &Option<String>) -> String {
    suggestion.as_ref().map_or_else(String::new, |name| format!(", did you mean {name}?"))
}

fn list(known: &[String]) -> String {
    if known.is_empty() { "its bare name".to_owned() } else { known.join(", ") }
}

#[cfg(all(test, not(lvs_loom)))]
mod tests {
    use super::*;
    use crate::scheduler::RoundRobin;

    fn error(text: &str) -> String {
        parse(text).expect_err(text).to_string()
    }

    #[test]
    fn every_built_in_name_can_be_written_and_stands_once() {
        let registry = Registry::default();
        assert_eq!(registry.names().count(), builtin::SCHEDULERS.len());
        assert!(registry.names().all(is_name));
    }

    #[test]
    fn a_name_is_registered_once_and_can_be_written() {
        let mut registry = Registry::default();
        let duplicate = registry.register("rr", |_| Ok(RoundRobin)).expect_err("taken");
        assert_eq!(duplicate.to_string(), "scheduler rr is already registered");
        let unwritable = registry.register("r r", |_| Ok(RoundRobin)).expect_err("a blank");
        assert!(matches!(unwritable, RegistryError::Name { name } if name == "r r"));
        registry.register("mine", |_| Ok(RoundRobin)).expect("free");
        assert!(registry.parse("priority(mine)").is_ok());
        assert!(Registry::empty().parse("rr").is_err());
    }

    #[test]
    fn an_unknown_name_is_answered_with_the_closest_one() {
        assert_eq!(error("PRIORITY(rr)"), "no scheduler is named PRIORITY, did you mean priority?");
        assert_eq!(error("rrr"), "no scheduler is named rrr, did you mean rr?");
        assert_eq!(error("least-response-time"), "no scheduler is named least-response-time");
        assert_eq!(
            error("priority(pirority(rr))"),
            "no scheduler is named pirority, did you mean priority?"
        );
    }

    #[test]
    fn a_syntax_error_keeps_its_place() {
        assert_eq!(error("rr("), "unexpected end at byte 3 where a name is due");
    }
}
