//! The plan for a watched set: its checks with their timing, and its outlier ejection.

use std::collections::BTreeMap;
use std::hash::{Hash, Hasher};
use std::net::{IpAddr, SocketAddr};
use std::sync::Arc;
use std::time::Duration;

use thiserror::Error;

use super::Check;
use super::check::AnyCheck;
use super::outlier::policy::EjectionPolicy;
use super::proxy_header::CheckProxyHeader;
#[cfg(feature = "director")]
use super::virtual_path::CheckPathFinder;
use super::virtual_path::VirtualPath;
use crate::backend::{BackendId, BackendSet, Health, InitialHealthRule};

/// A check and its timing.
///
/// A backend goes down after [`fall`](Self::fall) failures in a row and up after [`rise`](Self::rise)
/// successes in a row; [`init`](Self::init) says what holds before the first result, and whether it
/// decides alone. A backend that stops answering is down
/// within `fall * interval + timeout`; a backend that refuses connections within `fall * interval`.
///
/// Clones are the same check: if several sets hold the same address and are watched with clones of
/// one `TimedCheck`, they share one probe. [`Monitor::watch`](super::Monitor::watch) refuses settings
/// out of range.
///
/// # Examples
/// ```
/// use std::time::Duration;
/// use lvs::health::{TcpCheck, TimedCheck};
///
/// let check = TimedCheck::new(TcpCheck::new())
///     .interval(Duration::from_secs(1))
///     .timeout(Duration::from_millis(500))
///     .fast_interval(Duration::from_millis(250))
///     .port(8081);
/// assert_eq!(check.max_detection_time(), Duration::from_millis(3_500));
/// ```
#[derive(Clone, Debug)]
#[must_use]
pub struct TimedCheck {
    check: Arc<dyn AnyCheck>,
    pub(super) timing: CheckTiming,
    has_own_timeout: bool,
    port: Option<u16>,
    source: Option<IpAddr>,
    proxy_header: Option<CheckProxyHeader>,
    virtual_path: Option<VirtualPath>,
}

/// When a check runs, and how its results count.
#[derive(Clone, Copy, Debug, Eq, Hash, PartialEq)]
pub(super) struct CheckTiming {
    pub(super) interval: Duration,
    pub(super) fast_interval: Option<Duration>,
    pub(super) down_interval: Option<Duration>,
    pub(super) timeout: Duration,
    pub(super) rise: u32,
    pub(super) fall: u32,
    /// The largest part of an interval by which a check may be early, in percent.
    pub(super) jitter: u8,
    pub(super) init: InitialHealth,
}

/// The health of a backend before the first result of its check, as HAProxy's `init-state`.
///
/// It applies to backends that are new to the monitor: present at [`watch`](super::Monitor::watch),
/// inserted later, or moved to another address. A change of the checks, and a
/// [restore](super::WatchHandle::restore), keep the health that is known.
///
/// Whatever the policy, a check that cannot run [`fall`](TimedCheck::fall) times before its first result
/// takes the backend down: it has never been found to serve.
#[derive(Clone, Copy, Debug, Default, Eq, Hash, PartialEq)]
#[non_exhaustive]
pub enum InitialHealth {
    /// Up, and the first result decides alone. In a director's file: `"up"`.
    #[default]
    Up,
    /// Down, and the first result decides alone. In a director's file:
    /// `"down"`.
    Down,
    /// Up, and [`fall`](TimedCheck::fall) failures take the backend down. In a director's file:
    /// `"fully-up"`.
    FullyUp,
    /// Down, and [`rise`](TimedCheck::rise) passed checks bring the backend up. In a director's
    /// file: `"fully-down"`.
    FullyDown,
}

impl InitialHealth {
    /// Returns the health until the first result.
    #[must_use]
    pub const fn health(self) -> Health {
        match self {
            Self::Up | Self::FullyUp => Health::Up,
            Self::Down | Self::FullyDown => Health::Down,
        }
    }

    /// Returns whether the first result decides alone.
    pub(super) const fn first_result_decides(self) -> bool {
        matches!(self, Self::Up | Self::Down)
    }
}

