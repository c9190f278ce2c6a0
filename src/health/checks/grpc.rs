//! The gRPC check.

use std::time::Duration;

use bytes::{BufMut, Bytes, BytesMut};
use http::header::CONTENT_TYPE;
use http::uri::Authority;
use http::{HeaderMap, HeaderValue, Method, Request, Uri};
use http_body_util::{BodyExt, Full, Limited};
use hyper::client::conn::http2;
use hyper_util::rt::{TokioExecutor, TokioIo};
use tokio::io::{AsyncRead, AsyncWrite};

use super::http_client::{await_on_connection, hyper_failure, invalid_request_failure};
use super::quote::quoted_message;
use crate::excerpt::excerpt;
use crate::health::{Check, CheckContext, CheckFailure, CheckFailureKind, CheckReport};
use crate::setting::SettingError;

/// Calls the standard health service (`grpc.health.v1.Health/Check`), and requires `SERVING`.
///
/// Each check opens a connection and makes one call, without compression. A server without the
/// health service, or that does not know the requested service, is down, and the reason names the
/// gRPC status.
///
/// The two messages have one field each and are encoded in this module: a gRPC client library would
/// add ten crates, and tasks that outlive the check.
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
    authority: Option<Authority>,
    #[cfg(feature = "health-tls")]
    tls: Option<super::TlsSettings>,
}

/// The longest response in bytes, far more than a message of one field.
const MAX_RESPONSE_LEN: usize = 4 << 10;

impl GrpcCheck {
    /// Makes a check of a service by name; the empty name is the server as a whole.
    pub fn new(service: impl Into<String>) -> Self {
        Self {
            service: service.into(),
            authority: None,
            #[cfg(feature = "health-tls")]
            tls: None,
        }
    }

    /// Sets the `:authority` of the request: a host with an optional port. Default: the backend's
    /// address.
    ///
    /// # Errors
    /// [`SettingError`] if the text is no authority ([RFC 3986], section 3.2).
    ///
    /// [RFC 3986]: https://www.rfc-editor.org/rfc/rfc3986
    pub fn authority(self, authority: impl Into<String>) -> Result<Self, SettingError> {
        let authority = authority.into();
        let parsed = authority.parse().map_err(|_| SettingError {
            setting: "authority",
            value: format!("\"{}\"", excerpt(authority.as_bytes(), 40)),
            allowed: "a host with an optional port".to_owned(),
        })?;
        Ok(Self { authority: Some(parsed), ..self })
    }

    /// Uses TLS.
    #[cfg(feature = "health-tls")]
    #[cfg_attr(docsrs, doc(cfg(feature = "health-tls")))]
    pub fn tls(self, tls: super::TlsSettings) -> Self {
        Self { tls: Some(tls), ..self }
    }

    fn request(&self, context: &CheckContext) -> Result<Request<Full<Bytes>>, CheckFailure> {
        let uri = Uri::builder().scheme("http");
        let uri = match &self.authority {
            Some(authority) => uri.authority(authority.clone()),
            None => uri.authority(context.address().to_string()),
        };
        let uri = uri.path_and_query("/grpc.health.v1.Health/Check").build();
        let uri = uri.map_err(invalid_request_failure)?;
        let mut request = Request::new(Full::new(encode_request(&self.service)));
        *request.method_mut() = Method::POST;
        *request.uri_mut() = uri;
        let headers = request.headers_mut();
        headers.insert(CONTENT_TYPE, HeaderValue::from_static("application/grpc"));
        headers.insert("te", HeaderValue::from_static("trailers"));
        Ok(request)
    }

    async fn call<S>(&self, context: &CheckContext, stream: S) -> Result<CheckReport, CheckFailure>
    where
        S: AsyncRead + AsyncWrite + Unpin + Send + 'static,
    {
        context.set_stage("waiting for the gRPC response");
        let request = self.request(context)?;
        let mut builder = http2::Builder::new(TokioExecutor::new());
        builder.max_header_list_size(MAX_RESPONSE_LEN as u32).keep_alive_interval(None::<Duration>);
        let handshake = builder.handshake(TokioIo::new(stream)).await;
        let (mut sender, connection) = handshake.map_err(|error| hyper_failure(context, &error))?;
        let check = async {
            let response = sender.send_request(request).await;
            let response = response.map_err(|error| hyper_failure(context, &error))?;
            if response.status() != http::StatusCode::OK {
                let reason = format!("HTTP status {}, expected a gRPC response", response.status());
                return Err(CheckFailure::new(CheckFailureKind::Protocol, reason));
            }
            let early = read_call_status(response.headers());
            if let Some(failure) = early.and_then(GrpcCallStatus::into_failure) {
                return Err(failure);
            }
            let body = Limited::new(response.into_body(), MAX_RESPONSE_LEN).collect().await;
            let body = body.map_err(|error| match error.downcast::<hyper::Error>() {
                Ok(error) => hyper_failure(context, &error),
                Err(_) => {
                    let reason = format!("the response has more than {MAX_RESPONSE_LEN} bytes");
                    CheckFailure::new(CheckFailureKind::TooLong, reason)
                }
            })?;
            let late = body.trailers().and_then(read_call_status);
            if let Some(failure) = late.and_then(GrpcCallStatus::into_failure) {
                return Err(failure);
            }
            judge_response(&body.to_bytes())
        };
        await_on_connection(check, connection).await
    }
}

