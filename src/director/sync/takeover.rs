//! A takeover: what the director that was active had found out is put to use.

use std::sync::Arc;

use super::state::StateSync;
use crate::director::registry::ServiceRegistry;
use crate::director::role::RoleWatch;

/// Adopts the other director's health results whenever this director becomes active. It returns when
/// the director ends.
pub(super) async fn run_takeover(
    state: Arc<StateSync>,
    registry: ServiceRegistry,
    mut role: RoleWatch,
) {
    let (_, mut handled) = role.role_and_takeovers();
    while role.changed().await {
        let (_, takeovers) = role.role_and_takeovers();
        if takeovers != handled {
            handled = takeovers;
            adopt_learned_health(&state, &registry);
        }
    }
}

fn adopt_learned_health(state: &StateSync, registry: &ServiceRegistry) {
    let learned = {
        let mut progress = state.lock_progress();
        progress.status.in_sync = false;
        progress.last_received = None;
        std::mem::take(&mut progress.learned_health)
    };
    for service in registry.services().iter() {
        let restored = learned.get(&service.name).map(|saved| service.restore_health(saved));
        if let Some(Err(error)) = restored {
            tracing::warn!(
                "sync: service {}: cannot adopt the other director's health results: {error}",
                service.name
            );
        }
    }
}
