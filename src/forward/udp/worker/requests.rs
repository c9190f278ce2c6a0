//! From clients to backends.

use std::io;
use std::ops::Range;
use std::os::fd::AsFd;
use std::time::{Duration, Instant};

use rustix::net::{SendFlags, send};
use tracing::warn;

use super::{PlacedDatagram, RECEIVE_BATCH, UdpWorker, datagram_count};
use crate::forward::udp::counters::{ShedReason, add_relaxed};
use crate::forward::udp::outbox::{MessageMeta, MessageResult, SendControl};
use crate::forward::udp::socket::{is_local_error, is_unreachable_error};
use crate::sys::mmsg::{ReceivedDatagram, set_udp_gro};

/// So many datagrams of one sender and size in a row look like a run that came apart on its way.
const MIN_RUN_DATAGRAMS: usize = 4;

impl UdpWorker {
    pub(super) fn serve_clients(&mut self, now: Instant) {
        self.incoming.clear();
        self.placed.clear();
        match self.incoming.receive(self.listener.as_fd(), RECEIVE_BATCH, true) {
            Ok(_) => {}
            Err(error) if error.kind() == io::ErrorKind::WouldBlock => return,
            Err(error) => {
                // Of no datagram: a shortage of memory. Not to be repeated without a pause.
                add_relaxed(&self.metrics.failed_receives, 1);
                warn!(address = %self.settings.address, %error, "cannot receive");
                std::thread::sleep(Duration::from_millis(1));
                return;
            }
        }
        let (mut datagrams, mut bytes) = (0, 0);
        for (index, received) in self.incoming.received().iter().enumerate() {
            let count = datagram_count(received);
            datagrams += count;
            bytes += received.len as u64;
            let placed = match received.peer {
                Some(client) if !received.truncated => {
                    self.flows.find_or_start_flow(client, received.local, (self.draining, now))
                }
                _ => Err(ShedReason::Damaged),
            };
            match placed {
                Ok(id) => self.placed.push(PlacedDatagram {
                    flow_id: id,
                    index: index as u32,
                    one_packet_retry: None,
                }),
                Err(why) => self.metrics.count_shed(why, count),
            }
        }
        self.metrics.from_clients.add(datagrams, bytes);
        // Grouped by flow, and within one in the order of arrival.
        self.placed.sort_unstable_by_key(|it| (it.flow_id, it.index));
        let mut at = 0;
        while at < self.placed.len() {
            let id = self.placed[at].flow_id;
            let run = self.placed[at..].iter().take_while(|it| it.flow_id == id).count();
            self.forward_run(at, run, now);
            at += run;
        }
        self.enable_coalescing_on_run();
    }

    /// Hands the datagrams of one flow to its backend.
    fn forward_run(&mut self, at: usize, run: usize, now: Instant) {
        let id = self.placed[at].flow_id;
        let datagrams = self.count_datagrams(at..at + run);
        let Some(upstream) = self.flows.table.get_mut(id) else {
            return self.metrics.count_shed(ShedReason::Damaged, datagrams);
        };
        upstream.requests += datagrams;
        let mut accounted = 0;
        if let Some(error) = self.send_to_backend(at..at + run, &mut accounted) {
            self.retry_on_other_backend(at..at + run, accounted, error, now);
        }
    }

    pub(super) fn count_datagrams(&self, run: Range<usize>) -> u64 {
        let received = self.incoming.received();
        self.placed[run].iter().map(|it| datagram_count(&received[it.index as usize])).sum()
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
        let upstream = self.flows.table.get_mut(placed.first()?.flow_id)?;
        self.outbox.clear();
        for it in placed {
            let received = &self.incoming.received()[it.index as usize];
            self.outbox.push(
                0,
                (None, None),
                (it.index as usize, received),
                upstream.may_coalesce[0],
            );
        }
        let tally = &*self.metrics;
        let to_server = &upstream.metrics.to_server;
        let (mut position, mut uncut, mut unreachable) = (0, false, None);
        let mut told = |note: &MessageMeta, fate: MessageResult| {
            let resent = position < *accounted;
            match fate {
                MessageResult::Failed(error) if is_unreachable_error(&error) => {
                    unreachable = Some(error);
                    return SendControl::Stop;
                }
                MessageResult::Failed(error) if !resent => {
                    tally.count_shed(shed_reason(&error), note.datagrams)
                }
                MessageResult::Failed(_) => {}
                MessageResult::Sent => {
                    to_server.add(note.datagrams, note.bytes);
                    uncut |= note.segmentation_failed;
                    match resent {
                        true => add_relaxed(&tally.resent, note.datagrams),
                        false => tally.to_servers.add(note.datagrams, note.bytes),
                    }
                }
            }
            position += note.datagrams;
            SendControl::Continue
        };
        if let Some((piece, note)) = self.outbox.single_datagram() {
            let bytes = self.incoming.bytes(piece.datagram as usize);
            told(
                &note,
                match send(upstream.socket(), bytes, SendFlags::DONTWAIT) {
                    Ok(_) => MessageResult::Sent,
                    Err(error) => MessageResult::Failed(error.into()),
                },
            );
        } else {
            self.outbox.send(upstream.socket(), &self.incoming, told);
        }
        *accounted = position.max(*accounted);
        upstream.may_coalesce[0] &= !uncut;
        unreachable
    }

    /// Has another backend take what one has refused.
    pub(super) fn retry_on_other_backend(
        &mut self,
        run: Range<usize>,
        accounted: u64,
        error: io::Error,
        now: Instant,
    ) {
        if self.settings.one_packet {
            return self.reschedule_one_packet_run(run, accounted, &error, now);
        }
        let Some(id) = self.placed.get(run.start).map(|it| it.flow_id) else { return };
        let (mut accounted, mut error) = (accounted, error);
        // Ends: a flow survives a bounded number of refusals in a row.
        while self.flows.fail_over(id, &error, now) {
            match self.send_to_backend(run.clone(), &mut accounted) {
                Some(next) => error = next,
                None => return,
            }
        }
        self.metrics.count_shed(
            ShedReason::Unreachable,
            self.count_datagrams(run).saturating_sub(accounted),
        );
    }

    /// Begins to receive runs as one where clients seem to send them.
    fn enable_coalescing_on_run(&mut self) {
        if !self.coalescing
            && self.settings.coalesces_when_detected()
            && !self.settings.one_packet
            && has_run(self.incoming.received())
        {
            self.coalescing = set_udp_gro(self.listener.as_fd(), true).is_ok();
        }
    }
}

/// Tells whether datagrams of one sender and size follow each other.
pub(super) fn has_run(received: &[ReceivedDatagram]) -> bool {
    received.windows(MIN_RUN_DATAGRAMS).any(|run| {
        run[0].len != 0 && run[1..].iter().all(|it| (it.peer, it.len) == (run[0].peer, run[0].len))
    })
}

fn shed_reason(error: &io::Error) -> ShedReason {
    if is_local_error(error) { ShedReason::SendBuffer } else { ShedReason::Rejected }
}
