//! One watched service: the pending results of its checks and its traffic, and when its set gets
//! them.

use std::collections::HashMap;
use std::sync::Arc;
use std::time::{Duration, Instant};

use super::ejector_driver::EjectorDriver;
use super::events::HealthEventKind;
use super::outlier::{EjectionAction, EjectionDecision, SavedEjection};
use super::timetable::ProbeId;
use super::watched_set::{HealthUpdate, MemberInfo, OutlierUpdate, WatchedSet};
use crate::backend::{OutlierState, SetError};

/// The number of a watched service, never reused.
pub(super) type WatchedServiceId = u64;

/// The pause after a scheduler has refused a publication.
const PUBLISH_RETRY_INTERVAL: Duration = Duration::from_secs(1);

/// A watched set, its members, and the updates that are not published yet.
pub(super) struct WatchedService {
    pub(super) set: Arc<dyn WatchedSet>,
    pub(super) members: HashMap<u64, WatchedMember>,
    /// Results of checks that the set does not have yet, by serial.
    pub(super) pending_health: HashMap<u64, HealthUpdate>,
    pending_outliers: HashMap<u64, OutlierUpdate>,
    /// The end of the pause after a publication, refused or not.
    publish_not_before: Option<Instant>,
    /// When the slow starts of the set advance.
    pub(super) slow_start_at: Option<Instant>,
    ejector_driver: Option<EjectorDriver>,
}

/// A member, and the probes that check it.
pub(super) struct WatchedMember {
    pub(super) info: MemberInfo,
    pub(super) probes: Vec<ProbeId>,
}

impl WatchedService {
    pub(super) fn new(set: Arc<dyn WatchedSet>) -> Self {
        let ejector_driver = EjectorDriver::from_plan(set.plan());
        Self {
            set,
            members: HashMap::new(),
            pending_health: HashMap::new(),
            pending_outliers: HashMap::new(),
            publish_not_before: None,
            slow_start_at: None,
            ejector_driver,
        }
    }

    /// Forgets a member that was removed from the set.
    pub(super) fn forget_member(&mut self, serial: u64) {
        self.pending_health.remove(&serial);
        self.pending_outliers.remove(&serial);
        if let Some(driver) = &mut self.ejector_driver {
            driver.forget_member(serial);
        }
    }

    /// Updates the ejector after a change of the set, which may change the limit on ejected members.
    pub(super) fn track_members(&mut self, now: Instant) {
        if let Some(driver) = &mut self.ejector_driver {
            driver.track_members(&*self.set, now);
        }
    }

    /// Runs the ejector, and queues its decisions.
    pub(super) fn run_ejector(&mut self, now: Instant) {
        let Some(driver) = &mut self.ejector_driver else { return };
        let decisions = driver.collect_decisions(&*self.set, now);
        decisions.into_iter().for_each(|decision| self.queue_outlier_update(decision, now));
    }

    /// Ends the ejection of a member whose check has passed, if the policy says so.
    pub(super) fn handle_check_passed(&mut self, serial: u64, now: Instant) {
        let Some(driver) = &mut self.ejector_driver else { return };
        let Some(decision) = driver.handle_check_passed(serial) else { return };
        self.queue_outlier_update(decision, now);
        if let Some(update) = self.pending_outliers.get_mut(&serial) {
            update.reason = "a check passed, ejection ended".into();
        }
    }

    /// Returns when to [run the ejector](Self::run_ejector), if no member signals before.
    pub(super) fn next_ejector_run(&self) -> Option<Instant> {
        self.ejector_driver.as_ref()?.next_run()
    }

