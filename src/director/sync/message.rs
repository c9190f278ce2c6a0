//! What an active director tells its standby.

use std::net::IpAddr;
use std::time::Duration;

use serde::{Deserialize, Serialize};

use crate::BackendId;
use crate::balancer::SavedTemplate;
use crate::director::counters::ServiceTotals;
use crate::director::overrides::ServiceOverrides;
use crate::director::time::saturating_millis;
use crate::health::SavedHealth;

/// What is told at a time.
#[derive(Debug, Default, Deserialize, Serialize)]
pub(super) struct SyncMessage {
    /// The one that tells is active: what it knows counts.
    pub(super) is_active: bool,
    /// This is all there is, and not what has changed.
    pub(super) is_full: bool,
    pub(super) services: Vec<ServiceUpdate>,
}

/// What is told of a service; what is left out has not changed.
#[derive(Debug, Default, Deserialize, Serialize)]
pub(super) struct ServiceUpdate {
    pub(super) name: String,
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub(super) templates: Vec<TemplateUpdate>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(super) slow: Option<SlowUpdate>,
}

/// What need not be told as often.
#[derive(Clone, Debug, Deserialize, PartialEq, Serialize)]
pub(super) struct SlowUpdate {
    pub(super) learned: Option<SavedHealth>,
    pub(super) totals: ServiceTotals,
    pub(super) changes: ServiceOverrides,
}

/// A client's network, its server, and for how many milliseconds.
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
    fn what_is_told_of_a_client_arrives() {
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
