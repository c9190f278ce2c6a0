//! When a backend is ejected, for how long, and how many at once.

use std::fmt::Display;
use std::time::Duration;

use thiserror::Error;

use crate::backend::SlowStart;

/// The rules of outlier ejection.
///
/// The defaults are the published ones; the [table](super#detectors) says whose, and each method
/// why. What is out of range is told by [`validate`](Self::validate), which
/// [`Ejector::new`](super::Ejector::new) calls.
///
/// # Examples
/// ```
/// use std::time::Duration;
/// use lvs::health::{EjectionPolicy, LatencyDetector, SuccessRateDetector};
///
/// let careful = EjectionPolicy::new()
///     .consecutive_failures(Some(10))
///     .success_rate(Some(SuccessRateDetector::default().min_requests(500)))
///     .latency(Some(LatencyDetector::new(4.0)))
///     .max_ejected_percent(20);
/// assert!(careful.validate().is_ok());
///
/// let wrong = EjectionPolicy::new().max_ejection_time(Duration::from_secs(1));
/// assert_eq!(
///     wrong.validate().unwrap_err().to_string(),
///     "max_ejection_time is 1s, not within 30s to 86400s",
/// );
/// ```
#[derive(Clone, Debug, PartialEq)]
#[must_use]
pub struct EjectionPolicy {
    pub(super) consecutive_failures: Option<u32>,
    pub(super) consecutive_connect_failures: Option<u32>,
    pub(super) failure_percentage: Option<FailurePercentageDetector>,
    pub(super) success_rate: Option<SuccessRateDetector>,
    pub(super) latency: Option<LatencyDetector>,
    pub(super) sweep_interval: Duration,
    pub(super) base_ejection_time: Duration,
    pub(super) max_ejection_time: Duration,
    pub(super) jitter: Duration,
    pub(super) max_ejected_percent: u8,
    pub(super) check_ends_ejection: bool,
    ramp: Option<SlowStart>,
    max_trial_time: Duration,
}

/// The longest time that can be configured.
const MAX_EJECTION_SETTING: Duration = Duration::from_secs(86_400);

impl EjectionPolicy {
    /// The defaults: every detector but [latency](Self::latency).
    pub const fn new() -> Self {
        Self {
            consecutive_failures: Some(5),
            consecutive_connect_failures: Some(3),
            failure_percentage: Some(FailurePercentageDetector::new()),
            success_rate: Some(SuccessRateDetector::new()),
            latency: None,
            sweep_interval: Duration::from_secs(10),
            base_ejection_time: Duration::from_secs(30),
            max_ejection_time: Duration::from_secs(300),
            jitter: Duration::ZERO,
            max_ejected_percent: 10,
            check_ends_ejection: false,
            ramp: Some(SlowStart::new(Duration::from_secs(10))),
            max_trial_time: Duration::from_secs(10),
        }
    }

    /// Ejects after so many failures of any kind in a row, at once; `None` never does.
    ///
    /// Default: 5, that of Envoy and Finagle. Few enough to cost little, and where one request in
    /// ten fails for reasons of its own, five in a row are one chance in 100 000.
    pub const fn consecutive_failures(self, failures: Option<u32>) -> Self {
        Self { consecutive_failures: failures, ..self }
    }

    /// Ejects after so many connects in a row that failed or timed out, at once; `None` never does.
    ///
    /// Default: 3, as many as HAProxy's checks take (`fall`). A failed connect depends on no
    /// request, so fewer say more; Envoy's 5 would add nothing here, because a run of failed
    /// connects is a run of failures too, and the 1 of nginx and of Finagle's fail-fast takes a
    /// server out for one lost SYN.
    pub const fn consecutive_connect_failures(self, failures: Option<u32>) -> Self {
        Self { consecutive_connect_failures: failures, ..self }
    }

    /// Ejects who fails this share of the requests of a sweep; `None` never does.
    ///
    /// Default: on. Envoy ships it unenforced. Here it works, because [`SuccessRateDetector`] finds a lone
    /// outlier and goes blind when several of a small set fail together: two of five are never more
    /// than 1.23 deviations below the mean.
    pub const fn failure_percentage(self, detector: Option<FailurePercentageDetector>) -> Self {
        Self { failure_percentage: detector, ..self }
    }

    /// Ejects who succeeds far less often than the others in a sweep; `None` never does.
    ///
    /// Default: on, as in Envoy.
    pub const fn success_rate(self, detector: Option<SuccessRateDetector>) -> Self {
        Self { success_rate: detector, ..self }
    }

