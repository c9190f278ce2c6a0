//! The machine that ejects.

use std::collections::BTreeSet;
use std::time::{Duration, Instant};

use super::counters::EjectionCounters;
use super::sweep::{self, SweepWindow};
use super::table::EjectionTable;
use super::{
    EjectionPolicy, EjectionPolicyError, EjectionReason, SavedEjection, SavedEjectionPhase,
};
use crate::backend::OutcomeCounts;
use crate::scheduler::Rng;

/// What a sweep is told of one member.
#[derive(Clone, Copy, Debug)]
pub struct OutlierSample {
    /// Who it is: a number that is never used twice in one set.
    pub serial: u64,
    /// How its leases have ended since it was made. The sweep takes the difference to the last one.
    pub outcomes: OutcomeCounts,
    /// Its mean latency since the last sweep, if known.
    pub latency: Option<Duration>,
    /// Whether its operator lets it take new work: enabled, and of a weight above 0.
    pub enabled: bool,
    /// Whether active checks say that it is up.
    pub up: bool,
}

/// What is held against a member between sweeps, by who counts its failures as they happen.
///
/// A number at or above its threshold ejects; others are ignored. Where the cap
/// [refuses](EjectionCounters::refused) an ejection nothing is remembered: say it again as the run
/// goes on, for instance at each multiple of the threshold.
#[derive(Clone, Copy, Debug, Default, Eq, PartialEq)]
pub struct StreakReport {
    /// Its failures of any kind in a row up to now.
    pub failures: u32,
    /// Its connects in a row up to now that failed or timed out.
    pub connect_failures: u32,
}

/// What is to be done about one member.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
#[must_use = "who ignores a decision lets the machine and the set go apart"]
pub struct EjectionDecision {
    /// Whom it is about.
    pub serial: u64,
    /// What to do.
    pub action: EjectionAction,
}

/// What a [`EjectionDecision`] says to do.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
#[non_exhaustive]
pub enum EjectionAction {
    /// Give it no new work.
    Eject {
        /// When its trial is due.
        until: Instant,
        /// What it did.
        reason: EjectionReason,
    },
    /// Give it one piece of work, and say [how that ended](Ejector::handle_trial_end).
    StartTrial,
    /// Give it work again, by its [ramp](EjectionPolicy::ramp).
    Return,
}

/// Whether a member takes part.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
#[non_exhaustive]
pub enum EjectionPhase {
    /// Takes part.
    NotEjected,
    /// Takes no work.
    Ejected {
        /// When its trial is due.
        until: Instant,
        /// What it did.
        why: EjectionReason,
    },
    /// Is given one piece of work.
    OnTrial {
        /// What it was ejected for.
        why: EjectionReason,
    },
}

/// How a member stands with an [`Ejector`].
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
#[non_exhaustive]
pub struct EjectionState {
    /// Whether it is in, out or on trial.
    pub phase: EjectionPhase,
    /// Ejections in a row, less one for each healthy sweep since: what the base time is multiplied
    /// by.
    pub multiplier: u32,
}

/// Decides who is ejected, until when, and when to try again: a machine without clock or thread.
///
/// It is told what happens and answers with [`EjectionDecision`]s, all of which are to be carried out. It
/// knows the members it was [told of](Self::track) or has seen in a [sweep](Self::sweep), and never
/// decides about others. Moments may come in any order; with one that lies before the last nothing
/// ends early.
///
/// # Cost
/// One entry of some 200 bytes for each member. A sweep sorts: `O(n log n)`; everything else is
/// `O(log n)`.
///
/// # Examples
/// ```
/// use std::time::{Duration, Instant};
/// use lvs::health::outlier::{StreakReport, EjectionAction, EjectionPolicy, Ejector};
/// use lvs::scheduler::Rng;
///
/// let mut ejector = Ejector::new(EjectionPolicy::new(), Rng::with_seed(1))?;
/// for serial in 1..=3 {
///     ejector.track(serial, true, true);
/// }
/// # #[expect(clippy::disallowed_methods, reason = "an example has a clock")]
/// let now = Instant::now();
///
/// let accusation = StreakReport { consecutive: 5, connect: 0 };
/// let decision = ejector.handle_streak(now, 2, accusation).expect("5 in a row are too many");
/// let EjectionAction::Eject { until, why } = decision.action else { unreachable!() };
/// assert_eq!((until - now, why.to_string()), (Duration::from_secs(30), "5 failures in a row".into()));
///
/// assert_eq!(ejector.poll_timeout(), Some(until));
/// assert_eq!(ejector.handle_timeout(until)[0].action, EjectionAction::Trial);
/// assert_eq!(ejector.handle_trial_end(until, 2, true).expect("was on trial").action, EjectionAction::Return);
/// # Ok::<(), lvs::health::EjectionPolicyError>(())
/// ```
#[derive(Clone, Debug)]
pub struct Ejector {
    policy: EjectionPolicy,
    rng: Rng,
    table: EjectionTable,
    counters: EjectionCounters,
}

