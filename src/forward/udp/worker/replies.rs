//! Datagrams from backends to clients.

use std::io;
use std::os::fd::AsFd;
use std::time::Instant;

use rustix::event::{PollFd, PollFlags, Timespec, poll};

use super::requests::has_run;
use super::{PlacedDatagram, UdpWorker, datagram_count};
use crate::forward::counters::add_relaxed;
use crate::forward::errno::{is_local_error, is_unreachable_error};
use crate::forward::udp::counters::{FlowEndReason, UndeliveredReason};
use crate::forward::udp::flow_table::FlowId;
use crate::forward::udp::outbox::{MessageResult, MessageRoute, SendControl};
use crate::sys::mmsg::set_udp_gro;

/// The number of datagrams received from one socket by one system call.
const REPLY_BATCH: usize = 16;

/// How long to wait for room in a full send buffer of the listener.
const SEND_BUFFER_TIMEOUT: Timespec = Timespec { tv_sec: 0, tv_nsec: 1_000_000 };

impl UdpWorker {
    /// Receives from the readable sockets of backends, and sends the datagrams to the clients.
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
        let requested = REPLY_BATCH.min(self.replies.free_slots());
        match self.replies.receive(upstream.socket(), requested, false) {
            Ok(received) => self.has_more_replies |= received == requested,
            Err(error) if error.kind() == io::ErrorKind::WouldBlock => return,
            Err(error) => {
                // There may be datagrams behind the error.
                self.has_more_replies = true;
                if is_unreachable_error(&error) {
                    return self.handle_refusal(id, error, now);
                }
                return add_relaxed(&self.metrics.server_errors, 1);
            }
        }
        let (mut datagrams, mut bytes) = (0, 0);
        let received = &self.replies.received()[begin..];
        for (offset, datagram) in received.iter().enumerate() {
            let count = datagram_count(datagram);
            datagrams += count;
            bytes += datagram.len as u64;
            match datagram.truncated {
                true => self.metrics.count_undelivered(UndeliveredReason::Damaged, count),
                false => {
                    let route =
                        MessageRoute { tag: id.to_u64(), to: Some(key.client), from: key.local };
                    let may_coalesce = upstream.may_coalesce_replies;
                    self.outbox.push(route, begin + offset, datagram, may_coalesce);
                }
            }
        }
        self.metrics.from_servers.add(datagrams, bytes);
        upstream.metrics.from_server.add(datagrams, bytes);
        upstream.replies += datagrams;
        if self.context.settings.coalesces_when_detected()
            && !upstream.coalescing
            && has_run(received)
        {
            upstream.coalescing = set_udp_gro(upstream.socket(), true).is_ok();
        }
        let has_missing_replies =
            self.context.settings.has_missing_replies(upstream.requests, upstream.replies);
        self.flows.record_reply(id, now);
        if self.context.settings.options.replies.is_some() && !has_missing_replies {
            self.flows.end_flow(id, FlowEndReason::Replied);
        }
    }

    /// Handles an ICMP error of a backend: the datagrams of the flow in the current batch are sent
    /// to another backend.
    fn handle_refusal(&mut self, id: FlowId, error: io::Error, now: Instant) {
        let belongs_to_flow = |placed: &PlacedDatagram| placed.flow_id == id;
        let Some(begin) = self.placed.iter().position(belongs_to_flow) else {
            self.flows.fail_over(id, &error, now);
            return;
        };
        // The outbox is needed for the requests: send its replies first.
        self.send_replies();
        let len = self.placed[begin..].iter().take_while(|placed| belongs_to_flow(placed)).count();
        let run = begin..begin + len;
        let counted = self.count_datagrams(run.clone());
        self.retry_on_other_backend(run, counted, error, now);
        self.outbox.clear();
    }

    /// Sends the received replies to their clients.
    fn send_replies(&mut self) {
        let metrics = &*self.metrics;
        let (listener, table) = (&self.socket, &mut self.flows.table);
        let mut may_wait = true;
        self.outbox.send(listener.as_fd(), &self.replies, |meta, result| match result {
            MessageResult::Sent => {
                metrics.to_clients.add(meta.datagrams, meta.bytes);
                if meta.segmentation_failed
                    && let Some(upstream) = table.get_mut(FlowId::from_u64(meta.tag))
                {
                    upstream.may_coalesce_replies = false;
                }
                SendControl::Continue
            }
            MessageResult::Failed(error)
                if error.kind() == io::ErrorKind::WouldBlock && may_wait =>
            {
                may_wait = false;
                let _ =
                    poll(&mut [PollFd::new(listener, PollFlags::OUT)], Some(&SEND_BUFFER_TIMEOUT));
                SendControl::Retry
            }
            MessageResult::Failed(error) => {
                let reason = if is_local_error(&error) {
                    UndeliveredReason::SendBuffer
                } else {
                    UndeliveredReason::Rejected
                };
                metrics.count_undelivered(reason, meta.datagrams);
                SendControl::Continue
            }
        });
        self.outbox.clear();
        self.replies.clear();
    }
}
