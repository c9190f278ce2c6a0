//! How a lease ended, and the totals of it.

use crate::sync::{AtomicU64, Ordering};

/// How the work under a lease ended.
///
/// Only [`Outcome::Ok`] feeds latency estimates: a server that fails fast must never look quick.
/// [`Outcome::Cancelled`] is nobody's fault and counts for nothing but itself.
#[derive(Clone, Copy, Debug, Eq, Hash, PartialEq)]
#[non_exhaustive]
pub enum Outcome {
    /// The backend did what was asked.
    Ok,
    /// The backend answered, and the answer was a failure (an HTTP 5xx, a reset in mid-stream).
    AppError,
    /// No connection to the backend could be made.
    ConnectError,
    /// The backend did not answer in time.
    Timeout,
    /// The caller gave up; also what a lease that is dropped without a word counts as.
    Cancelled,
}

impl Outcome {
    /// Every outcome, in the order of [`OutcomeCounts`].
    pub const ALL: [Self; 5] =
        [Self::Ok, Self::AppError, Self::ConnectError, Self::Timeout, Self::Cancelled];

    /// Tells whether the outcome speaks against the backend.
    #[must_use]
    pub const fn is_failure(self) -> bool {
        matches!(self, Self::AppError | Self::ConnectError | Self::Timeout)
    }

    /// The short name in metrics and logs.
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

/// How many leases of one backend ended in which way, since the backend was made.
#[derive(Clone, Copy, Debug, Default, Eq, PartialEq)]
#[cfg_attr(feature = "health", derive(serde::Deserialize, serde::Serialize))]
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
    /// All leases that ended.
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

    /// The leases whose end speaks against the backend.
    #[must_use]
    pub const fn failures(&self) -> u64 {
        self.app_error + self.connect_error + self.timeout
    }
}

/// The live counters behind [`OutcomeCounts`] that nearly all leases end in.
#[derive(Debug, Default)]
pub(super) struct CommonOutcomeCounters {
    ok: AtomicU64,
    cancelled: AtomicU64,
}

/// The others: apart, so that the line of memory that every lease touches has room for more.
#[derive(Debug, Default)]
pub(super) struct FailureCounters {
    app_error: AtomicU64,
    connect_error: AtomicU64,
    timeout: AtomicU64,
}

/// Counts how a lease ended.
#[inline]
pub(super) fn count_outcome(
    outcome: Outcome,
    usual: &CommonOutcomeCounters,
    failures: &FailureCounters,
) {
    let counter = match outcome {
        Outcome::Ok => &usual.ok,
        Outcome::Cancelled => &usual.cancelled,
        Outcome::AppError => &failures.app_error,
        Outcome::ConnectError => &failures.connect_error,
        Outcome::Timeout => &failures.timeout,
    };
    // Relaxed: a statistic that orders nothing.
    counter.fetch_add(1, Ordering::Relaxed);
}

/// Adds what was counted in an earlier life.
#[cfg(feature = "health")]
pub(super) fn add_outcomes(
    outcomes: OutcomeCounts,
    usual: &CommonOutcomeCounters,
    failures: &FailureCounters,
) {
    let add = |counter: &AtomicU64, count| counter.fetch_add(count, Ordering::Relaxed);
    add(&usual.ok, outcomes.ok);
    add(&usual.cancelled, outcomes.cancelled);
    add(&failures.app_error, outcomes.app_error);
    add(&failures.connect_error, outcomes.connect_error);
    add(&failures.timeout, outcomes.timeout);
}

/// Reads what [`count_outcome`] has counted.
pub(super) fn read_outcomes(
    usual: &CommonOutcomeCounters,
    failures: &FailureCounters,
) -> OutcomeCounts {
    let read = |counter: &AtomicU64| counter.load(Ordering::Relaxed);
    OutcomeCounts {
        ok: read(&usual.ok),
        app_error: read(&failures.app_error),
        connect_error: read(&failures.connect_error),
        timeout: read(&failures.timeout),
        cancelled: read(&usual.cancelled),
    }
}
