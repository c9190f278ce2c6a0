//! One worker: a thread, a listening socket, a flow table, and a loop around `epoll_wait(2)`.
//!
//! Each round first serves the backends' sockets and then takes one batch of clients' datagrams. So
//! when a backend refuses a datagram (ICMP, which a host of one's own sends before `send(2)` has
//! even returned), that datagram is still at hand and goes to another backend.

use std::io;
use std::net::UdpSocket;
use std::ops::Range;
use std::os::fd::{AsFd, OwnedFd};
use std::sync::Arc;
use std::time::{Duration, Instant};

use rustix::event::{EventfdFlags, PollFd, PollFlags, Timespec, epoll, eventfd, poll};
use rustix::net::{SendFlags, send};
use tracing::warn;

use super::Settings;
use super::clients::Clients;
use super::counters::{End, Loss, Shed, Tally, add};
use super::flows::Flows;
use super::handle::{Control, Phase};
use super::outbox::{Fate, Note, Outbox, Then};
use super::socket::{is_local, is_unreachable};
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

/// Replies taken from one backend's socket with one call.
const REPLIES: usize = 16;

const EVENTS: usize = 256;

/// So many datagrams of one sender and size in a row look like a run that came apart on its way.
const RUN: usize = 4;

/// How soon an idle worker notices that the set has changed.
const TICK: Duration = Duration::from_millis(100);

