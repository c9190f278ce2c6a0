//! [`RunningForwarder`]: the future of a forwarder that serves.

use std::io;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll, ready};
use std::time::Duration;

use tokio::task::JoinHandle;

use super::control::ForwarderControl;
use super::drain_report::DrainReport;
use super::error::ForwardError;
use super::worker_pool::ListenerReservation;

/// A forwarder that serves; a future that is ready when the forwarder has drained after a shutdown.
///
/// Made by [`Forwarder::start`](super::Forwarder::start) and
/// [`UdpForwarder::start`](super::UdpForwarder::start). The forwarder serves whether or not the future
/// is polled.
///
/// # Errors
/// [`ForwardError::Worker`] if a worker panicked.
///
/// # Cancel safety
/// Dropped before it is ready, it closes the listening sockets and cuts everything at once. Leases end as
/// [`Cancelled`](crate::Outcome::Cancelled), and the counters stay exact.
#[derive(Debug)]
#[must_use = "a dropped forwarder cuts its connections"]
pub struct RunningForwarder {
    workers: Vec<JoinHandle<DrainReport>>,
    report: DrainReport,
    has_panicked: bool,
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
        Self { workers, report, has_panicked: false, control, _listeners: listeners }
    }
}

impl Future for RunningForwarder {
    type Output = Result<DrainReport, ForwardError>;

    fn poll(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Self::Output> {
        while let Some(worker) = self.workers.last_mut() {
            match ready!(Pin::new(worker).poll(cx)) {
                Ok(report) => self.report += report,
                // The other workers run on until they end by themselves.
                Err(_) => self.has_panicked = true,
            }
            self.workers.pop();
        }
        Poll::Ready(match self.has_panicked {
            false => Ok(self.report),
            true => Err(ForwardError::Worker { source: io::Error::other("a worker panicked") }),
        })
    }
}

impl Drop for RunningForwarder {
    fn drop(&mut self) {
        // Without effect on workers that have ended.
        self.control.start_drain(Duration::ZERO, false);
    }
}

/// Gives the listening sockets up if a worker panics: the kernel must not queue clients for a worker
/// that does not accept any more.
pub(super) struct CloseSocketsOnPanic(pub(super) Arc<ForwarderControl>);

impl Drop for CloseSocketsOnPanic {
    fn drop(&mut self) {
        if std::thread::panicking() {
            self.0.close_sockets();
        }
    }
}
