//! The state machine of outlier ejection.

use std::collections::BTreeSet;
use std::time::{Duration, Instant};

use super::counters::EjectionCounters;
use super::sweep::{self, SweepWindow};
use super::table::EjectionTable;
use super::{
    EjectionAction, EjectionDecision, EjectionPhase, EjectionPolicy, EjectionReason, EjectionState,
    OutlierSample, SavedEjection, SavedEjectionPhase, StreakReport,
};
use crate::scheduler::Rng;

/// A state machine that decides which members are ejected, until when, and when their trials start.
///
/// It has no clock and no thread. Its methods take observations and return [`EjectionDecision`]s, all
/// of which the caller applies. It only decides about members that it knows from
/// [`track`](Self::track) or from a [sweep](Self::sweep). Instants may be passed in any order; an
/// instant before the previous one ends nothing early.
///
/// # Cost
/// One entry of some 200 bytes for each member. A sweep sorts: `O(n log n)`; everything else is
/// `O(log n)`.
///
/// # Examples
/// ```
/// use std::time::{Duration, Instant};
/// use lvs::health::EjectionPolicy;
/// use lvs::health::outlier::{EjectionAction, Ejector, StreakReport};
/// use lvs::scheduler::Rng;
///
/// let mut ejector = Ejector::new(EjectionPolicy::new(), Rng::with_seed(1));
/// for serial in 1..=3 {
///     ejector.track(serial, true, true);
/// }
/// # #[expect(clippy::disallowed_methods, reason = "an example has a clock")]
/// let now = Instant::now();
///
/// let streak = StreakReport { failures: 5, connect_failures: 0, has_app_error: true };
/// let decision = ejector.handle_streak(now, 2, streak).expect("5 failures reach the threshold");
/// let EjectionAction::Eject { until, reason } = decision.action else { unreachable!() };
/// assert_eq!(until - now, Duration::from_secs(30));
/// assert_eq!(reason.to_string(), "5 failures in a row");
///
/// assert_eq!(ejector.poll_timeout(), Some(until));
/// assert_eq!(ejector.handle_timeout(until)[0].action, EjectionAction::StartTrial);
/// let decision = ejector.handle_trial_end(until, 2, true).expect("member 2 is on trial");
/// assert_eq!(decision.action, EjectionAction::Return);
/// ```
#[derive(Clone, Debug)]
pub struct Ejector {
    policy: EjectionPolicy,
    rng: Rng,
    table: EjectionTable,
    counters: EjectionCounters,
}

impl Ejector {
    /// Creates an ejector without members. It uses the random generator for
    /// [jitter](crate::health::EjectionPolicyBuilder::jitter) only.
    #[must_use]
    pub fn new(policy: EjectionPolicy, rng: Rng) -> Self {
        let (table, counters) = (EjectionTable::default(), EjectionCounters::default());
        Self { policy, rng, table, counters }
    }

    /// Returns the policy.
    pub fn policy(&self) -> &EjectionPolicy {
        &self.policy
    }

    /// Replaces the policy. Ejected members stay ejected until the instant that was decided before.
    pub fn set_policy(&mut self, policy: EjectionPolicy) {
        let max_multiplier = policy.max_multiplier();
        self.policy = policy;
        for serial in self.table.serials() {
            if let Some(entry) = self.table.get_mut(serial) {
                entry.multiplier = entry.multiplier.min(max_multiplier);
            }
        }
    }

    /// Adds or updates a member: whether its operator lets it take new work, and whether it is up by
    /// its active checks.
    ///
    /// Call it for members that join or change between two sweeps, so that the limit on ejected
    /// members is that of the current set.
    pub fn track(&mut self, serial: u64, enabled: bool, up: bool) {
        self.table.upsert(serial, enabled && up);
    }

    /// Compares the members with each other by their traffic since the previous sweep.
    ///
    /// `samples` must hold all members of the set: members without a sample are
    /// [forgotten](Self::forget). The first sample of a member is only the base of the next
    /// comparison. Members that are unavailable, ejected or on trial are not judged and are not part
    /// of any mean. If more members are outliers than may be ejected, the worst are ejected first:
    /// failing members before slow ones, then the larger share of failures, then the larger number of
    /// failures; among slow members the larger multiple of the others' median; then the member that
    /// is longest in the set.
    ///
    /// The multiplier of each member that is neither ejected nor an outlier shrinks by one.
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
                let for_connects = outlier.is_for_connects();
                decisions.extend(self.eject(now, outlier.serial, outlier.reason, for_connects));
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

