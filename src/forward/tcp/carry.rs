//! Carries a connection that has found its backend, and watches how long it may.

use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll};
use std::time::Duration;

use tokio::sync::futures::OwnedNotified;
use tokio::time::{Instant, Sleep, sleep_until};
use tracing::debug;

use super::config::Patience;
use super::entry::Entry;
use super::relay::{Broke, Relay, Side};
use crate::forward::Phase;
use crate::forward::counters::End;

/// Relays until both sides have ended, one broke, or time is up.
///
/// Written out, and not as an `async fn`: it is nearly all the memory of a connection, and the
/// compiler's would hold parts of it twice.
#[derive(Debug)]
pub(super) struct Carry {
    held: Option<(Entry, Relay)>,
    /// When a byte last passed, or one side ended.
    active: Instant,
    half_closed: bool,
    /// The word that the backend is down, for those who end then.
    down: Option<Pin<Box<OwnedNotified>>>,
    /// Rings too early rather than late: what is due is worked out anew when it does, so that a byte
    /// that passes only moves a number. In a box of its own, which fits where tokio's own
    /// allocations, aligned as they are, leave gaps.
    alarm: Pin<Box<Sleep>>,
}

impl Carry {
    pub(super) fn new(entry: Entry, relay: Relay) -> Self {
        let now = Instant::now();
        let first = due(entry.crew.config().patience, entry.begun, now, false);
        let alarm = Box::pin(sleep_until(first.map_or(now, |(at, _)| at)));
        let tally = entry.tally.as_ref().filter(|_| entry.crew.config().cut_on_down);
        let down = tally.map(|tally| Box::pin(Arc::clone(&tally.down).notified_owned()));
        Self { held: Some((entry, relay)), active: now, half_closed: false, down, alarm }
    }
}

impl Future for Carry {
    type Output = (Entry, Relay, End);

    fn poll(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Self::Output> {
        let this = &mut *self;
        let Some((entry, relay)) = &mut this.held else {
            // Polled after its end.
            return Poll::Pending;
        };
        let polled = relay.poll(cx);
        let passed = relay.take_passed();
        if passed != [0, 0] {
            entry.note(passed);
            this.active = Instant::now();
        }
        if relay.is_half_closed() && !this.half_closed {
            this.half_closed = true;
            this.active = Instant::now();
            if relay.has_server_ended() {
                entry.story.phase = Phase::Last;
            } else {
                entry.has_client_ended = true;
                entry.is_clients_turn = false;
            }
        }
        let end = match polled {
            Poll::Ready(ended) => end_of(ended),
            Poll::Pending
                if this.down.as_mut().is_some_and(|it| it.as_mut().poll(cx).is_ready()) =>
            {
                debug!("the backend is down");
                End::BackendDown
            }
            Poll::Pending => loop {
                let patience = entry.crew.config().patience;
                let due = due(patience, entry.begun, this.active, this.half_closed);
                let Some((at, end)) = due else { return Poll::Pending };
                let set_for = this.alarm.deadline();
                if at < set_for {
                    this.alarm.as_mut().reset(at);
                }
                match this.alarm.as_mut().poll(cx) {
                    Poll::Pending => return Poll::Pending,
                    Poll::Ready(()) if at <= set_for => {
                        debug!(?end, "connection timed out");
                        break end;
                    }
                    Poll::Ready(()) => this.alarm.as_mut().reset(at),
                }
            },
        };
        this.held.take().map_or(Poll::Pending, |(entry, relay)| Poll::Ready((entry, relay, end)))
    }
}

/// Which timeout comes first, and when.
fn due(
    patience: Patience,
    begun: Instant,
    active: Instant,
    half_closed: bool,
) -> Option<(Instant, End)> {
    let after =
        |start: Instant, limit: Option<Duration>, end| Some((start.checked_add(limit?)?, end));
    let ends = [
        after(begun, patience.total, End::TotalTime),
        after(active, patience.half_closed.filter(|_| half_closed), End::HalfClosed),
        after(active, patience.idle, End::Idle),
    ];
    ends.into_iter().flatten().min_by_key(|(at, _)| *at)
}

fn end_of(ended: Result<(), Broke>) -> End {
    match ended {
        Ok(()) => End::Finished,
        Err(Broke { side, error }) => {
            debug!(?side, %error, "connection broke");
            match side {
                Side::Client => End::ClientBroke,
                Side::Server => End::ServerBroke,
            }
        }
    }
}
