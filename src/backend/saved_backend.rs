//! What a set has learned of its backends, for another process.

use std::sync::Arc;
use std::time::{Duration, Instant};

use serde::{Deserialize, Serialize};

use super::set_state::{BackendRecord, SetState, SlowStartProgress};
use super::{AgentOverride, Health, OutcomeCounts};

/// What a set has learned of one backend, without what is configured.
///
/// Times are kept as durations, so that they mean the same in another process.
#[derive(Clone, Debug, Deserialize, PartialEq, Serialize)]
#[non_exhaustive]
pub struct SavedBackend {
    /// The stable name.
    pub id: String,
    /// The health that checks found.
    pub health: Health,
    /// The reason for that health.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub reason: Option<String>,
    /// What the backend asked for through its health check.
    #[serde(default)]
    pub agent_override: AgentOverride,
    /// How long the backend has been in slow start, in milliseconds; `None` if it counts in full.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub slow_start_ms: Option<u64>,
    /// The outcomes of its leases.
    #[serde(default)]
    pub outcomes: OutcomeCounts,
}

impl<T> SetState<T> {
    pub(super) fn export(&self, now: Instant) -> Vec<SavedBackend> {
        self.records.iter().map(|record| record.export(now)).collect()
    }

    /// Restores the backends that the set has; returns `true` if there is any.
    pub(super) fn restore(&mut self, saved: &[SavedBackend], now: Instant) -> bool {
        let by_name: std::collections::HashMap<_, _> =
            saved.iter().map(|saved| (saved.id.as_str(), saved)).collect();
        let slow_start = self.slow_start;
        let mut found = false;
        for record in &mut self.records {
            let Some(saved) = by_name.get(record.backend.id().as_str()) else { continue };
            found = true;
            record.restore(saved);
            // A set without slow start has none to continue.
            let elapsed = saved.slow_start_ms.map(Duration::from_millis);
            if let (Some(elapsed), Some(slow)) = (elapsed, slow_start) {
                record.slow_start_progress =
                    SlowStartProgress::StartedAt(now.checked_sub(elapsed).unwrap_or(now));
                record.slow_start_percent = slow.percent_at_age(elapsed);
            }
        }
        found
    }
}

impl<T> BackendRecord<T> {
    fn export(&self, now: Instant) -> SavedBackend {
        let slow_start = match self.slow_start_progress {
            SlowStartProgress::Done => None,
            SlowStartProgress::AwaitingTick => Some(Duration::ZERO),
            SlowStartProgress::StartedAt(since) => Some(now.saturating_duration_since(since)),
        };
        SavedBackend {
            id: self.backend.id().to_string(),
            health: self.health,
            reason: self.health_reason.as_deref().map(str::to_owned),
            agent_override: self.agent_override,
            slow_start_ms: slow_start
                .map(|time| u64::try_from(time.as_millis()).unwrap_or(u64::MAX)),
            outcomes: self.backend.outcomes(),
        }
    }

    fn restore(&mut self, saved: &SavedBackend) {
        self.health = saved.health;
        self.health_reason = saved.reason.as_deref().map(Arc::from);
        self.agent_override = saved.agent_override;
        self.update_table_weight();
        self.backend.account.add_outcomes(saved.outcomes);
    }
}
