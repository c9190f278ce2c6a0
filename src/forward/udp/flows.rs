//! The flows of one worker: how they begin, move and end.

use std::io;
use std::net::{IpAddr, SocketAddr};
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::sync::Arc;
use std::time::Instant;

use rustix::event::epoll;
use tracing::debug;

use super::Settings;
use super::clients::Clients;
use super::counters::{BackendTally, End, Shed, Tally, add};
use super::socket;
use super::table::{Expiry, FlowId, FlowTable};
use crate::backend::{Snapshot, State};
use crate::balancer::{PickError, Worker as Picks};
use crate::scheduler::Rng;
use crate::{Flow, Lease, Outcome};

/// Who talks to whom.
#[derive(Clone, Copy, Debug, Eq, Hash, PartialEq)]
pub(super) struct FlowKey {
    pub(super) client: SocketAddr,
    /// The address that the client used; `None` where the listener has only one.
    pub(super) local: Option<IpAddr>,
    /// Under one-packet scheduling each backend has its own way back; else 0.
    pub(super) serial: u64,
}

/// The backend's side of a flow.
#[derive(Debug)]
pub(super) struct Upstream {
    socket: OwnedFd,
    /// `None` under one-packet scheduling: the lease ended with the datagram.
    lease: Option<Lease<SocketAddr>>,
    serial: u64,
    pub(super) tally: Arc<BackendTally>,
    /// Datagrams of the client.
    pub(super) requests: u64,
    /// Datagrams of the backend.
    pub(super) replies: u64,
    /// Receives runs as one.
    pub(super) coalescing: bool,
    /// May send runs as one, to the backend and to the client.
    pub(super) joins: [bool; 2],
    /// Its backend went out of service: to be moved.
    stale: bool,
    /// Backends that have refused since the last reply.
    tried: Option<Box<Flow>>,
    /// How many refused in turn.
    refusals: u32,
}

impl Upstream {
    pub(super) fn socket(&self) -> BorrowedFd<'_> {
        self.socket.as_fd()
    }
}

/// A backend for a flow, and a socket to it.
struct Dialled {
    socket: OwnedFd,
    lease: Lease<SocketAddr>,
    serial: u64,
}

#[derive(Debug)]
pub(super) struct Flows {
    pub(super) table: FlowTable<FlowKey, Upstream>,
    pub(super) tally: Arc<Tally>,
    settings: Arc<Settings>,
    clients: Arc<Clients>,
    epoll: OwnedFd,
    picks: Picks<SocketAddr>,
    rng: Rng,
    generation: u64,
    /// Flows whose backend went out of service.
    stale: Vec<FlowId>,
    /// Flows that ended by themselves since the drain began.
    pub(super) finished: u64,
}

/// How many flows are moved off a dead backend before traffic has its turn again.
const MOVES_AT_ONCE: usize = 64;

impl Flows {
    pub(super) fn new(
        settings: Arc<Settings>,
        clients: Arc<Clients>,
        tally: Arc<Tally>,
        (epoll, workers): (OwnedFd, usize),
    ) -> Self {
        let mut rng = Rng::from_entropy();
        let picks = settings.picks().worker(Rng::with_seed(rng.next_u64()));
        let generation = picks.snapshot().generation();
        let capacity = settings.max_flows.div_ceil(workers);
        let table = FlowTable::new(capacity, settings.idle(), settings.total_timeout);
        Self {
            table,
            tally,
            settings,
            clients,
            epoll,
            picks,
            rng,
            generation,
            stale: Vec::new(),
            finished: 0,
        }
    }

