//! Settings of the detectors that compare the members in a sweep.
//!
//! [`EjectionPolicyBuilder::build`](crate::health::EjectionPolicyBuilder::build) checks their ranges.

use std::time::Duration;

use crate::setting::{SettingError, check_range};

/// Settings of the detector that finds a member with at least this percentage of failures in a
/// sweep, whatever the other members do.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
#[must_use]
pub struct FailurePercentageDetector {
    pub(super) percent: u8,
    pub(super) min_hosts: u32,
    pub(super) min_requests: u32,
}

impl FailurePercentageDetector {
    /// Creates a detector with the defaults of Envoy and gRPC.
    pub const fn new() -> Self {
        Self { percent: 85, min_hosts: 5, min_requests: 50 }
    }

    /// Sets the percentage of failures that ejects a member, from 1 to 100. Default: 85.
    ///
    /// Exactly this percentage ejects, as in Envoy; gRPC ejects only above it.
    pub const fn percent(self, percent: u8) -> Self {
        Self { percent, ..self }
    }

    /// Sets how many members must have [enough requests](Self::min_requests) for the detector to
    /// act, at least 1. Default: 5.
    pub const fn min_hosts(self, hosts: u32) -> Self {
        Self { min_hosts: hosts, ..self }
    }

    /// Sets how many requests in a sweep a member needs to be judged, at least 1. Default: 50.
    pub const fn min_requests(self, requests: u32) -> Self {
        Self { min_requests: requests, ..self }
    }

    pub(super) fn validate(&self) -> Result<(), SettingError> {
        check_range("failure_percentage.percent", self.percent, 1..=100)?;
        check_range("failure_percentage.min_hosts", self.min_hosts, 1..)?;
        check_range("failure_percentage.min_requests", self.min_requests, 1..)?;
        Ok(())
    }
}

impl Default for FailurePercentageDetector {
    fn default() -> Self {
        Self::new()
    }
}

/// Settings of the detector that finds a member whose success rate is below the mean of the set by
/// this many standard deviations.
///
/// Mean and deviation are those of the members' success rates in one sweep; each member counts the
/// same, and the outlier is part of both. In a set of `n` members a single outlier is at most
/// `sqrt(n - 1)` deviations from the mean: 2.0 of five, 1.73 of four. Therefore 1.9 deviations need at
/// least five members.
#[derive(Clone, Copy, Debug, PartialEq)]
#[must_use]
pub struct SuccessRateDetector {
    pub(super) deviations: f64,
    pub(super) margin: u8,
    pub(super) min_hosts: u32,
    pub(super) min_requests: u32,
}

impl SuccessRateDetector {
    /// Creates a detector with the defaults of Envoy and gRPC and a [margin](Self::margin).
    pub const fn new() -> Self {
        Self { deviations: 1.9, margin: 5, min_hosts: 5, min_requests: 100 }
    }

    /// Sets how many standard deviations below the mean a success rate must be, from 0.001 to 100.
    /// Default: 1.9.
    pub const fn deviations(self, deviations: f64) -> Self {
        Self { deviations, ..self }
    }

    /// Sets how many percentage points below the mean a success rate must be in addition, from 0 to
    /// 100. Default: 5.
    ///
    /// With 0 the rule is that of Envoy and gRPC, and one failure in a hundred ejects a member if the
    /// other four had none: that is 2.0 deviations, however small the deviation is. The margin keeps
    /// such members.
    pub const fn margin(self, points: u8) -> Self {
        Self { margin: points, ..self }
    }

    /// Sets how many members must have [enough requests](Self::min_requests) for the detector to
    /// act, at least 2. Default: 5.
    pub const fn min_hosts(self, hosts: u32) -> Self {
        Self { min_hosts: hosts, ..self }
    }

    /// Sets how many requests in a sweep a member needs to be judged and to be part of the mean, at
    /// least 1. Default: 100.
    pub const fn min_requests(self, requests: u32) -> Self {
        Self { min_requests: requests, ..self }
    }

    pub(super) fn validate(&self) -> Result<(), SettingError> {
        check_range("success_rate.deviations", self.deviations, 0.001..=100.0)?;
        check_range("success_rate.margin", self.margin, 0..=100)?;
        // The mean of a single member is its own rate.
        check_range("success_rate.min_hosts", self.min_hosts, 2..)?;
        check_range("success_rate.min_requests", self.min_requests, 1..)?;
        Ok(())
    }
}

impl Default for SuccessRateDetector {
    fn default() -> Self {
        Self::new()
    }
}

/// Settings of the detector that finds a member whose mean latency is above this multiple of the
/// median of the other members' mean latencies.
#[derive(Clone, Copy, Debug, PartialEq)]
#[must_use]
pub struct LatencyDetector {
    pub(super) factor: f64,
    pub(super) floor: Duration,
    pub(super) min_hosts: u32,
    pub(super) min_requests: u32,
}

impl LatencyDetector {
    /// Creates a detector that ejects above `factor` times the median of the other members, from 1
    /// to 1 000 000.
    ///
    /// It compares with the median and not with the mean because a slow member of a small set raises
    /// the mean.
    pub const fn new(factor: f64) -> Self {
        Self { factor, floor: Duration::from_millis(10), min_hosts: 5, min_requests: 100 }
    }

    /// Sets the mean latency that a member must exceed to be ejected. Default: 10 ms.
    ///
    /// Below it the differences between members come from caches and thread scheduling, not from
    /// faulty servers.
    pub const fn floor(self, latency: Duration) -> Self {
        Self { floor: latency, ..self }
    }

    /// Sets how many members must have [enough requests](Self::min_requests) for the detector to
    /// act, at least 2. Default: 5.
    pub const fn min_hosts(self, hosts: u32) -> Self {
        Self { min_hosts: hosts, ..self }
    }

    /// Sets how many successful requests in a sweep a member needs to be compared, at least 1.
    /// Default: 100.
    pub const fn min_requests(self, requests: u32) -> Self {
        Self { min_requests: requests, ..self }
    }

    pub(super) fn validate(&self) -> Result<(), SettingError> {
        check_range("latency.factor", self.factor, 1.0..=1_000_000.0)?;
        // A single member has no others to be compared with.
        check_range("latency.min_hosts", self.min_hosts, 2..)?;
        check_range("latency.min_requests", self.min_requests, 1..)?;
        Ok(())
    }
}
