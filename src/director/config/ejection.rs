//! Servers whose own traffic goes badly.

use serde::Deserialize;

use super::service::SlowStartConfig;
use super::value::{Time, put, put_time};
use crate::health::{Ejection, FailurePercentage, LatencyFactor, SuccessRate};

/// `ejection`: when a server is put out. What is left out is as the library has it, and so is all of
/// an empty table.
#[derive(Clone, Debug, Default, Deserialize, PartialEq)]
#[serde(deny_unknown_fields)]
pub(crate) struct EjectionConfig {
    /// 0 is never, here and below.
    consecutive_failures: Option<u32>,
    consecutive_connect_failures: Option<u32>,
    failure_percentage: Option<PercentageConfig>,
    success_rate: Option<SuccessRateConfig>,
    latency: Option<LatencyConfig>,
    sweep_interval: Option<Time>,
    base_ejection_time: Option<Time>,
    max_ejection_time: Option<Time>,
    jitter: Option<Time>,
    max_ejected_percent: Option<u8>,
    check_ends_ejection: Option<bool>,
    ramp: Option<SlowStartConfig>,
    trial_patience: Option<Time>,
}

/// Who fails this share of its requests.
#[derive(Clone, Debug, Default, Deserialize, PartialEq)]
#[serde(deny_unknown_fields)]
struct PercentageConfig {
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
struct LatencyConfig {
    factor: f64,
    floor: Option<Time>,
    min_hosts: Option<u32>,
    min_requests: Option<u32>,
}

fn unless_zero(count: u32) -> Option<u32> {
    (count > 0).then_some(count)
}

impl EjectionConfig {
    pub(super) fn rules(&self) -> Ejection {
        let it = Ejection::new();
        let it =
            put(it, self.consecutive_failures.map(unless_zero), Ejection::consecutive_failures);
        let connect = self.consecutive_connect_failures.map(unless_zero);
        let it = put(it, connect, Ejection::consecutive_connect_failures);
        let percentage = self.failure_percentage.as_ref().map(PercentageConfig::rule);
        let it = put(it, percentage, Ejection::failure_percentage);
        let success = self.success_rate.as_ref().map(SuccessRateConfig::rule);
        let it = put(it, success, Ejection::success_rate);
        let it = put(it, self.latency.as_ref().map(|it| Some(it.rule())), Ejection::latency);
        let it = put_time(it, self.sweep_interval, Ejection::sweep_interval);
        let it = put_time(it, self.base_ejection_time, Ejection::base_ejection_time);
        let it = put_time(it, self.max_ejection_time, Ejection::max_ejection_time);
        let it = put_time(it, self.jitter, Ejection::jitter);
        let it = put(it, self.max_ejected_percent, Ejection::max_ejected_percent);
        let it = put(it, self.check_ends_ejection, Ejection::check_ends_ejection);
        let it = put(it, self.ramp.as_ref().map(|ramp| Some(ramp.rule())), Ejection::ramp);
        put_time(it, self.trial_patience, Ejection::trial_patience)
    }
}

impl PercentageConfig {
    fn rule(&self) -> Option<FailurePercentage> {
        let it = put(FailurePercentage::new(), self.percent, FailurePercentage::percent);
        let it = put(it, self.min_hosts, FailurePercentage::min_hosts);
        let it = put(it, self.min_requests, FailurePercentage::min_requests);
        (!self.off).then_some(it)
    }
}

impl SuccessRateConfig {
    fn rule(&self) -> Option<SuccessRate> {
        let it = put(SuccessRate::new(), self.deviations, SuccessRate::deviations);
        let it = put(it, self.margin, SuccessRate::margin);
        let it = put(it, self.min_hosts, SuccessRate::min_hosts);
        let it = put(it, self.min_requests, SuccessRate::min_requests);
        (!self.off).then_some(it)
    }
}

impl LatencyConfig {
    fn rule(&self) -> LatencyFactor {
        let it = put_time(LatencyFactor::new(self.factor), self.floor, LatencyFactor::floor);
        let it = put(it, self.min_hosts, LatencyFactor::min_hosts);
        put(it, self.min_requests, LatencyFactor::min_requests)
    }
}
