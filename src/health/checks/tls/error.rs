//! The error of invalid TLS settings.

use thiserror::Error;

/// The reason why [`TlsSettings`](super::TlsSettings) are invalid.
#[derive(Clone, Debug, Eq, Error, PartialEq)]
#[non_exhaustive]
pub enum TlsSettingsError {
    /// The system has no trusted certificate authorities.
    #[error("the system has no trusted certificate authorities: {reason}")]
    NoRoots {
        /// The first error of loading them.
        reason: String,
    },
    /// The PEM text has no certificate, or an invalid certificate.
    #[error("no valid certificates in PEM: {reason}")]
    Pem {
        /// The problem.
        reason: String,
    },
    /// The private key of a client certificate is invalid, or belongs to another certificate.
    #[error("no valid private key of the client certificate in PEM: {reason}")]
    ClientKey {
        /// The problem.
        reason: String,
    },
    /// The server name is neither a DNS name nor an address.
    #[error("{name:?} is neither a DNS name nor an IP address")]
    Name {
        /// The name.
        name: String,
    },
}