    fn queue_outlier_update(
        &mut self,
        EjectionDecision { serial, action }: EjectionDecision,
        now: Instant,
    ) {
        let (Some(driver), Some(member)) = (&mut self.ejector_driver, self.members.get(&serial))
        else {
            return;
        };
        let (outlier_state, reason, ramp) = match action {
            EjectionAction::Eject { until, reason } => {
                let time = until.saturating_duration_since(now);
                (OutlierState::Ejected, format!("ejected for {time:.1?}: {reason}").into(), None)
            }
            EjectionAction::StartTrial => {
                (OutlierState::OnTrial, "on trial after an ejection".into(), None)
            }
            EjectionAction::Return => {
                (OutlierState::Good, "trial passed, ejection ended".into(), driver.ramp())
            }
        };
        driver.end_trial(serial);
        let id = member.info.id.clone();
        self.pending_outliers.insert(serial, OutlierUpdate { id, outlier_state, reason, ramp });
    }

    /// Returns the ejections of the members, by the name of the backend.
    pub(super) fn export_ejections(&self, now: Instant) -> Vec<(String, SavedEjection)> {
        let ejections = self.ejector_driver.iter().flat_map(|driver| driver.export(now));
        let named = ejections.filter_map(|(serial, saved)| {
            Some((self.members.get(&serial)?.info.id.to_string(), saved))
        });
        named.collect()
    }

    /// Restores the ejections of members with the same names.
    pub(super) fn restore_ejections(&mut self, saved: &[(String, SavedEjection)], now: Instant) {
        self.track_members(now);
        let Some(driver) = &mut self.ejector_driver else { return };
        let serial_by_name: HashMap<_, _> = self
            .members
            .iter()
            .map(|(serial, member)| (member.info.id.as_str(), *serial))
            .collect();
        let restore = |(name, saved): &(String, SavedEjection)| {
            driver.import(now, *serial_by_name.get(name.as_str())?, *saved)
        };
        let decisions: Vec<_> = saved.iter().filter_map(restore).collect();
        decisions.into_iter().for_each(|decision| self.queue_outlier_update(decision, now));
    }

    /// Publishes the pending updates and advances the slow starts, if they are due.
    pub(super) fn publish_pending(&mut self, now: Instant) {
        if self.has_pending() && self.publish_not_before.is_none_or(|end| end <= now) {
            let health_updates: Vec<_> = self.pending_health.values().cloned().collect();
            let outlier_updates: Vec<_> = self.pending_outliers.values().cloned().collect();
            match self.set.apply(&health_updates, &outlier_updates) {
                Ok(()) => {
                    self.pending_health.clear();
                    self.pending_outliers.clear();
                    self.publish_not_before = now.checked_add(self.publish_pause());
                    // The slow starts of members that came up begin now.
                    self.slow_start_at = Some(now);
                }
                Err(error) => self.handle_publish_error(&error, now),
            }
        }
        if self.slow_start_at.is_some_and(|due| due <= now) {
            match self.set.advance_slow_starts(now) {
                Ok(next) => self.slow_start_at = next,
                Err(error) => {
                    self.slow_start_at = now.checked_add(PUBLISH_RETRY_INTERVAL);
                    self.handle_publish_error(&error, now);
                }
            }
        }
    }

    /// Returns when to [publish](Self::publish_pending) the updates that wait for a pause to end.
    pub(super) fn next_publish(&self) -> Option<Instant> {
        self.publish_not_before.filter(|_| self.has_pending())
    }

    fn has_pending(&self) -> bool {
        !(self.pending_health.is_empty() && self.pending_outliers.is_empty())
    }

    /// Returns the pause after a publication. A publication takes time in proportion to the set, so
    /// thousands of failures within a second are published together.
    fn publish_pause(&self) -> Duration {
        let members = self.members.len() as u64;
        if members < 1000 { Duration::ZERO } else { Duration::from_micros(members) }
    }

    fn handle_publish_error(&mut self, error: &SetError, now: Instant) {
        let error = error.to_string().into();
        self.set.publish_event(HealthEventKind::PublishRefused { error });
        self.publish_not_before = now.checked_add(PUBLISH_RETRY_INTERVAL);
    }
}