impl Ejector {
    /// A machine that knows nobody yet; the random generator is for [jitter](EjectionPolicy::jitter) alone.
    ///
    /// # Errors
    /// [`EjectionPolicyError`] names the rule that makes no sense.
    pub fn new(rules: EjectionPolicy, rng: Rng) -> Result<Self, EjectionPolicyError> {
        rules.validate()?;
        let (table, counters) = (EjectionTable::default(), EjectionCounters::default());
        Ok(Self { policy: rules, rng, table, counters })
    }

    /// The rules it goes by.
    pub fn policy(&self) -> &EjectionPolicy {
        &self.policy
    }

    /// Goes by other rules from now on. Whoever is out stays out until the moment that was decided.
    ///
    /// # Errors
    /// [`EjectionPolicyError`] names the rule that makes no sense; the old ones stay.
    pub fn set_policy(&mut self, rules: EjectionPolicy) -> Result<(), EjectionPolicyError> {
        rules.validate()?;
        let most = rules.max_multiplier();
        self.policy = rules;
        for serial in self.table.serials() {
            if let Some(entry) = self.table.get_mut(serial) {
                entry.multiplier = entry.multiplier.min(most);
            }
        }
        Ok(())
    }

    /// Tells of a member: that it is there, whether its operator lets it take new work, and whether
    /// active checks say that it is up.
    ///
    /// For members that join and states that change between two sweeps, so that the cap is always
    /// that of the moment.
    pub fn track(&mut self, serial: u64, enabled: bool, up: bool) {
        self.table.upsert(serial, enabled && up);
    }

    /// Compares the members with each other, by what they did since the last sweep.
    ///
    /// `samples` are all members of the set: whoever is not among them is
    /// [forgotten](Self::forget). The first sample of a member is what the next is compared with;
    /// it is not judged by it. Of members that cannot serve, are out or on trial nothing is judged,
    /// and they are no part of any mean. Where more are outliers than may be out, the worst go
    /// first: who fails before who is slow, the larger share of failures first, then the more
    /// failures, among the slow the larger multiple of the others' median, then the member that is
    /// longest in the set.
    ///
    /// Whoever is in and no outlier has its multiplier shrink by one.
    pub fn sweep(&mut self, now: Instant, samples: &[OutlierSample]) -> Vec<EjectionDecision> {
        let present: BTreeSet<u64> = samples.iter().map(|sample| sample.serial).collect();
        for serial in self.table.serials() {
            if !present.contains(&serial) {
                self.forget(serial);
            }
        }
        let windows: Vec<SweepWindow> =
            samples.iter().filter_map(|sample| self.record_sample(sample)).collect();
        let mut outlying = BTreeSet::new();
        let mut decisions = Vec::new();
        for outlier in sweep::find_outliers(&self.policy, &windows) {
            if outlying.insert(outlier.serial) {
                decisions.extend(self.eject(now, outlier.serial, outlier.reason));
            }
        }
        for serial in present {
            if let Some(entry) = self.table.get_mut(serial)
                && entry.phase() == EjectionPhase::NotEjected
                && !outlying.contains(&serial)
            {
                entry.multiplier = entry.multiplier.saturating_sub(1);
            }
        }
        decisions
    }

    /// Notes a sample, and gives what is to be judged of it.
    fn record_sample(&mut self, sample: &OutlierSample) -> Option<SweepWindow> {
        self.track(sample.serial, sample.enabled, sample.up);
        let entry = self.table.get_mut(sample.serial)?;
        let before = entry.last_outcomes.replace(sample.outcomes)?;
        let judged = entry.is_available() && entry.phase() == EjectionPhase::NotEjected;
        let window = SweepWindow::between(sample.serial, before, sample.outcomes, sample.latency);
        window.filter(|_| judged)
    }

