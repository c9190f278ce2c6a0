//! The `[service.ejection]` table.

use serde::Deserialize;

use super::error::{ConfigProblem, KeyPathSegment};
use super::slow_start::SlowStartConfig;
use super::table::config_table;
use super::value::{HumanDuration, apply_duration_if_some, apply_if_some};
use crate::health::{
    EjectionPolicy, EjectionPolicyBuilder, FailurePercentageDetector, LatencyDetector,
    SuccessRateDetector,
};

config_table! {
/// A builder of a [`EjectionConfig`].
builder EjectionConfigBuilder;

/// Outlier ejection: a server whose traffic fails is taken out for a time.
///
/// An empty table enables it with the defaults. After its ejection a server gets one connection as a
/// trial, and its share again if that succeeds. A sweep compares the servers by the traffic since
/// the sweep before.
#[derive(Clone, Debug, Default, Deserialize, PartialEq)]
#[serde(deny_unknown_fields, expecting = "a table")]
pub struct EjectionConfig {
    /// Ejects a server after this many failures of any kind in a row; `0` disables the rule.
    /// Default: `5`.
    consecutive_failures: Option<u32>,
    /// Ejects a server after this many connects in a row that failed or timed out; `0` disables the
    /// rule. Default: `3`.
    consecutive_connect_failures: Option<u32>,
    /// Ejects servers that fail a share of their connections in a sweep. Default: enabled, with the
    /// defaults of its table.
    failure_percentage: Option<FailurePercentageConfig>,
    /// Ejects servers that succeed far less often than the others in a sweep. Default: enabled, with
    /// the defaults of its table.
    success_rate: Option<SuccessRateConfig>,
    /// Ejects servers that take far longer than the others in a sweep. Default: disabled.
    latency: Option<LatencyFactorConfig>,
    /// The time between two sweeps, from 1 ms to 1 day. Default: `"10s"`.
    sweep_interval: Option<HumanDuration>,
    /// The duration of the first ejection, from 1 ms to 1 day; each further one in a row is longer
    /// by the same time. Default: `"30s"`.
    base_ejection_time: Option<HumanDuration>,
    /// The maximum duration of an ejection without `jitter`, from `base_ejection_time` to 1 day.
    /// Default: `"300s"`.
    max_ejection_time: Option<HumanDuration>,
    /// Lengthens each ejection by a random time of at most this, up to 1 day. Default: `"0s"`.
    jitter: Option<HumanDuration>,
    /// The maximum share of the servers that may be ejected at once, in percent, from 0 to 100; above 0
    /// one server may be ejected in any case, and `0` ejects none. Default: `10`.
    max_ejected_percent: Option<u8>,
    /// Whether a health check that succeeds ends an ejection. Default: `false`.
    check_ends_ejection: Option<bool>,
    /// The slow start of a server that has passed its trial. Default: `{ window = "10s" }`.
    ramp: Option<SlowStartConfig>,
    /// A trial connection that lasts this long has succeeded, from 1 ms to 1 day. After an ejection for
    /// failed connects alone it has succeeded when it is made. Default: `"10s"`.
    max_trial_time: Option<HumanDuration>,
}
}

config_table! {
/// A builder of a [`FailurePercentageConfig`].
builder FailurePercentageConfigBuilder;

/// Ejection of servers that fail a share of their connections in a sweep.
#[derive(Clone, Debug, Default, Deserialize, PartialEq)]
#[serde(deny_unknown_fields, expecting = "a table")]
pub struct FailurePercentageConfig {
    /// The share of failures that ejects, in percent, from 1 to 100. Default: `85`.
    percent: Option<u8>,
    /// How many servers must have had `min_requests` connections, at least 1. Default: `5`.
    min_hosts: Option<u32>,
    /// The minimum number of connections in a sweep for a server to be judged, at least 1. Default:
    /// `50`.
    min_requests: Option<u32>,
    /// Disables the rule. Default: `false`.
    #[serde(default)]
    off: bool,
}
}

config_table! {
/// A builder of a [`SuccessRateConfig`].
builder SuccessRateConfigBuilder;

/// Ejection of servers that succeed far less often than the others in a sweep.
#[derive(Clone, Debug, Default, Deserialize, PartialEq)]
#[serde(deny_unknown_fields, expecting = "a table")]
pub struct SuccessRateConfig {
    /// How many standard deviations below the mean ejects a server, from 0.001 to 100. Default:
    /// `1.9`.
    deviations: Option<f64>,
    /// How far below the mean the server must be besides, in percentage points, from 0 to 100.
    /// Default: `5`.
    margin: Option<u8>,
    /// How many servers must have had `min_requests` connections, at least 2. Default: `5`.
    min_hosts: Option<u32>,
    /// The minimum number of connections in a sweep for a server to be compared, at least 1.
    /// Default: `100`.
    min_requests: Option<u32>,
    /// Disables the rule. Default: `false`.
    #[serde(default)]
    off: bool,
}
}

config_table! {
/// A builder of a [`LatencyFactorConfig`].
builder LatencyFactorConfigBuilder;

/// Ejection of servers that take far longer than the others in a sweep.
#[derive(Clone, Debug, Deserialize, PartialEq)]
#[serde(deny_unknown_fields, expecting = "a table")]
pub struct LatencyFactorConfig {
    /// How many times the latency of the others ejects a server, from 1 to 1000000.
    factor: f64,
    /// A server whose mean latency is not above this is never ejected. Default: `"10ms"`.
    floor: Option<HumanDuration>,
    /// How many servers must have had `min_requests` connections, at least 2. Default: `5`.
    min_hosts: Option<u32>,
    /// The minimum number of successful connections in a sweep for a server to be compared, at
    /// least 1. Default: `100`.
    min_requests: Option<u32>,
}
}

