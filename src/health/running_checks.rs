//! The checks in flight, each a task.

use std::collections::HashMap;

use tokio::task::{self, JoinError, JoinSet};
use tokio::time::{Instant, timeout_at};

use super::check::{CheckContext, CheckFailure, CheckFailureKind, CheckReport};
use super::check_ports::CheckPorts;
use super::monitor_core::CheckJob;
use super::plan::ProbeKey;
use super::timetable::ProbeId;
use crate::panics::panic_message;

/// A probe and the result of its check.
pub(super) type CompletedCheck = (ProbeId, Result<CheckReport, CheckFailure>);

/// The checks in flight. Dropping it cancels them.
#[derive(Default)]
pub(super) struct RunningChecks {
    tasks: JoinSet<CompletedCheck>,
    /// Names the probe of a task that panics.
    probe_by_task: HashMap<task::Id, ProbeId>,
    /// The kernel has one table of connections, for the checks of all services.
    ports: CheckPorts,
}

impl RunningChecks {
    pub(super) fn spawn(&mut self, job: CheckJob) {
        let id = job.probe_id;
        let task = self.tasks.spawn(run_check(job, self.ports.clone()));
        self.probe_by_task.insert(task.id(), id);
    }

    /// Waits for the next result; forever if no check is in flight. Cancel safe.
    pub(super) async fn next(&mut self) -> CompletedCheck {
        loop {
            match self.tasks.join_next_with_id().await {
                Some(joined) => {
                    if let Some(completed) = self.finish_task(joined) {
                        return completed;
                    }
                }
                None => std::future::pending().await,
            }
        }
    }

    /// Returns a result that has arrived, without waiting.
    pub(super) fn try_next(&mut self) -> Option<CompletedCheck> {
        while let Some(joined) = self.tasks.try_join_next_with_id() {
            if let Some(completed) = self.finish_task(joined) {
                return Some(completed);
            }
        }
        None
    }

    fn finish_task(
        &mut self,
        joined: Result<(task::Id, CompletedCheck), JoinError>,
    ) -> Option<CompletedCheck> {
        match joined {
            Ok((task, completed)) => {
                self.probe_by_task.remove(&task);
                Some(completed)
            }
            Err(error) => {
                let probe = self.probe_by_task.remove(&error.id())?;
                // The program's fault, or its runtime's: it says nothing about the backend.
                let reason = panic_reason(error);
                let failure = CheckFailure::new(CheckFailureKind::Local, reason);
                Some((probe, Err(failure)))
            }
        }
    }
}

/// Returns the reason for which the task of a check failed.
fn panic_reason(error: JoinError) -> String {
    match error.try_into_panic() {
        Ok(payload) => format!("the check panicked: {}", panic_message(&*payload)),
        Err(_) => "the check was cancelled".to_owned(),
    }
}

/// Runs a check within its timeout.
async fn run_check(job: CheckJob, ports: CheckPorts) -> CompletedCheck {
    let CheckJob { probe_id, key, context } = job;
    let limit = key.timing.timeout;
    let deadline = Instant::now() + limit;
    let Some(path) = &key.path else {
        return (probe_id, run_until(deadline, &key, &context).await);
    };
    let contexts = match path.contexts(context, limit, &ports).await {
        Ok(contexts) => contexts,
        Err(failure) => return (probe_id, Err(failure)),
    };
    let mut result = Ok(CheckReport::unchanged());
    for context in &contexts {
        result = run_until(deadline, &key, context).await;
        if result.is_err() {
            let at_virtual_address = |failure: CheckFailure| match context.mark() {
                Some(_) => failure.at_virtual_address(context.address()),
                None => failure,
            };
            return (probe_id, result.map_err(at_virtual_address));
        }
    }
    (probe_id, result)
}

async fn run_until(
    deadline: Instant,
    key: &ProbeKey,
    context: &CheckContext,
) -> Result<CheckReport, CheckFailure> {
    timeout_at(deadline, key.check.run(context)).await.unwrap_or_else(|_| {
        context.report().ok_or_else(|| {
            let (limit, stage) = (key.timing.timeout, context.stage());
            let reason = format!("timed out after {limit:?} while {stage}");
            CheckFailure::new(CheckFailureKind::Timeout, reason)
        })
    })
}
