//! One worker: a thread, a listening socket, a flow table, and a loop around `epoll_wait(2)`.
//!
//! Each round first serves the backends' sockets and then takes one batch of clients' datagrams. So
//! when a backend refuses a datagram (ICMP, which a host of one's own sends before `send(2)` has
//! even returned), that datagram is still at hand and goes to another backend.

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

/// A worker about to run.
#[derive(Debug)]
pub(super) struct UdpWorker {
    settings: Arc<UdpSettings>,
    control: Arc<UdpControl>,
    metrics: Arc<UdpWorkerMetrics>,
    listener: UdpSocket,
    wakeup_fd: Arc<OwnedFd>,
    flows: WorkerFlows,
    /// From clients.
    incoming: DatagramBatch,
    /// Where each of those goes, in the order of flows; for as long as they are at hand.
    placed: Vec<PlacedDatagram>,
    /// From backends.
    replies: DatagramBatch,
    outbox: Outbox,
    coalescing: bool,
    draining: bool,
    /// Another receives what clients send.
    handed_over: bool,
    ready: Vec<FlowId>,
}

/// A datagram that has a flow.
#[derive(Debug)]
struct PlacedDatagram {
    flow_id: FlowId,
    index: u32,
    /// Under one-packet scheduling: who refused it.
    one_packet_retry: Option<Box<(Flow, u32)>>,
}

/// What a worker was woken by, beside backends.
#[derive(Debug, Default)]
struct WakeupSources {
    listener_readable: bool,
    control_signalled: bool,
}

const LISTENER_TOKEN: u64 = u64::MAX;
const WAKEUP_TOKEN: u64 = u64::MAX - 1;

/// Datagrams taken with one call.
const RECEIVE_BATCH: usize = 64;

const MAX_EPOLL_EVENTS: usize = 256;

/// How soon an idle worker notices that the set has changed.
const SET_CHECK_INTERVAL: Duration = Duration::from_millis(100);

impl UdpWorker {
    pub(super) fn new(
        settings: &Arc<UdpSettings>,
        control: &Arc<UdpControl>,
        clients: &Arc<ClientFlowLimit>,
        (listener, workers): (UdpSocket, usize),
    ) -> io::Result<Self> {
        listener.set_nonblocking(true)?;
        let address = listener.local_addr()?;
        if address.ip().is_unspecified() {
            enable_pktinfo(listener.as_fd(), address.is_ipv6())?;
        }
        // Kernels before 5.0 cannot: then every datagram comes by itself.
        let coalescing = settings.coalesces_always()
            && !settings.one_packet
            && set_udp_gro(listener.as_fd(), true).is_ok();
        let epoll = epoll::create(epoll::CreateFlags::CLOEXEC)?;
        let bell = Arc::new(eventfd(0, EventfdFlags::CLOEXEC | EventfdFlags::NONBLOCK)?);
        let watch = |fd: &dyn AsFd, data| {
            epoll::add(&epoll, fd, epoll::EventData::new_u64(data), epoll::EventFlags::IN)
        };
        watch(&listener, LISTENER_TOKEN)?;
        watch(&bell, WAKEUP_TOKEN)?;
        let tally = Arc::new(UdpWorkerMetrics::default());
        control.register_worker(Arc::clone(&bell), Arc::clone(&tally));
        Ok(Self {
            settings: Arc::clone(settings),
            control: Arc::clone(control),
            flows: WorkerFlows::new(
                Arc::clone(settings),
                Arc::clone(clients),
                Arc::clone(&tally),
                (epoll, workers),
            ),
            metrics: tally,
            listener,
            wakeup_fd: bell,
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

    /// Serves until the drain is over.
    pub(super) fn run(mut self) -> DrainReport {
        let mut events = Vec::with_capacity(MAX_EPOLL_EVENTS);
        let mut busy = false;
        loop {
            let WakeupSources { listener_readable: from_clients, control_signalled: rung } =
                self.wait_for_events(busy, &mut events);
            let now = now();
            if rung {
                let _ = rustix::io::read(&self.wakeup_fd, &mut [0; 8]);
                self.apply_drain();
            }
            self.flows.refresh_snapshot();
            self.serve_backends(now);
            busy = self.flows.move_stale_flows(now);
            self.flows.expire_flows(now);
            if from_clients && !self.handed_over {
                self.serve_clients(now);
            }
            if self.draining
                && let Some(cut) = self.finish_drain(now)
            {
                return DrainReport { finished: self.flows.finished, cut };
            }
        }
    }

    fn wait_for_events(&mut self, busy: bool, events: &mut Vec<epoll::Event>) -> WakeupSources {
        let timeout = self.epoll_timeout(busy);
        events.clear();
        let spare = rustix::buffer::spare_capacity(events);
        // Nothing but a signal interrupts it, and then the next round waits again.
        let _ = epoll::wait(self.flows.epoll(), spare, timeout.as_ref());
        let mut woken = WakeupSources::default();
        self.ready.clear();
        for event in events.iter() {
            match event.data.u64() {
                LISTENER_TOKEN => woken.listener_readable = true,
                WAKEUP_TOKEN => woken.control_signalled = true,
                number => self.ready.push(FlowId::from_u64(number)),
            }
        }
        woken
    }

    fn epoll_timeout(&self, busy: bool) -> Option<Timespec> {
        let mut wait = self.flows.table.next_deadline().map(|deadline| {
            // A little late, so that the flow has run out by the clock of the next round.
            deadline.saturating_duration_since(now()) + Duration::from_millis(1)
        });
        if self.flows.table.len() != 0 {
            wait = Some(wait.map_or(SET_CHECK_INTERVAL, |wait| wait.min(SET_CHECK_INTERVAL)));
        }
        if let UdpPhase::Draining { until: Some(until), .. } = self.control.phase() {
            let left = until.saturating_duration_since(now()) + Duration::from_millis(1);
            wait = Some(wait.map_or(left, |wait| wait.min(left)));
        }
        if busy {
            wait = Some(Duration::ZERO);
        }
        wait.and_then(|wait| Timespec::try_from(wait).ok())
    }

    fn apply_drain(&mut self) {
        let UdpPhase::Draining { handed_over, .. } = self.control.phase() else { return };
        if !self.draining {
            self.draining = true;
            self.flows.finished = 0;
        }
        if handed_over && !self.handed_over {
            self.handed_over = true;
            // It is watched until then.
            let _ = epoll::delete(self.flows.epoll(), &self.listener);
        }
    }

    /// How many flows were cut, once the drain is over.
    fn finish_drain(&mut self, now: Instant) -> Option<u64> {
        let UdpPhase::Draining { until, .. } = self.control.phase() else { return None };
        let over = self.flows.table.len() == 0 || until.is_some_and(|until| until <= now);
        over.then(|| self.flows.cut_all_flows())
    }
}

fn datagram_count(received: &ReceivedDatagram) -> u64 {
    match received.segment_size {
        0 => 1,
        segment => received.len.div_ceil(segment) as u64,
    }
}
