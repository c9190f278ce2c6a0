//! One watched set, whatever it balances over.

use std::net::SocketAddr;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex};
use std::time::Instant;

use super::events::{Event, EventKind, Sender};
use super::outlier::{Ejection, Sample};
use super::plan::Plan;
use crate::backend::{
    Advice, BackendId, BackendSet, Commit, Health, Reader, Runs, SavedBackend, SetError, SlowStart,
    Snapshot, Standing, Trial,
};

/// What the engine needs of a set.
pub(super) trait Service: Send + Sync {
    fn plan(&self) -> &Plan;

    /// Tells whether the set was changed since it was asked last.
    fn take_changed(&self) -> bool;

    /// Who is in the set.
    fn members(&self) -> Vec<Seen>;

    /// Carries out what checks and traffic say, as one publication.
    fn apply(&self, words: &[Word], rulings: &[Ruling]) -> Result<(), SetError>;

    /// Who has raised a hand since it was asked last, and what for.
    fn heard(&self) -> Vec<(u64, Runs, Trial)>;

    /// What all members have done, and whether they can serve.
    fn samples(&self, now: Instant) -> Vec<Sample>;

    /// Lets slow starts move on.
    fn tick(&self, now: Instant) -> Result<Option<Instant>, SetError>;

    /// What the set has learned.
    fn export(&self, now: Instant) -> Vec<SavedBackend>;

    /// Takes up what an earlier process has learned.
    fn restore(&self, saved: &[SavedBackend], now: Instant) -> Result<(), SetError>;

    /// Tells whoever listens.
    fn tell(&self, kind: EventKind);
}

/// A member as the engine sees it.
#[derive(Debug)]
pub(super) struct Seen {
    pub(super) serial: u64,
    pub(super) id: BackendId,
    pub(super) address: Option<SocketAddr>,
}

/// What checks say of a member.
#[derive(Clone, Debug, PartialEq)]
pub(super) struct Word {
    pub(super) id: BackendId,
    /// `None`: nothing is known yet.
    pub(super) health: Option<Health>,
    pub(super) why: Arc<str>,
    pub(super) advice: Advice,
}

/// What its traffic makes of a member.
#[derive(Clone, Debug)]
pub(super) struct Ruling {
    pub(super) id: BackendId,
    pub(super) standing: Standing,
    pub(super) why: Arc<str>,
    /// How its share grows from now on.
    pub(super) ramp: Option<SlowStart>,
}

/// A set of any target, and the ear on it.
pub(super) struct Watched<T> {
    set: BackendSet<T>,
    ear: Arc<Ear<T>>,
}

/// Hears every publication of a set.
struct Ear<T> {
    plan: Plan,
    last: Mutex<Arc<Snapshot<T>>>,
    changed: AtomicBool,
    events: Sender,
    ring: Box<dyn Fn() + Send + Sync>,
}

impl<T: Send + Sync + 'static> Watched<T> {
    pub(super) fn new(
        set: &BackendSet<T>,
        plan: Plan,
        events: Sender,
        ring: impl Fn() + Clone + Send + Sync + 'static,
    ) -> Self {
        if let Some(ejection) = &plan.ejection {
            let snapshot = set.snapshot();
            let alarm = &snapshot.shared().alarm;
            let (failures, connects) =
                (Ejection::failures_in_a_row, Ejection::connect_failures_in_a_row);
            alarm.arm(failures(ejection).unwrap_or(0), connects(ejection).unwrap_or(0));
            alarm.wake(ring.clone());
        }
        let ear = set.subscribe(|snapshot| {
            Ok::<_, std::convert::Infallible>(Arc::new(Ear {
                plan,
                last: Mutex::new(Arc::clone(snapshot)),
                changed: AtomicBool::new(true),
                events,
                ring: Box::new(ring),
            }))
        });
        let Ok(ear) = ear;
        Self { set: set.clone(), ear }
    }
}

