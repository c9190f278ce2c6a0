//! [`WorkerPool`]: the threads that serve the listeners of forwarders.

use std::fmt;
use std::io;
use std::sync::Arc;
use std::thread;

use rustix::process::{Resource, getrlimit};
use tokio::runtime::{Builder, Handle, Runtime};
use tokio::sync::oneshot;

use super::error::ForwardError;
use crate::setting::{SettingError, check_range};
use crate::sync::{AtomicUsize, Ordering};

/// The most worker threads of a pool: more than a machine has cores.
const MAX_WORKERS: usize = 1024;

/// The share of the limit of open files that listening sockets may take: a quarter. The other
/// descriptors are for connections.
const LISTENER_SHARE: usize = 4;

/// Worker threads that serve any number of [`Forwarder`](super::Forwarder)s and
/// [`UdpForwarder`](super::UdpForwarder)s.
///
/// Without a pool each forwarder starts worker threads of its own. With a pool a program with a hundred
/// services needs no more threads than a program with one: a service that is idle costs its listening
/// sockets. The services of a pool share the processor time of its threads. Each thread serves the
/// connections that are ready in turn, so a busy service delays the others by the length of the turns,
/// but does not stop them. A service that must not wait for others gets a pool of its own.
///
/// A clone is a handle to the same threads. The threads end when the last handle is dropped and no
/// forwarder runs on them.
///
/// # Listening sockets
/// A forwarder that binds its address has a listening socket for each thread of the pool
/// (`SO_REUSEPORT`), as long as the listening sockets of the pool are at most a quarter of the limit of
/// open files (`ulimit -n`, read when the pool starts). A forwarder that starts when there are more has
/// one listening socket: for TCP all threads accept from it, for UDP one thread serves it.
///
/// # Cost
/// A thread, four descriptors, and about 20 KB for each thread of the pool.
///
/// # Examples
/// ```no_run
/// use lvs::forward::{Forwarder, UdpForwarder, WorkerPool};
/// # fn example(
/// #     web: lvs::Balancer<std::net::SocketAddr>,
/// #     dns: lvs::Balancer<std::net::SocketAddr>,
/// # ) -> Result<(), lvs::forward::ForwardError> {
/// let pool = WorkerPool::for_each_core()?;
/// let web = Forwarder::bind(([0, 0, 0, 0], 80).into(), web)?.worker_pool(&pool).start()?;
/// let dns = UdpForwarder::bind(([0, 0, 0, 0], 53).into(), dns)?.worker_pool(&pool).start()?;
/// # Ok(())
/// # }
/// ```
#[derive(Clone)]
pub struct WorkerPool {
    threads: Arc<PoolThreads>,
}

struct PoolThreads {
    workers: Vec<WorkerThread>,
    open_listeners: AtomicUsize,
    max_listeners: usize,
}

struct WorkerThread {
    runtime: Handle,
    /// The thread ends when this is dropped.
    _stop: oneshot::Sender<()>,
}

/// The runtime of a worker thread. A pool that cannot be started drops those that it has built, and the
/// caller may be a task, in which tokio refuses to drop a runtime that waits for its threads.
struct WorkerRuntime(Option<Runtime>);

impl WorkerRuntime {
    fn build() -> io::Result<Self> {
        Ok(Self(Some(Builder::new_current_thread().enable_io().enable_time().build()?)))
    }

    fn get(&self) -> &Runtime {
        self.0.as_ref().unwrap_or_else(|| unreachable!("the runtime is taken when this is dropped"))
    }
}

impl Drop for WorkerRuntime {
    fn drop(&mut self) {
        if let Some(runtime) = self.0.take() {
            runtime.shutdown_background();
        }
    }
}

impl WorkerPool {
    /// Starts a pool of worker threads, from 1 to 1024.
    ///
    /// # Errors
    /// [`ForwardError::Setting`] if the number is out of range; [`ForwardError::Worker`] if the system refuses a thread or its descriptors.
    pub fn new(threads: usize) -> Result<Self, ForwardError> {
        validate_workers(threads)?;
        let worker_error = |source| ForwardError::Worker { source };
        // All runtimes before the first thread: connections of a pool that runs must not take the
        // last descriptors.
        let runtimes = (0..threads).map(|_| WorkerRuntime::build());
        let runtimes = runtimes.collect::<io::Result<Vec<_>>>().map_err(worker_error)?;
        let mut workers = Vec::with_capacity(threads);
        for (number, runtime) in runtimes.into_iter().enumerate() {
            let (stop, stopped) = oneshot::channel();
            workers.push(WorkerThread { runtime: runtime.get().handle().clone(), _stop: stop });
            let serve = move || {
                // An error is the usual end: the sender is dropped with the pool.
                let _ = runtime.get().block_on(stopped);
            };
            let thread = thread::Builder::new().name(format!("lvs-worker-{number}"));
            thread.spawn(serve).map_err(worker_error)?;
        }
        let limit = getrlimit(Resource::Nofile).current.unwrap_or(u64::MAX);
        let max_listeners = usize::try_from(limit).unwrap_or(usize::MAX) / LISTENER_SHARE;
        let open_listeners = AtomicUsize::new(0);
        Ok(Self { threads: Arc::new(PoolThreads { workers, open_listeners, max_listeners }) })
    }

