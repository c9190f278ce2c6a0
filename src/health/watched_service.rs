//! One service: what its checks and its traffic come to, and when its set is told.

use std::collections::HashMap;
use std::sync::Arc;
use std::time::{Duration, Instant};

use super::events::HealthEventKind;
use super::outlier::{EjectionAction, EjectionDecision, Ejector, SavedEjection, StreakReport};
use super::timetable::ProbeId;
use super::watched_set::{HealthUpdate, MemberInfo, OutlierUpdate, WatchedSet};
use crate::backend::{OutlierState, TrialState};
use crate::scheduler::Rng;

/// How long to wait after a scheduler has refused what was to be published.
const PUBLISH_RETRY_INTERVAL: Duration = Duration::from_secs(1);

/// A service, and what is known of its members.
pub(super) struct WatchedService {
    pub(super) set: Arc<dyn WatchedSet>,
    pub(super) members: HashMap<u64, WatchedMember>,
    /// What its set is to be told.
    pub(super) pending_health: HashMap<u64, HealthUpdate>,
    pending_outliers: HashMap<u64, OutlierUpdate>,
    /// Not to be told before: that failed, or it was told a moment ago.
    publish_not_before: Option<Instant>,
    /// When its slow starts move on.
    pub(super) slow_start_at: Option<Instant>,
    ejector_driver: Option<EjectorDriver>,
}

/// A member, and who asks it.
pub(super) struct WatchedMember {
    pub(super) info: MemberInfo,
    pub(super) probes: Vec<ProbeId>,
}

/// The ejector, and the moments that it leaves to others.
struct EjectorDriver {
    ejector: Ejector,
    sweep_at: Option<Instant>,
    /// The members whose trial goes on, and since when.
    trials: HashMap<u64, Instant>,
}

impl WatchedService {
    pub(super) fn new(service: Arc<dyn WatchedSet>) -> Self {
        let ejection = service.plan().ejection.clone();
        // The plan was found sound.
        let ejector = ejection.and_then(|it| Ejector::new(it, Rng::from_entropy()).ok());
        let judge = ejector.map(|ejector| EjectorDriver {
            ejector,
            sweep_at: None,
            trials: HashMap::new(),
        });
        Self {
            set: service,
            members: HashMap::new(),
            pending_health: HashMap::new(),
            pending_outliers: HashMap::new(),
            publish_not_before: None,
            slow_start_at: None,
            ejector_driver: judge,
        }
    }

    /// A member was taken out.
    pub(super) fn forget_member(&mut self, serial: u64) {
        self.pending_health.remove(&serial);
        self.pending_outliers.remove(&serial);
        if let Some(judge) = &mut self.ejector_driver {
            judge.ejector.forget(serial);
            judge.trials.remove(&serial);
        }
    }

    /// The set was changed: who may be ejected, and how many, is another matter now.
    pub(super) fn track_members(&mut self, now: Instant) {
        let Some(judge) = &mut self.ejector_driver else { return };
        for sample in self.set.samples(now) {
            judge.ejector.track(sample.serial, sample.enabled, sample.up);
        }
    }

    /// Looks at what traffic says of the members.
    pub(super) fn run_ejector(&mut self, now: Instant) {
        let Some(judge) = &mut self.ejector_driver else { return };
        let decisions = judge.collect_decisions(&*self.set, now);
        decisions.into_iter().for_each(|decision| self.queue_outlier_update(decision, now));
    }

    /// When to [judge](Self::run_ejector) again, if nobody raises a hand before.
    pub(super) fn next_ejector_run(&self) -> Option<Instant> {
        let judge = self.ejector_driver.as_ref()?;
        let patience = judge.ejector.policy().patience();
        let trials = judge.trials.values().filter_map(|since| since.checked_add(patience));
        trials.chain(judge.ejector.poll_timeout()).chain(judge.sweep_at).min()
    }

    fn queue_outlier_update(
        &mut self,
        EjectionDecision { serial, action }: EjectionDecision,
        now: Instant,
    ) {
        let (Some(judge), Some(member)) = (&mut self.ejector_driver, self.members.get(&serial))
        else {
            return;
        };
        let (standing, why, ramp) = match action {
            EjectionAction::Eject { until, reason: why } => {
                let time = until.saturating_duration_since(now);
                (OutlierState::Ejected, format!("ejected for {time:.1?}: {why}").into(), None)
            }
            EjectionAction::StartTrial => (OutlierState::OnTrial, "on trial".into(), None),
            EjectionAction::Return => {
                (OutlierState::Good, "trial passed".into(), judge.ejector.policy().return_ramp())
            }
        };
        judge.trials.remove(&serial);
        let id = member.info.id.clone();
        self.pending_outliers
            .insert(serial, OutlierUpdate { id, outlier_state: standing, reason: why, ramp });
    }

