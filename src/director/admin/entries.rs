//! The connections of a service and its persistent clients.

use std::net::{IpAddr, SocketAddr};
use std::sync::Arc;

use axum::Json;
use axum::extract::{Path, Query, State};
use serde::Serialize;
use tokio::sync::Mutex;
use tokio::task::spawn_blocking;

use super::api::{AdminContext, LimitQuery};
use crate::director::error::{DirectorError, ServiceError};
use crate::director::service::VirtualService;
use crate::director::time::{saturating_millis, tokio_now};
use crate::engine::{EngineEntry, EngineEntryKind};

/// Reads the tables of the kernel's engines, for one request at a time: that takes long when the tables
/// do, and goes on when a client no longer waits.
#[derive(Clone, Debug, Default)]
pub(super) struct EngineReader(Arc<Mutex<()>>);

impl EngineReader {
    /// Returns entries of a service, `limit` at most; none of a service of the proxy.
    async fn read(
        &self,
        service: &VirtualService,
        kind: EngineEntryKind,
        limit: usize,
    ) -> Result<Vec<EngineEntry>, DirectorError> {
        let services = service.engine_services();
        if services.is_empty() {
            return Ok(Vec::new());
        }
        let guard = Arc::clone(&self.0).lock_owned().await;
        let read = move || {
            let _guard = guard;
            services.iter().try_fold(Vec::new(), |mut entries, service| {
                entries.extend(service.entries(kind, limit - entries.len())?);
                Ok(entries)
            })
        };
        // The task is aborted only with its runtime.
        let result = spawn_blocking(read).await.unwrap_or_else(|_| Ok(Vec::new()));
        result.map_err(|error| DirectorError::Service {
            service: service.name.clone(),
            source: ServiceError::Engine(error),
        })
    }
}

/// Returns the name of a server, or the address of one that is not in the set.
fn server_of(entry: &EngineEntry) -> String {
    match &entry.backend {
        Some(backend) => backend.to_string(),
        None => entry.destination.to_string(),
    }
}

/// An entry of a persistence table.
#[derive(Debug, Serialize)]
pub(super) struct PersistentClient {
    network: IpAddr,
    server: String,
    left_ms: u64,
}

pub(super) async fn clients(
    State(context): State<AdminContext>,
    Path(service): Path<String>,
    Query(query): Query<LimitQuery>,
) -> Result<Json<Vec<PersistentClient>>, DirectorError> {
    let service = context.registry.find_service(&service)?;
    let table = service.persistence();
    let entries = table.map(|table| table.export(tokio_now(), None)).unwrap_or_default();
    let clients = entries.into_iter().take(query.limit).map(|entry| PersistentClient {
        network: entry.network,
        server: entry.backend.to_string(),
        left_ms: saturating_millis(entry.remaining),
    });
    let mut clients: Vec<_> = clients.collect();
    let left = query.limit - clients.len();
    let of_kernel =
        context.engine_reader.read(&service, EngineEntryKind::PersistentClient, left).await?;
    clients.extend(of_kernel.into_iter().map(|entry| PersistentClient {
        network: entry.client.ip(),
        server: server_of(&entry),
        left_ms: saturating_millis(entry.expires_in),
    }));
    Ok(Json(clients))
}

/// A connection or flow of this moment.
#[derive(Debug, Serialize)]
pub(super) struct ActiveConnection {
    client: Option<SocketAddr>,
    local: Option<SocketAddr>,
    /// `null` for the sorry server of the proxy.
    server: Option<String>,
    /// `null` where the kernel has the connection: it does not know.
    age_ms: Option<u64>,
    #[serde(flatten)]
    kernel: Option<KernelConnection>,
}

/// What the kernel says of a connection that it has.
#[derive(Debug, Serialize)]
struct KernelConnection {
    state: String,
    expires_ms: u64,
    origin: &'static str,
}

pub(super) async fn connections(
    State(context): State<AdminContext>,
    Path(service): Path<String>,
    Query(query): Query<LimitQuery>,
) -> Result<Json<Vec<ActiveConnection>>, DirectorError> {
    let service = context.registry.find_service(&service)?;
    let connections = service.connections(query.limit);
    let connections = connections.into_iter().map(|connection| ActiveConnection {
        client: connection.client,
        local: connection.local,
        server: connection.backend.map(|backend| backend.to_string()),
        age_ms: Some(saturating_millis(connection.age)),
        kernel: None,
    });
    let mut connections: Vec<_> = connections.collect();
    let left = query.limit - connections.len();
    let of_kernel = context.engine_reader.read(&service, EngineEntryKind::Connection, left).await?;
    connections.extend(of_kernel.into_iter().map(|entry| ActiveConnection {
        client: Some(entry.client),
        local: Some(entry.local),
        server: Some(server_of(&entry)),
        age_ms: None,
        kernel: Some(KernelConnection {
            state: entry.state,
            expires_ms: saturating_millis(entry.expires_in),
            origin: entry.origin.name(),
        }),
    }));
    Ok(Json(connections))
}