    /// Stores a sample, and returns the traffic since the previous one if it is to be judged.
    fn record_sample(&mut self, sample: &OutlierSample) -> Option<SweepWindow> {
        self.track(sample.serial, sample.enabled, sample.up);
        let entry = self.table.get_mut(sample.serial)?;
        let before = entry.last_outcomes.replace(sample.outcomes)?;
        let judged = entry.is_available() && entry.phase() == EjectionPhase::NotEjected;
        let window = SweepWindow::between(sample.serial, before, sample.outcomes, sample.latency);
        window.filter(|_| judged)
    }

    /// Handles the failure streak of a member.
    ///
    /// Returns `None` while the member is ejected or on trial (leases that it got before may still
    /// fail), and while it is unavailable.
    pub fn handle_streak(
        &mut self,
        now: Instant,
        serial: u64,
        streak: StreakReport,
    ) -> Option<EjectionDecision> {
        let StreakReport { failures, connect_failures, has_app_error } = streak;
        let reaches = |count: u32, threshold: Option<u32>| {
            threshold.is_some_and(|threshold| count >= threshold)
        };
        let reason = if reaches(connect_failures, self.policy.consecutive_connect_failures()) {
            let reason = EjectionReason::ConnectFailures { failures: connect_failures };
            return self.eject(now, serial, reason, true);
        } else if reaches(failures, self.policy.consecutive_failures()) {
            EjectionReason::ConsecutiveFailures { failures }
        } else {
            return None;
        };
        self.eject(now, serial, reason, !has_app_error)
    }

    /// Returns when [`handle_timeout`](Self::handle_timeout) is due: at the end of the next ejection;
    /// `None` while no member is ejected. The caller keeps the time of the sweeps.
    #[must_use]
    pub fn poll_timeout(&self) -> Option<Instant> {
        self.table.next_expiry()
    }

    /// Starts the trial of every member whose ejection has ended, whether it is available or not.
    ///
    /// Only [`handle_trial_end`](Self::handle_trial_end), a passed check or the operator ends a trial:
    /// a member that gets no traffic, or is down by its checks, stays on trial until it gets some.
    pub fn handle_timeout(&mut self, now: Instant) -> Vec<EjectionDecision> {
        let mut decisions = Vec::new();
        while let Some((serial, reason)) = self
            .table
            .next_expired(now)
            .and_then(|serial| Some((serial, self.table.reason(serial)?)))
        {
            self.table.set_phase(serial, EjectionPhase::OnTrial { reason });
            self.counters.trials += 1;
            decisions.push(EjectionDecision { serial, action: EjectionAction::StartTrial });
        }
        decisions
    }

    /// Handles the outcome of a trial: the member returns, or is ejected again, for longer.
    ///
    /// If the lease of the trial was cancelled, do not call this; give the member another lease.
    /// Returns `None` if the member is not on trial. The limit on ejected members does not apply to a
    /// failed trial, because the member was not in use before.
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

    /// Handles a connection that the lease of a trial has made: a member that was ejected because
    /// connections to it failed, and for nothing else, returns with it. A connection may last for hours,
    /// and its end would prove no more. Returns `None` for other members, which return by
    /// [`handle_trial_end`](Self::handle_trial_end).
    pub fn handle_connected(&mut self, now: Instant, serial: u64) -> Option<EjectionDecision> {
        let is_proof = self.table.get(serial)?.is_ejected_for_connects;
        if is_proof { self.handle_trial_end(now, serial, true) } else { None }
    }

    /// Handles an active check of a member that passed: the member returns at once if the policy
    /// [says so](crate::health::EjectionPolicyBuilder::check_ends_ejection). The multiplier stays.
    pub fn handle_check_passed(&mut self, serial: u64) -> Option<EjectionDecision> {
        if self.policy.check_ends_ejection() { self.end_ejection(serial) } else { None }
    }

    /// Ends the ejection or trial of a member by order of the operator, and resets its multiplier.
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

    /// Returns the ejection state of a member; `None` if the member is unknown.
    #[must_use]
    pub fn ejection_state(&self, serial: u64) -> Option<EjectionState> {
        let entry = self.table.get(serial)?;
        Some(EjectionState { phase: entry.phase(), multiplier: entry.multiplier })
    }

    /// Returns the counters of the decisions made so far.
    #[must_use]
    pub fn counters(&self) -> EjectionCounters {
        EjectionCounters {
            currently_ejected: self.table.ejected_count() as u64,
            currently_on_trial: self.table.on_trial_count() as u64,
            ..self.counters
        }
    }

