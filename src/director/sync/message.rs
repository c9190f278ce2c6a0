//! The messages that an active director sends to its standby, in JSON.

use std::net::IpAddr;
use std::time::Duration;

use serde::{Deserialize, Serialize};

use crate::BackendId;
use crate::balancer::SavedTemplate;
use crate::director::overrides::ServiceOverrides;
use crate::director::service::ServiceOutline;
use crate::director::time::saturating_millis;
use crate::health::SavedHealth;
use crate::metrics::ServiceTotals;

/// One message.
#[derive(Debug, Default, Deserialize, Serialize)]
pub(super) struct SyncMessage {
    /// Whether the sender is active; a standby that is connected to another standby ignores it.
    pub(super) is_active: bool,
    /// Whether this is the whole state, not a difference.
    pub(super) is_full: bool,
    /// Whether the flows of the packet engine follow by the same connection.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub(super) has_flows: bool,
    /// What both configurations must have in common; absent if it has not changed.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(super) outlines: Option<Vec<ServiceOutline>>,
    pub(super) services: Vec<ServiceUpdate>,
}

/// The changes of one service; absent fields have not changed.
#[derive(Debug, Default, Deserialize, Serialize)]
pub(super) struct ServiceUpdate {
    pub(super) name: String,
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub(super) templates: Vec<TemplateUpdate>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(super) slow: Option<SlowUpdate>,
}

/// State that is sent less often than persistence.
#[derive(Clone, Debug, Deserialize, PartialEq, Serialize)]
pub(super) struct SlowUpdate {
    pub(super) learned: Option<SavedHealth>,
    pub(super) totals: ServiceTotals,
    pub(super) changes: ServiceOverrides,
}

/// A persistence template: the client's network, the server, and the remaining milliseconds.
#[derive(Debug, Deserialize, Serialize)]
pub(super) struct TemplateUpdate(IpAddr, String, u64);

impl From<SavedTemplate> for TemplateUpdate {
    fn from(saved: SavedTemplate) -> Self {
        Self(saved.network, saved.backend.to_string(), saturating_millis(saved.remaining))
    }
}

impl From<TemplateUpdate> for SavedTemplate {
    fn from(TemplateUpdate(network, backend, left): TemplateUpdate) -> Self {
        Self { network, backend: BackendId::from(backend), remaining: Duration::from_millis(left) }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_template_survives_serialization() {
        let saved = SavedTemplate {
            network: [192, 0, 2, 0].into(),
            backend: "10.0.0.1:80".into(),
            remaining: Duration::from_secs(300),
        };
        let word = serde_json::to_string(&TemplateUpdate::from(saved.clone())).expect("sound");
        assert_eq!(word, r#"["192.0.2.0","10.0.0.1:80",300000]"#);
        let read: TemplateUpdate = serde_json::from_str(&word).expect("sound");
        assert_eq!(SavedTemplate::from(read), saved);
    }
}
