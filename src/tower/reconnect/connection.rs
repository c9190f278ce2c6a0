//! What the handles of one connection share: the connection, or the task that makes one.

use std::fmt;
use std::future::poll_fn;
use std::sync::{Arc, Weak};
use std::time::Duration;

use ::tower::{BoxError, Service};
use arc_swap::{ArcSwap, Guard};
use tokio::sync::Notify;
use tokio::sync::futures::OwnedNotified;
use tokio::time::{Instant, sleep, timeout};

use super::{Connect, ConnectError, ConnectTimeout, ReconnectConfig};
use crate::sync::{AtomicBool, AtomicU32, Mutex, Ordering};

pub(super) struct SharedConnection<M: Service<T>, T> {
    config: ReconnectConfig,
    make: M,
    target: T,
    state: ArcSwap<ReconnectState<M::Response>>,
    /// Held while the state changes, not while it is read: the number of the last connection.
    connection_number: Mutex<u64>,
    /// Failures since a connection was last ready.
    failures: AtomicU32,
    /// Has the connection ever been ready?
    was_ready: AtomicBool,
    state_changed: Arc<Notify>,
}

pub(super) enum ReconnectState<S> {
    /// Nobody has wanted it yet.
    Idle,
    /// A task is at it.
    Connecting,
    /// A task is at it, and has failed.
    Failed(ConnectError),
    /// There is a connection, with its number, and since when.
    Connected(S, u64, Instant),
}

impl<M: Service<T>, T> SharedConnection<M, T> {
    pub(super) fn new(rules: ReconnectConfig, make: M, target: T) -> Self {
        Self {
            config: rules,
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

    pub(super) fn parts(&self) -> (ReconnectConfig, M, T)
    where
        M: Clone,
        T: Clone,
    {
        (self.config, self.make.clone(), self.target.clone())
    }

    /// Comes with the next change of the state.
    pub(super) fn state_changed(&self) -> OwnedNotified {
        Arc::clone(&self.state_changed).notified_owned()
    }

    /// The connection is as good as it looked.
    pub(super) fn mark_ready(&self) {
        if !self.was_ready.load(Ordering::Relaxed) {
            self.was_ready.store(true, Ordering::Relaxed);
            self.failures.store(0, Ordering::Relaxed);
        }
    }

    /// Changes the state, if that is so.
    fn transition(
        &self,
        is: impl FnOnce(&ReconnectState<M::Response>, &mut u64) -> Option<ReconnectState<M::Response>>,
    ) -> bool {
        // Nothing in here panics, and the number holds in any case.
        let mut number =
            self.connection_number.lock().unwrap_or_else(|poisoned| poisoned.into_inner());
        let next = is(&self.state.load(), &mut number);
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

    /// Counts a failure, and says how long to wait.
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
    pub(super) fn connect(link: &Arc<Self>) {
        let begins = link.transition(|state, _| {
            matches!(state, ReconnectState::Idle).then_some(ReconnectState::Connecting)
        });
        if begins {
            tokio::spawn(connect_with_backoff(Arc::downgrade(link), Duration::ZERO));
        }
    }

    /// This connection has broken; if nobody has said so before, another is made.
    pub(super) fn report_broken(link: &Arc<Self>, number: u64, error: BoxError) {
        let mut pause = Duration::ZERO;
        let begins = link.transition(|state, _| {
            let ReconnectState::Connected(_, current, since) = state else { return None };
            if *current != number {
                return None;
            }
            tracing::debug!(error = %error, "a connection has broken");
            // One that breaks at once is no better than none; one that broke after a long time in
            // which nobody wanted it is.
            if link.was_ready.load(Ordering::Relaxed) || since.elapsed() >= link.config.backoff.1 {
                return Some(ReconnectState::Connecting);
            }
            let (error, wait) = link.record_failure(error);
            pause = wait;
            Some(ReconnectState::Failed(error))
        });
        if begins {
            tokio::spawn(connect_with_backoff(Arc::downgrade(link), pause));
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

/// Connects until there is a connection, or nobody to have one.
async fn connect_with_backoff<M, T>(link: Weak<SharedConnection<M, T>>, mut pause: Duration)
where
    M: Connect<T>,
    T: Clone + Send + Sync + 'static,
{
    loop {
        sleep(pause).await;
        let Some(link) = link.upgrade() else { return };
        match link.attempt_connect().await {
            Ok(connection) => {
                link.was_ready.store(false, Ordering::Relaxed);
                link.transition(|_, number| {
                    *number += 1;
                    Some(ReconnectState::Connected(connection, *number, Instant::now()))
                });
                return;
            }
            Err(error) => {
                let (error, wait) = link.record_failure(error);
                let (failures, why) = (error.failures, &error.source);
                tracing::debug!(failures, error = %why, ?wait, "cannot connect");
                pause = wait;
                link.set_state(ReconnectState::Failed(error));
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
            ReconnectState::Connected(..) => "up",
        };
        f.debug_struct("Link").field("target", &self.target).field("state", &state).finish()
    }
}
