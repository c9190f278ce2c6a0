//! An ejector with the members of a set, and a clock that the tests advance.

use std::collections::BTreeMap;
use std::time::{Duration, Instant};

use lvs::backend::OutcomeCounts;
use lvs::health::outlier::{
    EjectionAction, EjectionDecision, EjectionPhase, EjectionReason, EjectionState, Ejector,
    OutlierSample, StreakReport,
};
use lvs::health::{EjectionPolicy, EjectionPolicyBuilder};
use lvs::scheduler::Rng;

/// An ejector, the current samples of its members, and the clock.
#[derive(Debug)]
pub(crate) struct EjectorTestBed {
    pub(crate) ejector: Ejector,
    pub(crate) now: Instant,
    pub(crate) members: BTreeMap<u64, OutlierSample>,
}

pub(crate) fn start() -> Instant {
    #[expect(clippy::disallowed_methods, reason = "the tests need a first instant")]
    Instant::now()
}

pub(crate) fn secs(seconds: u64) -> Duration {
    Duration::from_secs(seconds)
}

pub(crate) fn millis(millis: u64) -> Duration {
    Duration::from_millis(millis)
}

/// Builds a policy that is expected to be valid.
pub(crate) fn build(policy: EjectionPolicyBuilder) -> EjectionPolicy {
    policy.build().expect("the policy is valid")
}

impl EjectorTestBed {
    /// Creates a bed with the members 1 to `members`, all available, after a first sweep.
    pub(crate) fn new(policy: EjectionPolicy, members: u64) -> Self {
        let ejector = Ejector::new(policy, Rng::with_seed(1));
        let mut bed = Self { ejector, now: start(), members: BTreeMap::new() };
        (1..=members).for_each(|serial| bed.join(serial));
        assert_eq!(bed.sweep(), []);
        bed
    }

    pub(crate) fn join(&mut self, serial: u64) {
        let outcomes = OutcomeCounts::default();
        let sample = OutlierSample { serial, outcomes, latency: None, enabled: true, up: true };
        self.members.insert(serial, sample);
        self.ejector.track(serial, true, true);
    }

    pub(crate) fn set_up(&mut self, serial: u64, up: bool) {
        let member = self.members.get_mut(&serial).expect("a tracked member");
        member.up = up;
        self.ejector.track(serial, member.enabled, up);
    }

    pub(crate) fn add_traffic(&mut self, serial: u64, ok: u64, failed: u64) {
        let outcomes = &mut self.members.get_mut(&serial).expect("a tracked member").outcomes;
        outcomes.ok += ok;
        outcomes.app_error += failed;
    }

    pub(crate) fn set_latency(&mut self, serial: u64, latency: Duration) {
        self.members.get_mut(&serial).expect("a tracked member").latency = Some(latency);
    }

    pub(crate) fn advance(&mut self, time: Duration) {
        self.now += time;
    }

    pub(crate) fn sweep(&mut self) -> Vec<EjectionDecision> {
        let samples: Vec<OutlierSample> = self.members.values().copied().collect();
        self.ejector.sweep(self.now, &samples)
    }

    /// Sweeps, and returns the serials of the ejected members in order, with the reasons.
    pub(crate) fn sweep_reasons(&mut self) -> Vec<(u64, String)> {
        let reason =
            |decision: EjectionDecision| (decision.serial, ejected(decision).1.to_string());
        self.sweep().into_iter().map(reason).collect()
    }

    pub(crate) fn report_streak(
        &mut self,
        serial: u64,
        failures: u32,
        connect_failures: u32,
    ) -> Option<EjectionDecision> {
        let has_app_error = failures > connect_failures;
        let streak = StreakReport { failures, connect_failures, has_app_error };
        self.ejector.handle_streak(self.now, serial, streak)
    }

    /// Ejects a member by a streak of failures, and returns the ejection time.
    pub(crate) fn eject(&mut self, serial: u64) -> Duration {
        let decision = self.report_streak(serial, 5, 0).expect("5 failures eject");
        assert_eq!(decision.serial, serial);
        ejected(decision).0 - self.now
    }

    pub(crate) fn state(&self, serial: u64) -> EjectionState {
        self.ejector.ejection_state(serial).expect("a tracked member")
    }

    pub(crate) fn is_not_ejected(&self, serial: u64) -> bool {
        self.state(serial).phase == EjectionPhase::NotEjected
    }

    /// Advances the clock to the next end of an ejection, and returns the serials whose trials start.
    pub(crate) fn run_until_trial(&mut self) -> Vec<u64> {
        let end = self.ejector.poll_timeout().expect("a member is ejected");
        assert_eq!(self.ejector.handle_timeout(end - Duration::from_nanos(1)), []);
        self.now = end;
        let trial = |decision: EjectionDecision| {
            assert_eq!(decision.action, EjectionAction::StartTrial);
            decision.serial
        };
        self.ejector.handle_timeout(end).into_iter().map(trial).collect()
    }
}

/// Returns the end and the reason of an ejection.
pub(crate) fn ejected(decision: EjectionDecision) -> (Instant, EjectionReason) {
    match decision.action {
        EjectionAction::Eject { until, reason } => (until, reason),
        action => panic!("not an ejection: {action:?}"),
    }
}