    /// Ejects who takes far longer than the others in a sweep; `None` never does.
    ///
    /// Default: `None`. Nobody publishes a default, and with good reason: backends of different
    /// strength and routes with answers of different cost look like outliers. Schedulers that go by
    /// load ([`peak_ewma`](crate::scheduler::PeakEwma), `lc`) give a slow backend less work without
    /// putting it out.
    pub const fn latency(self, detector: Option<LatencyDetector>) -> Self {
        Self { latency: detector, ..self }
    }

    /// How often the shell is to [sweep](super::Ejector::sweep): from 1 ms to a day.
    ///
    /// Default: 10 s, that of Envoy and gRPC. The least traffic of the detectors is counted in this
    /// time, and a multiplier shrinks by one in it: half the interval asks for twice the traffic and
    /// forgives twice as quickly.
    pub const fn sweep_interval(self, interval: Duration) -> Self {
        Self { sweep_interval: interval, ..self }
    }

    /// The first ejection's time, and what each further one in a row adds: from 1 ms to a day.
    ///
    /// Default: 30 s, that of Envoy and gRPC: long against a garbage collection or a restart of the
    /// program, short against an operator's reaction.
    pub const fn base_ejection_time(self, time: Duration) -> Self {
        Self { base_ejection_time: time, ..self }
    }

    /// The longest ejection, from the base time to a day; [jitter](Self::jitter) comes on top.
    ///
    /// Default: 300 s, that of Envoy and gRPC, and the end of Finagle's backoff.
    pub const fn max_ejection_time(self, time: Duration) -> Self {
        Self { max_ejection_time: time, ..self }
    }

    /// Lengthens each ejection by a random time of up to this; at most a day.
    ///
    /// Default: none, as in Envoy. Worth it where many balancers eject the same backend at the same
    /// moment and would all try it again at the same moment.
    pub const fn jitter(self, jitter: Duration) -> Self {
        Self { jitter, ..self }
    }

    /// The largest share of the members that could serve that may be out, in percent, rounded down,
    /// and [one at least](super#how-many-at-most); up to 100.
    ///
    /// Default: 10, that of Envoy and gRPC. When more than a tenth look bad, the reason is rarely
    /// theirs alone, and what they would have carried falls on the others.
    pub const fn max_ejected_percent(self, percent: u8) -> Self {
        Self { max_ejected_percent: percent, ..self }
    }

    /// Whether an active check that passes [ends an ejection](super::Ejector::check_passed).
    ///
    /// Default: no, unlike in Envoy. A backend that was ejected because it answers 500 takes TCP
    /// connections all the time: its next check, a second later, would undo every ejection. Say yes
    /// where the check asks for the very work that traffic does.
    pub const fn check_ends_ejection(self, ends: bool) -> Self {
        Self { check_ends_ejection: ends, ..self }
    }

    /// How the share of a member grows that has passed its trial; `None` leaves that to the set's
    /// own slow start, if it has one.
    ///
    /// Default: 10 s in a straight line: whatever it was that made it fail is not met by the whole
    /// load at once.
    pub const fn ramp(self, ramp: Option<SlowStart>) -> Self {
        Self { ramp, ..self }
    }

    /// How long the one piece of work of a trial may go on before it counts as passed: from 1 ms to
    /// a day. Default: 10 s. A connection that lives for hours has shown by then what it can show.
    pub const fn max_trial_time(self, patience: Duration) -> Self {
        Self { max_trial_time: patience, ..self }
    }

    /// How the share of a member grows that returns.
    #[must_use]
    pub const fn return_ramp(&self) -> Option<SlowStart> {
        self.ramp
    }

    /// How long a trial may go on.
    #[must_use]
    pub const fn patience(&self) -> Duration {
        self.max_trial_time
    }

    /// The time between two sweeps.
    #[must_use]
    pub const fn interval(&self) -> Duration {
        self.sweep_interval
    }

    /// The failures in a row of any kind that eject, for who counts them.
    #[must_use]
    pub const fn failures_in_a_row(&self) -> Option<u32> {
        self.consecutive_failures
    }

    /// The failed connects in a row that eject, for who counts them.
    #[must_use]
    pub const fn connect_failures_in_a_row(&self) -> Option<u32> {
        self.consecutive_connect_failures
    }

    /// Whether anything needs [sweeps](super::Ejector::sweep) but the decay of multipliers.
    #[must_use]
    pub const fn has_sweep_detectors(&self) -> bool {
        self.failure_percentage.is_some() || self.success_rate.is_some() || self.latency.is_some()
    }

