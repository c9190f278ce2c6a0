//! The forwarder itself: listens, limits, and drains.

mod connection;

use std::io::{self, ErrorKind};
use std::net::{SocketAddr, TcpListener as StdListener};
use std::sync::Arc;
use std::time::Duration;

use tokio::net::{TcpListener, TcpStream};
use tokio::sync::watch;
use tokio::task::JoinSet;
use tokio::time::{Instant, sleep_until};
use tracing::warn;

use self::connection::{Connection, Effort};
use super::backoff::Backoff;
use super::counters::{Tally, add};
use super::handle::Phase;
use super::{Drained, ForwardError, Handle};
use crate::{Balancer, Flow};

/// Carries the connections of one listening TCP socket to the backends a balancer chooses.
///
/// # Examples
/// ```no_run
/// use std::net::SocketAddr;
/// use std::time::Duration;
/// use lvs::forward::Forwarder;
/// use lvs::scheduler::RoundRobin;
/// use lvs::{BackendSet, Balancer};
///
/// # async fn example() -> Result<(), Box<dyn std::error::Error>> {
/// let set = BackendSet::<SocketAddr>::new();
/// set.insert("10.0.0.1:80".parse::<SocketAddr>()?)?;
/// set.insert("10.0.0.2:80".parse::<SocketAddr>()?)?;
///
/// let balancer = Balancer::new(&set, RoundRobin)?;
/// let forwarder = Forwarder::bind("0.0.0.0:8080".parse()?, balancer)?.max_connections(50_000);
/// let handle = forwarder.handle();
/// let running = tokio::spawn(forwarder.run());
///
/// // Later: no new connections, ten seconds for those that are there.
/// handle.shutdown(Duration::from_secs(10));
/// let drained = running.await??;
/// println!("{} finished, {} cut", drained.finished, drained.cut);
/// # Ok(())
/// # }
/// ```
#[derive(Debug)]
#[must_use = "a forwarder does nothing until it runs"]
pub struct Forwarder {
    listener: StdListener,
    service: Service,
}

/// All of a forwarder but its listener.
#[derive(Debug)]
struct Service {
    address: SocketAddr,
    balancer: Balancer<SocketAddr>,
    max_connections: usize,
    effort: Effort,
    phase: Arc<watch::Sender<Phase>>,
    tally: Arc<Tally>,
}

impl Forwarder {
    /// Listens on an address; port 0 takes any free one, which [`Forwarder::local_addr`] names.
    ///
    /// The queue of the listener is that of the standard library (128 connections); for another,
    /// or for socket options, [hand in a listener](Forwarder::new).
    ///
    /// # Errors
    /// [`ForwardError::Bind`] if the system does not give out the address.
    pub fn bind(address: SocketAddr, balancer: Balancer<SocketAddr>) -> Result<Self, ForwardError> {
        let listener =
            StdListener::bind(address).map_err(|source| ForwardError::Bind { address, source })?;
        Self::new(listener, balancer)
    }

    /// Takes a listener that is there already: inherited, or made with options of its own.
    ///
    /// # Errors
    /// [`ForwardError::Listener`] if it is no usable socket.
    pub fn new(
        listener: StdListener,
        balancer: Balancer<SocketAddr>,
    ) -> Result<Self, ForwardError> {
        let address = listener
            .set_nonblocking(true)
            .and_then(|()| listener.local_addr())
            .map_err(|source| ForwardError::Listener { source })?;
        let service = Service {
            address,
            balancer,
            max_connections: MAX_CONNECTIONS,
            effort: Effort { timeout: CONNECT_TIMEOUT, attempts: CONNECT_ATTEMPTS },
            phase: Arc::new(watch::Sender::new(Phase::Serving)),
            tally: Arc::default(),
        };
        Ok(Self { listener, service })
    }

    /// The most connections carried at once; 0 counts as 1. Beyond it nothing is accepted, and
    /// clients wait in the kernel's queue. Each takes two descriptors. Default: 10 000.
    pub fn max_connections(mut self, connections: usize) -> Self {
        self.service.max_connections = connections.max(1);
        self
    }

    /// How long a backend may take to answer before the next one is tried. Default: 5 s, which
    /// outlives the loss of the first two SYN packets (sent again after 1 s and 3 s).
    pub fn connect_timeout(mut self, timeout: Duration) -> Self {
        self.service.effort.timeout = timeout;
        self
    }

    /// How many backends are tried for one connection, the first included; 0 counts as 1.
    /// Default: 3.
    pub fn connect_attempts(mut self, attempts: u32) -> Self {
        self.service.effort.attempts = attempts.max(1);
        self
    }

    /// The address it listens on.
    #[must_use]
    pub fn local_addr(&self) -> SocketAddr {
        self.service.address
    }

    /// A hold on the forwarder for when it runs.
    #[must_use]
    pub fn handle(&self) -> Handle {
        Handle {
            address: self.service.address,
            phase: Arc::clone(&self.service.phase),
            tally: Arc::clone(&self.service.tally),
        }
    }

