//! From backends to clients.

use std::io;
use std::os::fd::AsFd;
use std::time::Instant;

use rustix::event::{PollFd, PollFlags, Timespec, poll};

use super::requests::has_run;
use super::{PlacedDatagram, UdpWorker, datagram_count};
use crate::forward::udp::counters::{FlowEndReason, UndeliveredReason, add_relaxed};
use crate::forward::udp::flow_table::FlowId;
use crate::forward::udp::outbox::{MessageResult, SendControl};
use crate::forward::udp::socket::{is_local_error, is_unreachable_error};
use crate::sys::mmsg::set_udp_gro;

/// Replies taken from one backend's socket with one call.
const REPLY_BATCH: usize = 16;

/// How long a full send buffer of the listener is waited for.
const SEND_BUFFER_TIMEOUT: Timespec = Timespec { tv_sec: 0, tv_nsec: 1_000_000 };

impl UdpWorker {
    /// Takes what backends have sent, and hands it to the clients.
    pub(super) fn serve_backends(&mut self, now: Instant) {
        self.replies.clear();
        self.outbox.clear();
        for at in 0..self.ready.len() {
            if self.replies.free_slots() == 0 {
                self.send_replies();
            }
            self.receive_replies(self.ready[at], now);
        }
        self.send_replies();
    }

    fn receive_replies(&mut self, id: FlowId, now: Instant) {
        let Some(key) = self.flows.table.key(id).copied() else { return };
        let Some(upstream) = self.flows.table.get_mut(id) else { return };
        let begin = self.replies.received().len();
        match self.replies.receive(upstream.socket(), REPLY_BATCH, false) {
            Ok(_) => {}
            Err(error) if error.kind() == io::ErrorKind::WouldBlock => return,
            Err(error) if is_unreachable_error(&error) => {
                return self.handle_refusal(id, error, now);
            }
            Err(_) => return add_relaxed(&self.metrics.server_errors, 1),
        }
        let (mut datagrams, mut bytes) = (0, 0);
        let received = &self.replies.received()[begin..];
        for (offset, it) in received.iter().enumerate() {
            let count = datagram_count(it);
            datagrams += count;
            bytes += it.len as u64;
            match it.truncated {
                true => self.metrics.count_undelivered(UndeliveredReason::Damaged, count),
                false => {
                    let way = (Some(key.client), key.local);
                    self.outbox.push(
                        id.to_u64(),
                        way,
                        (begin + offset, it),
                        upstream.may_coalesce[1],
                    );
                }
            }
        }
        self.metrics.from_servers.add(datagrams, bytes);
        upstream.metrics.from_server.add(datagrams, bytes);
        upstream.replies += datagrams;
        if self.settings.coalesces_when_detected() && !upstream.coalescing && has_run(received) {
            upstream.coalescing = set_udp_gro(upstream.socket(), true).is_ok();
        }
        let owed = self.settings.has_missing_replies(upstream.requests, upstream.replies);
        self.flows.record_reply(id, now);
        if self.settings.replies.is_some() && !owed {
            self.flows.end_flow(id, FlowEndReason::Replied);
        }
    }

    /// A backend has refused what it was sent before. What is still at hand of it is sent again.
    fn handle_refusal(&mut self, id: FlowId, error: io::Error, now: Instant) {
        let at_hand = |it: &PlacedDatagram| it.flow_id == id;
        let Some(begin) = self.placed.iter().position(at_hand) else {
            self.flows.fail_over(id, &error, now);
            return;
        };
        // The outbox holds replies that have to be off first.
        self.send_replies();
        let run = self.placed[begin..].iter().take_while(|it| at_hand(it)).count();
        let run = begin..begin + run;
        let accounted = self.count_datagrams(run.clone());
        self.retry_on_other_backend(run, accounted, error, now);
        self.outbox.clear();
    }

    /// Sends the replies that were taken.
    fn send_replies(&mut self) {
        let tally = &*self.metrics;
        let (listener, table) = (&self.listener, &mut self.flows.table);
        let mut patience = true;
        self.outbox.send(listener.as_fd(), &self.replies, |note, fate| match fate {
            MessageResult::Sent => {
                tally.to_clients.add(note.datagrams, note.bytes);
                if note.segmentation_failed
                    && let Some(upstream) = table.get_mut(FlowId::from_u64(note.tag))
                {
                    upstream.may_coalesce[1] = false;
                }
                SendControl::Continue
            }
            MessageResult::Failed(error)
                if error.kind() == io::ErrorKind::WouldBlock && patience =>
            {
                patience = false;
                let _ =
                    poll(&mut [PollFd::new(listener, PollFlags::OUT)], Some(&SEND_BUFFER_TIMEOUT));
                SendControl::Retry
            }
            MessageResult::Failed(error) => {
                let why = if is_local_error(&error) {
                    UndeliveredReason::SendBuffer
                } else {
                    UndeliveredReason::Rejected
                };
                tally.count_undelivered(why, note.datagrams);
                SendControl::Continue
            }
        });
        self.outbox.clear();
        self.replies.clear();
    }
}
