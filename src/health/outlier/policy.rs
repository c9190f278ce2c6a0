//! Settings of outlier ejection: when a member is ejected, for how long, and how many at once.

use std::time::Duration;

use super::{FailurePercentageDetector, LatencyDetector, SuccessRateDetector};
use crate::backend::SlowStart;
use crate::setting::{SettingError, check_range};

/// The longest duration that a policy accepts: one day.
const MAX_EJECTION_SETTING: Duration = Duration::from_secs(86_400);

/// The settings of outlier ejection, all within their ranges.
///
/// [`EjectionPolicy::new`] has the defaults, [`EjectionPolicy::builder`] changes them. The defaults are
/// published ones; the [table](super#detectors) names their sources, and the setters of the builder
/// give the reasons.
///
/// # Examples
/// ```
/// use std::time::Duration;
/// use lvs::health::{EjectionPolicy, LatencyDetector, SuccessRateDetector};
///
/// let policy = EjectionPolicy::builder()
///     .consecutive_failures(Some(10))
///     .success_rate(Some(SuccessRateDetector::default().min_requests(500)))
///     .latency(Some(LatencyDetector::new(4.0)))
///     .max_ejected_percent(20)
///     .build()?;
/// assert_eq!(policy.max_ejected_percent(), 20);
///
/// let refused = EjectionPolicy::builder().max_ejection_time(Duration::from_secs(1)).build();
/// assert_eq!(
///     refused.unwrap_err().to_string(),
///     "max_ejection_time is 1s, must be from 30s to 86400s",
/// );
/// # Ok::<(), lvs::SettingError>(())
/// ```
#[derive(Clone, Debug, PartialEq)]
#[must_use]
pub struct EjectionPolicy {
    consecutive_failures: Option<u32>,
    consecutive_connect_failures: Option<u32>,
    failure_percentage: Option<FailurePercentageDetector>,
    success_rate: Option<SuccessRateDetector>,
    latency: Option<LatencyDetector>,
    sweep_interval: Duration,
    base_ejection_time: Duration,
    max_ejection_time: Duration,
    jitter: Duration,
    max_ejected_percent: u8,
    check_ends_ejection: bool,
    ramp: Option<SlowStart>,
    max_trial_time: Duration,
}

impl EjectionPolicy {
    /// Creates the default policy: every detector but [latency](EjectionPolicyBuilder::latency).
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

    /// Creates a builder that starts with the defaults.
    pub const fn builder() -> EjectionPolicyBuilder {
        EjectionPolicyBuilder { policy: Self::new() }
    }

    /// Returns the number of failures of any kind in a row that ejects; `None` if never.
    #[must_use]
    pub const fn consecutive_failures(&self) -> Option<u32> {
        self.consecutive_failures
    }

    /// Returns the number of failed or timed out connects in a row that ejects; `None` if never.
    #[must_use]
    pub const fn consecutive_connect_failures(&self) -> Option<u32> {
        self.consecutive_connect_failures
    }

    /// Returns the detector of a high percentage of failures; `None` if it is off.
    #[must_use]
    pub const fn failure_percentage(&self) -> Option<FailurePercentageDetector> {
        self.failure_percentage
    }

    /// Returns the detector of a low success rate; `None` if it is off.
    #[must_use]
    pub const fn success_rate(&self) -> Option<SuccessRateDetector> {
        self.success_rate
    }

    /// Returns the detector of a high latency; `None` if it is off.
    #[must_use]
    pub const fn latency(&self) -> Option<LatencyDetector> {
        self.latency
    }

    /// Returns the time between two [sweeps](super::Ejector::sweep).
    #[must_use]
    pub const fn sweep_interval(&self) -> Duration {
        self.sweep_interval
    }

    /// Returns the time of the first ejection, which each further ejection in a row adds again.
    #[must_use]
    pub const fn base_ejection_time(&self) -> Duration {
        self.base_ejection_time
    }

    /// Returns the longest time of an ejection without its jitter.
    #[must_use]
    pub const fn max_ejection_time(&self) -> Duration {
        self.max_ejection_time
    }

    /// Returns the largest random time that is added to an ejection.
    #[must_use]
    pub const fn jitter(&self) -> Duration {
        self.jitter
    }

    /// Returns the percentage of the available members that may be ejected at once.
    #[must_use]
    pub const fn max_ejected_percent(&self) -> u8 {
        self.max_ejected_percent
    }

