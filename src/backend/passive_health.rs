//! What leases report to outlier detection: failures in a row, and the result of a trial.
//!
//! A lease that ends well on a backend in good standing touches nothing here. Successes need not end
//! a streak of failures: each failure records the number of successes so far, and the next failure
//! starts a new streak if there are more.

use std::fmt;
use std::sync::Arc;

use super::{Outcome, OutcomeCounts};
use crate::sync::{AtomicBool, AtomicU32, AtomicU64, Mutex, Ordering, lock};

/// Wakes outlier detection.
type SignalCallback = Arc<dyn Fn() + Send + Sync>;

/// Collects the backends of one set that outlier detection must look at, and wakes it.
pub(crate) struct OutlierSignal {
    /// The failures in a row that notify; 0 is never.
    failure_threshold: AtomicU32,
    /// The failures to connect in a row that notify; 0 is never.
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

    /// Sets after how many failures, and failures to connect, in a row a backend notifies; 0 is
    /// never.
    #[cfg(any(feature = "health", all(test, lvs_loom)))]
    pub(crate) fn set_thresholds(&self, failures: u32, connects: u32) {
        // Relaxed: a threshold that is a moment late is as good.
        self.failure_threshold.store(failures, Ordering::Relaxed);
        self.connect_failure_threshold.store(connects, Ordering::Relaxed);
    }

    /// Sets the callback of a notification; it replaces the one before.
    #[cfg(any(feature = "health", all(test, lvs_loom)))]
    pub(crate) fn set_callback(&self, callback: impl Fn() + Send + Sync + 'static) {
        *lock(&self.callback) = Some(Arc::new(callback));
    }

    /// Takes the serials of the backends that have notified since the last call.
    #[cfg(any(feature = "health", all(test, lvs_loom)))]
    pub(crate) fn take_notified_serials(&self) -> Vec<u64> {
        std::mem::take(&mut lock(&self.notified_serials))
    }

    fn is_threshold_reached(&self, streak: FailureStreak) -> bool {
        let reached = |count: u32, threshold: &AtomicU32| {
            let threshold = threshold.load(Ordering::Relaxed);
            threshold != 0 && count >= threshold
        };
        reached(streak.failures, &self.failure_threshold)
            || reached(streak.connect_failures, &self.connect_failure_threshold)
    }

    fn has_thresholds(&self) -> bool {
        self.failure_threshold.load(Ordering::Relaxed) != 0
            || self.connect_failure_threshold.load(Ordering::Relaxed) != 0
    }

    fn notify(&self, serial: u64) {
        lock(&self.notified_serials).push(serial);
        let callback = lock(&self.callback).clone();
        if let Some(callback) = callback {
            callback();
        }
    }
}

impl fmt::Debug for OutlierSignal {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("OutlierSignal")
            .field("failure_threshold", &self.failure_threshold)
            .field("connect_failure_threshold", &self.connect_failure_threshold)
            .finish_non_exhaustive()
    }
}

/// The numbers of failures in a row.
#[derive(Clone, Copy, Debug, Default, Eq, PartialEq)]
pub(crate) struct FailureStreak {
    /// Failures of any kind since the last success.
    pub(crate) failures: u32,
    /// Failures to connect since any other outcome.
    pub(crate) connect_failures: u32,
    /// Whether the backend answered with a failure since the last success.
    pub(crate) has_app_error: bool,
}

/// The state of a backend's trial.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
#[repr(u32)]
pub(crate) enum TrialState {
    /// The backend is not on trial.
    NotOnTrial,
    /// The backend may be given one lease.
    Available,
    /// The lease of the trial has not ended yet.
    InProgress,
    /// The lease of the trial ended well.
    Passed,
    /// The lease of the trial ended with a failure.
    Failed,
    /// The lease of the trial has made its connection, and has not ended yet.
    Connected,
}

/// What one backend's leases have reported.
#[derive(Debug)]
pub(super) struct PassiveHealth {
    /// Whether a failure of the streak is an answer (1 bit), failures (15 bits) and failures to connect
    /// (16 bits) in a row, and the low 32 bits of the number of successes at the last failure.
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

    /// Counts a failure, which `outcomes` already includes.
    pub(super) fn record_failure(
        &self,
        signal: &OutlierSignal,
        serial: u64,
        outcome: Outcome,
        outcomes: OutcomeCounts,
    ) {
        if !signal.has_thresholds() {
            return;
        }
        // 32 bits are enough: two numbers that agree in them are four thousand million requests apart.
        let mark = outcomes.ok as u32;
        let mut word = self.streak.load(Ordering::Relaxed);
        // Bounded: a failure that loses this race so often is one of very many.
        for _ in 0..16 {
            let previous = unpack_streak(word, mark);
            let connect = outcome == Outcome::ConnectError;
            let now = FailureStreak {
                failures: (previous.failures + 1).min(0x7fff),
                connect_failures: if connect {
                    (previous.connect_failures + 1).min(0xffff)
                } else {
                    0
                },
                has_app_error: previous.has_app_error || outcome == Outcome::AppError,
            };
            let next = u64::from(now.failures) << 48 | u64::from(now.connect_failures) << 32;
            let next = next | u64::from(now.has_app_error) << 63;
            let next = next | u64::from(mark);
            // SeqCst: comes before the read of `is_notified` in the order that `take_failure_streak` uses.
            match self.streak.compare_exchange(word, next, Ordering::SeqCst, Ordering::Relaxed) {
                Ok(_) if signal.is_threshold_reached(now) => return self.notify(signal, serial),
                Ok(_) => return,
                Err(seen) => word = seen,
            }
        }
    }

