//! The schedulers that tests and benches go through: the one list to extend.
#![allow(dead_code, reason = "shared by test and bench binaries that use parts of it")]

use std::sync::Arc;

use lvs::Scheduler;
use lvs::scheduler::RoundRobin;

/// Every scheduler, as an expression of the configuration.
pub(crate) const ALL: &[&str] = &["rr"];

/// Makes the scheduler that an expression names.
///
/// # Panics
/// When the expression names none.
pub(crate) fn scheduler(expression: &str) -> Arc<dyn Scheduler> {
    match expression {
        "rr" => Arc::new(RoundRobin),
        other => panic!("no scheduler is called {other}"),
    }
}

/// Tells whether an expression is of this rule, whatever its settings: `"ring(bits=20)"` is of
/// `"ring"`.
pub(crate) fn is(expression: &str, rule: &str) -> bool {
    expression.split('(').next() == Some(rule)
}
