//! The error of an import.

use std::path::PathBuf;

use thiserror::Error;

use super::position::SourcePosition;

/// A configuration that cannot be imported.
#[derive(Clone, Debug, Eq, Error, PartialEq)]
#[non_exhaustive]
#[error("{}line {line}: {reason}", file_prefix(.file.as_ref()))]
pub struct ImportError {
    /// The included file; `None` for the text or file that is imported.
    pub file: Option<PathBuf>,
    /// The line, from 1.
    pub line: usize,
    /// What is wrong in that line.
    pub reason: String,
}

impl ImportError {
    pub(super) fn new(position: &SourcePosition, reason: impl Into<String>) -> Self {
        let file = position.file().map(PathBuf::from);
        Self { file, line: position.line(), reason: reason.into() }
    }
}

fn file_prefix(file: Option<&PathBuf>) -> String {
    file.map_or_else(String::new, |file| format!("{}: ", file.display()))
}