    /// Tells whether all parameters make sense.
    ///
    /// # Errors
    /// [`EjectionPolicyError`] names the first that does not.
    pub fn validate(&self) -> Result<(), EjectionPolicyError> {
        let millisecond = Duration::from_millis(1);
        check_at_least_one("consecutive_failures", self.consecutive_failures)?;
        check_at_least_one("consecutive_connect_failures", self.consecutive_connect_failures)?;
        check_time("sweep_interval", self.sweep_interval, millisecond)?;
        check_time("base_ejection_time", self.base_ejection_time, millisecond)?;
        check_time("max_ejection_time", self.max_ejection_time, self.base_ejection_time)?;
        check_time("jitter", self.jitter, Duration::ZERO)?;
        check_time("max_trial_time", self.max_trial_time, millisecond)?;
        check_range("max_ejected_percent", self.max_ejected_percent, 0, 100)?;
        if let Some(it) = self.failure_percentage {
            check_range("failure_percentage.percent", it.percent, 1, 100)?;
            check_at_least_one("failure_percentage.min_hosts", Some(it.min_hosts))?;
            check_at_least_one("failure_percentage.min_requests", Some(it.min_requests))?;
        }
        if let Some(it) = self.success_rate {
            check_range("success_rate.deviations", it.deviations, 0.001, 100.0)?;
            check_range("success_rate.margin", it.margin, 0, 100)?;
            // A lone member is its own mean.
            check_range("success_rate.min_hosts", it.min_hosts, 2, u32::MAX)?;
            check_at_least_one("success_rate.min_requests", Some(it.min_requests))?;
        }
        if let Some(it) = self.latency {
            check_range("latency.factor", it.factor, 1.0, 1_000_000.0)?;
            // A lone member has no others.
            check_range("latency.min_hosts", it.min_hosts, 2, u32::MAX)?;
            check_at_least_one("latency.min_requests", Some(it.min_requests))?;
        }
        Ok(())
    }

    /// The time of an ejection without its jitter.
    pub(super) fn ejection_time(&self, multiplier: u32) -> Duration {
        self.base_ejection_time.saturating_mul(multiplier).min(self.max_ejection_time)
    }

    /// The multiplier that no ejection raises further: the first that reaches the cap.
    pub(super) fn max_multiplier(&self) -> u32 {
        let times =
            self.max_ejection_time.as_nanos().div_ceil(self.base_ejection_time.as_nanos().max(1));
        u32::try_from(times).unwrap_or(u32::MAX).max(1)
    }

    /// How many of the members that could serve may be out.
    pub(super) fn max_ejected(&self, members: usize) -> usize {
        (members.saturating_mul(usize::from(self.max_ejected_percent)) / 100).max(1)
    }
}

impl Default for EjectionPolicy {
    fn default() -> Self {
        Self::new()
    }
}

/// Who fails at least this share of its requests in a sweep is an outlier, whatever the others do.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
#[must_use]
pub struct FailurePercentageDetector {
    pub(super) percent: u8,
    pub(super) min_hosts: u32,
    pub(super) min_requests: u32,
}

impl FailurePercentageDetector {
    /// Envoy's and gRPC's defaults.
    pub const fn new() -> Self {
        Self { percent: 85, min_hosts: 5, min_requests: 50 }
    }

    /// The share of failures that ejects, from 1 to 100. Default: 85.
    ///
    /// Exactly this share ejects, as in Envoy; in gRPC it takes more.
    pub const fn percent(self, percent: u8) -> Self {
        Self { percent, ..self }
    }

    /// How many members must have had [enough requests](Self::min_requests). Default: 5.
    pub const fn min_hosts(self, hosts: u32) -> Self {
        Self { min_hosts: hosts, ..self }
    }

    /// The least requests in a sweep for a member to be judged. Default: 50.
    pub const fn min_requests(self, requests: u32) -> Self {
        Self { min_requests: requests, ..self }
    }
}

impl Default for FailurePercentageDetector {
    fn default() -> Self {
        Self::new()
    }
}

/// Who succeeds less often than the mean of the set, by so many standard deviations, is an outlier.
///
/// Mean and deviation are those of the members' success rates in one sweep, each member counting
/// the same and the outlier counting with the others. In a set of `n` a lone outlier is at most
/// `sqrt(n - 1)` deviations from the mean: 2.0 of five, 1.73 of four. That is why 1.9 goes with five
/// members at the least.
#[derive(Clone, Copy, Debug, PartialEq)]
#[must_use]
pub struct SuccessRateDetector {
    pub(super) deviations: f64,
    pub(super) margin: u8,
    pub(super) min_hosts: u32,
    pub(super) min_requests: u32,
}

