//! What leases tell whoever judges backends by their traffic: runs of failures, and how a trial went.
//!
//! Nothing here is touched by a lease that ends well on a backend in good standing. A run of
//! failures needs no word from successes: a failure remembers how many successes there had been, and
//! the next one sees whether there were more.

use std::fmt;
use std::sync::Arc;

use super::{Outcome, OutcomeCounts};
use crate::sync::{AtomicBool, AtomicU32, AtomicU64, Mutex, Ordering, lock};

/// What wakes the one who listens.
type SignalCallback = Arc<dyn Fn() + Send + Sync>;

/// Where the backends of one set raise their hands.
pub(crate) struct OutlierSignal {
    /// From how many failures in a row on; 0 for never.
    failure_threshold: AtomicU32,
    /// From how many failures to connect in a row on; 0 for never.
    connect_failure_threshold: AtomicU32,
    notified_serials: Mutex<Vec<u64>>,
    callback: Mutex<Option<SignalCallback>>,
}

impl OutlierSignal {
    pub(super) fn new() -> Self {
        Self {
            failure_threshold: AtomicU32::new(0),
            connect_failure_threshold: AtomicU32::new(0),
            notified_serials: Mutex::new(Vec::new()),
            callback: Mutex::new(None),
        }
    }

    /// From how many failures, and failures to connect, in a row on a backend raises its hand; 0 is
    /// never.
    #[cfg(any(feature = "health", all(test, lvs_loom)))]
    pub(crate) fn set_thresholds(&self, failures: u32, connects: u32) {
        // Relaxed: a threshold that is a moment late is as good.
        self.failure_threshold.store(failures, Ordering::Relaxed);
        self.connect_failure_threshold.store(connects, Ordering::Relaxed);
    }

    /// Who is woken when a hand is raised: the last one to ask.
    #[cfg(any(feature = "health", all(test, lvs_loom)))]
    pub(crate) fn set_callback(&self, waker: impl Fn() + Send + Sync + 'static) {
        *lock(&self.callback) = Some(Arc::new(waker));
    }

    /// The serials of those who raised their hands since it was asked last.
    #[cfg(any(feature = "health", all(test, lvs_loom)))]
    pub(crate) fn take_notified_serials(&self) -> Vec<u64> {
        std::mem::take(&mut lock(&self.notified_serials))
    }

    fn is_threshold_reached(&self, runs: FailureStreak) -> bool {
        let reached = |run: u32, threshold: &AtomicU32| {
            let threshold = threshold.load(Ordering::Relaxed);
            threshold != 0 && run >= threshold
        };
        reached(runs.failures, &self.failure_threshold)
            || reached(runs.connect_failures, &self.connect_failure_threshold)
    }

    fn has_thresholds(&self) -> bool {
        self.failure_threshold.load(Ordering::Relaxed) != 0
            || self.connect_failure_threshold.load(Ordering::Relaxed) != 0
    }

    fn notify(&self, serial: u64) {
        lock(&self.notified_serials).push(serial);
        let waker = lock(&self.callback).clone();
        if let Some(waker) = waker {
            waker();
        }
    }
}

impl fmt::Debug for OutlierSignal {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Alarm")
            .field("failures", &self.failure_threshold)
            .field("connects", &self.connect_failure_threshold)
            .finish_non_exhaustive()
    }
}

/// How many failures there were in a row.
#[derive(Clone, Copy, Debug, Default, Eq, PartialEq)]
pub(crate) struct FailureStreak {
    /// Of any kind, since the last success.
    pub(crate) failures: u32,
    /// To connect, since anything else.
    pub(crate) connect_failures: u32,
}

/// How the trial of a backend stands.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
#[repr(u32)]
pub(crate) enum TrialState {
    /// It is not on trial.
    NotOnTrial,
    /// It may be given one piece of work.
    Available,
    /// It has been given it.
    InProgress,
    /// It did it.
    Passed,
    /// It failed.
    Failed,
}

/// One backend's part.
#[derive(Debug)]
pub(super) struct PassiveHealth {
    /// Failures and failures to connect in a row (16 bits each, as many as matter), and the number
    /// of successes when the last of them happened.
    streak: AtomicU64,
    trial: AtomicU32,
    is_notified: AtomicBool,
}

impl PassiveHealth {
    pub(super) fn new() -> Self {
        Self {
            streak: AtomicU64::new(0),
            trial: AtomicU32::new(TrialState::NotOnTrial as u32),
            is_notified: AtomicBool::new(false),
        }
    }

