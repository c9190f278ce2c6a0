//! What a configuration needs of the limit of open files.

use tracing::warn;

use super::admin::DEFAULT_MAX_ADMIN_CONNECTIONS;
use super::config::DirectorConfig;
use crate::forward::{descriptor_usage, set_descriptor_reserve};
use crate::health::DEFAULT_MAX_IN_FLIGHT;

/// For the log, the peer, name servers, reloads, and a little more.
const RESERVE_BESIDE_CHECKS: usize = 64;

/// Keeps descriptors for checks and operators, and says so if the limit of open files does not allow what
/// the configuration names.
pub(super) fn reserve_descriptors(config: &DirectorConfig) {
    let servers: usize = config.services.iter().map(|service| service.servers.len()).sum();
    let admin = config
        .admin
        .as_ref()
        .map_or(0, |admin| admin.max_connections.unwrap_or(DEFAULT_MAX_ADMIN_CONNECTIONS));
    set_descriptor_reserve(
        RESERVE_BESIDE_CHECKS
            .saturating_add(admin)
            .saturating_add(servers.min(DEFAULT_MAX_IN_FLIGHT.get())),
    );
    let wanted = config.services.iter().fold(0, |sum: usize, service| {
        let wanted = service.tcp.wanted_descriptors() + service.udp.wanted_descriptors();
        sum.saturating_add(wanted)
    });
    let usage = descriptor_usage();
    if wanted > usage.allowed {
        warn!(
            "the limit of open files (ulimit -n) is {}, which leaves {} descriptors for connections and \
             flows; `max_connections` and `max_flows` of the services need {wanted}: beyond the limit \
             clients wait",
            usage.limit, usage.allowed
        );
    }
}
