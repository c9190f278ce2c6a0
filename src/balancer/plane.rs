//! The published plane: a snapshot and the picker compiled from it, swapped as one.

#[cfg(feature = "packet")]
use std::net::SocketAddr;
use std::sync::Arc;

use super::{Lease, PickError};
use crate::backend::{BackendState, Members, SetError, Snapshot, SnapshotCommit, SnapshotReader};
#[cfg(feature = "packet")]
use crate::scheduler::LookupTable;
use crate::scheduler::{CompileError, Flow, PickContext, Picker, Rng, Scheduler};
use crate::sync::{ArcSwap, AtomicBool, AtomicU64, Mutex, Ordering, lock};

/// One version of everything that a pick reads.
#[derive(Debug)]
pub(super) struct PickPlane<T> {
    snapshot: Arc<Snapshot<T>>,
    picker: Box<dyn Picker>,
}

/// The current plane of a balancer, and its scheduler.
#[derive(Debug)]
pub(super) struct PublishedPlane<T> {
    scheduler: Mutex<Arc<dyn Scheduler>>,
    /// [`Scheduler::reads_time`], for callers that ask at each pick.
    #[cfg_attr(not(feature = "tower"), allow(dead_code, reason = "the tower part reads it"))]
    reads_time: AtomicBool,
    plane: ArcSwap<PickPlane<T>>,
    /// Incremented after each publication, for readers that keep a plane.
    version: AtomicU64,
}

/// The attempts of a pick while other threads take the last free connection first.
const MAX_PICK_ATTEMPTS: usize = 64;

/// The repetitions of a pick that the scheduler refused while a connection may have become free.
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

    /// Replaces the scheduler. The caller holds the writers' lock of the set.
    pub(super) fn set_scheduler(&self, scheduler: Arc<dyn Scheduler>) -> Result<(), SetError> {
        let snapshot = self.snapshot();
        // As in IPVS, a new scheduler starts without the old one's state.
        let picker = compile_picker(&*scheduler, &snapshot, None)?;
        // Relaxed: a pick may see this a moment late.
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
        // Release: a reader of the new version finds the new plane. Pairs with `version`.
        self.version.fetch_add(1, Ordering::Release);
    }

    /// Returns a number that changes with [`PublishedPlane::plane`], or a moment later.
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

    /// Returns the picker's table for flows to a destination, if it has one, with the list that it is of.
    #[cfg(feature = "packet")]
    pub(super) fn lookup_table(
        &self,
        destination: SocketAddr,
    ) -> (Arc<Snapshot<T>>, Option<LookupTable>) {
        let plane = self.plane();
        let members = plane.snapshot.members();
        // A limit is not kept by a table.
        let table = (!members.has_limits())
            .then(|| plane.picker.lookup_table(members, destination))
            .flatten();
        (Arc::clone(&plane.snapshot), table)
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

    /// Leases the backend with this serial, if the plane has it and its state is acceptable.
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
        let handle = plane.snapshot.lease_handle(0, position)?;
        handle.account().bind(0, true).map(|lane| Lease::new(Arc::clone(handle), lane))
    }
}

impl<T> PickPlane<T> {
    pub(super) fn snapshot(&self) -> &Arc<Snapshot<T>> {
        &self.snapshot
    }

    /// Chooses a backend and counts the connection.
    ///
    /// Only the usual case is here. The rest is out of line, because it needs more of the stack, and
    /// every write to the stack must reach memory before an atomic count can change.
    #[inline]
    pub(super) fn pick(&self, flow: &Flow, rng: &mut Rng, lane: u8) -> Result<Lease<T>, PickError> {
        let members = self.snapshot.members();
        if members.share_sum() == 0 {
            let error = explain_no_shares(members);
            // A scheduler may serve from members that are down.
            if error != PickError::AllDown {
                return Err(error);
            }
        }
        let chosen = self.choose(flow, rng, lane);
        match chosen.and_then(|position| self.try_lease(position, lane)) {
            Some(lease) => Ok(lease),
            None => self.retry_pick(chosen, flow, rng, lane),
        }
    }

    /// Asks the scheduler.
    #[inline]
    fn choose(&self, flow: &Flow, rng: &mut Rng, lane: u8) -> Option<usize> {
        let members = self.snapshot.members();
        let chosen = self.picker.pick(&mut PickContext::new(members, flow, rng).with_lane(lane));
        chosen.filter(|&position| position < members.len())
    }

    /// Counts the connection, unless the backend reached its limit since the scheduler chose it.
    #[inline]
    fn try_lease(&self, position: usize, lane: u8) -> Option<Lease<T>> {
        let account = self.snapshot.account(position)?;
        let handle = self.snapshot.lease_handle(lane, position)?;
        account.bind(lane, false).map(|counted| Lease::new(Arc::clone(handle), counted))
    }

    /// Repeats a pick whose backend was at its limit, or that chose none.
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
            let (error, max_repeats) = match chosen {
                Some(_) => (PickError::AllAtLimit, MAX_PICK_ATTEMPTS - 1),
                None => match explain_refusal(members, flow) {
                    // All backends may have been at their limits a moment ago, which is no refusal.
                    error @ PickError::SchedulerRefused if members.has_limits() => {
                        (error, MAX_REFUSAL_RETRIES)
                    }
                    error => (error, 0),
                },
            };
            if repeated >= max_repeats {
                return Err(error);
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

/// Returns the reason why no member has a share.
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

/// Returns the reason why the scheduler chose no member.
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
