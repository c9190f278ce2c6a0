//! `/api/v1`, `/metrics` and `/healthz`.

use std::time::UNIX_EPOCH;

use axum::extract::{Path, Query, State};
use axum::http::{StatusCode, header};
use axum::response::{IntoResponse, Response};
use axum::routing::{get, post};
use axum::{Json, Router};
use serde::{Deserialize, Serialize};

use super::engine_reader::EngineReader;
use super::response::error_response;
use crate::director::error::DirectorError;
use crate::director::history::{HistoryReader, ServiceSeries};
use crate::director::metrics;
use crate::director::overview::DirectorOverview;
use crate::director::registry::ServiceRegistry;
use crate::director::status::{DirectorStatus, StatusReader};
use crate::director::time::saturating_millis;

/// What requests read and edit.
#[derive(Clone, Debug)]
pub(in crate::director) struct AdminContext {
    pub(in crate::director) registry: ServiceRegistry,
    pub(in crate::director) status: StatusReader,
    pub(in crate::director) history: HistoryReader,
    pub(super) engine_reader: EngineReader,
}

impl AdminContext {
    pub(in crate::director) fn new(
        registry: ServiceRegistry,
        status: StatusReader,
        history: HistoryReader,
    ) -> Self {
        Self { registry, status, history, engine_reader: EngineReader::default() }
    }

    fn read_status(&self) -> DirectorStatus {
        self.status.read()
    }
}

pub(super) fn routes() -> Router<AdminContext> {
    Router::new()
        .route("/healthz", get(healthz))
        .route("/metrics", get(render_metrics))
        .route("/api/v1/openapi.json", get(serve_openapi))
        .route("/api/v1/status", get(status))
        .route("/api/v1/overview", get(overview))
        .route("/api/v1/history", get(history))
        .route("/api/v1/events", get(recent_events))
        .route("/api/v1/zero", post(zero_all_services))
        .route("/api/v1/services/{service}", get(service))
        .route("/api/v1/services/{service}/history", get(service_history))
        .route("/api/v1/services/{service}/zero", post(zero_service))
        .fallback(async || error_response(StatusCode::NOT_FOUND, "there is no such page"))
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

/// An event of the director.
#[derive(Debug, Serialize)]
struct RecentEvent {
    /// Since the Unix epoch.
    at_ms: u64,
    source: &'static str,
    alert: bool,
    text: String,
}

/// Returns the last events, the newest first.
async fn recent_events(
    State(context): State<AdminContext>,
    Query(query): Query<LimitQuery>,
) -> Response {
    let events = context.registry.events().recent().into_iter().rev().take(query.limit);
    let events = events.map(|event| RecentEvent {
        at_ms: saturating_millis(event.at().duration_since(UNIX_EPOCH).unwrap_or_default()),
        source: event.source(),
        alert: event.is_alert(),
        text: event.to_string(),
    });
    Json(events.collect::<Vec<_>>()).into_response()
}

async fn service(State(context): State<AdminContext>, Path(name): Path<String>) -> Response {
    context.status.read_service(&name).map(Json).into_response()
}

#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
struct SearchQuery {
    #[serde(default)]
    search: String,
}

async fn overview(
    State(context): State<AdminContext>,
    Query(query): Query<SearchQuery>,
) -> Json<DirectorOverview> {
    let services = context.registry.services();
    let director = context.status.read_director();
    Json(DirectorOverview::new(director, &services, &context.history, &query.search))
}

async fn service_history(
    State(context): State<AdminContext>,
    Path(name): Path<String>,
) -> Result<Json<ServiceSeries>, DirectorError> {
    let service = context.registry.find_service(&name)?;
    Ok(Json(context.history.read_series(&service.name, ServiceSeries::clone)))
}

async fn zero_all_services(State(context): State<AdminContext>) -> Response {
    context.registry.services().iter().for_each(|service| service.zero_counters());
    StatusCode::NO_CONTENT.into_response()
}

async fn zero_service(State(context): State<AdminContext>, Path(name): Path<String>) -> Response {
    empty_response(context.registry.find_service(&name).map(|service| service.zero_counters()))
}

#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct LimitQuery {
    #[serde(default = "default_limit")]
    pub(super) limit: usize,
}

const fn default_limit() -> usize {
    1000
}
