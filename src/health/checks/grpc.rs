//! Does a gRPC server say that a service is serving?

use std::time::Duration;

use bytes::{BufMut, Bytes, BytesMut};
use http::header::CONTENT_TYPE;
use http::{HeaderMap, HeaderValue, Method, Request, Uri};
use http_body_util::{BodyExt, Full, Limited};
use hyper::client::conn::http2;
use hyper_util::rt::{TokioExecutor, TokioIo};
use tokio::io::{AsyncRead, AsyncWrite};

use super::http::{await_on_connection, hyper_failure};
use crate::health::{Check, CheckContext, CheckFailure, CheckFailureKind, CheckReport};

/// Up if the standard health service (`grpc.health.v1.Health/Check`) says `SERVING`.
///
/// One call on a connection of its own, without compression. A server that has no health service, or
/// does not know the service that is asked for, is down, and the reason says so.
///
/// The two messages have one field each and are written here: the usual client would bring ten
/// crates, and tasks that outlive the check.
///
/// # Examples
/// ```
/// use lvs::health::GrpcCheck;
///
/// let whole_server = GrpcCheck::new("");
/// let one_service = GrpcCheck::new("shop.Orders");
/// # let _ = (whole_server, one_service);
/// ```
#[derive(Clone, Debug)]
#[must_use]
pub struct GrpcCheck {
    service: String,
    authority: Option<String>,
    #[cfg(feature = "health-tls")]
    tls: Option<super::TlsSettings>,
}

/// Far more than an answer of one field takes.
const MAX_RESPONSE_LEN: usize = 4 << 10;

impl GrpcCheck {
    /// Asks for a service by name; the empty one is the server as a whole.
    pub fn new(service: impl Into<String>) -> Self {
        Self {
            service: service.into(),
            authority: None,
            #[cfg(feature = "health-tls")]
            tls: None,
        }
    }

    /// The `:authority` to ask for. Default: the backend's address. One that cannot be sent makes
    /// every check fail, with a reason that says so.
    pub fn authority(self, authority: impl Into<String>) -> Self {
        Self { authority: Some(authority.into()), ..self }
    }

    /// Speaks over TLS.
    #[cfg(feature = "health-tls")]
    #[cfg_attr(docsrs, doc(cfg(feature = "health-tls")))]
    pub fn tls(self, tls: super::TlsSettings) -> Self {
        Self { tls: Some(tls), ..self }
    }

    fn request(&self, probe: &CheckContext) -> Result<Request<Full<Bytes>>, CheckFailure> {
        let unsendable = |error: http::Error| {
            CheckFailure::new(
                CheckFailureKind::Local,
                format!("the request cannot be made: {error}"),
            )
        };
        let authority = self.authority.clone().unwrap_or_else(|| probe.address().to_string());
        let uri = Uri::builder().scheme("http").authority(authority);
        let uri = uri.path_and_query("/grpc.health.v1.Health/Check").build().map_err(unsendable)?;
        let mut request = Request::new(Full::new(encode_request(&self.service)));
        *request.method_mut() = Method::POST;
        *request.uri_mut() = uri;
        let headers = request.headers_mut();
        headers.insert(CONTENT_TYPE, HeaderValue::from_static("application/grpc"));
        headers.insert("te", HeaderValue::from_static("trailers"));
        Ok(request)
    }

    async fn call<S>(&self, probe: &CheckContext, stream: S) -> Result<CheckReport, CheckFailure>
    where
        S: AsyncRead + AsyncWrite + Unpin + Send + 'static,
    {
        probe.set_stage("waiting for the gRPC answer");
        let request = self.request(probe)?;
        let mut builder = http2::Builder::new(TokioExecutor::new());
        builder.max_header_list_size(MAX_RESPONSE_LEN as u32).keep_alive_interval(None::<Duration>);
        let handshake = builder.handshake(TokioIo::new(stream)).await;
        let (mut sender, connection) = handshake.map_err(|error| hyper_failure(probe, &error))?;
        let answer = async {
            let response = sender.send_request(request).await;
            let response = response.map_err(|error| hyper_failure(probe, &error))?;
            if response.status() != http::StatusCode::OK {
                let reason = format!("status {}: no gRPC server", response.status());
                return Err(CheckFailure::new(CheckFailureKind::Protocol, reason));
            }
            let early = read_call_status(response.headers());
            if let Some(fault) = early.and_then(GrpcCallStatus::into_failure) {
                return Err(fault);
            }
            let body = Limited::new(response.into_body(), MAX_RESPONSE_LEN).collect().await;
            let body = body.map_err(|error| match error.downcast::<hyper::Error>() {
                Ok(error) => hyper_failure(probe, &error),
                Err(_) => {
                    let reason = format!("the answer is longer than {MAX_RESPONSE_LEN} bytes");
                    CheckFailure::new(CheckFailureKind::TooLong, reason)
                }
            })?;
            if let Some(fault) =
                body.trailers().and_then(read_call_status).and_then(GrpcCallStatus::into_failure)
            {
                return Err(fault);
            }
            judge_response(&body.to_bytes())
        };
        await_on_connection(answer, connection).await
    }
}

