//! One-packet scheduling: what a backend has refused is scheduled anew, each datagram by itself.

use std::io;
use std::ops::Range;
use std::time::Instant;

use super::Worker;
use crate::forward::udp::counters::Shed;
use crate::sys::mmsg::Received;

impl Worker {
    /// The same where each datagram is scheduled by itself.
    pub(super) fn schedule_again(
        &mut self,
        run: Range<usize>,
        accounted: u64,
        error: &io::Error,
        now: Instant,
    ) {
        let mut position = 0;
        for at in run {
            let datagrams = self.datagrams(at..at + 1);
            let mut in_books = if position < accounted { datagrams } else { 0 };
            position += datagrams;
            let again = self.schedule_one_again(at, &mut in_books, error, now);
            if let Err(why) = again {
                self.tally.shed(why, datagrams.saturating_sub(in_books));
            }
        }
    }

    fn schedule_one_again(
        &mut self,
        at: usize,
        accounted: &mut u64,
        error: &io::Error,
        now: Instant,
    ) -> Result<(), Shed> {
        let peer = |received: &Received| Some((received.peer?, received.local));
        let index = self.placed[at].index as usize;
        let way = self.incoming.received().get(index).and_then(peer).ok_or(Shed::Damaged)?;
        let (mut flow, mut tries) = match self.placed[at].tried.take() {
            Some(tried) => *tried,
            None => (self.flows.flow(way, now), 0),
        };
        let mut failed = None;
        loop {
            let id = self.placed[at].id;
            self.flows.exclude(id, &mut flow);
            self.flows.fail(id, failed.as_ref().unwrap_or(error), now);
            tries += 1;
            if tries >= self.settings.attempts {
                return Err(Shed::Unreachable);
            }
            self.placed[at].id = self.flows.place_one(way, &mut flow, (self.draining, now))?;
            failed = self.send_to_backend(at..at + 1, accounted);
            if failed.is_none() {
                self.placed[at].tried = Some(Box::new((flow, tries)));
                return Ok(());
            }
        }
    }
}
