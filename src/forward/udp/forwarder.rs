//! The forwarder as a program makes and runs it.

use std::io;
use std::net::{SocketAddr, UdpSocket};
use std::num::NonZeroUsize;
use std::sync::Arc;
use std::thread;
use std::time::Duration;

use tokio::sync::oneshot;

use super::client_limit::ClientFlowLimit;
use super::handle::{UdpControl, UdpHandle};
use super::settings::{
    Coalesce, DEFAULT_ATTEMPTS, DEFAULT_IDLE_TIMEOUT, DEFAULT_MAX_FLOWS, UdpSettings,
};
use super::socket;
use super::worker::UdpWorker;
use crate::Balancer;
use crate::balancer::Persistence;
use crate::forward::clock::now;
use crate::forward::{DrainReport, ForwardError};
use crate::sync::lock;

/// Carries the datagrams that reach one UDP address to the backends a balancer chooses, and their
/// replies back.
///
/// # Flows
/// A flow is a client's address and port and the local address the client used. Its first datagram
/// picks a backend, and all that follow go there; replies leave from the address that the client
/// used, also where the socket is bound to the wildcard address of a machine that has several. A
/// flow ends when nothing went either way for the [idle timeout](Self::idle_timeout).
///
/// As in IPVS, a flow counts as an *inactive* connection of its backend: `wlc` and `lc` see it,
/// limits see it, `sed` and `nq` do not, nor do rules that go by active connections alone.
///
/// # When a backend fails
/// Each flow has a connected socket of its own, so the kernel tells it of ICMP errors. A backend
/// that refuses (its host is there, its port is not) is told to the balancer as
/// [`ConnectError`](crate::Outcome::ConnectError), and the flow goes to another one at once, up to
/// [`attempts`](Self::attempts) in a row. Datagrams of the flow that are still at hand are sent
/// again, to the new backend: those of the last batch that was received, which on one's own host
/// are all that were refused. Of a backend further away, where the error takes its time, what was
/// sent in the meantime is lost. A host that does not answer at all sends no errors: that is for
/// health checks to find out.
///
/// Flows of a backend that becomes [down, disabled](crate::backend::State) or leaves the set are
/// moved within a tenth of a second, or with their next datagram. Flows of one that is quiesced
/// (weight 0) or draining stay until they end, while new flows go elsewhere.
///
/// # Full tables
/// At [`max_flows`](Self::max_flows) a new flow takes the place of the longest idle one *that no
/// backend has ever answered*: a flood of invented senders pushes itself out, and conversations
/// stay. Where every flow has been answered, the new one is dropped and counted.
///
/// # What a backend's account gets
/// | what happened | [`Outcome`](crate::Outcome) |
/// |---|---|
/// | the flow was idle, or its total time was over | `Ok` |
/// | the same with [`replies`](Self::replies) asked for and some missing | `Timeout` |
/// | all replies came | `Ok` |
/// | an ICMP error, or no route | `ConnectError` |
/// | it was moved, evicted or cut, or this machine lacked a descriptor or port | `Cancelled` |
///
/// The latency that `peak_ewma` and `hot_cold` learn from is the time from a flow's first datagram
/// to the first reply.
///
/// # Cost
/// Each worker is a thread with its own socket (`SO_REUSEPORT`) and its own flows; it needs no
/// runtime. A flow takes one descriptor and one socket of the kernel, and some 500 bytes here.
/// Buffers belong to workers: 8 MiB of addresses each, of which only the pages that were used take
/// memory. Datagrams are received and sent in batches and not copied in this process beyond that.
///
/// # Examples
/// ```no_run
/// use std::net::SocketAddr;
/// use std::time::Duration;
/// use lvs::forward::UdpForwarder;
/// use lvs::scheduler::SourceHash;
/// use lvs::{BackendSet, Balancer};
///
/// # async fn example() -> Result<(), Box<dyn std::error::Error>> {
/// let set = BackendSet::<SocketAddr>::new();
/// set.insert("10.0.0.1:53".parse::<SocketAddr>()?)?;
/// set.insert("10.0.0.2:53".parse::<SocketAddr>()?)?;
///
/// let balancer = Balancer::new(&set, SourceHash::new())?;
/// let forwarder = UdpForwarder::bind("0.0.0.0:53".parse()?, balancer)?.replies(1);
/// let handle = forwarder.handle();
/// let running = tokio::spawn(forwarder.run());
///
/// // Later: no new flows, ten seconds for those that are there.
/// handle.shutdown(Duration::from_secs(10));
/// let drained = running.await??;
/// println!("{} finished, {} cut", drained.finished, drained.cut);
/// # Ok(())
/// # }
/// ```
#[derive(Debug)]
#[must_use = "a forwarder does nothing until it runs"]
pub struct UdpForwarder {
    sockets: Vec<UdpSocket>,
    workers: usize,
    max_flows_per_client: Option<usize>,
    settings: UdpSettings,
    control: Arc<UdpControl>,
}

