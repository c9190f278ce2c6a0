//! The HTTP check.

mod body;
mod error;
mod exchange;

use std::ops::RangeInclusive;

use http::header::{HOST, HeaderName, HeaderValue, InvalidHeaderValue};
use http::uri::PathAndQuery;
use http::{HeaderMap, Method};

use self::body::BodyExpectation;
pub use self::error::HttpCheckError;
use crate::health::{Check, CheckContext, CheckFailure, CheckReport};

/// Sends an HTTP request, and compares the status, and optionally the body, of the response.
///
/// Each check opens a connection, sends one request, and closes the connection when the result is
/// known. Redirects are not followed: a status of 3xx is accepted or not like any other. At most 16
/// KiB of status line and headers are read. The body is read only if the check has an expectation
/// of the body.
///
/// # Compared with HAProxy
/// HAProxy's `httpchk` takes an interim response (1xx) for the response; this check waits for the one
/// that follows, as RFC 9110 says. HAProxy's `expect string` passes as soon as the text has come; this
/// check fails if the body ends before its length or the timeout. A status line or a header that RFC
/// 9112 does not allow has failed.
///
/// Request a page that needs what the service needs, such as its database: a page that answers 200
/// while the service fails hides the failure.
///
/// # Examples
/// ```
/// use lvs::health::HttpCheck;
///
/// let check = HttpCheck::get("/health")?
///     .header("host", "www.example.org")?
///     .accept_status(200..=204)
///     .accept_status(301..=301)
///     .body_matches("ready|warming up")?;
/// # let _ = check;
/// # Ok::<(), lvs::health::HttpCheckError>(())
/// ```
#[derive(Clone, Debug)]
#[must_use]
pub struct HttpCheck {
    method: Method,
    path: PathAndQuery,
    headers: HeaderMap,
    accepted: Vec<RangeInclusive<u16>>,
    expectations: Vec<BodyExpectation>,
    body_limit: usize,
    #[cfg(feature = "health-http2")]
    http2: bool,
    #[cfg(feature = "health-tls")]
    tls: Option<super::TlsSettings>,
}

/// The default of [`HttpCheck::body_limit`], in bytes.
const DEFAULT_BODY_LIMIT: usize = 64 << 10;

impl HttpCheck {
    /// Makes a check by GET over HTTP/1.1 that accepts any status from 200 to 299.
    ///
    /// # Errors
    /// [`HttpCheckError::Path`] if the path is invalid.
    pub fn get(path: &str) -> Result<Self, HttpCheckError> {
        Self::new("GET", path)
    }

    /// Makes a check with another method, such as `HEAD` or `OPTIONS`.
    ///
    /// # Errors
    /// [`HttpCheckError::Method`], [`HttpCheckError::Path`].
    pub fn new(method: &str, path: &str) -> Result<Self, HttpCheckError> {
        let path_error = || HttpCheckError::Path { path: path.to_owned() };
        // The parser would take an empty path for `/`.
        if !path.starts_with('/') {
            return Err(path_error());
        }
        Ok(Self {
            method: method
                .parse()
                .map_err(|_| HttpCheckError::Method { method: method.to_owned() })?,
            path: path.parse().map_err(|_| path_error())?,
            headers: HeaderMap::new(),
            accepted: Vec::new(),
            expectations: Vec::new(),
            body_limit: DEFAULT_BODY_LIMIT,
            #[cfg(feature = "health-http2")]
            http2: false,
            #[cfg(feature = "health-tls")]
            tls: None,
        })
    }

    /// Adds a header to the request. Default of `host`: the address of the backend.
    ///
    /// # Errors
    /// [`HttpCheckError::Header`] if the name or the value is invalid.
    pub fn header(mut self, name: &str, value: &str) -> Result<Self, HttpCheckError> {
        let error = || HttpCheckError::Header { name: name.to_owned() };
        let key: HeaderName = name.parse().map_err(|_| error())?;
        let value: HeaderValue = value.parse().map_err(|_: InvalidHeaderValue| error())?;
        if key == HOST {
            self.headers.insert(key, value);
        } else {
            self.headers.append(key, value);
        }
        Ok(self)
    }

