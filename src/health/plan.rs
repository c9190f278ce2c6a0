//! How a set is to be checked: which questions, how often, and what the answers mean.

use std::hash::{Hash, Hasher};
use std::net::IpAddr;
use std::sync::Arc;
use std::time::Duration;

use thiserror::Error;

use super::Check;
use super::check::AnyCheck;
use super::outlier::{EjectionPolicy, EjectionPolicyError};

/// One check and its timing.
///
/// A backend is down after [`fall`](Self::fall) failures in a row and up after [`rise`](Self::rise)
/// successes; the first answer of all decides by itself. A backend that stops answering is seen to
/// be down within `fall * interval + timeout`; one that refuses within `fall * interval`.
///
/// Clones are the same check: where several sets hold the same address and are watched with clones
/// of one `TimedCheck`, one probe serves all.
///
/// # Examples
/// ```
/// use std::time::Duration;
/// use lvs::health::{TimedCheck, TcpCheck};
///
/// let checks = TimedCheck::new(TcpCheck::new())
///     .interval(Duration::from_secs(1))
///     .timeout(Duration::from_millis(500))
///     .fast_interval(Duration::from_millis(250))
///     .port(8081);
/// assert_eq!(checks.max_detection_time(), Duration::from_millis(3_500));
/// ```
#[derive(Clone, Debug)]
#[must_use]
pub struct TimedCheck {
    check: Arc<dyn AnyCheck>,
    pub(super) timing: CheckTiming,
    port: Option<u16>,
    source: Option<IpAddr>,
}

/// When to ask, and what answers mean.
#[derive(Clone, Copy, Debug, Eq, Hash, PartialEq)]
pub(super) struct CheckTiming {
    pub(super) interval: Duration,
    pub(super) fast_interval: Option<Duration>,
    pub(super) down_interval: Option<Duration>,
    pub(super) timeout: Duration,
    pub(super) rise: u32,
    pub(super) fall: u32,
    /// In percent of the interval.
    pub(super) jitter: u8,
}

impl TimedCheck {
    /// Asks every 2 s, for 1 s; down after 3 failures, up after 2 successes: HAProxy's numbers.
    pub fn new(check: impl Check) -> Self {
        let timing = CheckTiming {
            interval: Duration::from_secs(2),
            fast_interval: None,
            down_interval: None,
            timeout: Duration::from_secs(1),
            rise: 2,
            fall: 3,
            jitter: 5,
        };
        Self { check: Arc::new(check), timing, port: None, source: None }
    }

    /// How long from one check to the next. At least 1 ms. Default: 2 s.
    pub fn interval(mut self, interval: Duration) -> Self {
        self.timing.interval = interval;
        self
    }

    /// How long from one check to the next while the state is about to change: after a failure of
    /// one that is up, or a success of one that is down. Default: the interval.
    pub fn fast_interval(mut self, interval: Duration) -> Self {
        self.timing.fast_interval = Some(interval);
        self
    }

    /// How long from one check to the next while the backend is down. Default: the interval.
    pub fn down_interval(mut self, interval: Duration) -> Self {
        self.timing.down_interval = Some(interval);
        self
    }

    /// How long a check may take; one that takes longer has failed. At most the shortest interval,
    /// so that no check waits for the one before. Default: 1 s.
    pub fn timeout(mut self, timeout: Duration) -> Self {
        self.timing.timeout = timeout;
        self
    }

    /// So many successes in a row bring a backend up. At least 1. Default: 2.
    pub fn rise(mut self, successes: u32) -> Self {
        self.timing.rise = successes;
        self
    }

    /// So many failures in a row take a backend down. At least 1. Default: 3.
    pub fn fall(mut self, failures: u32) -> Self {
        self.timing.fall = failures;
        self
    }

    /// By how much of its interval a check may come early, in percent (0 to 50), at random, so that
    /// balancers that were started together do not ask together. Never late: the promise of
    /// detection holds. Default: 5.
    pub fn jitter(mut self, percent: u8) -> Self {
        self.timing.jitter = percent;
        self
    }

    /// Asks on a port of its own. Default: that of the backend's address.
    pub fn port(mut self, port: u16) -> Self {
        self.port = Some(port);
        self
    }

    /// Asks from this address of this machine. Default: the system's choice.
    pub fn source(mut self, source: IpAddr) -> Self {
        self.source = Some(source);
        self
    }

    /// The longest time from a backend's failing to answer until it is known to be down, as far as
    /// this machine keeps up.
    #[must_use]
    pub fn max_detection_time(&self) -> Duration {
        self.timing.interval * self.timing.fall + self.timing.timeout
    }

