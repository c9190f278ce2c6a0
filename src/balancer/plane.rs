//! The published plane: a snapshot and the picker compiled from it, swapped as one.

use std::sync::Arc;

use super::{Lease, PickError};
use crate::backend::{BackendState, Members, SetError, Snapshot, SnapshotCommit, SnapshotReader};
use crate::scheduler::{CompileError, Flow, PickContext, Picker, Rng, Scheduler};
use crate::sync::{ArcSwap, AtomicBool, AtomicU64, Mutex, Ordering, lock};

/// One version of everything a pick reads.
#[derive(Debug)]
pub(super) struct PickPlane<T> {
    snapshot: Arc<Snapshot<T>>,
    picker: Box<dyn Picker>,
}

/// The place where planes are published; one for each balancer.
#[derive(Debug)]
pub(super) struct PublishedPlane<T> {
    scheduler: Mutex<Arc<dyn Scheduler>>,
    /// What the scheduler says of it, for those who ask at each pick.
    #[cfg_attr(not(feature = "tower"), allow(dead_code, reason = "they are above"))]
    reads_time: AtomicBool,
    plane: ArcSwap<PickPlane<T>>,
    /// Steps behind each publication, for readers that keep a plane.
    version: AtomicU64,
}

/// How often a pick is repeated when other threads take the last free place first.
const MAX_PICK_ATTEMPTS: usize = 64;

/// How often a pick is repeated when a place came free just behind the rule's look.
const MAX_REFUSAL_RETRIES: usize = 3;

impl<T> PublishedPlane<T> {
    pub(super) fn new(
        scheduler: Arc<dyn Scheduler>,
        snapshot: &Arc<Snapshot<T>>,
    ) -> Result<Self, SetError> {
        let picker = compile_picker(&*scheduler, snapshot, None)?;
        let plane = ArcSwap::from_pointee(PickPlane { snapshot: Arc::clone(snapshot), picker });
        let reads_time = AtomicBool::new(scheduler.reads_time());
        let scheduler = Mutex::new(scheduler);
        Ok(Self { scheduler, reads_time, plane, version: AtomicU64::new(0) })
    }

    pub(super) fn scheduler(&self) -> Arc<dyn Scheduler> {
        Arc::clone(&lock(&self.scheduler))
    }

    /// Changes the rule. The caller keeps writers of the set out.
    pub(super) fn set_scheduler(&self, scheduler: Arc<dyn Scheduler>) -> Result<(), SetError> {
        let snapshot = self.snapshot();
        // As in IPVS, a new rule starts without the old one's memory.
        let picker = compile_picker(&*scheduler, &snapshot, None)?;
        // Relaxed: a pick that is a moment late is as good.
        self.reads_time.store(scheduler.reads_time(), Ordering::Relaxed);
        *lock(&self.scheduler) = scheduler;
        self.publish(Arc::new(PickPlane { snapshot, picker }));
        Ok(())
    }

    #[cfg(feature = "tower")]
    #[inline]
    pub(super) fn reads_time(&self) -> bool {
        self.reads_time.load(Ordering::Relaxed)
    }

    fn publish(&self, plane: Arc<PickPlane<T>>) {
        self.plane.store(plane);
        // Release: whoever sees the new version finds the new plane. Pairs with `version`.
        self.version.fetch_add(1, Ordering::Release);
    }

    /// Changes whenever [`PublishedPlane::plane`] does, or a moment later.
    #[inline]
    pub(super) fn version(&self) -> u64 {
        self.version.load(Ordering::Acquire)
    }

    pub(super) fn plane(&self) -> Arc<PickPlane<T>> {
        self.plane.load_full()
    }

    pub(super) fn snapshot(&self) -> Arc<Snapshot<T>> {
        Arc::clone(&self.plane.load().snapshot)
    }

    #[inline]
    pub(super) fn pick(&self, flow: &Flow, rng: &mut Rng) -> Result<Lease<T>, PickError> {
        self.plane.load().pick(flow, rng, 0)
    }

    #[cfg(feature = "tower")]
    #[inline]
    pub(super) fn pick_on_lane(
        &self,
        lane: u8,
        flow: &Flow,
        rng: &mut Rng,
    ) -> Result<Lease<T>, PickError> {
        self.plane.load().pick(flow, rng, lane)
    }

    /// Leases one particular backend, if it stands in the plane.
    pub(super) fn lease_if(
        &self,
        serial: u64,
        acceptable: impl FnOnce(BackendState) -> bool,
    ) -> Option<Lease<T>> {
        let plane = self.plane.load();
        let position = plane.snapshot.members().position_of_serial(serial)?;
        if !acceptable(plane.snapshot.members()[position].state()) {
            return None;
        }
        let seat = plane.snapshot.lease_handle(0, position)?;
        seat.account().bind(0, true).map(|lane| Lease::new(Arc::clone(seat), lane))
    }
}

