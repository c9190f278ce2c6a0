//! The calls by which operators change servers, and who they are.

use std::net::IpAddr;

use axum::body::Bytes;
use axum::extract::{Extension, FromRequestParts, Path, State};
use axum::http::StatusCode;
use axum::http::request::Parts;
use axum::response::{IntoResponse, Response};
use axum::routing::{patch, post};
use axum::{Json, Router};
use serde::de::DeserializeOwned;
use serde_json::{Map, Value, json};

use super::api::AdminContext;
use super::response::RequestBodyError;
use crate::director::overrides::{ChangeStamp, ServerEdit};

pub(super) fn routes() -> Router<AdminContext> {
    Router::new()
        .route("/api/v1/services/{service}/servers", post(add_servers).patch(change_servers))
        .route(
            "/api/v1/services/{service}/servers/{server}",
            patch(change_server).delete(remove_server),
        )
}

/// The address at the other end of the connection that a request came by.
#[derive(Clone, Copy, Debug)]
pub(super) struct AdminPeer(pub(super) IpAddr);

/// The header by which an operator gives a name.
const OPERATOR_HEADER: &str = "lvs-operator";
/// The longest name of an operator, in bytes.
const MAX_OPERATOR_NAME: usize = 64;

impl<S: Send + Sync> FromRequestParts<S> for ChangeStamp {
    type Rejection = Response;

    /// Returns who sends the request: the name that the operator gives, and the address.
    async fn from_request_parts(parts: &mut Parts, state: &S) -> Result<Self, Response> {
        let peer = Extension::<AdminPeer>::from_request_parts(parts, state).await;
        let Extension(AdminPeer(address)) = peer.map_err(IntoResponse::into_response)?;
        let Some(name) = parts.headers.get(OPERATOR_HEADER) else {
            return Ok(Self::now(address.to_string()));
        };
        // `to_str` accepts printable ASCII only: the name goes into log lines.
        match name.to_str() {
            Ok(name) if !name.is_empty() && name.len() <= MAX_OPERATOR_NAME => {
                Ok(Self::now(format!("{name} at {address}")))
            }
            _ => {
                let reason = format!(
                    "the header `{OPERATOR_HEADER}` must have 1 to {MAX_OPERATOR_NAME} printable \
                     ASCII characters"
                );
                Err(RequestBodyError(reason).into_response())
            }
        }
    }
}

/// Reads a JSON object. `serde` would accept a list of the same values without their names.
fn parse_object<T: DeserializeOwned>(value: Value) -> Result<T, RequestBodyError> {
    if !value.is_object() {
        return Err(RequestBodyError("the request body must be a JSON object".to_owned()));
    }
    Ok(serde_json::from_value(value)?)
}

/// What a standby answers to a change.
const STANDBY_NOTE: &str = "this director is standby: the change is made here only, and the active director does \
     not receive it; make it at the active director, which passes it on to its standby";

impl AdminContext {
    /// Applies the edits, all of them or none, and answers with `code`. A standby adds a note.
    fn edit_servers(
        &self,
        service: &str,
        edits: &[ServerEdit],
        origin: &ChangeStamp,
        code: StatusCode,
    ) -> Response {
        match self.registry.edit_servers(service, edits, origin) {
            Ok(()) if self.status.is_active() => code.into_response(),
            // 204 has no body.
            Ok(()) if code == StatusCode::NO_CONTENT => {
                Json(json!({ "note": STANDBY_NOTE })).into_response()
            }
            Ok(()) => (code, Json(json!({ "note": STANDBY_NOTE }))).into_response(),
            Err(error) => error.into_response(),
        }
    }
}

/// Adds one server, or a list of servers.
async fn add_servers(
    State(context): State<AdminContext>,
    Path(service): Path<String>,
    origin: ChangeStamp,
    body: Bytes,
) -> Result<Response, RequestBodyError> {
    let servers = match serde_json::from_slice(&body)? {
        Value::Array(servers) => servers,
        server => vec![server],
    };
    let edits = servers.into_iter().map(|server| parse_object(server).map(ServerEdit::Add));
    let edits = edits.collect::<Result<Vec<_>, _>>()?;
    Ok(context.edit_servers(&service, &edits, &origin, StatusCode::CREATED))
}

async fn change_servers(
    State(context): State<AdminContext>,
    Path(service): Path<String>,
    origin: ChangeStamp,
    body: Bytes,
) -> Result<Response, RequestBodyError> {
    let changes: Map<String, Value> = parse_object(serde_json::from_slice(&body)?)?;
    let edit =
        |(server, change)| parse_object(change).map(|change| ServerEdit::Change(server, change));
    let edits = changes.into_iter().map(edit).collect::<Result<Vec<_>, _>>()?;
    Ok(context.edit_servers(&service, &edits, &origin, StatusCode::NO_CONTENT))
}

async fn change_server(
    State(context): State<AdminContext>,
    Path((service, server)): Path<(String, String)>,
    origin: ChangeStamp,
    body: Bytes,
) -> Result<Response, RequestBodyError> {
    let edits = [ServerEdit::Change(server, parse_object(serde_json::from_slice(&body)?)?)];
    Ok(context.edit_servers(&service, &edits, &origin, StatusCode::NO_CONTENT))
}

async fn remove_server(
    State(context): State<AdminContext>,
    Path((service, server)): Path<(String, String)>,
    origin: ChangeStamp,
) -> Response {
    let edits = [ServerEdit::Remove(server)];
    context.edit_servers(&service, &edits, &origin, StatusCode::NO_CONTENT)
}
