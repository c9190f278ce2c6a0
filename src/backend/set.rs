//! A set of backends: its writer's side.

use std::fmt;
use std::net::SocketAddr;
use std::ops::{Deref, DerefMut};
use std::sync::{Arc, Weak};
use std::time::Instant;

use super::account::SetContext;
use super::set_state::SetState;
use super::subscription::{SetSubscription, SubscriptionSlot};
use super::writing_thread::{WritingThread, WritingThreadMark};
use super::{
    Backend, BackendAdminState, BackendId, BackendStatus, FailMode, Health, InitialHealthRule,
    Limits, Quorum, SetEdit, SetError, SlowStart, Snapshot, Spec,
};
use crate::sync::{Mutex, MutexGuard, lock};

/// Holds the backends of one virtual service, and publishes every change of them.
///
/// A cheap handle: clones write to the same set. A method of the set makes one change and publishes it;
/// [`edit`](Self::edit) makes several and publishes them once. Writers exclude each other. Readers, which are the
/// [`Balancer`](crate::Balancer)s of the set, never wait and never see half a change. A publication
/// takes time in proportion to the set, plus the time in which the schedulers build their tables, on
/// the writer's thread.
///
/// # Examples
/// ```
/// use std::net::SocketAddr;
/// use lvs::{BackendId, BackendSet, SetError, Spec};
///
/// let set = BackendSet::<SocketAddr>::new();
/// set.insert(SocketAddr::from(([10, 0, 0, 1], 80)))?;
/// set.insert(Spec::new("spare", SocketAddr::from(([10, 0, 0, 2], 80))).weight(0))?;
///
/// // Several changes as one publication:
/// let spare = BackendId::from("spare");
/// set.edit(|edit| {
///     edit.set_weight(&spare, 2)?;
///     edit.remove(&BackendId::from("10.0.0.1:80"))
/// })?;
/// assert_eq!(set.snapshot().members().len(), 1);
/// assert!(matches!(set.remove(&"gone".into()), Err(SetError::UnknownBackend { .. })));
/// # Ok::<(), SetError>(())
/// ```
pub struct BackendSet<T> {
    inner: Arc<SetInner<T>>,
}

struct SetInner<T> {
    context: Arc<SetContext>,
    writer: Mutex<SetWriter<T>>,
    writing_thread: WritingThread,
}

struct SetWriter<T> {
    state: SetState<T>,
    current_snapshot: Arc<Snapshot<T>>,
    readers: Vec<Weak<dyn SnapshotReader<T>>>,
    subscriptions: Vec<Weak<SubscriptionSlot<T>>>,
}

/// A reader to which a set publishes.
///
/// A publication has two steps, so that a change that one reader cannot use reaches no reader.
pub(crate) trait SnapshotReader<T>: Send + Sync {
    /// Prepares the publication of a snapshot; the returned commit makes it visible.
    fn prepare(&self, next: &Arc<Snapshot<T>>) -> Result<SnapshotCommit<'_>, SetError>;
}

/// The second step of a publication; it cannot fail.
pub(crate) type SnapshotCommit<'a> = Box<dyn FnOnce() + 'a>;

impl<T> BackendSet<T> {
    /// Makes an empty set.
    #[must_use]
    pub fn new() -> Self {
        Self::with_counter_lanes(0)
    }

    /// Makes an empty set whose counters have lanes: one for each of `workers` that pick at the same
    /// time. More than 254 workers share 254 lanes.
    ///
    /// For threads that share the backends and pick all the time, each through a
    /// [`BalancerWorker`](crate::balancer::BalancerWorker): they count on cache lines of their own and
    /// do not slow each other down. A pick without a worker counts on lane 0, which all share.
    ///
    /// [`Backend::load`], outcomes and limits stay exact. `random` and the hash rules gain most. `p2c`
    /// compares approximate counts, which lack up to three connections a backend of each other worker.
    /// Rules that compare all backends (`wlc`) read every lane and are faster without lanes. A backend
    /// with a connection limit always counts on lane 0. Each lane takes 144 bytes a backend.
    #[must_use]
    pub fn with_counter_lanes(workers: usize) -> Self {
        let context = Arc::new(SetContext::new(workers.min(254) as u8));
        let mut state = SetState::new(Arc::clone(&context));
        let current_snapshot = Arc::new(state.next_snapshot());
        let (readers, subscriptions) = (Vec::new(), Vec::new());
        let writer = Mutex::new(SetWriter { state, current_snapshot, readers, subscriptions });
        let writing_thread = WritingThread::default();
        Self { inner: Arc::new(SetInner { context, writer, writing_thread }) }
    }

