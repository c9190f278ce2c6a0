//! `/api/v1`, `/metrics` and `/healthz`.

use std::net::{IpAddr, SocketAddr};

use axum::body::Bytes;
use axum::extract::{Path, Query, State};
use axum::http::{StatusCode, header};
use axum::response::{IntoResponse, Response};
use axum::routing::{get, patch, post};
use axum::{Json, Router};
use serde::de::DeserializeOwned;
use serde::{Deserialize, Serialize};
use serde_json::{Map, Value};

use super::response::{RequestBodyError, error_response};
use crate::director::counters::CountedSince;
use crate::director::error::DirectorError;
use crate::director::history::HistoryReader;
use crate::director::metrics;
use crate::director::overrides::ServerEdit;
use crate::director::registry::ServiceRegistry;
use crate::director::status::{DirectorStatus, StatusReader};
use crate::director::time::{saturating_millis, tokio_now};

/// What requests read and edit.
#[derive(Clone, Debug)]
pub(in crate::director) struct AdminContext {
    pub(in crate::director) registry: ServiceRegistry,
    pub(in crate::director) status: StatusReader,
    pub(in crate::director) history: HistoryReader,
}

impl AdminContext {
    fn read_status(&self) -> DirectorStatus {
        self.status.read(CountedSince::LastZeroed)
    }

    fn edit_servers(&self, service: &str, edits: &[ServerEdit]) -> Result<(), DirectorError> {
        self.status.refuse_on_standby()?;
        self.registry.edit_servers(service, edits)
    }
}

pub(super) fn routes() -> Router<AdminContext> {
    Router::new()
        .route("/healthz", get(healthz))
        .route("/metrics", get(render_metrics))
        .route("/api/v1/openapi.json", get(serve_openapi))
        .route("/api/v1/status", get(status))
        .route("/api/v1/history", get(history))
        .route("/api/v1/zero", post(zero_all_services))
        .route("/api/v1/services/{service}", get(service))
        .route("/api/v1/services/{service}/zero", post(zero_service))
        .route("/api/v1/services/{service}/clients", get(clients))
        .route("/api/v1/services/{service}/connections", get(connections))
        .route("/api/v1/services/{service}/servers", post(add_servers).patch(change_servers))
        .route(
            "/api/v1/services/{service}/servers/{server}",
            patch(change_server).delete(remove_server),
        )
        .fallback(async || error_response(StatusCode::NOT_FOUND, "there is no such page"))
}

/// Reads a JSON object. `serde` would accept a list of the same values without their names.
fn parse_object<T: DeserializeOwned>(value: Value) -> Result<T, RequestBodyError> {
    if !value.is_object() {
        return Err(RequestBodyError("the request body must be a JSON object".to_owned()));
    }
    Ok(serde_json::from_value(value)?)
}

/// Returns a response without a body, or the error.
fn empty_response(result: Result<(), DirectorError>) -> Response {
    match result {
        Ok(()) => StatusCode::NO_CONTENT.into_response(),
        Err(error) => error.into_response(),
    }
}

/// Answers 200 with the role: a standby is healthy too.
async fn healthz(State(context): State<AdminContext>) -> &'static str {
    if context.status.is_active() { "active\n" } else { "standby\n" }
}

async fn render_metrics(State(context): State<AdminContext>) -> Response {
    let content_type = "text/plain; version=0.0.4";
    ([(header::CONTENT_TYPE, content_type)], metrics::render(&context.status)).into_response()
}

async fn serve_openapi() -> Response {
    let text = include_str!("openapi.json");
    ([(header::CONTENT_TYPE, "application/json")], text).into_response()
}

async fn status(State(context): State<AdminContext>) -> Response {
    Json(context.read_status()).into_response()
}

async fn history(State(context): State<AdminContext>) -> Response {
    Json(context.history.snapshot()).into_response()
}

async fn service(State(context): State<AdminContext>, Path(name): Path<String>) -> Response {
    let mut services = context.read_status().services.into_iter();
    match services.find(|service| service.name == name) {
        Some(status) => Json(status).into_response(),
        None => DirectorError::NoService(name).into_response(),
    }
}

