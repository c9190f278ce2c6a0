//! Ties a set and a scheduler together: one atomically swapped plane, and picks that return leases.
//!
//! A [`Balancer`] is the reader's side of a [`BackendSet`]. A pick reads one published plane (the
//! snapshot and the picker compiled from it), so it never sees half of a change, and it holds no
//! lock. What it returns, a [`Lease`], keeps the backend's count exact.
//!
//! # Cost
//! A pick with its lease, made and dropped, is seven atomic operations beside the scheduler's own
//! work and allocates nothing; `cargo bench --bench pick` prints the figures of your machine.

mod error;
mod lease;
mod persistence;
mod plane;
mod worker;

use std::cell::Cell;
use std::fmt;
use std::sync::Arc;

use self::plane::PublishedPlane;
use crate::backend::{BackendId, BackendSet, BackendState, SetError, Snapshot};
use crate::scheduler::{Flow, Rng, Scheduler};

pub use self::error::PickError;
pub use self::lease::Lease;
#[cfg(feature = "forward")]
pub(crate) use self::persistence::mask_to_prefix;
pub use self::persistence::{AffinityPolicy, Persistence, PersistenceBuilder, SavedTemplate};
pub use self::worker::BalancerWorker;

/// Chooses a backend for every connection or request.
///
/// A cheap handle: clones share plane and cursor. Use it from any number of threads.
///
/// # Examples
/// ```
/// use std::net::SocketAddr;
/// use lvs::{BackendSet, Balancer, Flow, Outcome};
/// use lvs::scheduler::RoundRobin;
///
/// let set = BackendSet::<SocketAddr>::new();
/// let balancer = Balancer::new(&set, RoundRobin)?;
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
    /// Reads a set through a scheduler. Several balancers may read one set.
    ///
    /// # Errors
    /// [`SetError::Scheduler`] if the scheduler cannot use the set as it is.
    pub fn new(set: &BackendSet<T>, scheduler: impl Scheduler + 'static) -> Result<Self, SetError> {
        Self::from_arc(set, Arc::new(scheduler))
    }

    /// Makes a balancer of its own over the same set with the same rule: it sees the same changes
    /// and shares all counts, but neither table nor cursor.
    ///
    /// For one worker each where many threads pick by a rule that keeps a cursor (`rr`, `wrr`,
    /// `swrr`): a shared cursor is one cache line that all of them write. Each fork goes its own
    /// round, so over all workers the shares hold, the strict turn does not.
    ///
    /// # Errors
    /// [`SetError::Scheduler`], from a scheduler that fails by chance.
    pub fn fork(&self) -> Result<Self, SetError> {
        Self::from_arc(&self.backend_set, self.published_plane.scheduler())
    }

    pub(crate) fn from_arc(
        set: &BackendSet<T>,
        scheduler: Arc<dyn Scheduler>,
    ) -> Result<Self, SetError> {
        let published = set.subscribe(|snapshot| {
            Ok::<_, SetError>(Arc::new(PublishedPlane::new(scheduler, snapshot)?))
        })?;
        Ok(Self { backend_set: set.clone(), published_plane: published })
    }
}

impl<T> Balancer<T> {
    /// Chooses a backend with this thread's random generator.
    ///
    /// # Errors
    /// [`PickError`] says why nobody was chosen.
    #[inline]
    pub fn pick(&self, flow: &Flow) -> Result<Lease<T>, PickError> {
        with_thread_rng(|rng| self.published_plane.pick(flow, rng))
    }

    /// Chooses a backend with the caller's random generator, so that a seed repeats the run.
    ///
    /// # Errors
    /// [`PickError`] says why nobody was chosen.
    #[inline]
    pub fn pick_with_rng(&self, flow: &Flow, rng: &mut Rng) -> Result<Lease<T>, PickError> {
        self.published_plane.pick(flow, rng)
    }

    /// Makes a reader for one thread or task, which is quicker than a shared one; see [`BalancerWorker`].
    #[must_use]
    pub fn worker(&self, rng: Rng) -> BalancerWorker<T> {
        BalancerWorker::new(Arc::clone(&self.published_plane), rng)
    }

    /// Leases a backend by name, past the scheduler; for affinity kept elsewhere (a cookie).
    ///
    /// `None` if there is no such backend or it is not [`BackendState::Eligible`]. Connection limits do
    /// not apply, as they do not to IPVS persistence. A linear search.
    #[must_use]
    pub fn lease_by_id(&self, id: &BackendId) -> Option<Lease<T>> {
        let snapshot = self.snapshot();
        let serial = snapshot.find(id)?.account().serial();
        self.published_plane.lease_if(serial, |state| state == BackendState::Eligible)
    }

    /// Changes the rule in service. As in IPVS the new one starts afresh; leases are untouched.
    ///
    /// # Errors
    /// [`SetError::Scheduler`] if it cannot use the set; the old rule stays.
    pub fn set_scheduler(&self, scheduler: impl Scheduler + 'static) -> Result<(), SetError> {
        self.backend_set
            .with_current_snapshot(|_| self.published_plane.set_scheduler(Arc::new(scheduler)))
    }

    /// The rule in service.
    #[must_use]
    pub fn scheduler(&self) -> Arc<dyn Scheduler> {
        self.published_plane.scheduler()
    }

    /// As [`pick`](Self::pick), counted on a lane.
    #[cfg(feature = "tower")]
    #[inline]
    pub(crate) fn pick_on_lane(&self, lane: u8, flow: &Flow) -> Result<Lease<T>, PickError> {
        with_thread_rng(|rng| self.published_plane.pick_on_lane(lane, flow, rng))
    }

    /// Does the rule in service read the clock?
    #[cfg(feature = "tower")]
    #[inline]
    pub(crate) fn reads_time(&self) -> bool {
        self.published_plane.reads_time()
    }

    /// Changes with each publication, or a moment later.
    #[cfg(feature = "tower")]
    #[inline]
    pub(crate) fn version(&self) -> u64 {
        self.published_plane.version()
    }

    /// What picks read now.
    #[must_use]
    pub fn snapshot(&self) -> Arc<Snapshot<T>> {
        self.published_plane.snapshot()
    }

    /// The set behind the balancer.
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
        let answer = act(&mut rng);
        seed.set(rng.seed());
        answer
    })
}
