//! What cannot be asked.

use thiserror::Error;

/// What a [`DnsCheck`](super::DnsCheck) cannot ask for or expect.
#[derive(Clone, Debug, Eq, Error, PartialEq)]
#[non_exhaustive]
pub enum DnsCheckError {
    /// Not a domain name.
    #[error("{name:?} is not a domain name: {reason}")]
    Name {
        /// What should have been one.
        name: String,
        /// What is wrong with it.
        reason: String,
    },
    /// Not a record type to ask for.
    #[error("{record_type:?} is not a record type to ask for")]
    Type {
        /// What should have been one.
        record_type: String,
    },
    /// Not the data of a record of the type that is asked for.
    #[error("{data:?} is not the data of a record of type {record_type}: {reason}")]
    Data {
        /// What should have been data.
        data: String,
        /// The type that is asked for.
        record_type: String,
        /// What is wrong with it.
        reason: String,
    },
}
