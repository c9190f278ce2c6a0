//! What a member is asked, and who answers.

use std::fmt::Debug;
use std::time::{Duration, Instant};

use crate::backend::Member;
use crate::scheduler::load::peak_ewma::{UNKNOWN_LATENCY_PENALTY, expected_seconds};

/// Answers how a member is doing; for [`HotCold`](super::HotCold).
///
/// Called inside a pick, a few times for each: it must answer from what it knows already, without
/// lock, allocation or system call. Whoever asks servers over the network does so in the background,
/// keeps the latest answers in atomics, and finds them by [`Member::serial`] or [`Member::id`];
/// where there is none yet, [`LocalLoadProbe`] has one.
///
/// # Examples
/// Servers that report a queue length of their own, next to which our own count is nothing:
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
///         let local = LocalLoadProbe.probe(member, now);
///         match self.0.get(member.serial() as usize) {
///             Some(queue) => LoadProbeResult::new(queue.load(Ordering::Relaxed), local.latency()),
///             None => local,
///         }
///     }
/// }
///
/// let rule = HotCold::new().with_probe(Reported((0..64).map(AtomicU32::new).collect()));
/// # let _ = rule;
/// ```
pub trait LoadProbe: Debug + Send + Sync + 'static {
    /// Says how the member is doing, as far as is known at `now`.
    fn probe(&self, member: &Member, now: Option<Instant>) -> LoadProbeResult;
}

/// What a probe says of a member.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
pub struct LoadProbeResult {
    pub(super) in_flight: u32,
    /// Single precision is as much as a pool keeps, and quicker than a `Duration` there and back.
    pub(super) latency_seconds: f32,
}

impl LoadProbeResult {
    /// An answer: the requests that it is working on, and how long it takes to answer one.
    ///
    /// Requests are divided by its share when compared with others; a latency of zero says "unknown,
    /// and worth one try".
    #[must_use]
    pub const fn new(in_flight: u32, latency: Duration) -> Self {
        Self { in_flight, latency_seconds: latency.as_secs_f32() }
    }

    /// The requests that it is working on.
    #[must_use]
    pub const fn in_flight(self) -> u32 {
        self.in_flight
    }

    /// How long it takes to answer, to seven digits.
    #[must_use]
    pub fn latency(self) -> Duration {
        Duration::try_from_secs_f32(self.latency_seconds).unwrap_or(Duration::MAX)
    }
}

/// Reads this process's own counters and estimates; the default of [`HotCold`](super::HotCold).
///
/// In flight is [`Load::active`](crate::Load::active). The latency is what
/// [`PeakEwma`](crate::scheduler::PeakEwma) expects one more request to take: the mean of what
/// was seen, times one more than the requests in flight, over the share of successes; zero for an
/// idle member of which nothing is known. The mean alone would not do: it says how a member was, not
/// how it is at its present number of requests, and everybody would run to the same few until their
/// answers come back late. A member that fails (by the rule of `PeakEwma`) is reported as
/// infinitely crowded and slow.
///
/// Estimates are read as of the latest moment that the set was told of, whatever `now` is: within a
/// pick that is the pick's own, worked out already.
#[derive(Clone, Copy, Debug, Default)]
pub struct LocalLoadProbe;

impl LoadProbe for LocalLoadProbe {
    #[inline]
    fn probe(&self, member: &Member, _now: Option<Instant>) -> LoadProbeResult {
        let account = member.account();
        let projection = account.raw_estimate(account.context().clock.latest());
        let active = account.load().active;
        let seconds = expected_seconds(projection, active);
        let failing =
            seconds >= UNKNOWN_LATENCY_PENALTY && (projection.latency.is_some() || active == 0);
        let in_flight = if failing { u32::MAX } else { active };
        LoadProbeResult { in_flight, latency_seconds: seconds }
    }
}
