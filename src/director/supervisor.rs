//! The tasks that run as long as the director, or as a part of it: one that panics is logged, counted
//! and started again.

use std::collections::BTreeMap;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::Arc;
use std::time::Duration;

use tokio::time::sleep;
use tokio_util::task::AbortOnDropHandle;

use crate::panics::{catch_panic, panic_message};
use crate::sync::{Mutex, lock};

/// The pause before a task starts again: a task that panics each time must not use up a core.
pub(super) const RESTART_DELAY: Duration = Duration::from_secs(1);

/// Starts tasks again that panic, and counts how often. A clone counts in the same place.
#[derive(Clone, Debug, Default)]
pub(super) struct TaskSupervisor {
    restarts: Arc<Mutex<BTreeMap<&'static str, u64>>>,
}

impl TaskSupervisor {
    /// Runs a task on the current runtime until it returns, or the handle is dropped. `start` is called
    /// again after each panic.
    pub(super) fn spawn<F: Future<Output = ()> + Send + 'static>(
        &self,
        task: &'static str,
        start: impl FnMut() -> F + Send + 'static,
    ) -> AbortOnDropHandle<()> {
        let supervisor = self.clone();
        AbortOnDropHandle::new(tokio::spawn(async move { supervisor.run(task, start).await }))
    }

    /// Runs a task until it returns; the future of [`spawn`](Self::spawn).
    pub(super) async fn run<F: Future<Output = ()>>(
        &self,
        task: &'static str,
        mut start: impl FnMut() -> F,
    ) {
        self.register(task);
        while let Err(message) = catch_panic(start()).await {
            self.record_panic(task, &message);
            sleep(RESTART_DELAY).await;
        }
    }

    /// Runs the body of a thread until it returns.
    pub(super) fn run_thread(&self, task: &'static str, mut body: impl FnMut()) {
        self.register(task);
        while let Err(payload) = catch_unwind(AssertUnwindSafe(&mut body)) {
            self.record_panic(task, &panic_message(&*payload));
            std::thread::sleep(RESTART_DELAY);
        }
    }

    /// Makes the metrics show a task before its first panic, which they count as an increase.
    pub(super) fn register(&self, task: &'static str) {
        self.add(task, 0);
    }

    /// Logs and counts a panic of a task that starts again, or has no state to lose.
    pub(super) fn record_panic(&self, task: &'static str, message: &str) {
        self.add(task, 1);
        tracing::error!("the task {task:?} panicked, and starts again: {message}");
    }

    /// Returns how often each task was started again.
    pub(super) fn restarts(&self) -> BTreeMap<&'static str, u64> {
        lock(&self.restarts).clone()
    }

    fn add(&self, task: &'static str, restarts: u64) {
        *lock(&self.restarts).entry(task).or_default() += restarts;
    }
}

#[cfg(test)]
mod tests {
    use std::sync::atomic::{AtomicU32, Ordering};

    use super::*;

    #[tokio::test(start_paused = true)]
    async fn a_task_that_panics_is_counted_and_starts_again() {
        let supervisor = TaskSupervisor::default();
        let starts = Arc::new(AtomicU32::new(0));
        let counted = Arc::clone(&starts);
        let task = supervisor.spawn("test", move || {
            let start = counted.fetch_add(1, Ordering::Relaxed);
            async move {
                tokio::task::yield_now().await;
                assert!(start > 1, "start {start}");
            }
        });
        task.await.expect("the supervisor does not panic");
        assert_eq!(starts.load(Ordering::Relaxed), 3);
        assert_eq!(supervisor.restarts(), BTreeMap::from([("test", 2)]));
    }

    #[tokio::test(start_paused = true)]
    async fn a_task_ends_with_its_handle() {
        let supervisor = TaskSupervisor::default();
        let (sender, mut receiver) = tokio::sync::mpsc::channel::<()>(1);
        let task = supervisor.spawn("test", move || {
            let sender = sender.clone();
            async move {
                let _sender = sender;
                std::future::pending().await
            }
        });
        tokio::task::yield_now().await;
        drop(task);
        assert_eq!(receiver.recv().await, None);
        assert_eq!(supervisor.restarts(), BTreeMap::from([("test", 0)]));
    }

    #[test]
    fn a_thread_that_panics_starts_again() {
        let supervisor = TaskSupervisor::default();
        let mut starts = 0;
        supervisor.run_thread("test", || {
            starts += 1;
            assert!(starts > 1, "the first start");
        });
        assert_eq!((starts, supervisor.restarts()["test"]), (2, 1));
    }
}
