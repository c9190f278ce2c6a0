//! The error of invalid settings of an HTTP check.

use thiserror::Error;

/// The reason why a setting of an [`HttpCheck`](super::HttpCheck) is invalid.
#[derive(Clone, Debug, Eq, Error, PartialEq)]
#[non_exhaustive]
pub enum HttpCheckError {
    /// The method is invalid.
    #[error("{method:?} is not an HTTP method")]
    Method {
        /// The method.
        method: String,
    },
    /// The path is invalid, or does not begin with a slash.
    #[error("{path:?} is not an HTTP path: a path begins with / and has no spaces")]
    Path {
        /// The path.
        path: String,
    },
    /// The name or the value of a header is invalid.
    #[error("the HTTP header {name:?} or its value has characters that cannot be sent")]
    Header {
        /// The header's name.
        name: String,
    },
    /// The regular expression is invalid.
    #[error("{regex:?} is not a regular expression: {reason}")]
    Regex {
        /// The regular expression.
        regex: String,
        /// The problem.
        reason: String,
    },
    /// The digest is invalid.
    #[error("{digest:?} is not a digest: 64 hexadecimal digits of SHA-256, or 32 of MD5")]
    Digest {
        /// The digest.
        digest: String,
    },
}
