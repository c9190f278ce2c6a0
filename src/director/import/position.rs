//! A place in the configuration that is imported.

use std::fmt;
use std::sync::Arc;

/// A line, and the included file that it is in.
#[derive(Clone, Debug, Eq, Ord, PartialEq, PartialOrd)]
pub(super) struct SourcePosition {
    file: Option<Arc<str>>,
    line: usize,
}

impl SourcePosition {
    /// Returns a line of the file or text that is imported.
    pub(super) fn of_line(line: usize) -> Self {
        Self { file: None, line }
    }

    /// Returns a line of an included file.
    pub(super) fn in_file(file: Option<Arc<str>>, line: usize) -> Self {
        Self { file, line }
    }

    pub(super) fn file(&self) -> Option<&str> {
        self.file.as_deref()
    }

    pub(super) fn line(&self) -> usize {
        self.line
    }
}

impl fmt::Display for SourcePosition {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match &self.file {
            Some(file) => write!(f, "{file} line {}", self.line),
            None => write!(f, "line {}", self.line),
        }
    }
}
