//! Everything that is known of one backend, for operators.

use std::net::SocketAddr;
use std::sync::Arc;

use super::{
    AgentOverride, BackendAdminState, BackendId, BackendState, Health, Limits, OutlierState,
};

/// One backend as its operator sees it: what is configured, what is said of it, and what follows.
///
/// From [`BackendSet::status`](crate::BackendSet::status).
#[derive(Clone, Debug, PartialEq)]
#[non_exhaustive]
pub struct BackendStatus {
    /// The stable name.
    pub id: BackendId,
    /// The address, where it has one.
    pub address: Option<SocketAddr>,
    /// What follows from all the rest: may it be given new work?
    pub state: BackendState,
    /// Why it is in that state, where a checker or its traffic has said so.
    pub reason: Option<Arc<str>>,
    /// What the operator wants.
    pub admin: BackendAdminState,
    /// What checks say.
    pub health: Health,
    /// What its traffic says.
    pub outlier_state: OutlierState,
    /// What it asks for by a checker.
    pub agent_override: AgentOverride,
    /// The weight as configured.
    pub weight: u32,
    /// The weight that counts, after advice.
    pub effective_weight: u32,
    /// How much of that counts now, in percent: less than 100 during slow start.
    pub slow_start_percent: u8,
    /// The connection limits as configured.
    pub limits: Limits,
    /// The priority tier.
    pub tier: u8,
}

impl BackendStatus {
    /// Tells whether the operator, and its checker, let it take new work: enabled, and of a weight
    /// above 0.
    #[must_use]
    pub fn is_in_service(&self) -> bool {
        let admin = self.agent_override.admin.map_or(self.admin, |advice| advice.max(self.admin));
        admin == BackendAdminState::Enabled && self.effective_weight != 0
    }
}
