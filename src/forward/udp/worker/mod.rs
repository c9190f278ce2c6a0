//! A worker: serves one listening socket on a worker thread, with a flow table of its own.
//!
//! Each round first serves the sockets of backends and then receives one batch of datagrams of
//! clients. Between two rounds the runtime asks the kernel for events. So when a backend refuses a
//! datagram (by ICMP, which this machine sends before `send(2)` returns), the datagram is still in the
//! buffer of the batch and can go to another backend.
//!
//! The sockets of backends are in an epoll instance of the worker, which the runtime watches like a
//! socket: their events come with the flow, and a flow needs no task.

mod one_packet;
mod replies;
mod requests;

use std::future::poll_fn;
use std::io;
use std::mem::MaybeUninit;
use std::os::fd::AsFd;
use std::pin::pin;
use std::sync::Arc;
use std::task::{Context, Poll};
use std::time::{Duration, Instant};

use rustix::event::{Timespec, epoll};
use tokio::io::Interest;
use tokio::io::unix::AsyncFd;
use tokio::sync::watch;
use tokio::time::{sleep_until, timeout_at};
use tracing::warn;

use super::flow_table::FlowId;
use super::flows::WorkerFlows;
use super::metrics::UdpWorkerMetrics;
use super::outbox::Outbox;
use super::settings::UdpContext;
use crate::Flow;
use crate::forward::DrainReport;
use crate::forward::accept_backoff::AcceptBackoff;
use crate::forward::clock::now;
use crate::forward::control::{ForwarderControl, ForwarderPhase};
use crate::forward::counters::add_relaxed;
use crate::sys::mmsg::{DatagramBatch, ReceivedDatagram, set_udp_gro};
use crate::sys::shared_fd::SharedFd;

/// The state of a worker that has, or had a moment ago, flows.
pub(super) struct UdpWorker {
    context: Arc<UdpContext>,
    metrics: Arc<UdpWorkerMetrics>,
    /// Where datagrams of clients are received; `None` once a successor receives them.
    listener: Option<AsyncFd<SharedFd>>,
    /// The listening socket, from which replies are sent.
    socket: SharedFd,
    /// The sockets of backends.
    epoll: AsyncFd<SharedFd>,
    flows: WorkerFlows,
    /// The last batch of datagrams of clients.
    incoming: DatagramBatch,
    /// The flows of the datagrams in `incoming`, sorted by flow.
    placed: Vec<PlacedDatagram>,
    /// The last batch of datagrams of backends.
    replies: DatagramBatch,
    outbox: Outbox,
    /// Whether the listener receives coalesced datagrams.
    coalescing: bool,
    draining: bool,
    has_pending_moves: bool,
    /// Whether sockets of backends may be readable that `epoll` does not report again.
    has_more_replies: bool,
    receive_backoff: AcceptBackoff,
    /// No datagrams of clients are received until then, after the system failed to.
    paused_until: Option<Instant>,
    /// Since when there are no flows.
    empty_since: Option<Instant>,
    /// The flows whose sockets are readable in this round.
    ready: Vec<FlowId>,
}

/// A received datagram of a client with its flow.
#[derive(Debug)]
struct PlacedDatagram {
    flow_id: FlowId,
    /// The index in the batch.
    index: u32,
    /// With one-packet scheduling: the scheduler's flow without the backends that refused the
    /// datagram, and the number of attempts.
    one_packet_retry: Option<Box<(Flow, u32)>>,
}

/// How the rounds of a worker ended.
enum RoundsEnd {
    /// There have been no flows for [`BUFFER_RELEASE_TIME`]; with the listener.
    Idle(AsyncFd<SharedFd>),
    Drained(DrainReport),
}

/// The number of datagrams received by one system call.
const RECEIVE_BATCH: usize = 64;

const MAX_EPOLL_EVENTS: usize = 256;

/// The interval at which a worker with flows checks whether the set has changed.
const SET_CHECK_INTERVAL: Duration = Duration::from_millis(100);

/// How long a worker without flows keeps its buffers.
const BUFFER_RELEASE_TIME: Duration = Duration::from_secs(10);

