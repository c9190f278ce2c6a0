//! What the source said, what the feed has put into the set for it, and what follows for the set.
//! Pure: time is an argument.

use std::collections::{BTreeMap, HashMap};
use std::sync::Arc;
use std::time::{Duration, Instant};

use super::{Refusal, Removal};
use crate::backend::{Admin, Backend, BackendId, BackendSet, Edit, MAX_MEMBERS, SetError, Spec};
use crate::discovery::{SourceError, Update};

/// The books of one feed.
#[derive(Debug)]
pub(super) struct Ledger<T> {
    removal: Removal,
    allow_empty: bool,
    same: fn(&T, &T) -> bool,
    said: BTreeMap<BackendId, Word<T>>,
    next_place: u64,
    owned: BTreeMap<BackendId, Owned<T>>,
    /// Words that came to nothing on their way into `said`.
    unheard: Vec<Refusal>,
    refused: Vec<Refusal>,
}

/// What the source said last of a member.
#[derive(Clone, Debug)]
struct Word<T> {
    spec: Spec<T>,
    /// Orders the members as they were named: who comes first is inserted first.
    place: u64,
}

/// A member that the feed has inserted.
#[derive(Clone, Debug)]
struct Owned<T> {
    backend: Arc<Backend<T>>,
    /// The source's word that the set follows. What the operator has changed since is not in it.
    spec: Spec<T>,
    leaving: Option<Leaving>,
    /// Somebody else has taken it out of the set.
    lost: bool,
}

#[derive(Clone, Copy, Debug)]
struct Leaving {
    /// What the operator wanted of it before it was drained.
    before: Admin,
    /// When its connections are left to themselves; `None` is never.
    until: Option<Instant>,
}

impl<T> Owned<T> {
    fn is_live(&self) -> bool {
        self.leaving.is_none() && !self.lost
    }

    fn has_left(&self, now: Instant) -> bool {
        let overdue = |leaving: Leaving| leaving.until.is_some_and(|until| until <= now);
        self.leaving.is_some_and(|leaving| self.backend.load().total() == 0 || overdue(leaving))
    }
}

impl<T: Clone> Ledger<T> {
    pub(super) fn new(removal: Removal, allow_empty: bool, same: fn(&T, &T) -> bool) -> Self {
        Self {
            removal,
            allow_empty,
            same,
            said: BTreeMap::new(),
            next_place: 0,
            owned: BTreeMap::new(),
            unheard: Vec::new(),
            refused: Vec::new(),
        }
    }

    /// Takes over a member of the set, if it is one, as if the source had named it as it is.
    pub(super) fn adopt(&mut self, set: &BackendSet<T>, id: &BackendId) {
        let snapshot = set.snapshot();
        let found = snapshot.iter().find(|(backend, _)| backend.id() == id);
        if let Some((backend, member)) = found {
            let spec = Spec::new(id.clone(), backend.target().clone())
                .weight(member.weight())
                .limits(member.limits())
                .tier(member.tier());
            let spec = match member.address() {
                Some(address) => spec.address(address),
                None => spec,
            };
            let backend = Arc::clone(backend);
            self.note(spec.clone());
            self.owned.insert(id.clone(), Owned { backend, spec, leaving: None, lost: false });
        }
    }

    /// Takes down what the source says; [`settle`](Self::settle) makes it so.
    pub(super) fn hear(&mut self, update: Update<T>) -> Result<(), SourceError> {
        match update {
            Update::All(specs) => {
                if specs.is_empty() && !self.allow_empty {
                    return Err(SourceError::Empty);
                }
                self.unheard.clear();
                self.said.clear();
                for spec in specs {
                    if self.said.contains_key(&spec.id) {
                        let error = Arc::new(SetError::Duplicate { id: spec.id.clone() });
                        self.unheard.push(Refusal { id: spec.id, error });
                    } else {
                        self.note(spec);
                    }
                }
            }
            Update::Insert(spec) => self.note(spec),
            Update::Remove(id) => {
                self.said.remove(&id);
                self.unheard.retain(|refusal| refusal.id != id);
            }
        }
        Ok(())
    }

    fn note(&mut self, spec: Spec<T>) {
        if let Some(word) = self.said.get_mut(&spec.id) {
            word.spec = spec;
            return;
        }
        if self.said.len() == MAX_MEMBERS {
            let error = Arc::new(SetError::Full { id: spec.id.clone() });
            // A source that goes on and on must not fill the memory with refusals either.
            if self.unheard.len() < MAX_MEMBERS {
                self.unheard.push(Refusal { id: spec.id, error });
            }
            return;
        }
        let place = self.next_place;
        self.next_place += 1;
        self.said.insert(spec.id.clone(), Word { spec, place });
    }

    /// Makes the set what the source says, in one publication or none.
    ///
    /// A member that the set refuses is left out and [noted](Self::refused). An error says that
    /// nothing was done: a scheduler cannot use the result, or every member is refused and the set
    /// would lose those it has.
    pub(super) fn settle(&mut self, set: &BackendSet<T>, now: Instant) -> Result<(), SetError> {
        let mut owned = self.owned.clone();
        let mut refused = Vec::new();
        set.edit(|edit| self.reconcile(&mut owned, &mut refused, edit, now))?;
        self.owned = owned;
        self.refused = refused;
        Ok(())
    }

