//! Names of hosts.

use thiserror::Error;

/// Why bytes are no name of a host as a client may ask for it.
#[derive(Clone, Copy, Debug, Eq, Error, PartialEq)]
#[non_exhaustive]
pub enum HostNameError {
    /// It is empty, or longer than the 253 bytes of DNS.
    #[error("a name of {len} bytes")]
    Length {
        /// Its length in bytes.
        len: usize,
    },
    /// It ends with a dot, which RFC 6066 section 3 does not want.
    #[error("a name with a dot behind it")]
    TrailingDot,
    /// A label is empty or has more than 63 bytes, or a hyphen at an end.
    #[error("a name with an impossible label at byte {offset}")]
    Label {
        /// Where the label begins.
        offset: usize,
    },
    /// A byte is no ASCII letter or digit, hyphen, underscore or dot.
    #[error("a name with byte {found:#04x} at {at}")]
    Byte {
        /// Where it stands.
        at: usize,
        /// What it is.
        found: u8,
    },
    /// It is an IPv4 address, or ends like one: no top-level domain is a number.
    #[error("an IP address instead of a name")]
    Address,
}

const MAX_HOST_NAME: usize = 253;
const MAX_LABEL: usize = 63;

/// Checks the name of a host and writes it in lower case.
///
/// The underscore is no letter of host names (RFC 952), but DNS has it and some hosts bear it.
pub(super) fn normalize_host_name(name: &[u8]) -> Result<Box<str>, HostNameError> {
    if name.is_empty() || name.len() > MAX_HOST_NAME {
        return Err(HostNameError::Length { len: name.len() });
    }
    let allowed = |byte: &u8| byte.is_ascii_alphanumeric() || matches!(byte, b'-' | b'_' | b'.');
    if let Some(at) = name.iter().position(|byte| !allowed(byte)) {
        return Err(HostNameError::Byte { at, found: name[at] });
    }
    if name.ends_with(b".") {
        return Err(HostNameError::TrailingDot);
    }
    let mut at = 0;
    let mut is_number = false;
    for label in name.split(|&byte| byte == b'.') {
        let fits = (1..=MAX_LABEL).contains(&label.len());
        if !fits || label.starts_with(b"-") || label.ends_with(b"-") {
            return Err(HostNameError::Label { offset: at });
        }
        at += label.len() + 1;
        is_number = label.iter().all(u8::is_ascii_digit);
    }
    if is_number {
        return Err(HostNameError::Address);
    }
    Ok(name.iter().map(|byte| byte.to_ascii_lowercase() as char).collect::<String>().into())
}
