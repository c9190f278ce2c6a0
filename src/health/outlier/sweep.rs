//! The detectors that compare the members with each other, run once per sweep.

use std::cmp::{Ordering, Reverse};
use std::time::Duration;

use super::{
    EjectionPolicy, EjectionReason, FailurePercentageDetector, LatencyDetector, SuccessRateDetector,
};
use crate::backend::OutcomeCounts;

/// The traffic of one member between two sweeps.
#[derive(Clone, Copy, Debug)]
pub(super) struct SweepWindow {
    pub(super) serial: u64,
    pub(super) ok: u64,
    pub(super) failed: u64,
    /// Whether no failure is an answer of the member.
    has_only_connect_failures: bool,
    pub(super) latency: Option<Duration>,
}

impl SweepWindow {
    /// Returns the difference of two readings; `None` if a counter decreased (it was reset, and the
    /// traffic since is unknown), or if the sums overflow.
    pub(super) fn between(
        serial: u64,
        before: OutcomeCounts,
        after: OutcomeCounts,
        latency: Option<Duration>,
    ) -> Option<Self> {
        let ok = after.ok.checked_sub(before.ok)?;
        let app_error = after.app_error.checked_sub(before.app_error)?;
        let connect_error = after.connect_error.checked_sub(before.connect_error)?;
        let timeout = after.timeout.checked_sub(before.timeout)?;
        let failed = app_error.checked_add(connect_error)?.checked_add(timeout)?;
        // `requests` adds these without a check.
        ok.checked_add(failed)?;
        let has_only_connect_failures = app_error == 0;
        Some(Self { serial, ok, failed, has_only_connect_failures, latency })
    }

    /// Returns the requests that ended. Cancelled requests show neither health nor failure and are
    /// not counted.
    fn requests(&self) -> u64 {
        self.ok + self.failed
    }

    fn success_rate(&self) -> f64 {
        self.ok as f64 / self.requests().max(1) as f64
    }
}

/// A member that a detector has found.
#[derive(Clone, Copy, Debug)]
pub(super) struct Outlier {
    pub(super) serial: u64,
    pub(super) reason: EjectionReason,
    window: SweepWindow,
}

impl Outlier {
    /// Returns whether the member fails because connections to it fail, and for nothing else.
    pub(super) fn is_for_connects(&self) -> bool {
        let is_slow = matches!(self.reason, EjectionReason::Latency { .. });
        self.window.has_only_connect_failures && !is_slow
    }
}

/// Returns every member that a detector finds, the worst first.
///
/// Failing members come before slow ones. Failing members are ordered by the share of failures, then
/// by the number of failures; slow members by the multiple of the others' median; ties by the serial,
/// so that the member that is longest in the set comes first.
pub(super) fn find_outliers(policy: &EjectionPolicy, windows: &[SweepWindow]) -> Vec<Outlier> {
    let mut found = Vec::new();
    if let Some(detector) = policy.failure_percentage() {
        find_by_failure_percentage(detector, windows, &mut found);
    }
    if let Some(detector) = policy.success_rate() {
        find_by_success_rate(detector, windows, &mut found);
    }
    if let Some(detector) = policy.latency() {
        find_by_latency(detector, windows, &mut found);
    }
    // A stable sort: of two reasons of equal rank for one member, that of the first detector stays
    // first.
    found.sort_by(compare_severity);
    found
}

fn find_by_failure_percentage(
    detector: FailurePercentageDetector,
    windows: &[SweepWindow],
    found: &mut Vec<Outlier>,
) {
    let min_requests = u64::from(detector.min_requests);
    let judged = || windows.iter().filter(|window| window.requests() >= min_requests);
    if judged().count() < detector.min_hosts as usize {
        return;
    }
    let failing = judged().filter(|window| {
        u128::from(window.failed) * 100
            >= u128::from(window.requests()) * u128::from(detector.percent)
    });
    found.extend(failing.map(|&window| {
        let reason = EjectionReason::FailurePercentage {
            failures: window.failed,
            requests: window.requests(),
        };
        Outlier { serial: window.serial, reason, window }
    }));
}

