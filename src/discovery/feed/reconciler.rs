//! Reconciles the members of a set with the members that the source lists. Pure: time is an
//! argument.

use std::collections::{BTreeMap, HashMap};
use std::fmt;
use std::sync::Arc;
use std::time::Instant;

use super::removal::RemovalPolicy;
use super::status::MemberRefusal;
use crate::backend::{
    Backend, BackendAdminState, BackendId, BackendSet, MAX_BACKENDS, SetEdit, SetError, Spec,
};
use crate::discovery::{DiscoveryError, MemberUpdate};

/// The members that the source lists, with targets `A`, and the members that the feed has inserted, with
/// targets `T` that it makes of them.
pub(super) struct FeedReconciler<A, T> {
    removal: RemovalPolicy,
    allow_empty: bool,
    is_same_target: fn(&A, &A) -> bool,
    make_target: TargetMaker<A, T>,
    desired: BTreeMap<BackendId, DesiredMember<A>>,
    next_position: u64,
    owned: BTreeMap<BackendId, OwnedMember<A, T>>,
    /// Updates that could not be recorded in `desired`.
    refused_updates: Vec<MemberRefusal>,
    refused_by_set: Vec<MemberRefusal>,
}

/// Makes the target of a member of what the source names.
pub(super) type TargetMaker<A, T> = Box<dyn Fn(&A) -> T + Send + Sync>;

/// The last report of the source about a member.
#[derive(Clone, Debug)]
struct DesiredMember<A> {
    spec: Spec<A>,
    /// The position in the order of the reports, in which members are inserted.
    position: u64,
}

/// A member that the feed has inserted.
#[derive(Debug)]
struct OwnedMember<A, T> {
    backend: Arc<Backend<T>>,
    /// The report that was applied to the set. Later changes of an operator are not in it.
    spec: Spec<A>,
    drain: Option<MemberDrain>,
    /// Whether something other than the feed has removed the member from the set.
    removed_externally: bool,
}

#[derive(Clone, Copy, Debug)]
struct MemberDrain {
    /// The administrative state before the drain.
    previous_admin: BackendAdminState,
    /// The time when the member is removed with connections; `None` is never.
    deadline: Option<Instant>,
}

/// Derived, this would ask for a target that can be cloned.
impl<A: Clone, T> Clone for OwnedMember<A, T> {
    fn clone(&self) -> Self {
        Self { backend: Arc::clone(&self.backend), spec: self.spec.clone(), ..*self }
    }
}

impl<A, T> OwnedMember<A, T> {
    fn is_live(&self) -> bool {
        self.drain.is_none() && !self.removed_externally
    }

    fn is_drained(&self, now: Instant) -> bool {
        let overdue = |drain: MemberDrain| drain.deadline.is_some_and(|deadline| deadline <= now);
        self.drain.is_some_and(|drain| self.backend.load().total() == 0 || overdue(drain))
    }
}

