//! One watched set, whatever it balances over.

use std::net::SocketAddr;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex};
use std::time::Instant;

use super::events::{HealthEvent, HealthEventKind, HealthEventSender};
use super::outlier::{EjectionPolicy, OutlierSample};
use super::plan::HealthPlan;
use crate::backend::{
    AgentOverride, BackendId, BackendSet, FailureStreak, Health, OutlierState, SavedBackend,
    SetError, SlowStart, Snapshot, SnapshotCommit, SnapshotReader, TrialState,
};

/// What the engine needs of a set.
pub(super) trait WatchedSet: Send + Sync {
    fn plan(&self) -> &HealthPlan;

    /// Tells whether the set was changed since it was asked last.
    fn take_changed(&self) -> bool;

    /// Who is in the set.
    fn members(&self) -> Vec<MemberInfo>;

    /// Carries out what checks and traffic say, as one publication.
    fn apply(&self, words: &[HealthUpdate], rulings: &[OutlierUpdate]) -> Result<(), SetError>;

    /// Who has raised a hand since it was asked last, and what for.
    fn take_outlier_signals(&self) -> Vec<(u64, FailureStreak, TrialState)>;

    /// What all members have done, and whether they can serve.
    fn samples(&self, now: Instant) -> Vec<OutlierSample>;

    /// Lets slow starts move on.
    fn advance_slow_starts(&self, now: Instant) -> Result<Option<Instant>, SetError>;

    /// What the set has learned.
    fn export(&self, now: Instant) -> Vec<SavedBackend>;

    /// Takes up what an earlier process has learned.
    fn restore(&self, saved: &[SavedBackend], now: Instant) -> Result<(), SetError>;

    /// Tells whoever listens.
    fn publish_event(&self, kind: HealthEventKind);
}

/// A member as the engine sees it.
#[derive(Debug)]
pub(super) struct MemberInfo {
    pub(super) serial: u64,
    pub(super) id: BackendId,
    pub(super) address: Option<SocketAddr>,
}

/// What checks say of a member.
#[derive(Clone, Debug, PartialEq)]
pub(super) struct HealthUpdate {
    pub(super) id: BackendId,
    /// `None`: nothing is known yet.
    pub(super) health: Option<Health>,
    pub(super) reason: Arc<str>,
    pub(super) agent_override: AgentOverride,
}

/// What its traffic makes of a member.
#[derive(Clone, Debug)]
pub(super) struct OutlierUpdate {
    pub(super) id: BackendId,
    pub(super) outlier_state: OutlierState,
    pub(super) reason: Arc<str>,
    /// How its share grows from now on.
    pub(super) ramp: Option<SlowStart>,
}

/// A set of any target, and the ear on it.
pub(super) struct ObservedBackendSet<T> {
    set: BackendSet<T>,
    observer: Arc<SetObserver<T>>,
}

