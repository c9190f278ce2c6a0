//! The flows of one worker: how they begin, move and end.

mod failover;
mod pick;

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
use crate::balancer::Worker as Picks;
use crate::forward::live::{self, Listed};
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
    listed: Listed,
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

    fn begin(
        &mut self,
        key: FlowKey,
        Dialled { socket, lease, serial }: Dialled,
        tried: Option<Box<Flow>>,
        now: Instant,
    ) -> Result<FlowId, Shed> {
        let tally = self.tally.backend(serial, lease.id());
        debug!(client = %key.client, local = ?key.local, backend = %lease.id(), "flow begins");
        let backend = Arc::clone(lease.backend());
        let lease = match self.settings.one_packet {
            true => {
                lease.complete(Outcome::Ok);
                None
            }
            false => Some(lease),
        };
        let port = self.settings.address.port();
        let listed = self.tally.live.enter(live::Entry {
            client: Some(key.client),
            local: key.local.map(|ip| Box::new(SocketAddr::new(ip, port))),
            backend: Some(backend),
            begun: now,
        });
        let upstream = Upstream {
            socket,
            lease,
            serial,
            tally,
            listed,
            requests: 0,
            replies: 0,
            coalescing: false,
            joins: [self.settings.joins(); 2],
            stale: false,
            tried,
            refusals: 0,
        };
        let Ok(id) = self.table.insert(key, upstream, now) else {
            self.tally.live.leave(listed);
            return Err(Shed::MaxFlows);
        };
        if self.watch(id).is_err() {
            self.table.remove(id);
            self.tally.live.leave(listed);
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
        let Upstream { lease, listed, requests, replies, .. } = upstream;
        self.tally.live.leave(listed);
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
}

fn canonical(address: SocketAddr) -> SocketAddr {
    SocketAddr::new(address.ip().to_canonical(), address.port())
}
