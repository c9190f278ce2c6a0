//! Validation of host names.

use thiserror::Error;

/// The reason why bytes are not a host name that a client may request.
#[derive(Clone, Copy, Debug, Eq, Error, PartialEq)]
#[non_exhaustive]
pub enum HostNameError {
    /// The name is empty, or longer than the 253 bytes that DNS allows.
    #[error("host name has {len} bytes; 1 to {MAX_HOST_NAME} are allowed")]
    Length {
        /// The length in bytes.
        len: usize,
    },
    /// A label is empty, has more than 63 bytes, or begins or ends with a hyphen.
    #[error(
        "host name has an invalid label at byte {offset}: empty, longer than {MAX_LABEL} bytes, \
         or with a hyphen at an end"
    )]
    Label {
        /// The first byte of the label.
        offset: usize,
    },
    /// A byte is not an ASCII letter, digit, hyphen, underscore or dot.
    #[error("host name has the invalid byte {found:#04x} at byte {at}")]
    Byte {
        /// The offset of the byte.
        at: usize,
        /// The value of the byte.
        found: u8,
    },
    /// The last label is a number, as in an IPv4 address: no top-level domain is a number.
    #[error("host name is an IP address or ends in a number")]
    Address,
}

const MAX_HOST_NAME: usize = 253;
const MAX_LABEL: usize = 63;

/// Validates a host name and returns it in lower case.
///
/// A dot at the end is dropped: RFC 6066 forbids it, but it is the same name, and clients send it that are
/// given a URL with it.
///
/// Underscores are accepted: RFC 952 does not allow them in host names, but DNS does, and some
/// hosts use them.
pub(super) fn normalize_host_name(name: &[u8]) -> Result<Box<str>, HostNameError> {
    let name = name.strip_suffix(b".").unwrap_or(name);
    if name.is_empty() || name.len() > MAX_HOST_NAME {
        return Err(HostNameError::Length { len: name.len() });
    }
    let is_allowed = |byte: &u8| byte.is_ascii_alphanumeric() || matches!(byte, b'-' | b'_' | b'.');
    if let Some(at) = name.iter().position(|byte| !is_allowed(byte)) {
        return Err(HostNameError::Byte { at, found: name[at] });
    }
    let mut offset = 0;
    let mut is_number = false;
    for label in name.split(|&byte| byte == b'.') {
        let has_valid_len = (1..=MAX_LABEL).contains(&label.len());
        if !has_valid_len || label.starts_with(b"-") || label.ends_with(b"-") {
            return Err(HostNameError::Label { offset });
        }
        offset += label.len() + 1;
        is_number = label.iter().all(u8::is_ascii_digit);
    }
    if is_number {
        return Err(HostNameError::Address);
    }
    Ok(name.iter().map(|byte| byte.to_ascii_lowercase() as char).collect::<String>().into())
}