    /// Returns the state of every member that is ejected, on trial or has a multiplier above 0, by
    /// serial.
    pub fn export(&self, now: Instant) -> impl Iterator<Item = (u64, SavedEjection)> + '_ {
        self.table.iter().filter_map(move |(serial, entry)| {
            let phase = match entry.phase() {
                EjectionPhase::NotEjected if entry.multiplier == 0 => return None,
                EjectionPhase::NotEjected => SavedEjectionPhase::NotEjected,
                EjectionPhase::Ejected { until, reason } => SavedEjectionPhase::Ejected {
                    remaining: until.saturating_duration_since(now),
                    reason,
                },
                EjectionPhase::OnTrial { reason } => SavedEjectionPhase::OnTrial { reason },
            };
            let for_connects = entry.is_ejected_for_connects;
            Some((serial, SavedEjection { multiplier: entry.multiplier, phase, for_connects }))
        })
    }

    /// Restores the state of a member from another process or another policy.
    ///
    /// [`track`](Self::track) all members first, so that the limit on ejected members is that of the
    /// whole set: the limit applies here as to every ejection, and so does the maximum ejection time.
    /// Returns `None` if the member is unknown, ejected or on trial already.
    pub fn import(
        &mut self,
        now: Instant,
        serial: u64,
        saved: SavedEjection,
    ) -> Option<EjectionDecision> {
        let max_multiplier = self.policy.max_multiplier();
        let has_budget = self.has_ejection_budget();
        let entry = self
            .table
            .get_mut(serial)
            .filter(|entry| entry.phase() == EjectionPhase::NotEjected)?;
        entry.multiplier = saved.multiplier.min(max_multiplier);
        entry.is_ejected_for_connects = saved.for_connects;
        let (SavedEjectionPhase::Ejected { reason, .. } | SavedEjectionPhase::OnTrial { reason }) =
            saved.phase
        else {
            return None;
        };
        // The limit counts available members only.
        if entry.is_available() && !has_budget {
            self.counters.refused.increment(reason);
            return None;
        }
        self.counters.imported += 1;
        let (phase, action) = if let SavedEjectionPhase::Ejected { remaining, .. } = saved.phase {
            let max_time = self.policy.max_ejection_time().saturating_add(self.policy.jitter());
            let until = deadline_after(now, remaining.min(max_time));
            (EjectionPhase::Ejected { until, reason }, EjectionAction::Eject { until, reason })
        } else {
            self.counters.trials += 1;
            (EjectionPhase::OnTrial { reason }, EjectionAction::StartTrial)
        };
        self.table.set_phase(serial, phase);
        Some(EjectionDecision { serial, action })
    }

    /// Ejects a member that is available and not ejected, if the limit on ejected members allows it.
    fn eject(
        &mut self,
        now: Instant,
        serial: u64,
        reason: EjectionReason,
        for_connects: bool,
    ) -> Option<EjectionDecision> {
        let entry = self.table.get(serial)?;
        if entry.phase() != EjectionPhase::NotEjected || !entry.is_available() {
            return None;
        }
        if !self.has_ejection_budget() {
            self.counters.refused.increment(reason);
            return None;
        }
        self.table.get_mut(serial)?.is_ejected_for_connects = for_connects;
        self.apply_ejection(now, serial, reason)
    }

    /// Returns whether one more available member may be ejected, and another would still be left.
    fn has_ejection_budget(&self) -> bool {
        let available = self.table.available_count();
        let ejected = self.table.available_ejected_count();
        ejected < self.policy.max_ejected(available) && ejected + 1 < available
    }

    fn apply_ejection(
        &mut self,
        now: Instant,
        serial: u64,
        reason: EjectionReason,
    ) -> Option<EjectionDecision> {
        let max_multiplier = self.policy.max_multiplier();
        let entry = self.table.get_mut(serial)?;
        entry.multiplier = entry.multiplier.saturating_add(1).min(max_multiplier);
        let time = self.policy.ejection_time(entry.multiplier).saturating_add(self.draw_jitter());
        let until = deadline_after(now, time);
        self.table.set_phase(serial, EjectionPhase::Ejected { until, reason });
        self.counters.ejected.increment(reason);
        Some(EjectionDecision { serial, action: EjectionAction::Eject { until, reason } })
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
        // The nanoseconds of a day, the longest jitter, fit into 64 bits.
        let max = self.policy.jitter().as_nanos() as u64;
        if max == 0 { Duration::ZERO } else { Duration::from_nanos(self.rng.below(max + 1)) }
    }
}

/// Returns the instant after `time`, or `now` if the clock cannot represent it: an ejection must not
/// last forever.
fn deadline_after(now: Instant, time: Duration) -> Instant {
    now.checked_add(time).unwrap_or(now)
}
