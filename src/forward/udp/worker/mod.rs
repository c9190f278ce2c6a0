//! A worker: a thread with a listening socket, a flow table, and a loop around `epoll_wait(2)`.
//!
//! Each round first serves the sockets of backends and then receives one batch of datagrams of
//! clients. So when a backend refuses a datagram (by ICMP, which this machine sends before
//! `send(2)` returns), the datagram is still in the buffer of the batch and can go to another
//! backend.

mod one_packet;
mod replies;
mod requests;

use std::io;
use std::net::UdpSocket;
use std::os::fd::{AsFd, OwnedFd};
use std::sync::Arc;
use std::time::{Duration, Instant};

use rustix::event::{EventfdFlags, Timespec, epoll, eventfd};

use super::client_limit::ClientFlowLimit;
use super::counters::UdpWorkerMetrics;
use super::flow_table::FlowId;
use super::flows::WorkerFlows;
use super::handle::{UdpControl, UdpPhase};
use super::outbox::Outbox;
use super::settings::UdpSettings;
use crate::Flow;
use crate::forward::DrainReport;
use crate::forward::clock::now;
use crate::sys::mmsg::{DatagramBatch, ReceivedDatagram, enable_pktinfo, set_udp_gro};

/// The state of a worker thread.
#[derive(Debug)]
pub(super) struct UdpWorker {
    settings: Arc<UdpSettings>,
    control: Arc<UdpControl>,
    metrics: Arc<UdpWorkerMetrics>,
    listener: UdpSocket,
    wakeup_fd: Arc<OwnedFd>,
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
    /// A successor receives the datagrams of clients.
    handed_over: bool,
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

/// The events that woke a worker, apart from readable sockets of backends.
#[derive(Debug, Default)]
struct WakeupSources {
    listener_readable: bool,
    control_signalled: bool,
}

const LISTENER_TOKEN: u64 = u64::MAX;
const WAKEUP_TOKEN: u64 = u64::MAX - 1;

/// The number of datagrams received by one system call.
const RECEIVE_BATCH: usize = 64;

const MAX_EPOLL_EVENTS: usize = 256;

/// The interval at which an idle worker checks whether the set has changed.
const SET_CHECK_INTERVAL: Duration = Duration::from_millis(100);

impl UdpWorker {
    pub(super) fn new(
        settings: &Arc<UdpSettings>,
        control: &Arc<UdpControl>,
        client_limit: &Arc<ClientFlowLimit>,
        listener: UdpSocket,
        workers: usize,
    ) -> io::Result<Self> {
        listener.set_nonblocking(true)?;
        let address = listener.local_addr()?;
        if address.ip().is_unspecified() {
            enable_pktinfo(listener.as_fd(), address.is_ipv6())?;
        }
        // Kernels before 5.0 do not support GRO: then each datagram is received separately.
        let coalescing = settings.coalesces_always()
            && !settings.options.one_packet
            && set_udp_gro(listener.as_fd(), true).is_ok();
        let epoll = epoll::create(epoll::CreateFlags::CLOEXEC)?;
        let wakeup_fd = Arc::new(eventfd(0, EventfdFlags::CLOEXEC | EventfdFlags::NONBLOCK)?);
        let register = |fd: &dyn AsFd, token| {
            epoll::add(&epoll, fd, epoll::EventData::new_u64(token), epoll::EventFlags::IN)
        };
        register(&listener, LISTENER_TOKEN)?;
        register(&wakeup_fd, WAKEUP_TOKEN)?;
        let metrics = Arc::new(UdpWorkerMetrics::default());
        control.register_worker(Arc::clone(&wakeup_fd), Arc::clone(&metrics));
        Ok(Self {
            settings: Arc::clone(settings),
            control: Arc::clone(control),
            flows: WorkerFlows::new(
                Arc::clone(settings),
                Arc::clone(client_limit),
                Arc::clone(&metrics),
                epoll,
                workers,
            ),
            metrics,
            listener,
            wakeup_fd,
            incoming: DatagramBatch::new(RECEIVE_BATCH),
            placed: Vec::with_capacity(RECEIVE_BATCH),
            replies: DatagramBatch::new(RECEIVE_BATCH),
            outbox: Outbox::default(),
            coalescing,
            draining: false,
            handed_over: false,
            ready: Vec::with_capacity(MAX_EPOLL_EVENTS),
        })
    }

