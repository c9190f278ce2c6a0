//! A worker of a forwarder: accepts connections from a listener until the forwarder drains.

use std::convert::Infallible;
use std::io;
use std::pin::pin;
use std::sync::Arc;
use std::time::Duration;

use tokio::sync::watch;
use tokio::task::{JoinError, JoinSet};
use tokio::time::{Instant, MissedTickBehavior, interval, sleep_until};
use tracing::{error, warn};

use super::connection::spawn_connection;
use super::context::WorkerContext;
use super::listener::{AcceptedClient, AsyncListener};
use crate::Balancer;
use crate::forward::accept_backoff::AcceptBackoff;
use crate::forward::control::{ForwarderControl, ForwarderPhase};
use crate::forward::counters::add_relaxed;
use crate::forward::drain_report::DrainReport;
use crate::forward::errno::is_client_error;

/// How often a worker thread looks for backends that are down.
const DOWN_CHECK_INTERVAL: Duration = Duration::from_millis(100);

/// How many clients are accepted at most after the forwarder has begun to drain: as many as the kernel
/// queues by default, since clients may go on arriving.
const MAX_LAST_CLIENTS: usize = 4096;

/// Serves connections until the forwarder drains, then closes the listener and waits for the open
/// connections, up to the deadline of the drain.
pub(super) async fn run_worker(
    context: Arc<WorkerContext>,
    listener: AsyncListener,
    control: Arc<ForwarderControl>,
) -> DrainReport {
    let mut phase = control.subscribe();
    let mut connections = JoinSet::new();
    accept_until_drain(&context, listener, &mut phase, &mut connections).await;
    drain_connections(&context, phase, connections).await
}

/// Ends the connections of backends that are down, if the forwarder is to do so. Repeats this for as
/// long as there are connections, since a connection may have been on its way to the backend at the
/// previous check.
async fn watch_down_backends(context: &WorkerContext) -> Infallible {
    let mut ticks = interval(DOWN_CHECK_INTERVAL);
    ticks.set_missed_tick_behavior(MissedTickBehavior::Delay);
    loop {
        ticks.tick().await;
        let snapshots: Vec<_> = context.config().balancers().map(Balancer::snapshot).collect();
        context.metrics.notify_down_backends(&snapshots);
    }
}

async fn accept_until_drain(
    context: &Arc<WorkerContext>,
    listener: AsyncListener,
    phase: &mut watch::Receiver<ForwarderPhase>,
    connections: &mut JoinSet<()>,
) {
    let mut backoff = AcceptBackoff::default();
    let mut paused_until = None;
    let mut draining = pin!(wait_for_drain(phase));
    let mut down_watch = pin!(watch_down_backends(context));
    let cuts_on_down = context.config().cut_on_down;
    loop {
        tokio::select! {
            biased;
            () = &mut draining => {
                // Queued in the kernel before: closing the listener would reset them.
                for _ in 0..MAX_LAST_CLIENTS {
                    let Ok(accepted) = listener.try_accept() else { break };
                    connections.spawn(serve_after_drain(Arc::clone(context), accepted));
                }
                return;
            }
            // A connection that ended has freed descriptors.
            Some(joined) = connections.join_next() => {
                log_panic(context, &joined);
                paused_until = None;
            }
            never = &mut down_watch, if cuts_on_down && !connections.is_empty() => match never {},
            () = sleep_until_if_set(paused_until), if paused_until.is_some() => paused_until = None,
            accepted = listener.accept(), if paused_until.is_none() => match accepted {
                Ok(accepted) => {
                    backoff.reset();
                    tokio::select! {
                        biased;
                        permit = context.admit_connection() => spawn_connection(context, accepted, permit, connections),
                        // An accepted client is served if the limit admits it before the deadline.
                        () = &mut draining => {
                            connections.spawn(serve_after_drain(Arc::clone(context), accepted));
                            return;
                        }
                    }
                }
                Err(error) => {
                    add_relaxed(&context.metrics.counters.failed_accepts, 1);
                    if !is_client_error(&error) {
                        paused_until = Some(Instant::now() + accept_delay(context, &mut backoff, &error));
                    }
                }
            },
        }
    }
}

async fn serve_after_drain(context: Arc<WorkerContext>, accepted: AcceptedClient) {
    let mut connection = JoinSet::new();
    let permit = context.wait_for_permit().await;
    spawn_connection(&context, accepted, permit, &mut connection);
    connection.join_next().await;
}

/// Logs that the task of a connection panicked, as by the fault of a scheduler. The others go on.
fn log_panic(context: &WorkerContext, joined: &Result<(), JoinError>) {
    if joined.as_ref().is_err_and(JoinError::is_panic) {
        let service = &*context.config().name;
        error!("service {service}: the task of a connection panicked, and the connection is cut");
    }
}

/// Returns how long to pause after a failed accept; logs the first failure of a series.
fn accept_delay(
    context: &WorkerContext,
    backoff: &mut AcceptBackoff,
    error: &io::Error,
) -> Duration {
    if backoff.is_reset() {
        let service = &*context.config().name;
        warn!(
            "service {service}: cannot accept connections: {error}; retrying until accept succeeds"
        );
    }
    backoff.next_delay()
}

async fn sleep_until_if_set(deadline: Option<Instant>) {
    if let Some(deadline) = deadline {
        sleep_until(deadline).await;
    }
}

/// Waits until the forwarder drains.
async fn wait_for_drain(phase: &mut watch::Receiver<ForwarderPhase>) {
    // The sender is never dropped: the worker holds it.
    let _ = phase.wait_for(ForwarderPhase::is_draining).await;
}

/// Waits for the connections to end, up to the deadline, and cuts those that are still open then.
async fn drain_connections(
    context: &WorkerContext,
    mut phase: watch::Receiver<ForwarderPhase>,
    mut connections: JoinSet<()>,
) -> DrainReport {
    let mut report = DrainReport::default();
    let mut down_watch = pin!(watch_down_backends(context));
    let cuts_on_down = context.config().cut_on_down;
    loop {
        let deadline = phase.borrow_and_update().deadline().map(Instant::from_std);
        tokio::select! {
            biased;
            joined = connections.join_next() => match joined {
                Some(joined) => {
                    log_panic(context, &joined);
                    report.count_ended(joined.is_ok());
                }
                None => return report,
            },
            Ok(()) = phase.changed() => {}
            never = &mut down_watch, if cuts_on_down => match never {},
            () = sleep_until(deadline.unwrap_or_else(Instant::now)), if deadline.is_some() => break,
        }
    }
    connections.abort_all();
    // A connection that ended at the last moment was not cut: each result is read.
    while let Some(joined) = connections.join_next().await {
        report.count_ended(joined.is_ok());
    }
    report
}