    /// Sets or removes slow start. Backends in slow start follow the new setting, or count in full,
    /// from the next [`advance_slow_start`](Self::advance_slow_start) on.
    pub fn set_slow_start(&self, slow_start: Option<SlowStart>) {
        self.lock_writer().state.slow_start = slow_start;
    }

    /// Sets what the set does when too few backends are healthy, and publishes the result.
    ///
    /// # Errors
    /// [`SetError::InvalidFailMode`] for a percentage that is not from 1 to 100, [`SetError::Scheduler`]
    /// if a scheduler cannot use the result.
    pub fn set_fail_mode(&self, mode: FailMode) -> Result<(), SetError> {
        mode.validate().map_err(SetError::InvalidFailMode)?;
        self.publish_change(|state| state.fail_mode = mode)
    }

    /// Sets the health of backends that are inserted from now on, until a check has a result. A
    /// [`Spec`] that says down is inserted as down all the same. Default: up.
    ///
    /// A health monitor sets it while it watches the set, by `TimedCheck::init`.
    pub fn set_initial_health(&self, health: Health) {
        self.set_initial_health_rule(health.into());
    }

    /// Sets the health of backends that are inserted from now on, by their addresses.
    pub(crate) fn set_initial_health_rule(&self, rule: InitialHealthRule) {
        self.lock_writer().state.initial_health = Arc::new(rule);
    }

    /// Sets the healthy weight that the set needs to serve, and publishes the result.
    ///
    /// # Errors
    /// [`SetError::Scheduler`] if a scheduler cannot use the result.
    pub fn set_quorum(&self, quorum: Option<Quorum>) -> Result<(), SetError> {
        self.publish_change(|state| state.quorum = quorum)
    }