    /// Takes what is held against a member, as it happens.
    ///
    /// Nothing comes of it while the member is out or on trial (what was in its hands may fail for a
    /// while), nor while it cannot serve.
    pub fn handle_streak(
        &mut self,
        now: Instant,
        serial: u64,
        accusation: StreakReport,
    ) -> Option<EjectionDecision> {
        let StreakReport { failures: consecutive, connect_failures: connect } = accusation;
        let reached = |threshold: Option<u32>, run| threshold.is_some_and(|it| run >= it);
        let cause = if reached(self.policy.consecutive_connect_failures, connect) {
            EjectionReason::ConnectFailures { failures: connect }
        } else if reached(self.policy.consecutive_failures, consecutive) {
            EjectionReason::ConsecutiveFailures { failures: consecutive }
        } else {
            return None;
        };
        self.eject(now, serial, cause)
    }

    /// When [`handle_timeout`](Self::handle_timeout) is due: at the end of the next ejection. `None`
    /// while nobody is out. Sweeps are not among it.
    #[must_use]
    pub fn poll_timeout(&self) -> Option<Instant> {
        self.table.next_expiry()
    }

    /// Offers a trial to everybody whose ejection has ended by now, whether it can serve or not.
    ///
    /// A trial has no end but the [word](Self::handle_trial_end) about it: who gets no traffic, or is
    /// down by its checks, stays on trial until it gets some.
    pub fn handle_timeout(&mut self, now: Instant) -> Vec<EjectionDecision> {
        let mut decisions = Vec::new();
        while let Some((serial, why)) = self
            .table
            .next_expired(now)
            .and_then(|serial| Some((serial, self.table.reason(serial)?)))
        {
            self.table.set_phase(serial, EjectionPhase::OnTrial { why });
            self.counters.trials += 1;
            decisions.push(EjectionDecision { serial, action: EjectionAction::StartTrial });
        }
        decisions
    }

    /// Says how the one piece of work of a trial ended: it returns, or is ejected anew, for longer.
    ///
    /// For a piece that says nothing (cancelled) do not call this, and give it another. Nothing
    /// comes of it unless the member is on trial. A new ejection here is not subject to the cap: it
    /// puts nobody out who was in.
    pub fn handle_trial_end(
        &mut self,
        now: Instant,
        serial: u64,
        ok: bool,
    ) -> Option<EjectionDecision> {
        let EjectionPhase::OnTrial { .. } = self.table.get(serial)?.phase() else { return None };
        if ok {
            self.end_ejection(serial)
        } else {
            self.apply_ejection(now, serial, EjectionReason::TrialFailed)
        }
    }

    /// Says that an active check of a member passed; it returns at once if that is
    /// [configured](EjectionPolicy::check_ends_ejection). Its multiplier stays.
    pub fn handle_check_passed(&mut self, serial: u64) -> Option<EjectionDecision> {
        if self.policy.check_ends_ejection { self.end_ejection(serial) } else { None }
    }

    /// Lets a member return on the operator's word, with all forgiven.
    pub fn release(&mut self, serial: u64) -> Option<EjectionDecision> {
        self.table.get_mut(serial)?.multiplier = 0;
        self.end_ejection(serial)
    }

    /// Forgets a member that has left the set.
    pub fn forget(&mut self, serial: u64) {
        let entry = self.table.remove(serial);
        if entry.is_some_and(|entry| entry.phase() != EjectionPhase::NotEjected) {
            self.counters.forgotten += 1;
        }
    }

    /// How a member stands; `None` if it is not known.
    #[must_use]
    pub fn ejection_state(&self, serial: u64) -> Option<EjectionState> {
        let entry = self.table.get(serial)?;
        Some(EjectionState { phase: entry.phase(), multiplier: entry.multiplier })
    }

    /// What it has decided so far.
    #[must_use]
    pub fn counters(&self) -> EjectionCounters {
        let (out, on_trial) =
            (self.table.ejected_count() as u64, self.table.on_trial_count() as u64);
        EjectionCounters { currently_ejected: out, currently_on_trial: on_trial, ..self.counters }
    }

