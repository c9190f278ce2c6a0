//! One-packet scheduling: what a backend has refused is scheduled anew, each datagram by itself.

use std::io;
use std::ops::Range;
use std::time::Instant;

use super::UdpWorker;
use crate::forward::udp::counters::ShedReason;
use crate::sys::mmsg::ReceivedDatagram;

impl UdpWorker {
    /// The same where each datagram is scheduled by itself.
    pub(super) fn reschedule_one_packet_run(
        &mut self,
        run: Range<usize>,
        accounted: u64,
        error: &io::Error,
        now: Instant,
    ) {
        let mut position = 0;
        for at in run {
            let datagrams = self.count_datagrams(at..at + 1);
            let mut in_books = if position < accounted { datagrams } else { 0 };
            position += datagrams;
            let again = self.reschedule_datagram(at, &mut in_books, error, now);
            if let Err(why) = again {
                self.metrics.count_shed(why, datagrams.saturating_sub(in_books));
            }
        }
    }

    fn reschedule_datagram(
        &mut self,
        at: usize,
        accounted: &mut u64,
        error: &io::Error,
        now: Instant,
    ) -> Result<(), ShedReason> {
        let peer = |received: &ReceivedDatagram| Some((received.peer?, received.local));
        let index = self.placed[at].index as usize;
        let way = self.incoming.received().get(index).and_then(peer).ok_or(ShedReason::Damaged)?;
        let (mut flow, mut tries) = match self.placed[at].one_packet_retry.take() {
            Some(tried) => *tried,
            None => (self.flows.scheduler_flow(way, now), 0),
        };
        let mut failed = None;
        loop {
            let id = self.placed[at].flow_id;
            self.flows.exclude_backend(id, &mut flow);
            self.flows.fail_over(id, failed.as_ref().unwrap_or(error), now);
            tries += 1;
            if tries >= self.settings.attempts {
                return Err(ShedReason::Unreachable);
            }
            self.placed[at].flow_id =
                self.flows.schedule_one_packet(way, &mut flow, (self.draining, now))?;
            failed = self.send_to_backend(at..at + 1, accounted);
            if failed.is_none() {
                self.placed[at].one_packet_retry = Some(Box::new((flow, tries)));
                return Ok(());
            }
        }
    }
}
