//! The recurring check of one address, shared by the services that use the same check there.

use std::sync::Arc;
use std::time::Instant;

use super::check::{CheckFailure, CheckFailureKind, CheckReport};
use super::plan::ProbeKey;
use super::verdict::CheckVerdict;
use super::watched_service::WatchedServiceId;
use crate::backend::{AgentOverride, BackendId, Health};

/// A probe, and the members that its results concern.
#[derive(Debug)]
pub(super) struct SharedProbe {
    pub(super) key: ProbeKey,
    /// The name that the check gets as its backend: that of the first subscriber.
    pub(super) backend_id: BackendId,
    /// The service and the serial of each member.
    pub(super) subscribers: Vec<(WatchedServiceId, u64)>,
    pub(super) verdict: CheckVerdict,
    /// The reason of the verdict.
    pub(super) reason: Arc<str>,
    /// When the check had its last result.
    pub(super) last_result: Option<Instant>,
    pub(super) agent_override: AgentOverride,
    pub(super) warning: Option<Arc<str>>,
    /// Why the check does not run, since its last result.
    pub(super) local_failure: Option<Arc<str>>,
    /// The number of results that say something of the backend.
    pub(super) results: u64,
    /// The number of those that are failures.
    pub(super) failures: u64,
}

/// The changes that a result of a check makes.
#[derive(Clone, Copy, Debug, Default)]
pub(super) struct ProbeChanges {
    /// Whether the verdict, its reason, the agent override or the reason of a check that does not run
    /// changed.
    pub(super) verdict: bool,
    /// Whether there is a new warning.
    pub(super) warning: bool,
    /// Whether the check does not run for a new reason.
    pub(super) local_failure: bool,
}

impl SharedProbe {
    pub(super) fn new(key: ProbeKey, id: &BackendId) -> Self {
        Self {
            backend_id: id.clone(),
            subscribers: Vec::new(),
            verdict: CheckVerdict::initial(key.timing.init),
            reason: "not checked yet".into(),
            last_result: None,
            agent_override: AgentOverride::default(),
            warning: None,
            local_failure: None,
            results: 0,
            failures: 0,
            key,
        }
    }

    /// Records the result of a check.
    pub(super) fn record_result(
        &mut self,
        result: Result<CheckReport, CheckFailure>,
    ) -> ProbeChanges {
        let label = self.key.label();
        let mut leaves_health = false;
        let (agent_override, warning, failure) = match result {
            // A failure of this machine shows nothing about the backend.
            Err(failure) if failure.kind() == CheckFailureKind::Local => {
                return self.record_local_failure(&failure);
            }
            Ok(report) => {
                leaves_health = report.leaves_health;
                (report.agent_override, report.warning, None)
            }
            Err(failure) => (failure.agent_override(), None, Some(failure)),
        };
        let runs_again = self.local_failure.take().is_some();
        let passed = failure.is_none();
        self.results += 1;
        self.failures += u64::from(!passed);
        let verdict_changed = match leaves_health {
            true => self.verdict.record_no_opinion(),
            false => self.verdict.record_result(passed, &self.key.timing),
        };
        if verdict_changed {
            self.reason = match failure {
                Some(failure) => format!("{label}: {failure}").into(),
                None if leaves_health => format!("{label} says nothing of the health").into(),
                None => format!("{label} passed").into(),
            };
        }
        let agent_override = self.agent_override.updated_with(agent_override);
        let changed = verdict_changed || runs_again || agent_override != self.agent_override;
        self.agent_override = agent_override;
        let new_warning = passed && warning.as_deref() != self.warning.as_deref();
        if new_warning {
            self.warning = warning.map(Into::into);
        }
        let warning = new_warning && self.warning.is_some();
        ProbeChanges { verdict: changed, warning, local_failure: false }
    }

    fn record_local_failure(&mut self, failure: &CheckFailure) -> ProbeChanges {
        let label = self.key.label();
        let went_down = self.verdict.record_failure_to_run(&self.key.timing);
        if went_down {
            self.reason = format!("{label} has not run once: {failure}").into();
        }
        let reason = format!("{label}: {failure}");
        let is_new = self.local_failure.as_deref() != Some(&*reason);
        if is_new {
            self.local_failure = Some(reason.into());
        }
        ProbeChanges { verdict: went_down || is_new, local_failure: is_new, warning: false }
    }

    /// Returns the reason why the check does not run, with the reason of the last verdict if that is
    /// down.
    pub(super) fn problem(&self) -> Option<Arc<str>> {
        let problem = self.local_failure.as_ref()?;
        let before = match self.verdict.health() {
            Some(Health::Down) if self.verdict.has_result() => {
                format!("; down before: {}", self.reason)
            }
            _ => String::new(),
        };
        Some(format!("cannot be checked: {problem}{before}").into())
    }
}