    /// Takes the writers' lock.
    ///
    /// # Panics
    /// If this thread has it.
    fn lock_writer(&self) -> WriterGuard<'_, T> {
        self.inner.writing_thread.assert_not_current();
        let writer = lock(&self.inner.writer);
        WriterGuard { _mark: self.inner.writing_thread.mark_current(), writer }
    }

    fn publish_change(&self, change: impl FnOnce(&mut SetState<T>)) -> Result<(), SetError> {
        let mut writer = self.lock_writer();
        let mut state = writer.state.clone();
        change(&mut state);
        writer.publish(state)
    }

    /// Returns the status of each backend, newest first. Costs as much as a change.
    #[must_use]
    pub fn statuses(&self) -> Vec<BackendStatus> {
        self.lock_writer().state.statuses()
    }

    /// Returns what the set has learned of its backends, for [`restore`](Self::restore) in another
    /// process.
    ///
    /// Ejections are not part of it: [`health::WatchHandle::export`](crate::health::WatchHandle::export)
    /// has those.
    #[cfg(feature = "health")]
    #[cfg_attr(docsrs, doc(cfg(feature = "health")))]
    #[must_use]
    pub fn export(&self, now: Instant) -> Vec<super::SavedBackend> {
        self.lock_writer().state.export(now)
    }

    /// Restores what another process has learned of backends of the same names, as one publication:
    /// health, agent overrides, slow start, and outcome counts, which are added. The configuration
    /// stays as it is.
    ///
    /// # Errors
    /// [`SetError::Scheduler`] if a scheduler cannot use the result.
    #[cfg(feature = "health")]
    #[cfg_attr(docsrs, doc(cfg(feature = "health")))]
    pub fn restore(&self, saved: &[super::SavedBackend], now: Instant) -> Result<(), SetError> {
        let mut writer = self.lock_writer();
        let mut state = writer.state.clone();
        if state.restore(saved, now) { writer.publish(state) } else { Ok(()) }
    }

    /// Makes several changes and publishes them as one. If one is refused, none is made.
    ///
    /// The closure runs under the writers' lock: other writers of the set wait. Its [`SetEdit`] has
    /// everything that may be done to the set; the set itself must not be used in it.
    ///
    /// # Errors
    /// The error of the closure, or [`SetError::Scheduler`] if a scheduler cannot use the result.
    ///
    /// # Panics
    /// If the closure uses a handle of the same set, which would wait for itself.
    pub fn edit<R>(
        &self,
        change: impl FnOnce(&mut SetEdit<T>) -> Result<R, SetError>,
    ) -> Result<R, SetError> {
        self.try_edit(change)
    }

    /// Makes several changes as [`edit`](Self::edit) does, for closures with errors of their own.
    ///
    /// # Errors
    /// The error of the closure, or [`SetError::Scheduler`] if a scheduler cannot use the result.
    ///
    /// # Panics
    /// As [`edit`](Self::edit).
    ///
    /// # Examples
    /// ```
    /// use lvs::{BackendSet, Spec};
    ///
    /// let set = BackendSet::new();
    /// let refused = set.try_edit(|edit| {
    ///     edit.insert(Spec::new("a", ()))?;
    ///     Err::<(), Box<dyn std::error::Error>>("no address for b".into())
    /// });
    /// assert_eq!((refused.unwrap_err().to_string(), set.len()), ("no address for b".into(), 0));
    /// ```
    pub fn try_edit<R, E: From<SetError>>(
        &self,
        change: impl FnOnce(&mut SetEdit<T>) -> Result<R, E>,
    ) -> Result<R, E> {
        let mut writer = self.lock_writer();
        let mut edit = SetEdit::new(writer.state.clone());
        let result = change(&mut edit)?;
        if edit.dirty {
            writer.publish(edit.state)?;
        }
        Ok(result)
    }

    /// Returns the backend of this name, by a linear search.
    #[must_use]
    pub fn get(&self, id: &BackendId) -> Option<Arc<Backend<T>>> {
        self.lock_writer().current_snapshot.find(id).map(Arc::clone)
    }

    /// Returns the number of backends.
    #[must_use]
    pub fn len(&self) -> usize {
        self.lock_writer().current_snapshot.backends().len()
    }

    /// Returns whether the set has no backend.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// Adds a backend; see [`SetEdit::insert`].
    ///
    /// # Errors
    /// Those of [`SetEdit::insert`] and [`BackendSet::edit`].
    pub fn insert(&self, spec: impl Into<Spec<T>>) -> Result<Arc<Backend<T>>, SetError> {
        self.edit(|edit| edit.insert(spec))
    }

    /// Removes a backend at once. To let its connections end first, [`drain`](Self::drain) it and wait
    /// until its [load](Backend::load) is 0.
    ///
    /// # Errors
    /// Those of [`SetEdit::remove`] and [`BackendSet::edit`].
    pub fn remove(&self, id: &BackendId) -> Result<Arc<Backend<T>>, SetError> {
        self.edit(|edit| edit.remove(id))
    }

    /// Gives a backend another target under its name; see [`SetEdit::set_target`].
    ///
    /// # Errors
    /// Those of [`SetEdit::set_target`] and [`BackendSet::edit`].
    pub fn set_target(
        &self,
        id: &BackendId,
        target: T,
        address: Option<SocketAddr>,
    ) -> Result<Arc<Backend<T>>, SetError> {
        self.edit(|edit| edit.set_target(id, target, address))
    }

    /// Sets the weight; 0 quiesces. See [`SetEdit::set_weight`].
    ///
    /// # Errors
    /// Those of [`SetEdit::set_weight`] and [`BackendSet::edit`].
    pub fn set_weight(&self, id: &BackendId, weight: u32) -> Result<(), SetError> {
        self.edit(|edit| edit.set_weight(id, weight))
    }

    /// Sets the connection limits.
    ///
    /// # Errors
    /// Those of [`SetEdit::set_limits`] and [`BackendSet::edit`].
    pub fn set_limits(&self, id: &BackendId, limits: Limits) -> Result<(), SetError> {
        self.edit(|edit| edit.set_limits(id, limits))
    }

    /// Drains a backend: it gets no new work, and what it has goes on.
    ///
    /// # Errors
    /// Those of [`SetEdit::set_admin`] and [`BackendSet::edit`].
    pub fn drain(&self, id: &BackendId) -> Result<(), SetError> {
        self.edit(|edit| edit.set_admin(id, BackendAdminState::Draining))
    }

    /// Disables a backend, whatever its health.
    ///
    /// # Errors
    /// Those of [`SetEdit::set_admin`] and [`BackendSet::edit`].
    pub fn disable(&self, id: &BackendId) -> Result<(), SetError> {
        self.edit(|edit| edit.set_admin(id, BackendAdminState::Disabled))
    }

    /// Enables a backend that was drained or disabled.
    ///
    /// # Errors
    /// Those of [`SetEdit::set_admin`] and [`BackendSet::edit`].
    pub fn enable(&self, id: &BackendId) -> Result<(), SetError> {
        self.edit(|edit| edit.set_admin(id, BackendAdminState::Enabled))
    }

    /// Sets the health of a backend.
    ///
    /// # Errors
    /// Those of [`SetEdit::set_health`] and [`BackendSet::edit`].
    pub fn set_health(&self, id: &BackendId, health: Health) -> Result<(), SetError> {
        self.edit(|edit| edit.set_health(id, health))
    }

    /// Advances slow starts to `now`, and returns when to call again; `None` means when a backend has
    /// come up. A set without slow start needs no call.
    ///
    /// # Errors
    /// [`SetError::Scheduler`] if a scheduler cannot use the new shares.
    pub fn advance_slow_start(&self, now: Instant) -> Result<Option<Instant>, SetError> {
        self.inner.context.clock.advance_to(now);
        let mut writer = self.lock_writer();
        let mut state = writer.state.clone();
        if state.advance_slow_start(now) {
            writer.publish(state)?;
        } else {
            writer.state = state;
        }
        let step = writer.state.slow_start_interval();
        Ok(step.and_then(|step| now.checked_add(step)))
    }

    /// Returns the snapshot that was published last.
    #[must_use]
    pub fn snapshot(&self) -> Arc<Snapshot<T>> {
        Arc::clone(&self.lock_writer().current_snapshot)
    }

    /// Subscribes to the publications from now on.
    pub fn subscribe(&self) -> SetSubscription<T> {
        let mut writer = self.lock_writer();
        let slot = Arc::new(SubscriptionSlot::new(Arc::clone(&writer.current_snapshot)));
        writer.subscriptions.retain(|slot| slot.strong_count() > 0);
        writer.subscriptions.push(Arc::downgrade(&slot));
        drop(writer);
        SetSubscription::new(slot)
    }

    /// Adds a reader, made from the current snapshot while no writer can publish another.
    pub(crate) fn add_reader<R: SnapshotReader<T> + 'static, E>(
        &self,
        make: impl FnOnce(&Arc<Snapshot<T>>) -> Result<Arc<R>, E>,
    ) -> Result<Arc<R>, E>
    where
        T: 'static,
    {
        let mut writer = self.lock_writer();
        let reader = make(&writer.current_snapshot)?;
        let weak: Weak<R> = Arc::downgrade(&reader);
        writer.readers.retain(|reader| reader.strong_count() > 0);
        writer.readers.push(weak);
        Ok(reader)
    }

    /// Runs `act` on the current snapshot while no writer can publish another.
    pub(crate) fn with_current_snapshot<R>(&self, act: impl FnOnce(&Arc<Snapshot<T>>) -> R) -> R {
        act(&self.lock_writer().current_snapshot)
    }
}

