//! Proxies a connection that has a backend, and enforces its timeouts.

use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll};
use std::time::Duration;

use tokio::sync::futures::OwnedNotified;
use tokio::time::{Instant, Sleep, sleep_until};
use tracing::debug;

use super::config::ConnectionTimeouts;
use super::relay::{Relay, RelayError, RelaySide, RelayedBytes};
use super::session::TcpSession;
use crate::forward::counters::ConnectionEnd;
use crate::forward::record::ConnectionPhase;

/// Relays until both sides have closed, a side breaks, a timeout expires or the backend is down.
///
/// Not an `async fn`: this future is nearly all the memory of a connection, and the compiler's
/// version would hold parts of it twice.
#[derive(Debug)]
pub(super) struct Proxying {
    /// `None` once the future has completed.
    session_and_relay: Option<(TcpSession, Relay)>,
    /// When a byte was last relayed, or a side closed.
    last_activity: Instant,
    is_half_closed: bool,
    /// Completes when the backend is down; only with `cut_on_down`.
    backend_down: Option<Pin<Box<OwnedNotified>>>,
    /// Never expires later than the next timeout, maybe earlier: the timeout is computed anew when
    /// the timer expires, so that a relayed byte costs no timer operation. In a box of its own, which
    /// fits into the gaps that tokio's aligned allocations leave.
    timer: Pin<Box<Sleep>>,
}

/// What is left of a connection that is not proxied any more.
#[derive(Debug)]
pub(super) struct ProxyingResult {
    pub(super) session: TcpSession,
    pub(super) relay: Relay,
    pub(super) end: ConnectionEnd,
}

impl Proxying {
    pub(super) fn new(session: TcpSession, relay: Relay) -> Self {
        let now = Instant::now();
        let config = session.context.config();
        let first = next_timeout(config.timeouts, session.accepted_at, now, false);
        let timer = Box::pin(sleep_until(first.map_or(now, |(deadline, _)| deadline)));
        let counters = session.backend_counters.as_ref().filter(|_| config.cut_on_down);
        let backend_down =
            counters.map(|counters| Box::pin(Arc::clone(&counters.down_notify).notified_owned()));
        Self {
            session_and_relay: Some((session, relay)),
            last_activity: now,
            is_half_closed: false,
            backend_down,
            timer,
        }
    }
}

impl Future for Proxying {
    type Output = ProxyingResult;

    fn poll(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Self::Output> {
        let this = &mut *self;
        let Some((session, relay)) = &mut this.session_and_relay else {
            // Polled after completion.
            return Poll::Pending;
        };
        let polled = relay.poll(cx);
        let relayed = relay.take_bytes_relayed();
        if relayed != RelayedBytes::default() {
            session.count_bytes(relayed);
            this.last_activity = Instant::now();
        }
        if relay.is_half_closed() && !this.is_half_closed {
            this.is_half_closed = true;
            this.last_activity = Instant::now();
            if relay.has_backend_ended() {
                session.progress.phase = ConnectionPhase::Last;
            } else {
                session.has_client_ended = true;
                session.is_awaiting_client = false;
            }
        }
        let end = match polled {
            Poll::Ready(result) => relay_end(session, result),
            Poll::Pending
                if this
                    .backend_down
                    .as_mut()
                    .is_some_and(|notified| notified.as_mut().poll(cx).is_ready()) =>
            {
                debug!(
                    "{} is down: its connection is reset (`cut_on_down`)",
                    session.server_label()
                );
                ConnectionEnd::BackendDown
            }
            Poll::Pending => loop {
                let next = next_timeout(
                    session.context.config().timeouts,
                    session.accepted_at,
                    this.last_activity,
                    this.is_half_closed,
                );
                let Some((deadline, end)) = next else { return Poll::Pending };
                let timer_deadline = this.timer.deadline();
                if deadline < timer_deadline {
                    this.timer.as_mut().reset(deadline);
                }
                match this.timer.as_mut().poll(cx) {
                    Poll::Pending => return Poll::Pending,
                    Poll::Ready(()) if deadline <= timer_deadline => {
                        log_timeout(session, end);
                        break end;
                    }
                    Poll::Ready(()) => this.timer.as_mut().reset(deadline),
                }
            },
        };
        this.session_and_relay.take().map_or(Poll::Pending, |(session, relay)| {
            Poll::Ready(ProxyingResult { session, relay, end })
        })
    }
}

/// Returns the timeout that expires first, and when.
fn next_timeout(
    timeouts: ConnectionTimeouts,
    accepted_at: Instant,
    last_activity: Instant,
    is_half_closed: bool,
) -> Option<(Instant, ConnectionEnd)> {
    let after =
        |start: Instant, limit: Option<Duration>, end| Some((start.checked_add(limit?)?, end));
    let deadlines = [
        after(accepted_at, timeouts.total, ConnectionEnd::TotalTimeout),
        after(
            last_activity,
            timeouts.half_closed.filter(|_| is_half_closed),
            ConnectionEnd::HalfClosedTimeout,
        ),
        after(last_activity, timeouts.idle, ConnectionEnd::IdleTimeout),
    ];
    deadlines.into_iter().flatten().min_by_key(|(deadline, _)| *deadline)
}

fn log_timeout(session: &TcpSession, end: ConnectionEnd) {
    let timeouts = session.context.config().timeouts;
    let (name, limit) = match end {
        ConnectionEnd::TotalTimeout => ("total", timeouts.total),
        ConnectionEnd::HalfClosedTimeout => ("half-closed", timeouts.half_closed),
        _ => ("idle", timeouts.idle),
    };
    let (limit, server) = (limit.unwrap_or_default(), session.server_label());
    debug!("the {name} timeout of {limit:?} ended the connection to {server}");
}

fn relay_end(session: &TcpSession, result: Result<(), RelayError>) -> ConnectionEnd {
    match result {
        Ok(()) => ConnectionEnd::Finished,
        Err(RelayError { side, error }) => {
            let server = session.server_label();
            match side {
                RelaySide::Client => {
                    debug!("the client broke the connection to {server}: {error}");
                    ConnectionEnd::ClientAborted
                }
                RelaySide::Backend => {
                    debug!("{server} broke the connection: {error}");
                    ConnectionEnd::BackendAborted
                }
            }
        }
    }
}
