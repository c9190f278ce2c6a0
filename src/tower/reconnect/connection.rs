//! What the handles of a connection share: its state, and the task that connects.

use std::fmt;
use std::future::poll_fn;
use std::sync::{Arc, Weak};
use std::time::Duration;

use ::tower::{BoxError, Service};
use arc_swap::{ArcSwap, Guard};
use tokio::sync::Notify;
use tokio::sync::futures::OwnedNotified;
use tokio::time::{Instant, sleep, timeout};

use super::config::ReconnectConfig;
use super::error::{ConnectError, ConnectTimeout};
use super::make::Connect;
use crate::sync::{AtomicBool, AtomicU32, Mutex, Ordering};

pub(super) struct SharedConnection<M: Service<T>, T> {
    config: ReconnectConfig,
    make: M,
    target: T,
    state: ArcSwap<ReconnectState<M::Response>>,
    /// The number of the last connection. The lock is held while the state changes; readers of the
    /// state do not take it.
    connection_number: Mutex<u64>,
    /// Failed attempts since a connection was last ready.
    failures: AtomicU32,
    /// Whether the current connection has ever been ready.
    was_ready: AtomicBool,
    state_changed: Arc<Notify>,
}

pub(super) enum ReconnectState<S> {
    /// No request has needed the connection yet.
    Idle,
    /// A task connects.
    Connecting,
    /// A task connects; its last attempt failed.
    Failed(ConnectError),
    /// A connection, its number, and when it was made.
    Connected(S, u64, Instant),
}

impl<M: Service<T>, T> SharedConnection<M, T> {
    pub(super) fn new(config: ReconnectConfig, make: M, target: T) -> Self {
        Self {
            config,
            make,
            target,
            state: ArcSwap::from_pointee(ReconnectState::Idle),
            connection_number: Mutex::new(0),
            failures: AtomicU32::new(0),
            was_ready: AtomicBool::new(false),
            state_changed: Arc::default(),
        }
    }

    pub(super) fn target(&self) -> &T {
        &self.target
    }

    pub(super) fn state(&self) -> Guard<Arc<ReconnectState<M::Response>>> {
        self.state.load()
    }

    /// Completes with the next change of the state.
    pub(super) fn state_changed(&self) -> OwnedNotified {
        Arc::clone(&self.state_changed).notified_owned()
    }

    /// Records that the connection was ready, which resets the count of failures.
    pub(super) fn mark_ready(&self) {
        if !self.was_ready.load(Ordering::Relaxed) {
            self.was_ready.store(true, Ordering::Relaxed);
            self.failures.store(0, Ordering::Relaxed);
        }
    }

    /// Changes the state to what `next_state` returns, and returns whether it changed.
    fn transition(
        &self,
        next_state: impl FnOnce(
            &ReconnectState<M::Response>,
            &mut u64,
        ) -> Option<ReconnectState<M::Response>>,
    ) -> bool {
        // Nothing panics under the lock, and the number is valid in any case.
        let mut number =
            self.connection_number.lock().unwrap_or_else(|poisoned| poisoned.into_inner());
        let next = next_state(&self.state.load(), &mut number);
        let changes = next.is_some();
        if let Some(next) = next {
            self.state.store(Arc::new(next));
            drop(number);
            self.state_changed.notify_waiters();
        }
        changes
    }

    fn set_state(&self, state: ReconnectState<M::Response>) {
        self.transition(|_, _| Some(state));
    }

    /// Counts a failed attempt, and returns its error and the wait before the next attempt.
    fn record_failure(&self, error: BoxError) -> (ConnectError, Duration) {
        let failures = self.failures.fetch_add(1, Ordering::Relaxed).saturating_add(1);
        let (first, longest) = self.config.backoff;
        let doubled = first.saturating_mul(1 << (failures - 1).min(20));
        let wait = doubled.min(longest).mul_f64(0.5 + 0.5 * fastrand::f64());
        (ConnectError { failures, source: Arc::from(error) }, wait)
    }
}

impl<M, T> SharedConnection<M, T>
where
    M: Connect<T>,
    T: Clone + Send + Sync + 'static,
{
    /// Starts the task that connects, if the state is idle.
    pub(super) fn connect(shared: &Arc<Self>) {
        let starts = shared.transition(|state, _| {
            matches!(state, ReconnectState::Idle).then_some(ReconnectState::Connecting)
        });
        if starts {
            tokio::spawn(connect_with_backoff(Arc::downgrade(shared), Duration::ZERO));
        }
    }

    /// Starts to connect again after connection `number` has broken, unless another handle has
    /// reported the same connection before.
    pub(super) fn report_broken(shared: &Arc<Self>, number: u64, error: BoxError) {
        let mut wait = Duration::ZERO;
        let starts = shared.transition(|state, _| {
            let ReconnectState::Connected(_, current, since) = state else { return None };
            if *current != number {
                return None;
            }
            tracing::debug!("connection {number} has broken and is made again: {error}");
            // A connection that breaks at once counts as a failed attempt. One that broke after it
            // was idle for a long time does not.
            if shared.was_ready.load(Ordering::Relaxed)
                || since.elapsed() >= shared.config.backoff.1
            {
                return Some(ReconnectState::Connecting);
            }
            let (error, backoff) = shared.record_failure(error);
            wait = backoff;
            Some(ReconnectState::Failed(error))
        });
        if starts {
            tokio::spawn(connect_with_backoff(Arc::downgrade(shared), wait));
        }
    }

    async fn attempt_connect(&self) -> Result<M::Response, BoxError> {
        let mut make = self.make.clone();
        let attempt = async {
            poll_fn(|cx| make.poll_ready(cx)).await.map_err(Into::into)?;
            make.call(self.target.clone()).await.map_err(Into::into)
        };
        match timeout(self.config.connect_timeout, attempt).await {
            Ok(result) => result,
            Err(_) => Err(ConnectTimeout(self.config.connect_timeout).into()),
        }
    }
}

/// Connects until there is a connection, or no handle is left.
async fn connect_with_backoff<M, T>(shared: Weak<SharedConnection<M, T>>, mut wait: Duration)
where
    M: Connect<T>,
    T: Clone + Send + Sync + 'static,
{
    loop {
        sleep(wait).await;
        let Some(shared) = shared.upgrade() else { return };
        match shared.attempt_connect().await {
            Ok(connection) => {
                shared.was_ready.store(false, Ordering::Relaxed);
                shared.transition(|_, number| {
                    *number += 1;
                    Some(ReconnectState::Connected(connection, *number, Instant::now()))
                });
                return;
            }
            Err(error) => {
                let (error, backoff) = shared.record_failure(error);
                let (failures, reason) = (error.failures, &error.source);
                tracing::debug!(
                    "cannot connect (attempt {failures}), next attempt in {backoff:?}: {reason}"
                );
                wait = backoff;
                shared.set_state(ReconnectState::Failed(error));
            }
        }
    }
}

impl<M: Service<T>, T: fmt::Debug> fmt::Debug for SharedConnection<M, T> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let state = match &**self.state.load() {
            ReconnectState::Idle => "idle",
            ReconnectState::Connecting => "connecting",
            ReconnectState::Failed(_) => "failed",
            ReconnectState::Connected(..) => "connected",
        };
        f.debug_struct("SharedConnection")
            .field("target", &self.target)
            .field("state", &state)
            .finish()
    }
}
