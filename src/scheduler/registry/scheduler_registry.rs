//! Schedulers by name, for configuration files and command lines.
//!
//! Use a type ([`RoundRobin`](crate::scheduler::RoundRobin::new())) if the rule is fixed in the program,
//! and a [`SchedulerRegistry`] if an operator configures it. Parsing is off the hot path and takes
//! a few small allocations; the scheduler that it returns picks exactly as fast as the type.

use std::collections::BTreeMap;
use std::fmt;
use std::sync::Arc;

use crate::backend::Members;
use crate::scheduler::registry::builtin::BUILTIN_SCHEDULERS;
use crate::scheduler::registry::error::SchedulerRegistryError;
use crate::scheduler::registry::expression::{SchedulerExpression, is_name};
use crate::scheduler::registry::params::{BuildScheduler, SchedulerFactory, SchedulerParams};
use crate::scheduler::registry::suggest::suggest_scheduler;
use crate::scheduler::{CompileError, Picker, Scheduler, SchedulerInfo};

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
/// A rule of your own, here a wrapper that takes a parameter:
/// ```
/// use lvs::scheduler::{PriorityTiers, SchedulerRegistry};
///
/// let mut registry = SchedulerRegistry::default();
/// registry.register("careful", |params| {
///     let spare = params.take_value_in("spare", 0..=100)?.unwrap_or(50);
///     PriorityTiers::new(params.take_scheduler()?)
///         .overprovisioning(100 + spare)
///         .map_err(|error| params.invalid_parameters(error))
/// })?;
/// let scheduler = registry.parse("careful(rr, spare=20)")?;
/// assert_eq!(scheduler.name(), "priority");
///
/// let error = registry.parse("careful(rr, spare=200)").unwrap_err();
/// assert_eq!(error.to_string(), "careful: spare=200 is not a number from 0 to 100");
/// # Ok::<(), lvs::scheduler::SchedulerRegistryError>(())
/// ```
#[derive(Clone)]
pub struct SchedulerRegistry {
    schedulers: BTreeMap<String, RegisteredScheduler>,
}

/// A registered scheduler.
#[derive(Clone)]
struct RegisteredScheduler {
    factory: SchedulerFactory,
    /// The description of a built-in scheduler.
    info: Option<&'static SchedulerInfo>,
}

impl SchedulerRegistry {
    /// Creates a registry without any scheduler; [`SchedulerRegistry::default`] has the built-in
    /// ones.
    #[must_use]
    pub const fn empty() -> Self {
        Self { schedulers: BTreeMap::new() }
    }

    /// Registers a scheduler under a name.
    ///
    /// The factory takes its parameters out of its [`SchedulerParams`]; an argument that it leaves
    /// is an error for the author of the expression. The factory runs once for each use of the
    /// name.
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
        if self.schedulers.contains_key(&name) {
            return Err(SchedulerRegistryError::DuplicateName { name });
        }
        let factory: SchedulerFactory = Arc::new(move |params| Ok(Arc::new(factory(params)?)));
        self.schedulers.insert(name, RegisteredScheduler { factory, info: None });
        Ok(())
    }

    /// Builds the scheduler that a text describes.
    ///
    /// # Errors
    /// All of [`SchedulerRegistryError`] but those of [`SchedulerRegistry::register`].
    pub fn parse(&self, text: &str) -> Result<Arc<dyn Scheduler>, SchedulerRegistryError> {
        self.build(text.parse()?)
    }

    /// Builds the scheduler that an expression describes.
    ///
    /// # Errors
    /// As [`SchedulerRegistry::parse`].
    pub fn build(
        &self,
        expression: SchedulerExpression,
    ) -> Result<Arc<dyn Scheduler>, SchedulerRegistryError> {
        let text = expression.to_string();
        let (name, arguments) = expression.into_parts();
        let Some(registered) = self.schedulers.get(&name) else {
            let suggestion = suggest_scheduler(&name, self.names()).map(str::to_owned);
            let known = self.names().map(str::to_owned).collect();
            return Err(SchedulerRegistryError::UnknownScheduler { name, suggestion, known });
        };
        let mut params = SchedulerParams::new(self, name, arguments)?;
        let scheduler = (registered.factory)(&mut params)?;
        params.reject_remaining()?;
        Ok(Arc::new(ScheduledByExpression { expression: text, scheduler }))
    }

    /// Returns every registered name, in alphabetical order.
    pub fn names(&self) -> impl Iterator<Item = &str> {
        self.schedulers.keys().map(String::as_str)
    }

    /// Returns the descriptions of the built-in schedulers, in alphabetical order of their names;
    /// schedulers added by [`SchedulerRegistry::register`] have none.
    ///
    /// # Examples
    /// ```
    /// use lvs::scheduler::SchedulerRegistry;
    ///
    /// let registry = SchedulerRegistry::default();
    /// let ring = registry.infos().find(|info| info.name == "ring").ok_or("no ring")?;
    /// assert_eq!(ring.parameters[0].name, "replicas");
    /// assert_eq!(ring.parameters[0].kind.to_string(), "a whole number from 1 to 65536");
    /// # Ok::<(), &str>(())
    /// ```
    pub fn infos(&self) -> impl Iterator<Item = &'static SchedulerInfo> {
        self.schedulers.values().filter_map(|registered| registered.info)
    }
}

