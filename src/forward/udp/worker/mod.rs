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

use super::Settings;
use super::clients::Clients;
use super::counters::Tally;
use super::flows::Flows;
use super::handle::{Control, Phase};
use super::outbox::Outbox;
use super::table::FlowId;
use crate::Flow;
use crate::forward::Drained;
use crate::forward::clock::now;
use crate::sys::mmsg::{Batch, Received, coalesce, tell_destination};

/// A worker about to run.
#[derive(Debug)]
pub(super) struct Worker {
    settings: Arc<Settings>,
    control: Arc<Control>,
    tally: Arc<Tally>,
    listener: UdpSocket,
    bell: Arc<OwnedFd>,
    flows: Flows,
    /// From clients.
    incoming: Batch,
    /// Where each of those goes, in the order of flows; for as long as they are at hand.
    placed: Vec<Placed>,
    /// From backends.
    replies: Batch,
    outbox: Outbox,
    coalescing: bool,
    draining: bool,
    /// Another receives what clients send.
    deaf: bool,
    ready: Vec<FlowId>,
}

/// A datagram that has a flow.
#[derive(Debug)]
struct Placed {
    id: FlowId,
    index: u32,
    /// Under one-packet scheduling: who refused it.
    tried: Option<Box<(Flow, u32)>>,
}

/// What a worker was woken by, beside backends.
#[derive(Debug, Default)]
struct Woken {
    from_clients: bool,
    rung: bool,
}

const LISTENER: u64 = u64::MAX;
const BELL: u64 = u64::MAX - 1;

/// Datagrams taken with one call.
const BATCH: usize = 64;

const EVENTS: usize = 256;

/// How soon an idle worker notices that the set has changed.
const TICK: Duration = Duration::from_millis(100);

impl Worker {
    pub(super) fn new(
        settings: &Arc<Settings>,
        control: &Arc<Control>,
        clients: &Arc<Clients>,
        (listener, workers): (UdpSocket, usize),
    ) -> io::Result<Self> {
        listener.set_nonblocking(true)?;
        let address = listener.local_addr()?;
        if address.ip().is_unspecified() {
            tell_destination(listener.as_fd(), address.is_ipv6())?;
        }
        // Kernels before 5.0 cannot: then every datagram comes by itself.
        let coalescing = settings.coalesces_always()
            && !settings.one_packet
            && coalesce(listener.as_fd(), true).is_ok();
        let epoll = epoll::create(epoll::CreateFlags::CLOEXEC)?;
        let bell = Arc::new(eventfd(0, EventfdFlags::CLOEXEC | EventfdFlags::NONBLOCK)?);
        let watch = |fd: &dyn AsFd, data| {
            epoll::add(&epoll, fd, epoll::EventData::new_u64(data), epoll::EventFlags::IN)
        };
        watch(&listener, LISTENER)?;
        watch(&bell, BELL)?;
        let tally = Arc::new(Tally::default());
        control.enter(Arc::clone(&bell), Arc::clone(&tally));
        Ok(Self {
            settings: Arc::clone(settings),
            control: Arc::clone(control),
            flows: Flows::new(
                Arc::clone(settings),
                Arc::clone(clients),
                Arc::clone(&tally),
                (epoll, workers),
            ),
            tally,
            listener,
            bell,
            incoming: Batch::new(BATCH),
            placed: Vec::with_capacity(BATCH),
            replies: Batch::new(BATCH),
            outbox: Outbox::default(),
            coalescing,
            draining: false,
            deaf: false,
            ready: Vec::with_capacity(EVENTS),
        })
    }

    /// Serves until the drain is over.
    pub(super) fn run(mut self) -> Drained {
        let mut events = Vec::with_capacity(EVENTS);
        let mut busy = false;
        loop {
            let Woken { from_clients, rung } = self.wait(busy, &mut events);
            let now = now();
            if rung {
                let _ = rustix::io::read(&self.bell, &mut [0; 8]);
                self.begin_drain();
            }
            self.flows.refresh();
            self.serve_backends(now);
            busy = self.flows.move_stale(now);
            self.flows.expire(now);
            if from_clients && !self.deaf {
                self.serve_clients(now);
            }
            if self.draining
                && let Some(cut) = self.finish_drain(now)
            {
                return Drained { finished: self.flows.finished, cut };
            }
        }
    }

    fn wait(&mut self, busy: bool, events: &mut Vec<epoll::Event>) -> Woken {
        let timeout = self.timeout(busy);
        events.clear();
        let spare = rustix::buffer::spare_capacity(events);
        // Nothing but a signal interrupts it, and then the next round waits again.
        let _ = epoll::wait(self.flows.epoll(), spare, timeout.as_ref());
        let mut woken = Woken::default();
        self.ready.clear();
        for event in events.iter() {
            match event.data.u64() {
                LISTENER => woken.from_clients = true,
                BELL => woken.rung = true,
                number => self.ready.push(FlowId::from_u64(number)),
            }
        }
        woken
    }

    fn timeout(&self, busy: bool) -> Option<Timespec> {
        let mut wait = self.flows.table.next_deadline().map(|deadline| {
            // A little late, so that the flow has run out by the clock of the next round.
            deadline.saturating_duration_since(now()) + Duration::from_millis(1)
        });
        if self.flows.table.len() != 0 {
            wait = Some(wait.map_or(TICK, |wait| wait.min(TICK)));
        }
        if let Phase::Draining { until: Some(until), .. } = self.control.phase() {
            let left = until.saturating_duration_since(now()) + Duration::from_millis(1);
            wait = Some(wait.map_or(left, |wait| wait.min(left)));
        }
        if busy {
            wait = Some(Duration::ZERO);
        }
        wait.and_then(|wait| Timespec::try_from(wait).ok())
    }

    fn begin_drain(&mut self) {
        let Phase::Draining { handed_over, .. } = self.control.phase() else { return };
        if !self.draining {
            self.draining = true;
            self.flows.finished = 0;
        }
        if handed_over && !self.deaf {
            self.deaf = true;
            // It is watched until then.
            let _ = epoll::delete(self.flows.epoll(), &self.listener);
        }
    }

    /// How many flows were cut, once the drain is over.
    fn finish_drain(&mut self, now: Instant) -> Option<u64> {
        let Phase::Draining { until, .. } = self.control.phase() else { return None };
        let over = self.flows.table.len() == 0 || until.is_some_and(|until| until <= now);
        over.then(|| self.flows.cut())
    }
}

fn datagrams_in(received: &Received) -> u64 {
    match received.segment {
        0 => 1,
        segment => received.len.div_ceil(segment) as u64,
    }
}
