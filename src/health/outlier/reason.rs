//! Why a backend was ejected.

use std::fmt;
use std::time::Duration;

use serde::{Deserialize, Serialize};

/// Why a backend was ejected, with the figures that decided it.
///
/// # Examples
/// ```
/// use lvs::health::EjectionReason;
///
/// assert_eq!(EjectionReason::ConsecutiveFailures { failures: 5 }.to_string(), "5 failures in a row");
/// let cause = EjectionReason::FailurePercentage { failures: 120, requests: 130 };
/// assert_eq!(cause.to_string(), "failed 92 % of 130 requests");
/// ```
#[derive(Clone, Copy, Debug, Deserialize, Eq, Hash, PartialEq, Serialize)]
#[non_exhaustive]
pub enum EjectionReason {
    /// So many failures of any kind in a row.
    ConsecutiveFailures {
        /// The length of the run.
        failures: u32,
    },
    /// So many connects in a row that failed or timed out.
    ConnectFailures {
        /// The length of the run.
        failures: u32,
    },
    /// Too many of the requests of a sweep failed.
    FailurePercentage {
        /// The requests that failed.
        failures: u64,
        /// The requests that ended, but for those that were cancelled.
        requests: u64,
    },
    /// The share of requests that succeeded in a sweep was far below that of the others.
    SuccessRate {
        /// Its share, in tenths of a percent.
        permille: u16,
        /// The share below which it is an outlier, in tenths of a percent.
        threshold_permille: u16,
    },
    /// The answers of a sweep took far longer than those of the others.
    Latency {
        /// Its mean latency.
        mean: Duration,
        /// The median of the others' mean latencies.
        median: Duration,
    },
    /// It had been ejected, and failed the trial after it.
    TrialFailed,
}

impl EjectionReason {
    /// The detector behind it.
    #[must_use]
    pub const fn kind(&self) -> EjectionReasonKind {
        match self {
            Self::ConsecutiveFailures { .. } => EjectionReasonKind::ConsecutiveFailures,
            Self::ConnectFailures { .. } => EjectionReasonKind::ConnectFailures,
            Self::FailurePercentage { .. } => EjectionReasonKind::FailurePercentage,
            Self::SuccessRate { .. } => EjectionReasonKind::SuccessRate,
            Self::Latency { .. } => EjectionReasonKind::Latency,
            Self::TrialFailed => EjectionReasonKind::TrialFailed,
        }
    }
}

impl fmt::Display for EjectionReason {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match *self {
            Self::ConsecutiveFailures { failures } => write!(f, "{failures} failures in a row"),
            Self::ConnectFailures { failures } => write!(f, "{failures} failed connects in a row"),
            Self::FailurePercentage { failures, requests } => {
                let percent = u128::from(failures) * 100 / u128::from(requests.max(1));
                write!(f, "failed {percent} % of {requests} requests")
            }
            Self::SuccessRate { permille, threshold_permille } => {
                let (rate, threshold) =
                    (PermilleAsPercent(permille), PermilleAsPercent(threshold_permille));
                write!(f, "success rate {rate} % below {threshold} %")
            }
            Self::Latency { mean, median } => {
                let (mean, median) = (LatencyMillis(mean), LatencyMillis(median));
                write!(f, "mean latency {mean} ms, the others' median {median} ms")
            }
            Self::TrialFailed => f.write_str("failed the trial after its ejection"),
        }
    }
}

struct PermilleAsPercent(u16);

impl fmt::Display for PermilleAsPercent {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}.{}", self.0 / 10, self.0 % 10)
    }
}

struct LatencyMillis(Duration);

impl fmt::Display for LatencyMillis {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let millis = self.0.as_secs_f64() * 1000.0;
        let decimals = if millis < 10.0 { 1 } else { 0 };
        write!(f, "{millis:.decimals$}")
    }
}

/// The kinds of [`EjectionReason`], as metrics count them.
#[derive(Clone, Copy, Debug, Eq, Hash, PartialEq)]
#[non_exhaustive]
pub enum EjectionReasonKind {
    /// A run of failures of any kind.
    ConsecutiveFailures,
    /// A run of failed connects.
    ConnectFailures,
    /// The share of failures.
    FailurePercentage,
    /// The success rate against that of the others.
    SuccessRate,
    /// The latency against that of the others.
    Latency,
    /// A failed trial.
    TrialFailed,
}

impl EjectionReasonKind {
    /// Every kind, in the order of the [table](super#detectors).
    pub const ALL: [Self; 6] = [
        Self::ConsecutiveFailures,
        Self::ConnectFailures,
        Self::FailurePercentage,
        Self::SuccessRate,
        Self::Latency,
        Self::TrialFailed,
    ];

    /// The short name in metrics and logs.
    #[must_use]
    pub const fn name(self) -> &'static str {
        match self {
            Self::ConsecutiveFailures => "consecutive_failures",
            Self::ConnectFailures => "connect_failures",
            Self::FailurePercentage => "failure_percentage",
            Self::SuccessRate => "success_rate",
            Self::Latency => "latency",
            Self::TrialFailed => "trial_failed",
        }
    }
}

impl fmt::Display for EjectionReasonKind {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.name())
    }
}