/// The timeout of a check whose intervals are no shorter.
const DEFAULT_TIMEOUT: Duration = Duration::from_secs(1);

impl CheckTiming {
    fn shortest_interval(&self) -> Duration {
        let others = [self.fast_interval, self.down_interval];
        others.into_iter().flatten().fold(self.interval, Duration::min)
    }
}

impl TimedCheck {
    /// Creates a check with an interval of 2 s, a timeout of 1 s or of a shorter interval, `fall` 3 and
    /// `rise` 2, as in HAProxy.
    pub fn new(check: impl Check) -> Self {
        let timing = CheckTiming {
            interval: Duration::from_secs(2),
            fast_interval: None,
            down_interval: None,
            timeout: DEFAULT_TIMEOUT,
            rise: 2,
            fall: 3,
            jitter: 5,
            init: InitialHealth::Up,
        };
        Self {
            check: Arc::new(check),
            timing,
            has_own_timeout: false,
            port: None,
            source: None,
            proxy_header: None,
            virtual_path: None,
        }
    }

    /// Sets the time between two checks, at least 1 ms. Default: 2 s.
    pub fn interval(mut self, interval: Duration) -> Self {
        self.timing.interval = interval;
        self.with_fitting_timeout()
    }

    /// Sets the time between two checks while the health may be changing: after a failed check of a
    /// backend that is up, or a passed check of a backend that is down. At least 1 ms. Default: the
    /// interval.
    pub fn fast_interval(mut self, interval: Duration) -> Self {
        self.timing.fast_interval = Some(interval);
        self.with_fitting_timeout()
    }

    /// Sets the time between two checks while the backend is down, at least 1 ms. Default: the
    /// interval.
    pub fn down_interval(mut self, interval: Duration) -> Self {
        self.timing.down_interval = Some(interval);
        self.with_fitting_timeout()
    }

    /// Sets the time after which a check has failed, above 0 and at most the shortest interval, so
    /// that no check waits for the previous one. Default: 1 s, or the shortest interval if that is
    /// shorter.
    pub fn timeout(mut self, timeout: Duration) -> Self {
        self.timing.timeout = timeout;
        self.has_own_timeout = true;
        self
    }

    /// Sets how many passed checks in a row bring a backend up, at least 1. Default: 2.
    pub fn rise(mut self, successes: u32) -> Self {
        self.timing.rise = successes;
        self
    }

    /// Sets how many failed checks in a row take a backend down, at least 1. Default: 3.
    pub fn fall(mut self, failures: u32) -> Self {
        self.timing.fall = failures;
        self
    }

    /// Sets the health of a backend before the first result, and whether that result decides alone.
    /// Default: [`InitialHealth::Up`], as in HAProxy.
    pub fn init(mut self, init: InitialHealth) -> Self {
        self.timing.init = init;
        self
    }

    /// Sets by how much of its interval a check may be early, at random, in percent from 0 to 50, so
    /// that balancers that were started together do not check together. Checks are never late by it,
    /// so the [detection time](Self::max_detection_time) holds. Default: 5.
    pub fn jitter(mut self, percent: u8) -> Self {
        self.timing.jitter = percent;
        self
    }

    /// Sets the port to check. Default: the port of the backend's address.
    pub fn port(mut self, port: u16) -> Self {
        self.port = Some(port);
        self
    }

    /// Sets the local address to check from. Default: the choice of the operating system.
    pub fn source(mut self, source: IpAddr) -> Self {
        self.source = Some(source);
        self
    }

    /// Sends a PROXY header at the beginning of each TCP connection of the check, for backends that
    /// expect one. Default: none. Checks without TCP send none.
    pub fn send_proxy(mut self, header: CheckProxyHeader) -> Self {
        self.proxy_header = Some(header);
        self
    }

