//! Who may ask.

use std::net::IpAddr;
use std::sync::Arc;

use axum::extract::{Request, State};
use axum::http::{StatusCode, header};
use axum::middleware::Next;
use axum::response::Response;
use sha2::{Digest, Sha256};

use super::api::error_response;
use crate::director::config::{AdminConfig, SecretString};

/// Who may ask. Whoever has the token; without one, programs of this machine.
#[derive(Clone, Debug)]
pub(super) struct AdminAccess {
    token: Option<Arc<[u8]>>,
}

impl AdminAccess {
    pub(super) fn new(asked: &AdminConfig) -> Self {
        Self { token: asked.token.as_ref().map(|SecretString(token)| digest(token)) }
    }

    /// Compared by digests, so that the time it takes says nothing of the token.
    fn is_token(&self, said: &str) -> bool {
        self.token.as_ref().is_some_and(|token| *token == digest(said))
    }
}

fn digest(text: &str) -> Arc<[u8]> {
    Sha256::digest(text).as_slice().into()
}

/// What anybody may see: it says nothing of the director.
const PUBLIC_PATHS: [&str; 4] = ["/", "/page.css", "/page.js", "/healthz"];

/// Lets a request pass, or answers it.
pub(super) async fn authorize_request(
    State(access): State<AdminAccess>,
    request: Request,
    next: Next,
) -> Response {
    match access.refusal_response(&request) {
        Some(answer) => answer,
        None => next.run(request).await,
    }
}

impl AdminAccess {
    /// Why a request may not pass.
    fn refusal_response(&self, request: &Request) -> Option<Response> {
        if PUBLIC_PATHS.contains(&request.uri().path()) {
            return None;
        }
        let text = |name| request.headers().get(name).and_then(|value| value.to_str().ok());
        let host = text(header::HOST).unwrap_or_default();
        if self.token.is_some() {
            let said = text(header::AUTHORIZATION).and_then(|said| said.strip_prefix("Bearer "));
            if !said.is_some_and(|said| self.is_token(said)) {
                let mut answer = error_response(StatusCode::UNAUTHORIZED, "it needs the token");
                let challenge = header::HeaderValue::from_static("Bearer");
                answer.headers_mut().insert(header::WWW_AUTHENTICATE, challenge);
                return Some(answer);
            }
        } else if !is_loopback_host(host) {
            // A page in a browser of this machine, whose name an attacker has pointed here.
            let why = "ask by an address of this machine, or localhost";
            return Some(error_response(StatusCode::FORBIDDEN, why));
        }
        let origin = text(header::ORIGIN).filter(|_| !request.method().is_safe())?;
        let is_own = origin.split_once("://").is_some_and(|(_, from)| from == host);
        let why = "pages of other sites change nothing here";
        (!is_own).then(|| error_response(StatusCode::FORBIDDEN, why))
    }
}

/// Is a host one that no name server can point somewhere?
fn is_loopback_host(host: &str) -> bool {
    let name = match host.rsplit_once(':') {
        Some((name, port)) if port.bytes().all(|it| it.is_ascii_digit()) => name,
        _ => host,
    };
    let ip = name.trim_start_matches('[').trim_end_matches(']').parse::<IpAddr>();
    name.eq_ignore_ascii_case("localhost") || ip.is_ok_and(|ip| ip.is_loopback())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn hosts_of_this_machine_are_known() {
        for host in ["localhost", "LOCALHOST:9000", "127.0.0.1:9000", "[::1]:9000", "[::1]"] {
            assert!(is_loopback_host(host), "{host}");
        }
        for host in ["example.org", "example.org:9000", "10.0.0.1:9000", "localhost.evil", "", ":"]
        {
            assert!(!is_loopback_host(host), "{host}");
        }
    }
}