    /// Forwards datagrams until a drain has ended.
    pub(super) fn run(mut self) -> DrainReport {
        let mut events = Vec::with_capacity(MAX_EPOLL_EVENTS);
        let mut has_pending_moves = false;
        loop {
            let wakeup = self.wait_for_events(has_pending_moves, &mut events);
            let now = now();
            if wakeup.control_signalled {
                let _ = rustix::io::read(&self.wakeup_fd, &mut [0; 8]);
                self.apply_drain();
            }
            self.flows.refresh_snapshot();
            self.serve_backends(now);
            has_pending_moves = self.flows.move_stale_flows(now);
            self.flows.expire_flows(now);
            if wakeup.listener_readable && !self.handed_over {
                self.serve_clients(now);
            }
            if self.draining
                && let Some(cut) = self.finish_drain(now)
            {
                return DrainReport { finished: self.flows.finished, cut };
            }
        }
    }

    fn wait_for_events(
        &mut self,
        has_pending_moves: bool,
        events: &mut Vec<epoll::Event>,
    ) -> WakeupSources {
        let timeout = self.epoll_timeout(has_pending_moves);
        events.clear();
        let spare = rustix::buffer::spare_capacity(events);
        // Fails only when interrupted by a signal, and then the next round waits again.
        let _ = epoll::wait(self.flows.epoll(), spare, timeout.as_ref());
        let mut sources = WakeupSources::default();
        self.ready.clear();
        for event in events.iter() {
            match event.data.u64() {
                LISTENER_TOKEN => sources.listener_readable = true,
                WAKEUP_TOKEN => sources.control_signalled = true,
                number => self.ready.push(FlowId::from_u64(number)),
            }
        }
        sources
    }

    fn epoll_timeout(&self, has_pending_moves: bool) -> Option<Timespec> {
        let mut timeout = self.flows.table.next_deadline().map(|deadline| {
            // 1 ms late, so that the flow has expired by the clock of the next round.
            deadline.saturating_duration_since(now()) + Duration::from_millis(1)
        });
        if self.flows.table.len() != 0 {
            timeout = Some(timeout.map_or(SET_CHECK_INTERVAL, |time| time.min(SET_CHECK_INTERVAL)));
        }
        if let UdpPhase::Draining { until: Some(until), .. } = self.control.phase() {
            let left = until.saturating_duration_since(now()) + Duration::from_millis(1);
            timeout = Some(timeout.map_or(left, |time| time.min(left)));
        }
        if has_pending_moves {
            timeout = Some(Duration::ZERO);
        }
        timeout.and_then(|time| Timespec::try_from(time).ok())
    }

    fn apply_drain(&mut self) {
        let UdpPhase::Draining { handed_over, .. } = self.control.phase() else { return };
        if !self.draining {
            self.draining = true;
            self.flows.finished = 0;
        }
        if handed_over && !self.handed_over {
            self.handed_over = true;
            // Cannot fail: the listener is registered until the handover.
            let _ = epoll::delete(self.flows.epoll(), &self.listener);
        }
    }

    /// Cuts the remaining flows at the deadline of the drain, and returns their number when the
    /// drain has ended.
    fn finish_drain(&mut self, now: Instant) -> Option<u64> {
        let UdpPhase::Draining { until, .. } = self.control.phase() else { return None };
        let is_over = self.flows.table.len() == 0 || until.is_some_and(|until| until <= now);
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
