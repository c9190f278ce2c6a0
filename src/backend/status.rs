//! The status of one backend, for operators.

use std::net::SocketAddr;
use std::sync::Arc;

use super::{
    AgentOverride, BackendAdminState, BackendId, BackendState, Health, Limits, OutlierState, Zone,
};

/// A backend as its operator sees it: its configuration, its health, and the state that follows.
///
/// [`BackendSet::statuses`](crate::BackendSet::statuses) returns it.
#[derive(Clone, Debug, PartialEq)]
#[cfg_attr(feature = "serde", derive(serde::Serialize))]
#[non_exhaustive]
pub struct BackendStatus {
    /// The stable name.
    pub id: BackendId,
    /// The address, if it has one.
    pub address: Option<SocketAddr>,
    /// The state that follows from all other fields: it says whether the backend may get new work.
    pub state: BackendState,
    /// The reason for that state, if a check or outlier detection gave one.
    pub reason: Option<Arc<str>>,
    /// The operator's state.
    pub admin: BackendAdminState,
    /// The health that checks found.
    pub health: Health,
    /// The outlier state, which its own traffic decides.
    pub outlier_state: OutlierState,
    /// What the backend asks for through its health check.
    pub agent_override: AgentOverride,
    /// The weight as configured.
    pub weight: u32,
    /// The weight that counts, with the agent's override.
    pub effective_weight: u32,
    /// The percentage of that weight that counts now: less than 100 during slow start.
    pub slow_start_percent: u8,
    /// The connection limits as configured.
    pub limits: Limits,
    /// The priority tier.
    pub tier: u8,
    /// The zone, if it is known.
    pub zone: Option<Zone>,
}

impl BackendStatus {
    /// Tells whether the operator and the agent let the backend get new work: it is enabled and its
    /// weight is above 0.
    #[must_use]
    pub fn is_in_service(&self) -> bool {
        let admin = self.agent_override.admin.map_or(self.admin, |agent| agent.max(self.admin));
        admin == BackendAdminState::Enabled && self.effective_weight != 0
    }
}
