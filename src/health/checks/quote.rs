//! Bytes of servers, files and programs, quoted for the reason of a failure.

use crate::excerpt::excerpt;

/// The most bytes of quoted text that was not understood.
const MAX_EXCERPT_LEN: usize = 60;

/// The most bytes of quoted text that was written for an operator.
const MAX_MESSAGE_LEN: usize = 160;

/// Quotes bytes that were not understood or not expected.
pub(super) fn quoted_excerpt(bytes: &[u8]) -> String {
    format!("\"{}\"", excerpt(bytes, MAX_EXCERPT_LEN))
}

/// Quotes a message that was written for an operator, such as an error of the server.
pub(super) fn quoted_message(bytes: &[u8]) -> String {
    format!("\"{}\"", excerpt(bytes, MAX_MESSAGE_LEN))
}
