//! Clients that make one request after the other.

use std::io::{self, Read as _, Write as _};
use std::net::{SocketAddr, TcpStream};
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::sync::{Arc, Mutex};
use std::thread::{self, JoinHandle};
use std::time::Duration;

use super::SERVICES;
use crate::inside::director::until;
use crate::inside::sync::enter_peer;

/// Clients of each service at a time.
pub(super) const CLIENTS: usize = 2;
/// The requests of each service, at least, in each phase.
const REQUESTS: usize = 50;
/// A client that never ends is a fault.
const MAX_REQUESTS: usize = 100_000;
/// After this time without an answer a request is lost.
const PATIENCE: Duration = Duration::from_secs(5);

fn request(address: SocketAddr) -> io::Result<()> {
    let mut stream = TcpStream::connect_timeout(&address, PATIENCE)?;
    stream.set_read_timeout(Some(PATIENCE))?;
    stream.write_all(b"?")?;
    let mut answer = [0; 4];
    stream.read_exact(&mut answer)
}

/// A request, with the numbers of the phases in which it began and ended.
#[derive(Clone, Copy, Debug)]
pub(super) struct Request {
    pub(super) begun: usize,
    pub(super) ended: usize,
    pub(super) error: Option<io::ErrorKind>,
}

#[derive(Default)]
struct LoadState {
    is_stopped: AtomicBool,
    requests: Mutex<Vec<Request>>,
}

/// Clients of a service, each of which makes one request after the other.
pub(super) struct ServiceLoad {
    state: Arc<LoadState>,
    threads: Vec<JoinHandle<()>>,
}

impl ServiceLoad {
    fn start(address: &str, machine: &'static str, phase: &Arc<AtomicUsize>) -> Self {
        let address: SocketAddr = address.parse().expect("an address");
        let state = Arc::new(LoadState::default());
        let client = || {
            let (state, phase) = (Arc::clone(&state), Arc::clone(phase));
            move || {
                enter_peer(machine);
                for _ in 0..MAX_REQUESTS {
                    if state.is_stopped.load(Ordering::Relaxed) {
                        return;
                    }
                    let begun = phase.load(Ordering::SeqCst);
                    let error = request(address).err().map(|error| error.kind());
                    let ended = phase.load(Ordering::SeqCst);
                    let request = Request { begun, ended, error };
                    state.requests.lock().expect("no panic").push(request);
                }
                panic!("the test does not end");
            }
        };
        let threads = (0..CLIENTS).map(|_| thread::spawn(client())).collect();
        Self { state, threads }
    }

    fn served(&self) -> usize {
        let requests = self.state.requests.lock().expect("no panic");
        requests.iter().filter(|request| request.error.is_none()).count()
    }

    /// Waits until the clients have their last answers, and returns the requests.
    async fn end(self) -> Vec<Request> {
        until("the clients have ended", || self.threads.iter().all(JoinHandle::is_finished)).await;
        for thread in self.threads {
            thread.join().expect("no panic");
        }
        std::mem::take(&mut self.state.requests.lock().expect("no panic"))
    }
}

/// The load of all services, and the number of the phase.
pub(super) struct Load {
    phase: Arc<AtomicUsize>,
    services: Vec<ServiceLoad>,
}

impl Load {
    pub(super) fn start() -> Self {
        let phase = Arc::new(AtomicUsize::new(0));
        let start = |(_, address, machine)| ServiceLoad::start(address, machine, &phase);
        Self { services: SERVICES.into_iter().map(start).collect(), phase }
    }

    /// Begins the next phase, and returns its number.
    pub(super) fn begin_phase(&self) -> usize {
        self.phase.fetch_add(1, Ordering::SeqCst) + 1
    }

    /// Waits until more requests of each service were served.
    pub(super) async fn more(&self) {
        for service in &self.services {
            let wanted = service.served() + REQUESTS;
            until("requests are served", || service.served() >= wanted).await;
        }
    }

    /// Ends all clients, and returns the requests of each service.
    ///
    /// It does not block the runtime: the director's checks run on it, and go on until the last answer.
    pub(super) async fn stop(self) -> Vec<Vec<Request>> {
        for service in &self.services {
            service.state.is_stopped.store(true, Ordering::Relaxed);
        }
        let mut requests = Vec::new();
        for service in self.services {
            requests.push(service.end().await);
        }
        requests
    }
}
