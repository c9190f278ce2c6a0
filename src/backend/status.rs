//! Everything that is known of one backend, for operators.

use std::net::SocketAddr;
use std::sync::Arc;

use super::{Admin, Advice, BackendId, Health, Limits, Standing, State};

/// One backend as its operator sees it: what is configured, what is said of it, and what follows.
///
/// From [`BackendSet::status`](crate::BackendSet::status).
#[derive(Clone, Debug, PartialEq)]
#[non_exhaustive]
pub struct Status {
    /// The stable name.
    pub id: BackendId,
    /// The address, where it has one.
    pub address: Option<SocketAddr>,
    /// What follows from all the rest: may it be given new work?
    pub state: State,
    /// Why it is in that state, where a checker or its traffic has said so.
    pub why: Option<Arc<str>>,
    /// What the operator wants.
    pub admin: Admin,
    /// What checks say.
    pub health: Health,
    /// What its traffic says.
    pub standing: Standing,
    /// What it asks for by a checker.
    pub advice: Advice,
    /// The weight as configured.
    pub weight: u32,
    /// The weight that counts, after advice.
    pub effective_weight: u32,
    /// How much of that counts now, in percent: less than 100 during slow start.
    pub share_percent: u8,
    /// The connection limits as configured.
    pub limits: Limits,
    /// The priority tier.
    pub tier: u8,
}

impl Status {
    /// Tells whether the operator, and its checker, let it take new work: enabled, and of a weight
    /// above 0.
    #[must_use]
    pub fn is_wanted(&self) -> bool {
        let admin = self.advice.admin.map_or(self.admin, |advice| advice.max(self.admin));
        admin == Admin::Enabled && self.effective_weight != 0
    }
}