impl<T: Send + Sync + 'static> Service for Watched<T> {
    fn plan(&self) -> &Plan {
        &self.ear.plan
    }

    fn take_changed(&self) -> bool {
        self.ear.changed.swap(false, Ordering::AcqRel)
    }

    fn members(&self) -> Vec<Seen> {
        let snapshot = self.set.snapshot();
        let seen = snapshot.members().iter().map(|member| Seen {
            serial: member.serial(),
            id: member.id().clone(),
            address: member.address(),
        });
        seen.collect()
    }

    fn apply(&self, words: &[Word], rulings: &[Ruling]) -> Result<(), SetError> {
        // Who was taken out meanwhile needs no word.
        let known = |done: Result<(), SetError>| match done {
            Err(SetError::Unknown { .. }) => Ok(()),
            done => done,
        };
        self.set.edit(|edit| {
            for word in words {
                known(edit.set_advice(&word.id, word.advice))?;
                if let Some(health) = word.health {
                    known(edit.set_health_because(&word.id, health, Arc::clone(&word.why)))?;
                }
            }
            for ruling in rulings {
                known(edit.set_standing(&ruling.id, ruling.standing, Arc::clone(&ruling.why)))?;
                if let Some(ramp) = ruling.ramp {
                    known(edit.begin_ramp(&ruling.id, ramp))?;
                }
            }
            Ok(())
        })
    }

    fn heard(&self) -> Vec<(u64, Runs, Trial)> {
        let snapshot = self.set.snapshot();
        let members = snapshot.members();
        let raised = snapshot.shared().alarm.take();
        let heard = raised.into_iter().filter_map(|serial| {
            let account = members[members.position(serial)?].account();
            Some((serial, account.heard(), account.trial()))
        });
        heard.collect()
    }

    fn samples(&self, now: Instant) -> Vec<Sample> {
        let snapshot = self.set.snapshot();
        let by_status = self.set.status();
        let samples = snapshot.iter().zip(&by_status);
        let sample = samples.map(|((backend, member), status)| Sample {
            serial: member.serial(),
            outcomes: backend.outcomes(),
            latency: backend.estimate(now).latency,
            enabled: status.is_wanted(),
            up: status.health == Health::Up,
        });
        sample.collect()
    }

    fn tick(&self, now: Instant) -> Result<Option<Instant>, SetError> {
        self.set.tick(now)
    }

    fn export(&self, now: Instant) -> Vec<SavedBackend> {
        self.set.export(now)
    }

    fn restore(&self, saved: &[SavedBackend], now: Instant) -> Result<(), SetError> {
        self.set.restore(saved, now)
    }

    fn tell(&self, kind: EventKind) {
        self.ear.tell(kind);
    }
}

impl<T> Ear<T> {
    fn tell(&self, kind: EventKind) {
        self.events.send(Event::new(&self.plan.name, kind));
    }

    /// Says what is different between two publications.
    fn compare(&self, old: &Snapshot<T>, new: &Snapshot<T>) {
        let (before, after) = (old.members(), new.members());
        for (position, member) in after.iter().enumerate() {
            let from = before.position(member.serial()).map(|at| before[at].state());
            let to = member.state();
            if from != Some(to) {
                let why = new.why(position).cloned();
                self.tell(EventKind::State { id: member.id().clone(), from, to: Some(to), why });
            }
        }
        for member in before.iter().filter(|it| after.position(it.serial()).is_none()) {
            let (id, from) = (member.id().clone(), Some(member.state()));
            self.tell(EventKind::State { id, from, to: None, why: None });
        }
        if old.is_panicking() != new.is_panicking() {
            let (healthy, wanted) = new.health_count();
            self.tell(EventKind::Panic { on: new.is_panicking(), healthy, wanted });
        }
        if old.has_quorum() != new.has_quorum() {
            self.tell(EventKind::Quorum { held: new.has_quorum() });
        }
    }
}

impl<T: Send + Sync> Reader<T> for Ear<T> {
    fn prepare(&self, next: &Arc<Snapshot<T>>) -> Result<Commit<'_>, SetError> {
        let next = Arc::clone(next);
        Ok(Box::new(move || {
            let last = std::mem::replace(
                &mut *self.last.lock().unwrap_or_else(|poisoned| poisoned.into_inner()),
                Arc::clone(&next),
            );
            self.compare(&last, &next);
            self.changed.store(true, Ordering::Release);
            (self.ring)();
        }))
    }
}
