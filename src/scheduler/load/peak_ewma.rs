//! Latency times load, of two members drawn at random: `peak_ewma`.

use std::hint::select_unpredictable;
use std::sync::Arc;
use std::time::Duration;

use crate::backend::{CoarseInstant, Members, PickView, RawTrafficEstimate, SetContext};
use crate::scheduler::load::p2c::PowerOfTwoChoicesPicker;
use crate::scheduler::parameter::{
    ParameterKind, SchedulerFamily, SchedulerInfo, SchedulerParameter, SchedulerParameterError,
};
use crate::scheduler::{CompileError, PickContext, Picker, Scheduler};

/// `peak_ewma`: selects, of two members drawn at random, the member with the shorter expected
/// response time.
///
/// Choose it where servers differ in speed for reasons that weights do not express: other hardware,
/// another zone, a noisy neighbour, a cold cache. Where servers are equal
/// [`p2c`](crate::scheduler::PowerOfTwoChoices) does as well at a lower cost.
///
/// It learns from leases that end with
/// [`complete_with_latency`](crate::Lease::complete_with_latency) and needs the time of each pick
/// ([`Flow::time`](crate::scheduler::Flow::time); without it the latest time that the set has seen
/// is used). Without any latency it works as `p2c`.
///
/// # The rule
/// Finagle's peak EWMA over the two different members that `p2c` would draw. The cost of a member
/// is
///
/// `latency * (active + 1) / share of successes / weight`
///
/// and the cheaper member is selected, the first drawn if the costs are equal. The latency rises to
/// a worse observation at once and decays with the decay time; the latency of a member without
/// traffic decays as well, so that the member is tried again. In addition:
/// - a member whose latency is *unknown* costs 0 while it is idle, and more than any member of
///   known latency once it has a request: a new server is probed with one request, not flooded;
/// - only successes count as latency, so that fast errors do not attract traffic. A member of which
///   a quarter of the recent responses failed (three failures in a row) costs more than any member
///   that works, and so does a member that has never succeeded and of which a twentieth failed (a
///   single failure). The rates decay with the decay time: after a single failure a member is tried
///   again after about one decay time, after failures only, after three. If all members fail, the
///   least active is selected, as by `p2c`.
///
/// Weight 0, one member, limits and retries: as `p2c`.
///
/// The rule helps against members that are or become slow; among equal members its tail latency is
/// a little longer than that of `p2c`. Requests that are long by nature (long polls, streams)
/// should be completed without a latency.
///
/// # Cost
/// O(1): the draw of `p2c`, and for both members the counter, the estimate and, for an estimate of
/// some age, one or two exponentials: 1 ns more than `p2c` without estimates and about 20 ns more
/// with them, of which a quarter is the arithmetic of the clock. Memory as `p2c`; the estimates are
/// stored beside the counters of every backend.
///
/// # Examples
/// ```
/// use std::time::{Duration, Instant};
/// # use lvs::{BackendSet, Balancer, Flow, Outcome, Spec, scheduler::PeakEwma};
///
/// let set = BackendSet::new();
/// for name in ["a", "b"] {
///     set.insert(Spec::new(name, ()))?;
/// }
/// let balancer = Balancer::new(&set, PeakEwma::new().decay(Duration::from_secs(5))?)?;
/// let flow = Flow::new().time(Instant::now());
/// let millis = |name: &str| if name == "a" { 30 } else { 20 };
/// for _ in 0..2 {
///     let lease = balancer.pick(&flow)?; // both are unknown at first: each is probed once
///     let latency = Duration::from_millis(millis(lease.id().as_str()));
///     lease.complete_with_latency(Outcome::Ok, latency, Instant::now());
/// }
/// assert_eq!(balancer.pick(&flow)?.id().as_str(), "b");
/// # Ok::<(), Box<dyn std::error::Error>>(())
/// ```
#[derive(Clone, Copy, Debug)]
pub struct PeakEwma {
    decay: Duration,
}

impl PeakEwma {
    /// Creates the rule with a decay time of 10 s.
    #[must_use]
    pub const fn new() -> Self {
        Self { decay: Duration::from_secs(10) }
    }

