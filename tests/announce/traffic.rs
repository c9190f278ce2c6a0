//! Clients that connect all the time, and what becomes of each attempt.

use std::io::{self, Read as _, Write as _};
use std::net::{IpAddr, SocketAddr, TcpListener, TcpStream};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread::{self, JoinHandle};
use std::time::Duration;

use socket2::{Domain, Socket, Type};

use crate::machines::{Machines, get_by};
use crate::world::{ANNOUNCED, ANNOUNCED_V6, SOURCES, source_addresses};

/// Half of them for each family.
const CLIENTS: usize = 8;
/// How long a connection may take: as long as two first packets, of which one may be lost on a busy machine.
const CONNECT_LIMIT: Duration = Duration::from_millis(2500);
/// Before a client would send its first packet again.
pub(crate) const FIRST_PACKET_LIMIT: Duration = Duration::from_millis(900);
/// How often each client tries, even if it is stopped at once.
const MIN_ATTEMPTS: usize = 10;
/// How long a client waits between two attempts.
const PAUSE: Duration = Duration::from_millis(10);

/// What became of an attempt to get an answer by a connection of its own.
enum Fate {
    /// A server answered.
    Answered,
    /// There was no connection.
    NotConnected(io::Error),
    /// The connection was opened, and brought no answer.
    Broken(io::Error),
}

/// Clients that run. Dropped, they end with their current attempts.
pub(crate) struct Traffic {
    stop: Arc<AtomicBool>,
    clients: Vec<JoinHandle<Vec<Fate>>>,
}

/// What became of all attempts.
#[derive(Debug)]
pub(crate) struct Outcome {
    pub(crate) attempts: usize,
    /// Why attempts had no connection.
    not_connected: Vec<io::Error>,
    /// Why attempts failed whose connection was opened: routers sent its packets to another director in the middle.
    broken: Vec<io::Error>,
}

impl Traffic {
    pub(crate) fn start(machines: &Machines) -> Self {
        Self::start_with_limit(machines, CONNECT_LIMIT)
    }

    /// As [`start`](Self::start), for connections that take this long at most.
    pub(crate) fn start_with_limit(machines: &Machines, limit: Duration) -> Self {
        let stop = Arc::new(AtomicBool::new(false));
        let clients = (0..CLIENTS).map(|n| {
            let ip = if n % 2 == 0 { ANNOUNCED } else { ANNOUNCED_V6 };
            let address = SocketAddr::new(ip.parse().expect("an address"), 80);
            let stopped = Arc::clone(&stop);
            machines.thread("c", move || {
                let mut attempts = Vec::new();
                while attempts.len() < MIN_ATTEMPTS || !stopped.load(Ordering::Relaxed) {
                    attempts.push(attempt(address, limit));
                    thread::sleep(PAUSE);
                }
                attempts
            })
        });
        let clients = clients.collect();
        Self { stop, clients }
    }

    /// Ends the clients.
    pub(crate) fn stop(self) -> Outcome {
        self.stop.store(true, Ordering::Relaxed);
        let clients = self.clients.into_iter();
        let attempts: Vec<_> =
            clients.flat_map(|client| client.join().expect("no panic")).collect();
        let mut outcome =
            Outcome { attempts: attempts.len(), not_connected: Vec::new(), broken: Vec::new() };
        for attempt in attempts {
            match attempt {
                Fate::Answered => {}
                Fate::NotConnected(error) => outcome.not_connected.push(error),
                Fate::Broken(error) => outcome.broken.push(error),
            }
        }
        outcome
    }
}

fn attempt(address: SocketAddr, limit: Duration) -> Fate {
    match TcpStream::connect_timeout(&address, limit) {
        // It was open, and its next packet came to another director before this call returned: who has nobody at a
        // port refuses a connection by another error.
        Err(error) if error.kind() == io::ErrorKind::ConnectionReset => Fate::Broken(error),
        Err(error) => Fate::NotConnected(error),
        Ok(stream) => match get_by(stream, "/") {
            Ok(answer) if answer.starts_with("server") => Fate::Answered,
            Ok(answer) => Fate::Broken(io::Error::other(answer)),
            Err(error) => Fate::Broken(error),
        },
    }
}

impl Outcome {
    /// Panics unless each attempt had a connection; some of those that were open when routers turned may have broken.
    #[track_caller]
    pub(crate) fn assert_all_connected(&self) {
        let Self { attempts, not_connected, broken } = self;
        assert!(*attempts > 0 && not_connected.is_empty(), "{attempts}: {not_connected:?}");
        assert!(broken.len() * 20 < *attempts, "{attempts}: {broken:?}");
    }

    /// Returns how many attempts had no connection.
    pub(crate) fn count_not_connected(&self) -> usize {
        self.not_connected.len()
    }
}

/// Connections that stay open.
pub(crate) struct OpenConnections(Vec<TcpStream>);

impl OpenConnections {
    /// Opens connections, half of them over each family.
    pub(crate) fn open(machines: &Machines, count: usize) -> Self {
        let open = (0..count).map(|n| {
            let (four, six) = source_addresses(n / 2 % SOURCES);
            let (ip, source) = if n % 2 == 0 { (ANNOUNCED, four) } else { (ANNOUNCED_V6, six) };
            let address = SocketAddr::new(ip.parse().expect("an address"), 81);
            machines.within("c", || connect_from(source, address)).expect("the directors serve")
        });
        let mut connections = Self(open.collect());
        assert_eq!(connections.count_broken(), 0);
        connections
    }

    /// Sends something by each connection, and returns how many do not echo it.
    pub(crate) fn count_broken(&mut self) -> usize {
        let echoes = |stream: &mut TcpStream| {
            stream.set_read_timeout(Some(Duration::from_secs(1)))?;
            stream.write_all(b"x")?;
            stream.read_exact(&mut [0])
        };
        thread::scope(|scope| {
            let threads: Vec<_> =
                self.0.iter_mut().map(|stream| scope.spawn(move || echoes(stream))).collect();
            let results = threads.into_iter().map(|thread| thread.join().expect("no panic"));
            results.filter(Result::is_err).count()
        })
    }
}

fn connect_from(source: IpAddr, address: SocketAddr) -> io::Result<TcpStream> {
    let socket = Socket::new(Domain::for_address(address), Type::STREAM, None)?;
    socket.bind(&SocketAddr::new(source, 0).into())?;
    socket.connect_timeout(&address.into(), Duration::from_secs(2))?;
    Ok(socket.into())
}

/// Starts the server of [`OpenConnections`], which ends with the process.
pub(crate) fn start_echo_server(machines: &Machines, side: &str) {
    let listener = machines.within(side, || TcpListener::bind("[::]:81"));
    let listener = listener.expect("the address is there");
    thread::spawn(move || {
        for stream in listener.incoming().flatten() {
            thread::spawn(move || echo(stream));
        }
    });
}

fn echo(mut stream: TcpStream) -> io::Result<()> {
    let mut octet = [0];
    loop {
        stream.read_exact(&mut octet)?;
        stream.write_all(&octet)?;
    }
}
