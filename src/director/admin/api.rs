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

use crate::director::wanted::Edit;
use crate::director::{Director, DirectorError, metrics};

pub(super) fn routes() -> Router<Director> {
    Router::new()
        .route("/healthz", get(healthz))
        .route("/metrics", get(render))
        .route("/api/v1/openapi.json", get(describe))
        .route("/api/v1/status", get(status))
        .route("/api/v1/history", get(history))
        .route("/api/v1/zero", post(zero_all))
        .route("/api/v1/services/{service}", get(service))
        .route("/api/v1/services/{service}/zero", post(zero))
        .route("/api/v1/services/{service}/clients", get(clients))
        .route("/api/v1/services/{service}/connections", get(connections))
        .route("/api/v1/services/{service}/servers", post(add).patch(change_all))
        .route("/api/v1/services/{service}/servers/{server}", patch(change).delete(remove))
        .fallback(async || refuse(StatusCode::NOT_FOUND, "there is no such page"))
}

/// Why not, as JSON.
pub(super) fn refuse(code: StatusCode, why: &str) -> Response {
    (code, Json(serde_json::json!({ "error": why }))).into_response()
}

impl IntoResponse for DirectorError {
    fn into_response(self) -> Response {
        let code = match self {
            Self::NoService(_) | Self::NoServer { .. } => StatusCode::NOT_FOUND,
            Self::ServerExists { .. } => StatusCode::CONFLICT,
            _ => StatusCode::UNPROCESSABLE_ENTITY,
        };
        refuse(code, &with_causes(&self))
    }
}

fn with_causes(error: &dyn std::error::Error) -> String {
    let causes = std::iter::successors(error.source(), |error| error.source());
    causes.fold(error.to_string(), |text, cause| format!("{text}: {cause}"))
}

/// What is wrong with a body.
#[derive(Debug)]
struct Unread(String);

impl IntoResponse for Unread {
    fn into_response(self) -> Response {
        refuse(StatusCode::BAD_REQUEST, &self.0)
    }
}

impl From<serde_json::Error> for Unread {
    fn from(error: serde_json::Error) -> Self {
        Self(error.to_string())
    }
}

/// An object of JSON as what it means. A list of the same values without their names is none.
fn object<T: DeserializeOwned>(value: Value) -> Result<T, Unread> {
    if !value.is_object() {
        return Err(Unread("an object is expected".to_owned()));
    }
    Ok(serde_json::from_value(value)?)
}

/// Nothing to say but that it is done.
fn done(result: Result<(), DirectorError>) -> Response {
    match result {
        Ok(()) => StatusCode::NO_CONTENT.into_response(),
        Err(error) => error.into_response(),
    }
}

/// 200 while it serves or could, with what it is.
async fn healthz(State(director): State<Director>) -> &'static str {
    if director.inner.is_active() { "active\n" } else { "standby\n" }
}

async fn render(State(director): State<Director>) -> Response {
    let kind = "text/plain; version=0.0.4";
    ([(header::CONTENT_TYPE, kind)], metrics::render(&director)).into_response()
}

async fn describe() -> Response {
    let text = include_str!("openapi.json");
    ([(header::CONTENT_TYPE, "application/json")], text).into_response()
}

async fn status(State(director): State<Director>) -> Response {
    Json(director.status()).into_response()
}

async fn history(State(director): State<Director>) -> Response {
    Json(director.inner.history()).into_response()
}

async fn service(State(director): State<Director>, Path(service): Path<String>) -> Response {
    let found = director.status().services.into_iter().find(|it| it.name == service);
    match found {
        Some(status) => Json(status).into_response(),
        None => DirectorError::NoService(service).into_response(),
    }
}

async fn zero_all(State(director): State<Director>) -> Response {
    director.inner.services().iter().for_each(|service| service.zero());
    StatusCode::NO_CONTENT.into_response()
}

async fn zero(State(director): State<Director>, Path(service): Path<String>) -> Response {
    done(director.inner.service(&service).map(|service| service.zero()))
}

/// A client whose server is remembered.
#[derive(Debug, Serialize)]
struct Client {
    network: IpAddr,
    server: String,
    left_ms: u64,
}

#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
struct Most {
    #[serde(default = "thousand")]
    limit: usize,
}

const fn thousand() -> usize {
    1000
}

async fn clients(
    State(director): State<Director>,
    Path(service): Path<String>,
    Query(most): Query<Most>,
) -> Result<Json<Vec<Client>>, DirectorError> {
    let service = director.inner.service(&service)?;
    let persistence = service.parts().persistence.clone();
    let now = crate::director::service::now();
    let all = persistence.map(|it| it.export(now, None)).unwrap_or_default();
    let clients = all.into_iter().take(most.limit).map(|saved| Client {
        network: saved.network,
        server: saved.backend.to_string(),
        left_ms: crate::director::status::millis(saved.left),
    });
    Ok(Json(clients.collect()))
}

/// A connection or flow that is carried.
#[derive(Debug, Serialize)]
struct Carried {
    client: Option<SocketAddr>,
    local: Option<SocketAddr>,
    /// `null` is the sorry server.
    server: Option<String>,
    age_ms: u64,
}

async fn connections(
    State(director): State<Director>,
    Path(service): Path<String>,
    Query(most): Query<Most>,
) -> Result<Json<Vec<Carried>>, DirectorError> {
    let service = director.inner.service(&service)?;
    let carried = service.connections(most.limit).into_iter().map(|connection| Carried {
        client: connection.client,
        local: connection.local,
        server: connection.backend.map(|backend| backend.to_string()),
        age_ms: crate::director::status::millis(connection.age),
    });
    Ok(Json(carried.collect()))
}

/// Adds one server, or a list of them.
async fn add(
    State(director): State<Director>,
    Path(service): Path<String>,
    body: Bytes,
) -> Result<Response, Unread> {
    let servers = match serde_json::from_slice(&body)? {
        Value::Array(servers) => servers,
        server => vec![server],
    };
    let edits = servers.into_iter().map(|server| object(server).map(Edit::Add));
    let edits = edits.collect::<Result<Vec<_>, _>>()?;
    Ok(match director.edit(&service, &edits) {
        Ok(()) => StatusCode::CREATED.into_response(),
        Err(error) => error.into_response(),
    })
}

async fn change_all(
    State(director): State<Director>,
    Path(service): Path<String>,
    body: Bytes,
) -> Result<Response, Unread> {
    let changes: Map<String, Value> = object(serde_json::from_slice(&body)?)?;
    let edit = |(server, change)| object(change).map(|change| Edit::Change(server, change));
    let edits = changes.into_iter().map(edit).collect::<Result<Vec<_>, _>>()?;
    Ok(done(director.edit(&service, &edits)))
}

async fn change(
    State(director): State<Director>,
    Path((service, server)): Path<(String, String)>,
    body: Bytes,
) -> Result<Response, Unread> {
    Ok(done(director.change(&service, &server, object(serde_json::from_slice(&body)?)?)))
}

async fn remove(
    State(director): State<Director>,
    Path((service, server)): Path<(String, String)>,
) -> Response {
    done(director.remove(&service, &server))
}
