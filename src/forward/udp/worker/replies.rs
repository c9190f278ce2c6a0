//! From backends to clients.

use std::io;
use std::os::fd::AsFd;
use std::time::Instant;

use rustix::event::{PollFd, PollFlags, Timespec, poll};

use super::requests::is_run;
use super::{Placed, Worker, datagrams_in};
use crate::forward::udp::counters::{End, Loss, add};
use crate::forward::udp::outbox::{Fate, Then};
use crate::forward::udp::socket::{is_local, is_unreachable};
use crate::forward::udp::table::FlowId;
use crate::sys::mmsg::coalesce;

/// Replies taken from one backend's socket with one call.
const REPLIES: usize = 16;

/// How long a full send buffer of the listener is waited for.
const SEND_PATIENCE: Timespec = Timespec { tv_sec: 0, tv_nsec: 1_000_000 };

impl Worker {
    /// Takes what backends have sent, and hands it to the clients.
    pub(super) fn serve_backends(&mut self, now: Instant) {
        self.replies.clear();
        self.outbox.clear();
        for at in 0..self.ready.len() {
            if self.replies.room() == 0 {
                self.deliver();
            }
            self.take_replies(self.ready[at], now);
        }
        self.deliver();
    }

    fn take_replies(&mut self, id: FlowId, now: Instant) {
        let Some(key) = self.flows.table.key(id).copied() else { return };
        let Some(upstream) = self.flows.table.get_mut(id) else { return };
        let begin = self.replies.received().len();
        match self.replies.receive(upstream.socket(), REPLIES, false) {
            Ok(_) => {}
            Err(error) if error.kind() == io::ErrorKind::WouldBlock => return,
            Err(error) if is_unreachable(&error) => return self.refused(id, error, now),
            Err(_) => return add(&self.tally.server_errors, 1),
        }
        let (mut datagrams, mut bytes) = (0, 0);
        let received = &self.replies.received()[begin..];
        for (offset, it) in received.iter().enumerate() {
            let count = datagrams_in(it);
            datagrams += count;
            bytes += it.len as u64;
            match it.truncated {
                true => self.tally.lose(Loss::Damaged, count),
                false => {
                    let way = (Some(key.client), key.local);
                    self.outbox.push(id.to_u64(), way, (begin + offset, it), upstream.joins[1]);
                }
            }
        }
        self.tally.from_servers.add(datagrams, bytes);
        upstream.tally.from_server.add(datagrams, bytes);
        upstream.replies += datagrams;
        if self.settings.coalesces_on_sight() && !upstream.coalescing && is_run(received) {
            upstream.coalescing = coalesce(upstream.socket(), true).is_ok();
        }
        let owed = self.settings.is_owed(upstream.requests, upstream.replies);
        self.flows.answered(id, now);
        if self.settings.replies.is_some() && !owed {
            self.flows.end(id, End::Replied);
        }
    }

    /// A backend has refused what it was sent before. What is still at hand of it is sent again.
    fn refused(&mut self, id: FlowId, error: io::Error, now: Instant) {
        let at_hand = |it: &Placed| it.id == id;
        let Some(begin) = self.placed.iter().position(at_hand) else {
            self.flows.fail(id, &error, now);
            return;
        };
        // The outbox holds replies that have to be off first.
        self.deliver();
        let run = self.placed[begin..].iter().take_while(|it| at_hand(it)).count();
        let run = begin..begin + run;
        let accounted = self.datagrams(run.clone());
        self.try_elsewhere(run, accounted, error, now);
        self.outbox.clear();
    }

    /// Sends the replies that were taken.
    fn deliver(&mut self) {
        let tally = &*self.tally;
        let (listener, table) = (&self.listener, &mut self.flows.table);
        let mut patience = true;
        self.outbox.send(listener.as_fd(), &self.replies, |note, fate| match fate {
            Fate::Sent => {
                tally.to_clients.add(note.datagrams, note.bytes);
                if note.uncut
                    && let Some(upstream) = table.get_mut(FlowId::from_u64(note.tag))
                {
                    upstream.joins[1] = false;
                }
                Then::Next
            }
            Fate::Failed(error) if error.kind() == io::ErrorKind::WouldBlock && patience => {
                patience = false;
                let _ = poll(&mut [PollFd::new(listener, PollFlags::OUT)], Some(&SEND_PATIENCE));
                Then::Again
            }
            Fate::Failed(error) => {
                let why = if is_local(&error) { Loss::SendBuffer } else { Loss::Rejected };
                tally.lose(why, note.datagrams);
                Then::Next
            }
        });
        self.outbox.clear();
        self.replies.clear();
    }
}