    /// Whom to ask for a backend at this address; `None` if that has no port to ask at.
    pub(super) fn probe_key(&self, backend: std::net::SocketAddr) -> Option<ProbeKey> {
        let mut address = backend;
        address.set_port(self.port.unwrap_or(backend.port()));
        let check = Arc::clone(&self.check);
        let (timing, source) = (self.timing, self.source);
        (address.port() != 0).then_some(ProbeKey { check, timing, address, source })
    }

    fn validate(&self) -> Result<(), HealthPlanError> {
        let CheckTiming { interval, fast_interval, down_interval, timeout, rise, fall, jitter } =
            self.timing;
        let check = || self.check.name().to_owned();
        let intervals = [Some(interval), fast_interval, down_interval];
        let shortest = intervals.into_iter().flatten().min().unwrap_or(interval);
        if shortest < Duration::from_millis(1) {
            return Err(HealthPlanError::Interval { check: check(), interval: shortest });
        }
        if timeout.is_zero() || timeout > shortest {
            return Err(HealthPlanError::Timeout { check: check(), timeout, interval: shortest });
        }
        if rise == 0 || fall == 0 {
            return Err(HealthPlanError::RiseFall { check: check() });
        }
        if jitter > 50 {
            return Err(HealthPlanError::Jitter { check: check(), percent: jitter });
        }
        Ok(())
    }
}

/// What makes two probes the same.
#[derive(Clone, Debug)]
pub(super) struct ProbeKey {
    pub(super) check: Arc<dyn AnyCheck>,
    pub(super) timing: CheckTiming,
    pub(super) address: std::net::SocketAddr,
    pub(super) source: Option<IpAddr>,
}

impl PartialEq for ProbeKey {
    fn eq(&self, other: &Self) -> bool {
        Arc::ptr_eq(&self.check, &other.check)
            && (self.timing, self.address, self.source)
                == (other.timing, other.address, other.source)
    }
}

impl Eq for ProbeKey {}

impl Hash for ProbeKey {
    fn hash<H: Hasher>(&self, state: &mut H) {
        Arc::as_ptr(&self.check).cast::<()>().hash(state);
        (self.timing, self.address, self.source).hash(state);
    }
}

/// What a [`Monitor`](super::Monitor) does for one set.
///
/// # Examples
/// ```
/// use lvs::health::{TimedCheck, HealthPlan, TcpCheck};
///
/// let plan = HealthPlan::new("web").check(TimedCheck::new(TcpCheck::new()));
/// # let _ = plan;
/// ```
#[derive(Clone, Debug)]
#[must_use]
pub struct HealthPlan {
    pub(super) name: Arc<str>,
    pub(super) checks: Vec<TimedCheck>,
    pub(super) ejection: Option<EjectionPolicy>,
}

impl HealthPlan {
    /// A plan for the set of a service of this name: events and logs call it so. Without checks it
    /// tells events, and lets slow starts move on.
    pub fn new(name: impl Into<Arc<str>>) -> Self {
        Self { name: name.into(), checks: Vec::new(), ejection: None }
    }

    /// Adds a check. With several a backend is up while none says that it is down.
    pub fn check(mut self, checks: TimedCheck) -> Self {
        self.checks.push(checks);
        self
    }

    /// Ejects members whose own traffic goes badly. Default: none is.
    pub fn ejection(mut self, ejection: EjectionPolicy) -> Self {
        self.ejection = Some(ejection);
        self
    }

    pub(crate) fn validate(&self) -> Result<(), HealthPlanError> {
        self.ejection.as_ref().map_or(Ok(()), EjectionPolicy::validate)?;
        self.checks.iter().try_for_each(TimedCheck::validate)
    }
}

/// Why a [`HealthPlan`] cannot be carried out.
#[derive(Clone, Debug, Eq, Error, PartialEq)]
#[non_exhaustive]
pub enum HealthPlanError {
    /// An interval is below 1 ms.
    #[error("the {check} check cannot be made every {interval:?}: 1 ms is the least")]
    Interval {
        /// The check.
        check: String,
        /// Its shortest interval.
        interval: Duration,
    },
    /// The timeout is nothing, or longer than an interval.
    #[error(
        "the {check} check's timeout of {timeout:?} must be above 0 and at most its shortest \
         interval, {interval:?}"
    )]
    Timeout {
        /// The check.
        check: String,
        /// Its timeout.
        timeout: Duration,
        /// Its shortest interval.
        interval: Duration,
    },
    /// Rise or fall is 0.
    #[error("the {check} check's rise and fall must be at least 1")]
    RiseFall {
        /// The check.
        check: String,
    },
    /// A rule of the ejection makes no sense.
    #[error(transparent)]
    Ejection(#[from] EjectionPolicyError),
    /// The jitter is above half of the interval.
    #[error("the {check} check cannot come early by {percent} % of its interval: 50 is the most")]
    Jitter {
        /// The check.
        check: String,
        /// What was asked for.
        percent: u8,
    },
}