impl SuccessRateDetector {
    /// Envoy's and gRPC's defaults, and a [margin](Self::margin).
    pub const fn new() -> Self {
        Self { deviations: 1.9, margin: 5, min_hosts: 5, min_requests: 100 }
    }

    /// How many standard deviations below the mean is too few, from 0.001 to 100. Default: 1.9.
    pub const fn deviations(self, deviations: f64) -> Self {
        Self { deviations, ..self }
    }

    /// How far below the mean it must be besides, in percentage points up to 100. Default: 5.
    ///
    /// With 0 the rule is the published one, and one failure in a hundred ejects a member where the
    /// other four had none: that is 2.0 deviations, however small they are. The margin keeps members
    /// in that nobody would call bad.
    pub const fn margin(self, points: u8) -> Self {
        Self { margin: points, ..self }
    }

    /// How many members must have had [enough requests](Self::min_requests), 2 or more. Default: 5.
    pub const fn min_hosts(self, hosts: u32) -> Self {
        Self { min_hosts: hosts, ..self }
    }

    /// The least requests in a sweep for a member to be judged, and to be part of the mean.
    /// Default: 100.
    pub const fn min_requests(self, requests: u32) -> Self {
        Self { min_requests: requests, ..self }
    }
}

impl Default for SuccessRateDetector {
    fn default() -> Self {
        Self::new()
    }
}

/// Whose mean latency is more than so many times the median of the others' is an outlier.
#[derive(Clone, Copy, Debug, PartialEq)]
#[must_use]
pub struct LatencyDetector {
    pub(super) factor: f64,
    pub(super) floor: Duration,
    pub(super) min_hosts: u32,
    pub(super) min_requests: u32,
}

impl LatencyDetector {
    /// So many times the median of the others, 1.0 or more.
    ///
    /// The median, and not the mean, because the one slow member of a small set would lift the mean
    /// that it is compared with.
    pub const fn new(factor: f64) -> Self {
        Self { factor, floor: Duration::from_millis(10), min_hosts: 5, min_requests: 100 }
    }

    /// Nobody is ejected whose mean latency is not above this. Default: 10 ms.
    ///
    /// Below it factors between members are those of caches and schedulers, not of sick servers.
    pub const fn floor(self, latency: Duration) -> Self {
        Self { floor: latency, ..self }
    }

    /// How many members must have had [enough requests](Self::min_requests), 2 or more. Default: 5.
    pub const fn min_hosts(self, hosts: u32) -> Self {
        Self { min_hosts: hosts, ..self }
    }

    /// The least successful requests in a sweep for a member to be compared. Default: 100.
    pub const fn min_requests(self, requests: u32) -> Self {
        Self { min_requests: requests, ..self }
    }
}

/// Why an [`EjectionPolicy`] cannot be used.
#[derive(Clone, Debug, Eq, Error, PartialEq)]
#[non_exhaustive]
pub enum EjectionPolicyError {
    /// A parameter has a value that makes no sense.
    #[error("{parameter} is {value}, not within {least} to {most}")]
    OutOfRange {
        /// The method that sets it, after the detector's where it belongs to one.
        parameter: &'static str,
        /// What it was set to.
        value: String,
        /// The least that it can be.
        least: String,
        /// The most that it can be.
        most: String,
    },
}

fn check_range<T>(
    parameter: &'static str,
    value: T,
    least: T,
    most: T,
) -> Result<(), EjectionPolicyError>
where
    T: Display + PartialOrd,
{
    // Not a number is within nothing.
    if value >= least && value <= most {
        return Ok(());
    }
    let [value, least, most] = [value, least, most].map(|it| it.to_string());
    Err(EjectionPolicyError::OutOfRange { parameter, value, least, most })
}

fn check_at_least_one(
    parameter: &'static str,
    value: Option<u32>,
) -> Result<(), EjectionPolicyError> {
    value.map_or(Ok(()), |value| check_range(parameter, value, 1, u32::MAX))
}

fn check_time(
    parameter: &'static str,
    value: Duration,
    least: Duration,
) -> Result<(), EjectionPolicyError> {
    if value >= least && value <= MAX_EJECTION_SETTING {
        return Ok(());
    }
    let [value, least, most] = [value, least, MAX_EJECTION_SETTING].map(|it| format!("{it:?}"));
    Err(EjectionPolicyError::OutOfRange { parameter, value, least, most })
}
