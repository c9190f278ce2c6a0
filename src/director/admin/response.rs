//! Error responses, as JSON: `{"error": "..."}`.

use axum::Json;
use axum::http::StatusCode;
use axum::response::{IntoResponse, Response};

use crate::director::error::DirectorError;

/// Returns an error response.
pub(super) fn error_response(code: StatusCode, reason: &str) -> Response {
    (code, Json(serde_json::json!({ "error": reason }))).into_response()
}

impl IntoResponse for DirectorError {
    fn into_response(self) -> Response {
        let code = match self {
            Self::NoService(_) | Self::NoServer { .. } | Self::NoAnnouncements => {
                StatusCode::NOT_FOUND
            }
            Self::ServerExists { .. } | Self::AmbiguousServer { .. } | Self::Standby { .. } => {
                StatusCode::CONFLICT
            }
            _ => StatusCode::UNPROCESSABLE_ENTITY,
        };
        error_response(code, &self.to_string())
    }
}

/// A request body that is not what the API describes.
#[derive(Debug)]
pub(super) struct RequestBodyError(pub(super) String);

impl IntoResponse for RequestBodyError {
    fn into_response(self) -> Response {
        error_response(StatusCode::BAD_REQUEST, &self.0)
    }
}

impl From<serde_json::Error> for RequestBodyError {
    fn from(error: serde_json::Error) -> Self {
        Self(match error.is_data() {
            true => format!("the request body is refused: {error}"),
            false => format!("the request body is not valid JSON: {error}"),
        })
    }
}