/// A scheduler that remembers the expression from which it was built.
struct ScheduledByExpression {
    expression: String,
    scheduler: Arc<dyn Scheduler>,
}

impl Scheduler for ScheduledByExpression {
    fn name(&self) -> &str {
        self.scheduler.name()
    }

    fn expression(&self) -> String {
        self.expression.clone()
    }

    fn depends_on_order(&self) -> bool {
        self.scheduler.depends_on_order()
    }

    fn reads_time(&self) -> bool {
        self.scheduler.reads_time()
    }

    fn compile(
        &self,
        members: &Members,
        previous: Option<&dyn Picker>,
    ) -> Result<Box<dyn Picker>, CompileError> {
        self.scheduler.compile(members, previous)
    }
}

impl fmt::Debug for ScheduledByExpression {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.scheduler.fmt(f)
    }
}

impl BuildScheduler for SchedulerRegistry {
    fn build_scheduler(
        &self,
        expression: SchedulerExpression,
    ) -> Result<Arc<dyn Scheduler>, SchedulerRegistryError> {
        self.build(expression)
    }
}

impl Default for SchedulerRegistry {
    /// Creates a registry of every scheduler of this crate.
    fn default() -> Self {
        let schedulers = BUILTIN_SCHEDULERS
            .iter()
            .map(|(info, factory)| {
                let factory: SchedulerFactory = Arc::new(factory);
                (info.name.to_owned(), RegisteredScheduler { factory, info: Some(info) })
            })
            .collect();
        Self { schedulers }
    }
}

impl fmt::Debug for SchedulerRegistry {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_set().entries(self.schedulers.keys()).finish()
    }
}

/// Builds a built-in scheduler from its expression.
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
        assert_eq!(registry.names().count(), BUILTIN_SCHEDULERS.len());
        assert!(registry.names().all(is_name));
    }

    #[test]
    fn a_name_is_registered_once_and_can_be_written() {
        let mut registry = SchedulerRegistry::default();
        let duplicate = registry.register("rr", |_| Ok(RoundRobin::new())).expect_err("taken");
        assert_eq!(duplicate.to_string(), "scheduler rr is already registered");
        let unwritable = registry.register("r r", |_| Ok(RoundRobin::new())).expect_err("a blank");
        assert!(
            matches!(unwritable, SchedulerRegistryError::InvalidName { name } if name == "r r")
        );
        registry.register("mine", |_| Ok(RoundRobin::new())).expect("free");
        assert!(registry.parse("priority(mine)").is_ok());
        assert!(SchedulerRegistry::empty().parse("rr").is_err());
    }

    #[test]
    fn an_unknown_name_is_answered_with_the_closest_one() {
        assert_eq!(error("PRIORITY(rr)"), "no scheduler is named PRIORITY, did you mean priority?");
        assert_eq!(error("rrr"), "no scheduler is named rrr, did you mean rr?");
        let unlike = error("least-response-time");
        let list = "no scheduler is named least-response-time; those that exist are bounded, ";
        assert!(unlike.starts_with(list), "{unlike}");
        assert_eq!(
            error("priority(pirority(rr))"),
            "no scheduler is named pirority, did you mean priority?"
        );
    }

    #[test]
    fn a_syntax_error_names_its_offset() {
        assert_eq!(
            error("rr("),
            "the scheduler ends at byte 3, where the name of a scheduler or parameter is expected"
        );
    }
}
