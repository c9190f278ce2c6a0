//! Schedulers by name, for configuration files and command lines.
//!
//! Choose a type ([`RoundRobin`](crate::scheduler::RoundRobin)) where the rule is fixed in the program, and a
//! [`SchedulerRegistry`] where an operator writes it. Parsing is off the hot path and costs a few small
//! allocations; what it returns picks exactly as fast as the type itself.

use std::collections::BTreeMap;
use std::fmt;
use std::sync::Arc;

use thiserror::Error;

use crate::scheduler::registry::builtin;
use crate::scheduler::registry::expression::is_name;
use crate::scheduler::registry::suggest::suggest;
use crate::scheduler::{Scheduler, SchedulerExpression, SchedulerExpressionError, SchedulerParams};

/// Builds schedulers from their [expressions](SchedulerExpression).
///
/// # Examples
/// A built-in rule:
/// ```
/// use lvs::scheduler::SchedulerRegistry;
/// use lvs::{BackendSet, Balancer, Flow};
///
/// let set = BackendSet::new();
/// set.insert(lvs::Spec::new("a", ()))?;
/// let balancer = Balancer::new(&set, SchedulerRegistry::default().parse("priority(rr, panic=0)")?)?;
/// assert_eq!(balancer.scheduler().name(), "priority");
/// assert_eq!(balancer.pick(&Flow::new())?.id().as_str(), "a");
///
/// let error = SchedulerRegistry::default().parse("priorty(rr)").unwrap_err();
/// assert_eq!(error.to_string(), "no scheduler is named priorty, did you mean priority?");
/// # Ok::<(), Box<dyn std::error::Error>>(())
/// ```
/// A rule of one's own, here one that wraps another and takes a parameter:
/// ```
/// use lvs::scheduler::{Priority, SchedulerRegistry};
///
/// let mut registry = SchedulerRegistry::default();
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
/// # Ok::<(), lvs::scheduler::SchedulerRegistryError>(())
/// ```
#[derive(Clone)]
pub struct SchedulerRegistry {
    factories: BTreeMap<String, SchedulerFactory>,
}