/// Serves a listening socket until a drain has ended. While there are no datagrams, the worker has
/// nothing but the socket.
pub(super) async fn run_worker(
    context: Arc<UdpContext>,
    metrics: Arc<UdpWorkerMetrics>,
    mut listener: AsyncFd<SharedFd>,
    control: Arc<ForwarderControl>,
) -> DrainReport {
    let mut phase = control.subscribe();
    let mut backoff = AcceptBackoff::default();
    loop {
        tokio::select! {
            biased;
            // Without flows there is nothing to drain.
            _ = phase.wait_for(ForwarderPhase::is_draining) => return DrainReport::default(),
            _ = listener.readable() => {}
        }
        // Registered here: a failure leaves the listener as it is.
        let epoll = epoll::create(epoll::CreateFlags::CLOEXEC).map_err(io::Error::from);
        match epoll.and_then(|epoll| SharedFd::from(epoll).register_readable()) {
            Ok(epoll) => {
                backoff.reset();
                let worker = UdpWorker::new(&context, &metrics, listener, epoll);
                match worker.run(&mut phase).await {
                    RoundsEnd::Idle(idle) => listener = idle,
                    RoundsEnd::Drained(report) => return report,
                }
            }
            Err(error) => {
                let until = pause_receiving(&context, &metrics, &mut backoff, &error);
                let draining = phase.wait_for(ForwarderPhase::is_draining);
                let _ = timeout_at(until.into(), draining).await;
            }
        }
    }
}

/// Counts a failure to receive, logs the first of a series, and returns when to try again.
fn pause_receiving(
    context: &UdpContext,
    metrics: &UdpWorkerMetrics,
    backoff: &mut AcceptBackoff,
    error: &io::Error,
) -> Instant {
    add_relaxed(&metrics.failed_receives, 1);
    if backoff.is_reset() {
        let (service, address) = (&context.settings.name, context.address);
        warn!("service {service}: cannot receive datagrams on {address}: {error}; retrying");
    }
    now() + backoff.next_delay()
}

impl UdpWorker {
    fn new(
        context: &Arc<UdpContext>,
        metrics: &Arc<UdpWorkerMetrics>,
        listener: AsyncFd<SharedFd>,
        epoll: AsyncFd<SharedFd>,
    ) -> Self {
        let socket = listener.get_ref().clone();
        // Kernels before 5.0 do not support GRO: then each datagram is received separately.
        let coalescing = context.settings.coalesces_always()
            && !context.settings.options.one_packet
            && set_udp_gro(socket.as_fd(), true).is_ok();
        Self {
            context: Arc::clone(context),
            metrics: Arc::clone(metrics),
            listener: Some(listener),
            socket,
            flows: WorkerFlows::new(
                Arc::clone(context),
                Arc::clone(metrics),
                epoll.get_ref().clone(),
            ),
            epoll,
            incoming: DatagramBatch::new(RECEIVE_BATCH),
            placed: Vec::with_capacity(RECEIVE_BATCH),
            replies: DatagramBatch::new(RECEIVE_BATCH),
            outbox: Outbox::default(),
            coalescing,
            draining: false,
            has_pending_moves: false,
            has_more_replies: false,
            receive_backoff: AcceptBackoff::default(),
            paused_until: None,
            empty_since: None,
            ready: Vec::with_capacity(MAX_EPOLL_EVENTS),
        }
    }

    /// Forwards datagrams until a drain has ended, or there have been no flows for a while.
    async fn run(mut self, phase: &mut watch::Receiver<ForwarderPhase>) -> RoundsEnd {
        let mut timer = pin!(sleep_until(now().into()));
        let mut is_armed = false;
        self.apply_phase(*phase.borrow_and_update());
        loop {
            if self.draining
                && let Some(cut) = self.finish_drain(&phase.borrow(), now())
            {
                let finished = self.flows.finished;
                return RoundsEnd::Drained(DrainReport { finished, cut });
            }
            let deadline = self.next_deadline(&phase.borrow());
            // A timer that fires early costs a round, to set it for each datagram costs more.
            if let Some(deadline) = deadline
                && (!is_armed || deadline < timer.deadline().into_std())
            {
                timer.as_mut().reset(deadline.into());
                is_armed = true;
            }
            // The other services of the thread have their turn, and the runtime asks the kernel for
            // events before the next round; a worker that waits leaves both to the runtime.
            if poll_fn(|cx| Poll::Ready(self.poll_sockets(cx).is_ready())).await {
                tokio::task::yield_now().await;
            }
            tokio::select! {
                biased;
                // The sender is never dropped: the worker holds it.
                _ = phase.changed() => self.apply_phase(*phase.borrow_and_update()),
                () = poll_fn(|cx| self.poll_sockets(cx)) => {}
                () = &mut timer, if is_armed => is_armed = false,
            }
            let now = now();
            self.flows.refresh_snapshot();
            self.find_readable_flows();
            self.serve_backends(now);
            self.has_pending_moves = self.flows.move_stale_flows(now);
            self.flows.expire_flows(now);
            self.serve_clients(now);
            if self.flows.table.len() != 0 {
                self.empty_since = None;
            } else if now >= *self.empty_since.get_or_insert(now) + BUFFER_RELEASE_TIME
                && let Some(listener) = self.listener.take()
            {
                return RoundsEnd::Idle(listener);
            }
        }
    }