    /// Starts a pool with a worker thread for each processor core that this process may use.
    ///
    /// # Errors
    /// As [`new`](Self::new).
    pub fn for_each_core() -> Result<Self, ForwardError> {
        Self::new(available_cores())
    }

    /// Returns the number of worker threads.
    #[must_use]
    pub fn threads(&self) -> usize {
        self.threads.workers.len()
    }

    /// Returns the runtime of a worker thread; a number beyond the last thread starts over.
    pub(super) fn runtime(&self, number: usize) -> &Handle {
        &self.threads.workers[number % self.threads.workers.len()].runtime
    }

    /// Counts the listening sockets of a forwarder that has `given` ones and can open more on their
    /// port; see [listening sockets](Self#listening-sockets).
    pub(super) fn reserve_listeners(&self, given: usize, can_open: bool) -> ListenerReservation {
        let wanted = if can_open { self.threads().max(given) } else { given };
        let PoolThreads { open_listeners, max_listeners, .. } = &*self.threads;
        // Two forwarders that start at the same time may both pass: the limit is not exact.
        let is_within = open_listeners.load(Ordering::Relaxed) + wanted <= *max_listeners;
        let count = if is_within { wanted } else { given };
        let earlier = open_listeners.fetch_add(count, Ordering::Relaxed);
        ListenerReservation { pool: self.clone(), count, first_worker: earlier }
    }
}

impl fmt::Debug for WorkerPool {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("WorkerPool").field("threads", &self.threads()).finish_non_exhaustive()
    }
}

/// The threads that a forwarder runs on.
#[derive(Clone, Debug)]
pub(super) enum WorkerChoice {
    /// So many threads of its own.
    Own(usize),
    /// The threads of a pool.
    Shared(WorkerPool),
}

impl WorkerChoice {
    /// Returns the pool to run on; starts it if the forwarder has threads of its own.
    pub(super) fn pool(self) -> Result<WorkerPool, ForwardError> {
        match self {
            Self::Own(threads) => WorkerPool::new(threads),
            Self::Shared(pool) => Ok(pool),
        }
    }
}

impl Default for WorkerChoice {
    fn default() -> Self {
        Self::Own(available_cores())
    }
}

/// The listening sockets of a forwarder, counted in its pool until this is dropped.
#[derive(Debug)]
pub(super) struct ListenerReservation {
    pub(super) pool: WorkerPool,
    /// The number of listening sockets.
    pub(super) count: usize,
    /// A worker to begin with, so that forwarders with few sockets are spread over the workers.
    pub(super) first_worker: usize,
}

impl Drop for ListenerReservation {
    fn drop(&mut self) {
        self.pool.threads.open_listeners.fetch_sub(self.count, Ordering::Relaxed);
    }
}

/// Returns the number of processor cores that this process may use, up to the most threads of a pool; 1
/// if the system does not say.
fn available_cores() -> usize {
    thread::available_parallelism().map_or(1, usize::from).min(MAX_WORKERS)
}

/// Checks a number of worker threads, as a pool does that starts.
///
/// # Errors
/// [`SettingError`] if the number is 0 or above 1024.
pub(crate) fn validate_workers(workers: usize) -> Result<(), SettingError> {
    check_range("workers", workers, 1..=MAX_WORKERS).map(drop)
}

#[cfg(all(test, not(lvs_loom)))]
mod tests {
    use super::*;

    #[test]
    fn forwarders_beyond_the_share_of_descriptors_have_one_listening_socket() {
        let mut pool = WorkerPool::new(2).expect("two threads");
        Arc::get_mut(&mut pool.threads).expect("the only handle").max_listeners = 5;
        let counts = |given, can_open| {
            let reservation = pool.reserve_listeners(given, can_open);
            let count = reservation.count;
            (count, reservation)
        };
        let (first, first_reservation) = counts(1, true);
        let (inherited, _inherited_reservation) = counts(1, false);
        let (second, _second_reservation) = counts(1, true);
        let (third, _third_reservation) = counts(1, true);
        assert_eq!((first, inherited, second, third), (2, 1, 2, 1));
        drop(first_reservation);
        assert_eq!(counts(1, true).0, 1, "4 of 5 are open, and two more would be 6");
        assert_eq!(counts(3, true).0, 3, "sockets that are open already are all served");
    }

    #[test]
    fn the_threads_end_with_the_last_handle() {
        let pool = WorkerPool::new(2).expect("two threads");
        let (sender, ended) = std::sync::mpsc::channel::<()>();
        // Dropped by the runtime of the thread, when the thread ends.
        pool.runtime(1).spawn(async move {
            let _sender = sender;
            std::future::pending::<()>().await;
        });
        let clone = pool.clone();
        drop(pool);
        assert_eq!(clone.threads(), 2);
        drop(clone);
        let ended = ended.recv_timeout(std::time::Duration::from_secs(60));
        assert_eq!(ended, Err(std::sync::mpsc::RecvTimeoutError::Disconnected));
    }

    #[tokio::test]
    async fn a_pool_that_cannot_be_started_is_dropped_within_a_task() {
        drop([WorkerRuntime::build(), WorkerRuntime::build()]);
    }
}
