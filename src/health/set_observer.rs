//! A backend set with an observer that reports each publication to the monitor.

use std::convert::Infallible;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Instant;

use super::events::{HealthEvent, HealthEventKind, HealthEventSender};
use super::outlier::OutlierSample;
use super::plan::HealthPlan;
use super::watched_set::{HealthUpdate, MemberInfo, OutlierUpdate, WatchedSet};
use crate::backend::{
    AgentOverride, BackendSet, FailureStreak, Health, SavedBackend, SetError, Snapshot,
    SnapshotCommit, SnapshotReader, TrialState,
};

/// A set with targets of any type, and its observer.
pub(super) struct ObservedBackendSet<T> {
    set: BackendSet<T>,
    observer: Arc<SetObserver<T>>,
}

/// A reader of every publication of a set: it sends the events and wakes the monitor.
struct SetObserver<T> {
    plan: HealthPlan,
    last_snapshot: Mutex<Arc<Snapshot<T>>>,
    changed: AtomicBool,
    events: HealthEventSender,
    wake_monitor: Box<dyn Fn() + Send + Sync>,
}

impl<T: Send + Sync + 'static> ObservedBackendSet<T> {
    pub(super) fn new(
        set: &BackendSet<T>,
        plan: HealthPlan,
        events: HealthEventSender,
        wake_monitor: impl Fn() + Clone + Send + Sync + 'static,
    ) -> Self {
        if let Some(policy) = &plan.ejection {
            let snapshot = set.snapshot();
            let signal = &snapshot.context().outlier_signal;
            signal.set_thresholds(
                policy.consecutive_failures().unwrap_or(0),
                policy.consecutive_connect_failures().unwrap_or(0),
            );
            signal.set_callback(wake_monitor.clone());
        }
        let observer = set.add_reader(|snapshot| {
            Ok::<_, Infallible>(Arc::new(SetObserver {
                plan,
                last_snapshot: Mutex::new(Arc::clone(snapshot)),
                changed: AtomicBool::new(true),
                events,
                wake_monitor: Box::new(wake_monitor),
            }))
        });
        let Ok(observer) = observer;
        set.set_initial_health_rule(observer.plan.initial_health_rule());
        Self { set: set.clone(), observer }
    }
}

impl<T> Drop for ObservedBackendSet<T> {
    fn drop(&mut self) {
        // Nothing would bring a backend up that is inserted after the end of the checks.
        self.set.set_initial_health(Health::Up);
    }
}

