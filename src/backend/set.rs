//! The writer's side of a set of backends.

use std::fmt;
use std::net::SocketAddr;
use std::sync::{Arc, Weak};
use std::time::Instant;

use super::account::SetContext;
use super::draft::SetState;
use super::{
    Backend, BackendAdminState, BackendId, BackendStatus, FailMode, Health, Limits, Quorum,
    SetEdit, SetError, SlowStart, Snapshot, Spec,
};
use crate::sync::{Mutex, lock};

/// Holds the backends of one virtual service, and publishes every change of them.
///
/// A cheap handle: clones write to the same set. Writers exclude each other; readers (the
/// [`Balancer`](crate::Balancer)s made from the set) are never held up and never see half a change.
/// A publication costs time in proportion to the set, plus what the schedulers need to build their
/// tables; it happens on the writer's thread.
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
/// assert!(matches!(set.remove(&"gone".into()), Err(SetError::Unknown { .. })));
/// # Ok::<(), SetError>(())
/// ```
pub struct BackendSet<T> {
    inner: Arc<SetInner<T>>,
}

struct SetInner<T> {
    context: Arc<SetContext>,
    writer: Mutex<SetWriter<T>>,
}

struct SetWriter<T> {
    state: SetState<T>,
    current_snapshot: Arc<Snapshot<T>>,
    readers: Vec<Weak<dyn SnapshotReader<T>>>,
}

/// Somebody to whom a set publishes.
///
/// Publishing has two steps, so that a change that one reader cannot take reaches none.
pub(crate) trait SnapshotReader<T>: Send + Sync {
    /// Works out what follows from a snapshot; the answer makes it visible.
    fn prepare(&self, next: &Arc<Snapshot<T>>) -> Result<SnapshotCommit<'_>, SetError>;
}

/// The second step of a publication; it cannot fail.
pub(crate) type SnapshotCommit<'a> = Box<dyn FnOnce() + 'a>;

impl<T> BackendSet<T> {
    /// An empty set.
    #[must_use]
    pub fn new() -> Self {
        Self::with_counter_lanes(0)
    }

    /// An empty set whose counts are kept in lanes: one for each of so many workers that pick at the
    /// same time. At most 254.
    ///
    /// For threads that share the backends and pick all the time through a
    /// [`Worker`](crate::balancer::Worker) each: they count on cache lines of their own, so two
    /// that pick at once do not slow each other down. Workers beyond the number share lanes;
    /// whoever picks without a worker counts in the common place.
    ///
    /// [`Backend::load`], outcomes and limits stay exact. `random` and the hash family gain
    /// everything. `p2c` compares what it sees without disturbing the others, which lacks up to
    /// three connections a backend of every other worker. Rules that compare all backends (`wlc`)
    /// read every lane and are better off without; a backend with a connection limit is counted in
    /// one place all the same. Each lane takes 144 bytes a backend.
    #[must_use]
    pub fn with_counter_lanes(workers: usize) -> Self {
        let shared = Arc::new(SetContext::new(workers.min(254) as u8));
        let mut draft = SetState::new(Arc::clone(&shared));
        let current = Arc::new(draft.next_snapshot());
        let writer =
            Mutex::new(SetWriter { state: draft, current_snapshot: current, readers: Vec::new() });
        Self { inner: Arc::new(SetInner { context: shared, writer }) }
    }

    /// Sets or ends slow start; backends that are on their way go on by the new rule (or count in
    /// full) from the next [`advance_slow_start`](Self::advance_slow_start) on.
    pub fn set_slow_start(&self, slow_start: Option<SlowStart>) {
        lock(&self.inner.writer).state.slow_start = slow_start;
    }

    /// Sets what to do when too few backends are healthy, and publishes what follows.
    ///
    /// # Errors
    /// [`SetError::Scheduler`] if a scheduler cannot use the result.
    pub fn set_fail_mode(&self, mode: FailMode) -> Result<(), SetError> {
        self.publish_change(|draft| draft.fail_mode = mode)
    }

    /// Sets how much weight must be up for the set to serve, and publishes what follows.
    ///
    /// # Errors
    /// [`SetError::Scheduler`] if a scheduler cannot use the result.
    pub fn set_quorum(&self, quorum: Option<Quorum>) -> Result<(), SetError> {
        self.publish_change(|draft| draft.quorum = quorum)
    }

    fn publish_change(&self, change: impl FnOnce(&mut SetState<T>)) -> Result<(), SetError> {
        let mut writer = lock(&self.inner.writer);
        let mut draft = writer.state.clone();
        change(&mut draft);
        writer.publish(draft)
    }

    /// Everything that is known of each backend, newest first. Costs as much as a change.
    #[must_use]
    pub fn statuses(&self) -> Vec<BackendStatus> {
        lock(&self.inner.writer).state.statuses()
    }

    /// What the set has learned of its backends, for [`restore`](Self::restore) in a later process.
    ///
    /// Ejections are not in it: whoever ejects keeps those, as
    /// [`health::Watch`](crate::health::Watch::export) does.
    #[cfg(feature = "health")]
    #[cfg_attr(docsrs, doc(cfg(feature = "health")))]
    #[must_use]
    pub fn export(&self, now: Instant) -> Vec<super::SavedBackend> {
        lock(&self.inner.writer).state.export(now)
    }

