//! Servers whose own traffic goes badly.

use serde::Deserialize;

use super::slow_start::SlowStartConfig;
use super::value::{HumanDuration, apply_duration_if_some, apply_if_some};
use crate::health::{
    EjectionPolicy, FailurePercentageDetector, LatencyDetector, SuccessRateDetector,
};

/// `ejection`: when a server is put out. What is left out is as the library has it, and so is all of
/// an empty table.
#[derive(Clone, Debug, Default, Deserialize, PartialEq)]
#[serde(deny_unknown_fields)]
pub(crate) struct EjectionConfig {
    /// 0 is never, here and below.
    consecutive_failures: Option<u32>,
    consecutive_connect_failures: Option<u32>,
    failure_percentage: Option<FailurePercentageConfig>,
    success_rate: Option<SuccessRateConfig>,
    latency: Option<LatencyFactorConfig>,
    sweep_interval: Option<HumanDuration>,
    base_ejection_time: Option<HumanDuration>,
    max_ejection_time: Option<HumanDuration>,
    jitter: Option<HumanDuration>,
    max_ejected_percent: Option<u8>,
    check_ends_ejection: Option<bool>,
    ramp: Option<SlowStartConfig>,
    trial_patience: Option<HumanDuration>,
}

/// Who fails this share of its requests.
#[derive(Clone, Debug, Default, Deserialize, PartialEq)]
#[serde(deny_unknown_fields)]
struct FailurePercentageConfig {
    percent: Option<u8>,
    min_hosts: Option<u32>,
    min_requests: Option<u32>,
    #[serde(default)]
    off: bool,
}

/// Who succeeds far less often than the others.
#[derive(Clone, Debug, Default, Deserialize, PartialEq)]
#[serde(deny_unknown_fields)]
struct SuccessRateConfig {
    deviations: Option<f64>,
    margin: Option<u8>,
    min_hosts: Option<u32>,
    min_requests: Option<u32>,
    #[serde(default)]
    off: bool,
}

/// Who takes this many times as long as the others.
#[derive(Clone, Debug, Deserialize, PartialEq)]
#[serde(deny_unknown_fields)]
struct LatencyFactorConfig {
    factor: f64,
    floor: Option<HumanDuration>,
    min_hosts: Option<u32>,
    min_requests: Option<u32>,
}

fn zero_is_never(count: u32) -> Option<u32> {
    (count > 0).then_some(count)
}

impl EjectionConfig {
    pub(super) fn to_ejection(&self) -> EjectionPolicy {
        let it = EjectionPolicy::new();
        let it = apply_if_some(
            it,
            self.consecutive_failures.map(zero_is_never),
            EjectionPolicy::consecutive_failures,
        );
        let connect = self.consecutive_connect_failures.map(zero_is_never);
        let it = apply_if_some(it, connect, EjectionPolicy::consecutive_connect_failures);
        let percentage =
            self.failure_percentage.as_ref().map(FailurePercentageConfig::to_failure_percentage);
        let it = apply_if_some(it, percentage, EjectionPolicy::failure_percentage);
        let success = self.success_rate.as_ref().map(SuccessRateConfig::to_success_rate);
        let it = apply_if_some(it, success, EjectionPolicy::success_rate);
        let it = apply_if_some(
            it,
            self.latency.as_ref().map(|it| Some(it.to_latency_factor())),
            EjectionPolicy::latency,
        );
        let it = apply_duration_if_some(it, self.sweep_interval, EjectionPolicy::sweep_interval);
        let it =
            apply_duration_if_some(it, self.base_ejection_time, EjectionPolicy::base_ejection_time);
        let it =
            apply_duration_if_some(it, self.max_ejection_time, EjectionPolicy::max_ejection_time);
        let it = apply_duration_if_some(it, self.jitter, EjectionPolicy::jitter);
        let it = apply_if_some(it, self.max_ejected_percent, EjectionPolicy::max_ejected_percent);
        let it = apply_if_some(it, self.check_ends_ejection, EjectionPolicy::check_ends_ejection);
        let it = apply_if_some(
            it,
            self.ramp.as_ref().map(|ramp| Some(ramp.to_slow_start())),
            EjectionPolicy::ramp,
        );
        apply_duration_if_some(it, self.trial_patience, EjectionPolicy::max_trial_time)
    }
}

impl FailurePercentageConfig {
    fn to_failure_percentage(&self) -> Option<FailurePercentageDetector> {
        let it = apply_if_some(
            FailurePercentageDetector::new(),
            self.percent,
            FailurePercentageDetector::percent,
        );
        let it = apply_if_some(it, self.min_hosts, FailurePercentageDetector::min_hosts);
        let it = apply_if_some(it, self.min_requests, FailurePercentageDetector::min_requests);
        (!self.off).then_some(it)
    }
}

impl SuccessRateConfig {
    fn to_success_rate(&self) -> Option<SuccessRateDetector> {
        let it = apply_if_some(
            SuccessRateDetector::new(),
            self.deviations,
            SuccessRateDetector::deviations,
        );
        let it = apply_if_some(it, self.margin, SuccessRateDetector::margin);
        let it = apply_if_some(it, self.min_hosts, SuccessRateDetector::min_hosts);
        let it = apply_if_some(it, self.min_requests, SuccessRateDetector::min_requests);
        (!self.off).then_some(it)
    }
}

impl LatencyFactorConfig {
    fn to_latency_factor(&self) -> LatencyDetector {
        let it = apply_duration_if_some(
            LatencyDetector::new(self.factor),
            self.floor,
            LatencyDetector::floor,
        );
        let it = apply_if_some(it, self.min_hosts, LatencyDetector::min_hosts);
        apply_if_some(it, self.min_requests, LatencyDetector::min_requests)
    }
}