impl<T: Clone> FeedReconciler<T, T> {
    /// Takes over a member of the set, if there is one of that name, as if the source had listed
    /// the member with its present attributes.
    pub(super) fn adopt(&mut self, set: &BackendSet<T>, id: &BackendId) {
        let snapshot = set.snapshot();
        let found = snapshot.iter().find(|(backend, _)| backend.id() == id);
        if let Some((backend, member)) = found {
            let spec = Spec::new(id.clone(), backend.target().clone())
                .weight(member.weight())
                .limits(member.limits())
                .tier(member.tier());
            let spec = Spec { zone: member.zone(), ..spec };
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
}

impl<A: Clone, T> FeedReconciler<A, T> {
    pub(super) fn new(
        removal: RemovalPolicy,
        allow_empty: bool,
        is_same_target: fn(&A, &A) -> bool,
        make_target: TargetMaker<A, T>,
    ) -> Self {
        Self {
            removal,
            allow_empty,
            is_same_target,
            make_target,
            desired: BTreeMap::new(),
            next_position: 0,
            owned: BTreeMap::new(),
            refused_updates: Vec::new(),
            refused_by_set: Vec::new(),
        }
    }

    /// Records an update of the source; [`apply_to`](Self::apply_to) applies it to the set.
    pub(super) fn update_desired(&mut self, update: MemberUpdate<A>) -> Result<(), DiscoveryError> {
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

    fn set_desired(&mut self, spec: Spec<A>) {
        if let Some(member) = self.desired.get_mut(&spec.id) {
            member.spec = spec;
            return;
        }
        if self.desired.len() == MAX_BACKENDS {
            let error = Arc::new(SetError::Full { id: spec.id.clone() });
            // The refusals of a source that never stops must not fill the memory either.
            if self.refused_updates.len() < MAX_BACKENDS {
                self.refused_updates.push(MemberRefusal { id: spec.id, error });
            }
            return;
        }
        let position = self.next_position;
        self.next_position += 1;
        self.desired.insert(spec.id.clone(), DesiredMember { spec, position });
    }

    /// Applies the recorded updates to the set, in one publication or none.
    ///
    /// A member that the set refuses is left out and [recorded](Self::refusals).
    ///
    /// # Errors
    /// The set is unchanged: a scheduler cannot use the result, or the set refuses every member and
    /// would lose the members that it has.
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
        owned: &mut BTreeMap<BackendId, OwnedMember<A, T>>,
        refused: &mut Vec<MemberRefusal>,
        edit: &mut SetEdit<T>,
        now: Instant,
    ) -> Result<(), SetError> {
        let admins: HashMap<u64, BackendAdminState> =
            edit.backends().map(|(backend, admin)| (backend.account().serial(), admin)).collect();
        let admin_of =
            |member: &OwnedMember<A, T>| admins.get(&member.backend.account().serial()).copied();

        let had_live = owned.values().any(|member| member.is_live() && admin_of(member).is_some());
        let ids: Vec<BackendId> = owned.keys().cloned().collect();
        for id in ids {
            let Some(mut member) = owned.remove(&id) else { continue };
            let stays = match (self.desired.get(&id), admin_of(&member)) {
                (None, None) => false,
                (None, Some(admin)) => self.drain_or_remove(&mut member, admin, edit, now)?,
                (Some(desired), None) => {
                    // An operator's removal holds until the source reports new attributes.
                    member.removed_externally = true;
                    member.drain.is_none() && self.is_same_spec(&member.spec, &desired.spec)
                }
                (Some(desired), Some(admin)) => {
                    cancel_drain(&mut member, admin, edit)?;
                    self.update_member(&mut member, &desired.spec, refused, edit);
                    true
                }
            };
            if stays {
                owned.insert(id, member);
            }
        }

        let mut new: Vec<&DesiredMember<A>> = self
            .desired
            .iter()
            .filter(|(id, _)| !owned.contains_key(*id))
            .map(|(_, member)| member)
            .collect();
        new.sort_unstable_by_key(|member| member.position);
        for member in new {
            let spec = member.spec.clone();
            match edit.insert(spec.clone().map(|target| (self.make_target)(&target))) {
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

        let has_live = owned.values().any(OwnedMember::is_live);
        if had_live && !has_live && !self.desired.is_empty() && !refused.is_empty() {
            let MemberRefusal { id, error } = refused.swap_remove(0);
            return Err(Arc::try_unwrap(error).unwrap_or(SetError::UnknownBackend { id }));
        }
        Ok(())
    }

    /// Starts the drain of a member that the source no longer lists, or removes the member; returns
    /// whether the set still has the member.
    fn drain_or_remove(
        &self,
        member: &mut OwnedMember<A, T>,
        admin: BackendAdminState,
        edit: &mut SetEdit<T>,
        now: Instant,
    ) -> Result<bool, SetError> {
        let id = member.backend.id().clone();
        match (self.removal, member.drain) {
            (RemovalPolicy::Drain { deadline }, None) => {
                member.drain = Some(MemberDrain {
                    previous_admin: admin,
                    deadline: now.checked_add(deadline),
                });
                // A disabled member gets no connections either, and stays disabled.
                if admin == BackendAdminState::Enabled {
                    edit.set_admin(&id, BackendAdminState::Draining)?;
                }
                Ok(true)
            }
            (RemovalPolicy::Drain { .. }, Some(_)) if !member.is_drained(now) => Ok(true),
            _ => edit.remove(&id).map(|_| false),
        }
    }

    /// Applies the attributes that the source reports differently than before.
    fn update_member(
        &self,
        member: &mut OwnedMember<A, T>,
        desired: &Spec<A>,
        refused: &mut Vec<MemberRefusal>,
        edit: &mut SetEdit<T>,
    ) {
        let id = member.backend.id().clone();
        let mut is_applied = |changed: Result<(), SetError>| {
            let refusal = |error| MemberRefusal { id: id.clone(), error: Arc::new(error) };
            changed.map_err(|error| refused.push(refusal(error))).is_ok()
        };
        if desired.weight != member.spec.weight && is_applied(edit.set_weight(&id, desired.weight))
        {
            member.spec.weight = desired.weight;
        }
        if desired.limits != member.spec.limits && is_applied(edit.set_limits(&id, desired.limits))
        {
            member.spec.limits = desired.limits;
        }
        if desired.tier != member.spec.tier && is_applied(edit.set_tier(&id, desired.tier)) {
            member.spec.tier = desired.tier;
        }
        if desired.zone != member.spec.zone && is_applied(edit.set_zone(&id, desired.zone)) {
            member.spec.zone = desired.zone;
        }
        let moved = desired.address != member.spec.address;
        if moved || !(self.is_same_target)(&desired.target, &member.spec.target) {
            let target = (self.make_target)(&desired.target);
            let changed = edit.set_target(&id, target, desired.address);
            if is_applied(changed.map(|backend| member.backend = backend)) {
                member.spec.target = desired.target.clone();
                member.spec.address = desired.address;
            }
        }
    }

    fn is_same_spec(&self, old: &Spec<A>, new: &Spec<A>) -> bool {
        let attributes =
            |spec: &Spec<A>| (spec.weight, spec.limits, spec.tier, spec.zone, spec.address);
        attributes(old) == attributes(new) && (self.is_same_target)(&old.target, &new.target)
    }

    /// Returns the number of members in the set that the source lists.
    pub(super) fn live_count(&self) -> usize {
        self.owned.values().filter(|member| member.is_live()).count()
    }

    /// Returns the number of members that the source no longer lists and that drain.
    pub(super) fn draining_count(&self) -> usize {
        self.owned.values().filter(|member| member.drain.is_some()).count()
    }

    /// Returns whether the drain of a member is over: no connections are left, or no time.
    pub(super) fn has_drained_member(&self, now: Instant) -> bool {
        self.owned.values().any(|member| member.is_drained(now))
    }

    /// Returns the members and changes that the set refuses.
    pub(super) fn refusals(&self) -> impl Iterator<Item = &MemberRefusal> {
        self.refused_by_set.iter().chain(&self.refused_updates)
    }
}

impl<A, T> fmt::Debug for FeedReconciler<A, T> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("FeedReconciler")
            .field("removal", &self.removal)
            .field("desired", &self.desired.keys())
            .field("owned", &self.owned.keys())
            .finish_non_exhaustive()
    }
}

/// Ends the drain of a member that the source lists again.
fn cancel_drain<A, T>(
    member: &mut OwnedMember<A, T>,
    admin: BackendAdminState,
    edit: &mut SetEdit<T>,
) -> Result<(), SetError> {
    let Some(drain) = member.drain.take() else { return Ok(()) };
    // A state that an operator has set during the drain stays.
    if admin == BackendAdminState::Draining {
        edit.set_admin(member.backend.id(), drain.previous_admin)?;
    }
    Ok(())
}