    /// Counts a failure; `outcomes` has it already.
    pub(super) fn record_failure(
        &self,
        alarm: &OutlierSignal,
        serial: u64,
        outcome: Outcome,
        outcomes: OutcomeCounts,
    ) {
        if !alarm.has_thresholds() {
            return;
        }
        // The low bits tell two numbers of successes apart; more would only tell apart what is
        // four thousand million requests ago.
        let mark = outcomes.ok as u32;
        let mut word = self.streak.load(Ordering::Relaxed);
        // Bounded: a failure that loses this often is one of a storm, and not missed.
        for _ in 0..16 {
            let before = unpack_streak(word, mark);
            let connect = outcome == Outcome::ConnectError;
            let now = FailureStreak {
                failures: (before.failures + 1).min(0xffff),
                connect_failures: if connect {
                    (before.connect_failures + 1).min(0xffff)
                } else {
                    0
                },
            };
            let next = u64::from(now.failures) << 48 | u64::from(now.connect_failures) << 32;
            let next = next | u64::from(mark);
            // SeqCst: before the hand is looked at, in the one order that `heard` is in, too.
            match self.streak.compare_exchange(word, next, Ordering::SeqCst, Ordering::Relaxed) {
                Ok(_) if alarm.is_threshold_reached(now) => return self.notify(alarm, serial),
                Ok(_) => return,
                Err(seen) => word = seen,
            }
        }
    }

    /// The failures in a row as they stand, and lets the hand be raised again.
    #[cfg(any(feature = "health", all(test, lvs_loom)))]
    pub(super) fn take_failure_streak(&self, outcomes: OutcomeCounts) -> FailureStreak {
        // SeqCst: what is raised after this is heard of again.
        self.is_notified.store(false, Ordering::SeqCst);
        unpack_streak(self.streak.load(Ordering::SeqCst), outcomes.ok as u32)
    }

    pub(super) fn trial_state(&self) -> TrialState {
        match self.trial.load(Ordering::SeqCst) {
            1 => TrialState::Available,
            2 => TrialState::InProgress,
            3 => TrialState::Passed,
            4 => TrialState::Failed,
            _ => TrialState::NotOnTrial,
        }
    }

    /// Begins or ends the trial; one that has begun is left as it stands.
    pub(super) fn set_on_trial(&self, on_trial: bool) {
        if !on_trial {
            self.trial.swap(TrialState::NotOnTrial as u32, Ordering::SeqCst);
        } else {
            self.transition_trial(TrialState::NotOnTrial, TrialState::Available);
        }
    }

    /// Takes the one place that a backend on trial has.
    pub(super) fn claim_trial(&self, alarm: &OutlierSignal, serial: u64) -> bool {
        let taken = self.transition_trial(TrialState::Available, TrialState::InProgress);
        if taken {
            self.notify(alarm, serial);
        }
        taken
    }

    /// Gives it back unused, or says how it went.
    pub(super) fn end_trial(&self, alarm: &OutlierSignal, serial: u64, outcome: Outcome) {
        let next = match outcome {
            Outcome::Ok => TrialState::Passed,
            Outcome::Cancelled => TrialState::Available,
            _ => TrialState::Failed,
        };
        if self.transition_trial(TrialState::InProgress, next) {
            self.notify(alarm, serial);
        }
    }

    fn transition_trial(&self, from: TrialState, to: TrialState) -> bool {
        let (from, to) = (from as u32, to as u32);
        self.trial.compare_exchange(from, to, Ordering::SeqCst, Ordering::SeqCst).is_ok()
    }

    fn notify(&self, alarm: &OutlierSignal, serial: u64) {
        if !self.is_notified.swap(true, Ordering::SeqCst) {
            alarm.notify(serial);
        }
    }
}

/// Reads a word of runs; those from before the last success are over.
fn unpack_streak(word: u64, successes: u32) -> FailureStreak {
    if word as u32 != successes {
        return FailureStreak::default();
    }
    FailureStreak { failures: (word >> 48) as u32, connect_failures: (word >> 32) as u32 & 0xffff }
}

#[cfg(all(test, feature = "health", not(lvs_loom)))]
mod tests {
    use std::sync::atomic::AtomicUsize;

    use super::*;

    fn ends(ok: u64) -> OutcomeCounts {
        OutcomeCounts { ok, ..OutcomeCounts::default() }
    }

    #[test]
    fn a_success_ends_a_run_and_nobody_is_called_twice() {
        let (alarm, conduct) = (OutlierSignal::new(), PassiveHealth::new());
        let calls = Arc::new(AtomicUsize::new(0));
        let count = Arc::clone(&calls);
        alarm.set_callback(move || {
            count.fetch_add(1, Ordering::SeqCst);
        });
        conduct.record_failure(&alarm, 7, Outcome::Timeout, ends(0));
        assert_eq!(
            conduct.take_failure_streak(ends(0)),
            FailureStreak::default(),
            "nobody listens yet"
        );

        alarm.set_thresholds(3, 2);
        conduct.record_failure(&alarm, 7, Outcome::ConnectError, ends(0));
        conduct.record_failure(&alarm, 7, Outcome::AppError, ends(0));
        conduct.record_failure(&alarm, 7, Outcome::AppError, ends(1));
        assert_eq!(
            conduct.take_failure_streak(ends(1)),
            FailureStreak { failures: 1, connect_failures: 0 }
        );
        assert!(alarm.take_notified_serials().is_empty());

        conduct.record_failure(&alarm, 7, Outcome::ConnectError, ends(2));
        conduct.record_failure(&alarm, 7, Outcome::ConnectError, ends(2));
        conduct.record_failure(&alarm, 7, Outcome::ConnectError, ends(2));
        assert_eq!((alarm.take_notified_serials(), calls.load(Ordering::SeqCst)), (vec![7], 1));
        assert_eq!(
            conduct.take_failure_streak(ends(2)),
            FailureStreak { failures: 3, connect_failures: 3 }
        );
        conduct.record_failure(&alarm, 7, Outcome::ConnectError, ends(2));
        assert_eq!(alarm.take_notified_serials(), [7], "heard, and raised again");
        assert_eq!(conduct.take_failure_streak(ends(3)), FailureStreak::default());
    }

