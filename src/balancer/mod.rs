//! Picks: a [`Balancer`] joins a set and a scheduler, and each pick returns a [`Lease`].
//!
//! A [`Balancer`] is the reader's side of a [`BackendSet`]. A pick reads one published plane, which is
//! the snapshot and the picker compiled from it, so a pick never sees half of a change and takes no
//! lock. The [`Lease`] that it returns keeps the backend's connection count exact.
//!
//! # Cost
//! A pick whose lease is made and dropped takes seven atomic operations and the scheduler's own work,
//! and allocates nothing. `cargo bench --bench pick` prints the figures of your machine.

mod error;
mod fingerprint;
mod lease;
mod persistence;
mod plane;
mod worker;

use std::cell::Cell;
use std::fmt;
#[cfg(feature = "packet")]
use std::net::SocketAddr;
use std::sync::Arc;

use self::plane::PublishedPlane;
use crate::backend::{BackendId, BackendSet, BackendState, SetError, Snapshot};
#[cfg(feature = "packet")]
use crate::scheduler::LookupTable;
use crate::scheduler::{Flow, Rng, Scheduler};

pub use self::error::PickError;
pub use self::fingerprint::{Fingerprint, ParseFingerprintError};
pub use self::lease::Lease;
#[cfg(feature = "forward")]
pub(crate) use self::persistence::mask_to_prefix;
pub use self::persistence::{AffinityPolicy, Persistence, PersistenceBuilder, SavedTemplate};
pub use self::worker::BalancerWorker;

/// Chooses a backend for every connection or request.
///
/// A cheap handle: clones share the plane and the scheduler's cursor. Any number of threads may use it.
///
/// # Examples
/// ```
/// use std::net::SocketAddr;
/// use lvs::{BackendSet, Balancer, Flow, Outcome};
/// use lvs::scheduler::RoundRobin;
///
/// let set = BackendSet::<SocketAddr>::new();
/// let balancer = Balancer::new(&set, RoundRobin::new())?;
/// for port in [9001, 9002, 9003] {
///     set.insert(SocketAddr::from(([127, 0, 0, 1], port)))?;
/// }
///
/// let client: SocketAddr = "192.0.2.7:50123".parse()?;
/// let lease = balancer.pick(&Flow::from(client))?;
/// println!("to {}", lease.target());
/// assert_eq!(lease.backend().load().active, 1);
/// lease.complete(Outcome::Ok);
/// # Ok::<(), Box<dyn std::error::Error>>(())
/// ```
pub struct Balancer<T> {
    backend_set: BackendSet<T>,
    published_plane: Arc<PublishedPlane<T>>,
}

impl<T: Send + Sync + 'static> Balancer<T> {
    /// Makes a balancer over a set. Several balancers may read one set.
    ///
    /// # Errors
    /// [`SetError::Scheduler`] if the scheduler cannot use the set.
    pub fn new(set: &BackendSet<T>, scheduler: impl Scheduler + 'static) -> Result<Self, SetError> {
        Self::from_arc(set, Arc::new(scheduler))
    }

    /// Makes another balancer over the same set with the same scheduler. It sees the same changes and
    /// shares all counters, but neither table nor cursor.
    ///
    /// For threads that pick by a rule with a cursor (`rr`, `wrr`, `swrr`): a shared cursor is one cache
    /// line that all of them write. Each fork goes through its own rounds, so the shares hold over all
    /// workers, and the strict turn does not.
    ///
    /// # Errors
    /// [`SetError::Scheduler`] if the scheduler cannot use the set.
    pub fn fork(&self) -> Result<Self, SetError> {
        Self::from_arc(&self.backend_set, self.published_plane.scheduler())
    }

    pub(crate) fn from_arc(
        set: &BackendSet<T>,
        scheduler: Arc<dyn Scheduler>,
    ) -> Result<Self, SetError> {
        let published_plane = set.add_reader(|snapshot| {
            Ok::<_, SetError>(Arc::new(PublishedPlane::new(scheduler, snapshot)?))
        })?;
        Ok(Self { backend_set: set.clone(), published_plane })
    }
}

impl<T> Balancer<T> {
    /// Chooses a backend with this thread's random generator.
    ///
    /// # Errors
    /// [`PickError`] says why no backend was chosen.
    #[inline]
    pub fn pick(&self, flow: &Flow) -> Result<Lease<T>, PickError> {
        with_thread_rng(|rng| self.published_plane.pick(flow, rng))
    }

    /// Chooses a backend with the caller's random generator: for tests and simulations, where a seed
    /// repeats the run, and for callers that have one.
    ///
    /// # Errors
    /// [`PickError`] says why no backend was chosen.
    #[inline]
    pub fn pick_with_rng(&self, flow: &Flow, rng: &mut Rng) -> Result<Lease<T>, PickError> {
        self.published_plane.pick(flow, rng)
    }