    /// Sets the time in which the weight of an observation falls to 1/e. Default: 10 s.
    ///
    /// Choose many times the usual latency, and about the time for which a slow period should
    /// count. The time is set on the backends: if several balancers share a set, the last compiled
    /// decides.
    ///
    /// # Errors
    /// [`SchedulerParameterError`] for a time below 1 ms.
    pub fn decay(self, decay: Duration) -> Result<Self, SchedulerParameterError> {
        Ok(Self { decay: DECAY.check_duration("peak_ewma", decay)? })
    }
}

impl Default for PeakEwma {
    fn default() -> Self {
        Self::new()
    }
}

const DECAY: SchedulerParameter = SchedulerParameter::new(
    "decay",
    ParameterKind::Duration { min: Duration::from_millis(1), max: Duration::MAX },
    Some("10s"),
    "The time in which the weight of an observed latency falls to 1/e",
);

impl PeakEwma {
    pub(in crate::scheduler) const INFO: SchedulerInfo = SchedulerInfo {
        name: "peak_ewma",
        type_name: "PeakEwma",
        family: SchedulerFamily::Load,
        summary: "Selects, of two servers drawn as by p2c, the server with the lower latency times load",
        parameters: &[DECAY],
    };
}

impl Scheduler for PeakEwma {
    fn name(&self) -> &str {
        "peak_ewma"
    }

    fn reads_time(&self) -> bool {
        true
    }

    fn compile(
        &self,
        members: &Members,
        _previous: Option<&dyn Picker>,
    ) -> Result<Box<dyn Picker>, CompileError> {
        members.iter().for_each(|member| member.set_estimate_decay(self.decay));
        Ok(Box::new(PeakEwmaPicker {
            power_of_two: PowerOfTwoChoicesPicker::new(members)?,
            shared: members.context().cloned(),
        }))
    }
}

#[derive(Debug)]
struct PeakEwmaPicker {
    power_of_two: PowerOfTwoChoicesPicker,
    /// The clock and estimates of the set; `None` for an empty list.
    shared: Option<Arc<SetContext>>,
}

impl Picker for PeakEwmaPicker {
    fn pick(&self, cx: &mut PickContext<'_>) -> Option<usize> {
        let shared = self.shared.as_ref()?;
        if shared.has_estimates() {
            self.pick_by_cost(shared, cx)
        } else {
            self.power_of_two.pick(cx)
        }
    }
}

impl PeakEwmaPicker {
    /// A function of its own, which keeps `pick` short for sets without estimates.
    #[inline(never)]
    fn pick_by_cost(&self, shared: &SetContext, cx: &mut PickContext<'_>) -> Option<usize> {
        let now = shared.clock.advance_or_latest(cx.flow().time());
        self.power_of_two.sampler.pick_better_of_two(cx, |a, b| {
            // cost(a) / share(a) <= cost(b) / share(b), multiplied out.
            member_cost(a, now) * b.share as f32 <= member_cost(b, now) * a.share as f32
        })
    }
}

#[inline]
fn member_cost(member: PickView<'_>, now: CoarseInstant) -> f32 {
    expected_seconds(member.account.raw_estimate(now), member.account.load().active)
}

/// Returns the expected time of one more request, in seconds.
#[inline]
pub(in crate::scheduler) fn expected_seconds(estimate: RawTrafficEstimate, active: u32) -> f32 {
    let (failed, busy) = (estimate.failure_rate, active as f32 + 1.0);
    match estimate.latency {
        // The processor cannot predict this branch.
        None => select_unpredictable(
            active == 0 && failed < UNPROVEN_FAILING_RATE,
            0.0,
            UNKNOWN_LATENCY_PENALTY * busy,
        ),
        // The usual case: few members fail, and the division takes as long as the rest of the
        // function.
        Some(latency) if failed == 0.0 => latency * busy,
        Some(latency) if failed < FAILING_RATE => latency * busy / (1.0 - failed),
        Some(_) => UNKNOWN_LATENCY_PENALTY * busy,
    }
}

/// The latency of a member that fails or whose latency is unknown, in seconds: eleven days.
pub(in crate::scheduler) const UNKNOWN_LATENCY_PENALTY: f32 = 1e6;
/// The failure rate from which a member that has succeeded counts as failing. A single failure
/// gives 0.125, three in a row 0.33.
const FAILING_RATE: f32 = 0.25;
/// The failure rate from which a member that has never succeeded counts as failing.
const UNPROVEN_FAILING_RATE: f32 = 0.05;