    /// How everybody stands of whom there is anything to remember, by serial.
    pub fn export(&self, now: Instant) -> impl Iterator<Item = (u64, SavedEjection)> + '_ {
        self.table.iter().filter_map(move |(serial, entry)| {
            let phase = match entry.phase() {
                EjectionPhase::NotEjected if entry.multiplier == 0 => return None,
                EjectionPhase::NotEjected => SavedEjectionPhase::NotEjected,
                EjectionPhase::Ejected { until, why } => SavedEjectionPhase::Ejected {
                    remaining: until.saturating_duration_since(now),
                    why,
                },
                EjectionPhase::OnTrial { why } => SavedEjectionPhase::OnTrial { why },
            };
            Some((serial, SavedEjection { multiplier: entry.multiplier, phase }))
        })
    }

    /// Takes over how a member stood, in another process or under other rules.
    ///
    /// [Tell of](Self::track) all members first, so that the cap is that of the whole set. It holds
    /// here as for every ejection, and so does the longest time. Nothing comes of it for a member
    /// that is not known, or that is out or on trial already.
    pub fn import(
        &mut self,
        now: Instant,
        serial: u64,
        saved: SavedEjection,
    ) -> Option<EjectionDecision> {
        let most = self.policy.max_multiplier();
        let room = self.has_ejection_budget();
        let entry = self
            .table
            .get_mut(serial)
            .filter(|entry| entry.phase() == EjectionPhase::NotEjected)?;
        entry.multiplier = saved.multiplier.min(most);
        let (SavedEjectionPhase::Ejected { why, .. } | SavedEjectionPhase::OnTrial { why }) =
            saved.phase
        else {
            return None;
        };
        // Who cannot serve takes no one's place.
        if entry.is_available() && !room {
            self.counters.refused.increment(why);
            return None;
        }
        self.counters.imported += 1;
        let (phase, action) = if let SavedEjectionPhase::Ejected { remaining, .. } = saved.phase {
            let longest = self.policy.max_ejection_time.saturating_add(self.policy.jitter);
            let until = deadline_after(now, remaining.min(longest));
            (EjectionPhase::Ejected { until, why }, EjectionAction::Eject { until, reason: why })
        } else {
            self.counters.trials += 1;
            (EjectionPhase::OnTrial { why }, EjectionAction::StartTrial)
        };
        self.table.set_phase(serial, phase);
        Some(EjectionDecision { serial, action })
    }

    /// Puts a member out that is in and can serve, if the cap lets it.
    fn eject(
        &mut self,
        now: Instant,
        serial: u64,
        cause: EjectionReason,
    ) -> Option<EjectionDecision> {
        let entry = self.table.get(serial)?;
        if entry.phase() != EjectionPhase::NotEjected || !entry.is_available() {
            return None;
        }
        if !self.has_ejection_budget() {
            self.counters.refused.increment(cause);
            return None;
        }
        self.apply_ejection(now, serial, cause)
    }

    /// Whether one more of those who could serve may be out, and one would still be left.
    fn has_ejection_budget(&self) -> bool {
        let (serving, out) = (self.table.available_count(), self.table.available_ejected_count());
        out < self.policy.max_ejected(serving) && out + 1 < serving
    }

    fn apply_ejection(
        &mut self,
        now: Instant,
        serial: u64,
        why: EjectionReason,
    ) -> Option<EjectionDecision> {
        let most = self.policy.max_multiplier();
        let entry = self.table.get_mut(serial)?;
        entry.multiplier = entry.multiplier.saturating_add(1).min(most);
        let time = self.policy.ejection_time(entry.multiplier).saturating_add(self.draw_jitter());
        let until = deadline_after(now, time);
        self.table.set_phase(serial, EjectionPhase::Ejected { until, why });
        self.counters.ejected.increment(why);
        Some(EjectionDecision { serial, action: EjectionAction::Eject { until, reason: why } })
    }

    fn end_ejection(&mut self, serial: u64) -> Option<EjectionDecision> {
        if self.table.get(serial)?.phase() == EjectionPhase::NotEjected {
            return None;
        }
        self.table.set_phase(serial, EjectionPhase::NotEjected);
        self.counters.returned += 1;
        Some(EjectionDecision { serial, action: EjectionAction::Return })
    }

    fn draw_jitter(&mut self) -> Duration {
        // A day at the most, which fits.
        let most = self.policy.jitter.as_nanos() as u64;
        if most == 0 { Duration::ZERO } else { Duration::from_nanos(self.rng.below(most + 1)) }
    }
}

/// A moment that the clock cannot reach counts as now: out for ever is no ejection.
fn deadline_after(now: Instant, time: Duration) -> Instant {
    now.checked_add(time).unwrap_or(now)
}