    #[test]
    fn a_trial_has_one_place_which_comes_back_if_it_was_not_used() {
        let (alarm, conduct) = (OutlierSignal::new(), PassiveHealth::new());
        assert!(!conduct.claim_trial(&alarm, 1), "not on trial");
        conduct.set_on_trial(true);
        assert!(conduct.claim_trial(&alarm, 1));
        assert!(!conduct.claim_trial(&alarm, 1));
        conduct.set_on_trial(true);
        assert_eq!(conduct.trial_state(), TrialState::InProgress, "it goes on");
        conduct.end_trial(&alarm, 1, Outcome::Cancelled);
        assert!(conduct.claim_trial(&alarm, 1));
        conduct.end_trial(&alarm, 1, Outcome::Ok);
        assert_eq!(conduct.trial_state(), TrialState::Passed);
        assert!(!conduct.claim_trial(&alarm, 1), "its judge has the word");
        conduct.set_on_trial(false);
        assert_eq!(conduct.trial_state(), TrialState::NotOnTrial);
    }
}

/// What a judge must hear of, over all interleavings; run by the line in `tests/loom.rs`.
#[cfg(all(test, lvs_loom))]
mod models {
    use loom::thread;

    use super::*;

    const SERIAL: u64 = 7;

    fn world() -> Arc<(OutlierSignal, PassiveHealth)> {
        let world = Arc::new((OutlierSignal::new(), PassiveHealth::new()));
        world.0.arm(1, 0);
        world
    }

    fn fail((alarm, conduct): &(OutlierSignal, PassiveHealth)) {
        conduct.failed(alarm, SERIAL, Outcome::Timeout, OutcomeCounts::default());
    }

    #[test]
    fn a_failure_is_in_what_is_heard_or_raises_the_hand_again() {
        loom::model(|| {
            let world = world();
            fail(&world);
            let failing = {
                let world = Arc::clone(&world);
                thread::spawn(move || fail(&world))
            };
            let (alarm, conduct) = &*world;
            assert!(alarm.take().contains(&SERIAL));
            let heard = conduct.heard(OutcomeCounts::default());
            failing.join().expect("no panic");
            let again = alarm.take();
            assert!(heard.failures == 2 || again == [SERIAL], "{heard:?}, {again:?}");
            assert_eq!(conduct.heard(Outcomes::default()).failures, 2, "both are counted");
        });
    }

    #[test]
    fn one_of_all_leases_is_the_trial_and_its_end_is_heard() {
        loom::model(|| {
            let world = world();
            world.1.set_on_trial(true);
            let lease = |world: &Arc<(OutlierSignal, PassiveHealth)>| {
                let world = Arc::clone(world);
                thread::spawn(move || {
                    let (alarm, conduct) = &*world;
                    let taken = conduct.take_trial(alarm, SERIAL);
                    if taken {
                        conduct.end_trial(alarm, SERIAL, Outcome::Timeout);
                    }
                    taken
                })
            };
            let leases = [lease(&world), lease(&world)];
            let (alarm, conduct) = &*world;
            alarm.take();
            conduct.heard(OutcomeCounts::default());
            let seen = conduct.trial();
            let taken = leases.map(|lease| lease.join().expect("no panic"));
            assert_ne!(taken[0], taken[1]);
            assert_eq!(conduct.trial(), Trial::Failed);
            assert!(seen == Trial::Failed || alarm.take().contains(&SERIAL));
        });
    }

    #[test]
    fn a_trial_that_is_called_off_is_over_whenever_its_lease_ends() {
        loom::model(|| {
            let world = world();
            world.1.set_on_trial(true);
            let lease = {
                let world = Arc::clone(&world);
                thread::spawn(move || {
                    let (alarm, conduct) = &*world;
                    if conduct.take_trial(alarm, SERIAL) {
                        conduct.end_trial(alarm, SERIAL, Outcome::Cancelled);
                    }
                })
            };
            world.1.set_on_trial(false);
            lease.join().expect("no panic");
            assert_eq!(world.1.trial(), Trial::None);
        });
    }
}
