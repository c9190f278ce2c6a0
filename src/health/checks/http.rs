//! Does it answer an HTTP request as it should?

mod body;
mod exchange;

use std::ops::RangeInclusive;

use http::header::{HOST, HeaderName, HeaderValue, InvalidHeaderValue};
use http::uri::PathAndQuery;
use http::{HeaderMap, Method};
use thiserror::Error;

use self::body::BodyExpectation;
#[cfg(feature = "health-grpc")]
pub(super) use self::exchange::{await_on_connection, hyper_failure};
use crate::health::{Check, CheckContext, CheckFailure, CheckReport};

/// Up if an HTTP request is answered with a status, and perhaps a body, that was asked for.
///
/// One request on a connection of its own, which is closed when the answer is known. Redirects are
/// not followed: a status of 3xx is one that was asked for or not. At most 16 KiB of status line and
/// headers are read, and of the body nothing, unless something is expected of it.
///
/// A check that answers 200 while the service cannot serve is worth nothing: ask for a page that
/// touches what the service needs.
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

/// The most that is read of a body unless told otherwise.
const DEFAULT_BODY_LIMIT: usize = 64 << 10;

impl HttpCheck {
    /// A GET by HTTP/1.1; any status from 200 to 299 will do.
    ///
    /// # Errors
    /// [`HttpCheckError::Path`] if that is no path.
    pub fn get(path: &str) -> Result<Self, HttpCheckError> {
        Self::new("GET", path)
    }

    /// Another method: `HEAD`, `OPTIONS`.
    ///
    /// # Errors
    /// [`HttpCheckError::Method`], [`HttpCheckError::Path`].
    pub fn new(method: &str, path: &str) -> Result<Self, HttpCheckError> {
        let wrong_path = || HttpCheckError::Path { path: path.to_owned() };
        // An empty path would be taken for `/`.
        if !path.starts_with('/') {
            return Err(wrong_path());
        }
        Ok(Self {
            method: method
                .parse()
                .map_err(|_| HttpCheckError::Method { method: method.to_owned() })?,
            path: path.parse().map_err(|_| wrong_path())?,
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

    /// Sends a header. `host` is the address unless it is given.
    ///
    /// # Errors
    /// [`HttpCheckError::Header`] if name or value cannot stand in a header.
    pub fn header(mut self, name: &str, value: &str) -> Result<Self, HttpCheckError> {
        let wrong = || HttpCheckError::Header { name: name.to_owned() };
        let key: HeaderName = name.parse().map_err(|_| wrong())?;
        let value: HeaderValue = value.parse().map_err(|_: InvalidHeaderValue| wrong())?;
        if key == HOST {
            self.headers.insert(key, value);
        } else {
            self.headers.append(key, value);
        }
        Ok(self)
    }

    /// Takes these statuses for well, beside those said before. Default: 200 to 299.
    pub fn accept_status(mut self, statuses: RangeInclusive<u16>) -> Self {
        self.accepted.push(statuses);
        self
    }

    /// Expects the body to match a regular expression somewhere, byte by byte.
    ///
    /// # Errors
    /// [`HttpCheckError::Regex`] says what is wrong with it.
    pub fn body_matches(self, regex: &str) -> Result<Self, HttpCheckError> {
        let expectation = BodyExpectation::matching(regex)?;
        Ok(self.with_expectation(expectation))
    }

    /// Expects the body to match it nowhere.
    ///
    /// # Errors
    /// [`HttpCheckError::Regex`] says what is wrong with it.
    pub fn body_does_not_match(self, regex: &str) -> Result<Self, HttpCheckError> {
        let expectation = BodyExpectation::not_matching(regex)?;
        Ok(self.with_expectation(expectation))
    }

    /// Expects the body to have this digest, in hexadecimal: 64 digits are SHA-256, 32 are MD5, as
    /// keepalived's `genhash` prints it.
    ///
    /// # Errors
    /// [`HttpCheckError::Digest`] if it is neither.
    pub fn body_digest(self, digest: &str) -> Result<Self, HttpCheckError> {
        let expectation = BodyExpectation::digest(digest)?;
        Ok(self.with_expectation(expectation))
    }

    /// The longest body that is read where something is expected of it; a longer one fails. Default:
    /// 64 KiB.
    pub fn body_limit(self, bytes: usize) -> Self {
        Self { body_limit: bytes, ..self }
    }

    /// Speaks HTTP/2: with [TLS](Self::tls) by ALPN, without by prior knowledge.
    #[cfg(feature = "health-http2")]
    #[cfg_attr(docsrs, doc(cfg(feature = "health-http2")))]
    pub fn http2(self) -> Self {
        Self { http2: true, ..self }
    }

    /// Speaks over TLS.
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
}

impl Check for HttpCheck {
    async fn check(&self, probe: &CheckContext) -> Result<CheckReport, CheckFailure> {
        let stream = probe.connect().await?;
        #[cfg(feature = "health-tls")]
        if let Some(tls) = &self.tls {
            let alpn: &[&[u8]] = if self.is_http2() { &[b"h2"] } else { &[b"http/1.1"] };
            let session = tls.handshake(probe, stream, alpn).await?;
            let warning = session.warning;
            let report = self.exchange(probe, session.stream).await?;
            return Ok(match warning {
                Some(warning) => report.with_warning(warning),
                None => report,
            });
        }
        self.exchange(probe, stream).await
    }

    fn name(&self) -> &str {
        "http"
    }
}

/// Why an [`HttpCheck`] cannot be made.
#[derive(Clone, Debug, Eq, Error, PartialEq)]
#[non_exhaustive]
pub enum HttpCheckError {
    /// That is no method.
    #[error("{method:?} is no HTTP method")]
    Method {
        /// What was given.
        method: String,
    },
    /// That is no path, or does not begin with a slash.
    #[error("{path:?} is no path of an HTTP request: it must begin with / and have no spaces")]
    Path {
        /// What was given.
        path: String,
    },
    /// Name or value cannot stand in a header.
    #[error("the HTTP header {name:?} or its value has characters that cannot be sent")]
    Header {
        /// The header's name.
        name: String,
    },
    /// That is no regular expression.
    #[error("{regex:?} is no regular expression: {reason}")]
    Regex {
        /// What was given.
        regex: String,
        /// What is wrong with it.
        reason: String,
    },
    /// That is no digest.
    #[error("{digest:?} is no digest: 64 hexadecimal digits of SHA-256 or 32 of MD5")]
    Digest {
        /// What was given.
        digest: String,
    },
}