const MAX_WORKERS: usize = 1024;

impl UdpForwarder {
    /// Takes an address; port 0 takes any free one, which [`UdpForwarder::local_addr`] names.
    ///
    /// `[::]` takes both families where the system's default is so. Default: one worker a core.
    ///
    /// # Errors
    /// [`ForwardError::Bind`] if the system does not give out the address.
    pub fn bind(address: SocketAddr, balancer: Balancer<SocketAddr>) -> Result<Self, ForwardError> {
        Self::bind_with(address, false, balancer)
    }

    /// As [`bind`](Self::bind), on an address that this machine need not have yet (`IP_FREEBIND`): a
    /// virtual address, which comes and goes with an election. Clients are served while the machine
    /// has it.
    ///
    /// # Errors
    /// As [`bind`](Self::bind).
    pub fn bind_nonlocal(
        address: SocketAddr,
        balancer: Balancer<SocketAddr>,
    ) -> Result<Self, ForwardError> {
        Self::bind_with(address, true, balancer)
    }

    fn bind_with(
        address: SocketAddr,
        ahead: bool,
        balancer: Balancer<SocketAddr>,
    ) -> Result<Self, ForwardError> {
        let socket = socket::bind_listener(address, ahead);
        let socket = socket.map_err(|source| ForwardError::Bind { address, source })?;
        let cores = thread::available_parallelism().map_or(1, NonZeroUsize::get);
        Ok(Self::new(socket, balancer)?.workers(cores))
    }

    /// Takes a socket that is there already: inherited, or made with options of its own.
    ///
    /// Default: one worker. With more, sockets are made beside it on the same address
    /// (`SO_REUSEPORT`), which have none of its other options.
    ///
    /// # Errors
    /// [`ForwardError::Listener`] if it is no usable socket.
    pub fn new(socket: UdpSocket, balancer: Balancer<SocketAddr>) -> Result<Self, ForwardError> {
        Self::from_sockets([socket], balancer)
    }

    /// Takes several sockets at once, those of a forwarder that this one
    /// [succeeds](UdpHandle::sockets): there is a worker for each at the least.
    ///
    /// # Errors
    /// [`ForwardError::Listener`] if there is none, or one is no usable socket.
    pub fn from_sockets(
        sockets: impl IntoIterator<Item = UdpSocket>,
        balancer: Balancer<SocketAddr>,
    ) -> Result<Self, ForwardError> {
        let sockets: Vec<UdpSocket> = sockets.into_iter().collect();
        let none = || io::Error::new(io::ErrorKind::InvalidInput, "no socket was given");
        let address = sockets.first().ok_or_else(none).and_then(UdpSocket::local_addr);
        let address = address.map_err(|source| ForwardError::Listener { source })?;
        let settings = UdpSettings {
            address,
            balancer,
            persistence: None,
            idle_timeout: DEFAULT_IDLE_TIMEOUT,
            total_timeout: None,
            max_flows: DEFAULT_MAX_FLOWS,
            attempts: DEFAULT_ATTEMPTS,
            replies: None,
            one_packet: false,
            coalesce: Coalesce::Auto,
        };
        let control = Arc::default();
        Ok(Self { sockets, workers: 1, max_flows_per_client: None, settings, control })
    }

    /// How many threads serve the address; 0 counts as 1. The kernel spreads clients over them by a
    /// hash of their address and port.
    pub fn workers(mut self, workers: usize) -> Self {
        self.workers = workers.clamp(1, MAX_WORKERS);
        self
    }

    /// How long a flow lasts after the last datagram in either direction. Default: 60 s.
    ///
    /// Under [one-packet scheduling](Self::one_packet) this is how long replies find their client,
    /// and it is 5 s at the most.
    pub fn idle_timeout(mut self, timeout: Duration) -> Self {
        self.settings.idle_timeout = timeout;
        self
    }

    /// How long a flow lasts at the most, however busy; after it the client's next datagram is
    /// scheduled anew. Default: no end.
    pub fn total_timeout(mut self, timeout: Duration) -> Self {
        self.settings.total_timeout = Some(timeout);
        self
    }

    /// The most flows at once, over all workers; each has its equal part of it. 0 counts as 1.
    /// Each takes a descriptor. Default: 10 000. What is shed is said [above](Self#full-tables).
    pub fn max_flows(mut self, flows: usize) -> Self {
        self.settings.max_flows = flows.max(1);
        self
    }

