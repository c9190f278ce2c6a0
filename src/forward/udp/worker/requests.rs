//! Datagrams from clients to backends.

use std::io;
use std::ops::Range;
use std::os::fd::AsFd;
use std::time::Instant;

use rustix::net::{SendFlags, send};
use tokio::io::Interest;

use super::{PlacedDatagram, RECEIVE_BATCH, UdpWorker, datagram_count, pause_receiving};
use crate::forward::counters::add_relaxed;
use crate::forward::errno::{is_local_error, is_unreachable_error};
use crate::forward::udp::counters::ShedReason;
use crate::forward::udp::outbox::{MessageMeta, MessageResult, MessageRoute, SendControl};
use crate::sys::mmsg::{ReceivedDatagram, set_udp_gro};

/// The number of consecutive datagrams of one sender and size that suggests a sender with GSO.
const MIN_RUN_DATAGRAMS: usize = 4;

impl UdpWorker {
    /// Receives a batch of datagrams of clients, and sends them to the backends of their flows.
    pub(super) fn serve_clients(&mut self, now: Instant) {
        if self.paused_until.is_some_and(|until| until > now) {
            return;
        }
        self.paused_until = None;
        let Some(listener) = &self.listener else { return };
        let batch = self.flows.receive_batch(RECEIVE_BATCH);
        let (incoming, placed, mut result) = (&mut self.incoming, &mut self.placed, Ok(0));
        // Not called if there is nothing to receive: the last batch is kept, in case a backend refuses
        // a datagram of it.
        let _ = listener.try_io(Interest::READABLE, |socket| {
            incoming.clear();
            placed.clear();
            result = incoming.receive(socket.as_fd(), batch, true);
            match result {
                Ok(count) if count == batch => Ok(()),
                // A short batch has emptied the socket.
                Ok(_) => Err(io::ErrorKind::WouldBlock.into()),
                Err(ref error) => Err(error.kind().into()),
            }
        });
        match result {
            Ok(0) => return,
            Ok(_) => self.receive_backoff.reset(),
            Err(error) if error.kind() == io::ErrorKind::WouldBlock => return,
            Err(error) => {
                // Not an error of a datagram but a shortage of memory.
                let backoff = &mut self.receive_backoff;
                let until = pause_receiving(&self.context, &self.metrics, backoff, &error);
                self.paused_until = Some(until);
                return;
            }
        }
        let (mut datagrams, mut bytes) = (0, 0);
        for (index, received) in self.incoming.received().iter().enumerate() {
            let count = datagram_count(received);
            datagrams += count;
            bytes += received.len as u64;
            let flow_id = match received.peer {
                Some(client) if !received.truncated => {
                    self.flows.find_or_start_flow(client, received.local, self.draining, now)
                }
                _ => Err(ShedReason::Damaged),
            };
            match flow_id {
                Ok(flow_id) => self.placed.push(PlacedDatagram {
                    flow_id,
                    index: index as u32,
                    one_packet_retry: None,
                }),
                Err(reason) => self.metrics.count_shed(reason, count),
            }
        }
        self.metrics.from_clients.add(datagrams, bytes);
        // Sorted by flow, and within a flow in the order of arrival.
        self.placed.sort_unstable_by_key(|placed| (placed.flow_id, placed.index));
        let mut at = 0;
        while at < self.placed.len() {
            let id = self.placed[at].flow_id;
            let len = self.placed[at..].iter().take_while(|placed| placed.flow_id == id).count();
            self.forward_run(at..at + len, now);
            at += len;
        }
        self.enable_coalescing_on_run();
    }

    /// Sends the datagrams of one flow to its backend.
    fn forward_run(&mut self, run: Range<usize>, now: Instant) {
        let id = self.placed[run.start].flow_id;
        let datagrams = self.count_datagrams(run.clone());
        let Some(upstream) = self.flows.table.get_mut(id) else {
            return self.metrics.count_shed(ShedReason::Damaged, datagrams);
        };
        upstream.requests += datagrams;
        let mut counted = 0;
        if let Some(error) = self.send_to_backend(run.clone(), &mut counted) {
            self.retry_on_other_backend(run, counted, error, now);
        }
    }

    /// Returns the number of datagrams in a run, counting the parts of coalesced datagrams.
    pub(super) fn count_datagrams(&self, run: Range<usize>) -> u64 {
        let received = self.incoming.received();
        self.placed[run].iter().map(|placed| datagram_count(&received[placed.index as usize])).sum()
    }

