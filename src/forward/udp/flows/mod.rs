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

use super::UdpSettings;
use super::clients::ClientFlowLimit;
use super::counters::{
    AtomicUdpBackendCounters, FlowEndReason, ShedReason, UdpWorkerMetrics, add_relaxed,
};
use super::socket;
use super::table::{FlowExpiry, FlowId, FlowTable};
use crate::balancer::BalancerWorker as Picks;
use crate::forward::live::{self, ConnectionKey};
use crate::scheduler::Rng;
use crate::{Flow, Lease, Outcome};

/// Who talks to whom.
#[derive(Clone, Copy, Debug, Eq, Hash, PartialEq)]
pub(super) struct FlowKey {
    pub(super) client: SocketAddr,
    /// The address that the client used; `None` where the listener has only one.
    pub(super) local: Option<IpAddr>,
    /// Under one-packet scheduling each backend has its own way back; else 0.
    pub(super) backend_serial: u64,
}

/// The backend's side of a flow.
#[derive(Debug)]
pub(super) struct Upstream {
    socket: OwnedFd,
    /// `None` under one-packet scheduling: the lease ended with the datagram.
    lease: Option<Lease<SocketAddr>>,
    backend_serial: u64,
    pub(super) metrics: Arc<AtomicUdpBackendCounters>,
    live_entry: ConnectionKey,
    /// Datagrams of the client.
    pub(super) requests: u64,
    /// Datagrams of the backend.
    pub(super) replies: u64,
    /// Receives runs as one.
    pub(super) coalescing: bool,
    /// May send runs as one, to the backend and to the client.
    pub(super) may_coalesce: [bool; 2],
    /// Its backend went out of service: to be moved.
    stale: bool,
    /// Backends that have refused since the last reply.
    retry_flow: Option<Box<Flow>>,
    /// How many refused in turn.
    refusals: u32,
}

impl Upstream {
    pub(super) fn socket(&self) -> BorrowedFd<'_> {
        self.socket.as_fd()
    }
}

/// A backend for a flow, and a socket to it.
struct ConnectedBackend {
    socket: OwnedFd,
    lease: Lease<SocketAddr>,
    backend_serial: u64,
}

#[derive(Debug)]
pub(super) struct WorkerFlows {
    pub(super) table: FlowTable<FlowKey, Upstream>,
    pub(super) metrics: Arc<UdpWorkerMetrics>,
    settings: Arc<UdpSettings>,
    client_limit: Arc<ClientFlowLimit>,
    epoll: OwnedFd,
    picker: Picks<SocketAddr>,
    rng: Rng,
    generation: u64,
    /// Flows whose backend went out of service.
    stale_flows: Vec<FlowId>,
    /// Flows that ended by themselves since the drain began.
    pub(super) finished: u64,
}

impl WorkerFlows {
    pub(super) fn new(
        settings: Arc<UdpSettings>,
        clients: Arc<ClientFlowLimit>,
        tally: Arc<UdpWorkerMetrics>,
        (epoll, workers): (OwnedFd, usize),
    ) -> Self {
        let mut rng = Rng::from_entropy();
        let picks = settings.active_balancer().worker(Rng::with_seed(rng.next_u64()));
        let generation = picks.snapshot().generation();
        let capacity = settings.max_flows.div_ceil(workers);
        let table =
            FlowTable::new(capacity, settings.effective_idle_timeout(), settings.total_timeout);
        Self {
            table,
            metrics: tally,
            settings,
            client_limit: clients,
            epoll,
            picker: picks,
            rng,
            generation,
            stale_flows: Vec::new(),
            finished: 0,
        }
    }