    /// Returns whether an active check that passes ends an ejection.
    #[must_use]
    pub const fn check_ends_ejection(&self) -> bool {
        self.check_ends_ejection
    }

    /// Returns the slow start of a member that has passed its trial; `None` leaves it to the set.
    #[must_use]
    pub const fn ramp(&self) -> Option<SlowStart> {
        self.ramp
    }

    /// Returns the time after which an unfinished trial counts as passed.
    #[must_use]
    pub const fn max_trial_time(&self) -> Duration {
        self.max_trial_time
    }

    /// Returns whether a detector needs [sweeps](super::Ejector::sweep). Without one, sweeps only
    /// lower the multipliers.
    #[must_use]
    pub const fn has_sweep_detectors(&self) -> bool {
        self.failure_percentage.is_some() || self.success_rate.is_some() || self.latency.is_some()
    }

    fn validate(&self) -> Result<(), SettingError> {
        let times = Duration::from_millis(1)..=MAX_EJECTION_SETTING;
        let max_times = self.base_ejection_time..=MAX_EJECTION_SETTING;
        if let Some(failures) = self.consecutive_failures {
            check_range("consecutive_failures", failures, 1..)?;
        }
        if let Some(failures) = self.consecutive_connect_failures {
            check_range("consecutive_connect_failures", failures, 1..)?;
        }
        check_range("sweep_interval", self.sweep_interval, times.clone())?;
        check_range("base_ejection_time", self.base_ejection_time, times.clone())?;
        check_range("max_ejection_time", self.max_ejection_time, max_times)?;
        check_range("jitter", self.jitter, Duration::ZERO..=MAX_EJECTION_SETTING)?;
        check_range("max_trial_time", self.max_trial_time, times)?;
        check_range("max_ejected_percent", self.max_ejected_percent, 0..=100)?;
        if let Some(detector) = self.failure_percentage {
            detector.validate()?;
        }
        if let Some(detector) = self.success_rate {
            detector.validate()?;
        }
        self.latency.map_or(Ok(()), |detector| detector.validate())
    }

    /// Returns the time of an ejection without its jitter.
    pub(super) fn ejection_time(&self, multiplier: u32) -> Duration {
        self.base_ejection_time.saturating_mul(multiplier).min(self.max_ejection_time)
    }

    /// Returns the largest multiplier: the smallest that reaches the maximum ejection time.
    pub(super) fn max_multiplier(&self) -> u32 {
        let multiplier =
            self.max_ejection_time.as_nanos().div_ceil(self.base_ejection_time.as_nanos().max(1));
        u32::try_from(multiplier).unwrap_or(u32::MAX).max(1)
    }

    /// Returns how many of the available members may be ejected at once.
    pub(super) fn max_ejected(&self, available: usize) -> usize {
        let share = available.saturating_mul(usize::from(self.max_ejected_percent)) / 100;
        if self.max_ejected_percent == 0 { 0 } else { share.max(1) }
    }
}

impl Default for EjectionPolicy {
    fn default() -> Self {
        Self::new()
    }
}

/// A builder of an [`EjectionPolicy`], made by [`EjectionPolicy::builder`].
#[derive(Clone, Debug, PartialEq)]
#[must_use]
pub struct EjectionPolicyBuilder {
    policy: EjectionPolicy,
}

impl EjectionPolicyBuilder {
    /// Ejects at once after this many failures of any kind in a row, at least 1; `None` never does.
    ///
    /// Default: 5, as in Envoy and Finagle. Five failures cost little, and if one request in ten fails
    /// for other reasons, the chance of five in a row is 1 in 100 000.
    pub const fn consecutive_failures(mut self, failures: Option<u32>) -> Self {
        self.policy.consecutive_failures = failures;
        self
    }

    /// Ejects at once after this many failed or timed out connects in a row, at least 1; `None` never
    /// does.
    ///
    /// Default: 3, as HAProxy's checks (`fall`). A failed connect does not depend on the request, so
    /// fewer are conclusive. Envoy's 5 would add nothing here, because failed connects also count as
    /// failures of any kind, and the 1 of nginx and of Finagle's fail-fast ejects a server for one
    /// lost SYN.
    pub const fn consecutive_connect_failures(mut self, failures: Option<u32>) -> Self {
        self.policy.consecutive_connect_failures = failures;
        self
    }

    /// Ejects a member that fails this percentage of its requests in a sweep; `None` never does.
    ///
    /// Default: on. Envoy ships it unenforced. It is on here because [`SuccessRateDetector`] finds a
    /// single outlier but not several members of a small set that fail together: two of five are never
    /// more than 1.23 deviations below the mean.
    pub const fn failure_percentage(mut self, detector: Option<FailurePercentageDetector>) -> Self {
        self.policy.failure_percentage = detector;
        self
    }

