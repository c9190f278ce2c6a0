//! The detectors that compare members with each other, once a sweep.

use std::cmp::{Ordering, Reverse};
use std::time::Duration;

use super::{
    EjectionPolicy, EjectionReason, FailurePercentageDetector, LatencyDetector, SuccessRateDetector,
};
use crate::backend::OutcomeCounts;

/// What one member did between two sweeps.
#[derive(Clone, Copy, Debug)]
pub(super) struct SweepWindow {
    pub(super) serial: u64,
    pub(super) ok: u64,
    pub(super) failed: u64,
    pub(super) latency: Option<Duration>,
}

impl SweepWindow {
    /// What ended between two readings; `None` where a counter has gone back (it was set anew, and
    /// what ended since is not known), or where they are no counts of anything.
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
        // Below, requests are added up without a look.
        ok.checked_add(failed)?;
        Some(Self { serial, ok, failed, latency })
    }

    /// What was cancelled is nobody's fault, and no evidence of health either.
    fn requests(&self) -> u64 {
        self.ok + self.failed
    }

    fn success_rate(&self) -> f64 {
        self.ok as f64 / self.requests().max(1) as f64
    }
}

/// A member that is unlike the others.
#[derive(Clone, Copy, Debug)]
pub(super) struct Outlier {
    pub(super) serial: u64,
    pub(super) reason: EjectionReason,
    window: SweepWindow,
}

/// Everybody that a detector finds, the worst first.
///
/// Who fails comes before who is slow; of those who fail, the larger share of failures first, and
/// of equal shares the more failures; of the slow, the larger multiple of the others' median; else
/// the member that is longest in the set.
pub(super) fn find_outliers(rules: &EjectionPolicy, windows: &[SweepWindow]) -> Vec<Outlier> {
    let mut found = Vec::new();
    if let Some(rule) = rules.failure_percentage {
        find_by_failure_percentage(rule, windows, &mut found);
    }
    if let Some(rule) = rules.success_rate {
        find_by_success_rate(rule, windows, &mut found);
    }
    if let Some(rule) = rules.latency {
        find_by_latency(rule, windows, &mut found);
    }
    // Stable: of two causes for one member that rank alike, the detector asked first is named.
    found.sort_by(compare_severity);
    found
}

fn find_by_failure_percentage(
    rule: FailurePercentageDetector,
    windows: &[SweepWindow],
    found: &mut Vec<Outlier>,
) {
    let judged = || windows.iter().filter(|it| it.requests() >= u64::from(rule.min_requests));
    if judged().count() < rule.min_hosts as usize {
        return;
    }
    let failing = judged().filter(|it| {
        u128::from(it.failed) * 100 >= u128::from(it.requests()) * u128::from(rule.percent)
    });
    found.extend(failing.map(|&window| {
        let cause = EjectionReason::FailurePercentage {
            failures: window.failed,
            requests: window.requests(),
        };
        Outlier { serial: window.serial, reason: cause, window }
    }));
}

fn find_by_success_rate(
    rule: SuccessRateDetector,
    windows: &[SweepWindow],
    found: &mut Vec<Outlier>,
) {
    let judged = || windows.iter().filter(|it| it.requests() >= u64::from(rule.min_requests));
    let hosts = judged().count();
    if hosts < rule.min_hosts as usize {
        return;
    }
    let mean = judged().map(SweepWindow::success_rate).sum::<f64>() / hosts as f64;
    let variance =
        judged().map(|it| (it.success_rate() - mean).powi(2)).sum::<f64>() / hosts as f64;
    let distance = rule.deviations * variance.sqrt();
    // Equal rates can differ from their mean by what is rounded off in adding them up.
    const ROUNDING: f64 = 1e-9;
    let margin = f64::from(rule.margin) / 100.0 - ROUNDING;
    let low = judged().filter(|it| {
        let below = mean - it.success_rate();
        below > distance + ROUNDING && below >= margin
    });
    let permille = |rate: f64| (rate.clamp(0.0, 1.0) * 1000.0).round() as u16;
    found.extend(low.map(|&window| {
        let cause = EjectionReason::SuccessRate {
            permille: permille(window.success_rate()),
            threshold_permille: permille((mean - distance).min(mean - margin)),
        };
        Outlier { serial: window.serial, reason: cause, window }
    }));
}

fn find_by_latency(rule: LatencyDetector, windows: &[SweepWindow], found: &mut Vec<Outlier>) {
    let compared = windows.iter().filter(|it| it.ok >= u64::from(rule.min_requests));
    let mut by_latency: Vec<(Duration, &SweepWindow)> =
        compared.filter_map(|it| it.latency.map(|latency| (latency, it))).collect();
    if by_latency.len() < (rule.min_hosts as usize).max(2) {
        return;
    }
    by_latency.sort_by_key(|&(latency, it)| (latency, it.serial));
    for (place, &(mean, &window)) in by_latency.iter().enumerate() {
        let median = median_of_others(&by_latency, place);
        if mean > rule.floor && mean.as_secs_f64() > median.as_secs_f64() * rule.factor {
            let cause = EjectionReason::Latency { mean, median };
            found.push(Outlier { serial: window.serial, reason: cause, window });
        }
    }
}

/// The median without the one at a place; there are two members at least.
fn median_of_others(sorted: &[(Duration, &SweepWindow)], place: usize) -> Duration {
    let others = sorted.len() - 1;
    let nth = |nth: usize| sorted[if nth < place { nth } else { nth + 1 }].0;
    let (low, high) = (nth((others - 1) / 2), nth(others / 2));
    low + (high - low) / 2
}

fn compare_severity(one: &Outlier, other: &Outlier) -> Ordering {
    let slow = |it: &Outlier| matches!(it.reason, EjectionReason::Latency { .. });
    let failed = |it: &Outlier, of: &Outlier| {
        u128::from(it.window.failed) * u128::from(of.window.requests())
    };
    let severity = if slow(one) && slow(other) {
        latency_multiple(other).total_cmp(&latency_multiple(one))
    } else {
        // Shares compared without a division: f1 / r1 against f2 / r2.
        let share = failed(other, one).cmp(&failed(one, other));
        share.then_with(|| Reverse(one.window.failed).cmp(&Reverse(other.window.failed)))
    };
    slow(one).cmp(&slow(other)).then(severity).then(one.serial.cmp(&other.serial))
}

/// How many times the median of the others a mean latency is.
fn latency_multiple(it: &Outlier) -> f64 {
    match it.reason {
        EjectionReason::Latency { mean, median } => {
            mean.as_secs_f64() / median.as_secs_f64().max(f64::MIN_POSITIVE)
        }
        _ => 0.0,
    }
}
