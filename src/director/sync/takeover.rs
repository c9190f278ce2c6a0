//! A takeover: what the director that was active had found out is put to use.

use std::sync::Arc;

use super::state::StateSync;
use crate::director::registry::ServiceRegistry;
use crate::director::role::RoleWatch;
use crate::director::time::tokio_now;

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
    let mut learned = {
        let mut progress = state.lock_progress();
        progress.status.in_sync = false;
        progress.last_received = None;
        std::mem::take(&mut progress.learned_health)
    };
    let now = tokio_now();
    for service in registry.services().iter() {
        let Some((received, saved)) = learned.remove(&service.name) else { continue };
        let saved = saved.aged_by(now.saturating_duration_since(received));
        if let Err(error) = service.restore_health(&saved) {
            tracing::warn!(
                "sync: service {}: cannot adopt the other director's health results: {error}",
                service.name
            );
        }
    }
}
