//! The outcomes of leases, and their counters.

use crate::sync::{AtomicU64, Ordering};

/// The outcome of the work under a lease.
///
/// Only [`Outcome::Ok`] feeds latency estimates: a server that fails fast must not look fast.
/// [`Outcome::Cancelled`] says nothing about the backend and feeds no estimate.
#[derive(Clone, Copy, Debug, Eq, Hash, PartialEq)]
#[cfg_attr(feature = "serde", derive(serde::Deserialize, serde::Serialize))]
#[cfg_attr(feature = "serde", serde(rename_all = "snake_case"))]
#[non_exhaustive]
pub enum Outcome {
    /// The backend did the work.
    Ok,
    /// The backend answered with a failure, such as an HTTP 5xx or a reset in mid-stream.
    AppError,
    /// The connection to the backend failed.
    ConnectError,
    /// The backend did not answer in time.
    Timeout,
    /// The caller gave up. A lease that is dropped without an outcome counts as this.
    Cancelled,
}

impl Outcome {
    /// Every outcome, in the order of [`OutcomeCounts`].
    pub const ALL: [Self; 5] =
        [Self::Ok, Self::AppError, Self::ConnectError, Self::Timeout, Self::Cancelled];

    /// Tells whether the outcome is a failure of the backend.
    #[must_use]
    pub const fn is_failure(self) -> bool {
        matches!(self, Self::AppError | Self::ConnectError | Self::Timeout)
    }

    /// Returns the short name in metrics and logs.
    #[must_use]
    pub const fn name(self) -> &'static str {
        match self {
            Self::Ok => "ok",
            Self::AppError => "app_error",
            Self::ConnectError => "connect_error",
            Self::Timeout => "timeout",
            Self::Cancelled => "cancelled",
        }
    }
}

/// The number of one backend's leases by outcome, since the backend was made.
#[derive(Clone, Copy, Debug, Default, Eq, PartialEq)]
#[cfg_attr(feature = "serde", derive(serde::Deserialize, serde::Serialize))]
#[non_exhaustive]
pub struct OutcomeCounts {
    /// Leases that ended with [`Outcome::Ok`].
    pub ok: u64,
    /// Leases that ended with [`Outcome::AppError`].
    pub app_error: u64,
    /// Leases that ended with [`Outcome::ConnectError`].
    pub connect_error: u64,
    /// Leases that ended with [`Outcome::Timeout`].
    pub timeout: u64,
    /// Leases that ended with [`Outcome::Cancelled`].
    pub cancelled: u64,
}

impl OutcomeCounts {
    /// Returns the number of leases that ended.
    #[must_use]
    pub const fn total(&self) -> u64 {
        self.ok + self.failures() + self.cancelled
    }

    pub(super) const fn plus(self, other: Self) -> Self {
        Self {
            ok: self.ok + other.ok,
            app_error: self.app_error + other.app_error,
            connect_error: self.connect_error + other.connect_error,
            timeout: self.timeout + other.timeout,
            cancelled: self.cancelled + other.cancelled,
        }
    }

    /// Returns the number of leases that ended with a failure of the backend.
    #[must_use]
    pub const fn failures(&self) -> u64 {
        self.app_error + self.connect_error + self.timeout
    }
}

/// The counters of the outcomes that nearly all leases have.
#[derive(Debug, Default)]
pub(super) struct CommonOutcomeCounters {
    ok: AtomicU64,
    cancelled: AtomicU64,
}

/// The counters of failures, apart from the cache line that every lease touches.
#[derive(Debug, Default)]
pub(super) struct FailureCounters {
    app_error: AtomicU64,
    connect_error: AtomicU64,
    timeout: AtomicU64,
}

/// Counts the outcome of a lease.
#[inline]
pub(super) fn count_outcome(
    outcome: Outcome,
    common: &CommonOutcomeCounters,
    failures: &FailureCounters,
) {
    let counter = match outcome {
        Outcome::Ok => &common.ok,
        Outcome::Cancelled => &common.cancelled,
        Outcome::AppError => &failures.app_error,
        Outcome::ConnectError => &failures.connect_error,
        Outcome::Timeout => &failures.timeout,
    };
    // Relaxed: a statistic that orders nothing.
    counter.fetch_add(1, Ordering::Relaxed);
}

/// Adds the outcomes that an earlier process counted.
#[cfg(feature = "health")]
pub(super) fn add_outcomes(
    outcomes: OutcomeCounts,
    common: &CommonOutcomeCounters,
    failures: &FailureCounters,
) {
    let add = |counter: &AtomicU64, count| counter.fetch_add(count, Ordering::Relaxed);
    add(&common.ok, outcomes.ok);
    add(&common.cancelled, outcomes.cancelled);
    add(&failures.app_error, outcomes.app_error);
    add(&failures.connect_error, outcomes.connect_error);
    add(&failures.timeout, outcomes.timeout);
}

/// Reads the counters of [`count_outcome`].
pub(super) fn read_outcomes(
    common: &CommonOutcomeCounters,
    failures: &FailureCounters,
) -> OutcomeCounts {
    let read = |counter: &AtomicU64| counter.load(Ordering::Relaxed);
    OutcomeCounts {
        ok: read(&common.ok),
        app_error: read(&failures.app_error),
        connect_error: read(&failures.connect_error),
        timeout: read(&failures.timeout),
        cancelled: read(&common.cancelled),
    }
}