impl Check for GrpcCheck {
    async fn check(&self, context: &CheckContext) -> Result<CheckReport, CheckFailure> {
        let stream = context.connect().await?;
        #[cfg(feature = "health-tls")]
        if let Some(tls) = &self.tls {
            let session = tls.handshake(context, stream, &[b"h2"]).await?;
            let report = self.call(context, session.stream).await?;
            return Ok(match session.warning {
                Some(warning) => report.with_warning(warning),
                None => report,
            });
        }
        self.call(context, stream).await
    }

    fn name(&self) -> &str {
        "grpc"
    }
}

/// The status of a call: the code and the message of the server.
struct GrpcCallStatus {
    code: u32,
    message: Vec<u8>,
}

impl GrpcCallStatus {
    fn into_failure(self) -> Option<CheckFailure> {
        let name = match self.code {
            0 => return None,
            5 => " NOT_FOUND",
            12 => " UNIMPLEMENTED",
            14 => " UNAVAILABLE",
            16 => " UNAUTHENTICATED",
            _ => "",
        };
        let message = quoted_message(&self.message);
        let reason = format!("gRPC status {}{name}: {message}", self.code);
        Some(CheckFailure::new(CheckFailureKind::Mismatch, reason))
    }
}

fn read_call_status(headers: &HeaderMap) -> Option<GrpcCallStatus> {
    let code = headers.get("grpc-status")?.to_str().ok()?.parse().unwrap_or(2);
    let message = headers.get("grpc-message").map(HeaderValue::as_bytes).unwrap_or_default();
    Some(GrpcCallStatus { code, message: message.to_vec() })
}

/// Encodes a framed message of one string.
fn encode_request(service: &str) -> Bytes {
    let mut message = BytesMut::new();
    if !service.is_empty() {
        // Field 1, of the length-delimited wire type.
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

/// Parses a framed message of one number, and requires the status `SERVING`.
fn judge_response(response: &[u8]) -> Result<CheckReport, CheckFailure> {
    let malformed = |problem: &str| {
        Err(CheckFailure::new(CheckFailureKind::Protocol, format!("the response {problem}")))
    };
    let [compressed, a, b, c, d, message @ ..] = response else {
        return malformed("is not a gRPC message");
    };
    if *compressed != 0 {
        return malformed("is compressed, which the request does not allow");
    }
    if u32::from_be_bytes([*a, *b, *c, *d]) as usize != message.len() {
        return malformed("has another length than its header");
    }
    let state = match message {
        // The default value 0 is not encoded.
        [] => 0,
        [0x08, state] if *state < 0x80 => *state,
        _ => return malformed("is not a HealthCheckResponse"),
    };
    let name = match state {
        0 => "UNKNOWN",
        1 => return Ok(CheckReport::up()),
        2 => "NOT_SERVING",
        3 => "SERVICE_UNKNOWN",
        _ => "not known",
    };
    let reason = format!("the service status is {name}, expected SERVING");
    Err(CheckFailure::new(CheckFailureKind::Mismatch, reason))
}

#[cfg(all(test, not(lvs_loom)))]
mod tests {
    use super::*;

    #[test]
    fn a_request_is_a_framed_string() {
        assert_eq!(encode_request("")[..], [0, 0, 0, 0, 0]);
        assert_eq!(encode_request("ab")[..], [0, 0, 0, 0, 4, 0x0a, 2, b'a', b'b']);
        assert_eq!(encode_request(&"a".repeat(200))[..8], [0, 0, 0, 0, 203, 0x0a, 0xc8, 1]);
    }

    #[test]
    fn only_serving_is_up() {
        let judge = |bytes: &[u8]| judge_response(bytes).map_err(|failure| failure.to_string());
        assert_eq!(judge(&[0, 0, 0, 0, 2, 8, 1]), Ok(CheckReport::up()));
        let status = |name: &str| Err(format!("the service status is {name}, expected SERVING"));
        assert_eq!(judge(&[0, 0, 0, 0, 2, 8, 2]), status("NOT_SERVING"));
        assert_eq!(judge(&[0, 0, 0, 0, 0]), status("UNKNOWN"));
        assert_eq!(judge(&[0, 0, 0, 0, 2, 8, 3]), status("SERVICE_UNKNOWN"));
        for invalid in
            [&[][..], &[0, 0, 0], &[1, 0, 0, 0, 0], &[0, 0, 0, 0, 9], &[0, 0, 0, 0, 1, 8]]
        {
            assert!(
                judge(invalid).expect_err("malformed").starts_with("the response "),
                "{invalid:?}"
            );
        }
    }
}
