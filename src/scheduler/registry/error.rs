//! The error of parsing, building and registering schedulers by name.

use thiserror::Error;

use crate::scheduler::SchedulerParameterError;
use crate::scheduler::parameter::NESTED_SCHEDULER;
use crate::scheduler::registry::expression::SchedulerExpressionError;

/// A text that names no scheduler, or a name that cannot be registered.
///
/// Every error inside a scheduler starts with the name of that scheduler; of nested schedulers,
/// with the name of the one that is wrong.
#[derive(Debug, Error)]
#[non_exhaustive]
pub enum SchedulerRegistryError {
    /// The text is not an expression.
    #[error(transparent)]
    Syntax(#[from] SchedulerExpressionError),
    /// No scheduler of this name is registered.
    #[error("no scheduler is named {name}{}", suggestion_or_list(suggestion, known))]
    UnknownScheduler {
        /// The name in the expression.
        name: String,
        /// The registered name that is most similar, if any is similar.
        suggestion: Option<String>,
        /// The registered names, in alphabetical order.
        known: Vec<String>,
    },
    /// A scheduler of this name is registered already.
    #[error("scheduler {name} is already registered")]
    DuplicateName {
        /// The name.
        name: String,
    },
    /// The name to be registered cannot be written in an expression.
    #[error(
        "{name:?} cannot name a scheduler: a name consists of ASCII letters, digits, '_' and '-'"
    )]
    InvalidName {
        /// The name.
        name: String,
    },
    /// The scheduler has no parameter of this name.
    #[error("{scheduler}: unknown parameter {parameter}, {}", list_parameters(known))]
    UnknownParameter {
        /// The scheduler.
        scheduler: String,
        /// The parameter, as written.
        parameter: String,
        /// The parameters that the scheduler has.
        known: Vec<String>,
    },
    /// The parameter does not accept the value.
    #[error(transparent)]
    InvalidValue(#[from] SchedulerParameterError),
    /// A parameter that needs a value is written without one.
    #[error("{scheduler}: parameter {parameter} needs a value, {expected}")]
    MissingValue {
        /// The scheduler.
        scheduler: String,
        /// The parameter.
        parameter: String,
        /// The values that the parameter accepts.
        expected: String,
    },
    /// A flag is written with a value.
    #[error("{scheduler}: {parameter} is a flag and takes no value, but is given {value}")]
    UnexpectedValue {
        /// The scheduler.
        scheduler: String,
        /// The flag.
        parameter: String,
        /// The value, as written.
        value: String,
    },
    /// A required parameter is not given.
    #[error("scheduler {scheduler} {}", missing_text(scheduler, parameter))]
    MissingParameter {
        /// The scheduler.
        scheduler: String,
        /// A parameter's name, or "a scheduler".
        parameter: String,
    },
    /// A parameter is given more than once.
    #[error("{scheduler}: parameter {parameter} is given twice")]
    DuplicateParameter {
        /// The scheduler.
        scheduler: String,
        /// The parameter.
        parameter: String,
    },
    /// The scheduler does not accept its parameters taken together.
    #[error("{scheduler}: {source}")]
    InvalidParameters {
        /// The scheduler.
        scheduler: String,
        /// The reason that the factory gave.
        source: Box<dyn std::error::Error + Send + Sync>,
    },
}

fn missing_text(scheduler: &str, parameter: &str) -> String {
    match parameter == NESTED_SCHEDULER.name {
        true => format!("wraps another scheduler: write {scheduler}(wlc), for example"),
        false => format!("requires {parameter}"),
    }
}

fn suggestion_or_list(suggestion: &Option<String>, known: &[String]) -> String {
    match suggestion {
        Some(name) => format!(", did you mean {name}?"),
        None => format!("; those that exist are {}", known.join(", ")),
    }
}

fn list_parameters(known: &[String]) -> String {
    let named: Vec<&str> =
        known.iter().map(String::as_str).filter(|name| *name != NESTED_SCHEDULER.name).collect();
    let takes_scheduler = named.len() < known.len();
    match (takes_scheduler, named.is_empty()) {
        (false, true) => "it has no parameters".to_owned(),
        (false, false) => format!("its parameters are {}", named.join(", ")),
        (true, true) => "it takes one scheduler and no parameters".to_owned(),
        (true, false) => format!("it takes one scheduler and the parameters {}", named.join(", ")),
    }
}