    /// Carries connections until [`Handle::shutdown`], then closes the listener and waits for the
    /// connections that run, up to the deadline given there.
    ///
    /// Clients that the kernel has queued but nobody has accepted are reset with the listener. A
    /// failed accept never ends it: shortages (no descriptor, no memory) are waited out, from 10 ms
    /// doubling to 1 s.
    ///
    /// # Errors
    /// [`ForwardError::Listener`] if the runtime cannot watch the listener. Nothing after that.
    ///
    /// # Panics
    /// Outside a tokio runtime that has I/O and time enabled.
    ///
    /// # Cancel safety
    /// Dropping the future closes the listener and cuts all connections, each as soon as its task
    /// rests. Their leases end as [`Cancelled`](crate::Outcome::Cancelled), and the counters stay
    /// exact.
    pub async fn run(self) -> Result<Drained, ForwardError> {
        let listener = TcpListener::from_std(self.listener)
            .map_err(|source| ForwardError::Listener { source })?;
        let mut phase = self.service.phase.subscribe();
        let mut connections = JoinSet::new();
        self.service.accept_until_told(listener, &mut phase, &mut connections).await;
        Ok(drain(phase, connections).await)
    }
}

impl Service {
    async fn accept_until_told(
        &self,
        listener: TcpListener,
        phase: &mut watch::Receiver<Phase>,
        connections: &mut JoinSet<()>,
    ) {
        let mut backoff = Backoff::default();
        let mut resting = None;
        loop {
            let full = connections.len() >= self.max_connections;
            tokio::select! {
                biased;
                _ = phase.wait_for(Phase::is_draining) => return,
                // Whoever has ended has given descriptors back.
                Some(_) = connections.join_next() => resting = None,
                () = sleep_until(resting.unwrap_or_else(Instant::now)), if resting.is_some() => {
                    resting = None;
                }
                accepted = listener.accept(), if !full && resting.is_none() => match accepted {
                    Ok((client, source)) => {
                        backoff.succeed();
                        self.spawn(client, source, connections);
                    }
                    Err(error) => {
                        add(&self.tally.failed_accepts, 1);
                        if !is_of_one_client(&error) {
                            resting = Some(Instant::now() + self.rest(&mut backoff, &error));
                        }
                    }
                },
            }
        }
    }

    fn spawn(&self, client: TcpStream, source: SocketAddr, connections: &mut JoinSet<()>) {
        let _ = client.set_nodelay(true);
        let destination = client.local_addr().unwrap_or(self.address);
        // A listener for both families sees IPv4 clients as mapped ones; hash them as what they are.
        let flow = Flow::from(canonical(source)).to_destination(canonical(destination));
        // Made here and not in the task, which may be cut before it has run at all.
        let rule = (&self.balancer, self.effort);
        let connection = Connection::new(client, flow, rule, &self.tally);
        connections.spawn(connection.serve());
        if connections.len() == self.max_connections {
            add(&self.tally.filled, 1);
        }
    }

    fn rest(&self, backoff: &mut Backoff, error: &io::Error) -> Duration {
        if backoff.is_calm() {
            warn!(address = %self.address, %error, "cannot accept; trying again until it works");
        }
        backoff.fail()
    }
}

/// Waits for connections until the deadline, and cuts those that are left.
async fn drain(mut phase: watch::Receiver<Phase>, mut connections: JoinSet<()>) -> Drained {
    let mut drained = Drained::default();
    loop {
        let deadline = phase.borrow_and_update().deadline();
        tokio::select! {
            biased;
            joined = connections.join_next() => match joined {
                Some(joined) => drained.count(joined.is_ok()),
                None => return drained,
            },
            Ok(()) = phase.changed() => {}
            () = sleep_until(deadline.unwrap_or_else(Instant::now)), if deadline.is_some() => break,
        }
    }
    connections.abort_all();
    // One that ended at the last moment has not been cut: ask them all.
    while let Some(joined) = connections.join_next().await {
        drained.count(joined.is_ok());
    }
    drained
}

impl Drained {
    fn count(&mut self, by_itself: bool) {
        match by_itself {
            true => self.finished += 1,
            false => self.cut += 1,
        }
    }
}

/// Tells whether a failed accept concerns one client, who has left already, and no other.
fn is_of_one_client(error: &io::Error) -> bool {
    matches!(
        error.kind(),
        ErrorKind::ConnectionAborted | ErrorKind::ConnectionReset | ErrorKind::Interrupted
    )
}

fn canonical(address: SocketAddr) -> SocketAddr {
    SocketAddr::new(address.ip().to_canonical(), address.port())
}

/// Some 200 MB where all are busy, and within the descriptors of a service that was given 20 480.
const MAX_CONNECTIONS: usize = 10_000;
const CONNECT_TIMEOUT: Duration = Duration::from_secs(5);
const CONNECT_ATTEMPTS: u32 = 3;