type SchedulerFactory = Arc<
    dyn Fn(&mut SchedulerParams<'_>) -> Result<Arc<dyn Scheduler>, SchedulerRegistryError>
        + Send
        + Sync,
>;

/// Why a text names no scheduler, or a name could not be registered.
#[derive(Debug, Error)]
#[non_exhaustive]
pub enum SchedulerRegistryError {
    /// The text is no expression.
    #[error(transparent)]
    Syntax(#[from] SchedulerExpressionError),
    /// Nobody registered this name.
    #[error("no scheduler is named {name}{}", suggestion_suffix(suggestion))]
    UnknownScheduler {
        /// The name asked for.
        name: String,
        /// A known name that looks much like it.
        suggestion: Option<String>,
    },
    /// The name to be registered is taken.
    #[error("scheduler {name} is already registered")]
    DuplicateName {
        /// The name.
        name: String,
    },
    /// The name to be registered could not be written in an expression.
    #[error("{name:?} cannot name a scheduler, only ASCII letters, digits, '_' and '-' can")]
    InvalidName {
        /// The name.
        name: String,
    },
    /// The scheduler takes no such parameter.
    #[error("{scheduler} takes no parameter {parameter}, only {}", list_parameters(known))]
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
    InvalidValue {
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
    MissingParameter {
        /// The scheduler.
        scheduler: String,
        /// What it needs: a parameter's name, or "a scheduler".
        parameter: String,
    },
    /// A parameter is given more than once.
    #[error("{scheduler} is given {parameter} twice")]
    DuplicateParameter {
        /// The scheduler.
        scheduler: String,
        /// The parameter.
        parameter: String,
    },
    /// The scheduler refused its parameters taken together.
    #[error("{scheduler} cannot be made so")]
    InvalidParameters {
        /// The scheduler.
        scheduler: String,
        /// What it said.
        source: Box<dyn std::error::Error + Send + Sync>,
    },
}

impl SchedulerRegistry {
    /// A registry that knows no names at all; [`SchedulerRegistry::default`] knows the built-in ones.
    #[must_use]
    pub const fn empty() -> Self {
        Self { factories: BTreeMap::new() }
    }

    /// Adds a scheduler under a name.
    ///
    /// The factory takes what it knows out of its [`SchedulerParams`]; what it leaves is reported to whoever
    /// wrote it. It runs once for each place where the name is used.
    ///
    /// # Errors
    /// [`SchedulerRegistryError::DuplicateName`], [`SchedulerRegistryError::InvalidName`].
    pub fn register<S: Scheduler + 'static>(
        &mut self,
        name: impl Into<String>,
        factory: impl Fn(&mut SchedulerParams<'_>) -> Result<S, SchedulerRegistryError>
        + Send
        + Sync
        + 'static,
    ) -> Result<(), SchedulerRegistryError> {
        let name = name.into();
        if !is_name(&name) {
            return Err(SchedulerRegistryError::InvalidName { name });
        }
        if self.factories.contains_key(&name) {
            return Err(SchedulerRegistryError::DuplicateName { name });
        }
        let factory: SchedulerFactory = Arc::new(move |params| Ok(Arc::new(factory(params)?)));
        self.factories.insert(name, factory);
        Ok(())
    }

    /// Makes the scheduler that a text describes.
    ///
    /// # Errors
    /// All of [`SchedulerRegistryError`] but those of [`SchedulerRegistry::register`].
    pub fn parse(&self, text: &str) -> Result<Arc<dyn Scheduler>, SchedulerRegistryError> {
        self.build(text.parse()?)
    }

    /// Makes the scheduler that an expression describes.
    ///
    /// # Errors
    /// As [`SchedulerRegistry::parse`].
    pub fn build(
        &self,
        expression: SchedulerExpression,
    ) -> Result<Arc<dyn Scheduler>, SchedulerRegistryError> {
        let (name, arguments) = expression.into_parts();
        let Some(factory) = self.factories.get(&name) else {
            let suggestion = suggest(&name, self.names()).map(str::to_owned);
            return Err(SchedulerRegistryError::UnknownScheduler { name, suggestion });
        };
        let mut params = SchedulerParams::new(self, name, arguments)?;
        let scheduler = factory(&mut params)?;
        params.reject_remaining()?;
        Ok(scheduler)
    }

    /// Every known name, in alphabetical order.
    pub fn names(&self) -> impl Iterator<Item = &str> {
        self.factories.keys().map(String::as_str)
    }
}

impl Default for SchedulerRegistry {
    /// Knows every scheduler of this crate.
    fn default() -> Self {
        let factories = builtin::BUILTIN_SCHEDULERS
            .iter()
            .map(|&(name, factory)| (name.to_owned(), Arc::new(factory) as SchedulerFactory))
            .collect();
        Self { factories }
    }
}

impl fmt::Debug for SchedulerRegistry {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_set().entries(self.factories.keys()).finish()
    }
}

/// Makes one of the built-in schedulers from its expression.
///
/// # Errors
/// As [`SchedulerRegistry::parse`].
///
/// # Examples
/// ```
/// let scheduler = lvs::scheduler::parse("rr")?;
/// assert_eq!(scheduler.name(), "rr");
/// # Ok::<(), lvs::scheduler::SchedulerRegistryError>(())
/// ```
pub fn parse(text: &str) -> Result<Arc<dyn Scheduler>, SchedulerRegistryError> {
    SchedulerRegistry::default().parse(text)
}

fn suggestion_suffix(suggestion: &Option<String>) -> String {
    suggestion.as_ref().map_or_else(String::new, |name| format!(", did you mean {name}?"))
}

fn list_parameters(known: &[String]) -> String {
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
        let registry = SchedulerRegistry::default();
        assert_eq!(registry.names().count(), builtin::BUILTIN_SCHEDULERS.len());
        assert!(registry.names().all(is_name));
    }

    #[test]
    fn a_name_is_registered_once_and_can_be_written() {
        let mut registry = SchedulerRegistry::default();
        let duplicate = registry.register("rr", |_| Ok(RoundRobin)).expect_err("taken");
        assert_eq!(duplicate.to_string(), "scheduler rr is already registered");
        let unwritable = registry.register("r r", |_| Ok(RoundRobin)).expect_err("a blank");
        assert!(
            matches!(unwritable, SchedulerRegistryError::InvalidName { name } if name == "r r")
        );
        registry.register("mine", |_| Ok(RoundRobin)).expect("free");
        assert!(registry.parse("priority(mine)").is_ok());
        assert!(SchedulerRegistry::empty().parse("rr").is_err());
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