    /// Makes a worker for one thread or task, whose picks are faster; see [`BalancerWorker`].
    #[must_use]
    pub fn worker(&self, rng: Rng) -> BalancerWorker<T> {
        BalancerWorker::new(Arc::clone(&self.published_plane), rng)
    }

    /// Leases a backend by name, without the scheduler, for persistence that is kept elsewhere (in a
    /// cookie).
    ///
    /// Returns `None` if the set has no such backend or it is not [`BackendState::Eligible`]. Connection
    /// limits do not apply, as in IPVS persistence. The search is linear.
    #[must_use]
    pub fn lease_by_id(&self, id: &BackendId) -> Option<Lease<T>> {
        let snapshot = self.snapshot();
        let serial = snapshot.find(id)?.account().serial();
        self.published_plane.lease_if(serial, |state| state == BackendState::Eligible)
    }

    /// Leases a backend in any state, without the scheduler, for work that it has already.
    #[cfg(feature = "packet")]
    pub(crate) fn lease_existing(&self, id: &BackendId) -> Option<Lease<T>> {
        let serial = self.snapshot().find(id)?.account().serial();
        self.published_plane.lease_if(serial, |_| true)
    }

    /// Replaces the scheduler. As in IPVS the new one starts without the old one's state; leases stay.
    ///
    /// # Errors
    /// [`SetError::Scheduler`] if it cannot use the set; the old scheduler stays.
    pub fn set_scheduler(&self, scheduler: impl Scheduler + 'static) -> Result<(), SetError> {
        self.backend_set
            .with_current_snapshot(|_| self.published_plane.set_scheduler(Arc::new(scheduler)))
    }

    /// Returns the scheduler.
    #[must_use]
    pub fn scheduler(&self) -> Arc<dyn Scheduler> {
        self.published_plane.scheduler()
    }

    /// Returns the [expression](Scheduler::expression) of the scheduler, such as
    /// `bounded(ring, factor=1.25)`.
    ///
    /// # Examples
    /// ```
    /// use lvs::{BackendSet, Balancer, scheduler};
    ///
    /// let scheduler = scheduler::parse("bounded( ring,factor=1.25 )")?;
    /// let balancer = Balancer::new(&BackendSet::<()>::new(), scheduler)?;
    /// assert_eq!(balancer.scheduler_expression(), "bounded(ring, factor=1.25)");
    /// # Ok::<(), Box<dyn std::error::Error>>(())
    /// ```
    #[must_use]
    pub fn scheduler_expression(&self) -> String {
        self.scheduler().expression()
    }

    /// Chooses as [`pick`](Self::pick) does, and counts on a lane.
    #[cfg(feature = "tower")]
    #[inline]
    pub(crate) fn pick_on_lane(&self, lane: u8, flow: &Flow) -> Result<Lease<T>, PickError> {
        with_thread_rng(|rng| self.published_plane.pick_on_lane(lane, flow, rng))
    }

    /// Tells whether the scheduler reads the time of a pick.
    #[cfg(feature = "tower")]
    #[inline]
    pub(crate) fn reads_time(&self) -> bool {
        self.published_plane.reads_time()
    }

    /// Returns a number that changes with each publication, or a moment later.
    #[cfg(any(feature = "packet", feature = "tower"))]
    #[inline]
    pub(crate) fn version(&self) -> u64 {
        self.published_plane.version()
    }

    /// Returns the table by which flows to a destination find their backend, if the scheduler is keyed by one
    /// and no backend has a limit, with the snapshot that it is of.
    #[cfg(feature = "packet")]
    pub(crate) fn lookup_table(
        &self,
        destination: SocketAddr,
    ) -> (Arc<Snapshot<T>>, Option<LookupTable>) {
        self.published_plane.lookup_table(destination)
    }

    /// Returns the snapshot that picks read now.
    #[must_use]
    pub fn snapshot(&self) -> Arc<Snapshot<T>> {
        self.published_plane.snapshot()
    }

    /// Returns the balancer's set.
    #[must_use]
    pub fn backend_set(&self) -> &BackendSet<T> {
        &self.backend_set
    }
}

impl<T> Clone for Balancer<T> {
    fn clone(&self) -> Self {
        Self {
            backend_set: self.backend_set.clone(),
            published_plane: Arc::clone(&self.published_plane),
        }
    }
}

impl<T> fmt::Debug for Balancer<T> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Balancer")
            .field("scheduler", &self.scheduler())
            .field("snapshot", &self.snapshot())
            .finish()
    }
}

fn with_thread_rng<R>(act: impl FnOnce(&mut Rng) -> R) -> R {
    thread_local! {
        static SEED: Cell<u64> = Cell::new(Rng::from_entropy().seed());
    }
    SEED.with(|seed| {
        let mut rng = Rng::with_seed(seed.get());
        let result = act(&mut rng);
        seed.set(rng.seed());
        result
    })
}