impl<T: Send + Sync + 'static> WatchedSet for ObservedBackendSet<T> {
    fn plan(&self) -> &HealthPlan {
        &self.observer.plan
    }

    fn take_changed(&self) -> bool {
        self.observer.changed.swap(false, Ordering::AcqRel)
    }

    fn members(&self) -> Vec<MemberInfo> {
        let snapshot = self.set.snapshot();
        let members = snapshot.members().iter().map(|member| MemberInfo {
            serial: member.serial(),
            id: member.id().clone(),
            address: member.address(),
        });
        members.collect()
    }

    fn apply(
        &self,
        health_updates: &[HealthUpdate],
        outlier_updates: &[OutlierUpdate],
    ) -> Result<(), SetError> {
        // A member that was removed meanwhile needs no update.
        let ignore_unknown = |result: Result<(), SetError>| match result {
            Err(SetError::UnknownBackend { .. }) => Ok(()),
            result => result,
        };
        self.set.edit(|edit| {
            for update in health_updates {
                ignore_unknown(edit.set_check_problem(&update.id, update.problem.clone()))?;
                // Before its checks have results a member keeps what an agent said before.
                let has_override = update.agent_override != AgentOverride::default();
                if update.health.is_some() || has_override {
                    ignore_unknown(edit.set_agent_override(&update.id, update.agent_override))?;
                }
                if let Some(health) = update.health {
                    let reason = Arc::clone(&update.reason);
                    ignore_unknown(edit.set_health_with_reason(&update.id, health, reason))?;
                }
            }
            for update in outlier_updates {
                let reason = Arc::clone(&update.reason);
                ignore_unknown(edit.set_outlier_state(&update.id, update.outlier_state, reason))?;
                if let Some(ramp) = update.ramp {
                    ignore_unknown(edit.start_slow_start(&update.id, ramp))?;
                }
            }
            Ok(())
        })
    }

    fn take_outlier_signals(&self) -> Vec<(u64, FailureStreak, TrialState)> {
        let snapshot = self.set.snapshot();
        let members = snapshot.members();
        let serials = snapshot.context().outlier_signal.take_notified_serials();
        let signals = serials.into_iter().filter_map(|serial| {
            let account = members[members.position_of_serial(serial)?].account();
            Some((serial, account.take_failure_streak(), account.trial_state()))
        });
        signals.collect()
    }

    fn samples(&self, now: Instant) -> Vec<OutlierSample> {
        let snapshot = self.set.snapshot();
        let statuses = self.set.statuses();
        let samples =
            snapshot.iter().zip(&statuses).map(|((backend, member), status)| OutlierSample {
                serial: member.serial(),
                outcomes: backend.outcomes(),
                latency: backend.estimate(now).latency,
                enabled: status.is_in_service(),
                up: status.health == Health::Up,
            });
        samples.collect()
    }

    fn advance_slow_starts(&self, now: Instant) -> Result<Option<Instant>, SetError> {
        self.set.advance_slow_start(now)
    }

    fn export(&self, now: Instant) -> Vec<SavedBackend> {
        self.set.export(now)
    }

    fn restore(&self, saved: &[SavedBackend], now: Instant) -> Result<(), SetError> {
        self.set.restore(saved, now)
    }

    fn publish_event(&self, kind: HealthEventKind) {
        self.observer.publish_event(kind);
    }
}

impl<T> SetObserver<T> {
    fn publish_event(&self, kind: HealthEventKind) {
        self.events.send(HealthEvent::new(&self.plan.name, kind));
    }

    /// Sends an event for each difference between two publications.
    fn publish_changes(&self, old: &Snapshot<T>, new: &Snapshot<T>) {
        let (before, after) = (old.members(), new.members());
        for (position, member) in after.iter().enumerate() {
            let from =
                before.position_of_serial(member.serial()).map(|previous| before[previous].state());
            let to = member.state();
            if from != Some(to) {
                self.publish_event(HealthEventKind::State {
                    id: member.id().clone(),
                    from,
                    to: Some(to),
                    reason: new.reason(position).cloned(),
                });
            }
        }
        let is_removed = |serial| after.position_of_serial(serial).is_none();
        for member in before.iter().filter(|member| is_removed(member.serial())) {
            let (id, from) = (member.id().clone(), Some(member.state()));
            self.publish_event(HealthEventKind::State { id, from, to: None, reason: None });
        }
        if old.is_panicking() != new.is_panicking() {
            let (healthy, enabled) = new.health_counts();
            let active = new.is_panicking();
            self.publish_event(HealthEventKind::Panic { active, healthy, enabled });
        }
        if old.has_quorum() != new.has_quorum() {
            self.publish_event(HealthEventKind::Quorum {
                met: new.has_quorum(),
                healthy_weight: new.healthy_weight(),
                quorum: new.quorum(),
            });
        }
    }
}

impl<T: Send + Sync> SnapshotReader<T> for SetObserver<T> {
    fn prepare(&self, next: &Arc<Snapshot<T>>) -> Result<SnapshotCommit<'_>, SetError> {
        let next = Arc::clone(next);
        Ok(Box::new(move || {
            let previous = std::mem::replace(
                &mut *self.last_snapshot.lock().unwrap_or_else(PoisonError::into_inner),
                Arc::clone(&next),
            );
            self.publish_changes(&previous, &next);
            self.changed.store(true, Ordering::Release);
            (self.wake_monitor)();
        }))
    }
}