/// Returns `None`, which disables a rule, for 0.
fn none_if_zero(count: u32) -> Option<u32> {
    (count > 0).then_some(count)
}

impl EjectionConfig {
    /// Returns a builder of ejection with the defaults.
    pub fn builder() -> EjectionConfigBuilder {
        EjectionConfigBuilder { table: Self::default() }
    }

    pub(super) fn to_ejection(&self) -> Result<EjectionPolicy, ConfigProblem> {
        let policy = EjectionPolicy::builder();
        let failures = self.consecutive_failures.map(none_if_zero);
        let policy = apply_if_some(policy, failures, EjectionPolicyBuilder::consecutive_failures);
        let failures = self.consecutive_connect_failures.map(none_if_zero);
        let policy =
            apply_if_some(policy, failures, EjectionPolicyBuilder::consecutive_connect_failures);
        let detector =
            self.failure_percentage.as_ref().map(FailurePercentageConfig::to_failure_percentage);
        let policy = apply_if_some(policy, detector, EjectionPolicyBuilder::failure_percentage);
        let detector = self.success_rate.as_ref().map(SuccessRateConfig::to_success_rate);
        let policy = apply_if_some(policy, detector, EjectionPolicyBuilder::success_rate);
        let detector = self.latency.as_ref().map(|config| Some(config.to_latency_factor()));
        let policy = apply_if_some(policy, detector, EjectionPolicyBuilder::latency);
        let policy = apply_duration_if_some(
            policy,
            self.sweep_interval,
            EjectionPolicyBuilder::sweep_interval,
        );
        let policy = apply_duration_if_some(
            policy,
            self.base_ejection_time,
            EjectionPolicyBuilder::base_ejection_time,
        );
        let policy = apply_duration_if_some(
            policy,
            self.max_ejection_time,
            EjectionPolicyBuilder::max_ejection_time,
        );
        let policy = apply_duration_if_some(policy, self.jitter, EjectionPolicyBuilder::jitter);
        let policy = apply_if_some(
            policy,
            self.max_ejected_percent,
            EjectionPolicyBuilder::max_ejected_percent,
        );
        let policy = apply_if_some(
            policy,
            self.check_ends_ejection,
            EjectionPolicyBuilder::check_ends_ejection,
        );
        let ramp = self.ramp.as_ref().map(SlowStartConfig::to_slow_start).transpose();
        let ramp = ramp.map_err(|error| {
            ConfigProblem::of_setting(error, &[]).prefixed(&[KeyPathSegment::Key("ramp")])
        })?;
        let policy = apply_if_some(policy, ramp.map(Some), EjectionPolicyBuilder::ramp);
        let policy = apply_duration_if_some(
            policy,
            self.max_trial_time,
            EjectionPolicyBuilder::max_trial_time,
        );
        policy.build().map_err(|error| ConfigProblem::of_setting(error, &[]))
    }
}

impl FailurePercentageConfig {
    /// Returns a builder of the rule with its defaults.
    pub fn builder() -> FailurePercentageConfigBuilder {
        FailurePercentageConfigBuilder { table: Self::default() }
    }

    fn to_failure_percentage(&self) -> Option<FailurePercentageDetector> {
        let detector = FailurePercentageDetector::new();
        let detector = apply_if_some(detector, self.percent, FailurePercentageDetector::percent);
        let detector =
            apply_if_some(detector, self.min_hosts, FailurePercentageDetector::min_hosts);
        let detector =
            apply_if_some(detector, self.min_requests, FailurePercentageDetector::min_requests);
        (!self.off).then_some(detector)
    }
}

impl SuccessRateConfig {
    /// Returns a builder of the rule with its defaults.
    pub fn builder() -> SuccessRateConfigBuilder {
        SuccessRateConfigBuilder { table: Self::default() }
    }

    fn to_success_rate(&self) -> Option<SuccessRateDetector> {
        let detector = SuccessRateDetector::new();
        let detector = apply_if_some(detector, self.deviations, SuccessRateDetector::deviations);
        let detector = apply_if_some(detector, self.margin, SuccessRateDetector::margin);
        let detector = apply_if_some(detector, self.min_hosts, SuccessRateDetector::min_hosts);
        let detector =
            apply_if_some(detector, self.min_requests, SuccessRateDetector::min_requests);
        (!self.off).then_some(detector)
    }
}

impl LatencyFactorConfig {
    /// Returns a builder of the rule for this many times the latency of the others.
    pub fn builder(factor: f64) -> LatencyFactorConfigBuilder {
        let (floor, min_hosts, min_requests) = (None, None, None);
        LatencyFactorConfigBuilder { table: Self { factor, floor, min_hosts, min_requests } }
    }

    fn to_latency_factor(&self) -> LatencyDetector {
        let detector = LatencyDetector::new(self.factor);
        let detector = apply_duration_if_some(detector, self.floor, LatencyDetector::floor);
        let detector = apply_if_some(detector, self.min_hosts, LatencyDetector::min_hosts);
        apply_if_some(detector, self.min_requests, LatencyDetector::min_requests)
    }
}
