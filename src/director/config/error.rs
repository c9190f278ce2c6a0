//! What is wrong with a configuration, and where.

use std::path::PathBuf;

use thiserror::Error;

/// What is wrong with a configuration.
#[derive(Debug, Error)]
#[non_exhaustive]
pub enum DirectorConfigError {
    /// A file cannot be read.
    #[error("cannot read {}", path.display())]
    Read {
        /// Which.
        path: PathBuf,
        /// What the system said.
        source: std::io::Error,
    },
    /// Something in a file cannot be.
    #[error("{file}:{line}:{column}: {}{reason}{}", key_prefix(key), did_you_mean(suggestion))]
    Invalid {
        /// The file.
        file: String,
        /// The line, from 1.
        line: usize,
        /// The column in characters, from 1.
        column: usize,
        /// What stands there: tables and keys, with dots between them. May be empty.
        key: String,
        /// What is wrong with it.
        reason: String,
        /// What may have been meant.
        suggestion: Option<String>,
    },
}

fn key_prefix(key: &str) -> String {
    if key.is_empty() { String::new() } else { format!("{key}: ") }
}

fn did_you_mean(help: &Option<String>) -> String {
    help.as_ref().map_or_else(String::new, |help| format!("; did you mean `{help}`?"))
}

/// A step on the way from the top of a document to a value.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub(crate) enum KeyPathSegment {
    Key(&'static str),
    /// One of several: `[[service]]`.
    Index(usize),
}

/// What is wrong with a value that can be read.
#[derive(Debug)]
pub(crate) struct ConfigProblem {
    pub(super) path: Vec<KeyPathSegment>,
    pub(crate) reason: String,
}

impl ConfigProblem {
    pub(super) fn new(path: impl Into<Vec<KeyPathSegment>>, what: impl Into<String>) -> Self {
        Self { path: path.into(), reason: what.into() }
    }

    /// The same, seen from further above.
    pub(super) fn prefixed(mut self, steps: &[KeyPathSegment]) -> Self {
        self.path.splice(0..0, steps.iter().copied());
        self
    }
}
