//! The admin pages: how the director stands, and changes by hand.

use axum::Router;
use axum::body::Bytes;
use axum::extract::{Path, State};
use axum::http::{StatusCode, header};
use axum::response::{IntoResponse, Response};
use axum::routing::{get, patch};
use tokio::net::TcpListener;

use super::wanted::ServerChange;
use super::{Director, DirectorError, metrics};

/// Serves them, for ever.
pub(super) async fn serve(listener: TcpListener, director: Director) {
    let app = Router::new()
        .route("/healthz", get(healthz))
        .route("/metrics", get(render))
        .route("/api/v1/status", get(status))
        .route("/api/v1/services/{service}/servers/{server}", patch(change))
        .with_state(director);
    if let Err(error) = axum::serve(listener, app).await {
        tracing::error!("admin: {error}");
    }
}

/// 200 while it serves or could, with what it is.
async fn healthz(State(director): State<Director>) -> &'static str {
    if director.inner.is_active() { "active\n" } else { "standby\n" }
}

async fn status(State(director): State<Director>) -> Response {
    match serde_json::to_vec_pretty(&director.status()) {
        Ok(text) => ([(header::CONTENT_TYPE, "application/json")], text).into_response(),
        Err(error) => refuse(StatusCode::INTERNAL_SERVER_ERROR, &error.to_string()),
    }
}

async fn render(State(director): State<Director>) -> Response {
    let kind = "text/plain; version=0.0.4";
    ([(header::CONTENT_TYPE, kind)], metrics::render(&director.status())).into_response()
}

async fn change(
    State(director): State<Director>,
    Path((service, server)): Path<(String, String)>,
    body: Bytes,
) -> Response {
    let change: ServerChange = match serde_json::from_slice(&body) {
        Ok(change) => change,
        Err(error) => return refuse(StatusCode::BAD_REQUEST, &error.to_string()),
    };
    match director.change(&service, &server, change) {
        Ok(()) => StatusCode::NO_CONTENT.into_response(),
        Err(error @ (DirectorError::NoService(_) | DirectorError::NoServer { .. })) => {
            refuse(StatusCode::NOT_FOUND, &error.to_string())
        }
        Err(error) => refuse(StatusCode::UNPROCESSABLE_ENTITY, &error.to_string()),
    }
}

fn refuse(code: StatusCode, why: &str) -> Response {
    let text = serde_json::json!({ "error": why }).to_string();
    (code, [(header::CONTENT_TYPE, "application/json")], text).into_response()
}
