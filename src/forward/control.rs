//! What the handle of a forwarder shares with its workers: whether it serves or drains, and its
//! listening sockets.

use std::fmt;
use std::io;
use std::os::fd::{AsFd, OwnedFd};
use std::time::{Duration, Instant};

use tokio::sync::watch;

use super::clock::now;
use crate::sync::{AtomicU64, Mutex, Ordering, lock};
use crate::sys::shared_fd::SharedFd;

/// Whether a forwarder serves or drains.
#[derive(Clone, Copy, Debug)]
pub(super) enum ForwarderPhase {
    /// The forwarder serves clients.
    Serving,
    /// The forwarder starts nothing new, and waits for what is open.
    Draining {
        /// When what is open is cut; `None` if the time to drain is too long to be added to the clock.
        deadline: Option<Instant>,
        /// Whether a successor receives what clients send.
        handed_over: bool,
    },
}

/// The state that the handles, the [`RunningForwarder`](super::RunningForwarder) and the workers of a
/// forwarder share.
pub(super) struct ForwarderControl {
    phase: watch::Sender<ForwarderPhase>,
    /// The listening sockets while the forwarder serves.
    sockets: Mutex<Vec<SharedFd>>,
    worker_restarts: AtomicU64,
}

impl ForwarderControl {
    /// Begins a drain, or changes the deadline of one. A handover is final, also if a shutdown follows.
    pub(super) fn start_drain(&self, within: Duration, hand_over: bool) {
        self.close_sockets();
        let deadline = now().checked_add(within);
        self.phase.send_modify(|phase| {
            let handed_over = hand_over || phase.is_handed_over();
            *phase = ForwarderPhase::Draining { deadline, handed_over };
        });
    }

    pub(super) fn subscribe(&self) -> watch::Receiver<ForwarderPhase> {
        self.phase.subscribe()
    }

    /// Sets the listening sockets that [`duplicate_sockets`](Self::duplicate_sockets) duplicates.
    pub(super) fn set_sockets(&self, sockets: Vec<SharedFd>) {
        *lock(&self.sockets) = sockets;
        // A shutdown before the start has closed them already.
        if self.phase.borrow().is_draining() {
            self.close_sockets();
        }
    }

    /// Gives up the listening sockets: each is closed when its workers have done so too. While one is
    /// open, the kernel goes on queueing clients for it.
    pub(super) fn close_sockets(&self) {
        lock(&self.sockets).clear();
    }

    /// Returns a listening socket; `None` before the start and after a shutdown.
    pub(super) fn socket(&self, index: usize) -> Option<SharedFd> {
        lock(&self.sockets).get(index).cloned()
    }

    pub(super) fn count_worker_restart(&self) {
        self.worker_restarts.fetch_add(1, Ordering::Relaxed);
    }

    /// Returns how often a worker has panicked and started again.
    pub(super) fn worker_restarts(&self) -> u64 {
        self.worker_restarts.load(Ordering::Relaxed)
    }

    /// Returns duplicates of the listening sockets; none before the start and after a shutdown.
    ///
    /// # Errors
    /// The error of the system if there are no descriptors left.
    pub(super) fn duplicate_sockets(&self) -> io::Result<Vec<OwnedFd>> {
        lock(&self.sockets).iter().map(|socket| socket.as_fd().try_clone_to_owned()).collect()
    }
}

impl Default for ForwarderControl {
    fn default() -> Self {
        Self {
            phase: watch::Sender::new(ForwarderPhase::Serving),
            sockets: Mutex::default(),
            worker_restarts: AtomicU64::default(),
        }
    }
}

impl fmt::Debug for ForwarderControl {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let phase = *self.phase.borrow();
        f.debug_struct("ForwarderControl").field("phase", &phase).finish_non_exhaustive()
    }
}

impl ForwarderPhase {
    pub(super) fn is_draining(&self) -> bool {
        matches!(self, Self::Draining { .. })
    }

    pub(super) fn is_handed_over(&self) -> bool {
        matches!(self, Self::Draining { handed_over: true, .. })
    }

    /// Returns when what is open is cut; `None` for never.
    pub(super) fn deadline(&self) -> Option<Instant> {
        match self {
            Self::Serving => None,
            Self::Draining { deadline, .. } => *deadline,
        }
    }
}
