//! From clients to backends.

use std::io;
use std::ops::Range;
use std::os::fd::AsFd;
use std::time::{Duration, Instant};

use rustix::net::{SendFlags, send};
use tracing::warn;

use super::{BATCH, Placed, Worker, datagrams_in};
use crate::forward::udp::counters::{Shed, add};
use crate::forward::udp::outbox::{Fate, Note, Then};
use crate::forward::udp::socket::{is_local, is_unreachable};
use crate::sys::mmsg::{Received, coalesce};

/// So many datagrams of one sender and size in a row look like a run that came apart on its way.
const RUN: usize = 4;

impl Worker {
    pub(super) fn serve_clients(&mut self, now: Instant) {
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

    pub(super) fn datagrams(&self, run: Range<usize>) -> u64 {
        let received = self.incoming.received();
        self.placed[run].iter().map(|it| datagrams_in(&received[it.index as usize])).sum()
    }

    /// Sends a run of placed datagrams to the backend of their flow. An error says that the backend
    /// is unreachable, and that none of them can be thought to have arrived.
    ///
    /// The first `accounted` of them are in the books already; the number goes on with those that
    /// were sent or shed.
    pub(super) fn send_to_backend(
        &mut self,
        run: Range<usize>,
        accounted: &mut u64,
    ) -> Option<io::Error> {
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
    pub(super) fn try_elsewhere(
        &mut self,
        run: Range<usize>,
        accounted: u64,
        error: io::Error,
        now: Instant,
    ) {
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

/// Tells whether datagrams of one sender and size follow each other.
pub(super) fn is_run(received: &[Received]) -> bool {
    received.windows(RUN).any(|run| {
        run[0].len != 0 && run[1..].iter().all(|it| (it.peer, it.len) == (run[0].peer, run[0].len))
    })
}

fn shed_by(error: &io::Error) -> Shed {
    if is_local(error) { Shed::SendBuffer } else { Shed::Rejected }
}
