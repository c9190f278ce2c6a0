//! The flows of one worker: start, moves to other backends, and end.

mod connect;
mod failover;

use std::io;
use std::net::{IpAddr, SocketAddr};
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::sync::Arc;
use std::time::{Duration, Instant};

use rustix::event::epoll;
use tracing::{debug, warn};

use super::counters::{FlowEndReason, ShedReason};
use super::flow_record::FlowRecord;
use super::flow_table::{FlowExpiry, FlowId, FlowTable};
use super::metrics::{AtomicUdpBackendCounters, UdpWorkerMetrics};
use super::settings::UdpContext;
use crate::balancer::BalancerWorker;
use crate::forward::address::canonical_address;
use crate::forward::clock::now;
use crate::forward::connection_table::{ConnectionEntry, ConnectionKey};
use crate::forward::counters::add_relaxed;
use crate::forward::descriptors::{DescriptorPermit, NoDescriptors};
use crate::forward::limits::ClientPermit;
use crate::scheduler::Rng;
use crate::sys::mmsg::set_udp_gro;
use crate::sys::shared_fd::SharedFd;
use crate::{Flow, Lease, Outcome};

/// The addresses that identify a flow.
#[derive(Clone, Copy, Debug, Eq, Hash, PartialEq)]
pub(super) struct FlowKey {
    pub(super) client: SocketAddr,
    /// The address that the client sent to; `None` if the listener has only one address.
    pub(super) local: Option<IpAddr>,
    /// With one-packet scheduling each backend of a client has its own flow; otherwise 0.
    pub(super) backend_serial: u64,
}

/// The backend side of a flow.
#[derive(Debug)]
pub(super) struct Upstream {
    socket: OwnedFd,
    /// `None` for the sorry server, and with one-packet scheduling, where the lease ends when the
    /// datagram is sent.
    lease: Option<Lease<SocketAddr>>,
    /// [`SORRY_SERVER_SERIAL`] for the sorry server.
    backend_serial: u64,
    pub(super) metrics: Arc<AtomicUdpBackendCounters>,
    live_entry: ConnectionKey,
    started_at: Instant,
    /// Datagrams of the client.
    pub(super) requests: u64,
    /// Datagrams of the backend.
    pub(super) replies: u64,
    /// Whether the socket receives coalesced datagrams.
    pub(super) coalescing: bool,
    /// Whether datagrams may be sent to the backend as one message.
    pub(super) may_coalesce_requests: bool,
    /// Whether datagrams may be sent to the client as one message.
    pub(super) may_coalesce_replies: bool,
    /// The backend went out of service, and the flow is to be moved.
    stale: bool,
    /// The scheduler's flow that excludes the backends that refused since the last reply.
    retry_flow: Option<Box<Flow>>,
    /// The number of refusals since the last reply.
    refusals: u32,
    _permits: FlowPermits,
}

/// What a flow may take; released when it ends.
#[derive(Debug)]
struct FlowPermits {
    _client: Option<ClientPermit>,
    /// For the socket to the backend.
    _descriptor: DescriptorPermit<1>,
}

/// How often a worker says that flows end for want of descriptors.
const SHORTAGE_LOG_INTERVAL: Duration = Duration::from_secs(10);

impl Upstream {
    pub(super) fn socket(&self) -> BorrowedFd<'_> {
        self.socket.as_fd()
    }
}

/// A server and a socket connected to it.
struct ConnectedServer {
    socket: OwnedFd,
    /// The lease of a backend; `None` for the sorry server.
    lease: Option<Lease<SocketAddr>>,
}

/// Stands for the sorry server where flows name the serial number of their backend: no set has so many
/// backends.
const SORRY_SERVER_SERIAL: u64 = u64::MAX;

impl ConnectedServer {
    fn backend_serial(&self) -> u64 {
        serial_of(self.lease.as_ref())
    }
}

/// Returns the serial number of a leased backend; without a lease that of the sorry server.
fn serial_of(lease: Option<&Lease<SocketAddr>>) -> u64 {
    lease.map_or(SORRY_SERVER_SERIAL, |lease| lease.backend().account().serial())
}

