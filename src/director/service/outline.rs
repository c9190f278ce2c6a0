//! What two directors of a pair must have in common in a service.

use serde::{Deserialize, Serialize};

use super::state::VirtualService;
use crate::balancer::Fingerprint;

/// A service as a director's configuration describes it, as far as the other director needs the same.
#[derive(Clone, Debug, Deserialize, Eq, PartialEq, Serialize)]
pub(in crate::director) struct ServiceOutline {
    name: String,
    protocol: String,
    scheduler: String,
    /// The addresses of the configured servers, in their order.
    servers: Vec<String>,
    /// What decides at this moment; absent from directors of earlier versions.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    fingerprint: Option<Fingerprint>,
}

impl VirtualService {
    /// Returns the outline of the service.
    pub(in crate::director) fn outline(&self) -> ServiceOutline {
        let state = self.lock_state();
        let servers = state.config.servers.iter();
        ServiceOutline {
            name: self.name.clone(),
            protocol: format!("{:?}", self.protocol).to_lowercase(),
            scheduler: state.config.scheduler.to_string(),
            servers: servers.map(|server| server.address.to_string()).collect(),
            fingerprint: Some(self.balancer.fingerprint()),
        }
    }
}

/// Returns the fingerprints of both directors of each service that both have.
pub(in crate::director) fn fingerprint_pairs(
    ours: &[ServiceOutline],
    theirs: &[ServiceOutline],
) -> Vec<(String, Fingerprint, Fingerprint)> {
    let pairs = ours.iter().filter_map(|own| {
        let other = theirs.iter().find(|other| other.name == own.name)?;
        Some((own.name.clone(), own.fingerprint?, other.fingerprint?))
    });
    pairs.collect()
}

/// Returns how the services of this director differ from those of the other one, a line each.
pub(in crate::director) fn differences(
    ours: &[ServiceOutline],
    theirs: &[ServiceOutline],
) -> Vec<String> {
    let find = |services: &[ServiceOutline], wanted: &ServiceOutline| {
        services.iter().find(|service| service.name == wanted.name).cloned()
    };
    let mut lines = Vec::new();
    for service in theirs {
        let name = &service.name;
        let Some(own) = find(ours, service) else {
            lines.push(format!("service {name} is missing here"));
            continue;
        };
        let servers = (own.servers.join(", "), service.servers.join(", "));
        for (aspect, own, other) in [
            ("protocol", &own.protocol, &service.protocol),
            ("scheduler", &own.scheduler, &service.scheduler),
            ("servers", &servers.0, &servers.1),
        ] {
            if own != other {
                lines.push(format!("service {name}: {aspect} {own:?} here, {other:?} there"));
            }
        }
    }
    for service in ours.iter().filter(|service| find(theirs, service).is_none()) {
        lines.push(format!("service {} is missing there", service.name));
    }
    lines
}

#[cfg(test)]
mod tests {
    use super::*;

    fn outline(name: &str, scheduler: &str, servers: &[&str]) -> ServiceOutline {
        ServiceOutline {
            name: name.to_owned(),
            protocol: "tcp".to_owned(),
            scheduler: scheduler.to_owned(),
            servers: servers.iter().map(ToString::to_string).collect(),
            fingerprint: None,
        }
    }

    #[test]
    fn differences_name_service_aspect_and_both_values() {
        let ours =
            [outline("a", "rr", &["s"]), outline("b", "rr", &["s"]), outline("c", "rr", &[])];
        let theirs =
            [outline("a", "rr", &["s"]), outline("b", "lc", &["s", "t"]), outline("d", "rr", &[])];
        let lines = differences(&ours, &theirs);
        assert_eq!(
            lines,
            [
                "service b: scheduler \"rr\" here, \"lc\" there",
                "service b: servers \"s\" here, \"s, t\" there",
                "service d is missing here",
                "service c is missing there",
            ]
        );
        assert_eq!(differences(&ours, &ours), [""; 0]);
    }
}
