//! One-packet scheduling: each datagram that a backend refuses is scheduled again.

use std::io;
use std::ops::Range;
use std::time::Instant;

use super::UdpWorker;
use crate::forward::udp::counters::ShedReason;
use crate::sys::mmsg::ReceivedDatagram;

impl UdpWorker {
    /// Schedules each datagram of a refused run again; see `retry_on_other_backend`.
    pub(super) fn reschedule_one_packet_run(
        &mut self,
        run: Range<usize>,
        counted: u64,
        error: &io::Error,
        now: Instant,
    ) {
        let mut position = 0;
        for at in run {
            let datagrams = self.count_datagrams(at..at + 1);
            let mut already_counted = if position < counted { datagrams } else { 0 };
            position += datagrams;
            let result = self.reschedule_datagram(at, &mut already_counted, error, now);
            if let Err(reason) = result {
                self.metrics.count_shed(reason, datagrams.saturating_sub(already_counted));
            }
        }
    }

    fn reschedule_datagram(
        &mut self,
        at: usize,
        counted: &mut u64,
        error: &io::Error,
        now: Instant,
    ) -> Result<(), ShedReason> {
        let addresses = |received: &ReceivedDatagram| Some((received.peer?, received.local));
        let index = self.placed[at].index as usize;
        let (client, local) =
            self.incoming.received().get(index).and_then(addresses).ok_or(ShedReason::Damaged)?;
        let (mut flow, mut attempts) = match self.placed[at].one_packet_retry.take() {
            Some(retry) => *retry,
            None => (self.flows.scheduler_flow(client, local, now), 0),
        };
        let mut next_error = None;
        loop {
            let id = self.placed[at].flow_id;
            self.flows.exclude_backend(id, &mut flow);
            self.flows.fail_over(id, next_error.as_ref().unwrap_or(error), now);
            attempts += 1;
            if attempts >= self.context.settings.options.attempts {
                return Err(ShedReason::Unreachable);
            }
            self.placed[at].flow_id =
                self.flows.schedule_one_packet(client, local, &mut flow, self.draining, now)?;
            next_error = self.send_to_backend(at..at + 1, counted);
            if next_error.is_none() {
                self.placed[at].one_packet_retry = Some(Box::new((flow, attempts)));
                return Ok(());
            }
        }
    }
}