/// The flows of one worker.
#[derive(Debug)]
pub(super) struct WorkerFlows {
    pub(super) table: FlowTable<FlowKey, Upstream>,
    pub(super) metrics: Arc<UdpWorkerMetrics>,
    context: Arc<UdpContext>,
    epoll: SharedFd,
    picker: BalancerWorker<SocketAddr>,
    rng: Rng,
    generation: u64,
    /// Flows whose backend went out of service.
    stale_flows: Vec<FlowId>,
    /// Whether the flow that started last found no descriptor.
    is_short: bool,
    /// When the worker last said that flows end for want of descriptors.
    shortage_logged_at: Option<Instant>,
    /// Flows that ended by themselves since the start of the drain.
    pub(super) finished: u64,
}

impl WorkerFlows {
    /// Returns an empty flow table, whose sockets are added to `epoll`.
    pub(super) fn new(
        context: Arc<UdpContext>,
        metrics: Arc<UdpWorkerMetrics>,
        epoll: SharedFd,
    ) -> Self {
        let settings = &context.settings;
        let mut rng = Rng::from_entropy();
        let picker = settings.route.balancer().worker(Rng::with_seed(rng.next_u64()));
        let generation = picker.snapshot().generation();
        let table = FlowTable::new(
            context.max_worker_flows,
            settings.options.idle_timeout(),
            settings.options.total_timeout,
        );
        Self {
            table,
            metrics,
            context,
            epoll,
            picker,
            rng,
            generation,
            stale_flows: Vec::new(),
            is_short: false,
            shortage_logged_at: None,
            finished: 0,
        }
    }

    /// Returns the flow of a client's datagram; starts a flow if there is none.
    pub(super) fn find_or_start_flow(
        &mut self,
        client: SocketAddr,
        local: Option<IpAddr>,
        is_draining: bool,
        now: Instant,
    ) -> Result<FlowId, ShedReason> {
        if self.context.settings.options.one_packet {
            let mut flow = self.scheduler_flow(client, local, now);
            return self.schedule_one_packet(client, local, &mut flow, is_draining, now);
        }
        let key = FlowKey { client, local, backend_serial: 0 };
        match self.table.find(&key) {
            Some(id) => {
                self.table.touch(id, now);
                if !self.stale_flows.is_empty()
                    && self.table.get(id).is_some_and(|upstream| upstream.stale)
                {
                    self.move_stale_flow(id, now);
                    if self.table.get(id).is_none() {
                        return Err(ShedReason::NoBackend);
                    }
                }
                Ok(id)
            }
            None if is_draining => Err(ShedReason::Draining),
            None => {
                let mut flow = self.scheduler_flow(client, local, now);
                let permits = self.reserve_flow(key, now)?;
                let connected = match self.connect_earlier_server(key, &mut flow, now)? {
                    Some(connected) => connected,
                    None => self.connect_any_server(&mut flow, now)?,
                };
                let retry_flow = flow.view().is_retry().then(|| Box::new(flow));
                self.start_flow(key, connected, permits, retry_flow, now)
            }
        }
    }

    /// Schedules a single datagram, and finds or opens the socket for the replies of its backend.
    pub(super) fn schedule_one_packet(
        &mut self,
        client: SocketAddr,
        local: Option<IpAddr>,
        flow: &mut Flow,
        is_draining: bool,
        now: Instant,
    ) -> Result<FlowId, ShedReason> {
        for _ in 0..self.context.settings.options.attempts {
            let lease = self.pick_server(flow, now)?;
            let key = FlowKey { client, local, backend_serial: serial_of(lease.as_ref()) };
            if let Some(id) = self.table.find(&key) {
                self.table.touch(id, now);
                if let Some(lease) = lease {
                    lease.complete(Outcome::Ok);
                }
                return Ok(id);
            }
            if is_draining {
                return Err(ShedReason::Draining);
            }
            let permits = self.reserve_flow(key, now)?;
            if let Some(connected) = self.connect_server(lease, flow)? {
                return self.start_flow(key, connected, permits, None, now);
            }
        }
        Err(ShedReason::Unreachable)
    }