fn find_by_success_rate(
    detector: SuccessRateDetector,
    windows: &[SweepWindow],
    found: &mut Vec<Outlier>,
) {
    let min_requests = u64::from(detector.min_requests);
    let judged = || windows.iter().filter(|window| window.requests() >= min_requests);
    let hosts = judged().count();
    if hosts < detector.min_hosts as usize {
        return;
    }
    let mean = judged().map(SweepWindow::success_rate).sum::<f64>() / hosts as f64;
    let variance =
        judged().map(|window| (window.success_rate() - mean).powi(2)).sum::<f64>() / hosts as f64;
    let distance = detector.deviations * variance.sqrt();
    // Equal rates can differ from their mean by the rounding of the sum.
    const ROUNDING: f64 = 1e-9;
    let margin = f64::from(detector.margin) / 100.0 - ROUNDING;
    let low = judged().filter(|window| {
        let below = mean - window.success_rate();
        below > distance + ROUNDING && below >= margin
    });
    let permille = |rate: f64| (rate.clamp(0.0, 1.0) * 1000.0).round() as u16;
    found.extend(low.map(|&window| {
        let reason = EjectionReason::SuccessRate {
            permille: permille(window.success_rate()),
            threshold_permille: permille((mean - distance).min(mean - margin)),
        };
        Outlier { serial: window.serial, reason, window }
    }));
}

fn find_by_latency(detector: LatencyDetector, windows: &[SweepWindow], found: &mut Vec<Outlier>) {
    let min_requests = u64::from(detector.min_requests);
    let compared = windows.iter().filter(|window| window.ok >= min_requests);
    let mut by_latency: Vec<(Duration, &SweepWindow)> =
        compared.filter_map(|window| window.latency.map(|latency| (latency, window))).collect();
    if by_latency.len() < (detector.min_hosts as usize).max(2) {
        return;
    }
    by_latency.sort_by_key(|&(latency, window)| (latency, window.serial));
    for (position, &(mean, &window)) in by_latency.iter().enumerate() {
        let median = median_of_others(&by_latency, position);
        if mean > detector.floor && mean.as_secs_f64() > median.as_secs_f64() * detector.factor {
            let reason = EjectionReason::Latency { mean, median };
            found.push(Outlier { serial: window.serial, reason, window });
        }
    }
}

/// Returns the median without the member at a position. The slice has at least two members.
fn median_of_others(sorted: &[(Duration, &SweepWindow)], position: usize) -> Duration {
    let others = sorted.len() - 1;
    let nth = |n: usize| sorted[if n < position { n } else { n + 1 }].0;
    let (low, high) = (nth((others - 1) / 2), nth(others / 2));
    low + (high - low) / 2
}

fn compare_severity(left: &Outlier, right: &Outlier) -> Ordering {
    let is_slow = |outlier: &Outlier| matches!(outlier.reason, EjectionReason::Latency { .. });
    // The shares f1 / r1 and f2 / r2 are compared without a division, as f1 * r2 and f2 * r1.
    let product = |failing: &Outlier, base: &Outlier| {
        u128::from(failing.window.failed) * u128::from(base.window.requests())
    };
    let severity = if is_slow(left) && is_slow(right) {
        latency_multiple(right).total_cmp(&latency_multiple(left))
    } else {
        let share = product(right, left).cmp(&product(left, right));
        share.then_with(|| Reverse(left.window.failed).cmp(&Reverse(right.window.failed)))
    };
    is_slow(left).cmp(&is_slow(right)).then(severity).then(left.serial.cmp(&right.serial))
}

/// Returns the mean latency as a multiple of the median of the other members.
fn latency_multiple(outlier: &Outlier) -> f64 {
    match outlier.reason {
        EjectionReason::Latency { mean, median } => {
            mean.as_secs_f64() / median.as_secs_f64().max(f64::MIN_POSITIVE)
        }
        _ => 0.0,
    }
}