    /// Ejects a member whose success rate in a sweep is far below that of the others; `None` never
    /// does.
    ///
    /// Default: on, as in Envoy.
    pub const fn success_rate(mut self, detector: Option<SuccessRateDetector>) -> Self {
        self.policy.success_rate = detector;
        self
    }

    /// Ejects a member whose latency in a sweep is far above that of the others; `None` never does.
    ///
    /// Default: `None`. No balancer publishes a default, because backends of different capacity and
    /// routes of different cost look like outliers. Schedulers that go by load
    /// ([`peak_ewma`](crate::scheduler::PeakEwma), `lc`) give a slow backend less work without ejecting
    /// it.
    pub const fn latency(mut self, detector: Option<LatencyDetector>) -> Self {
        self.policy.latency = detector;
        self
    }

    /// Sets the time between two [sweeps](super::Ejector::sweep), from 1 ms to a day.
    ///
    /// Default: 10 s, as in Envoy and gRPC. The minimum requests of the detectors are counted per
    /// sweep, and each sweep lowers a multiplier by one: half the interval needs twice the traffic and
    /// lowers multipliers twice as quickly.
    pub const fn sweep_interval(mut self, interval: Duration) -> Self {
        self.policy.sweep_interval = interval;
        self
    }

    /// Sets the time of the first ejection, which each further ejection in a row adds again, from
    /// 1 ms to a day.
    ///
    /// Default: 30 s, as in Envoy and gRPC: long compared with a garbage collection or a restart of
    /// the program, short compared with an operator's reaction.
    pub const fn base_ejection_time(mut self, time: Duration) -> Self {
        self.policy.base_ejection_time = time;
        self
    }

    /// Sets the longest time of an ejection, from the base time to a day; [jitter](Self::jitter) is
    /// added to it.
    ///
    /// Default: 300 s, as in Envoy and gRPC, and the end of Finagle's backoff.
    pub const fn max_ejection_time(mut self, time: Duration) -> Self {
        self.policy.max_ejection_time = time;
        self
    }

    /// Lengthens each ejection by a random time of at most this, up to a day.
    ///
    /// Default: none, as in Envoy. Useful if many balancers eject the same backend at the same moment,
    /// so that their trials do not start at the same moment.
    pub const fn jitter(mut self, jitter: Duration) -> Self {
        self.policy.jitter = jitter;
        self
    }

    /// Sets the percentage of the available members that may be ejected at once, from 0 to 100,
    /// rounded down, but [at least one member](super#maximum-number-of-ejected-members); 0 ejects none.
    ///
    /// Default: 10, as in Envoy and gRPC. When more than a tenth of the members look faulty, the cause
    /// is rarely theirs alone, and the load of the ejected members moves to the others.
    pub const fn max_ejected_percent(mut self, percent: u8) -> Self {
        self.policy.max_ejected_percent = percent;
        self
    }

    /// Sets whether an active check that passes
    /// [ends an ejection](super::Ejector::handle_check_passed).
    ///
    /// Default: no, unlike Envoy. A backend that was ejected because it answers 500 still accepts TCP
    /// connections: its next check, a second later, would end every ejection. Set it if the check
    /// exercises the same work as the traffic.
    pub const fn check_ends_ejection(mut self, ends: bool) -> Self {
        self.policy.check_ends_ejection = ends;
        self
    }

    /// Sets the slow start of a member that has passed its trial; `None` leaves it to the slow start
    /// of the set, if that has one.
    ///
    /// Default: 10 s, linear, so that a member that has just recovered does not get its whole load at
    /// once.
    pub const fn ramp(mut self, ramp: Option<SlowStart>) -> Self {
        self.policy.ramp = ramp;
        self
    }

    /// Sets the time after which an unfinished trial counts as passed, from 1 ms to a day.
    ///
    /// Default: 10 s. It matters for connections that stay open for hours.
    pub const fn max_trial_time(mut self, time: Duration) -> Self {
        self.policy.max_trial_time = time;
        self
    }

    /// Checks the settings and returns the policy.
    ///
    /// # Errors
    /// [`SettingError`] names the first parameter that is out of range.
    pub fn build(self) -> Result<EjectionPolicy, SettingError> {
        self.policy.validate()?;
        Ok(self.policy)
    }
}
