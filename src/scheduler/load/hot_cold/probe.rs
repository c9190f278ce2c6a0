//! Load probes: [`LoadProbe`] and the probe of this process's own counters.

use std::fmt::Debug;
use std::time::{Duration, Instant};

use crate::backend::Member;
use crate::scheduler::load::peak_ewma::{UNKNOWN_LATENCY_PENALTY, expected_seconds};

/// Reports the load of a member to [`HotCold`](super::HotCold).
///
/// Called a few times in each pick: it must return what is known already, without lock, allocation
/// or system call. A probe over the network queries the servers in the background, keeps the latest
/// reports in atomics, and finds them by [`Member::serial`] or [`Member::id`]; for a member without
/// a report it can use [`LocalLoadProbe`].
///
/// # Examples
/// Servers that report the length of their queue, which replaces the count of this process:
/// ```
/// use std::sync::atomic::{AtomicU32, Ordering};
/// use std::time::Instant;
/// use lvs::backend::Member;
/// use lvs::scheduler::{HotCold, LocalLoadProbe, LoadProbe, LoadProbeResult};
///
/// #[derive(Debug)]
/// struct Reported(Vec<AtomicU32>);
///
/// impl LoadProbe for Reported {
///     fn probe(&self, member: &Member, now: Option<Instant>) -> LoadProbeResult {
///         let local = LocalLoadProbe::new().probe(member, now);
///         match self.0.get(member.serial() as usize) {
///             Some(queue) => LoadProbeResult::new(queue.load(Ordering::Relaxed), local.latency()),
///             None => local,
///         }
///     }
/// }
///
/// let rule = HotCold::new().probe(Reported((0..64).map(AtomicU32::new).collect()));
/// # let _ = rule;
/// ```
pub trait LoadProbe: Debug + Send + Sync + 'static {
    /// Returns the load of a member as known at `now`.
    fn probe(&self, member: &Member, now: Option<Instant>) -> LoadProbeResult;
}

/// The load of a member, as a probe reports it.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
pub struct LoadProbeResult {
    pub(super) in_flight: u32,
    /// In single precision, which a pool keeps and which is faster than a `Duration`.
    pub(super) latency_seconds: f32,
}

impl LoadProbeResult {
    /// Creates a result of the member's requests in flight and its latency.
    ///
    /// Requests are divided by the member's share before they are compared; a latency of zero means
    /// that the latency is unknown, and the member is selected once.
    #[must_use]
    pub const fn new(in_flight: u32, latency: Duration) -> Self {
        Self { in_flight, latency_seconds: latency.as_secs_f32() }
    }

    /// Returns the member's requests in flight.
    #[must_use]
    pub const fn in_flight(self) -> u32 {
        self.in_flight
    }

    /// Returns the member's latency, to seven digits.
    #[must_use]
    pub fn latency(self) -> Duration {
        Duration::try_from_secs_f32(self.latency_seconds).unwrap_or(Duration::MAX)
    }
}

/// Reads this process's own counters and estimates; the default of [`HotCold`](super::HotCold).
///
/// In flight is [`Load::active`](crate::Load::active). The latency is what
/// [`PeakEwma`](crate::scheduler::PeakEwma) expects one more request to take: the mean of the
/// observations, times one more than the requests in flight, over the share of successes; zero for
/// an idle member without observations. The mean alone would describe the member's past, not its
/// latency at the current number of requests, and every client would select the same few members
/// until their responses are late. A member that fails (by the rule of `PeakEwma`) is reported with
/// infinite requests in flight and latency.
///
/// Estimates are read as of the latest time that the set has seen, whatever `now` is: within a pick
/// this is the time of the pick, already computed.
#[derive(Clone, Copy, Debug, Default)]
#[non_exhaustive]
pub struct LocalLoadProbe;

impl LocalLoadProbe {
    /// Creates the probe.
    #[must_use]
    pub const fn new() -> Self {
        Self
    }
}

impl LoadProbe for LocalLoadProbe {
    #[inline]
    fn probe(&self, member: &Member, _now: Option<Instant>) -> LoadProbeResult {
        let account = member.account();
        let estimate = account.raw_estimate(account.context().clock.latest());
        let active = account.load().active;
        let seconds = expected_seconds(estimate, active);
        let is_failing =
            seconds >= UNKNOWN_LATENCY_PENALTY && (estimate.latency.is_some() || active == 0);
        let in_flight = if is_failing { u32::MAX } else { active };
        LoadProbeResult { in_flight, latency_seconds: seconds }
    }
}
