//! One request and its answer, over whatever carries it.

use std::error::Error as _;
use std::future::Future;
use std::io;
use std::pin::pin;

use bytes::Bytes;
use http::header::HOST;
use http::{HeaderValue, Request, Response, Uri};
use http_body_util::{BodyExt, Empty, Limited};
use hyper::body::Incoming;
use hyper::client::conn::http1;
use hyper_util::rt::TokioIo;
use tokio::io::{AsyncRead, AsyncWrite};

use super::HttpCheck;
use crate::health::{CheckContext, CheckFailure, CheckFailureKind, CheckReport};

/// The most that is read of status line and headers.
const MAX_HEAD_LEN: usize = 16 << 10;

impl HttpCheck {
    pub(super) async fn exchange<S>(
        &self,
        probe: &CheckContext,
        stream: S,
    ) -> Result<CheckReport, CheckFailure>
    where
        S: AsyncRead + AsyncWrite + Unpin + Send + 'static,
    {
        probe.set_stage("waiting for the status line");
        let stream = TokioIo::new(stream);
        #[cfg(feature = "health-http2")]
        if self.http2 {
            let mut builder =
                hyper::client::conn::http2::Builder::new(hyper_util::rt::TokioExecutor::new());
            builder.max_header_list_size(MAX_HEAD_LEN as u32);
            let (mut sender, connection) =
                builder.handshake(stream).await.map_err(|error| hyper_failure(probe, &error))?;
            let answer = async {
                let request = self.request(probe, true)?;
                self.judge(probe, sender.send_request(request).await).await
            };
            return await_on_connection(answer, connection).await;
        }
        let mut builder = http1::Builder::new();
        builder.max_buf_size(MAX_HEAD_LEN);
        let (mut sender, connection) =
            builder.handshake(stream).await.map_err(|error| hyper_failure(probe, &error))?;
        let answer = async {
            let request = self.request(probe, false)?;
            self.judge(probe, sender.send_request(request).await).await
        };
        await_on_connection(answer, connection).await
    }

    fn request(
        &self,
        probe: &CheckContext,
        absolute: bool,
    ) -> Result<Request<Empty<Bytes>>, CheckFailure> {
        let address = probe.address().to_string();
        let host = match self.headers.get(HOST) {
            Some(host) => host.clone(),
            None => HeaderValue::try_from(&address).map_err(invalid_request_failure)?,
        };
        // HTTP/2 has the host in the address, HTTP/1.1 in a header.
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
        probe: &CheckContext,
        answer: hyper::Result<Response<Incoming>>,
    ) -> Result<CheckReport, CheckFailure> {
        let response = answer.map_err(|error| hyper_failure(probe, &error))?;
        let status = response.status();
        if !self.accepts(status.as_u16()) {
            return Err(CheckFailure::new(CheckFailureKind::Mismatch, format!("status {status}")));
        }
        if self.expectations.is_empty() {
            return Ok(CheckReport::up());
        }
        probe.set_stage("reading the body");
        let body = Limited::new(response.into_body(), self.body_limit).collect().await;
        let body = body.map_err(|error| match error.downcast::<hyper::Error>() {
            Ok(error) => hyper_failure(probe, &error),
            Err(_) => {
                let reason = format!("the body is longer than {} bytes", self.body_limit);
                CheckFailure::new(CheckFailureKind::TooLong, reason)
            }
        })?;
        let body = body.to_bytes();
        match self.expectations.iter().find_map(|expectation| expectation.mismatch(&body)) {
            Some(fault) => Err(CheckFailure::new(CheckFailureKind::Mismatch, fault)),
            None => Ok(CheckReport::up()),
        }
    }
}

/// Waits for an answer while the connection that it comes by is driven.
pub(in crate::health::checks) async fn await_on_connection<C>(
    answer: impl Future<Output = Result<CheckReport, CheckFailure>>,
    connection: C,
) -> Result<CheckReport, CheckFailure>
where
    C: Future,
{
    let (mut answer, connection) = (pin!(answer), pin!(connection));
    tokio::select! {
        biased;
        done = &mut answer => return done,
        _ = connection => {}
    }
    // The connection has ended, and with it, or before, all that will come.
    answer.await
}

fn invalid_request_failure(error: impl std::fmt::Display) -> CheckFailure {
    CheckFailure::new(CheckFailureKind::Local, format!("the request cannot be made: {error}"))
}

pub(in crate::health::checks) fn hyper_failure(
    probe: &CheckContext,
    error: &hyper::Error,
) -> CheckFailure {
    let doing = probe.stage();
    let mut source = error.source();
    while let Some(cause) = source {
        if let Some(io) = cause.downcast_ref::<io::Error>() {
            return CheckFailure::io(doing, io);
        }
        source = cause.source();
    }
    let kind = if error.is_parse_too_large() {
        CheckFailureKind::TooLong
    } else if error.is_incomplete_message() || error.is_closed() || error.is_canceled() {
        CheckFailureKind::Closed
    } else {
        CheckFailureKind::Protocol
    };
    let cause = error.source().map(|cause| format!(": {cause}")).unwrap_or_default();
    CheckFailure::new(kind, format!("{doing}: {error}{cause}"))
}