    /// Returns the failures in a row, and lets the backend notify again.
    #[cfg(any(feature = "health", all(test, lvs_loom)))]
    pub(super) fn take_failure_streak(&self, outcomes: OutcomeCounts) -> FailureStreak {
        // SeqCst: a failure after this store notifies again.
        self.is_notified.store(false, Ordering::SeqCst);
        unpack_streak(self.streak.load(Ordering::SeqCst), outcomes.ok as u32)
    }

    pub(super) fn trial_state(&self) -> TrialState {
        match self.trial.load(Ordering::SeqCst) {
            1 => TrialState::Available,
            2 => TrialState::InProgress,
            3 => TrialState::Passed,
            4 => TrialState::Failed,
            5 => TrialState::Connected,
            _ => TrialState::NotOnTrial,
        }
    }

    /// Starts or ends the trial; a trial that has started is not started again.
    pub(super) fn set_on_trial(&self, on_trial: bool) {
        if !on_trial {
            self.trial.swap(TrialState::NotOnTrial as u32, Ordering::SeqCst);
        } else {
            self.transition_trial(TrialState::NotOnTrial, TrialState::Available);
        }
    }

    /// Claims the one lease of a trial.
    pub(super) fn claim_trial(&self, signal: &OutlierSignal, serial: u64) -> bool {
        let taken = self.transition_trial(TrialState::Available, TrialState::InProgress);
        if taken {
            self.notify(signal, serial);
        }
        taken
    }

    /// Records that the lease of a trial has made its connection.
    pub(super) fn record_trial_connected(&self, signal: &OutlierSignal, serial: u64) {
        if self.transition_trial(TrialState::InProgress, TrialState::Connected) {
            self.notify(signal, serial);
        }
    }

    /// Ends the lease of a trial: with a result, or unused.
    pub(super) fn end_trial(&self, signal: &OutlierSignal, serial: u64, outcome: Outcome) {
        let next = match outcome {
            Outcome::Ok => TrialState::Passed,
            Outcome::Cancelled => TrialState::Available,
            _ => TrialState::Failed,
        };
        let has_ended = self.transition_trial(TrialState::InProgress, next)
            || self.transition_trial(TrialState::Connected, next);
        if has_ended {
            self.notify(signal, serial);
        }
    }

    fn transition_trial(&self, from: TrialState, to: TrialState) -> bool {
        let (from, to) = (from as u32, to as u32);
        self.trial.compare_exchange(from, to, Ordering::SeqCst, Ordering::SeqCst).is_ok()
    }

    fn notify(&self, signal: &OutlierSignal, serial: u64) {
        if !self.is_notified.swap(true, Ordering::SeqCst) {
            signal.notify(serial);
        }
    }
}

