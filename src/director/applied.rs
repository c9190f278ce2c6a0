//! The result of the last reload: which parts of the configuration run, and which could not be applied.

use std::collections::BTreeMap;
use std::fmt;
use std::sync::Arc;
use std::time::SystemTime;

use serde::Serialize;

use super::config::{DirectorConfig, ServiceProtocol};
use super::diff::{ReloadPlan, ServiceDiff};
use super::error::DirectorError;
use crate::sync::{Mutex, lock};

/// A part of the configuration that is applied by itself, and may fail by itself.
#[derive(Clone, Debug, Eq, Ord, PartialEq, PartialOrd)]
#[non_exhaustive]
pub enum ReloadPart {
    /// The service of this name.
    Service(String),
    /// `[admin]`
    Admin,
    /// `[vrrp]`
    Vrrp,
    /// `[announce]`
    Announce,
    /// `handover`
    Handover,
    /// `[packet]`
    Packet,
}

impl fmt::Display for ReloadPart {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Service(name) => write!(f, "service {name}"),
            Self::Admin => f.write_str("[admin]"),
            Self::Vrrp => f.write_str("[vrrp]"),
            Self::Announce => f.write_str("[announce]"),
            Self::Handover => f.write_str("handover"),
            Self::Packet => f.write_str("[packet]"),
        }
    }
}

/// A part of a configuration that could not be applied, with the reason. The part runs as it did
/// before; the next reload tries to apply it again, also if the configuration has not changed.
#[derive(Clone, Debug)]
#[non_exhaustive]
pub struct PartFailure {
    /// The part.
    pub part: ReloadPart,
    /// The reason.
    pub error: Arc<DirectorError>,
}

impl fmt::Display for PartFailure {
    /// Writes `not applied: `, the part unless the error names it, and the error.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let (part, error) = (self.part.to_string(), self.error.to_string());
        match error.starts_with(&part) {
            true => write!(f, "not applied: {error}"),
            false => write!(f, "not applied: {part}: {error}"),
        }
    }
}

/// A part of the configuration that could not be applied, as the status shows it.
#[derive(Clone, Debug, Serialize)]
#[non_exhaustive]
pub struct PartStatus {
    /// `service NAME`, `[admin]`, `[vrrp]`, `[announce]`, `[packet]` or `handover`.
    pub part: String,
    /// The error, which need not name the part again.
    pub reason: String,
}

/// The changes of a reload, and its failures. Printed, it is one line for each change.
#[derive(Clone, Debug)]
pub struct ReloadSummary {
    plan: ReloadPlan,
    failures: Vec<PartFailure>,
}

impl ReloadSummary {
    pub(super) fn new(plan: ReloadPlan, failures: Vec<PartFailure>) -> Self {
        Self { plan, failures }
    }

    /// Returns whether the configuration was already running.
    #[must_use]
    pub fn is_unchanged(&self) -> bool {
        self.plan == ReloadPlan::default()
    }

    /// Returns whether every change was applied.
    #[must_use]
    pub fn is_complete(&self) -> bool {
        self.failures.is_empty()
    }

    /// Returns the parts that could not be applied; the director has logged them.
    #[must_use]
    pub fn failures(&self) -> &[PartFailure] {
        &self.failures
    }

    pub(super) fn into_failures(self) -> Vec<PartFailure> {
        self.failures
    }
}

impl fmt::Display for ReloadSummary {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.plan.fmt(f)
    }
}

/// The configuration of the last reload, with its failures.
#[derive(Debug, Default)]
pub(super) struct AppliedConfig {
    pub(super) config: DirectorConfig,
    pub(super) failures: Vec<PartFailure>,
    /// The aspects of each service that could not be applied.
    pub(super) failed_services: BTreeMap<(String, ServiceProtocol), ServiceDiff>,
}

impl AppliedConfig {
    /// Returns the changes from what runs to another configuration. A part that failed is always
    /// changed.
    pub(super) fn plan(&self, config: &DirectorConfig) -> ReloadPlan {
        let mut plan = ReloadPlan::new(&self.config, config);
        for failure in &self.failures {
            match failure.part {
                ReloadPart::Service(_) => {}
                ReloadPart::Admin => plan.admin = true,
                ReloadPart::Vrrp => plan.vrrp = true,
                ReloadPart::Announce => plan.announce = true,
                ReloadPart::Handover => plan.handover = true,
                ReloadPart::Packet => plan.packet = true,
            }
        }
        for ((name, protocol), failed) in &self.failed_services {
            let mut configured = config.services.iter();
            if configured.any(|service| (&service.name, service.protocol) == (name, *protocol)) {
                plan.change_service(name, *failed);
            }
        }
        plan
    }

