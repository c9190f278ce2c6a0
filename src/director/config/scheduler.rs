//! The `scheduler` of a service: an expression, or a scheduler of the program.

use std::fmt;
use std::ptr;
use std::sync::Arc;

use serde::Deserialize;

use crate::scheduler::{Scheduler, SchedulerRegistry, SchedulerRegistryError};

/// The scheduler of a service: an [expression](crate::scheduler::SchedulerExpression) such as `"wlc"`
/// or `"bounded(ring, factor=1.25)"`, or any scheduler of the program.
///
/// Two are equal if they are the same text, or clones of the same scheduler: a reload with a clone
/// leaves the scheduler of a service with its state as it is.
///
/// # Examples
/// ```
/// use lvs::director::SchedulerConfig;
/// use lvs::scheduler::RoundRobin;
///
/// let scheduler = SchedulerConfig::custom(RoundRobin::new());
/// assert_eq!(scheduler.to_string(), "rr");
/// assert_eq!(scheduler, scheduler.clone());
/// assert_ne!(scheduler, SchedulerConfig::from("rr"));
/// ```
#[derive(Clone, Debug, Deserialize, PartialEq)]
#[serde(from = "String")]
pub struct SchedulerConfig(SchedulerChoice);

#[derive(Clone, Debug)]
enum SchedulerChoice {
    Expression(String),
    Custom(Arc<dyn Scheduler>),
}

impl PartialEq for SchedulerChoice {
    fn eq(&self, other: &Self) -> bool {
        match (self, other) {
            (Self::Expression(one), Self::Expression(other)) => one == other,
            (Self::Custom(one), Self::Custom(other)) => {
                ptr::addr_eq(Arc::as_ptr(one), Arc::as_ptr(other))
            }
            _ => false,
        }
    }
}

impl SchedulerConfig {
    /// Returns the choice of a scheduler that no name describes. Services that share a clone compile
    /// pickers of their own from it.
    #[must_use]
    pub fn custom(scheduler: impl Scheduler + 'static) -> Self {
        Self(SchedulerChoice::Custom(Arc::new(scheduler)))
    }

    pub(crate) fn build(&self) -> Result<Arc<dyn Scheduler>, SchedulerRegistryError> {
        match &self.0 {
            SchedulerChoice::Expression(text) => SchedulerRegistry::default().parse(text),
            SchedulerChoice::Custom(scheduler) => Ok(Arc::clone(scheduler)),
        }
    }
}

impl Default for SchedulerConfig {
    /// Returns `"wlc"`.
    fn default() -> Self {
        Self::from("wlc")
    }
}

impl From<&str> for SchedulerConfig {
    fn from(expression: &str) -> Self {
        Self::from(expression.to_owned())
    }
}

impl From<String> for SchedulerConfig {
    fn from(expression: String) -> Self {
        Self(SchedulerChoice::Expression(expression))
    }
}

impl From<Arc<dyn Scheduler>> for SchedulerConfig {
    fn from(scheduler: Arc<dyn Scheduler>) -> Self {
        Self(SchedulerChoice::Custom(scheduler))
    }
}

impl fmt::Display for SchedulerConfig {
    /// Writes the expression, or the [name](Scheduler::name) of a scheduler of the program.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match &self.0 {
            SchedulerChoice::Expression(text) => text,
            SchedulerChoice::Custom(scheduler) => scheduler.name(),
        })
    }
}
