//! What the source said, what the feed has put into the set for it, and what follows for the set.
//! Pure: time is an argument.

use std::collections::{BTreeMap, HashMap};
use std::sync::Arc;
use std::time::{Duration, Instant};

use super::{MemberRefusal, RemovalPolicy};
use crate::backend::{
    Backend, BackendAdminState, BackendId, BackendSet, MAX_BACKENDS, SetEdit, SetError, Spec,
};
use crate::discovery::{DiscoveryError, MemberUpdate};

/// The books of one feed.
#[derive(Debug)]
pub(super) struct FeedReconciler<T> {
    removal: RemovalPolicy,
    allow_empty: bool,
    is_same_target: fn(&T, &T) -> bool,
    desired: BTreeMap<BackendId, DesiredMember<T>>,
    next_position: u64,
    owned: BTreeMap<BackendId, OwnedMember<T>>,
    /// Words that came to nothing on their way into `said`.
    refused_updates: Vec<MemberRefusal>,
    refused_by_set: Vec<MemberRefusal>,
}

/// What the source said last of a member.
#[derive(Clone, Debug)]
struct DesiredMember<T> {
    spec: Spec<T>,
    /// Orders the members as they were named: who comes first is inserted first.
    position: u64,
}

/// A member that the feed has inserted.
#[derive(Clone, Debug)]
struct OwnedMember<T> {
    backend: Arc<Backend<T>>,
    /// The source's word that the set follows. What the operator has changed since is not in it.
    spec: Spec<T>,
    drain: Option<MemberDrain>,
    /// Somebody else has taken it out of the set.
    removed_externally: bool,
}

#[derive(Clone, Copy, Debug)]
struct MemberDrain {
    /// What the operator wanted of it before it was drained.
    previous_admin: BackendAdminState,
    /// When its connections are left to themselves; `None` is never.
    deadline: Option<Instant>,
}

impl<T> OwnedMember<T> {
    fn is_live(&self) -> bool {
        self.drain.is_none() && !self.removed_externally
    }

    fn is_drained(&self, now: Instant) -> bool {
        let overdue = |leaving: MemberDrain| leaving.deadline.is_some_and(|until| until <= now);
        self.drain.is_some_and(|leaving| self.backend.load().total() == 0 || overdue(leaving))
    }
}

impl<T: Clone> FeedReconciler<T> {
    pub(super) fn new(removal: RemovalPolicy, allow_empty: bool, same: fn(&T, &T) -> bool) -> Self {
        Self {
            removal,
            allow_empty,
            is_same_target: same,
            desired: BTreeMap::new(),
            next_position: 0,
            owned: BTreeMap::new(),
            refused_updates: Vec::new(),
            refused_by_set: Vec::new(),
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
            self.set_desired(spec.clone());
            self.owned.insert(
                id.clone(),
                OwnedMember { backend, spec, drain: None, removed_externally: false },
            );
        }
    }

    /// Takes down what the source says; [`apply_to`](Self::apply_to) makes it so.
    pub(super) fn update_desired(&mut self, update: MemberUpdate<T>) -> Result<(), DiscoveryError> {
        match update {
            MemberUpdate::All(specs) => {
                if specs.is_empty() && !self.allow_empty {
                    return Err(DiscoveryError::Empty);
                }
                self.refused_updates.clear();
                self.desired.clear();
                for spec in specs {
                    if self.desired.contains_key(&spec.id) {
                        let error = Arc::new(SetError::DuplicateBackend { id: spec.id.clone() });
                        self.refused_updates.push(MemberRefusal { id: spec.id, error });
                    } else {
                        self.set_desired(spec);
                    }
                }
            }
            MemberUpdate::Insert(spec) => self.set_desired(spec),
            MemberUpdate::Remove(id) => {
                self.desired.remove(&id);
                self.refused_updates.retain(|refusal| refusal.id != id);
            }
        }
        Ok(())
    }

    fn set_desired(&mut self, spec: Spec<T>) {
        if let Some(word) = self.desired.get_mut(&spec.id) {
            word.spec = spec;
            return;
        }
        if self.desired.len() == MAX_BACKENDS {
            let error = Arc::new(SetError::Full { id: spec.id.clone() });
            // A source that goes on and on must not fill the memory with refusals either.
            if self.refused_updates.len() < MAX_BACKENDS {
                self.refused_updates.push(MemberRefusal { id: spec.id, error });
            }
            return;
        }
        let place = self.next_position;
        self.next_position += 1;
        self.desired.insert(spec.id.clone(), DesiredMember { spec, position: place });
    }

    /// Makes the set what the source says, in one publication or none.
    ///
    /// A member that the set refuses is left out and [noted](Self::refusals). An error says that
    /// nothing was done: a scheduler cannot use the result, or every member is refused and the set
    /// would lose those it has.
    pub(super) fn apply_to(&mut self, set: &BackendSet<T>, now: Instant) -> Result<(), SetError> {
        let mut owned = self.owned.clone();
        let mut refused = Vec::new();
        set.edit(|edit| self.reconcile(&mut owned, &mut refused, edit, now))?;
        self.owned = owned;
        self.refused_by_set = refused;
        Ok(())
    }

