//! The standby's side: it follows the active director.

use std::io;
use std::sync::Arc;
use std::time::{Duration, SystemTime};

use tokio::net::TcpStream;
use tokio::time::{sleep, timeout};

use super::channel::{MessageKind, NoiseChannel, NoiseRole};
use super::message::{ServiceUpdate, SyncMessage};
use super::state::{LAST_FLOWS_TIME, SILENCE_TIMEOUT, SYNC_INTERVAL, StateSync, SyncProgress};
use super::table_difference::{TableDifferences, TableReport};
use crate::balancer::SavedTemplate;
use crate::director::engines::EngineSet;
use crate::director::events::{ChangeOrigin, DirectorEvent, TableEvent};
use crate::director::registry::ServiceRegistry;
use crate::director::role::{DirectorRole, RoleWatch};
use crate::director::service::{VirtualService, differences, fingerprint_pairs};
use crate::director::time::tokio_now;
use crate::packet::{FlowBatch, RestoredFlows};

/// How long the first message may take, which holds the whole state.
const FULL_UPDATE_TIMEOUT: Duration = Duration::from_secs(30);

/// The number of differences between the configurations that are reported.
const MAX_DIFFERENCES: usize = 32;

/// Follows the active director whenever this one is standby. It never returns.
pub(super) async fn run_standby(
    state: Arc<StateSync>,
    (registry, engines): (ServiceRegistry, EngineSet),
    role: RoleWatch,
) {
    loop {
        if !role.is_active() {
            let result = subscribe(&state, (&registry, &engines), &role).await;
            let error = result.err().map(|error| error.to_string());
            let mut progress = state.lock_progress();
            progress.status.in_sync = false;
            // Nothing is known of the other director's tables any more.
            progress.tables = TableDifferences::default();
            progress.status.different_tables = Vec::new();
            if let Some(error) =
                error.as_ref().filter(|error| Some(*error) != progress.logged_error.as_ref())
            {
                let peer = state.config.peer;
                tracing::warn!("sync: cannot follow the director at {peer}: {error}");
                progress.logged_error = Some(error.clone());
            }
            progress.status.error = error;
        }
        sleep(SYNC_INTERVAL).await;
    }
}

/// Applies the other director's messages until this director becomes active, or the connection fails.
async fn subscribe(
    state: &StateSync,
    (registry, engines): (&ServiceRegistry, &EngineSet),
    role: &RoleWatch,
) -> io::Result<()> {
    let stream = timeout(SILENCE_TIMEOUT, TcpStream::connect(state.config.peer)).await??;
    let mut channel = NoiseChannel::open(stream, state.config.key(), NoiseRole::Initiator).await?;
    let (_, takeovers) = role.role_and_takeovers();
    let mut receive_timeout = FULL_UPDATE_TIMEOUT;
    let (mut has_state, mut has_all_flows) = (false, false);
    let mut taken_over_at = None;
    loop {
        let received_before = channel.bytes_received;
        let (kind, message) = timeout(receive_timeout, channel.receive()).await??;
        receive_timeout = SILENCE_TIMEOUT;
        if kind == MessageKind::Flows {
            // The engine keeps none of an address that this machine has: a takeover needs no lock here.
            let batch = FlowBatch::parse(&message).map_err(io::Error::other)?;
            let flows = batch.flows.len() as u64;
            has_all_flows = batch.ends_all || (has_all_flows && !batch.begins_all);
            let result = restore_flows(engines, batch).await;
            let mut progress = state.lock_progress();
            progress.status.received += channel.bytes_received - received_before;
            match result {
                Ok(restored) => {
                    progress.status.flows_restored += restored.applied;
                    progress.status.flows_unknown += restored.unknown;
                }
                Err(error) => {
                    // The state of other services goes on.
                    has_all_flows = false;
                    progress.status.flows_unknown += flows;
                    progress.log_flow_error(error.to_string());
                }
            }
            continue;
        }
        if role.role_and_takeovers() != (DirectorRole::Standby, takeovers) {
            // The other director tells of its last flows.
            let since = *taken_over_at.get_or_insert_with(tokio_now);
            if tokio_now() - since < LAST_FLOWS_TIME {
                continue;
            }
        }
        let message: SyncMessage = serde_json::from_slice(&message)?;
        // A takeover takes this lock too: it adopts the whole message, or nothing of it.
        let mut progress = state.lock_progress();
        // A director that became active knows better, and needs the whole state if it is standby
        // again: hence a new connection.
        if role.role_and_takeovers() != (DirectorRole::Standby, takeovers) {
            return Ok(());
        }
        progress.status.received += channel.bytes_received - received_before;
        progress.status.error = None;
        progress.last_received = Some(tokio_now());
        // Of two standbys neither has anything to send; what was received before is kept.
        let was_in_sync = progress.status.in_sync;
        has_state = message.is_active && (message.is_full || has_state);
        progress.status.in_sync = has_state && (has_all_flows || !message.has_flows);
        if progress.status.in_sync && !was_in_sync {
            progress.logged_error = None;
            tracing::info!("sync: follows the director at {}", state.config.peer);
        }
        if let Some(theirs) = message.outlines.filter(|_| message.is_active) {
            progress.outlines = theirs;
        }
        if message.is_active {
            report_differences(&mut progress, registry);
        }
        if message.is_active {
            for update in message.services {
                if let Ok(service) = registry.find_service(&update.name) {
                    apply_update(&mut progress, registry, &service, update);
                }
            }
        }
    }
}