/// Reads a word of runs; those from before the last success are over.
fn unpack_streak(word: u64, successes: u32) -> FailureStreak {
    if word as u32 != successes {
        return FailureStreak::default();
    }
    FailureStreak {
        failures: (word >> 48) as u32 & 0x7fff,
        connect_failures: (word >> 32) as u32 & 0xffff,
        has_app_error: word >> 63 != 0,
    }
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
        let (signal, health) = (OutlierSignal::new(), PassiveHealth::new());
        let calls = Arc::new(AtomicUsize::new(0));
        let count = Arc::clone(&calls);
        signal.set_callback(move || {
            count.fetch_add(1, Ordering::SeqCst);
        });
        health.record_failure(&signal, 7, Outcome::Timeout, ends(0));
        assert_eq!(
            health.take_failure_streak(ends(0)),
            FailureStreak::default(),
            "no threshold is set yet"
        );

        signal.set_thresholds(3, 2);
        health.record_failure(&signal, 7, Outcome::ConnectError, ends(0));
        health.record_failure(&signal, 7, Outcome::AppError, ends(0));
        health.record_failure(&signal, 7, Outcome::AppError, ends(1));
        assert_eq!(
            health.take_failure_streak(ends(1)),
            FailureStreak { failures: 1, connect_failures: 0, has_app_error: true }
        );
        assert!(signal.take_notified_serials().is_empty());

        health.record_failure(&signal, 7, Outcome::ConnectError, ends(2));
        health.record_failure(&signal, 7, Outcome::ConnectError, ends(2));
        health.record_failure(&signal, 7, Outcome::ConnectError, ends(2));
        assert_eq!((signal.take_notified_serials(), calls.load(Ordering::SeqCst)), (vec![7], 1));
        assert_eq!(
            health.take_failure_streak(ends(2)),
            FailureStreak { failures: 3, connect_failures: 3, has_app_error: false }
        );
        health.record_failure(&signal, 7, Outcome::ConnectError, ends(2));
        assert_eq!(signal.take_notified_serials(), [7], "taken, and notified again");
        assert_eq!(health.take_failure_streak(ends(3)), FailureStreak::default());
    }

    #[test]
    fn a_trial_is_one_lease_and_is_available_again_if_unused() {
        let (signal, health) = (OutlierSignal::new(), PassiveHealth::new());
        assert!(!health.claim_trial(&signal, 1), "not on trial");
        health.set_on_trial(true);
        assert!(health.claim_trial(&signal, 1));
        assert!(!health.claim_trial(&signal, 1));
        health.set_on_trial(true);
        assert_eq!(health.trial_state(), TrialState::InProgress, "it goes on");
        health.end_trial(&signal, 1, Outcome::Cancelled);
        assert!(health.claim_trial(&signal, 1));
        signal.take_notified_serials();
        health.take_failure_streak(ends(0));
        health.record_trial_connected(&signal, 1);
        assert_eq!(
            (health.trial_state(), signal.take_notified_serials()),
            (TrialState::Connected, vec![1])
        );
        assert!(!health.claim_trial(&signal, 1), "the lease goes on");
        health.end_trial(&signal, 1, Outcome::Ok);
        assert_eq!(health.trial_state(), TrialState::Passed);
        assert!(!health.claim_trial(&signal, 1), "outlier detection decides next");
        health.set_on_trial(false);
        assert_eq!(health.trial_state(), TrialState::NotOnTrial);
    }
}

/// What outlier detection must see, over all interleavings; run by the line in `tests/loom.rs`.
#[cfg(all(test, lvs_loom))]
mod models {
    use loom::thread;

    use super::*;

    const SERIAL: u64 = 7;

    fn armed_signal() -> Arc<(OutlierSignal, PassiveHealth)> {
        let shared = Arc::new((OutlierSignal::new(), PassiveHealth::new()));
        shared.0.set_thresholds(1, 0);
        shared
    }

    fn fail((signal, health): &(OutlierSignal, PassiveHealth)) {
        health.record_failure(signal, SERIAL, Outcome::Timeout, OutcomeCounts::default());
    }

    #[test]
    fn a_failure_is_in_what_is_heard_or_raises_the_hand_again() {
        loom::model(|| {
            let shared = armed_signal();
            fail(&shared);
            let failing = {
                let shared = Arc::clone(&shared);
                thread::spawn(move || fail(&shared))
            };
            let (signal, health) = &*shared;
            assert!(signal.take_notified_serials().contains(&SERIAL));
            let streak = health.take_failure_streak(OutcomeCounts::default());
            failing.join().expect("no panic");
            let again = signal.take_notified_serials();
            assert!(streak.failures == 2 || again == [SERIAL], "{streak:?}, {again:?}");
            assert_eq!(
                health.take_failure_streak(OutcomeCounts::default()).failures,
                2,
                "both are counted"
            );
        });
    }

    #[test]
    fn one_of_all_leases_is_the_trial_and_its_end_is_heard() {
        loom::model(|| {
            let shared = armed_signal();
            shared.1.set_on_trial(true);
            let lease = |shared: &Arc<(OutlierSignal, PassiveHealth)>| {
                let shared = Arc::clone(shared);
                thread::spawn(move || {
                    let (signal, health) = &*shared;
                    let taken = health.claim_trial(signal, SERIAL);
                    if taken {
                        health.end_trial(signal, SERIAL, Outcome::Timeout);
                    }
                    taken
                })
            };
            let leases = [lease(&shared), lease(&shared)];
            let (signal, health) = &*shared;
            signal.take_notified_serials();
            health.take_failure_streak(OutcomeCounts::default());
            let seen = health.trial_state();
            let taken = leases.map(|lease| lease.join().expect("no panic"));
            assert_ne!(taken[0], taken[1]);
            assert_eq!(health.trial_state(), TrialState::Failed);
            assert!(seen == TrialState::Failed || signal.take_notified_serials().contains(&SERIAL));
        });
    }

    #[test]
    fn a_cancelled_trial_is_over_whenever_its_lease_ends() {
        loom::model(|| {
            let shared = armed_signal();
            shared.1.set_on_trial(true);
            let lease = {
                let shared = Arc::clone(&shared);
                thread::spawn(move || {
                    let (signal, health) = &*shared;
                    if health.claim_trial(signal, SERIAL) {
                        health.end_trial(signal, SERIAL, Outcome::Cancelled);
                    }
                })
            };
            shared.1.set_on_trial(false);
            lease.join().expect("no panic");
            assert_eq!(shared.1.trial_state(), TrialState::NotOnTrial);
        });
    }
}