impl Check for GrpcCheck {
    async fn check(&self, probe: &CheckContext) -> Result<CheckReport, CheckFailure> {
        let stream = probe.connect().await?;
        #[cfg(feature = "health-tls")]
        if let Some(tls) = &self.tls {
            let session = tls.handshake(probe, stream, &[b"h2"]).await?;
            let report = self.call(probe, session.stream).await?;
            return Ok(match session.warning {
                Some(warning) => report.with_warning(warning),
                None => report,
            });
        }
        self.call(probe, stream).await
    }

    fn name(&self) -> &str {
        "grpc"
    }
}

/// The status of a call: its code, and what the server says of it.
struct GrpcCallStatus {
    code: u32,
    message: String,
}

impl GrpcCallStatus {
    fn into_failure(self) -> Option<CheckFailure> {
        let name = match self.code {
            0 => return None,
            5 => "NOT_FOUND",
            12 => "UNIMPLEMENTED",
            14 => "UNAVAILABLE",
            16 => "UNAUTHENTICATED",
            _ => "",
        };
        let said: String = self.message.chars().take(80).collect();
        let reason = format!("gRPC status {} {name}: {}", self.code, said.escape_debug());
        Some(CheckFailure::new(CheckFailureKind::Mismatch, reason))
    }
}

fn read_call_status(headers: &HeaderMap) -> Option<GrpcCallStatus> {
    let code = headers.get("grpc-status")?.to_str().ok()?.parse().unwrap_or(2);
    let message = headers.get("grpc-message").map(HeaderValue::as_bytes).unwrap_or_default();
    Some(GrpcCallStatus { code, message: String::from_utf8_lossy(message).into_owned() })
}

/// A message of one string, framed.
fn encode_request(service: &str) -> Bytes {
    let mut message = BytesMut::new();
    if !service.is_empty() {
        // Field 1, of the kind that has a length.
        message.put_u8(0x0a);
        let mut length = service.len();
        while length >= 0x80 {
            message.put_u8(length as u8 | 0x80);
            length >>= 7;
        }
        message.put_u8(length as u8);
        message.put_slice(service.as_bytes());
    }
    let mut frame = BytesMut::new();
    frame.put_u8(0);
    frame.put_u32(message.len() as u32);
    frame.put(message);
    frame.freeze()
}

/// Reads a framed message of one number.
fn judge_response(answer: &[u8]) -> Result<CheckReport, CheckFailure> {
    let wrong = |what: &str| {
        Err(CheckFailure::new(CheckFailureKind::Protocol, format!("the answer {what}")))
    };
    let [compressed, a, b, c, d, message @ ..] = answer else {
        return wrong("is no gRPC message");
    };
    if *compressed != 0 {
        return wrong("is compressed, which was not asked for");
    }
    if u32::from_be_bytes([*a, *b, *c, *d]) as usize != message.len() {
        return wrong("is not as long as it says");
    }
    let state = match message {
        // The value that is not sent.
        [] => 0,
        [0x08, state] if *state < 0x80 => *state,
        _ => return wrong("is no HealthCheckResponse"),
    };
    let name = match state {
        0 => "UNKNOWN",
        1 => return Ok(CheckReport::up()),
        2 => "NOT_SERVING",
        3 => "SERVICE_UNKNOWN",
        _ => "of an unknown kind",
    };
    Err(CheckFailure::new(CheckFailureKind::Mismatch, format!("the service's status is {name}")))
}

#[cfg(all(test, not(lvs_loom)))]
mod tests {
    use super::*;

    #[test]
    fn a_question_is_a_framed_string() {
        assert_eq!(encode_request("")[..], [0, 0, 0, 0, 0]);
        assert_eq!(encode_request("ab")[..], [0, 0, 0, 0, 4, 0x0a, 2, b'a', b'b']);
        assert_eq!(encode_request(&"a".repeat(200))[..8], [0, 0, 0, 0, 203, 0x0a, 0xc8, 1]);
    }

    #[test]
    fn only_serving_is_up() {
        let says = |bytes: &[u8]| judge_response(bytes).map_err(|failure| failure.to_string());
        assert_eq!(says(&[0, 0, 0, 0, 2, 8, 1]), Ok(CheckReport::up()));
        let status = |name: &str| Err(format!("the service's status is {name}"));
        assert_eq!(says(&[0, 0, 0, 0, 2, 8, 2]), status("NOT_SERVING"));
        assert_eq!(says(&[0, 0, 0, 0, 0]), status("UNKNOWN"));
        assert_eq!(says(&[0, 0, 0, 0, 2, 8, 3]), status("SERVICE_UNKNOWN"));
        for wrong in [&[][..], &[0, 0, 0], &[1, 0, 0, 0, 0], &[0, 0, 0, 0, 9], &[0, 0, 0, 0, 1, 8]]
        {
            assert!(says(wrong).expect_err("no answer").starts_with("the answer is"), "{wrong:?}");
        }
    }
}