    pub(super) fn export_ejections(&self, now: Instant) -> Vec<(String, SavedEjection)> {
        let all = self.ejector_driver.iter().flat_map(|judge| judge.ejector.export(now));
        let named = all.filter_map(|(serial, saved)| {
            Some((self.members.get(&serial)?.info.id.to_string(), saved))
        });
        named.collect()
    }

    pub(super) fn restore_ejections(&mut self, saved: &[(String, SavedEjection)], now: Instant) {
        self.track_members(now);
        let Some(judge) = &mut self.ejector_driver else { return };
        let serial_of: HashMap<_, _> =
            self.members.iter().map(|(serial, it)| (it.info.id.as_str(), *serial)).collect();
        let restore = |(id, saved): &(String, SavedEjection)| {
            judge.ejector.import(now, *serial_of.get(id.as_str())?, *saved)
        };
        let decisions: Vec<_> = saved.iter().filter_map(restore).collect();
        decisions.into_iter().for_each(|decision| self.queue_outlier_update(decision, now));
    }

    /// Tells the set, where there is something to tell.
    pub(super) fn publish_pending(&mut self, now: Instant) {
        if self.has_pending() && self.publish_not_before.is_none_or(|until| until <= now) {
            let words: Vec<_> = self.pending_health.values().cloned().collect();
            let rulings: Vec<_> = self.pending_outliers.values().cloned().collect();
            match self.set.apply(&words, &rulings) {
                Ok(()) => {
                    self.pending_health.clear();
                    self.pending_outliers.clear();
                    self.publish_not_before = now.checked_add(self.publish_pause());
                    // What came up begins its slow start.
                    self.slow_start_at = Some(now);
                }
                Err(error) => self.handle_publish_error(&error, now),
            }
        }
        if self.slow_start_at.is_some_and(|at| at <= now) {
            match self.set.advance_slow_starts(now) {
                Ok(next) => self.slow_start_at = next,
                Err(error) => {
                    self.slow_start_at = now.checked_add(PUBLISH_RETRY_INTERVAL);
                    self.handle_publish_error(&error, now);
                }
            }
        }
    }

    /// When to [tell](Self::publish_pending) what could not be told yet.
    pub(super) fn next_publish(&self) -> Option<Instant> {
        self.publish_not_before.filter(|_| self.has_pending())
    }

    fn has_pending(&self) -> bool {
        !(self.pending_health.is_empty() && self.pending_outliers.is_empty())
    }

    /// How long a set is left alone once it was told something: a publication costs time in
    /// proportion to it, and when thousands fail within a second they need not have one each.
    fn publish_pause(&self) -> Duration {
        let members = self.members.len() as u64;
        if members < 1000 { Duration::ZERO } else { Duration::from_micros(members) }
    }

    fn handle_publish_error(&mut self, error: &dyn std::error::Error, now: Instant) {
        let source = error.source().map(|source| format!(": {source}")).unwrap_or_default();
        self.set.publish_event(HealthEventKind::PublishRefused {
            error: format!("{error}{source}").into(),
        });
        self.publish_not_before = now.checked_add(PUBLISH_RETRY_INTERVAL);
    }
}

impl EjectorDriver {
    fn collect_decisions(
        &mut self,
        service: &dyn WatchedSet,
        now: Instant,
    ) -> Vec<EjectionDecision> {
        let mut decisions = self.ejector.handle_timeout(now);
        for (serial, runs, trial) in service.take_outlier_signals() {
            let decision = match trial {
                TrialState::NotOnTrial => {
                    let accusation = StreakReport {
                        failures: runs.failures,
                        connect_failures: runs.connect_failures,
                    };
                    self.ejector.handle_streak(now, serial, accusation)
                }
                TrialState::Passed | TrialState::Failed => {
                    self.ejector.handle_trial_end(now, serial, trial == TrialState::Passed)
                }
                TrialState::InProgress => {
                    self.trials.entry(serial).or_insert(now);
                    None
                }
                // Given up: the next one may have it.
                TrialState::Available => {
                    self.trials.remove(&serial);
                    None
                }
            };
            decisions.extend(decision);
        }
        let patience = self.ejector.policy().patience();
        let passed = self.trials.extract_if(|_, since| *since + patience <= now);
        let passed: Vec<_> = passed.map(|(serial, _)| serial).collect();
        let passed =
            passed.into_iter().filter_map(|it| self.ejector.handle_trial_end(now, it, true));
        decisions.extend(passed);
        if self.sweep_at.is_none_or(|at| at <= now) {
            self.sweep_at = now.checked_add(self.ejector.policy().interval());
            decisions.extend(self.ejector.sweep(now, &service.samples(now)));
        }
        decisions
    }
}
