//! Observations of a member that an ejector judges.

use std::time::Duration;

use crate::backend::OutcomeCounts;

/// The counters and the state of one member, as of one sweep.
#[derive(Clone, Copy, Debug)]
pub struct OutlierSample {
    /// The serial of the member: a number that is never reused within a set.
    pub serial: u64,
    /// The outcomes of its leases since it was created. A sweep takes the difference to the previous
    /// sample.
    pub outcomes: OutcomeCounts,
    /// The mean latency since the previous sweep, if known.
    pub latency: Option<Duration>,
    /// Whether the operator lets the member take new work: enabled, with a weight above 0.
    pub enabled: bool,
    /// Whether the member is up by its active checks.
    pub up: bool,
}

/// The current failure streak of one member, reported between sweeps.
///
/// A count at or above the threshold of its detector ejects the member; lower counts are ignored. If
/// the limit on ejected members [refuses](super::EjectionCounters::refused) the ejection, the ejector
/// does not remember the streak: report it again while it grows, for instance at each multiple of the
/// threshold.
#[derive(Clone, Copy, Debug, Default, Eq, PartialEq)]
pub struct StreakReport {
    /// Failures of any kind in a row.
    pub failures: u32,
    /// Failed connects in a row.
    pub connect_failures: u32,
    /// Whether one of the failures is an answer of the member, such as a reset in mid-stream: then a
    /// connection that is made [proves nothing](super::Ejector::handle_connected).
    pub has_app_error: bool,
}
