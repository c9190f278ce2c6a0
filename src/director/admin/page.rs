//! The status page: files that are in the program, and nothing from elsewhere.

use axum::Router;
use axum::http::header::{self, HeaderName};
use axum::response::{IntoResponse, Response};
use axum::routing::get;

use crate::director::Director;

pub(super) fn routes() -> Router<Director> {
    Router::new()
        .route(
            "/",
            get(async || static_file("text/html; charset=utf-8", include_str!("page.html"))),
        )
        .route("/page.css", get(async || static_file("text/css", include_str!("page.css"))))
        .route("/page.js", get(async || static_file("text/javascript", include_str!("page.js"))))
}

/// What the page may do: ask this server, and draw.
const PAGE_SECURITY_POLICY: &str = "default-src 'none'; script-src 'self'; style-src 'self'; connect-src 'self'; \
    img-src data:; base-uri 'none'; form-action 'none'; frame-ancestors 'none'";

fn static_file(kind: &'static str, text: &'static str) -> Response {
    const NOSNIFF_HEADER: HeaderName = header::X_CONTENT_TYPE_OPTIONS;
    let headers = [
        (header::CONTENT_TYPE, kind),
        (header::CONTENT_SECURITY_POLICY, PAGE_SECURITY_POLICY),
        (header::CACHE_CONTROL, "no-cache"),
        (NOSNIFF_HEADER, "nosniff"),
    ];
    (headers, text).into_response()
}
