//! A watched set as the core of a monitor sees it, whatever its targets are.

use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Instant;

use super::events::HealthEventKind;
use super::outlier::OutlierSample;
use super::plan::HealthPlan;
use crate::backend::{
    AgentOverride, BackendId, FailureStreak, Health, OutlierState, SavedBackend, SetError,
    SlowStart, TrialState,
};

/// The operations on a set that the core of a monitor needs.
pub(super) trait WatchedSet: Send + Sync {
    fn plan(&self) -> &HealthPlan;

    /// Returns whether the set has changed since the previous call.
    fn take_changed(&self) -> bool;

    /// Returns the members of the set.
    fn members(&self) -> Vec<MemberInfo>;

    /// Applies the results of checks and traffic as one publication.
    fn apply(
        &self,
        health_updates: &[HealthUpdate],
        outlier_updates: &[OutlierUpdate],
    ) -> Result<(), SetError>;

    /// Returns the serials of the members whose failure streak or trial needs attention since the
    /// previous call, with both.
    fn take_outlier_signals(&self) -> Vec<(u64, FailureStreak, TrialState)>;

    /// Returns the outcomes and the availability of all members.
    fn samples(&self, now: Instant) -> Vec<OutlierSample>;

    /// Advances the slow starts, and returns when to call this again.
    fn advance_slow_starts(&self, now: Instant) -> Result<Option<Instant>, SetError>;

    /// Returns the knowledge of the set about its members.
    fn export(&self, now: Instant) -> Vec<SavedBackend>;

    /// Restores what an earlier process exported.
    fn restore(&self, saved: &[SavedBackend], now: Instant) -> Result<(), SetError>;

    /// Sends an event to the readers of the monitor.
    fn publish_event(&self, kind: HealthEventKind);
}

/// The identity and the address of a member.
#[derive(Debug)]
pub(super) struct MemberInfo {
    pub(super) serial: u64,
    pub(super) id: BackendId,
    pub(super) address: Option<SocketAddr>,
}

/// The result of the checks of a member.
#[derive(Clone, Debug, PartialEq)]
pub(super) struct HealthUpdate {
    pub(super) id: BackendId,
    /// `None` while a check has no result yet.
    pub(super) health: Option<Health>,
    pub(super) reason: Arc<str>,
    pub(super) agent_override: AgentOverride,
    /// Why a check of the member does not run.
    pub(super) problem: Option<Arc<str>>,
}

/// A change of a member's outlier state.
#[derive(Clone, Debug)]
pub(super) struct OutlierUpdate {
    pub(super) id: BackendId,
    pub(super) outlier_state: OutlierState,
    pub(super) reason: Arc<str>,
    /// The slow start that begins with the change, if any.
    pub(super) ramp: Option<SlowStart>,
}