/// The writers' lock of a set.
struct WriterGuard<'a, T> {
    // Dropped before the lock is given back: the next writer has a mark of its own.
    _mark: WritingThreadMark<'a>,
    writer: MutexGuard<'a, SetWriter<T>>,
}

impl<T> Deref for WriterGuard<'_, T> {
    type Target = SetWriter<T>;

    fn deref(&self) -> &SetWriter<T> {
        &self.writer
    }
}

impl<T> DerefMut for WriterGuard<'_, T> {
    fn deref_mut(&mut self) -> &mut SetWriter<T> {
        &mut self.writer
    }
}

impl<T> SetWriter<T> {
    fn publish(&mut self, mut state: SetState<T>) -> Result<(), SetError> {
        let next = Arc::new(state.next_snapshot());
        let readers: Vec<_> = self.readers.iter().filter_map(Weak::upgrade).collect();
        let commits: Vec<SnapshotCommit<'_>> =
            readers.iter().map(|reader| reader.prepare(&next)).collect::<Result<_, _>>()?;
        state.apply_to_accounts(&next);
        commits.into_iter().for_each(|commit| commit());
        self.state = state;
        self.current_snapshot = next;
        for slot in self.subscriptions.iter().filter_map(Weak::upgrade) {
            slot.publish(&self.current_snapshot);
        }
        Ok(())
    }
}

impl<T> Drop for SetWriter<T> {
    fn drop(&mut self) {
        self.subscriptions.iter().filter_map(Weak::upgrade).for_each(|slot| slot.close());
    }
}

impl<T> Clone for BackendSet<T> {
    fn clone(&self) -> Self {
        Self { inner: Arc::clone(&self.inner) }
    }
}

impl<T> Default for BackendSet<T> {
    fn default() -> Self {
        Self::new()
    }
}

impl<T> fmt::Debug for BackendSet<T> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_tuple("BackendSet").field(&self.snapshot()).finish()
    }
}
