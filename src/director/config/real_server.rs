//! Real servers.

use std::net::SocketAddr;

use serde::{Deserialize, Serialize};

use super::error::{ConfigProblem, KeyPathSegment};
use crate::backend::{Limits, Spec};

/// A real server of a service: `[[service.server]]`.
///
/// # Examples
/// ```
/// use lvs::director::RealServer;
///
/// let server: RealServer =
///     serde_json::from_str(r#"{ "address": "10.88.1.1:80", "weight": 3 }"#)?;
/// assert_eq!((server.address, server.weight), ("10.88.1.1:80".parse()?, 3));
/// # Ok::<(), Box<dyn std::error::Error>>(())
/// ```
#[derive(Clone, Debug, Deserialize, Eq, PartialEq, Serialize)]
#[serde(deny_unknown_fields)]
#[non_exhaustive]
pub struct RealServer {
    /// Where it is, which is its name. Port 0 stands for the port that the client asked for.
    pub address: SocketAddr,
    /// What people call it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub name: Option<String>,
    /// Its share among the others; 0 quiesces it. Default: 1.
    #[serde(default = "default_weight")]
    pub weight: u32,
    /// The most connections at a time. Default: no bound.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub max_connections: Option<u32>,
    /// Once it has had the most, it gets no more until it has fewer than these. Default: until it has
    /// fewer than the most.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub resume_connections: Option<u32>,
    /// Those of tier 0 come first, for the `priority` scheduler. Default: 0.
    #[serde(default, skip_serializing_if = "is_default_tier")]
    pub tier: u8,
}

const fn default_weight() -> u32 {
    1
}

#[expect(clippy::trivially_copy_pass_by_ref, reason = "serde's signature")]
const fn is_default_tier(tier: &u8) -> bool {
    *tier == 0
}

impl RealServer {
    /// A server of weight 1, without a bound.
    #[must_use]
    pub fn new(address: SocketAddr) -> Self {
        let (max_connections, resume_connections) = (None, None);
        Self {
            address,
            name: None,
            weight: default_weight(),
            max_connections,
            resume_connections,
            tier: 0,
        }
    }

    pub(crate) fn limits(&self) -> Limits {
        let limits = Limits::new(self.max_connections.unwrap_or(0));
        self.resume_connections.map_or(limits, |resume| limits.with_resume_below(resume))
    }

    pub(crate) fn backend_spec(&self) -> Spec<SocketAddr> {
        Spec::from(self.address).weight(self.weight).limits(self.limits()).tier(self.tier)
    }

    pub(super) fn validate(&self) -> Result<(), ConfigProblem> {
        let wrong =
            |what: &str| Err(ConfigProblem::new([KeyPathSegment::Key("resume_connections")], what));
        match (self.resume_connections, self.max_connections) {
            (Some(_), None | Some(0)) => wrong("there is no `max_connections`"),
            (Some(resume), Some(max)) if resume > max => wrong("it is above `max_connections`"),
            _ => Ok(()),
        }
    }
}
