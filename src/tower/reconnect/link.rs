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

use super::{Connect, ConnectError, ConnectTimeout, Rules};
use crate::sync::{AtomicBool, AtomicU32, Mutex, Ordering};

pub(super) struct Link<M: Service<T>, T> {
    rules: Rules,
    make: M,
    target: T,
    state: ArcSwap<State<M::Response>>,
    /// Held while the state changes, not while it is read: the number of the last connection.
    change: Mutex<u64>,
    /// Failures since a connection was last ready.
    failures: AtomicU32,
    /// Has the connection ever been ready?
    proven: AtomicBool,
    changed: Arc<Notify>,
}

pub(super) enum State<S> {
    /// Nobody has wanted it yet.
    Idle,
    /// A task is at it.
    Connecting,
    /// A task is at it, and has failed.
    Failed(ConnectError),
    /// There is a connection, with its number, and since when.
    Up(S, u64, Instant),
}

impl<M: Service<T>, T> Link<M, T> {
    pub(super) fn new(rules: Rules, make: M, target: T) -> Self {
        Self {
            rules,
            make,
            target,
            state: ArcSwap::from_pointee(State::Idle),
            change: Mutex::new(0),
            failures: AtomicU32::new(0),
            proven: AtomicBool::new(false),
            changed: Arc::default(),
        }
    }

    pub(super) fn target(&self) -> &T {
        &self.target
    }

    pub(super) fn state(&self) -> Guard<Arc<State<M::Response>>> {
        self.state.load()
    }

    pub(super) fn parts(&self) -> (Rules, M, T)
    where
        M: Clone,
        T: Clone,
    {
        (self.rules, self.make.clone(), self.target.clone())
    }

    /// Comes with the next change of the state.
    pub(super) fn word(&self) -> OwnedNotified {
        Arc::clone(&self.changed).notified_owned()
    }

    /// The connection is as good as it looked.
    pub(super) fn proven(&self) {
        if !self.proven.load(Ordering::Relaxed) {
            self.proven.store(true, Ordering::Relaxed);
            self.failures.store(0, Ordering::Relaxed);
        }
    }

    /// Changes the state, if that is so.
    fn change_if(
        &self,
        is: impl FnOnce(&State<M::Response>, &mut u64) -> Option<State<M::Response>>,
    ) -> bool {
        // Nothing in here panics, and the number holds in any case.
        let mut number = self.change.lock().unwrap_or_else(|poisoned| poisoned.into_inner());
        let next = is(&self.state.load(), &mut number);
        let changes = next.is_some();
        if let Some(next) = next {
            self.state.store(Arc::new(next));
            drop(number);
            self.changed.notify_waiters();
        }
        changes
    }

    fn set(&self, state: State<M::Response>) {
        self.change_if(|_, _| Some(state));
    }

    /// Counts a failure, and says how long to wait.
    fn failed(&self, error: BoxError) -> (ConnectError, Duration) {
        let failures = self.failures.fetch_add(1, Ordering::Relaxed).saturating_add(1);
        let (first, longest) = self.rules.backoff;
        let doubled = first.saturating_mul(1 << (failures - 1).min(20));
        let wait = doubled.min(longest).mul_f64(0.5 + 0.5 * fastrand::f64());
        (ConnectError { failures, source: Arc::from(error) }, wait)
    }
}

impl<M, T> Link<M, T>
where
    M: Connect<T>,
    T: Clone + Send + Sync + 'static,
{
    pub(super) fn connect(link: &Arc<Self>) {
        let begins =
            link.change_if(|state, _| matches!(state, State::Idle).then_some(State::Connecting));
        if begins {
            tokio::spawn(keep_trying(Arc::downgrade(link), Duration::ZERO));
        }
    }

    /// This connection has broken; if nobody has said so before, another is made.
    pub(super) fn broken(link: &Arc<Self>, number: u64, error: BoxError) {
        let mut pause = Duration::ZERO;
        let begins = link.change_if(|state, _| {
            let State::Up(_, current, since) = state else { return None };
            if *current != number {
                return None;
            }
            tracing::debug!(error = %error, "a connection has broken");
            // One that breaks at once is no better than none; one that broke after a long time in
            // which nobody wanted it is.
            if link.proven.load(Ordering::Relaxed) || since.elapsed() >= link.rules.backoff.1 {
                return Some(State::Connecting);
            }
            let (error, wait) = link.failed(error);
            pause = wait;
            Some(State::Failed(error))
        });
        if begins {
            tokio::spawn(keep_trying(Arc::downgrade(link), pause));
        }
    }

    async fn attempt(&self) -> Result<M::Response, BoxError> {
        let mut make = self.make.clone();
        let attempt = async {
            poll_fn(|cx| make.poll_ready(cx)).await.map_err(Into::into)?;
            make.call(self.target.clone()).await.map_err(Into::into)
        };
        match timeout(self.rules.timeout, attempt).await {
            Ok(result) => result,
            Err(_) => Err(ConnectTimeout(self.rules.timeout).into()),
        }
    }
}

/// Connects until there is a connection, or nobody to have one.
async fn keep_trying<M, T>(link: Weak<Link<M, T>>, mut pause: Duration)
where
    M: Connect<T>,
    T: Clone + Send + Sync + 'static,
{
    loop {
        sleep(pause).await;
        let Some(link) = link.upgrade() else { return };
        match link.attempt().await {
            Ok(connection) => {
                link.proven.store(false, Ordering::Relaxed);
                link.change_if(|_, number| {
                    *number += 1;
                    Some(State::Up(connection, *number, Instant::now()))
                });
                return;
            }
            Err(error) => {
                let (error, wait) = link.failed(error);
                let (failures, why) = (error.failures, &error.source);
                tracing::debug!(failures, error = %why, ?wait, "cannot connect");
                pause = wait;
                link.set(State::Failed(error));
            }
        }
    }
}

impl<M: Service<T>, T: fmt::Debug> fmt::Debug for Link<M, T> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let state = match &**self.state.load() {
            State::Idle => "idle",
            State::Connecting => "connecting",
            State::Failed(_) => "failed",
            State::Up(..) => "up",
        };
        f.debug_struct("Link").field("target", &self.target).field("state", &state).finish()
    }
}