    /// Accepts a range of statuses, beside ranges accepted before. Default: 200 to 299.
    pub fn accept_status(mut self, statuses: RangeInclusive<u16>) -> Self {
        self.accepted.push(statuses);
        self
    }

    /// Requires that the body matches a regular expression, at any position, byte by byte.
    ///
    /// # Errors
    /// [`HttpCheckError::Regex`] if the regular expression is invalid.
    pub fn body_matches(self, regex: &str) -> Result<Self, HttpCheckError> {
        let expectation = BodyExpectation::matching(regex)?;
        Ok(self.with_expectation(expectation))
    }

    /// Requires that the body does not match a regular expression at any position.
    ///
    /// # Errors
    /// [`HttpCheckError::Regex`] if the regular expression is invalid.
    pub fn body_does_not_match(self, regex: &str) -> Result<Self, HttpCheckError> {
        let expectation = BodyExpectation::not_matching(regex)?;
        Ok(self.with_expectation(expectation))
    }

    /// Requires a digest of the body, in hexadecimal: 64 digits are SHA-256, 32 are MD5, as
    /// keepalived's `genhash` prints.
    ///
    /// # Errors
    /// [`HttpCheckError::Digest`] if the text is neither.
    pub fn body_digest(self, digest: &str) -> Result<Self, HttpCheckError> {
        let expectation = BodyExpectation::digest(digest)?;
        Ok(self.with_expectation(expectation))
    }

    /// Sets the longest body that is read for an expectation; a longer body fails the check.
    /// Default: 64 KiB.
    pub fn body_limit(self, bytes: usize) -> Self {
        Self { body_limit: bytes, ..self }
    }

    /// Uses HTTP/2: over [TLS](Self::tls) by ALPN, otherwise by prior knowledge.
    #[cfg(feature = "health-http2")]
    #[cfg_attr(docsrs, doc(cfg(feature = "health-http2")))]
    pub fn http2(self) -> Self {
        Self { http2: true, ..self }
    }

    /// Uses TLS.
    #[cfg(feature = "health-tls")]
    #[cfg_attr(docsrs, doc(cfg(feature = "health-tls")))]
    pub fn tls(self, tls: super::TlsSettings) -> Self {
        Self { tls: Some(tls), ..self }
    }

    fn with_expectation(mut self, expectation: BodyExpectation) -> Self {
        self.expectations.push(expectation);
        self
    }

    fn accepts(&self, status: u16) -> bool {
        if self.accepted.is_empty() {
            return (200..=299).contains(&status);
        }
        self.accepted.iter().any(|range| range.contains(&status))
    }

    /// Returns the accepted statuses as text: `200..=299`, or `200..=204, 301`.
    fn accepted_text(&self) -> String {
        if self.accepted.is_empty() {
            return "200..=299".to_owned();
        }
        let ranges = self.accepted.iter().map(|range| match (range.start(), range.end()) {
            (start, end) if start == end => start.to_string(),
            (start, end) => format!("{start}..={end}"),
        });
        ranges.collect::<Vec<_>>().join(", ")
    }
}

impl Check for HttpCheck {
    async fn check(&self, context: &CheckContext) -> Result<CheckReport, CheckFailure> {
        let stream = context.connect().await?;
        #[cfg(feature = "health-tls")]
        if let Some(tls) = &self.tls {
            let alpn: &[&[u8]] = if self.is_http2() { &[b"h2"] } else { &[b"http/1.1"] };
            let session = tls.handshake(context, stream, alpn).await?;
            let warning = session.warning;
            let report = self.exchange(context, session.stream).await?;
            return Ok(match warning {
                Some(warning) => report.with_warning(warning),
                None => report,
            });
        }
        self.exchange(context, stream).await
    }

    fn name(&self) -> &str {
        "http"
    }
}