    /// Checks backends at each of these virtual addresses, one after the other within the timeout, where the
    /// [finder of the plan](HealthPlan::path_finder) says so. The port of the check replaces theirs.
    #[cfg(feature = "director")]
    pub(crate) fn virtual_addresses(
        mut self,
        addresses: impl IntoIterator<Item = SocketAddr>,
    ) -> Self {
        let with_port = |mut address: SocketAddr| {
            address.set_port(self.port.unwrap_or(address.port()));
            address
        };
        self.virtual_path = Some(VirtualPath::new(addresses.into_iter().map(with_port)));
        self
    }

    /// Keeps the default timeout within the shortest interval.
    fn with_fitting_timeout(mut self) -> Self {
        if !self.has_own_timeout {
            self.timing.timeout = DEFAULT_TIMEOUT.min(self.timing.shortest_interval());
        }
        self
    }

    /// Returns the longest time until a backend that stops answering is down, provided that the checks
    /// start on time: `fall * interval + timeout`.
    #[must_use]
    pub fn max_detection_time(&self) -> Duration {
        self.timing.interval * self.timing.fall + self.timing.timeout
    }

    /// Returns the health before the first result.
    #[cfg(feature = "director")]
    pub(crate) fn initial_health(&self) -> InitialHealth {
        self.timing.init
    }

    /// Returns whether this is a clone of the other, whatever their timing.
    #[cfg(feature = "director")]
    pub(crate) fn is_same_check(&self, other: &Self) -> bool {
        Arc::ptr_eq(&self.check, &other.check)
    }

    /// Returns the key of the probe for a backend at this address; `None` if neither the address nor
    /// the check has a port.
    pub(super) fn probe_key(&self, backend: SocketAddr) -> Option<ProbeKey> {
        let mut address = backend;
        let path = self.virtual_path.clone();
        if let Some(port) = self.port {
            address.set_port(port);
        } else if let (0, Some(path)) = (backend.port(), &path) {
            // Port 0 means the one that the client connected to.
            address.set_port(path.addresses.first().map_or(0, SocketAddr::port));
        }
        let check = Arc::clone(&self.check);
        let (timing, source, proxy_header) = (self.timing, self.source, self.proxy_header);
        let key = ProbeKey { check, timing, address, source, proxy_header, path };
        (address.port() != 0).then_some(key)
    }

    /// Tells whether there is something to check at this address, or without one.
    pub(super) fn can_check(&self, backend: Option<SocketAddr>) -> bool {
        backend.and_then(|address| self.probe_key(address)).is_some()
    }

    /// Returns the name of the check.
    pub(super) fn name(&self) -> &str {
        self.check.name()
    }

    pub(crate) fn validate(&self) -> Result<(), HealthPlanError> {
        let CheckTiming { timeout, rise, fall, jitter, .. } = self.timing;
        let name = || self.check.name().to_owned();
        let shortest = self.timing.shortest_interval();
        if shortest < Duration::from_millis(1) {
            return Err(HealthPlanError::Interval { check: name(), interval: shortest });
        }
        if timeout.is_zero() || timeout > shortest {
            return Err(HealthPlanError::Timeout { check: name(), timeout, interval: shortest });
        }
        if rise == 0 || fall == 0 {
            return Err(HealthPlanError::RiseFall { check: name(), rise, fall });
        }
        if jitter > 50 {
            return Err(HealthPlanError::Jitter { check: name(), percent: jitter });
        }
        Ok(())
    }
}

/// The identity of a probe: members with equal keys share it.
#[derive(Clone, Debug)]
pub(super) struct ProbeKey {
    pub(super) check: Arc<dyn AnyCheck>,
    pub(super) timing: CheckTiming,
    pub(super) address: SocketAddr,
    pub(super) source: Option<IpAddr>,
    pub(super) proxy_header: Option<CheckProxyHeader>,
    /// Where the check goes in place of the address.
    pub(super) path: Option<VirtualPath>,
}

impl ProbeKey {
    /// Returns the check as the reason of a state names it: `http check`, with the PROXY header that it
    /// sends.
    pub(super) fn label(&self) -> String {
        let name = self.check.name();
        match self.proxy_header {
            None => format!("{name} check"),
            Some(header) => format!("{name} check with PROXY {}", header.name()),
        }
    }
}