    fn reconcile(
        &self,
        owned: &mut BTreeMap<BackendId, OwnedMember<T>>,
        refused: &mut Vec<MemberRefusal>,
        edit: &mut SetEdit<T>,
        now: Instant,
    ) -> Result<(), SetError> {
        let admins: HashMap<u64, BackendAdminState> =
            edit.backends().map(|(backend, admin)| (backend.account().serial(), admin)).collect();
        let admin_of = |one: &OwnedMember<T>| admins.get(&one.backend.account().serial()).copied();

        let had_some = owned.values().any(|one| one.is_live() && admin_of(one).is_some());
        let all: Vec<BackendId> = owned.keys().cloned().collect();
        for id in all {
            let Some(mut one) = owned.remove(&id) else { continue };
            let stays = match (self.desired.get(&id), admin_of(&one)) {
                (None, None) => false,
                (None, Some(admin)) => self.drain_or_remove(&mut one, admin, edit, now)?,
                (Some(word), None) => {
                    // Whoever took it out is obeyed until the source says something new of it.
                    one.removed_externally = true;
                    one.drain.is_none() && self.is_same_spec(&one.spec, &word.spec)
                }
                (Some(word), Some(admin)) => {
                    cancel_drain(&mut one, admin, edit)?;
                    self.update_member(&mut one, &word.spec, refused, edit);
                    true
                }
            };
            if stays {
                owned.insert(id, one);
            }
        }

        let mut new: Vec<&DesiredMember<T>> = self
            .desired
            .iter()
            .filter(|(id, _)| !owned.contains_key(*id))
            .map(|(_, w)| w)
            .collect();
        new.sort_unstable_by_key(|word| word.position);
        for word in new {
            let spec = word.spec.clone();
            match edit.insert(spec.clone()) {
                Ok(backend) => {
                    let id = spec.id.clone();
                    owned.insert(
                        id,
                        OwnedMember { backend, spec, drain: None, removed_externally: false },
                    );
                }
                Err(error) => refused.push(MemberRefusal { id: spec.id, error: Arc::new(error) }),
            }
        }

        let has_some = owned.values().any(OwnedMember::is_live);
        if had_some && !has_some && !self.desired.is_empty() && !refused.is_empty() {
            let MemberRefusal { id, error } = refused.swap_remove(0);
            return Err(Arc::try_unwrap(error).unwrap_or(SetError::UnknownBackend { id }));
        }
        Ok(())
    }

    /// Begins or ends the leaving of a member that the source no longer names; `true` if it is
    /// still there.
    fn drain_or_remove(
        &self,
        one: &mut OwnedMember<T>,
        admin: BackendAdminState,
        edit: &mut SetEdit<T>,
        now: Instant,
    ) -> Result<bool, SetError> {
        let id = one.backend.id().clone();
        match (self.removal, one.drain) {
            (RemovalPolicy::Drain { deadline }, None) => {
                one.drain = Some(MemberDrain {
                    previous_admin: admin,
                    deadline: now.checked_add(deadline),
                });
                // Disabled is stronger, and stays.
                if admin == BackendAdminState::Enabled {
                    edit.set_admin(&id, BackendAdminState::Draining)?;
                }
                Ok(true)
            }
            (RemovalPolicy::Drain { .. }, Some(_)) if !one.is_drained(now) => Ok(true),
            _ => edit.remove(&id).map(|_| false),
        }
    }

    /// Changes of a member what the source says otherwise than before, and nothing else.
    fn update_member(
        &self,
        one: &mut OwnedMember<T>,
        word: &Spec<T>,
        refused: &mut Vec<MemberRefusal>,
        edit: &mut SetEdit<T>,
    ) {
        let id = one.backend.id().clone();
        let mut note = |changed: Result<(), SetError>| {
            let refusal = |error| MemberRefusal { id: id.clone(), error: Arc::new(error) };
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
        if moved || !(self.is_same_target)(&word.target, &one.spec.target) {
            let changed = edit.set_target(&id, word.target.clone(), word.address);
            if note(changed.map(|backend| one.backend = backend)) {
                one.spec.target = word.target.clone();
                one.spec.address = word.address;
            }
        }
    }

    fn is_same_spec(&self, old: &Spec<T>, new: &Spec<T>) -> bool {
        let attributes = |spec: &Spec<T>| (spec.weight, spec.limits, spec.tier, spec.address);
        attributes(old) == attributes(new) && (self.is_same_target)(&old.target, &new.target)
    }

    /// Members that the source names and the set has from this feed.
    pub(super) fn live_count(&self) -> usize {
        self.owned.values().filter(|one| one.is_live()).count()
    }

    /// Members that are gone for the source and still have connections.
    pub(super) fn draining_count(&self) -> usize {
        self.owned.values().filter(|one| one.drain.is_some()).count()
    }

    /// Tells whether a member has no more connections, or no more time.
    pub(super) fn has_drained_member(&self, now: Instant) -> bool {
        self.owned.values().any(|one| one.is_drained(now))
    }

    /// What the set did not take.
    pub(super) fn refusals(&self) -> impl Iterator<Item = &MemberRefusal> {
        self.refused_by_set.iter().chain(&self.refused_updates)
    }
}

/// Ends the leaving of a member that the source names again.
fn cancel_drain<T>(
    one: &mut OwnedMember<T>,
    admin: BackendAdminState,
    edit: &mut SetEdit<T>,
) -> Result<(), SetError> {
    let Some(leaving) = one.drain.take() else { return Ok(()) };
    // What the operator has said in the meantime stands.
    if admin == BackendAdminState::Draining {
        edit.set_admin(one.backend.id(), leaving.previous_admin)?;
    }
    Ok(())
}

impl RemovalPolicy {
    /// Five minutes: what most connections are done in, and what AWS's balancers wait by default.
    pub(super) const DEFAULT: Self = Self::Drain { deadline: Duration::from_secs(300) };
}