/// How long a full send buffer of the listener is waited for.
const SEND_PATIENCE: Timespec = Timespec { tv_sec: 0, tv_nsec: 1_000_000 };

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
            if from_clients {
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
        if let Phase::Draining { until: Some(until) } = self.control.phase() {
            let left = until.saturating_duration_since(now()) + Duration::from_millis(1);
            wait = Some(wait.map_or(left, |wait| wait.min(left)));
        }
        if busy {
            wait = Some(Duration::ZERO);
        }
        wait.and_then(|wait| Timespec::try_from(wait).ok())
    }

    fn begin_drain(&mut self) {
        if !self.draining && matches!(self.control.phase(), Phase::Draining { .. }) {
            self.draining = true;
            self.flows.finished = 0;
        }
    }

    /// How many flows were cut, once the drain is over.
    fn finish_drain(&mut self, now: Instant) -> Option<u64> {
        let Phase::Draining { until } = self.control.phase() else { return None };
        let over = self.flows.table.len() == 0 || until.is_some_and(|until| until <= now);
        over.then(|| self.flows.cut())
    }

    fn serve_clients(&mut self, now: Instant) {
        self.incoming.clear();
        self.placed.clear();
        match self.incoming.receive(self.listener.as_fd(), BATCH, true) {
            Ok(_) => {}
            Err(error) if error.kind() == io::ErrorKind::WouldBlock => return,
            Err(error) => {
                // Of no datagram: a shortage of memory. Not to be repeated without a pause.
                add(&self.tally.failed_receives, 1);
                warn!(address = %self.settings.address, %error, "cannot receive");
                std::thread::sleep(Duration::from_millis(1));
                return;
            }
        }
        let (mut datagrams, mut bytes) = (0, 0);
        for (index, received) in self.incoming.received().iter().enumerate() {
            let count = datagrams_in(received);
            datagrams += count;
            bytes += received.len as u64;
            let placed = match received.peer {
                Some(client) if !received.truncated => {
                    self.flows.place(client, received.local, (self.draining, now))
                }
                _ => Err(Shed::Damaged),
            };
            match placed {
                Ok(id) => self.placed.push(Placed { id, index: index as u32, tried: None }),
                Err(why) => self.tally.shed(why, count),
            }
        }
        self.tally.from_clients.add(datagrams, bytes);
        // Grouped by flow, and within one in the order of arrival.
        self.placed.sort_unstable_by_key(|it| (it.id, it.index));
        let mut at = 0;
        while at < self.placed.len() {
            let id = self.placed[at].id;
            let run = self.placed[at..].iter().take_while(|it| it.id == id).count();
            self.forward(at, run, now);
            at += run;
        }
        self.look_for_runs();
    }

    /// Hands the datagrams of one flow to its backend.
    fn forward(&mut self, at: usize, run: usize, now: Instant) {
        let id = self.placed[at].id;
        let datagrams = self.datagrams(at..at + run);
        let Some(upstream) = self.flows.table.get_mut(id) else {
            return self.tally.shed(Shed::Damaged, datagrams);
        };
        upstream.requests += datagrams;
        let mut accounted = 0;
        if let Some(error) = self.send_to_backend(at..at + run, &mut accounted) {
            self.try_elsewhere(at..at + run, accounted, error, now);
        }
    }

    fn datagrams(&self, run: Range<usize>) -> u64 {
        let received = self.incoming.received();
        self.placed[run].iter().map(|it| datagrams_in(&received[it.index as usize])).sum()
    }

    /// Sends a run of placed datagrams to the backend of their flow. An error says that the backend
    /// is unreachable, and that none of them can be thought to have arrived.
    ///
    /// The first `accounted` of them are in the books already; the number goes on with those that
    /// were sent or shed.
    fn send_to_backend(&mut self, run: Range<usize>, accounted: &mut u64) -> Option<io::Error> {
        let placed = &self.placed[run];
        let upstream = self.flows.table.get_mut(placed.first()?.id)?;
        self.outbox.clear();
        for it in placed {
            let received = &self.incoming.received()[it.index as usize];
            self.outbox.push(0, (None, None), (it.index as usize, received), upstream.joins[0]);
        }
        let tally = &*self.tally;
        let to_server = &upstream.tally.to_server;
        let (mut position, mut uncut, mut unreachable) = (0, false, None);
        let mut told = |note: &Note, fate: Fate| {
            let resent = position < *accounted;
            match fate {
                Fate::Failed(error) if is_unreachable(&error) => {
                    unreachable = Some(error);
                    return Then::Stop;
                }
                Fate::Failed(error) if !resent => tally.shed(shed_by(&error), note.datagrams),
                Fate::Failed(_) => {}
                Fate::Sent => {
                    to_server.add(note.datagrams, note.bytes);
                    uncut |= note.uncut;
                    match resent {
                        true => add(&tally.resent, note.datagrams),
                        false => tally.to_servers.add(note.datagrams, note.bytes),
                    }
                }
            }
            position += note.datagrams;
            Then::Next
        };
        if let Some((piece, note)) = self.outbox.only() {
            let bytes = self.incoming.bytes(piece.index as usize);
            told(
                &note,
                match send(upstream.socket(), bytes, SendFlags::DONTWAIT) {
                    Ok(_) => Fate::Sent,
                    Err(error) => Fate::Failed(error.into()),
                },
            );
        } else {
            self.outbox.send(upstream.socket(), &self.incoming, told);
        }
        *accounted = position.max(*accounted);
        upstream.joins[0] &= !uncut;
        unreachable
    }

    /// Has another backend take what one has refused.
    fn try_elsewhere(&mut self, run: Range<usize>, accounted: u64, error: io::Error, now: Instant) {
        if self.settings.one_packet {
            return self.schedule_again(run, accounted, &error, now);
        }
        let Some(id) = self.placed.get(run.start).map(|it| it.id) else { return };
        let (mut accounted, mut error) = (accounted, error);
        // Ends: a flow survives a bounded number of refusals in a row.
        while self.flows.fail(id, &error, now) {
            match self.send_to_backend(run.clone(), &mut accounted) {
                Some(next) => error = next,
                None => return,
            }
        }
        self.tally.shed(Shed::Unreachable, self.datagrams(run).saturating_sub(accounted));
    }

    /// The same where each datagram is scheduled by itself.
    fn schedule_again(
        &mut self,
        run: Range<usize>,
        accounted: u64,
        error: &io::Error,
        now: Instant,
    ) {
        let mut position = 0;
        for at in run {
            let datagrams = self.datagrams(at..at + 1);
            let mut in_books = if position < accounted { datagrams } else { 0 };
            position += datagrams;
            let again = self.schedule_one_again(at, &mut in_books, error, now);
            if let Err(why) = again {
                self.tally.shed(why, datagrams.saturating_sub(in_books));
            }
        }
    }

    fn schedule_one_again(
        &mut self,
        at: usize,
        accounted: &mut u64,
        error: &io::Error,
        now: Instant,
    ) -> Result<(), Shed> {
        let peer = |received: &Received| Some((received.peer?, received.local));
        let index = self.placed[at].index as usize;
        let way = self.incoming.received().get(index).and_then(peer).ok_or(Shed::Damaged)?;
        let (mut flow, mut tries) = match self.placed[at].tried.take() {
            Some(tried) => *tried,
            None => (self.flows.flow(way, now), 0),
        };
        let mut failed = None;
        loop {
            let id = self.placed[at].id;
            self.flows.exclude(id, &mut flow);
            self.flows.fail(id, failed.as_ref().unwrap_or(error), now);
            tries += 1;
            if tries >= self.settings.attempts {
                return Err(Shed::Unreachable);
            }
            self.placed[at].id = self.flows.place_one(way, &mut flow, (self.draining, now))?;
            failed = self.send_to_backend(at..at + 1, accounted);
            if failed.is_none() {
                self.placed[at].tried = Some(Box::new((flow, tries)));
                return Ok(());
            }
        }
    }

    /// Takes what backends have sent, and hands it to the clients.
    fn serve_backends(&mut self, now: Instant) {
        self.replies.clear();
        self.outbox.clear();
        for at in 0..self.ready.len() {
            if self.replies.room() == 0 {
                self.deliver();
            }
            self.take_replies(self.ready[at], now);
        }
        self.deliver();
    }

    fn take_replies(&mut self, id: FlowId, now: Instant) {
        let Some(key) = self.flows.table.key(id).copied() else { return };
        let Some(upstream) = self.flows.table.get_mut(id) else { return };
        let begin = self.replies.received().len();
        match self.replies.receive(upstream.socket(), REPLIES, false) {
            Ok(_) => {}
            Err(error) if error.kind() == io::ErrorKind::WouldBlock => return,
            Err(error) if is_unreachable(&error) => return self.refused(id, error, now),
            Err(_) => return add(&self.tally.server_errors, 1),
        }
        let (mut datagrams, mut bytes) = (0, 0);
        let received = &self.replies.received()[begin..];
        for (offset, it) in received.iter().enumerate() {
            let count = datagrams_in(it);
            datagrams += count;
            bytes += it.len as u64;
            match it.truncated {
                true => self.tally.lose(Loss::Damaged, count),
                false => {
                    let way = (Some(key.client), key.local);
                    self.outbox.push(id.to_u64(), way, (begin + offset, it), upstream.joins[1]);
                }
            }
        }
        self.tally.from_servers.add(datagrams, bytes);
        upstream.tally.from_server.add(datagrams, bytes);
        upstream.replies += datagrams;
        if self.settings.coalesces_on_sight() && !upstream.coalescing && is_run(received) {
            upstream.coalescing = coalesce(upstream.socket(), true).is_ok();
        }
        let owed = self.settings.is_owed(upstream.requests, upstream.replies);
        self.flows.answered(id, now);
        if self.settings.replies.is_some() && !owed {
            self.flows.end(id, End::Replied);
        }
    }

    /// A backend has refused what it was sent before. What is still at hand of it is sent again.
    fn refused(&mut self, id: FlowId, error: io::Error, now: Instant) {
        let at_hand = |it: &Placed| it.id == id;
        let Some(begin) = self.placed.iter().position(at_hand) else {
            self.flows.fail(id, &error, now);
            return;
        };
        // The outbox holds replies that have to be off first.
        self.deliver();
        let run = self.placed[begin..].iter().take_while(|it| at_hand(it)).count();
        let run = begin..begin + run;
        let accounted = self.datagrams(run.clone());
        self.try_elsewhere(run, accounted, error, now);
        self.outbox.clear();
    }

    /// Sends the replies that were taken.
    fn deliver(&mut self) {
        let tally = &*self.tally;
        let (listener, table) = (&self.listener, &mut self.flows.table);
        let mut patience = true;
        self.outbox.send(listener.as_fd(), &self.replies, |note, fate| match fate {
            Fate::Sent => {
                tally.to_clients.add(note.datagrams, note.bytes);
                if note.uncut
                    && let Some(upstream) = table.get_mut(FlowId::from_u64(note.tag))
                {
                    upstream.joins[1] = false;
                }
                Then::Next
            }
            Fate::Failed(error) if error.kind() == io::ErrorKind::WouldBlock && patience => {
                patience = false;
                let _ = poll(&mut [PollFd::new(listener, PollFlags::OUT)], Some(&SEND_PATIENCE));
                Then::Again
            }
            Fate::Failed(error) => {
                let why = if is_local(&error) { Loss::SendBuffer } else { Loss::Rejected };
                tally.lose(why, note.datagrams);
                Then::Next
            }
        });
        self.outbox.clear();
        self.replies.clear();
    }

    /// Begins to receive runs as one where clients seem to send them.
    fn look_for_runs(&mut self) {
        if !self.coalescing
            && self.settings.coalesces_on_sight()
            && !self.settings.one_packet
            && is_run(self.incoming.received())
        {
            self.coalescing = coalesce(self.listener.as_fd(), true).is_ok();
        }
    }
}

fn datagrams_in(received: &Received) -> u64 {
    match received.segment {
        0 => 1,
        segment => received.len.div_ceil(segment) as u64,
    }
}

/// Tells whether datagrams of one sender and size follow each other.
fn is_run(received: &[Received]) -> bool {
    received.windows(RUN).any(|run| {
        run[0].len != 0 && run[1..].iter().all(|it| (it.peer, it.len) == (run[0].peer, run[0].len))
    })
}

fn shed_by(error: &io::Error) -> Shed {
    if is_local(error) { Shed::SendBuffer } else { Shed::Rejected }
}
