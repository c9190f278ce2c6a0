//! A client of the admin API of a director.

use http_body_util::{BodyExt, Full, Limited};
use hyper::body::Bytes;
use hyper::header::{AUTHORIZATION, CONTENT_TYPE};
use hyper::{Method, Request};
use hyper_util::client::legacy::Client as HttpClient;
use hyper_util::client::legacy::connect::HttpConnector;
use hyper_util::rt::TokioExecutor;
use serde_json::Value;

use crate::error::CliError;

/// The address and the token of a director's admin server.
#[derive(Clone, Debug, clap::Args)]
pub(crate) struct AdminArgs {
    /// The address of the director's admin server. Default: the variable LVS_ADMIN, or
    /// 127.0.0.1:9000.
    #[arg(long, value_name = "ADDRESS", global = true)]
    pub(crate) admin: Option<String>,
    /// The token that the admin server requires. Default: the variable LVS_TOKEN, which other users
    /// of the machine cannot see.
    #[arg(long, value_name = "TOKEN", global = true)]
    pub(crate) token: Option<String>,
    /// Your name, for the director's log of changes. Default: who has called sudo, or the user.
    #[arg(long = "as", value_name = "NAME", global = true)]
    pub(crate) operator: Option<String>,
}

/// A client of one director.
pub(crate) struct AdminClient {
    admin: String,
    token: Option<String>,
    operator: Option<String>,
    http: HttpClient<HttpConnector, Full<Bytes>>,
}

/// The longest response that is read.
const MAX_RESPONSE: usize = 64 << 20;

impl AdminClient {
    /// Makes a client; what the arguments leave out comes from the environment.
    pub(crate) fn new(args: AdminArgs) -> Self {
        let variable = |name| std::env::var(name).ok().filter(|value| !value.is_empty());
        let admin = args.admin.or_else(|| variable("LVS_ADMIN"));
        let admin = admin.unwrap_or_else(|| "127.0.0.1:9000".to_owned());
        let token = args.token.or_else(|| variable("LVS_TOKEN"));
        let user = || ["SUDO_USER", "USER", "LOGNAME"].into_iter().find_map(variable);
        // A name of the system that no header can have is left out; one that is given is not.
        let user = || user().filter(|name| name.bytes().all(|byte| (b' '..=b'~').contains(&byte)));
        let operator = args.operator.or_else(user);
        Self {
            admin,
            token,
            operator,
            http: HttpClient::builder(TokioExecutor::new()).build_http(),
        }
    }

    pub(crate) async fn get(&self, path: &str) -> Result<Value, CliError> {
        self.send(Method::GET, path, None).await
    }

    /// Sends a request; returns `Null` for a response without a body.
    pub(crate) async fn send(
        &self,
        method: Method,
        path: &str,
        body: Option<Value>,
    ) -> Result<Value, CliError> {
        let admin = &self.admin;
        let mut request =
            Request::builder().method(method).uri(format!("http://{admin}/api/v1{path}"));
        if let Some(token) = &self.token {
            request = request.header(AUTHORIZATION, format!("Bearer {token}"));
        }
        if let Some(operator) = &self.operator {
            request = request.header("lvs-operator", operator);
        }
        let body = body.map(|body| body.to_string()).unwrap_or_default();
        let request = request.header(CONTENT_TYPE, "application/json").body(body.into());
        let request =
            request.map_err(|source| CliError::Request { admin: admin.clone(), source })?;
        let answer = self.http.request(request).await;
        let answer = answer.map_err(|source| CliError::Connect { admin: admin.clone(), source })?;
        let status = answer.status();
        let malformed = |source| CliError::Answer { admin: admin.clone(), source };
        let body = Limited::new(answer.into_body(), MAX_RESPONSE).collect().await;
        let body = body.map_err(malformed)?.to_bytes();
        let value = match serde_json::from_slice(&body) {
            _ if body.is_empty() => Value::Null,
            Ok(value) => value,
            // An error without JSON is not of a director: its status says most.
            Err(_) if !status.is_success() => Value::Null,
            Err(error) => return Err(malformed(error.into())),
        };
        match value.get("error").and_then(Value::as_str) {
            _ if status.is_success() => Ok(value),
            Some(error) => Err(CliError::Refused(error.to_owned())),
            None => Err(CliError::Status { admin: admin.clone(), status }),
        }
    }
}

/// Returns the text of a JSON string, or an empty text.
pub(crate) fn json_text(value: &Value) -> &str {
    value.as_str().unwrap_or_default()
}

/// Returns a segment of a path, percent-encoded.
pub(crate) fn percent_encoded(text: &str) -> String {
    let escape = |byte: u8| match byte {
        b'a'..=b'z' | b'A'..=b'Z' | b'0'..=b'9' | b'-' | b'.' | b'_' | b'~' | b':' => {
            char::from(byte).to_string()
        }
        _ => format!("%{byte:02X}"),
    };
    text.bytes().map(escape).collect()
}