    pub(super) fn epoll(&self) -> BorrowedFd<'_> {
        self.epoll.as_fd()
    }

    /// Finds the flow of a datagram or begins one.
    pub(super) fn find_or_start_flow(
        &mut self,
        client: SocketAddr,
        local: Option<IpAddr>,
        (draining, now): (bool, Instant),
    ) -> Result<FlowId, ShedReason> {
        if self.settings.one_packet {
            let mut flow = self.scheduler_flow((client, local), now);
            return self.schedule_one_packet((client, local), &mut flow, (draining, now));
        }
        let key = FlowKey { client, local, backend_serial: 0 };
        match self.table.find(&key) {
            Some(id) => {
                self.table.touch(id, now);
                if !self.stale_flows.is_empty() && self.table.get(id).is_some_and(|it| it.stale) {
                    self.move_stale_flow(id, now);
                    if self.table.get(id).is_none() {
                        return Err(ShedReason::NoBackend);
                    }
                }
                Ok(id)
            }
            None if draining => Err(ShedReason::Draining),
            None => {
                let mut flow = self.scheduler_flow((key.client, key.local), now);
                self.reserve_flow(key)?;
                let begun = self.connect_backend(&mut flow, now).and_then(|dialled| {
                    let tried = flow.view().is_retry().then(|| Box::new(flow));
                    self.start_flow(key, dialled, tried, now)
                });
                begun.inspect_err(|_| self.client_limit.release(client.ip()))
            }
        }
    }

    /// Schedules one datagram by itself, and finds or opens the way back from its backend.
    pub(super) fn schedule_one_packet(
        &mut self,
        (client, local): (SocketAddr, Option<IpAddr>),
        flow: &mut Flow,
        (draining, now): (bool, Instant),
    ) -> Result<FlowId, ShedReason> {
        for _ in 0..self.settings.attempts {
            let mut lease = self.pick_backend(flow, now)?;
            lease.set_active(false);
            let serial = lease.backend().account().serial();
            let key = FlowKey { client, local, backend_serial: serial };
            if let Some(id) = self.table.find(&key) {
                self.table.touch(id, now);
                lease.complete(Outcome::Ok);
                return Ok(id);
            }
            if draining {
                return Err(ShedReason::Draining);
            }
            self.reserve_flow(key)?;
            match socket::open_connected(self.settings.backend_address(&lease)) {
                Ok(socket) => {
                    let begun = self.start_flow(
                        key,
                        ConnectedBackend { socket, lease, backend_serial: serial },
                        None,
                        now,
                    );
                    return begun.inspect_err(|_| self.client_limit.release(client.ip()));
                }
                Err(error) => {
                    self.client_limit.release(client.ip());
                    self.record_connect_failure(lease, &error, flow)?;
                }
            }
        }
        Err(ShedReason::Unreachable)
    }

    /// Sees whether there is room for one more flow of a client, and makes it.
    fn reserve_flow(&mut self, key: FlowKey) -> Result<(), ShedReason> {
        if !self.client_limit.try_acquire(key.client.ip()) {
            return Err(ShedReason::MaxFlowsPerClient);
        }
        match self.table.evict_if_full() {
            Ok(None) => Ok(()),
            Ok(Some((key, upstream))) => {
                self.close_flow(key, upstream, FlowEndReason::Evicted);
                Ok(())
            }
            Err(_) => {
                self.client_limit.release(key.client.ip());
                Err(ShedReason::MaxFlows)
            }
        }
    }

    fn start_flow(
        &mut self,
        key: FlowKey,
        ConnectedBackend { socket, lease, backend_serial: serial }: ConnectedBackend,
        tried: Option<Box<Flow>>,
        now: Instant,
    ) -> Result<FlowId, ShedReason> {
        let tally = self.metrics.backend_counters(serial, lease.id());
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
        let listed = self.metrics.live.insert(live::ConnectionEntry {
            client: Some(key.client),
            local: key.local.map(|ip| Box::new(SocketAddr::new(ip, port))),
            backend: Some(backend),
            started_at: now,
        });
        let upstream = Upstream {
            socket,
            lease,
            backend_serial: serial,
            metrics: tally,
            live_entry: listed,
            requests: 0,
            replies: 0,
            coalescing: false,
            may_coalesce: [self.settings.may_coalesce(); 2],
            stale: false,
            retry_flow: tried,
            refusals: 0,
        };
        let Ok(id) = self.table.insert(key, upstream, now) else {
            self.metrics.live.remove(listed);
            return Err(ShedReason::MaxFlows);
        };
        if self.register_socket(id).is_err() {
            self.table.remove(id);
            self.metrics.live.remove(listed);
            return Err(ShedReason::NoResources);
        }
        add_relaxed(&self.metrics.started, 1);
        if let Some(upstream) = self.table.get(id) {
            add_relaxed(&upstream.metrics.started, 1);
        }
        Ok(id)
    }

    fn register_socket(&mut self, id: FlowId) -> io::Result<()> {
        let Some(upstream) = self.table.get_mut(id) else { return Ok(()) };
        if self.settings.coalesces_always() {
            upstream.coalescing =
                crate::sys::mmsg::set_udp_gro(upstream.socket.as_fd(), true).is_ok();
        }
        let data = epoll::EventData::new_u64(id.to_u64());
        Ok(epoll::add(&self.epoll, &upstream.socket, data, epoll::EventFlags::IN)?)
    }

    /// The backend has sent something.
    pub(super) fn record_reply(&mut self, id: FlowId, now: Instant) {
        let first = self.table.mark_answered(id, now);
        let born = self.table.started_at(id);
        let Some(upstream) = self.table.get_mut(id) else { return };
        upstream.retry_flow = None;
        upstream.refusals = 0;
        if let (true, Some(born), Some(lease)) = (first, born, &upstream.lease) {
            lease.observe_latency(now.saturating_duration_since(born), now);
        }
    }

    /// Ends the flows that have run out.
    pub(super) fn expire_flows(&mut self, now: Instant) {
        while let Some((id, expiry)) = self.table.next_expired(now) {
            self.end_flow(
                id,
                if expiry == FlowExpiry::Idle {
                    FlowEndReason::Idle
                } else {
                    FlowEndReason::TotalTime
                },
            );
        }
    }

    /// Ends a flow.
    pub(super) fn end_flow(&mut self, id: FlowId, end: FlowEndReason) {
        if let Some((key, upstream)) = self.table.remove(id) {
            self.close_flow(key, upstream, end);
        }
    }

    /// Ends all flows.
    pub(super) fn cut_all_flows(&mut self) -> u64 {
        let all: Vec<FlowId> = self.table.iter().map(|(id, _)| id).collect();
        for id in &all {
            self.end_flow(*id, FlowEndReason::Cut);
        }
        all.len() as u64
    }

    fn close_flow(&mut self, key: FlowKey, upstream: Upstream, end: FlowEndReason) {
        let Upstream { lease, live_entry: listed, requests, replies, .. } = upstream;
        self.metrics.live.remove(listed);
        self.client_limit.release(key.client.ip());
        self.metrics.count_flow_end(end);
        self.finished += u64::from(end != FlowEndReason::Cut);
        debug!(client = %key.client, local = ?key.local, ?end, requests, replies, "flow ends");
        let Some(lease) = lease else { return };
        lease.complete(match end {
            FlowEndReason::Idle | FlowEndReason::TotalTime
                if self.settings.has_missing_replies(requests, replies) =>
            {
                Outcome::Timeout
            }
            FlowEndReason::Idle | FlowEndReason::TotalTime | FlowEndReason::Replied => Outcome::Ok,
            FlowEndReason::Unreachable => Outcome::ConnectError,
            FlowEndReason::NoBackend | FlowEndReason::Evicted | FlowEndReason::Cut => {
                Outcome::Cancelled
            }
        });
    }

    /// What the scheduler sees of a flow. Clients of the other family look like what they are.
    pub(super) fn scheduler_flow(
        &self,
        (client, local): (SocketAddr, Option<IpAddr>),
        now: Instant,
    ) -> Flow {
        let address = self.settings.address;
        let local = local.unwrap_or(address.ip()).to_canonical();
        let destination = SocketAddr::new(local, address.port());
        Flow::from(canonical_address(client)).destination(destination).time(now)
    }
}

fn canonical_address(address: SocketAddr) -> SocketAddr {
    SocketAddr::new(address.ip().to_canonical(), address.port())
}
