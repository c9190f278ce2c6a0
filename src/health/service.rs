//! One watched set, whatever it balances over.

use std::net::SocketAddr;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex};
use std::time::Instant;

use super::events::{Event, EventKind, Sender};
use super::plan::Plan;
use crate::backend::{
    Advice, BackendId, BackendSet, Commit, Health, Reader, SavedBackend, SetError, Snapshot,
};

/// What the engine needs of a set.
pub(super) trait Service: Send + Sync {
    fn plan(&self) -> &Plan;

    /// Tells whether the set was changed since it was asked last.
    fn take_changed(&self) -> bool;

    /// Who is in the set.
    fn members(&self) -> Vec<Seen>;

    /// Carries out what checks say, as one publication.
    fn apply(&self, words: &[Word]) -> Result<(), SetError>;

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
        ring: impl Fn() + Send + Sync + 'static,
    ) -> Self {
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

    fn apply(&self, words: &[Word]) -> Result<(), SetError> {
        self.set.edit(|edit| {
            for word in words {
                // Who was taken out meanwhile needs no word.
                let known = |done: Result<(), SetError>| match done {
                    Err(SetError::Unknown { .. }) => Ok(()),
                    done => done,
                };
                known(edit.set_advice(&word.id, word.advice))?;
                if let Some(health) = word.health {
                    known(edit.set_health_because(&word.id, health, Arc::clone(&word.why)))?;
                }
            }
            Ok(())
        })
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
