//! What a core knows about a service, exported for another process and restored there.

use std::collections::HashMap;
use std::sync::Arc;
use std::time::{Duration, Instant};

use super::MonitorCore;
use crate::backend::SetError;
use crate::health::saved::{SavedCheckVerdict, SavedHealth, SavedMemberVerdicts};
use crate::health::shared_probe::SharedProbe;
use crate::health::verdict::CheckVerdict;
use crate::health::watched_service::WatchedServiceId;

/// How much newer another director's result must be to replace a result of one's own. Two directors
/// that check every second or more often know the same, and one's own result has gone the way that the
/// traffic will take.
const NEWER_BY: Duration = Duration::from_secs(1);

impl MonitorCore {
    /// Returns the knowledge about a service, for [`restore`](Self::restore) after a restart.
    pub(in crate::health) fn export(&self, id: WatchedServiceId, now: Instant) -> SavedHealth {
        let Some(service) = self.services.get(&id) else { return SavedHealth::default() };
        let verdicts = service.members.values().map(|member| SavedMemberVerdicts {
            id: member.info.id.to_string(),
            checks: member
                .probes
                .iter()
                .filter_map(|probe| self.probes.get(probe))
                .map(|probe| SavedCheckVerdict {
                    check: probe.key.check.name().to_owned(),
                    verdict: probe.verdict,
                    reason: probe.reason.to_string(),
                    age: probe.last_result.map(|at| now.saturating_duration_since(at)),
                })
                .collect(),
        });
        SavedHealth {
            backends: service.set.export(now),
            verdicts: verdicts.collect(),
            ejections: service.export_ejections(now),
        }
    }

    /// Restores the knowledge about a service. Results of checks since the start take precedence over
    /// saved ones that are not newer.
    pub(in crate::health) fn restore(
        &mut self,
        id: WatchedServiceId,
        saved: &SavedHealth,
        now: Instant,
    ) -> Result<(), SetError> {
        let Some(set) = self.services.get(&id).map(|service| Arc::clone(&service.set)) else {
            return Ok(());
        };
        set.restore(&saved.backends, now)?;
        if set.take_changed() {
            self.sync_members(id, now);
        }
        self.restore_verdicts(id, saved, now);
        Ok(())
    }

    /// Restores the verdicts of the checks and the ejections of a service.
    pub(super) fn restore_verdicts(
        &mut self,
        id: WatchedServiceId,
        saved: &SavedHealth,
        now: Instant,
    ) {
        let checks_by_name: HashMap<_, _> =
            saved.verdicts.iter().map(|member| (member.id.as_str(), &member.checks)).collect();
        let Some(service) = self.services.get(&id) else { return };
        // A probe is shared: what it concerns may be members of other services too.
        let mut concerned: Vec<_> = service.members.keys().map(|serial| (id, *serial)).collect();
        for member in service.members.values() {
            let Some(checks) = checks_by_name.get(member.info.id.as_str()) else { continue };
            for (n, probe) in member.probes.iter().enumerate() {
                let Some(probe) = self.probes.get_mut(probe) else { continue };
                let saved = checks.get(n).filter(|saved| saved.check == probe.key.check.name());
                if restore_verdict(probe, saved, now) {
                    concerned
                        .extend(probe.subscribers.iter().filter(|(service, _)| *service != id));
                }
            }
        }
        for (service, serial) in concerned {
            self.evaluate_member(service, serial);
        }
        if let Some(service) = self.services.get_mut(&id) {
            service.restore_ejections(&saved.ejections, now);
        }
    }
}

/// Restores the verdict of a check; returns whether a result of this process was replaced.
fn restore_verdict(
    probe: &mut SharedProbe,
    saved: Option<&SavedCheckVerdict>,
    now: Instant,
) -> bool {
    let has_result = probe.verdict.has_result();
    match saved {
        Some(saved) if !has_result || is_newer(saved, probe, now) => {
            probe.verdict = saved.verdict;
            probe.reason = saved.reason.as_str().into();
            probe.last_result = saved.age.and_then(|age| now.checked_sub(age));
        }
        // The member is known, and keeps its health until a new check has a result.
        None if !has_result => probe.verdict = CheckVerdict::default(),
        _ => return false,
    }
    has_result
}

fn is_newer(saved: &SavedCheckVerdict, probe: &SharedProbe, now: Instant) -> bool {
    let Some(age) = saved.age.filter(|_| saved.verdict.has_result()) else { return false };
    let own_age = probe.last_result.map(|at| now.saturating_duration_since(at));
    own_age.is_some_and(|own_age| own_age > age.saturating_add(NEWER_BY))
}