impl<T> PickPlane<T> {
    pub(super) fn snapshot(&self) -> &Arc<Snapshot<T>> {
        &self.snapshot
    }

    /// Chooses and counts. Here is the usual case alone; what else there may be is out of the way, for
    /// it needs more of the stack, and all that is written there must reach memory before a count can
    /// change.
    #[inline]
    pub(super) fn pick(&self, flow: &Flow, rng: &mut Rng, lane: u8) -> Result<Lease<T>, PickError> {
        let members = self.snapshot.members();
        if members.share_sum() == 0 {
            let why = explain_no_shares(members);
            // A rule may serve from members that are down, rather than not at all.
            if why != PickError::AllDown {
                return Err(why);
            }
        }
        let chosen = self.choose(flow, rng, lane);
        match chosen.and_then(|position| self.try_lease(position, lane)) {
            Some(lease) => Ok(lease),
            None => self.retry_pick(chosen, flow, rng, lane),
        }
    }

    /// Asks the rule.
    #[inline]
    fn choose(&self, flow: &Flow, rng: &mut Rng, lane: u8) -> Option<usize> {
        let members = self.snapshot.members();
        let chosen = self.picker.pick(&mut PickContext::new(members, flow, rng).with_lane(lane));
        chosen.filter(|&position| position < members.len())
    }

    /// Counts, unless a limit was reached since the rule looked.
    #[inline]
    fn try_lease(&self, position: usize, lane: u8) -> Option<Lease<T>> {
        let account = self.snapshot.account(position)?;
        let seat = self.snapshot.lease_handle(lane, position)?;
        account.bind(lane, false).map(|counted| Lease::new(Arc::clone(seat), counted))
    }

    /// Behind a choice that was not to be had, or none.
    #[cold]
    #[inline(never)]
    fn retry_pick(
        &self,
        mut chosen: Option<usize>,
        flow: &Flow,
        rng: &mut Rng,
        lane: u8,
    ) -> Result<Lease<T>, PickError> {
        let members = self.snapshot.members();
        let mut repeated = 0;
        loop {
            let (why, repeats) = match chosen {
                Some(_) => (PickError::AllAtLimit, MAX_PICK_ATTEMPTS - 1),
                None => match explain_refusal(members, flow) {
                    // The rule may have found everybody full a moment ago, which is no refusal.
                    why @ PickError::SchedulerRefused if members.has_limits() => {
                        (why, MAX_REFUSAL_RETRIES)
                    }
                    why => (why, 0),
                },
            };
            if repeated >= repeats {
                return Err(why);
            }
            repeated += 1;
            chosen = self.choose(flow, rng, lane);
            if let Some(lease) = chosen.and_then(|position| self.try_lease(position, lane)) {
                return Ok(lease);
            }
        }
    }
}

impl<T: Send + Sync> SnapshotReader<T> for PublishedPlane<T> {
    fn prepare(&self, next: &Arc<Snapshot<T>>) -> Result<SnapshotCommit<'_>, SetError> {
        let current = self.plane();
        let picker = compile_picker(&*self.scheduler(), next, Some(&*current.picker))?;
        let plane = Arc::new(PickPlane { snapshot: Arc::clone(next), picker });
        Ok(Box::new(move || self.publish(plane)))
    }
}

fn compile_picker<T>(
    scheduler: &dyn Scheduler,
    snapshot: &Snapshot<T>,
    previous: Option<&dyn Picker>,
) -> Result<Box<dyn Picker>, SetError> {
    scheduler.compile(snapshot.members(), previous).map_err(|source: CompileError| {
        SetError::Scheduler { scheduler: scheduler.name().to_owned(), source: Box::new(source) }
    })
}

/// Says why no member has a share.
#[cold]
fn explain_no_shares(members: &Members) -> PickError {
    if members.is_empty() {
        return PickError::NoBackends;
    }
    if members.iter().any(|m| m.state() == BackendState::Withheld) {
        return PickError::NoQuorum;
    }
    let down = members.iter().any(|m| m.state().is_unhealthy() && m.weight() != 0);
    if down { PickError::AllDown } else { PickError::AllQuiesced }
}

/// Says why a rule that was asked found nobody.
#[cold]
fn explain_refusal(members: &Members, flow: &Flow) -> PickError {
    if members.share_sum() == 0 {
        return explain_no_shares(members);
    }
    let mut eligible = members.iter().filter(|m| m.share() != 0).peekable();
    if eligible.peek().is_some() && eligible.clone().all(|m| flow.view().has_tried(m.serial())) {
        return PickError::AllTried;
    }
    if eligible.all(|m| m.is_overloaded() || flow.view().has_tried(m.serial())) {
        return PickError::AllAtLimit;
    }
    PickError::SchedulerRefused
}