#[cfg(all(test, not(lvs_loom)))]
mod tests {
    use std::time::Instant;

    use super::*;
    use crate::scheduler::testing::{assert_near, balancer, id, percentages, position};
    use crate::scheduler::{Flow, Rng};
    use crate::{Balancer, Limits, Outcome, PickError};

    const RULE: PeakEwma = PeakEwma::new();

    fn start() -> Instant {
        #[expect(clippy::disallowed_methods, reason = "any instant serves as a start")]
        Instant::now()
    }

    fn known(seconds: f32, failure_rate: f32) -> RawTrafficEstimate {
        RawTrafficEstimate { latency: Some(seconds), failure_rate }
    }

    fn unknown(failure_rate: f32) -> RawTrafficEstimate {
        RawTrafficEstimate { latency: None, failure_rate }
    }

    /// Sends `picks` requests, one each `gap`, each answered at once as `answer` says for its
    /// member; tells how many each member got.
    fn drive(
        balancer: &Balancer<()>,
        picks: u32,
        gap: Duration,
        now: &mut Instant,
        answer: impl Fn(usize) -> (Outcome, u64),
    ) -> Vec<u32> {
        let mut counts = vec![0; balancer.snapshot().members().len()];
        let mut rng = Rng::with_seed(u64::from(picks));
        for _ in 0..picks {
            *now += gap;
            let lease = balancer.pick_with_rng(&Flow::new().time(*now), &mut rng).expect("a pick");
            let chosen = position(&lease);
            counts[chosen] += 1;
            let (outcome, millis) = answer(chosen);
            lease.complete_with_latency(outcome, Duration::from_millis(millis), *now);
        }
        counts
    }

    // The numbers of Envoy's peak_ewma/cost_test.cc, in seconds. There a member of unknown latency with
    // three requests costs 1e6 + 3, which would hide the load of such members of different weight.
    #[test]
    fn the_cost_is_latency_times_load_and_unknown_is_probed_once() {
        assert_eq!(expected_seconds(known(20.0, 0.0), 5), 120.0);
        assert_eq!(expected_seconds(known(30.0, 0.0), 0), 30.0);
        assert_eq!(expected_seconds(unknown(0.0), 3), 4e6);
        assert_eq!(expected_seconds(unknown(0.0), 0), 0.0);
    }

    #[test]
    fn failures_raise_the_cost_and_many_failures_exceed_any_latency() {
        assert_near(&[f64::from(expected_seconds(known(30.0, 0.2), 1))], &[75.0], 1e-5);
        assert_eq!(expected_seconds(known(30.0, 0.3), 1), 2e6);
        assert_eq!(expected_seconds(unknown(0.125), 0), 1e6);
        assert_eq!(expected_seconds(unknown(0.04), 0), 0.0);
    }

    #[test]
    fn without_times_it_is_p2c() {
        let got = percentages(&balancer(RULE, &[2, 0, 1]), 100_000);
        assert_near(&got, &[66.7, 0.0, 33.3], 1.0);
        let busy = balancer(RULE, &[1, 1]);
        busy.snapshot().backends()[0].set_load(3, 0);
        assert_eq!(percentages(&busy, 100), [0.0, 100.0]);
        let weighted = balancer(RULE, &[2, 1]);
        weighted.snapshot().backends()[0].set_load(10, 0);
        weighted.snapshot().backends()[1].set_load(1, 0);
        assert_eq!(percentages(&weighted, 100), [0.0, 100.0], "the heavier one has its share");
    }

    #[test]
    fn the_faster_of_two_is_preferred_until_its_load_outweighs_its_latency() {
        let balancer = balancer(RULE, &[1, 1]);
        let (snapshot, mut now) = (balancer.snapshot(), start());
        drive(&balancer, 2, Duration::ZERO, &mut now, |i| (Outcome::Ok, [10, 40][i]));
        let choose = |active| {
            snapshot.backends()[0].set_load(active, 0);
            let lease = balancer.pick_with_rng(&Flow::new().time(now), &mut Rng::with_seed(1));
            position(&lease.expect("a pick"))
        };
        assert_eq!([choose(0), choose(2), choose(4)], [0, 0, 1]);
        balancer.backend_set().set_weight(&id(0), 2).expect("a member");
        assert_eq!(
            [choose(4), choose(6), choose(8)],
            [0, 0, 1],
            "twice the weight, twice the load"
        );
    }

