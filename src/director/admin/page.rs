//! The status page: files that are part of the program, and nothing from elsewhere.

use axum::Router;
use axum::http::header;
use axum::response::{IntoResponse, Response};
use axum::routing::get;

/// The files of the page: path, type and text. They need no token, and reveal nothing of a director.
const FILES: [(&str, &str, &str); 11] = [
    ("/", HTML, include_str!("page/index.html")),
    ("/page/page.css", CSS, include_str!("page/page.css")),
    ("/page/main.js", JAVASCRIPT, include_str!("page/main.js")),
    ("/page/actions.js", JAVASCRIPT, include_str!("page/actions.js")),
    ("/page/api.js", JAVASCRIPT, include_str!("page/api.js")),
    ("/page/chart.js", JAVASCRIPT, include_str!("page/chart.js")),
    ("/page/dom.js", JAVASCRIPT, include_str!("page/dom.js")),
    ("/page/events.js", JAVASCRIPT, include_str!("page/events.js")),
    ("/page/format.js", JAVASCRIPT, include_str!("page/format.js")),
    ("/page/overview.js", JAVASCRIPT, include_str!("page/overview.js")),
    ("/page/service.js", JAVASCRIPT, include_str!("page/service.js")),
];

const HTML: &str = "text/html; charset=utf-8";
const CSS: &str = "text/css";
const JAVASCRIPT: &str = "text/javascript; charset=utf-8";

/// Returns whether a path is that of a file of the page.
pub(super) fn is_page_file(path: &str) -> bool {
    FILES.iter().any(|(file, _, _)| *file == path)
}

pub(super) fn routes<S: Clone + Send + Sync + 'static>() -> Router<S> {
    FILES.into_iter().fold(Router::new(), |router, (path, content_type, text)| {
        router.route(path, get(async move || static_file(content_type, text)))
    })
}

/// Allows the page to send requests to this server, and nothing else.
const PAGE_SECURITY_POLICY: &str = "default-src 'none'; script-src 'self'; style-src 'self'; connect-src 'self'; \
    img-src data:; base-uri 'none'; form-action 'none'; frame-ancestors 'none'";

fn static_file(content_type: &'static str, text: &'static str) -> Response {
    let headers = [
        (header::CONTENT_TYPE, content_type),
        (header::CONTENT_SECURITY_POLICY, PAGE_SECURITY_POLICY),
        (header::CACHE_CONTROL, "no-cache"),
        (header::X_CONTENT_TYPE_OPTIONS, "nosniff"),
    ];
    (headers, text).into_response()
}
