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

use crate::director::overrides::ServerEdit;
use crate::director::{Director, DirectorError, metrics};

pub(super) fn routes() -> Router<Director> {
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

/// Why not, as JSON.
pub(super) fn error_response(code: StatusCode, why: &str) -> Response {
    (code, Json(serde_json::json!({ "error": why }))).into_response()
}

impl IntoResponse for DirectorError {
    fn into_response(self) -> Response {
        let code = match self {
            Self::NoService(_) | Self::NoServer { .. } => StatusCode::NOT_FOUND,
            Self::ServerExists { .. } => StatusCode::CONFLICT,
            _ => StatusCode::UNPROCESSABLE_ENTITY,
        };
        error_response(code, &error_chain(&self))
    }
}

fn error_chain(error: &dyn std::error::Error) -> String {
    let causes = std::iter::successors(error.source(), |error| error.source());
    causes.fold(error.to_string(), |text, cause| format!("{text}: {cause}"))
}

/// What is wrong with a body.
#[derive(Debug)]
struct RequestBodyError(String);

impl IntoResponse for RequestBodyError {
    fn into_response(self) -> Response {
        error_response(StatusCode::BAD_REQUEST, &self.0)
    }
}

impl From<serde_json::Error> for RequestBodyError {
    fn from(error: serde_json::Error) -> Self {
        Self(error.to_string())
    }
}

/// An object of JSON as what it means. A list of the same values without their names is none.
fn parse_object<T: DeserializeOwned>(value: Value) -> Result<T, RequestBodyError> {
    if !value.is_object() {
        return Err(RequestBodyError("an object is expected".to_owned()));
    }
    Ok(serde_json::from_value(value)?)
}

/// Nothing to say but that it is done.
fn empty_response(result: Result<(), DirectorError>) -> Response {
    match result {
        Ok(()) => StatusCode::NO_CONTENT.into_response(),
        Err(error) => error.into_response(),
    }
}

/// 200 while it serves or could, with what it is.
async fn healthz(State(director): State<Director>) -> &'static str {
    if director.shared.is_active() { "active\n" } else { "standby\n" }
}

async fn render_metrics(State(director): State<Director>) -> Response {
    let kind = "text/plain; version=0.0.4";
    ([(header::CONTENT_TYPE, kind)], metrics::render(&director)).into_response()
}

async fn serve_openapi() -> Response {
    let text = include_str!("openapi.json");
    ([(header::CONTENT_TYPE, "application/json")], text).into_response()
}

async fn status(State(director): State<Director>) -> Response {
    Json(director.status()).into_response()
}

async fn history(State(director): State<Director>) -> Response {
    Json(director.shared.history()).into_response()
}

async fn service(State(director): State<Director>, Path(service): Path<String>) -> Response {
    let found = director.status().services.into_iter().find(|it| it.name == service);
    match found {
        Some(status) => Json(status).into_response(),
        None => DirectorError::NoService(service).into_response(),
    }
}

async fn zero_all_services(State(director): State<Director>) -> Response {
    director.shared.services().iter().for_each(|service| service.zero_counters());
    StatusCode::NO_CONTENT.into_response()
}

async fn zero_service(State(director): State<Director>, Path(service): Path<String>) -> Response {
    empty_response(director.shared.find_service(&service).map(|service| service.zero_counters()))
}

/// A client whose server is remembered.
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
    State(director): State<Director>,
    Path(service): Path<String>,
    Query(most): Query<LimitQuery>,
) -> Result<Json<Vec<PersistentClient>>, DirectorError> {
    let service = director.shared.find_service(&service)?;
    let persistence = service.lock_state().persistence.clone();
    let now = crate::director::service::tokio_now();
    let all = persistence.map(|it| it.export(now, None)).unwrap_or_default();
    let clients = all.into_iter().take(most.limit).map(|saved| PersistentClient {
        network: saved.network,
        server: saved.backend.to_string(),
        left_ms: crate::director::status::saturating_millis(saved.remaining),
    });
    Ok(Json(clients.collect()))
}

/// A connection or flow that is carried.
#[derive(Debug, Serialize)]
struct ActiveConnection {
    client: Option<SocketAddr>,
    local: Option<SocketAddr>,
    /// `null` is the sorry server.
    server: Option<String>,
    age_ms: u64,
}

async fn connections(
    State(director): State<Director>,
    Path(service): Path<String>,
    Query(most): Query<LimitQuery>,
) -> Result<Json<Vec<ActiveConnection>>, DirectorError> {
    let service = director.shared.find_service(&service)?;
    let carried = service.connections(most.limit).into_iter().map(|connection| ActiveConnection {
        client: connection.client,
        local: connection.local,
        server: connection.backend.map(|backend| backend.to_string()),
        age_ms: crate::director::status::saturating_millis(connection.age),
    });
    Ok(Json(carried.collect()))
}

/// Adds one server, or a list of them.
async fn add_servers(
    State(director): State<Director>,
    Path(service): Path<String>,
    body: Bytes,
) -> Result<Response, RequestBodyError> {
    let servers = match serde_json::from_slice(&body)? {
        Value::Array(servers) => servers,
        server => vec![server],
    };
    let edits = servers.into_iter().map(|server| parse_object(server).map(ServerEdit::Add));
    let edits = edits.collect::<Result<Vec<_>, _>>()?;
    Ok(match director.edit_servers(&service, &edits) {
        Ok(()) => StatusCode::CREATED.into_response(),
        Err(error) => error.into_response(),
    })
}

async fn change_servers(
    State(director): State<Director>,
    Path(service): Path<String>,
    body: Bytes,
) -> Result<Response, RequestBodyError> {
    let changes: Map<String, Value> = parse_object(serde_json::from_slice(&body)?)?;
    let edit =
        |(server, change)| parse_object(change).map(|change| ServerEdit::Change(server, change));
    let edits = changes.into_iter().map(edit).collect::<Result<Vec<_>, _>>()?;
    Ok(empty_response(director.edit_servers(&service, &edits)))
}

async fn change_server(
    State(director): State<Director>,
    Path((service, server)): Path<(String, String)>,
    body: Bytes,
) -> Result<Response, RequestBodyError> {
    Ok(empty_response(director.change_server(
        &service,
        &server,
        parse_object(serde_json::from_slice(&body)?)?,
    )))
}

async fn remove_server(
    State(director): State<Director>,
    Path((service, server)): Path<(String, String)>,
) -> Response {
    empty_response(director.remove_server(&service, &server))
}