impl PartialEq for ProbeKey {
    fn eq(&self, other: &Self) -> bool {
        Arc::ptr_eq(&self.check, &other.check)
            && (self.timing, self.address, self.source, self.proxy_header, &self.path)
                == (other.timing, other.address, other.source, other.proxy_header, &other.path)
    }
}

impl Eq for ProbeKey {}

impl Hash for ProbeKey {
    fn hash<H: Hasher>(&self, state: &mut H) {
        Arc::as_ptr(&self.check).cast::<()>().hash(state);
        (self.timing, self.address, self.source, self.proxy_header, &self.path).hash(state);
    }
}

/// The plan of a [`Monitor`](super::Monitor) for one set.
///
/// # Examples
/// ```
/// use lvs::health::{HealthPlan, TcpCheck, TimedCheck};
///
/// let plan = HealthPlan::new("web").check(TimedCheck::new(TcpCheck::new()));
/// # let _ = plan;
/// ```
#[derive(Clone, Debug)]
#[must_use]
pub struct HealthPlan {
    pub(super) name: Arc<str>,
    pub(super) checks: Vec<TimedCheck>,
    /// The checks of single backends, in place of those above.
    own_checks: BTreeMap<SocketAddr, Vec<TimedCheck>>,
    pub(super) ejection: Option<EjectionPolicy>,
}

impl HealthPlan {
    /// Creates a plan without checks for the service of this name, which events and logs show. A
    /// monitor with such a plan only sends events and advances slow starts.
    pub fn new(name: impl Into<Arc<str>>) -> Self {
        let (checks, own_checks) = (Vec::new(), BTreeMap::new());
        Self { name: name.into(), checks, own_checks, ejection: None }
    }

    /// Adds a check. With several checks, a backend is up while no check has it down.
    pub fn check(mut self, check: TimedCheck) -> Self {
        self.checks.push(check);
        self
    }

    /// Gives the backend at this address checks of its own, in place of those of
    /// [`check`](Self::check); none, and it is not checked. Replaces those of an earlier call.
    pub fn backend_checks(
        mut self,
        address: SocketAddr,
        checks: impl IntoIterator<Item = TimedCheck>,
    ) -> Self {
        self.own_checks.insert(address, checks.into_iter().collect());
        self
    }

    /// Returns the checks of a backend at this address, or without one.
    pub(super) fn checks_of(&self, address: Option<SocketAddr>) -> &[TimedCheck] {
        let own_checks = address.and_then(|address| self.own_checks.get(&address));
        own_checks.unwrap_or(&self.checks)
    }

    /// Sets the policy by which members are ejected because of their own traffic. Default: no
    /// ejection.
    pub fn ejection(mut self, policy: EjectionPolicy) -> Self {
        self.ejection = Some(policy);
        self
    }

    /// Sets how checks with [virtual addresses](TimedCheck::virtual_addresses) find the way to a backend.
    /// Default: none of them takes it.
    #[cfg(feature = "director")]
    pub(crate) fn path_finder(mut self, finder: &CheckPathFinder) -> Self {
        let own_checks = self.own_checks.values_mut().flatten();
        for check in self.checks.iter_mut().chain(own_checks) {
            if let Some(path) = &mut check.virtual_path {
                path.finder = finder.clone();
            }
        }
        self
    }

    /// Returns the health of backends that no check has a result of: down if one of a backend's checks
    /// says so.
    pub(crate) fn initial_health_rule(&self) -> InitialHealthRule {
        let is_down = |check: &TimedCheck| check.timing.init.health() == Health::Down;
        let health_by = |checks: &[TimedCheck]| match checks.iter().any(is_down) {
            true => Health::Down,
            false => Health::Up,
        };
        let own = self.own_checks.iter().map(|(address, checks)| (*address, health_by(checks)));
        InitialHealthRule { default: health_by(&self.checks), by_address: own.collect() }
    }

    pub(crate) fn validate(&self) -> Result<(), HealthPlanError> {
        let own_checks = self.own_checks.values().flatten();
        self.checks.iter().chain(own_checks).try_for_each(TimedCheck::validate)
    }

