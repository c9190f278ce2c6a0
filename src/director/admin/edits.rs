//! The calls by which operators change servers and announcements, and who they are.

use std::net::SocketAddr;

use axum::body::Bytes;
use axum::extract::{Extension, FromRequestParts, Path, State};
use axum::http::StatusCode;
use axum::http::request::Parts;
use axum::response::{IntoResponse, Response};
use axum::routing::{patch, post};
use axum::{Json, Router};
use serde::Deserialize;
use serde::de::DeserializeOwned;
use serde_json::{Map, Value, json};

use super::api::AdminContext;
use super::response::RequestBodyError;
use crate::announce::AnnounceMode;
use crate::director::events::ChangeOrigin;
use crate::director::overrides::ServerEdit;

pub(super) fn routes() -> Router<AdminContext> {
    Router::new()
        .route("/api/v1/services/{service}/servers", post(add_servers).patch(change_servers))
        .route("/api/v1/announce", patch(change_announcements))
        .route(
            "/api/v1/services/{service}/servers/{server}",
            patch(change_server).delete(remove_server),
        )
}

/// The peer of the connection by which a request came.
#[derive(Clone, Copy, Debug)]
pub(super) struct RequestClient(pub(super) SocketAddr);

/// The header by which an operator gives a name.
const OPERATOR_HEADER: &str = "lvs-operator";
/// The longest name of an operator, in bytes.
const MAX_OPERATOR_NAME: usize = 64;

impl<S: Send + Sync> FromRequestParts<S> for ChangeOrigin {
    type Rejection = Response;

    /// Returns who sends the request: the name that the operator gives, and the address.
    async fn from_request_parts(parts: &mut Parts, state: &S) -> Result<Self, Response> {
        let client = Extension::<RequestClient>::from_request_parts(parts, state).await;
        let Extension(RequestClient(client)) = client.map_err(IntoResponse::into_response)?;
        // `to_str` accepts printable ASCII only: the name goes into log lines.
        let operator = match parts.headers.get(OPERATOR_HEADER).map(|name| name.to_str()) {
            None => None,
            Some(Ok(name)) if !name.is_empty() && name.len() <= MAX_OPERATOR_NAME => {
                Some(name.into())
            }
            Some(_) => {
                let reason = format!(
                    "the header `{OPERATOR_HEADER}` must have 1 to {MAX_OPERATOR_NAME} printable \
                     ASCII characters"
                );
                return Err(RequestBodyError(reason).into_response());
            }
        };
        Ok(Self::Api { client, operator })
    }
}

/// Reads a JSON object. `serde` would accept a list of the same values without their names.
fn parse_object<T: DeserializeOwned>(value: Value) -> Result<T, RequestBodyError> {
    if !value.is_object() {
        return Err(RequestBodyError("the request body must be a JSON object".to_owned()));
    }
    Ok(serde_json::from_value(value)?)
}

/// What a standby answers that follows no active director at the moment.
const STANDBY_NOTE: &str = "this director is standby: the change is made here only, and the active director does \
     not receive it; make it at the active director, which passes it on to its standby";

impl AdminContext {
    /// Applies the edits, all of them or none, and answers with `code`. A standby that follows an active
    /// director refuses them; another standby adds a note.
    fn edit_servers(
        &self,
        service: &str,
        edits: &[ServerEdit],
        origin: &ChangeOrigin,
        code: StatusCode,
    ) -> Response {
        if let Err(error) = self.status.refuse_on_standby() {
            return error.into_response();
        }
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
    origin: ChangeOrigin,
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
    origin: ChangeOrigin,
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
    origin: ChangeOrigin,
    body: Bytes,
) -> Result<Response, RequestBodyError> {
    let edits = [ServerEdit::Change(server, parse_object(serde_json::from_slice(&body)?)?)];
    Ok(context.edit_servers(&service, &edits, &origin, StatusCode::NO_CONTENT))
}

/// An operator's change of all announcements.
#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
struct AnnounceChange {
    mode: AnnounceMode,
}

async fn change_announcements(
    State(context): State<AdminContext>,
    origin: ChangeOrigin,
    body: Bytes,
) -> Result<Response, RequestBodyError> {
    let change: AnnounceChange = parse_object(serde_json::from_slice(&body)?)?;
    let changed = context.status.set_announce_mode(change.mode, origin);
    Ok(changed.map(|()| StatusCode::NO_CONTENT).into_response())
}

async fn remove_server(
    State(context): State<AdminContext>,
    Path((service, server)): Path<(String, String)>,
    origin: ChangeOrigin,
) -> Response {
    let edits = [ServerEdit::Remove(server)];
    context.edit_servers(&service, &edits, &origin, StatusCode::NO_CONTENT)
}
