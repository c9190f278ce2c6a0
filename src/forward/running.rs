//! [`RunningForwarder`]: the future of a forwarder that serves.

use std::io;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll, ready};
use std::time::Duration;

use tokio::task::JoinHandle;
use tokio::time::sleep;
use tracing::error;

use super::control::ForwarderControl;
use super::drain_report::DrainReport;
use super::error::ForwardError;
use super::worker_pool::ListenerReservation;
use crate::panics::catch_panic;
use crate::sys::shared_fd::SharedFd;

/// A forwarder that serves; a future that is ready when the forwarder has drained after a shutdown.
///
/// Made by [`Forwarder::start`](super::Forwarder::start) and
/// [`UdpForwarder::start`](super::UdpForwarder::start). The forwarder serves whether or not the future
/// is polled. A worker that panics is logged, and starts again; what it served is cut.
///
/// # Errors
/// [`ForwardError::Worker`] if a worker ended before the drain, since its thread ended.
///
/// # Cancel safety
/// Dropped before it is ready, it closes the listening sockets and cuts everything at once. Leases end as
/// [`Cancelled`](crate::Outcome::Cancelled), and the counters stay exact.
#[derive(Debug)]
#[must_use = "a dropped forwarder cuts its connections"]
pub struct RunningForwarder {
    workers: Vec<JoinHandle<DrainReport>>,
    report: DrainReport,
    has_died: bool,
    control: Arc<ForwarderControl>,
    /// Keeps the worker threads running.
    _listeners: ListenerReservation,
}

impl RunningForwarder {
    pub(super) fn new(
        workers: Vec<JoinHandle<DrainReport>>,
        control: Arc<ForwarderControl>,
        listeners: ListenerReservation,
    ) -> Self {
        let report = DrainReport::default();
        Self { workers, report, has_died: false, control, _listeners: listeners }
    }
}

impl Future for RunningForwarder {
    type Output = Result<DrainReport, ForwardError>;

    fn poll(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Self::Output> {
        while let Some(worker) = self.workers.last_mut() {
            match ready!(Pin::new(worker).poll(cx)) {
                Ok(report) => self.report += report,
                // The other workers run on until they end by themselves.
                Err(_) => self.has_died = true,
            }
            self.workers.pop();
        }
        Poll::Ready(match self.has_died {
            false => Ok(self.report),
            true => Err(ForwardError::Worker {
                source: io::Error::other("a worker ended before the drain"),
            }),
        })
    }
}

impl Drop for RunningForwarder {
    fn drop(&mut self) {
        // Without effect on workers that have ended.
        self.control.start_drain(Duration::ZERO, false);
    }
}

/// The pause before a worker starts again.
const WORKER_RESTART_DELAY: Duration = Duration::from_millis(100);

/// Runs a worker. If it panics, what it served is cut, and it starts again on the listening socket with
/// this index: the kernel goes on queueing clients for the socket meanwhile.
pub(super) async fn run_supervised<L, F: Future<Output = DrainReport>>(
    service: &str,
    control: &ForwarderControl,
    (index, mut listener): (usize, L),
    register: impl Fn(SharedFd) -> io::Result<L>,
    run: impl Fn(L) -> F,
) -> DrainReport {
    loop {
        let message = match catch_panic(run(listener)).await {
            Ok(report) => return report,
            Err(message) => message,
        };
        control.count_worker_restart();
        error!("service {service}: a worker panicked, and starts again: {message}");
        sleep(WORKER_RESTART_DELAY).await;
        // None in a drain: there is nothing left to serve.
        let Some(socket) = control.socket(index) else { return DrainReport::default() };
        listener = match register(socket) {
            Ok(listener) => listener,
            Err(error) => {
                error!("service {service}: the worker cannot start again: {error}");
                // The kernel must not queue clients for a worker that does not accept any more.
                control.close_sockets();
                return DrainReport::default();
            }
        };
    }
}
