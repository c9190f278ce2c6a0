//! A client of the admin API of a director.

use http_body_util::{BodyExt, Full, Limited};
use hyper::body::Bytes;
use hyper::header::{AUTHORIZATION, CONTENT_TYPE};
use hyper::{Method, Request};
use hyper_util::client::legacy::Client as Http;
use hyper_util::client::legacy::connect::HttpConnector;
use hyper_util::rt::TokioExecutor;
use serde_json::Value;

use crate::program::Error;

/// The address and the token of a director.
#[derive(Clone, Debug, clap::Args)]
pub(crate) struct Where {
    /// The address of the director's admin server.
    #[arg(long, value_name = "ADDRESS", env = "LVS_ADMIN", default_value = "127.0.0.1:9000")]
    admin: String,
    /// The token that the admin server requires.
    #[arg(long, value_name = "TOKEN", env = "LVS_TOKEN", hide_env_values = true)]
    token: Option<String>,
}

/// A client of one director.
pub(crate) struct Client {
    at: Where,
    http: Http<HttpConnector, Full<Bytes>>,
}

/// The longest response that is read.
const MAX_RESPONSE: usize = 64 << 20;

impl Client {
    pub(crate) fn new(at: Where) -> Self {
        Self { at, http: Http::builder(TokioExecutor::new()).build_http() }
    }

    pub(crate) async fn get(&self, path: &str) -> Result<Value, Error> {
        self.ask(Method::GET, path, None).await
    }

    /// Sends a request; returns `Null` for a response without a body.
    pub(crate) async fn ask(
        &self,
        method: Method,
        path: &str,
        body: Option<Value>,
    ) -> Result<Value, Error> {
        let admin = &self.at.admin;
        let mut request =
            Request::builder().method(method).uri(format!("http://{admin}/api/v1{path}"));
        if let Some(token) = &self.at.token {
            request = request.header(AUTHORIZATION, format!("Bearer {token}"));
        }
        let body = body.map(|body| body.to_string()).unwrap_or_default();
        let request = request.header(CONTENT_TYPE, "application/json");
        let answer = self.http.request(request.body(body.into())?).await;
        let answer = answer
            .map_err(|error| format!("cannot connect to the director at {admin}: {error}"))?;
        let status = answer.status();
        let body = Limited::new(answer.into_body(), MAX_RESPONSE).collect().await;
        let body = body.map_err(|error| error.to_string())?.to_bytes();
        let value: Value =
            if body.is_empty() { Value::Null } else { serde_json::from_slice(&body)? };
        match value.get("error").and_then(Value::as_str) {
            Some(error) if !status.is_success() => Err(error.into()),
            _ if !status.is_success() => {
                Err(format!("the director at {admin} answered {status}").into())
            }
            _ => Ok(value),
        }
    }
}
