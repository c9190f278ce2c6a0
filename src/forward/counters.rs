//! What a forwarder has done, counted exactly.

use std::sync::Arc;

use crate::balancer::PickError;
use crate::sync::{AtomicU64, Ordering};

/// What one forwarder has done so far.
///
/// Every accepted connection is in exactly one place:
/// `accepted = active + finished + client_broke + server_broke + cut + refused.total()`.
#[derive(Clone, Copy, Debug, Default, Eq, PartialEq)]
#[non_exhaustive]
pub struct Counters {
    /// Connections taken from the listener.
    pub accepted: u64,
    /// Connections that are being connected or carried now.
    pub active: u64,
    /// Connections that both sides closed in order.
    pub finished: u64,
    /// Connections that broke on the client's side.
    pub client_broke: u64,
    /// Connections that broke on the backend's side.
    pub server_broke: u64,
    /// Connections ended by the forwarder: at the deadline of a drain, or because
    /// [`run`](super::Forwarder::run) was dropped.
    pub cut: u64,
    /// Connections that no backend took, and why.
    pub refused: Refusals,
    /// Attempts to connect that failed, whether or not the next one went well.
    pub failed_connects: u64,
    /// Accepts that failed: the process is out of descriptors or memory, or a client left the queue.
    pub failed_accepts: u64,
    /// How often [`max_connections`](super::Forwarder::max_connections) was reached, so that
    /// clients had to wait in the kernel's queue.
    pub filled: u64,
    /// Bytes handed to backends.
    pub bytes_to_servers: u64,
    /// Bytes handed to clients.
    pub bytes_to_clients: u64,
}

/// Connections that were reset because no backend took them, by reason.
#[derive(Clone, Copy, Debug, Default, Eq, PartialEq)]
#[non_exhaustive]
pub struct Refusals {
    /// Nobody could be chosen: the set is empty, quiesced or down.
    pub no_backend: u64,
    /// Every backend was at its connection limit.
    pub saturated: u64,
    /// The scheduler's rule gave the connection to nobody.
    pub scheduler: u64,
    /// The last backend tried could not be connected to.
    pub connect_error: u64,
    /// The last backend tried did not answer in time.
    pub connect_timeout: u64,
    /// This machine had no port, descriptor or memory for the last connection tried.
    pub no_resources: u64,
}

impl Refusals {
    /// All of them.
    #[must_use]
    pub const fn total(&self) -> u64 {
        self.no_backend
            + self.saturated
            + self.scheduler
            + self.connect_error
            + self.connect_timeout
            + self.no_resources
    }
}

/// Why no backend took a connection.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub(super) enum Refusal {
    NoBackend,
    Saturated,
    Scheduler,
    ConnectError,
    ConnectTimeout,
    NoResources,
}

impl From<PickError> for Refusal {
    fn from(error: PickError) -> Self {
        match error {
            PickError::Empty | PickError::AllQuiesced | PickError::AllDown => Self::NoBackend,
            PickError::Saturated => Self::Saturated,
            PickError::Refused => Self::Scheduler,
            PickError::Exhausted => Self::ConnectError,
        }
    }
}

/// How a connection ended.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub(super) enum End {
    Finished,
    ClientBroke,
    ServerBroke,
    Cut,
    Refused(Refusal),
}

impl End {
    const COUNT: usize = 10;

    const fn index(self) -> usize {
        match self {
            Self::Finished => 0,
            Self::ClientBroke => 1,
            Self::ServerBroke => 2,
            Self::Cut => 3,
            Self::Refused(refusal) => 4 + refusal as usize,
        }
    }
}

/// The live counters behind [`Counters`].
#[derive(Debug, Default)]
pub(super) struct Tally {
    accepted: AtomicU64,
    ends: [AtomicU64; End::COUNT],
    pub(super) failed_connects: AtomicU64,
    pub(super) failed_accepts: AtomicU64,
    pub(super) filled: AtomicU64,
    pub(super) bytes_to_servers: AtomicU64,
    pub(super) bytes_to_clients: AtomicU64,
}

impl Tally {
    pub(super) fn read(&self) -> Counters {
        // Acquire, with the Release in `Entry::drop`: whoever sees an end sees its beginning, if it
        // looks for it later; so `active` is never below zero.
        let ends = self.ends.each_ref().map(|end| end.load(Ordering::Acquire));
        let accepted = read(&self.accepted);
        let at = |end: End| ends[end.index()];
        let refused = |refusal| at(End::Refused(refusal));
        Counters {
            accepted,
            active: accepted.saturating_sub(ends.iter().sum()),
            finished: at(End::Finished),
            client_broke: at(End::ClientBroke),
            server_broke: at(End::ServerBroke),
            cut: at(End::Cut),
            refused: Refusals {
                no_backend: refused(Refusal::NoBackend),
                saturated: refused(Refusal::Saturated),
                scheduler: refused(Refusal::Scheduler),
                connect_error: refused(Refusal::ConnectError),
                connect_timeout: refused(Refusal::ConnectTimeout),
                no_resources: refused(Refusal::NoResources),
            },
            failed_connects: read(&self.failed_connects),
            failed_accepts: read(&self.failed_accepts),
            filled: read(&self.filled),
            bytes_to_servers: read(&self.bytes_to_servers),
            bytes_to_clients: read(&self.bytes_to_clients),
        }
    }
}

/// Adds to a counter that orders nothing.
pub(super) fn add(counter: &AtomicU64, amount: u64) {
    counter.fetch_add(amount, Ordering::Relaxed);
}

fn read(counter: &AtomicU64) -> u64 {
    counter.load(Ordering::Relaxed)
}

/// One accepted connection in the books: counted when made, and once more when dropped.
#[derive(Debug)]
pub(super) struct Entry {
    tally: Arc<Tally>,
    end: End,
}

impl Entry {
    pub(super) fn new(tally: &Arc<Tally>) -> Self {
        add(&tally.accepted, 1);
        Self { tally: Arc::clone(tally), end: End::Cut }
    }

    /// Closes the entry; one that is dropped without a word was cut.
    pub(super) fn close(mut self, end: End) {
        self.end = end;
    }
}

impl Drop for Entry {
    fn drop(&mut self) {
        // Release: see `Tally::read`.
        self.tally.ends[self.end.index()].fetch_add(1, Ordering::Release);
    }
}

#[cfg(all(test, not(lvs_loom)))]
mod tests {
    use super::*;

    #[test]
    fn every_connection_is_in_exactly_one_place() {
        let tally = Arc::new(Tally::default());
        let refusals = [
            Refusal::NoBackend,
            Refusal::Saturated,
            Refusal::Scheduler,
            Refusal::ConnectError,
            Refusal::ConnectTimeout,
            Refusal::NoResources,
        ];
        for end in [End::Finished, End::ClientBroke, End::ServerBroke]
            .into_iter()
            .chain(refusals.map(End::Refused))
        {
            Entry::new(&tally).close(end);
        }
        drop(Entry::new(&tally));
        let running = Entry::new(&tally);
        let each_once = Counters {
            accepted: 11,
            active: 1,
            finished: 1,
            client_broke: 1,
            server_broke: 1,
            cut: 1,
            refused: Refusals {
                no_backend: 1,
                saturated: 1,
                scheduler: 1,
                connect_error: 1,
                connect_timeout: 1,
                no_resources: 1,
            },
            ..Counters::default()
        };
        assert_eq!(tally.read(), each_once);
        drop(running);
        assert_eq!(tally.read(), Counters { active: 0, cut: 2, ..each_once });
    }
}