    /// Refuses a set of which a check of the plan can check no member.
    pub(super) fn validate_addresses<T>(&self, set: &BackendSet<T>) -> Result<(), HealthPlanError> {
        let snapshot = set.snapshot();
        let Some(first) = snapshot.members().iter().next() else { return Ok(()) };
        for check in &self.checks {
            let has_own = |address| self.own_checks.contains_key(&address);
            let covered =
                |member: Option<SocketAddr>| member.is_some_and(has_own) || check.can_check(member);
            if !snapshot.members().iter().any(|member| covered(member.address())) {
                return Err(HealthPlanError::NoAddress {
                    service: self.name.to_string(),
                    check: check.check.name().to_owned(),
                    backend: first.id().clone(),
                });
            }
        }
        Ok(())
    }
}

/// Why [`Monitor::watch`](super::Monitor::watch) refused a [`HealthPlan`].
#[derive(Clone, Debug, Eq, Error, PartialEq)]
#[non_exhaustive]
pub enum HealthPlanError {
    /// An interval is below 1 ms.
    #[error("{check} check: interval {interval:?} is below the minimum of 1ms")]
    Interval {
        /// The name of the check.
        check: String,
        /// Its shortest interval.
        interval: Duration,
    },
    /// The timeout is 0, or longer than an interval.
    #[error(
        "{check} check: timeout {timeout:?} must be above 0 and at most the shortest interval, \
         {interval:?}"
    )]
    Timeout {
        /// The name of the check.
        check: String,
        /// Its timeout.
        timeout: Duration,
        /// Its shortest interval.
        interval: Duration,
    },
    /// No backend of the set has an address that the check can use.
    #[error(
        "service {service}: the {check} check can check no backend: {backend} and all others have no \
         address or no port, set them by Spec::address and TimedCheck::port"
    )]
    NoAddress {
        /// The name of the service, from the plan.
        service: String,
        /// The name of the check.
        check: String,
        /// The first backend of the set.
        backend: BackendId,
    },
    /// Rise or fall is 0.
    #[error("{check} check: rise is {rise} and fall is {fall}, both must be at least 1")]
    RiseFall {
        /// The name of the check.
        check: String,
        /// Its number of passed checks that bring a backend up.
        rise: u32,
        /// Its number of failed checks that take a backend down.
        fall: u32,
    },
    /// The jitter is above 50 percent.
    #[error("{check} check: jitter of {percent} % is above the maximum of 50 %")]
    Jitter {
        /// The name of the check.
        check: String,
        /// Its jitter in percent of the interval.
        percent: u8,
    },
}

#[cfg(all(test, not(lvs_loom)))]
mod tests {
    use super::*;
    use crate::health::TcpCheck;

    #[test]
    fn a_timeout_that_is_not_set_follows_a_shorter_interval() {
        let ms = Duration::from_millis;
        let check = || TimedCheck::new(TcpCheck::new());
        let timeout_of = |check: TimedCheck| {
            check.validate().map(|()| check.timing.timeout).map_err(|error| error.to_string())
        };
        assert_eq!(timeout_of(check().interval(ms(3000))), Ok(ms(1000)));
        assert_eq!(timeout_of(check().interval(ms(500))), Ok(ms(500)));
        assert_eq!(timeout_of(check().interval(ms(500)).interval(ms(5000))), Ok(ms(1000)));
        assert_eq!(timeout_of(check().fast_interval(ms(200))), Ok(ms(200)));
        assert_eq!(timeout_of(check().down_interval(ms(300)).fast_interval(ms(400))), Ok(ms(300)));
        assert_eq!(timeout_of(check().timeout(ms(100)).interval(ms(500))), Ok(ms(100)));
        let expected = "tcp check: timeout 800ms must be above 0 and at most the shortest interval, \
                        500ms";
        assert_eq!(
            timeout_of(check().timeout(ms(800)).interval(ms(500))),
            Err(expected.to_owned())
        );
    }
}
