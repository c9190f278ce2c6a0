//! The ejector of one watched set, with the times that an ejector leaves to its caller.

use std::collections::HashMap;
use std::time::Instant;

use super::outlier::{EjectionDecision, Ejector, SavedEjection, StreakReport};
use super::plan::HealthPlan;
use super::watched_set::WatchedSet;
use crate::backend::{SlowStart, TrialState};
use crate::scheduler::Rng;

/// An ejector, the time of its next sweep, and the trials in progress.
pub(super) struct EjectorDriver {
    ejector: Ejector,
    sweep_at: Option<Instant>,
    /// The start of the lease of each trial in progress, by serial.
    trials: HashMap<u64, Instant>,
}

impl EjectorDriver {
    /// Returns a driver if the plan has an ejection policy.
    pub(super) fn from_plan(plan: &HealthPlan) -> Option<Self> {
        let ejector = Ejector::new(plan.ejection.clone()?, Rng::from_entropy());
        Some(Self { ejector, sweep_at: None, trials: HashMap::new() })
    }

    /// Reads the state of all members, so that the limit on ejected members is up to date.
    pub(super) fn track_members(&mut self, set: &dyn WatchedSet, now: Instant) {
        for sample in set.samples(now) {
            self.ejector.track(sample.serial, sample.enabled, sample.up);
        }
    }

    pub(super) fn forget_member(&mut self, serial: u64) {
        self.ejector.forget(serial);
        self.trials.remove(&serial);
    }

    /// Handles an active check that passed; a member may return by it.
    pub(super) fn handle_check_passed(&mut self, serial: u64) -> Option<EjectionDecision> {
        self.ejector.handle_check_passed(serial)
    }

    /// Ends the wait for the trial of a member.
    pub(super) fn end_trial(&mut self, serial: u64) {
        self.trials.remove(&serial);
    }

    /// Returns the slow start of a member that has passed its trial.
    pub(super) fn ramp(&self) -> Option<SlowStart> {
        self.ejector.policy().ramp()
    }

    pub(super) fn export(&self, now: Instant) -> impl Iterator<Item = (u64, SavedEjection)> + '_ {
        self.ejector.export(now)
    }

    pub(super) fn import(
        &mut self,
        now: Instant,
        serial: u64,
        saved: SavedEjection,
    ) -> Option<EjectionDecision> {
        self.ejector.import(now, serial, saved)
    }

    /// Returns when to [collect decisions](Self::collect_decisions), if no member signals before.
    pub(super) fn next_run(&self) -> Option<Instant> {
        let max_trial_time = self.ejector.policy().max_trial_time();
        let trial_ends = self.trials.values().filter_map(|start| start.checked_add(max_trial_time));
        trial_ends.chain(self.ejector.poll_timeout()).chain(self.sweep_at).min()
    }

    /// Returns the decisions that follow from the time and from the traffic of the members.
    pub(super) fn collect_decisions(
        &mut self,
        set: &dyn WatchedSet,
        now: Instant,
    ) -> Vec<EjectionDecision> {
        let mut decisions = self.ejector.handle_timeout(now);
        for (serial, streak, trial) in set.take_outlier_signals() {
            let decision = match trial {
                TrialState::NotOnTrial => {
                    let report = StreakReport {
                        failures: streak.failures,
                        connect_failures: streak.connect_failures,
                        has_app_error: streak.has_app_error,
                    };
                    self.ejector.handle_streak(now, serial, report)
                }
                TrialState::Passed | TrialState::Failed => {
                    self.ejector.handle_trial_end(now, serial, trial == TrialState::Passed)
                }
                TrialState::InProgress => {
                    self.trials.entry(serial).or_insert(now);
                    None
                }
                TrialState::Connected => {
                    let returned = self.ejector.handle_connected(now, serial);
                    if returned.is_none() {
                        self.trials.entry(serial).or_insert(now);
                    }
                    returned
                }
                // The lease of the trial was cancelled: the next lease is the trial.
                TrialState::Available => {
                    self.trials.remove(&serial);
                    None
                }
            };
            decisions.extend(decision);
        }
        let max_trial_time = self.ejector.policy().max_trial_time();
        let passed = self.trials.extract_if(|_, start| *start + max_trial_time <= now);
        let passed: Vec<u64> = passed.map(|(serial, _)| serial).collect();
        let passed = passed
            .into_iter()
            .filter_map(|serial| self.ejector.handle_trial_end(now, serial, true));
        decisions.extend(passed);
        if self.sweep_at.is_none_or(|sweep_at| sweep_at <= now) {
            self.sweep_at = now.checked_add(self.ejector.policy().sweep_interval());
            decisions.extend(self.ejector.sweep(now, &set.samples(now)));
        }
        decisions
    }
}