/// Has the packet engine keep the flows of a batch.
async fn restore_flows(engines: &EngineSet, batch: FlowBatch) -> io::Result<RestoredFlows> {
    let Some(engine) = engines.packet() else {
        let unknown = batch.flows.len() as u64;
        return Ok(RestoredFlows { unknown, ..RestoredFlows::default() });
    };
    let restored = tokio::task::spawn_blocking(move || engine.restore_flows(batch));
    restored.await?.map_err(io::Error::other)
}

/// Logs how the configurations of both directors differ, when that changes, and publishes which tables do.
fn report_differences(progress: &mut SyncProgress, registry: &ServiceRegistry) {
    let ours: Vec<_> = registry.services().iter().map(|service| service.outline()).collect();
    let pairs = fingerprint_pairs(&ours, &progress.outlines);
    for TableReport { service, fingerprints } in progress.tables.update(tokio_now(), pairs) {
        let event = TableEvent { at: SystemTime::now(), service: service.into(), fingerprints };
        registry.events().publish(DirectorEvent::Table(event));
    }
    progress.status.different_tables = progress.tables.reported();
    let mut lines = differences(&ours, &progress.outlines);
    lines.truncate(MAX_DIFFERENCES);
    if lines == progress.status.differences {
        return;
    }
    match lines.is_empty() {
        true => tracing::info!("sync: the configurations of both directors have the same services"),
        false => {
            let lines = lines.join("; ");
            tracing::warn!("sync: the configurations of both directors differ: {lines}");
        }
    }
    progress.status.differences = lines;
}

fn apply_update(
    progress: &mut SyncProgress,
    registry: &ServiceRegistry,
    service: &VirtualService,
    update: ServiceUpdate,
) {
    if let Some(persistence) = service.persistence() {
        persistence.restore(update.templates.into_iter().map(SavedTemplate::from), tokio_now());
    }
    let Some(slow) = update.slow else { return };
    service.adopt_totals(slow.totals);
    match service.merge_overrides(&slow.changes) {
        Ok(edits) => registry.publish_edits(&service.name, &edits, &ChangeOrigin::OtherDirector),
        Err(error) => tracing::warn!(
            "sync: service {}: cannot apply server changes received from the other director: {error}",
            service.name
        ),
    }
    if let Some(learned) = slow.learned {
        progress.learned_health.insert(service.name.clone(), (tokio_now(), learned));
    }
}