    /// Sends the datagrams of one flow to its backend. Returns an error if the backend is
    /// unreachable; then none of the datagrams can be assumed to have arrived.
    ///
    /// The first `counted` datagrams are in the counters already; `counted` increases by the
    /// datagrams sent or shed.
    pub(super) fn send_to_backend(
        &mut self,
        run: Range<usize>,
        counted: &mut u64,
    ) -> Option<io::Error> {
        let placed = &self.placed[run];
        let upstream = self.flows.table.get_mut(placed.first()?.flow_id)?;
        self.outbox.clear();
        let route = MessageRoute { tag: 0, to: None, from: None };
        for datagram in placed {
            let index = datagram.index as usize;
            let received = &self.incoming.received()[index];
            self.outbox.push(route, index, received, upstream.may_coalesce_requests);
        }
        let metrics = &*self.metrics;
        let to_server = &upstream.metrics.to_server;
        let (mut position, mut segmentation_failed, mut unreachable) = (0, false, None);
        let mut on_result = |meta: &MessageMeta, result: MessageResult| {
            let is_resent = position < *counted;
            match result {
                MessageResult::Failed(error) if is_unreachable_error(&error) => {
                    unreachable = Some(error);
                    return SendControl::Stop;
                }
                MessageResult::Failed(error) if !is_resent => {
                    metrics.count_shed(shed_reason(&error), meta.datagrams)
                }
                MessageResult::Failed(_) => {}
                MessageResult::Sent => {
                    to_server.add(meta.datagrams, meta.bytes);
                    segmentation_failed |= meta.segmentation_failed;
                    match is_resent {
                        true => add_relaxed(&metrics.resent, meta.datagrams),
                        false => metrics.to_servers.add(meta.datagrams, meta.bytes),
                    }
                }
            }
            position += meta.datagrams;
            SendControl::Continue
        };
        if let Some((piece, meta)) = self.outbox.single_datagram() {
            let bytes = self.incoming.bytes(piece.datagram as usize);
            let result = match send(upstream.socket(), bytes, SendFlags::DONTWAIT) {
                Ok(_) => MessageResult::Sent,
                Err(error) => MessageResult::Failed(error.into()),
            };
            on_result(&meta, result);
        } else {
            self.outbox.send(upstream.socket(), &self.incoming, on_result);
        }
        *counted = position.max(*counted);
        upstream.may_coalesce_requests &= !segmentation_failed;
        unreachable
    }

    /// Sends the datagrams of a flow to other backends after its backend has refused them, and
    /// sheds them when all attempts have failed. The first `counted` datagrams are in the counters
    /// already.
    pub(super) fn retry_on_other_backend(
        &mut self,
        run: Range<usize>,
        counted: u64,
        error: io::Error,
        now: Instant,
    ) {
        if self.context.settings.options.one_packet {
            return self.reschedule_one_packet_run(run, counted, &error, now);
        }
        let Some(id) = self.placed.get(run.start).map(|placed| placed.flow_id) else { return };
        let (mut counted, mut error) = (counted, error);
        // Terminates: `fail_over` ends the flow after `attempts` refusals in a row.
        while self.flows.fail_over(id, &error, now) {
            match self.send_to_backend(run.clone(), &mut counted) {
                Some(next) => error = next,
                None => return,
            }
        }
        self.metrics
            .count_shed(ShedReason::Unreachable, self.count_datagrams(run).saturating_sub(counted));
    }

    /// Enables coalesced receiving if a client seems to send with GSO.
    fn enable_coalescing_on_run(&mut self) {
        if !self.coalescing
            && self.context.settings.coalesces_when_detected()
            && !self.context.settings.options.one_packet
            && has_run(self.incoming.received())
        {
            self.coalescing = set_udp_gro(self.socket.as_fd(), true).is_ok();
        }
    }
}

/// Returns whether the batch has [`MIN_RUN_DATAGRAMS`] consecutive datagrams of one sender and
/// size.
pub(super) fn has_run(received: &[ReceivedDatagram]) -> bool {
    received.windows(MIN_RUN_DATAGRAMS).any(|run| {
        run[0].len != 0
            && run[1..]
                .iter()
                .all(|datagram| (datagram.peer, datagram.len) == (run[0].peer, run[0].len))
    })
}

fn shed_reason(error: &io::Error) -> ShedReason {
    if is_local_error(error) { ShedReason::SendBuffer } else { ShedReason::Rejected }
}
