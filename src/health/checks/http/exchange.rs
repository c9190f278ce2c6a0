//! One request and its response, over TCP or TLS.

use bytes::Bytes;
use http::header::HOST;
use http::{HeaderValue, Request, Response, Uri};
use http_body_util::{BodyExt, Empty, Limited};
use hyper::body::Incoming;
use hyper::client::conn::http1;
use hyper_util::rt::TokioIo;
use tokio::io::{AsyncRead, AsyncWrite};

use super::HttpCheck;
use crate::health::checks::http_client::{
    await_on_connection, hyper_failure, invalid_request_failure,
};
use crate::health::{CheckContext, CheckFailure, CheckFailureKind, CheckReport};

/// The most bytes that are read of status line and headers.
const MAX_HEAD_LEN: usize = 16 << 10;

/// The length of the shortest header line.
const MIN_HEADER_LEN: usize = b"a:\r\n".len();

impl HttpCheck {
    /// Sends the request and evaluates the response.
    pub(super) async fn exchange<S>(
        &self,
        context: &CheckContext,
        stream: S,
    ) -> Result<CheckReport, CheckFailure>
    where
        S: AsyncRead + AsyncWrite + Unpin + Send + 'static,
    {
        context.set_stage("waiting for the status line");
        let stream = TokioIo::new(stream);
        #[cfg(feature = "health-http2")]
        if self.http2 {
            let mut builder =
                hyper::client::conn::http2::Builder::new(hyper_util::rt::TokioExecutor::new());
            builder.max_header_list_size(MAX_HEAD_LEN as u32);
            let (mut sender, connection) =
                builder.handshake(stream).await.map_err(|error| hyper_failure(context, &error))?;
            let check = async {
                let request = self.request(context, true)?;
                self.judge(context, sender.send_request(request).await).await
            };
            return await_on_connection(check, connection).await;
        }
        let mut builder = http1::Builder::new();
        builder.max_buf_size(MAX_HEAD_LEN);
        // As many as fit: the bound is that of the bytes.
        builder.max_headers(MAX_HEAD_LEN / MIN_HEADER_LEN);
        // A client must accept folded lines (RFC 9112, section 5.2).
        builder.allow_obsolete_multiline_headers_in_responses(true);
        let (mut sender, connection) =
            builder.handshake(stream).await.map_err(|error| hyper_failure(context, &error))?;
        let check = async {
            let request = self.request(context, false)?;
            self.judge(context, sender.send_request(request).await).await
        };
        await_on_connection(check, connection).await
    }

    fn request(
        &self,
        context: &CheckContext,
        absolute: bool,
    ) -> Result<Request<Empty<Bytes>>, CheckFailure> {
        let address = context.address().to_string();
        let host = match self.headers.get(HOST) {
            Some(host) => host.clone(),
            None => HeaderValue::try_from(&address).map_err(invalid_request_failure)?,
        };
        // HTTP/2 has the host in the URI, HTTP/1.1 in a header.
        let uri = if absolute {
            let authority = host.to_str().map_err(invalid_request_failure)?;
            let uri = Uri::builder().scheme(self.scheme()).authority(authority);
            uri.path_and_query(self.path.clone()).build().map_err(invalid_request_failure)?
        } else {
            Uri::from(self.path.clone())
        };
        let mut request = Request::new(Empty::new());
        *request.method_mut() = self.method.clone();
        *request.uri_mut() = uri;
        *request.headers_mut() = self.headers.clone();
        if absolute {
            request.headers_mut().remove(HOST);
        } else {
            request.headers_mut().insert(HOST, host);
        }
        Ok(request)
    }

    fn scheme(&self) -> &'static str {
        #[cfg(feature = "health-tls")]
        if self.tls.is_some() {
            return "https";
        }
        "http"
    }

    #[cfg(feature = "health-tls")]
    pub(super) fn is_http2(&self) -> bool {
        #[cfg(feature = "health-http2")]
        return self.http2;
        #[cfg(not(feature = "health-http2"))]
        false
    }

    async fn judge(
        &self,
        context: &CheckContext,
        response: hyper::Result<Response<Incoming>>,
    ) -> Result<CheckReport, CheckFailure> {
        let response = response.map_err(|error| hyper_failure(context, &error))?;
        let status = response.status();
        if !self.accepts(status.as_u16()) {
            let reason = format!("status {status}, expected {}", self.accepted_text());
            return Err(CheckFailure::new(CheckFailureKind::Mismatch, reason));
        }
        if self.expectations.is_empty() {
            return Ok(CheckReport::up());
        }
        context.set_stage("reading the body");
        let body = Limited::new(response.into_body(), self.body_limit).collect().await;
        let body = body.map_err(|error| match error.downcast::<hyper::Error>() {
            Ok(error) => hyper_failure(context, &error),
            Err(_) => {
                let reason = format!("the body has more than {} bytes", self.body_limit);
                CheckFailure::new(CheckFailureKind::TooLong, reason)
            }
        })?;
        let body = body.to_bytes();
        match self.expectations.iter().find_map(|expectation| expectation.mismatch(&body)) {
            Some(reason) => Err(CheckFailure::new(CheckFailureKind::Mismatch, reason)),
            None => Ok(CheckReport::up()),
        }
    }
}
