//! The schedulers that tests and benches go through: the one list to extend.

use std::sync::Arc;

use lvs::Scheduler;
use lvs::scheduler::RoundRobin;

/// Every scheduler, as an expression of the configuration.
pub const ALL: &[&str] = &["rr"];

/// Makes the scheduler that an expression names.
///
/// # Panics
/// When the expression names none.
#[must_use]
pub fn scheduler(expression: &str) -> Arc<dyn Scheduler> {
    match expression {
        "rr" => Arc::new(RoundRobin),
        other => panic!("no scheduler is called {other}"),
    }
}

/// Tells whether an expression is of this rule, whatever its settings: `"ring(bits=20)"` is of
/// `"ring"`.
#[must_use]
pub fn is(expression: &str, rule: &str) -> bool {
    expression.split('(').next() == Some(rule)
}
