//! A set as an ejector is told of it, with a clock that is moved by hand.

use std::collections::BTreeMap;
use std::time::{Duration, Instant};

use lvs::backend::OutcomeCounts;
use lvs::health::outlier::{
    EjectionAction, EjectionDecision, EjectionPhase, EjectionPolicy, EjectionReason, EjectionState,
    Ejector, OutlierSample, StreakReport,
};
use lvs::scheduler::Rng;

#[derive(Debug)]
pub(crate) struct World {
    pub(crate) ejector: Ejector,
    pub(crate) now: Instant,
    pub(crate) members: BTreeMap<u64, OutlierSample>,
}

pub(crate) fn start() -> Instant {
    #[expect(clippy::disallowed_methods, reason = "any instant serves as a start")]
    Instant::now()
}

pub(crate) fn secs(seconds: u64) -> Duration {
    Duration::from_secs(seconds)
}

pub(crate) fn millis(millis: u64) -> Duration {
    Duration::from_millis(millis)
}

impl World {
    /// Members 1 to `members`, all serving, and a first sweep behind them.
    pub(crate) fn new(rules: EjectionPolicy, members: u64) -> Self {
        let ejector = Ejector::new(rules, Rng::with_seed(1)).expect("the rules make sense");
        let mut world = Self { ejector, now: start(), members: BTreeMap::new() };
        (1..=members).for_each(|serial| world.join(serial));
        assert_eq!(world.sweep(), []);
        world
    }

    pub(crate) fn join(&mut self, serial: u64) {
        let outcomes = OutcomeCounts::default();
        let sample = OutlierSample { serial, outcomes, latency: None, enabled: true, up: true };
        self.members.insert(serial, sample);
        self.ejector.track(serial, true, true);
    }

    pub(crate) fn up(&mut self, serial: u64, up: bool) {
        let member = self.members.get_mut(&serial).expect("a member");
        member.up = up;
        self.ejector.track(serial, member.enabled, up);
    }

    pub(crate) fn traffic(&mut self, serial: u64, ok: u64, failed: u64) {
        let outcomes = &mut self.members.get_mut(&serial).expect("a member").outcomes;
        outcomes.ok += ok;
        outcomes.app_error += failed;
    }

    pub(crate) fn latency(&mut self, serial: u64, latency: Duration) {
        self.members.get_mut(&serial).expect("a member").latency = Some(latency);
    }

    pub(crate) fn wait(&mut self, time: Duration) {
        self.now += time;
    }

    pub(crate) fn sweep(&mut self) -> Vec<EjectionDecision> {
        let samples: Vec<OutlierSample> = self.members.values().copied().collect();
        self.ejector.sweep(self.now, &samples)
    }

    /// Who is ejected by a sweep, in order, and why.
    pub(crate) fn swept(&mut self) -> Vec<(u64, String)> {
        let said = |decision: EjectionDecision| (decision.serial, ejected(decision).1.to_string());
        self.sweep().into_iter().map(said).collect()
    }

    pub(crate) fn accuse(
        &mut self,
        serial: u64,
        consecutive: u32,
        connect: u32,
    ) -> Option<EjectionDecision> {
        self.ejector.handle_streak(
            self.now,
            serial,
            StreakReport { failures: consecutive, connect_failures: connect },
        )
    }

    /// Ejects by a run of failures, and says for how long.
    pub(crate) fn eject(&mut self, serial: u64) -> Duration {
        let decision = self.accuse(serial, 5, 0).expect("an ejection");
        assert_eq!(decision.serial, serial);
        ejected(decision).0 - self.now
    }

    pub(crate) fn standing(&self, serial: u64) -> EjectionState {
        self.ejector.ejection_state(serial).expect("a member")
    }

    pub(crate) fn is_in(&self, serial: u64) -> bool {
        self.standing(serial).phase == EjectionPhase::NotEjected
    }

    /// Moves the clock to the next end of an ejection, and says whose trials begin.
    pub(crate) fn run_to_trial(&mut self) -> Vec<u64> {
        let end = self.ejector.poll_timeout().expect("somebody is out");
        assert_eq!(self.ejector.handle_timeout(end - Duration::from_nanos(1)), []);
        self.now = end;
        let trial = |decision: EjectionDecision| {
            assert_eq!(decision.action, EjectionAction::StartTrial);
            decision.serial
        };
        self.ejector.handle_timeout(end).into_iter().map(trial).collect()
    }
}

pub(crate) fn ejected(decision: EjectionDecision) -> (Instant, EjectionReason) {
    match decision.action {
        EjectionAction::Eject { until, reason: why } => (until, why),
        other => panic!("no ejection: {other:?}"),
    }
}