async fn zero_all_services(State(context): State<AdminContext>) -> Response {
    context.registry.services().iter().for_each(|service| service.zero_counters());
    StatusCode::NO_CONTENT.into_response()
}

async fn zero_service(State(context): State<AdminContext>, Path(name): Path<String>) -> Response {
    empty_response(context.registry.find_service(&name).map(|service| service.zero_counters()))
}

/// An entry of a persistence table.
#[derive(Debug, Serialize)]
struct PersistentClient {
    network: IpAddr,
    server: String,
    left_ms: u64,
}

#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
struct LimitQuery {
    #[serde(default = "default_limit")]
    limit: usize,
}

const fn default_limit() -> usize {
    1000
}

async fn clients(
    State(context): State<AdminContext>,
    Path(service): Path<String>,
    Query(query): Query<LimitQuery>,
) -> Result<Json<Vec<PersistentClient>>, DirectorError> {
    let persistence = context.registry.find_service(&service)?.persistence();
    let entries = persistence.map(|table| table.export(tokio_now(), None)).unwrap_or_default();
    let clients = entries.into_iter().take(query.limit).map(|entry| PersistentClient {
        network: entry.network,
        server: entry.backend.to_string(),
        left_ms: saturating_millis(entry.remaining),
    });
    Ok(Json(clients.collect()))
}

/// A connection or flow of this moment.
#[derive(Debug, Serialize)]
struct ActiveConnection {
    client: Option<SocketAddr>,
    local: Option<SocketAddr>,
    /// `null` for the sorry server.
    server: Option<String>,
    age_ms: u64,
}

async fn connections(
    State(context): State<AdminContext>,
    Path(service): Path<String>,
    Query(query): Query<LimitQuery>,
) -> Result<Json<Vec<ActiveConnection>>, DirectorError> {
    let connections = context.registry.find_service(&service)?.connections(query.limit);
    let connections = connections.into_iter().map(|connection| ActiveConnection {
        client: connection.client,
        local: connection.local,
        server: connection.backend.map(|backend| backend.to_string()),
        age_ms: saturating_millis(connection.age),
    });
    Ok(Json(connections.collect()))
}

/// Adds one server, or a list of servers.
async fn add_servers(
    State(context): State<AdminContext>,
    Path(service): Path<String>,
    body: Bytes,
) -> Result<Response, RequestBodyError> {
    let servers = match serde_json::from_slice(&body)? {
        Value::Array(servers) => servers,
        server => vec![server],
    };
    let edits = servers.into_iter().map(|server| parse_object(server).map(ServerEdit::Add));
    let edits = edits.collect::<Result<Vec<_>, _>>()?;
    Ok(match context.edit_servers(&service, &edits) {
        Ok(()) => StatusCode::CREATED.into_response(),
        Err(error) => error.into_response(),
    })
}

async fn change_servers(
    State(context): State<AdminContext>,
    Path(service): Path<String>,
    body: Bytes,
) -> Result<Response, RequestBodyError> {
    let changes: Map<String, Value> = parse_object(serde_json::from_slice(&body)?)?;
    let edit =
        |(server, change)| parse_object(change).map(|change| ServerEdit::Change(server, change));
    let edits = changes.into_iter().map(edit).collect::<Result<Vec<_>, _>>()?;
    Ok(empty_response(context.edit_servers(&service, &edits)))
}

async fn change_server(
    State(context): State<AdminContext>,
    Path((service, server)): Path<(String, String)>,
    body: Bytes,
) -> Result<Response, RequestBodyError> {
    let change = parse_object(serde_json::from_slice(&body)?)?;
    Ok(empty_response(context.edit_servers(&service, &[ServerEdit::Change(server, change)])))
}

async fn remove_server(
    State(context): State<AdminContext>,
    Path((service, server)): Path<(String, String)>,
) -> Response {
    empty_response(context.edit_servers(&service, &[ServerEdit::Remove(server)]))
}