    /// The most flows at once of one client's address, over all workers. Default: no bound.
    pub fn max_flows_per_client(mut self, flows: usize) -> Self {
        self.max_flows_per_client = Some(flows);
        self
    }

    /// How many backends are tried for one flow until one replies, the first included; 0 counts
    /// as 1. Default: 3.
    pub fn attempts(mut self, attempts: u32) -> Self {
        self.settings.attempts = attempts.max(1);
        self
    }

    /// A flow ends when each datagram of its client has had so many replies, as with DNS (1).
    /// Default: flows end by their timeouts alone. 0 counts as 1.
    pub fn replies(mut self, replies: u32) -> Self {
        self.settings.replies = Some(replies.max(1));
        self
    }

    /// Schedules each datagram by itself, as `ipvsadm --ops` has it. Default: off.
    ///
    /// No flow holds a lease: a datagram's ends as [`Ok`](crate::Outcome::Ok) once it is sent, and
    /// a refusal that comes later is told as a lease of its own. What is kept, for replies, is a
    /// socket for each pair of client and backend, for the [idle timeout](Self::idle_timeout) or
    /// 5 s; these are the flows that limits and counters speak of then.
    pub fn one_packet(mut self, on: bool) -> Self {
        self.settings.one_packet = on;
        self
    }

    /// Clients stay with their backend beyond one flow. The balancer under the persistence does the
    /// picking then, and the forwarder's own is not asked.
    pub fn persistence(mut self, persistence: Arc<Persistence<SocketAddr>>) -> Self {
        self.settings.persistence = Some(persistence);
        self
    }

    /// Whether runs of datagrams are received and sent as one. Default: [`Coalesce::Auto`].
    pub fn coalesce(mut self, coalesce: Coalesce) -> Self {
        self.settings.coalesce = coalesce;
        self
    }

    /// The address it receives on.
    #[must_use]
    pub fn local_addr(&self) -> SocketAddr {
        self.settings.address
    }

    /// A hold on the forwarder for when it runs.
    #[must_use]
    pub fn handle(&self) -> UdpHandle {
        UdpHandle { address: self.settings.address, control: Arc::clone(&self.control) }
    }

    /// Carries datagrams until [`UdpHandle::shutdown`], then begins no more flows and waits for
    /// those that live, up to the deadline given there.
    ///
    /// # Errors
    /// [`ForwardError::Listener`] if the sockets of the workers cannot be made or watched, or
    /// [`ForwardError::UdpWorker`] if the threads cannot. Nothing after that.
    ///
    /// # Panics
    /// If a worker did.
    ///
    /// # Cancel safety
    /// Dropping the future cuts all flows and closes the sockets, as soon as the workers have heard
    /// of it. Leases end as [`Cancelled`](crate::Outcome::Cancelled), and the counters stay exact.
    pub async fn run(self) -> Result<DrainReport, ForwardError> {
        let listener = |source| ForwardError::Listener { source };
        let Self { sockets, workers, max_flows_per_client, settings, control } = self;
        let workers = workers.max(sockets.len());
        let _guard = CutFlowsOnDrop(Arc::clone(&control));
        let settings = Arc::new(settings);
        let clients = Arc::new(ClientFlowLimit::new(max_flows_per_client));
        let mut ready = Vec::new();
        let sockets = socket::add_reuseport_listeners(sockets, workers).map_err(listener)?;
        let again = sockets.iter().map(UdpSocket::try_clone).collect::<io::Result<Vec<_>>>();
        *lock(&control.listeners) = again.map_err(listener)?;
        for socket in sockets {
            let worker = UdpWorker::new(&settings, &control, &clients, (socket, workers));
            ready.push(worker.map_err(listener)?);
        }
        let mut running = Vec::new();
        for (number, worker) in ready.into_iter().enumerate() {
            let (done, drained) = oneshot::channel();
            let thread = thread::Builder::new()
                .name(format!("lvs-udp-{number}"))
                .spawn(move || {
                    // Nobody listens any more where the future was dropped.
                    let _ = done.send(worker.run());
                })
                .map_err(|source| ForwardError::Worker { source })?;
            running.push((thread, drained));
        }
        let mut sum = DrainReport::default();
        for (thread, drained) in running {
            match drained.await {
                Ok(drained) => {
                    sum.finished += drained.finished;
                    sum.cut += drained.cut;
                }
                Err(_) => {
                    if let Err(panic) = thread.join() {
                        std::panic::resume_unwind(panic);
                    }
                }
            }
        }
        Ok(sum)
    }
}

/// Ends the workers when nobody waits for them any more.
struct CutFlowsOnDrop(Arc<UdpControl>);

impl Drop for CutFlowsOnDrop {
    fn drop(&mut self) {
        self.0.start_drain(Some(now()), false);
    }
}
