//! A worker: faster picks for one thread or task.

use std::fmt;
use std::sync::Arc;

use super::plane::{PickPlane, PublishedPlane};
use super::{Lease, PickError};
use crate::backend::Snapshot;
use crate::scheduler::{Flow, Rng};

/// Picks for one thread or task, from a plane that it keeps.
///
/// [`Balancer::worker`](crate::Balancer::worker) makes it. A pick reads one number to see whether its
/// plane is still the published one, which saves two of the seven atomic operations of
/// [`Balancer::pick`](crate::Balancer::pick), about 4 ns. A worker has a random generator of its own. For
/// a cursor of its own as well, make it from a [fork](crate::Balancer::fork).
///
/// Until its next pick or [`refresh`](BalancerWorker::refresh) a worker keeps its plane alive, and with
/// it the targets of backends that were removed since.
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
    pub(super) fn new(published_plane: Arc<PublishedPlane<T>>, rng: Rng) -> Self {
        // The version first: a plane newer than its version is only loaded twice.
        let version = published_plane.version();
        let plane = published_plane.plane();
        let lane = plane.snapshot().assign_lane();
        Self { published_plane, plane, version, rng, lane }
    }

    /// Chooses a backend.
    ///
    /// # Errors
    /// [`PickError`] says why no backend was chosen.
    #[inline]
    pub fn pick(&mut self, flow: &Flow) -> Result<Lease<T>, PickError> {
        self.refresh();
        self.plane.pick(flow, &mut self.rng, self.lane)
    }

    /// Drops the plane if it is no longer the published one; for workers that idle.
    #[inline]
    pub fn refresh(&mut self) {
        let version = self.published_plane.version();
        if version != self.version {
            self.version = version;
            self.plane = self.published_plane.plane();
        }
    }

    /// Returns the snapshot that the next pick reads, unless another is published before.
    #[must_use]
    pub fn snapshot(&self) -> &Arc<Snapshot<T>> {
        self.plane.snapshot()
    }
}

impl<T> fmt::Debug for BalancerWorker<T> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("BalancerWorker")
            .field("version", &self.version)
            .field("snapshot", self.snapshot())
            .finish_non_exhaustive()
    }
}