    /// Records that a part could not be applied, and logs it.
    pub(super) fn record_failure(&mut self, part: ReloadPart, error: DirectorError) {
        let failure = PartFailure { part, error: Arc::new(error) };
        match failure.part {
            // Only a restart helps, as the error says.
            ReloadPart::Packet => tracing::error!("{failure}"),
            _ => tracing::error!("{failure}; the next reload tries again"),
        }
        self.failures.push(failure);
    }
}

/// How reloads ended, those that the start was included.
#[derive(Clone, Copy, Debug, Default)]
pub(super) struct ReloadCounts {
    /// Every change was applied.
    pub(super) applied: u64,
    /// Some parts could not be applied.
    pub(super) partial: u64,
    /// The configuration was refused, and nothing changed.
    pub(super) refused: u64,
    /// The time of the last, and whether every change was applied.
    pub(super) last: Option<(SystemTime, bool)>,
}

#[derive(Debug, Default)]
struct ReloadStatus {
    failed_parts: Vec<PartStatus>,
    counts: ReloadCounts,
}

/// Reads how reloads ended, and which parts of the configuration could not be applied. A clone reads the
/// same.
#[derive(Clone, Debug, Default)]
pub(super) struct ReloadStatusSlot(Arc<Mutex<ReloadStatus>>);

impl ReloadStatusSlot {
    pub(super) fn failed_parts(&self) -> Vec<PartStatus> {
        lock(&self.0).failed_parts.clone()
    }

    pub(super) fn counts(&self) -> ReloadCounts {
        lock(&self.0).counts
    }

    /// Counts a reload by its result.
    pub(super) fn count(&self, at: SystemTime, summary: Option<&ReloadSummary>) {
        let counts = &mut lock(&self.0).counts;
        let is_complete = summary.is_some_and(ReloadSummary::is_complete);
        match summary {
            Some(_) if is_complete => counts.applied += 1,
            Some(_) => counts.partial += 1,
            None => counts.refused += 1,
        }
        counts.last = Some((at, is_complete));
    }

    pub(super) fn publish(&self, failures: &[PartFailure]) {
        let status = |failure: &PartFailure| {
            let (part, error) = (failure.part.to_string(), failure.error.to_string());
            let reason = error.strip_prefix(&part).and_then(|rest| rest.strip_prefix(": "));
            PartStatus { reason: reason.unwrap_or(&error).to_owned(), part }
        };
        lock(&self.0).failed_parts = failures.iter().map(status).collect();
    }
}

#[cfg(test)]
mod tests {
    use super::super::error::ServiceError;
    use super::*;

    #[test]
    fn a_failure_names_its_part_once() {
        let failure = |error| PartFailure {
            part: ReloadPart::Service("web".to_owned()),
            error: Arc::new(error),
        };
        let own = ServiceError::Config("no".to_owned());
        let own = failure(DirectorError::Service { service: "web".to_owned(), source: own });
        let other = failure(DirectorError::Stopped);
        assert_eq!(own.to_string(), "not applied: service web: no");
        let text = "not applied: service web: the director has been stopped";
        assert_eq!(other.to_string(), text);
        let slot = ReloadStatusSlot::default();
        slot.publish(&[own, other]);
        let reasons: Vec<_> = slot.failed_parts().into_iter().map(|part| part.reason).collect();
        assert_eq!(reasons, ["no", "the director has been stopped"]);
    }

    #[test]
    fn a_failed_part_is_always_changed() {
        let text = "[[service]]\nname = \"a\"\nlisten = \"127.0.0.1:1\"\n\
            [[service]]\nname = \"b\"\nlisten = \"127.0.0.1:2\"\n";
        let config = DirectorConfig::parse(text).expect("a valid configuration");
        let mut applied = AppliedConfig { config: config.clone(), ..AppliedConfig::default() };
        assert_eq!(applied.plan(&config).to_string(), "no change");
        let failed = ServiceDiff { health: true, ..ServiceDiff::default() };
        applied.failed_services.insert(("b".to_owned(), ServiceProtocol::Tcp), failed);
        applied.record_failure(ReloadPart::Admin, DirectorError::Stopped);
        assert_eq!(
            applied.plan(&config).to_string(),
            "service b: updated health\n[admin]: updated"
        );
        let without_b = &text[..text.rfind("[[service]]").expect("two services")];
        let without_b = DirectorConfig::parse(without_b).expect("a valid configuration");
        assert_eq!(applied.plan(&without_b).to_string(), "service b: removed\n[admin]: updated");
    }
}
