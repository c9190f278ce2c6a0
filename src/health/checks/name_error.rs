//! The error of names that a check cannot send.

use thiserror::Error;

/// The reason why a check cannot send a name: a login name, a database name, a host name.
#[derive(Clone, Debug, Eq, Error, PartialEq)]
#[non_exhaustive]
pub enum CheckNameError {
    /// A name contains a zero byte, which ends a name in the protocol.
    #[error("the name {name:?} contains a zero byte")]
    ZeroByte {
        /// The name.
        name: String,
    },
    /// A host name is empty, or has characters other than visible ASCII characters.
    #[error("the host name {name:?} must be one or more visible ASCII characters without spaces")]
    HostName {
        /// The name.
        name: String,
    },
}

impl CheckNameError {
    /// Checks that a name has no zero byte.
    pub(super) fn check_no_zero_byte(name: &str) -> Result<(), Self> {
        match name.contains('\0') {
            true => Err(Self::ZeroByte { name: name.to_owned() }),
            false => Ok(()),
        }
    }

    /// Checks that a host name can be sent in a line of text.
    pub(super) fn check_host_name(name: &str) -> Result<(), Self> {
        match name.is_empty() || !name.chars().all(|char| char.is_ascii_graphic()) {
            true => Err(Self::HostName { name: name.to_owned() }),
            false => Ok(()),
        }
    }
}