    /// Takes up what an earlier process has learned of backends of the same names, as one
    /// publication: health, advice, slow start, and the counts of outcomes, which are added.
    /// What is configured stays as it is.
    ///
    /// # Errors
    /// [`SetError::Scheduler`] if a scheduler cannot use the result.
    #[cfg(feature = "health")]
    #[cfg_attr(docsrs, doc(cfg(feature = "health")))]
    pub fn restore(&self, saved: &[super::SavedBackend], now: Instant) -> Result<(), SetError> {
        let mut writer = lock(&self.inner.writer);
        let mut draft = writer.state.clone();
        if draft.restore(saved, now) { writer.publish(draft) } else { Ok(()) }
    }

    /// Makes several changes and publishes them as one; if one is refused none is made.
    ///
    /// The closure runs under the writers' lock: it must not touch the same set.
    ///
    /// # Errors
    /// What the closure returns, or [`SetError::Scheduler`] if a scheduler cannot use the result.
    pub fn edit<R>(
        &self,
        change: impl FnOnce(&mut SetEdit<T>) -> Result<R, SetError>,
    ) -> Result<R, SetError> {
        let mut writer = lock(&self.inner.writer);
        let draft = writer.state.clone();
        let mut edit = SetEdit::new(draft);
        let answer = change(&mut edit)?;
        if edit.dirty {
            let draft = edit.state;
            writer.publish(draft)?;
        }
        Ok(answer)
    }

    /// Adds a backend; see [`SetEdit::insert`].
    ///
    /// # Errors
    /// Those of [`SetEdit::insert`] and [`BackendSet::edit`].
    pub fn insert(&self, spec: impl Into<Spec<T>>) -> Result<Arc<Backend<T>>, SetError> {
        self.edit(|edit| edit.insert(spec))
    }

    /// Takes a backend out at once; to let it finish first, [`drain`](Self::drain) it and wait until
    /// its [load](Backend::load) is nothing.
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

    /// Gives a backend no new work; what it has goes on.
    ///
    /// # Errors
    /// Those of [`SetEdit::set_admin`] and [`BackendSet::edit`].
    pub fn drain(&self, id: &BackendId) -> Result<(), SetError> {
        self.edit(|edit| edit.set_admin(id, BackendAdminState::Draining))
    }

    /// Takes a backend out of service, whatever its health.
    ///
    /// # Errors
    /// Those of [`SetEdit::set_admin`] and [`BackendSet::edit`].
    pub fn disable(&self, id: &BackendId) -> Result<(), SetError> {
        self.edit(|edit| edit.set_admin(id, BackendAdminState::Disabled))
    }

    /// Ends a drain or a disablement.
    ///
    /// # Errors
    /// Those of [`SetEdit::set_admin`] and [`BackendSet::edit`].
    pub fn enable(&self, id: &BackendId) -> Result<(), SetError> {
        self.edit(|edit| edit.set_admin(id, BackendAdminState::Enabled))
    }

    /// Sets what checks say of a backend.
    ///
    /// # Errors
    /// Those of [`SetEdit::set_health`] and [`BackendSet::edit`].
    pub fn set_health(&self, id: &BackendId, health: Health) -> Result<(), SetError> {
        self.edit(|edit| edit.set_health(id, health))
    }

    /// Lets slow starts move on to `now`, and says when to call again (`None`: when a backend has
    /// come up). Without slow start there is no need to call it.
    ///
    /// # Errors
    /// [`SetError::Scheduler`] if a scheduler cannot use the new shares.
    pub fn advance_slow_start(&self, now: Instant) -> Result<Option<Instant>, SetError> {
        self.inner.context.clock.advance_to(now);
        let mut writer = lock(&self.inner.writer);
        let mut draft = writer.state.clone();
        if draft.advance_slow_start(now) {
            writer.publish(draft)?;
        } else {
            writer.state = draft;
        }
        let step = writer.state.slow_start_interval();
        Ok(step.and_then(|step| now.checked_add(step)))
    }

    /// What was published last.
    #[must_use]
    pub fn snapshot(&self) -> Arc<Snapshot<T>> {
        Arc::clone(&lock(&self.inner.writer).current_snapshot)
    }

    /// Publishes to one more reader, made from the current snapshot while no writer can move it.
    pub(crate) fn subscribe<R: SnapshotReader<T> + 'static, E>(
        &self,
        make: impl FnOnce(&Arc<Snapshot<T>>) -> Result<Arc<R>, E>,
    ) -> Result<Arc<R>, E>
    where
        T: 'static,
    {
        let mut writer = lock(&self.inner.writer);
        let reader = make(&writer.current_snapshot)?;
        let weak: Weak<R> = Arc::downgrade(&reader);
        writer.readers.retain(|reader| reader.strong_count() > 0);
        writer.readers.push(weak);
        Ok(reader)
    }

    /// Runs `act` on the current snapshot while no writer can move it.
    pub(crate) fn with_current_snapshot<R>(&self, act: impl FnOnce(&Arc<Snapshot<T>>) -> R) -> R {
        act(&lock(&self.inner.writer).current_snapshot)
    }
}

impl<T> SetWriter<T> {
    fn publish(&mut self, mut draft: SetState<T>) -> Result<(), SetError> {
        let next = Arc::new(draft.next_snapshot());
        let readers: Vec<_> = self.readers.iter().filter_map(Weak::upgrade).collect();
        let commits: Vec<SnapshotCommit<'_>> =
            readers.iter().map(|reader| reader.prepare(&next)).collect::<Result<_, _>>()?;
        draft.apply_to_accounts(&next);
        commits.into_iter().for_each(|commit| commit());
        self.state = draft;
        self.current_snapshot = next;
        Ok(())
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
