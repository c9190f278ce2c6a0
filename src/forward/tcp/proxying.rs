//! Carries a connection that has found its backend, and watches how long it may.

use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll};
use std::time::Duration;

use tokio::sync::futures::OwnedNotified;
use tokio::time::{Instant, Sleep, sleep_until};
use tracing::debug;

use super::config::ConnectionTimeouts;
use super::relay::{Relay, RelayError, RelaySide};
use super::session::TcpSession;
use crate::forward::ConnectionPhase;
use crate::forward::counters::ConnectionEnd;

/// Relays until both sides have ended, one broke, or time is up.
///
/// Written out, and not as an `async fn`: it is nearly all the memory of a connection, and the
/// compiler's would hold parts of it twice.
#[derive(Debug)]
pub(super) struct Proxying {
    session_and_relay: Option<(TcpSession, Relay)>,
    /// When a byte last passed, or one side ended.
    last_activity: Instant,
    is_half_closed: bool,
    /// The word that the backend is down, for those who end then.
    backend_down: Option<Pin<Box<OwnedNotified>>>,
    /// Rings too early rather than late: what is due is worked out anew when it does, so that a byte
    /// that passes only moves a number. In a box of its own, which fits where tokio's own
    /// allocations, aligned as they are, leave gaps.
    timer: Pin<Box<Sleep>>,
}

impl Proxying {
    pub(super) fn new(entry: TcpSession, relay: Relay) -> Self {
        let now = Instant::now();
        let first = next_timeout(entry.worker.config().timeouts, entry.accepted_at, now, false);
        let alarm = Box::pin(sleep_until(first.map_or(now, |(at, _)| at)));
        let tally = entry.backend_counters.as_ref().filter(|_| entry.worker.config().cut_on_down);
        let down = tally.map(|tally| Box::pin(Arc::clone(&tally.down_notify).notified_owned()));
        Self {
            session_and_relay: Some((entry, relay)),
            last_activity: now,
            is_half_closed: false,
            backend_down: down,
            timer: alarm,
        }
    }
}

impl Future for Proxying {
    type Output = (TcpSession, Relay, ConnectionEnd);

    fn poll(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Self::Output> {
        let this = &mut *self;
        let Some((entry, relay)) = &mut this.session_and_relay else {
            // Polled after its end.
            return Poll::Pending;
        };
        let polled = relay.poll(cx);
        let passed = relay.take_bytes_relayed();
        if passed != [0, 0] {
            entry.count_bytes(passed);
            this.last_activity = Instant::now();
        }
        if relay.is_half_closed() && !this.is_half_closed {
            this.is_half_closed = true;
            this.last_activity = Instant::now();
            if relay.has_backend_ended() {
                entry.progress.phase = ConnectionPhase::Last;
            } else {
                entry.has_client_ended = true;
                entry.is_awaiting_client = false;
            }
        }
        let end = match polled {
            Poll::Ready(ended) => relay_end(ended),
            Poll::Pending
                if this.backend_down.as_mut().is_some_and(|it| it.as_mut().poll(cx).is_ready()) =>
            {
                debug!("the backend is down");
                ConnectionEnd::BackendDown
            }
            Poll::Pending => loop {
                let patience = entry.worker.config().timeouts;
                let due = next_timeout(
                    patience,
                    entry.accepted_at,
                    this.last_activity,
                    this.is_half_closed,
                );
                let Some((at, end)) = due else { return Poll::Pending };
                let set_for = this.timer.deadline();
                if at < set_for {
                    this.timer.as_mut().reset(at);
                }
                match this.timer.as_mut().poll(cx) {
                    Poll::Pending => return Poll::Pending,
                    Poll::Ready(()) if at <= set_for => {
                        debug!(?end, "connection timed out");
                        break end;
                    }
                    Poll::Ready(()) => this.timer.as_mut().reset(at),
                }
            },
        };
        this.session_and_relay
            .take()
            .map_or(Poll::Pending, |(entry, relay)| Poll::Ready((entry, relay, end)))
    }
}

/// Which timeout comes first, and when.
fn next_timeout(
    patience: ConnectionTimeouts,
    begun: Instant,
    active: Instant,
    half_closed: bool,
) -> Option<(Instant, ConnectionEnd)> {
    let after =
        |start: Instant, limit: Option<Duration>, end| Some((start.checked_add(limit?)?, end));
    let ends = [
        after(begun, patience.total, ConnectionEnd::TotalTimeout),
        after(
            active,
            patience.half_closed.filter(|_| half_closed),
            ConnectionEnd::HalfClosedTimeout,
        ),
        after(active, patience.idle, ConnectionEnd::IdleTimeout),
    ];
    ends.into_iter().flatten().min_by_key(|(at, _)| *at)
}

fn relay_end(ended: Result<(), RelayError>) -> ConnectionEnd {
    match ended {
        Ok(()) => ConnectionEnd::Finished,
        Err(RelayError { side, error }) => {
            debug!(?side, %error, "connection broke");
            match side {
                RelaySide::Client => ConnectionEnd::ClientAborted,
                RelaySide::Backend => ConnectionEnd::BackendAborted,
            }
        }
    }
}