    /// Waits until a socket is readable, or there is something left to do. Takes `&mut self`, since the
    /// buffers cannot be shared between threads.
    fn poll_sockets(&mut self, cx: &mut Context<'_>) -> Poll<()> {
        let is_ready = |fd: &AsyncFd<SharedFd>, cx: &mut Context<'_>| {
            // An error means that the runtime ends: the task is dropped.
            matches!(fd.poll_read_ready(cx), Poll::Ready(Ok(_)))
        };
        let mut is_woken = self.has_pending_moves || self.has_more_replies;
        is_woken |= is_ready(&self.epoll, cx);
        if let (Some(listener), None) = (&self.listener, self.paused_until) {
            is_woken |= is_ready(listener, cx);
        }
        if is_woken { Poll::Ready(()) } else { Poll::Pending }
    }

    /// Collects the flows whose sockets are readable.
    fn find_readable_flows(&mut self) {
        self.ready.clear();
        let (ready, is_certain) = (&mut self.ready, self.has_more_replies);
        self.has_more_replies = false;
        let mut collect = |epoll: &SharedFd| {
            let mut events = [const { MaybeUninit::uninit() }; MAX_EPOLL_EVENTS];
            let (events, _) = epoll::wait(epoll, &mut events, Some(&Timespec::default()))?;
            ready.extend(events.iter().map(|event| FlowId::from_u64(event.data.u64())));
            Ok::<_, io::Error>(events.len())
        };
        if is_certain {
            // Fails only when interrupted by a signal.
            self.has_more_replies = collect(self.epoll.get_ref()).is_err();
        } else {
            // After fewer events than fit, the epoll instance is readable again with the next event.
            let _ = self.epoll.try_io(Interest::READABLE, |epoll| match collect(epoll)? {
                MAX_EPOLL_EVENTS => Ok(()),
                _ => Err(io::ErrorKind::WouldBlock.into()),
            });
        }
    }

    /// Returns when the next round is due if no socket is readable before.
    fn next_deadline(&self, phase: &ForwarderPhase) -> Option<Instant> {
        let is_empty = self.flows.table.len() == 0;
        let expiry = self.flows.table.next_deadline();
        // 1 ms late, so that the flow has expired by the clock of the next round.
        let expiry = expiry.into_iter().chain(phase.deadline());
        let expiry = expiry.map(|deadline| deadline + Duration::from_millis(1));
        let set_check = (!is_empty).then(|| now() + SET_CHECK_INTERVAL);
        let release = self.empty_since.map(|since| since + BUFFER_RELEASE_TIME);
        expiry.chain(set_check).chain(release).chain(self.paused_until).min()
    }

    fn apply_phase(&mut self, phase: ForwarderPhase) {
        if phase.is_draining() && !self.draining {
            self.draining = true;
            self.flows.finished = 0;
        }
        if phase.is_handed_over() {
            self.listener = None;
        }
    }

    /// Cuts the remaining flows at the deadline of the drain, and returns their number when the
    /// drain has ended.
    fn finish_drain(&mut self, phase: &ForwarderPhase, now: Instant) -> Option<u64> {
        let is_over = self.flows.table.len() == 0 || phase.deadline().is_some_and(|at| at <= now);
        is_over.then(|| self.flows.cut_all_flows())
    }
}

/// Returns the number of datagrams in a possibly coalesced datagram.
fn datagram_count(received: &ReceivedDatagram) -> u64 {
    match received.segment_size {
        0 => 1,
        segment => received.len.div_ceil(segment) as u64,
    }
}