    /// Reserves room for one more flow, and evicts another flow for it if the table is full or no
    /// descriptor is left.
    fn reserve_flow(&mut self, key: FlowKey, now: Instant) -> Result<FlowPermits, ShedReason> {
        let client = match &self.context.client_limits {
            Some(limits) => {
                let permit = limits.try_acquire(key.client.ip());
                Some(permit.ok_or(ShedReason::ClientLimit)?)
            }
            None => None,
        };
        if let Some((key, upstream)) =
            self.table.evict_if_full().map_err(|_| ShedReason::MaxFlows)?
        {
            self.close_flow(key, upstream, FlowEndReason::Evicted);
        }
        self.is_short = false;
        let descriptor = DescriptorPermit::try_acquire().or_else(|error| {
            self.log_shortage(error, now);
            self.is_short = true;
            // A flow of this round has not sent its datagram yet.
            if let Some((key, upstream)) = self.table.evict_idlest(now) {
                self.close_flow(key, upstream, FlowEndReason::Evicted);
            }
            // Another worker may have taken what the flow gave back.
            DescriptorPermit::try_acquire().map_err(|_| ShedReason::NoResources)
        })?;
        Ok(FlowPermits { _client: client, _descriptor: descriptor })
    }

    /// Returns how many datagrams of `most` to receive at once. While descriptors are short, few enough
    /// that their flows leave half of the others time for replies.
    pub(super) fn receive_batch(&self, most: usize) -> usize {
        if self.is_short { (self.table.len() / 2).clamp(1, most) } else { most }
    }

    fn log_shortage(&mut self, error: NoDescriptors, now: Instant) {
        let is_due = |at: Instant| now.saturating_duration_since(at) >= SHORTAGE_LOG_INTERVAL;
        if self.shortage_logged_at.is_none_or(is_due) {
            self.shortage_logged_at = Some(now);
            let service = &self.context.settings.name;
            warn!("service {service}: {error}; new flows end those that have been idle longest");
        }
    }

    fn start_flow(
        &mut self,
        key: FlowKey,
        connected: ConnectedServer,
        permits: FlowPermits,
        retry_flow: Option<Box<Flow>>,
        now: Instant,
    ) -> Result<FlowId, ShedReason> {
        let backend_serial = connected.backend_serial();
        let ConnectedServer { socket, lease } = connected;
        let metrics = self.server_metrics(lease.as_ref());
        debug!(
            "service {}: the flow of client {} starts at server {}",
            self.context.settings.name, key.client, metrics.id
        );
        let backend = lease.as_ref().map(|lease| Arc::clone(lease.backend()));
        let lease = lease.and_then(|lease| match self.context.settings.options.one_packet {
            true => {
                lease.complete(Outcome::Ok);
                None
            }
            false => Some(lease),
        });
        let port = self.context.address.port();
        let live_entry = self.metrics.live.insert(ConnectionEntry {
            client: Some(key.client),
            local: key.local.map(|ip| Box::new(SocketAddr::new(ip, port))),
            backend,
            started_at: now,
        });
        let may_coalesce = self.context.settings.may_coalesce();
        let upstream = Upstream {
            socket,
            lease,
            backend_serial,
            metrics,
            live_entry,
            started_at: now,
            requests: 0,
            replies: 0,
            coalescing: false,
            may_coalesce_requests: may_coalesce,
            may_coalesce_replies: may_coalesce,
            stale: false,
            retry_flow,
            refusals: 0,
            _permits: permits,
        };
        let Ok(id) = self.table.insert(key, upstream, now) else {
            self.metrics.live.remove(live_entry);
            return Err(ShedReason::MaxFlows);
        };
        if self.register_socket(id).is_err() {
            self.table.remove(id);
            self.metrics.live.remove(live_entry);
            return Err(ShedReason::NoResources);
        }
        add_relaxed(&self.metrics.started, 1);
        if let Some(upstream) = self.table.get(id) {
            add_relaxed(&upstream.metrics.started, 1);
        }
        Ok(id)
    }

    /// Returns the counters of a leased backend; without a lease those of the sorry server.
    fn server_metrics(&self, lease: Option<&Lease<SocketAddr>>) -> Arc<AtomicUdpBackendCounters> {
        match lease {
            Some(lease) => self.metrics.backend_counters(serial_of(Some(lease)), lease.id()),
            None => Arc::clone(&self.metrics.sorry_server),
        }
    }

