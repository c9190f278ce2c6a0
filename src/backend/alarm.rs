//! What leases tell whoever judges backends by their traffic: runs of failures, and how a trial went.
//!
//! Nothing here is touched by a lease that ends well on a backend in good standing. A run of
//! failures needs no word from successes: a failure remembers how many successes there had been, and
//! the next one sees whether there were more.

use std::fmt;
use std::sync::Arc;

use super::{Outcome, Outcomes};
use crate::sync::{AtomicBool, AtomicU32, AtomicU64, Mutex, Ordering, lock};

/// What wakes the one who listens.
type Waker = Arc<dyn Fn() + Send + Sync>;

/// Where the backends of one set raise their hands.
pub(crate) struct Alarm {
    /// From how many failures in a row on; 0 for never.
    failures: AtomicU32,
    /// From how many failures to connect in a row on; 0 for never.
    connects: AtomicU32,
    raised: Mutex<Vec<u64>>,
    waker: Mutex<Option<Waker>>,
}

impl Alarm {
    pub(super) fn new() -> Self {
        Self {
            failures: AtomicU32::new(0),
            connects: AtomicU32::new(0),
            raised: Mutex::new(Vec::new()),
            waker: Mutex::new(None),
        }
    }

    /// From how many failures, and failures to connect, in a row on a backend raises its hand; 0 is
    /// never.
    #[cfg(any(feature = "health", all(test, lvs_loom)))]
    pub(crate) fn arm(&self, failures: u32, connects: u32) {
        // Relaxed: a threshold that is a moment late is as good.
        self.failures.store(failures, Ordering::Relaxed);
        self.connects.store(connects, Ordering::Relaxed);
    }

    /// Who is woken when a hand is raised: the last one to ask.
    #[cfg(any(feature = "health", all(test, lvs_loom)))]
    pub(crate) fn wake(&self, waker: impl Fn() + Send + Sync + 'static) {
        *lock(&self.waker) = Some(Arc::new(waker));
    }

    /// The serials of those who raised their hands since it was asked last.
    #[cfg(any(feature = "health", all(test, lvs_loom)))]
    pub(crate) fn take(&self) -> Vec<u64> {
        std::mem::take(&mut lock(&self.raised))
    }

    fn is_due(&self, runs: Runs) -> bool {
        let reached = |run: u32, threshold: &AtomicU32| {
            let threshold = threshold.load(Ordering::Relaxed);
            threshold != 0 && run >= threshold
        };
        reached(runs.failures, &self.failures) || reached(runs.connects, &self.connects)
    }

    fn is_armed(&self) -> bool {
        self.failures.load(Ordering::Relaxed) != 0 || self.connects.load(Ordering::Relaxed) != 0
    }

    fn raise(&self, serial: u64) {
        lock(&self.raised).push(serial);
        let waker = lock(&self.waker).clone();
        if let Some(waker) = waker {
            waker();
        }
    }
}

impl fmt::Debug for Alarm {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Alarm")
            .field("failures", &self.failures)
            .field("connects", &self.connects)
            .finish_non_exhaustive()
    }
}

/// How many failures there were in a row.
#[derive(Clone, Copy, Debug, Default, Eq, PartialEq)]
pub(crate) struct Runs {
    /// Of any kind, since the last success.
    pub(crate) failures: u32,
    /// To connect, since anything else.
    pub(crate) connects: u32,
}

/// How the trial of a backend stands.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
#[repr(u32)]
pub(crate) enum Trial {
    /// It is not on trial.
    None,
    /// It may be given one piece of work.
    Open,
    /// It has been given it.
    Taken,
    /// It did it.
    Passed,
    /// It failed.
    Failed,
}

/// One backend's part.
#[derive(Debug)]
pub(super) struct Conduct {
    /// Failures and failures to connect in a row (16 bits each, as many as matter), and the number
    /// of successes when the last of them happened.
    runs: AtomicU64,
    trial: AtomicU32,
    raised: AtomicBool,
}

impl Conduct {
    pub(super) fn new() -> Self {
        Self {
            runs: AtomicU64::new(0),
            trial: AtomicU32::new(Trial::None as u32),
            raised: AtomicBool::new(false),
        }
    }

    /// Counts a failure; `outcomes` has it already.
    pub(super) fn failed(&self, alarm: &Alarm, serial: u64, outcome: Outcome, outcomes: Outcomes) {
        if !alarm.is_armed() {
            return;
        }
        // The low bits tell two numbers of successes apart; more would only tell apart what is
        // four thousand million requests ago.
        let mark = outcomes.ok as u32;
        let mut word = self.runs.load(Ordering::Relaxed);
        // Bounded: a failure that loses this often is one of a storm, and not missed.
        for _ in 0..16 {
            let before = runs(word, mark);
            let connect = outcome == Outcome::ConnectError;
            let now = Runs {
                failures: (before.failures + 1).min(0xffff),
                connects: if connect { (before.connects + 1).min(0xffff) } else { 0 },
            };
            let next = u64::from(now.failures) << 48 | u64::from(now.connects) << 32;
            let next = next | u64::from(mark);
            // SeqCst: before the hand is looked at, in the one order that `heard` is in, too.
            match self.runs.compare_exchange(word, next, Ordering::SeqCst, Ordering::Relaxed) {
                Ok(_) if alarm.is_due(now) => return self.raise(alarm, serial),
                Ok(_) => return,
                Err(seen) => word = seen,
            }
        }
    }

    /// The failures in a row as they stand, and lets the hand be raised again.
    #[cfg(any(feature = "health", all(test, lvs_loom)))]
    pub(super) fn heard(&self, outcomes: Outcomes) -> Runs {
        // SeqCst: what is raised after this is heard of again.
        self.raised.store(false, Ordering::SeqCst);
        runs(self.runs.load(Ordering::SeqCst), outcomes.ok as u32)
    }

