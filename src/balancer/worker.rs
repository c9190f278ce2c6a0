//! A reader of its own, for a thread or task that picks all the time.

use std::fmt;
use std::sync::Arc;

use super::plane::{PickPlane, PublishedPlane};
use super::{Lease, PickError};
use crate::backend::Snapshot;
use crate::scheduler::{Flow, Rng};

/// Picks for one thread or task, and keeps what it read last.
///
/// Made by [`Balancer::worker`](crate::Balancer::worker). A pick looks at one number to see whether
/// its plane is still the published one, which saves two of the seven atomic operations of
/// [`Balancer::pick`](crate::Balancer::pick), some 4 ns. It brings its random generator along. For
/// a cursor of its own as well, make the worker from a [fork](crate::Balancer::fork).
///
/// The price: until its next pick or [`refresh`](BalancerWorker::refresh), a worker keeps the last plane
/// alive, and with it the targets of backends that have been removed since.
///
/// # Examples
/// ```
/// use lvs::scheduler::{Maglev, Rng};
/// use lvs::{BackendSet, Balancer, Flow, Outcome, Spec};
///
/// let set = BackendSet::new();
/// let balancer = Balancer::new(&set, Maglev::new())?;
/// let mut worker = balancer.worker(Rng::from_entropy());
/// set.insert(Spec::new("a", ()))?;
/// let lease = worker.pick(&Flow::new())?;
/// lease.complete(Outcome::Ok);
/// # Ok::<(), Box<dyn std::error::Error>>(())
/// ```
pub struct BalancerWorker<T> {
    published_plane: Arc<PublishedPlane<T>>,
    plane: Arc<PickPlane<T>>,
    version: u64,
    rng: Rng,
    lane: u8,
}

impl<T> BalancerWorker<T> {
    pub(super) fn new(published: Arc<PublishedPlane<T>>, rng: Rng) -> Self {
        // The version first: a plane that is newer than its version is only fetched twice.
        let version = published.version();
        let plane = published.plane();
        let lane = plane.snapshot().assign_lane();
        Self { published_plane: published, plane, version, rng, lane }
    }

    /// Chooses a backend.
    ///
    /// # Errors
    /// [`PickError`] says why nobody was chosen.
    #[inline]
    pub fn pick(&mut self, flow: &Flow) -> Result<Lease<T>, PickError> {
        self.refresh();
        self.plane.pick(flow, &mut self.rng, self.lane)
    }

    /// Lets go of a plane that is no longer the published one; for workers that idle.
    #[inline]
    pub fn refresh(&mut self) {
        let version = self.published_plane.version();
        if version != self.version {
            self.version = version;
            self.plane = self.published_plane.plane();
        }
    }

    /// What the worker's next pick reads, unless something is published before.
    #[must_use]
    pub fn snapshot(&self) -> &Arc<Snapshot<T>> {
        self.plane.snapshot()
    }
}

impl<T> fmt::Debug for BalancerWorker<T> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Worker")
            .field("version", &self.version)
            .field("snapshot", self.snapshot())
            .finish_non_exhaustive()
    }
}
