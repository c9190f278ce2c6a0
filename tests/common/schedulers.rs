//! The schedulers that tests and benches go through: the one list to extend.
#![allow(dead_code, reason = "shared by test and bench binaries that use parts of it")]

use std::sync::Arc;

use lvs::Scheduler;
use lvs::scheduler::parse;

/// Every scheduler, as an expression of the configuration; some in several settings.
pub(crate) const ALL: &[&str] = &[
    // The kernel's.
    "rr",
    "wrr",
    "lc",
    "wlc",
    "wlc(overhead=total)",
    "sed",
    "nq",
    "fo",
    "ovf",
    "dh",
    "sh",
    "sh(sh-port, sh-fallback)",
    "mh",
    "mh(mh-port, mh-fallback)",
    "lblc",
    "lblcr",
    "twos",
    // Wrappers.
    "priority(rr)",
    "priority(rr, panic=0)",
];

/// Makes the scheduler that an expression names.
///
/// # Panics
/// When the expression names none.
pub(crate) fn scheduler(expression: &str) -> Arc<dyn Scheduler> {
    parse(expression).unwrap_or_else(|error| panic!("{expression}: {error}"))
}

/// Tells whether an expression is of this rule, whatever its settings: `"ring(bits=20)"` is of
/// `"ring"`.
pub(crate) fn is(expression: &str, rule: &str) -> bool {
    expression.split('(').next() == Some(rule)
}
