//! Reasons for an ejection.

use std::fmt;
use std::time::Duration;

use serde::{Deserialize, Serialize};

/// Why a backend was ejected, with the figures that decided it.
///
/// # Examples
/// ```
/// use lvs::health::outlier::EjectionReason;
///
/// let reason = EjectionReason::ConsecutiveFailures { failures: 5 };
/// assert_eq!(reason.to_string(), "5 failures in a row");
/// let reason = EjectionReason::FailurePercentage { failures: 120, requests: 130 };
/// assert_eq!(reason.to_string(), "failed 92 % of 130 requests");
/// ```
#[derive(Clone, Copy, Debug, Deserialize, Eq, Hash, PartialEq, Serialize)]
#[serde(rename_all = "snake_case")]
#[non_exhaustive]
pub enum EjectionReason {
    /// Too many failures of any kind in a row.
    ConsecutiveFailures {
        /// The failures in a row.
        failures: u32,
    },
    /// Too many failed or timed out connects in a row.
    ConnectFailures {
        /// The failed connects in a row.
        failures: u32,
    },
    /// Too many of the requests of a sweep failed.
    FailurePercentage {
        /// The requests that failed.
        failures: u64,
        /// The requests that ended, without the cancelled ones.
        requests: u64,
    },
    /// The success rate of a sweep was far below that of the other members.
    SuccessRate {
        /// The success rate of the backend, in tenths of a percent.
        permille: u16,
        /// The success rate below which a member is an outlier, in tenths of a percent.
        threshold_permille: u16,
    },
    /// The mean latency of a sweep was far above that of the other members.
    Latency {
        /// The mean latency of the backend.
        mean: Duration,
        /// The median of the other members' mean latencies.
        median: Duration,
    },
    /// The trial after an ejection failed.
    TrialFailed,
}

impl EjectionReason {
    /// Returns the kind of the reason, without its figures.
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
                write!(f, "success rate of {rate} % is below the threshold of {threshold} %")
            }
            Self::Latency { mean, median } => {
                let (mean, median) = (LatencyMillis(mean), LatencyMillis(median));
                write!(f, "mean latency of {mean} ms, median of the other backends {median} ms")
            }
            Self::TrialFailed => f.write_str("trial after the ejection failed"),
        }
    }
}

/// A share in tenths of a percent, displayed in percent.
struct PermilleAsPercent(u16);

impl fmt::Display for PermilleAsPercent {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}.{}", self.0 / 10, self.0 % 10)
    }
}

/// A duration displayed in milliseconds, with one decimal below 10 ms.
struct LatencyMillis(Duration);

impl fmt::Display for LatencyMillis {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let millis = self.0.as_secs_f64() * 1000.0;
        let decimals = if millis < 10.0 { 1 } else { 0 };
        write!(f, "{millis:.decimals$}")
    }
}

/// The kind of an [`EjectionReason`], as metrics count it.
#[derive(Clone, Copy, Debug, Eq, Hash, PartialEq, serde::Serialize)]
#[serde(rename_all = "snake_case")]
#[non_exhaustive]
pub enum EjectionReasonKind {
    /// Failures of any kind in a row.
    ConsecutiveFailures,
    /// Failed connects in a row.
    ConnectFailures,
    /// A high percentage of failures.
    FailurePercentage,
    /// A success rate below that of the other members.
    SuccessRate,
    /// A latency above that of the other members.
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

    /// Returns the short name used in metrics and logs.
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