/// Hears every publication of a set.
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
        ring: impl Fn() + Clone + Send + Sync + 'static,
    ) -> Self {
        if let Some(ejection) = &plan.ejection {
            let snapshot = set.snapshot();
            let alarm = &snapshot.context().outlier_signal;
            let (failures, connects) =
                (EjectionPolicy::failures_in_a_row, EjectionPolicy::connect_failures_in_a_row);
            alarm.set_thresholds(failures(ejection).unwrap_or(0), connects(ejection).unwrap_or(0));
            alarm.set_callback(ring.clone());
        }
        let ear = set.subscribe(|snapshot| {
            Ok::<_, std::convert::Infallible>(Arc::new(SetObserver {
                plan,
                last_snapshot: Mutex::new(Arc::clone(snapshot)),
                changed: AtomicBool::new(true),
                events,
                wake_monitor: Box::new(ring),
            }))
        });
        let Ok(ear) = ear;
        Self { set: set.clone(), observer: ear }
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
        let seen = snapshot.members().iter().map(|member| MemberInfo {
            serial: member.serial(),
            id: member.id().clone(),
            address: member.address(),
        });
        seen.collect()
    }

    fn apply(&self, words: &[HealthUpdate], rulings: &[OutlierUpdate]) -> Result<(), SetError> {
        // Who was taken out meanwhile needs no word.
        let known = |done: Result<(), SetError>| match done {
            Err(SetError::UnknownBackend { .. }) => Ok(()),
            done => done,
        };
        self.set.edit(|edit| {
            for word in words {
                known(edit.set_agent_override(&word.id, word.agent_override))?;
                if let Some(health) = word.health {
                    known(edit.set_health_with_reason(&word.id, health, Arc::clone(&word.reason)))?;
                }
            }
            for ruling in rulings {
                known(edit.set_outlier_state(
                    &ruling.id,
                    ruling.outlier_state,
                    Arc::clone(&ruling.reason),
                ))?;
                if let Some(ramp) = ruling.ramp {
                    known(edit.start_slow_start(&ruling.id, ramp))?;
                }
            }
            Ok(())
        })
    }

    fn take_outlier_signals(&self) -> Vec<(u64, FailureStreak, TrialState)> {
        let snapshot = self.set.snapshot();
        let members = snapshot.members();
        let raised = snapshot.context().outlier_signal.take_notified_serials();
        let heard = raised.into_iter().filter_map(|serial| {
            let account = members[members.position_of_serial(serial)?].account();
            Some((serial, account.take_failure_streak(), account.trial_state()))
        });
        heard.collect()
    }

    fn samples(&self, now: Instant) -> Vec<OutlierSample> {
        let snapshot = self.set.snapshot();
        let by_status = self.set.statuses();
        let samples = snapshot.iter().zip(&by_status);
        let sample = samples.map(|((backend, member), status)| OutlierSample {
            serial: member.serial(),
            outcomes: backend.outcomes(),
            latency: backend.estimate(now).latency,
            enabled: status.is_in_service(),
            up: status.health == Health::Up,
        });
        sample.collect()
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

    /// Says what is different between two publications.
    fn publish_changes(&self, old: &Snapshot<T>, new: &Snapshot<T>) {
        let (before, after) = (old.members(), new.members());
        for (position, member) in after.iter().enumerate() {
            let from = before.position_of_serial(member.serial()).map(|at| before[at].state());
            let to = member.state();
            if from != Some(to) {
                let why = new.reason(position).cloned();
                self.publish_event(HealthEventKind::State {
                    id: member.id().clone(),
                    from,
                    to: Some(to),
                    reason: why,
                });
            }
        }
        for member in before.iter().filter(|it| after.position_of_serial(it.serial()).is_none()) {
            let (id, from) = (member.id().clone(), Some(member.state()));
            self.publish_event(HealthEventKind::State { id, from, to: None, reason: None });
        }
        if old.is_panicking() != new.is_panicking() {
            let (healthy, wanted) = new.health_counts();
            self.publish_event(HealthEventKind::Panic {
                active: new.is_panicking(),
                healthy,
                enabled: wanted,
            });
        }
        if old.has_quorum() != new.has_quorum() {
            self.publish_event(HealthEventKind::Quorum { met: new.has_quorum() });
        }
    }
}

impl<T: Send + Sync> SnapshotReader<T> for SetObserver<T> {
    fn prepare(&self, next: &Arc<Snapshot<T>>) -> Result<SnapshotCommit<'_>, SetError> {
        let next = Arc::clone(next);
        Ok(Box::new(move || {
            let last = std::mem::replace(
                &mut *self.last_snapshot.lock().unwrap_or_else(|poisoned| poisoned.into_inner()),
                Arc::clone(&next),
            );
            self.publish_changes(&last, &next);
            self.changed.store(true, Ordering::Release);
            (self.wake_monitor)();
        }))
    }
}
