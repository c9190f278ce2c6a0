//! The recurring check of one address, shared by the services that use the same check there.

use std::sync::Arc;

use super::check::{CheckFailure, CheckFailureKind, CheckReport};
use super::plan::ProbeKey;
use super::verdict::CheckVerdict;
use super::watched_service::WatchedServiceId;
use crate::backend::{AgentOverride, BackendId};

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
    /// Whether the verdict or the agent override changed.
    pub(super) verdict: bool,
    /// Whether there is a new warning.
    pub(super) warning: bool,
    /// Whether the check does not run for a new reason.
    pub(super) local_failure: bool,
}

impl SharedProbe {
    pub(super) fn new(key: ProbeKey, id: &BackendId) -> Self {
        Self {
            key,
            backend_id: id.clone(),
            subscribers: Vec::new(),
            verdict: CheckVerdict::default(),
            reason: "not checked yet".into(),
            agent_override: AgentOverride::default(),
            warning: None,
            local_failure: None,
            results: 0,
            failures: 0,
        }
    }

    /// Records the result of a check.
    pub(super) fn record_result(
        &mut self,
        result: Result<CheckReport, CheckFailure>,
    ) -> ProbeChanges {
        let name = self.key.check.name();
        let (agent_override, warning, failure) = match result {
            // A failure of this machine shows nothing about the backend.
            Err(failure) if failure.kind() == CheckFailureKind::Local => {
                return self.record_local_failure(&failure);
            }
            Ok(report) => (report.agent_override, report.warning, None),
            Err(failure) => (failure.agent_override(), None, Some(failure)),
        };
        self.local_failure = None;
        let passed = failure.is_none();
        self.results += 1;
        self.failures += u64::from(!passed);
        let mut changed = self.verdict.record_result(passed, &self.key.timing);
        if changed {
            self.reason = match failure {
                Some(failure) => format!("{name} check: {failure}").into(),
                None => format!("{name} check passed").into(),
            };
        }
        let agent_override = self.agent_override.updated_with(agent_override);
        changed |= agent_override != self.agent_override;
        self.agent_override = agent_override;
        let new_warning = passed && warning.as_deref() != self.warning.as_deref();
        if new_warning {
            self.warning = warning.map(Into::into);
        }
        let warning = new_warning && self.warning.is_some();
        ProbeChanges { verdict: changed, warning, local_failure: false }
    }

    fn record_local_failure(&mut self, failure: &CheckFailure) -> ProbeChanges {
        let reason = format!("{} check: {failure}", self.key.check.name());
        if self.local_failure.as_deref() == Some(&*reason) {
            return ProbeChanges::default();
        }
        self.local_failure = Some(reason.into());
        ProbeChanges { local_failure: true, ..ProbeChanges::default() }
    }
}
