//! The connections of a service and its persistent clients.

use std::net::{IpAddr, SocketAddr};

use axum::extract::{Path, Query, State};
use axum::routing::get;
use axum::{Json, Router};
use serde::Serialize;

use super::api::{AdminContext, LimitQuery};
use crate::director::error::DirectorError;
use crate::director::time::{saturating_millis, tokio_now};
use crate::engine::{EngineEntry, EngineEntryKind};

pub(super) fn routes() -> Router<AdminContext> {
    Router::new()
        .route("/api/v1/services/{service}/clients", get(clients))
        .route("/api/v1/services/{service}/connections", get(connections))
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
struct PersistentClient {
    network: IpAddr,
    server: String,
    left_ms: u64,
}

async fn clients(
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
struct ActiveConnection {
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

async fn connections(
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
