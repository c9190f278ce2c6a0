//! The list of schedulers that tests and benches use.
#![allow(dead_code, reason = "shared by test and bench binaries that use parts of it")]

use std::sync::Arc;

use lvs::Scheduler;
use lvs::scheduler::parse;

/// Every scheduler, as an expression of the configuration; some in several settings.
pub(crate) const ALL: &[&str] = &[
    // Linux IPVS.
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
    // Weight, load, latency and consistent hashing.
    "swrr",
    "swrr(offset=9)",
    "random",
    "p2c",
    "peak_ewma(decay=5s)",
    "first",
    "hot_cold",
    "hot_cold(pool=4, probes=2, reuse=3)",
    "ring",
    "ring(replicas=40, seed=3)",
    "rendezvous",
    "rendezvous(rows=4096)",
    "maglev",
    "maglev(size=1021, seed=3)",
    // Wrappers.
    "bounded(ring)",
    "bounded(rendezvous, factor=2)",
    "bounded(maglev, factor=1.1)",
    "bounded(mh(mh-fallback))",
    "priority(rr)",
    "priority(maglev, overprovisioning=100)",
    "priority(rr, panic=0)",
    "subset(rr, size=2)",
    "subset(bounded(ring), size=3, client=7)",
];

/// Builds the scheduler of an expression.
///
/// # Panics
/// If the expression is invalid.
pub(crate) fn scheduler(expression: &str) -> Arc<dyn Scheduler> {
    parse(expression).unwrap_or_else(|error| panic!("{expression}: {error}"))
}

/// Returns whether an expression is of this rule with any parameters: `"ring(seed=3)"` is of
/// `"ring"`.
pub(crate) fn is(expression: &str, rule: &str) -> bool {
    expression.split('(').next() == Some(rule)
}