    pub(super) fn trial(&self) -> Trial {
        match self.trial.load(Ordering::SeqCst) {
            1 => Trial::Open,
            2 => Trial::Taken,
            3 => Trial::Passed,
            4 => Trial::Failed,
            _ => Trial::None,
        }
    }

    /// Begins or ends the trial; one that has begun is left as it stands.
    pub(super) fn set_on_trial(&self, on_trial: bool) {
        if !on_trial {
            self.trial.swap(Trial::None as u32, Ordering::SeqCst);
        } else {
            self.change_trial(Trial::None, Trial::Open);
        }
    }

    /// Takes the one place that a backend on trial has.
    pub(super) fn take_trial(&self, alarm: &Alarm, serial: u64) -> bool {
        let taken = self.change_trial(Trial::Open, Trial::Taken);
        if taken {
            self.raise(alarm, serial);
        }
        taken
    }

    /// Gives it back unused, or says how it went.
    pub(super) fn end_trial(&self, alarm: &Alarm, serial: u64, outcome: Outcome) {
        let next = match outcome {
            Outcome::Ok => Trial::Passed,
            Outcome::Cancelled => Trial::Open,
            _ => Trial::Failed,
        };
        if self.change_trial(Trial::Taken, next) {
            self.raise(alarm, serial);
        }
    }

    fn change_trial(&self, from: Trial, to: Trial) -> bool {
        let (from, to) = (from as u32, to as u32);
        self.trial.compare_exchange(from, to, Ordering::SeqCst, Ordering::SeqCst).is_ok()
    }

    fn raise(&self, alarm: &Alarm, serial: u64) {
        if !self.raised.swap(true, Ordering::SeqCst) {
            alarm.raise(serial);
        }
    }
}

/// Reads a word of runs; those from before the last success are over.
fn runs(word: u64, successes: u32) -> Runs {
    if word as u32 != successes {
        return Runs::default();
    }
    Runs { failures: (word >> 48) as u32, connects: (word >> 32) as u32 & 0xffff }
}

#[cfg(all(test, feature = "health", not(lvs_loom)))]
mod tests {
    use std::sync::atomic::AtomicUsize;

    use super::*;

    fn ends(ok: u64) -> Outcomes {
        Outcomes { ok, ..Outcomes::default() }
    }

    #[test]
    fn a_success_ends_a_run_and_nobody_is_called_twice() {
        let (alarm, conduct) = (Alarm::new(), Conduct::new());
        let calls = Arc::new(AtomicUsize::new(0));
        let count = Arc::clone(&calls);
        alarm.wake(move || {
            count.fetch_add(1, Ordering::SeqCst);
        });
        conduct.failed(&alarm, 7, Outcome::Timeout, ends(0));
        assert_eq!(conduct.heard(ends(0)), Runs::default(), "nobody listens yet");

        alarm.arm(3, 2);
        conduct.failed(&alarm, 7, Outcome::ConnectError, ends(0));
        conduct.failed(&alarm, 7, Outcome::AppError, ends(0));
        conduct.failed(&alarm, 7, Outcome::AppError, ends(1));
        assert_eq!(conduct.heard(ends(1)), Runs { failures: 1, connects: 0 });
        assert!(alarm.take().is_empty());

        conduct.failed(&alarm, 7, Outcome::ConnectError, ends(2));
        conduct.failed(&alarm, 7, Outcome::ConnectError, ends(2));
        conduct.failed(&alarm, 7, Outcome::ConnectError, ends(2));
        assert_eq!((alarm.take(), calls.load(Ordering::SeqCst)), (vec![7], 1));
        assert_eq!(conduct.heard(ends(2)), Runs { failures: 3, connects: 3 });
        conduct.failed(&alarm, 7, Outcome::ConnectError, ends(2));
        assert_eq!(alarm.take(), [7], "heard, and raised again");
        assert_eq!(conduct.heard(ends(3)), Runs::default());
    }

    #[test]
    fn a_trial_has_one_place_which_comes_back_if_it_was_not_used() {
        let (alarm, conduct) = (Alarm::new(), Conduct::new());
        assert!(!conduct.take_trial(&alarm, 1), "not on trial");
        conduct.set_on_trial(true);
        assert!(conduct.take_trial(&alarm, 1));
        assert!(!conduct.take_trial(&alarm, 1));
        conduct.set_on_trial(true);
        assert_eq!(conduct.trial(), Trial::Taken, "it goes on");
        conduct.end_trial(&alarm, 1, Outcome::Cancelled);
        assert!(conduct.take_trial(&alarm, 1));
        conduct.end_trial(&alarm, 1, Outcome::Ok);
        assert_eq!(conduct.trial(), Trial::Passed);
        assert!(!conduct.take_trial(&alarm, 1), "its judge has the word");
        conduct.set_on_trial(false);
        assert_eq!(conduct.trial(), Trial::None);
    }
}

/// What a judge must hear of, over all interleavings; run by the line in `tests/loom.rs`.
#[cfg(all(test, lvs_loom))]
mod models {
    use loom::thread;

    use super::*;

    const SERIAL: u64 = 7;

    fn world() -> Arc<(Alarm, Conduct)> {
        let world = Arc::new((Alarm::new(), Conduct::new()));
        world.0.arm(1, 0);
        world
    }

    fn fail((alarm, conduct): &(Alarm, Conduct)) {
        conduct.failed(alarm, SERIAL, Outcome::Timeout, Outcomes::default());
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
            let heard = conduct.heard(Outcomes::default());
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
            let lease = |world: &Arc<(Alarm, Conduct)>| {
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
            conduct.heard(Outcomes::default());
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