    fn reconcile(
        &self,
        owned: &mut BTreeMap<BackendId, Owned<T>>,
        refused: &mut Vec<Refusal>,
        edit: &mut Edit<T>,
        now: Instant,
    ) -> Result<(), SetError> {
        let admins: HashMap<u64, Admin> =
            edit.backends().map(|(backend, admin)| (backend.account().serial(), admin)).collect();
        let admin_of = |one: &Owned<T>| admins.get(&one.backend.account().serial()).copied();

        let had_some = owned.values().any(|one| one.is_live() && admin_of(one).is_some());
        let all: Vec<BackendId> = owned.keys().cloned().collect();
        for id in all {
            let Some(mut one) = owned.remove(&id) else { continue };
            let stays = match (self.said.get(&id), admin_of(&one)) {
                (None, None) => false,
                (None, Some(admin)) => self.let_go(&mut one, admin, edit, now)?,
                (Some(word), None) => {
                    // Whoever took it out is obeyed until the source says something new of it.
                    one.lost = true;
                    one.leaving.is_none() && self.says_the_same(&one.spec, &word.spec)
                }
                (Some(word), Some(admin)) => {
                    take_back(&mut one, admin, edit)?;
                    self.follow(&mut one, &word.spec, refused, edit);
                    true
                }
            };
            if stays {
                owned.insert(id, one);
            }
        }

        let mut new: Vec<&Word<T>> =
            self.said.iter().filter(|(id, _)| !owned.contains_key(*id)).map(|(_, w)| w).collect();
        new.sort_unstable_by_key(|word| word.place);
        for word in new {
            let spec = word.spec.clone();
            match edit.insert(spec.clone()) {
                Ok(backend) => {
                    let id = spec.id.clone();
                    owned.insert(id, Owned { backend, spec, leaving: None, lost: false });
                }
                Err(error) => refused.push(Refusal { id: spec.id, error: Arc::new(error) }),
            }
        }

        let has_some = owned.values().any(Owned::is_live);
        if had_some && !has_some && !self.said.is_empty() && !refused.is_empty() {
            let Refusal { id, error } = refused.swap_remove(0);
            return Err(Arc::try_unwrap(error).unwrap_or(SetError::Unknown { id }));
        }
        Ok(())
    }

    /// Begins or ends the leaving of a member that the source no longer names; `true` if it is
    /// still there.
    fn let_go(
        &self,
        one: &mut Owned<T>,
        admin: Admin,
        edit: &mut Edit<T>,
        now: Instant,
    ) -> Result<bool, SetError> {
        let id = one.backend.id().clone();
        match (self.removal, one.leaving) {
            (Removal::Drain { deadline }, None) => {
                one.leaving = Some(Leaving { before: admin, until: now.checked_add(deadline) });
                // Disabled is stronger, and stays.
                if admin == Admin::Enabled {
                    edit.set_admin(&id, Admin::Draining)?;
                }
                Ok(true)
            }
            (Removal::Drain { .. }, Some(_)) if !one.has_left(now) => Ok(true),
            _ => edit.remove(&id).map(|_| false),
        }
    }

    /// Changes of a member what the source says otherwise than before, and nothing else.
    fn follow(
        &self,
        one: &mut Owned<T>,
        word: &Spec<T>,
        refused: &mut Vec<Refusal>,
        edit: &mut Edit<T>,
    ) {
        let id = one.backend.id().clone();
        let mut note = |changed: Result<(), SetError>| {
            let refusal = |error| Refusal { id: id.clone(), error: Arc::new(error) };
            changed.map_err(|error| refused.push(refusal(error))).is_ok()
        };
        if word.weight != one.spec.weight && note(edit.set_weight(&id, word.weight)) {
            one.spec.weight = word.weight;
        }
        if word.limits != one.spec.limits && note(edit.set_limits(&id, word.limits)) {
            one.spec.limits = word.limits;
        }
        if word.tier != one.spec.tier && note(edit.set_tier(&id, word.tier)) {
            one.spec.tier = word.tier;
        }
        let moved = word.address != one.spec.address;
        if moved || !(self.same)(&word.target, &one.spec.target) {
            let changed = edit.set_target(&id, word.target.clone(), word.address);
            if note(changed.map(|backend| one.backend = backend)) {
                one.spec.target = word.target.clone();
                one.spec.address = word.address;
            }
        }
    }

    fn says_the_same(&self, old: &Spec<T>, new: &Spec<T>) -> bool {
        let attributes = |spec: &Spec<T>| (spec.weight, spec.limits, spec.tier, spec.address);
        attributes(old) == attributes(new) && (self.same)(&old.target, &new.target)
    }

    /// Members that the source names and the set has from this feed.
    pub(super) fn live(&self) -> usize {
        self.owned.values().filter(|one| one.is_live()).count()
    }

    /// Members that are gone for the source and still have connections.
    pub(super) fn leaving(&self) -> usize {
        self.owned.values().filter(|one| one.leaving.is_some()).count()
    }

    /// Tells whether a member has no more connections, or no more time.
    pub(super) fn any_has_left(&self, now: Instant) -> bool {
        self.owned.values().any(|one| one.has_left(now))
    }

    /// What the set did not take.
    pub(super) fn refused(&self) -> impl Iterator<Item = &Refusal> {
        self.refused.iter().chain(&self.unheard)
    }
}

/// Ends the leaving of a member that the source names again.
fn take_back<T>(one: &mut Owned<T>, admin: Admin, edit: &mut Edit<T>) -> Result<(), SetError> {
    let Some(leaving) = one.leaving.take() else { return Ok(()) };
    // What the operator has said in the meantime stands.
    if admin == Admin::Draining {
        edit.set_admin(one.backend.id(), leaving.before)?;
    }
    Ok(())
}

impl Removal {
    /// Five minutes: what most connections are done in, and what AWS's balancers wait by default.
    pub(super) const DEFAULT: Self = Self::Drain { deadline: Duration::from_secs(300) };
}