    /// Adds the socket of a flow to the epoll instance.
    fn register_socket(&mut self, id: FlowId) -> io::Result<()> {
        let Some(upstream) = self.table.get_mut(id) else { return Ok(()) };
        if self.context.settings.coalesces_always() {
            upstream.coalescing = set_udp_gro(upstream.socket.as_fd(), true).is_ok();
        }
        let data = epoll::EventData::new_u64(id.to_u64());
        Ok(epoll::add(&self.epoll, &upstream.socket, data, epoll::EventFlags::IN)?)
    }

    /// Records that the backend of a flow has replied.
    pub(super) fn record_reply(&mut self, id: FlowId, now: Instant) {
        let is_first_reply = self.table.mark_answered(id, now);
        let started_at = self.table.started_at(id);
        let Some(upstream) = self.table.get_mut(id) else { return };
        upstream.retry_flow = None;
        upstream.refusals = 0;
        if let (true, Some(started_at), Some(lease)) = (is_first_reply, started_at, &upstream.lease)
        {
            lease.observe_latency(now.saturating_duration_since(started_at), now);
            lease.report_connected();
        }
    }

    /// Ends the flows whose timeout has passed.
    pub(super) fn expire_flows(&mut self, now: Instant) {
        while let Some((id, expiry)) = self.table.next_expired(now) {
            let reason = match expiry {
                FlowExpiry::Idle => FlowEndReason::Idle,
                FlowExpiry::Total => FlowEndReason::TotalTime,
            };
            self.end_flow(id, reason);
        }
    }

    /// Ends a flow.
    pub(super) fn end_flow(&mut self, id: FlowId, reason: FlowEndReason) {
        if let Some((key, upstream)) = self.table.remove(id) {
            self.close_flow(key, upstream, reason);
        }
    }

    /// Cuts all flows and returns their number.
    pub(super) fn cut_all_flows(&mut self) -> u64 {
        let ids: Vec<FlowId> = self.table.iter().map(|(id, _)| id).collect();
        for id in &ids {
            self.end_flow(*id, FlowEndReason::Cut);
        }
        ids.len() as u64
    }

    /// Completes the lease and the counters of a flow that has left the table.
    fn close_flow(&mut self, key: FlowKey, upstream: Upstream, reason: FlowEndReason) {
        let Upstream { lease, live_entry, requests, replies, started_at, .. } = upstream;
        self.metrics.live.remove(live_entry);
        self.metrics.count_flow_end(reason);
        self.finished += u64::from(reason != FlowEndReason::Cut);
        debug!(
            "service {}: the flow of client {} ends after {requests} datagrams to the server and \
             {replies} from it: {reason}",
            self.context.settings.name, key.client
        );
        if let Some(on_end) = &self.context.settings.on_end {
            let address = self.context.address;
            on_end.call(&FlowRecord {
                service: Arc::clone(&self.context.settings.name),
                client: key.client,
                local: key.local.map_or(address, |ip| SocketAddr::new(ip, address.port())),
                backend: upstream.metrics.id.clone(),
                total_time: now().saturating_duration_since(started_at),
                requests,
                replies,
                end: reason.name(),
            });
        }
        let Some(lease) = lease else { return };
        lease.complete(match reason {
            FlowEndReason::Idle | FlowEndReason::TotalTime
                if self.context.settings.has_missing_replies(requests, replies) =>
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

    /// Returns the flow that the scheduler sees, with IPv4-mapped addresses as IPv4.
    pub(super) fn scheduler_flow(
        &self,
        client: SocketAddr,
        local: Option<IpAddr>,
        now: Instant,
    ) -> Flow {
        let address = self.context.address;
        let local = local.unwrap_or(address.ip()).to_canonical();
        let destination = SocketAddr::new(local, address.port());
        Flow::from(canonical_address(client)).destination(destination).time(now)
    }
}

impl Drop for WorkerFlows {
    /// Cuts the flows of a worker that was dropped while it ran, so that the counters stay exact.
    fn drop(&mut self) {
        self.cut_all_flows();
    }
}