    pub(super) fn epoll(&self) -> BorrowedFd<'_> {
        self.epoll.as_fd()
    }

    /// Finds the flow of a datagram or begins one.
    pub(super) fn place(
        &mut self,
        client: SocketAddr,
        local: Option<IpAddr>,
        (draining, now): (bool, Instant),
    ) -> Result<FlowId, Shed> {
        if self.settings.one_packet {
            let mut flow = self.flow((client, local), now);
            return self.place_one((client, local), &mut flow, (draining, now));
        }
        let key = FlowKey { client, local, serial: 0 };
        match self.table.find(&key) {
            Some(id) => {
                self.table.touch(id, now);
                if !self.stale.is_empty() && self.table.get(id).is_some_and(|it| it.stale) {
                    self.leave_stale(id, now);
                    if self.table.get(id).is_none() {
                        return Err(Shed::NoBackend);
                    }
                }
                Ok(id)
            }
            None if draining => Err(Shed::Draining),
            None => {
                let mut flow = self.flow((key.client, key.local), now);
                self.admit(key)?;
                let begun = self.dial(&mut flow, now).and_then(|dialled| {
                    let tried = flow.is_retry().then(|| Box::new(flow));
                    self.begin(key, dialled, tried, now)
                });
                begun.inspect_err(|_| self.clients.leave(client.ip()))
            }
        }
    }

    /// Schedules one datagram by itself, and finds or opens the way back from its backend.
    pub(super) fn place_one(
        &mut self,
        (client, local): (SocketAddr, Option<IpAddr>),
        flow: &mut Flow,
        (draining, now): (bool, Instant),
    ) -> Result<FlowId, Shed> {
        for _ in 0..self.settings.attempts {
            let mut lease = self.pick(flow, now)?;
            lease.set_active(false);
            let serial = lease.backend().account().serial();
            let key = FlowKey { client, local, serial };
            if let Some(id) = self.table.find(&key) {
                self.table.touch(id, now);
                lease.complete(Outcome::Ok);
                return Ok(id);
            }
            if draining {
                return Err(Shed::Draining);
            }
            self.admit(key)?;
            match socket::open(self.settings.target(&lease)) {
                Ok(socket) => {
                    let begun = self.begin(key, Dialled { socket, lease, serial }, None, now);
                    return begun.inspect_err(|_| self.clients.leave(client.ip()));
                }
                Err(error) => {
                    self.clients.leave(client.ip());
                    self.give_up(lease, &error, flow)?;
                }
            }
        }
        Err(Shed::Unreachable)
    }

    /// Sees whether there is room for one more flow of a client, and makes it.
    fn admit(&mut self, key: FlowKey) -> Result<(), Shed> {
        if !self.clients.enter(key.client.ip()) {
            return Err(Shed::MaxFlowsPerClient);
        }
        match self.table.make_room() {
            Ok(None) => Ok(()),
            Ok(Some((key, upstream))) => {
                self.close(key, upstream, End::Evicted);
                Ok(())
            }
            Err(_) => {
                self.clients.leave(key.client.ip());
                Err(Shed::MaxFlows)
            }
        }
    }

    /// Picks backends until one of them can be sent to.
    fn dial(&mut self, flow: &mut Flow, now: Instant) -> Result<Dialled, Shed> {
        for _ in 0..self.settings.attempts {
            let mut lease = self.pick(flow, now)?;
            lease.set_active(false);
            match socket::open(self.settings.target(&lease)) {
                Ok(socket) => {
                    let serial = lease.backend().account().serial();
                    return Ok(Dialled { socket, lease, serial });
                }
                Err(error) => self.give_up(lease, &error, flow)?,
            }
        }
        Err(Shed::Unreachable)
    }

    /// Notes that a backend could not be sent to. An error if that was this machine's fault.
    fn give_up(
        &mut self,
        lease: Lease<SocketAddr>,
        error: &io::Error,
        flow: &mut Flow,
    ) -> Result<(), Shed> {
        if socket::is_local(error) {
            return Err(Shed::NoResources);
        }
        debug!(backend = %lease.id(), %error, "backend unreachable");
        add(&self.tally.server_errors, 1);
        let serial = lease.backend().account().serial();
        add(&self.tally.backend(serial, lease.id()).errors, 1);
        flow.exclude(lease.backend());
        lease.complete(Outcome::ConnectError);
        Ok(())
    }

    fn pick(&mut self, flow: &Flow, now: Instant) -> Result<Lease<SocketAddr>, Shed> {
        let picked = match (&self.settings.persistence, flow.source()) {
            (Some(persistence), Some(client)) => {
                persistence.pick(client, flow.clone(), &mut self.rng, now)
            }
            _ => self.picks.pick(flow),
        };
        picked.map_err(|why| match why {
            // Where a backend was tried, what became of it is the reason, not that none was left.
            PickError::Refused if flow.is_retry() => Shed::Unreachable,
            why => why.into(),
        })
    }

    fn begin(
        &mut self,
        key: FlowKey,
        Dialled { socket, lease, serial }: Dialled,
        tried: Option<Box<Flow>>,
        now: Instant,
    ) -> Result<FlowId, Shed> {
        let tally = self.tally.backend(serial, lease.id());
        debug!(client = %key.client, local = ?key.local, backend = %lease.id(), "flow begins");
        let lease = match self.settings.one_packet {
            true => {
                lease.complete(Outcome::Ok);
                None
            }
            false => Some(lease),
        };
        let upstream = Upstream {
            socket,
            lease,
            serial,
            tally,
            requests: 0,
            replies: 0,
            coalescing: false,
            joins: [self.settings.joins(); 2],
            stale: false,
            tried,
            refusals: 0,
        };
        let id = self.table.insert(key, upstream, now).map_err(|_| Shed::MaxFlows)?;
        if self.watch(id).is_err() {
            self.table.remove(id);
            return Err(Shed::NoResources);
        }
        add(&self.tally.started, 1);
        if let Some(upstream) = self.table.get(id) {
            add(&upstream.tally.started, 1);
        }
        Ok(id)
    }

    fn watch(&mut self, id: FlowId) -> io::Result<()> {
        let Some(upstream) = self.table.get_mut(id) else { return Ok(()) };
        if self.settings.coalesces_always() {
            upstream.coalescing = crate::sys::mmsg::coalesce(upstream.socket.as_fd(), true).is_ok();
        }
        let data = epoll::EventData::new_u64(id.to_u64());
        Ok(epoll::add(&self.epoll, &upstream.socket, data, epoll::EventFlags::IN)?)
    }

    /// The backend of a flow cannot be reached: moves the flow to another one. `false` if it ended.
    pub(super) fn fail(&mut self, id: FlowId, error: &io::Error, now: Instant) -> bool {
        add(&self.tally.server_errors, 1);
        let Some(key) = self.table.key(id).copied() else { return false };
        let blank = self.flow((key.client, key.local), now);
        let Some(upstream) = self.table.get_mut(id) else { return false };
        add(&upstream.tally.errors, 1);
        let mut flow = match upstream.tried.take() {
            Some(flow) => flow.at(now),
            None => blank,
        };
        let Some(lease) = upstream.lease.take() else {
            self.report(key.serial);
            self.end(id, End::Unreachable);
            return false;
        };
        debug!(client = %key.client, backend = %lease.id(), %error, "backend refuses a flow");
        flow.exclude(lease.backend());
        lease.complete(Outcome::ConnectError);
        upstream.refusals += 1;
        if upstream.refusals >= self.settings.attempts {
            self.end(id, End::Unreachable);
            return false;
        }
        self.settle(id, flow, now).is_ok()
    }

    /// Gives a flow that has lost its backend another one, or ends it.
    fn settle(&mut self, id: FlowId, mut flow: Flow, now: Instant) -> Result<(), Shed> {
        let dialled = match self.dial(&mut flow, now) {
            Ok(dialled) => dialled,
            Err(why) => {
                let unreachable = flow.is_retry();
                self.end(id, if unreachable { End::Unreachable } else { End::NoBackend });
                return Err(why);
            }
        };
        let tally = self.tally.backend(dialled.serial, dialled.lease.id());
        let Some(upstream) = self.table.get_mut(id) else { return Err(Shed::Damaged) };
        debug!(backend = %dialled.lease.id(), "flow moves");
        upstream.socket = dialled.socket;
        upstream.lease = Some(dialled.lease);
        upstream.serial = dialled.serial;
        upstream.tally = tally;
        upstream.stale = false;
        upstream.coalescing = false;
        upstream.tried = flow.is_retry().then(|| Box::new(flow));
        add(&upstream.tally.started, 1);
        add(&self.tally.moved, 1);
        if self.watch(id).is_err() {
            self.end(id, End::NoBackend);
            return Err(Shed::NoResources);
        }
        Ok(())
    }

    /// Says that a backend refused a datagram whose lease has ended already.
    fn report(&self, serial: u64) {
        let snapshot = self.picks.snapshot();
        let position = snapshot.members().position(serial);
        if let Some(backend) = position.and_then(|at| snapshot.backends().get(at))
            && let Some(lease) = self.settings.picks().pick_id(backend.id())
        {
            lease.complete(Outcome::ConnectError);
        }
    }

    /// The backend has sent something.
    pub(super) fn answered(&mut self, id: FlowId, now: Instant) {
        let first = self.table.answer(id, now);
        let born = self.table.born(id);
        let Some(upstream) = self.table.get_mut(id) else { return };
        upstream.tried = None;
        upstream.refusals = 0;
        if let (true, Some(born), Some(lease)) = (first, born, &upstream.lease) {
            lease.observe_latency(now.saturating_duration_since(born), now);
        }
    }

    /// Looks whether the set has changed, and marks the flows of backends that went out of service.
    pub(super) fn refresh(&mut self) {
        self.picks.refresh();
        let snapshot = Arc::clone(self.picks.snapshot());
        if snapshot.generation() == self.generation {
            return;
        }
        self.generation = snapshot.generation();
        self.tally.forget_backends(|serial| snapshot.members().position(serial).is_some());
        if self.settings.one_packet {
            return;
        }
        let gone = |upstream: &Upstream| !serves(&snapshot, upstream.serial);
        let stale: Vec<FlowId> =
            self.table.iter().filter(|(_, it)| gone(it)).map(|(id, _)| id).collect();
        for id in &stale {
            if let Some(upstream) = self.table.get_mut(*id) {
                upstream.stale = true;
            }
        }
        self.stale = stale;
    }

    /// Moves some of the marked flows; `false` when none are left.
    pub(super) fn move_stale(&mut self, now: Instant) -> bool {
        for _ in 0..MOVES_AT_ONCE {
            let Some(id) = self.stale.pop() else { return false };
            if self.table.get(id).is_some_and(|it| it.stale) {
                self.leave_stale(id, now);
            }
        }
        !self.stale.is_empty()
    }

    fn leave_stale(&mut self, id: FlowId, now: Instant) {
        let Some(key) = self.table.key(id).copied() else { return };
        let flow = self.flow((key.client, key.local), now);
        // The old lease first: its place may be the only free one.
        if let Some(upstream) = self.table.get_mut(id) {
            upstream.lease = None;
        }
        let _ = self.settle(id, flow, now);
    }

    /// Ends the flows that have run out.
    pub(super) fn expire(&mut self, now: Instant) {
        while let Some((id, expiry)) = self.table.expired(now) {
            self.end(id, if expiry == Expiry::Idle { End::Idle } else { End::TotalTime });
        }
    }

    /// Ends a flow.
    pub(super) fn end(&mut self, id: FlowId, end: End) {
        if let Some((key, upstream)) = self.table.remove(id) {
            self.close(key, upstream, end);
        }
    }

    /// Ends all flows.
    pub(super) fn cut(&mut self) -> u64 {
        let all: Vec<FlowId> = self.table.iter().map(|(id, _)| id).collect();
        for id in &all {
            self.end(*id, End::Cut);
        }
        all.len() as u64
    }

    fn close(&mut self, key: FlowKey, upstream: Upstream, end: End) {
        let Upstream { lease, requests, replies, .. } = upstream;
        self.clients.leave(key.client.ip());
        self.tally.end(end);
        self.finished += u64::from(end != End::Cut);
        debug!(client = %key.client, local = ?key.local, ?end, requests, replies, "flow ends");
        let Some(lease) = lease else { return };
        lease.complete(match end {
            End::Idle | End::TotalTime if self.settings.is_owed(requests, replies) => {
                Outcome::Timeout
            }
            End::Idle | End::TotalTime | End::Replied => Outcome::Ok,
            End::Unreachable => Outcome::ConnectError,
            End::NoBackend | End::Evicted | End::Cut => Outcome::Cancelled,
        });
    }

    /// What the scheduler sees of a flow. Clients of the other family look like what they are.
    pub(super) fn flow(&self, (client, local): (SocketAddr, Option<IpAddr>), now: Instant) -> Flow {
        let address = self.settings.address;
        let local = local.unwrap_or(address.ip()).to_canonical();
        let destination = SocketAddr::new(local, address.port());
        Flow::from(canonical(client)).to_destination(destination).at(now)
    }

    /// Never choose the backend of this flow: it has refused.
    pub(super) fn exclude(&self, id: FlowId, flow: &mut Flow) {
        let Some(upstream) = self.table.get(id) else { return };
        let snapshot = self.picks.snapshot();
        let position = snapshot.members().position(upstream.serial);
        if let Some(backend) = position.and_then(|at| snapshot.backends().get(at)) {
            flow.exclude(backend);
        }
    }
}

/// Tells whether a backend keeps the flows it has.
fn serves(snapshot: &Snapshot<SocketAddr>, serial: u64) -> bool {
    let position = snapshot.members().position(serial);
    position.is_some_and(|position| {
        !matches!(snapshot.members()[position].state(), State::Down | State::Disabled)
    })
}

fn canonical(address: SocketAddr) -> SocketAddr {
    SocketAddr::new(address.ip().to_canonical(), address.port())
}
