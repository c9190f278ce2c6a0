//! Does a gRPC server say that a service is serving?

use std::time::Duration;

use bytes::{BufMut, Bytes, BytesMut};
use http::header::CONTENT_TYPE;
use http::{HeaderMap, HeaderValue, Method, Request, Uri};
use http_body_util::{BodyExt, Full, Limited};
use hyper::client::conn::http2;
use hyper_util::rt::{TokioExecutor, TokioIo};
use tokio::io::{AsyncRead, AsyncWrite};

use super::http::{beside, failure};
use crate::health::{Check, Failure, FailureKind, Probe, Report};

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
    tls: Option<super::Tls>,
}

/// Far more than an answer of one field takes.
const ANSWER_LIMIT: usize = 4 << 10;

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
    pub fn tls(self, tls: super::Tls) -> Self {
        Self { tls: Some(tls), ..self }
    }

    fn request(&self, probe: &Probe) -> Result<Request<Full<Bytes>>, Failure> {
        let unsendable = |error: http::Error| {
            Failure::new(FailureKind::Local, format!("the request cannot be made: {error}"))
        };
        let authority = self.authority.clone().unwrap_or_else(|| probe.address().to_string());
        let uri = Uri::builder().scheme("http").authority(authority);
        let uri = uri.path_and_query("/grpc.health.v1.Health/Check").build().map_err(unsendable)?;
        let mut request = Request::new(Full::new(question(&self.service)));
        *request.method_mut() = Method::POST;
        *request.uri_mut() = uri;
        let headers = request.headers_mut();
        headers.insert(CONTENT_TYPE, HeaderValue::from_static("application/grpc"));
        headers.insert("te", HeaderValue::from_static("trailers"));
        Ok(request)
    }

    async fn ask<S>(&self, probe: &Probe, stream: S) -> Result<Report, Failure>
    where
        S: AsyncRead + AsyncWrite + Unpin + Send + 'static,
    {
        probe.stage("waiting for the gRPC answer");
        let request = self.request(probe)?;
        let mut builder = http2::Builder::new(TokioExecutor::new());
        builder.max_header_list_size(ANSWER_LIMIT as u32).keep_alive_interval(None::<Duration>);
        let handshake = builder.handshake(TokioIo::new(stream)).await;
        let (mut sender, connection) = handshake.map_err(|error| failure(probe, &error))?;
        let answer = async {
            let response = sender.send_request(request).await;
            let response = response.map_err(|error| failure(probe, &error))?;
            if response.status() != http::StatusCode::OK {
                let reason = format!("status {}: no gRPC server", response.status());
                return Err(Failure::new(FailureKind::Protocol, reason));
            }
            let early = status(response.headers());
            if let Some(fault) = early.and_then(Status::fault) {
                return Err(fault);
            }
            let body = Limited::new(response.into_body(), ANSWER_LIMIT).collect().await;
            let body = body.map_err(|error| match error.downcast::<hyper::Error>() {
                Ok(error) => failure(probe, &error),
                Err(_) => {
                    let reason = format!("the answer is longer than {ANSWER_LIMIT} bytes");
                    Failure::new(FailureKind::TooLong, reason)
                }
            })?;
            if let Some(fault) = body.trailers().and_then(status).and_then(Status::fault) {
                return Err(fault);
            }
            serving(&body.to_bytes())
        };
        beside(answer, connection).await
    }
}

impl Check for GrpcCheck {
    async fn check(&self, probe: &Probe) -> Result<Report, Failure> {
        let stream = probe.connect().await?;
        #[cfg(feature = "health-tls")]
        if let Some(tls) = &self.tls {
            let session = tls.handshake(probe, stream, &[b"h2"]).await?;
            let report = self.ask(probe, session.stream).await?;
            return Ok(match session.warning {
                Some(warning) => report.with_warning(warning),
                None => report,
            });
        }
        self.ask(probe, stream).await
    }

    fn name(&self) -> &str {
        "grpc"
    }
}

/// The status of a call: its code, and what the server says of it.
struct Status {
    code: u32,
    message: String,
}

impl Status {
    fn fault(self) -> Option<Failure> {
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
        Some(Failure::new(FailureKind::Mismatch, reason))
    }
}

fn status(headers: &HeaderMap) -> Option<Status> {
    let code = headers.get("grpc-status")?.to_str().ok()?.parse().unwrap_or(2);
    let message = headers.get("grpc-message").map(HeaderValue::as_bytes).unwrap_or_default();
    Some(Status { code, message: String::from_utf8_lossy(message).into_owned() })
}

/// A message of one string, framed.
fn question(service: &str) -> Bytes {
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
fn serving(answer: &[u8]) -> Result<Report, Failure> {
    let wrong = |what: &str| Err(Failure::new(FailureKind::Protocol, format!("the answer {what}")));
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
        1 => return Ok(Report::up()),
        2 => "NOT_SERVING",
        3 => "SERVICE_UNKNOWN",
        _ => "of an unknown kind",
    };
    Err(Failure::new(FailureKind::Mismatch, format!("the service's status is {name}")))
}

#[cfg(all(test, not(lvs_loom)))]
mod tests {
    use super::*;

    #[test]
    fn a_question_is_a_framed_string() {
        assert_eq!(question("")[..], [0, 0, 0, 0, 0]);
        assert_eq!(question("ab")[..], [0, 0, 0, 0, 4, 0x0a, 2, b'a', b'b']);
        assert_eq!(question(&"a".repeat(200))[..8], [0, 0, 0, 0, 203, 0x0a, 0xc8, 1]);
    }

    #[test]
    fn only_serving_is_up() {
        let says = |bytes: &[u8]| serving(bytes).map_err(|failure| failure.to_string());
        assert_eq!(says(&[0, 0, 0, 0, 2, 8, 1]), Ok(Report::up()));
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
