//! Access control of the admin server.

use std::net::IpAddr;
use std::sync::Arc;

use axum::extract::{Request, State};
use axum::http::{StatusCode, header};
use axum::middleware::Next;
use axum::response::Response;
use sha2::{Digest, Sha256};

use super::page::is_page_file;
use super::response::error_response;
use crate::director::config::{AdminConfig, SecretString};

/// Allows requests that bring the token; without a configured token, requests of programs on this
/// machine.
#[derive(Clone, Debug)]
pub(super) struct AdminAccess {
    token: Option<Arc<[u8]>>,
}

impl AdminAccess {
    pub(super) fn new(config: &AdminConfig) -> Self {
        Self { token: config.token.as_ref().map(|SecretString(token)| digest(token)) }
    }

    /// Compares digests, so that the time of the comparison reveals nothing of the token.
    fn is_token(&self, text: &str) -> bool {
        self.token.as_ref().is_some_and(|token| *token == digest(text))
    }
}

fn digest(text: &str) -> Arc<[u8]> {
    Sha256::digest(text).as_slice().into()
}

/// Returns whether a path needs no token: it reveals nothing of the director but its role.
fn is_public(path: &str) -> bool {
    path == "/healthz" || is_page_file(path)
}

/// Passes a request on, or answers that it is not allowed.
pub(super) async fn authorize_request(
    State(access): State<AdminAccess>,
    request: Request,
    next: Next,
) -> Response {
    match access.refusal_response(&request) {
        Some(response) => response,
        None => next.run(request).await,
    }
}

impl AdminAccess {
    /// Returns the response to a request that is not allowed.
    fn refusal_response(&self, request: &Request) -> Option<Response> {
        if is_public(request.uri().path()) {
            return None;
        }
        let text_of = |name| request.headers().get(name).and_then(|value| value.to_str().ok());
        let host = text_of(header::HOST).unwrap_or_default();
        if self.token.is_some() {
            let credentials = text_of(header::AUTHORIZATION);
            let token = credentials.and_then(|credentials| credentials.strip_prefix("Bearer "));
            if !token.is_some_and(|token| self.is_token(token)) {
                let reason = "the request needs the token: `Authorization: Bearer TOKEN`";
                let mut response = error_response(StatusCode::UNAUTHORIZED, reason);
                let challenge = header::HeaderValue::from_static("Bearer");
                response.headers_mut().insert(header::WWW_AUTHENTICATE, challenge);
                return Some(response);
            }
        } else if !is_loopback_host(host) {
            // DNS rebinding: a page in a browser on this machine, whose host name an attacker has
            // pointed to this machine.
            let reason = "the Host header must be `localhost` or a loopback address";
            return Some(error_response(StatusCode::FORBIDDEN, reason));
        }
        let origin = text_of(header::ORIGIN).filter(|_| !request.method().is_safe())?;
        let is_same_site = origin.split_once("://").is_some_and(|(_, from)| from == host);
        let reason = "a page of another site cannot change this director";
        (!is_same_site).then(|| error_response(StatusCode::FORBIDDEN, reason))
    }
}

/// Returns whether a host name means this machine, whatever name servers answer.
fn is_loopback_host(host: &str) -> bool {
    let name = match host.rsplit_once(':') {
        Some((name, port)) if port.bytes().all(|byte| byte.is_ascii_digit()) => name,
        _ => host,
    };
    let ip = name.trim_start_matches('[').trim_end_matches(']').parse::<IpAddr>();
    name.eq_ignore_ascii_case("localhost") || ip.is_ok_and(|ip| ip.is_loopback())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn loopback_hosts_are_recognized() {
        for host in ["localhost", "LOCALHOST:9000", "127.0.0.1:9000", "[::1]:9000", "[::1]"] {
            assert!(is_loopback_host(host), "{host}");
        }
        for host in ["example.org", "example.org:9000", "10.0.0.1:9000", "localhost.evil", "", ":"]
        {
            assert!(!is_loopback_host(host), "{host}");
        }
    }
}