    #[test]
    fn a_new_member_is_probed_with_one_request() {
        let balancer = balancer(RULE, &[1, 1]);
        let mut now = start();
        drive(&balancer, 2, Duration::ZERO, &mut now, |_| (Outcome::Ok, 5));
        let new = balancer.backend_set().insert(crate::Spec::new("7", ())).expect("room");
        let mut rng = Rng::with_seed(3);
        let flow = Flow::new().time(now);
        let held: Vec<_> =
            (0..50).map(|_| balancer.pick_with_rng(&flow, &mut rng).expect("a pick")).collect();
        assert_eq!(held.iter().filter(|lease| lease.id() == new.id()).count(), 1);
    }

    #[test]
    fn a_member_that_always_failed_gets_few_picks_and_recovers() {
        let balancer = balancer(RULE, &[1; 10]);
        let (mut now, gap) = (start(), Duration::from_millis(10));
        let failing = |i| if i == 4 { (Outcome::ConnectError, 0) } else { (Outcome::Ok, 10) };
        let counts = drive(&balancer, 6000, gap, &mut now, failing);
        assert!(counts[4] <= 12, "{counts:?}: well below one in a hundred");
        assert!(counts[4] >= 2, "{counts:?}: it is tried again now and then");
        let counts = drive(&balancer, 6000, gap, &mut now, |_| (Outcome::Ok, 10));
        assert!(counts[4] >= 200, "{counts:?}: mended, it is back");
    }

    #[test]
    fn a_member_that_starts_to_fail_gets_few_picks_until_it_recovers() {
        let balancer = balancer(RULE, &[1; 10]);
        let (mut now, gap) = (start(), Duration::from_millis(10));
        drive(&balancer, 2000, gap, &mut now, |_| (Outcome::Ok, 10));
        let failing = |i| if i == 4 { (Outcome::AppError, 0) } else { (Outcome::Ok, 10) };
        let counts = drive(&balancer, 20_000, gap, &mut now, failing);
        assert!(counts[4] <= 200, "{counts:?}: at most one in a hundred");
        let counts = drive(&balancer, 3000, gap, &mut now, |_| (Outcome::Ok, 10));
        assert!(counts[4] >= 60, "{counts:?}: mended, it is back");
    }

    #[test]
    fn a_slow_period_is_forgotten_after_some_decay_times() {
        let balancer = balancer(RULE.decay(Duration::from_secs(1)).expect("in range"), &[1; 2]);
        let (mut now, gap) = (start(), Duration::from_millis(10));
        let slow = drive(&balancer, 100, gap, &mut now, |i| (Outcome::Ok, [100, 10][i]));
        assert!(slow[0] < 10, "{slow:?}");
        let mended = drive(&balancer, 2000, gap, &mut now, |_| (Outcome::Ok, 10));
        assert!(mended[0] > 500, "{mended:?}");
    }

    #[test]
    fn the_same_seed_repeats_the_run_and_one_member_gets_everything() {
        let run = || {
            let mut now = start();
            let answer = |i: usize| (Outcome::Ok, 10 + i as u64);
            drive(&balancer(RULE, &[3, 1, 4, 1]), 500, Duration::from_millis(1), &mut now, answer)
        };
        assert_eq!(run(), run());
        assert_eq!(percentages(&balancer(RULE, &[0, 1]), 100), [0.0, 100.0]);
    }

    #[test]
    fn members_at_limits_or_tried_are_not_selected() {
        let balancer = balancer(RULE, &[1, 1, 1]);
        balancer.backend_set().set_limits(&id(0), Limits::new(1)).expect("a limit");
        let _held = balancer.lease_by_id(&id(0)).expect("a free place");
        let snapshot = balancer.snapshot();
        let flow = Flow::new().excluding(&snapshot.backends()[1]);
        assert_eq!(balancer.pick(&flow).map(|lease| position(&lease)), Ok(2));
        let flow = flow.excluding(&snapshot.backends()[2]);
        assert_eq!(balancer.pick(&flow).err(), Some(PickError::AllAtLimit));
    }
}
