//! Why a configuration cannot be imported.

use thiserror::Error;

/// Why a text cannot be imported.
#[derive(Clone, Debug, Eq, Error, PartialEq)]
#[error("line {line}: {reason}")]
pub struct ImportError {
    /// The line, from 1.
    pub line: usize,
    /// What is wrong there.
    pub reason: String,
}

impl ImportError {
    pub(super) fn new(line: usize, what: impl Into<String>) -> Self {
        Self { line, reason: what.into() }
    }
}
