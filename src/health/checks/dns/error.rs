//! The error of invalid settings of a DNS check.

use thiserror::Error;

/// The reason why a setting of a [`DnsCheck`](super::DnsCheck) is invalid.
#[derive(Clone, Debug, Eq, Error, PartialEq)]
#[non_exhaustive]
pub enum DnsCheckError {
    /// The name is not a DNS name.
    #[error("{name:?} is not a DNS name: {reason}")]
    Name {
        /// The name.
        name: String,
        /// The problem.
        reason: String,
    },
    /// The record type does not exist, or cannot be queried.
    #[error("{record_type:?} is not a record type that can be queried, such as A, AAAA, MX or TXT")]
    Type {
        /// The record type.
        record_type: String,
    },
    /// The data is not that of a record of the queried type.
    #[error("{data:?} is not the data of a record of type {record_type}: {reason}")]
    Data {
        /// The data.
        data: String,
        /// The queried type.
        record_type: String,
        /// The problem.
        reason: String,
    },
}
