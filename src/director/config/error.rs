//! Errors in a configuration, and the key that each is about.

use std::path::PathBuf;

use thiserror::Error;

use crate::setting::SettingError;

/// An error in a director's configuration.
#[derive(Debug, Error)]
#[non_exhaustive]
pub enum DirectorConfigError {
    /// A file cannot be read.
    #[error("cannot read {}: {source}", path.display())]
    Read {
        /// The file's path.
        path: PathBuf,
        /// The system's error.
        source: std::io::Error,
    },
    /// A value that a builder was given is refused.
    #[error("{}{reason}", key_prefix(key))]
    Refused {
        /// The tables and keys that lead to the value, with dots between them, as in TOML. Empty if the
        /// error is about the whole configuration.
        key: String,
        /// What is wrong, and what is allowed.
        reason: String,
    },
    /// Several keys or values are refused. Printed, each is a line.
    #[error("{}", join_lines(errors))]
    Several {
        /// The errors, in the order of the files; none of them is of this kind.
        errors: Vec<DirectorConfigError>,
    },
    /// A key or a value in a file is refused.
    #[error("{file}:{line}:{column}: {}{reason}{}", key_prefix(key), did_you_mean(suggestion))]
    Invalid {
        /// The file's path; `configuration` for a text that was passed to
        /// [`DirectorConfig::parse`](super::DirectorConfig::parse).
        file: String,
        /// The line, from 1.
        line: usize,
        /// The column in characters, from 1.
        column: usize,
        /// The tables and keys that lead to the value, with dots between them. Empty if the error
        /// is about the whole file.
        key: String,
        /// What is wrong, and what is allowed.
        reason: String,
        /// The known name that is closest to an unknown one.
        suggestion: Option<String>,
    },
}

impl DirectorConfigError {
    /// Iterates over the errors, each about one key or value.
    pub fn iter(&self) -> impl Iterator<Item = &Self> {
        match self {
            Self::Several { errors } => errors.as_slice(),
            error => std::slice::from_ref(error),
        }
        .iter()
    }

    /// Returns the line and the column of an error in a file.
    pub(super) fn position(&self) -> Option<(usize, usize)> {
        match self {
            Self::Invalid { line, column, .. } => Some((*line, *column)),
            _ => None,
        }
    }

    /// Returns one error for all; `None` for none.
    pub(super) fn from_all(mut errors: Vec<Self>) -> Option<Self> {
        match errors.len() {
            0 | 1 => errors.pop(),
            _ => Some(Self::Several { errors }),
        }
    }
}

fn join_lines(errors: &[DirectorConfigError]) -> String {
    errors.iter().map(ToString::to_string).collect::<Vec<_>>().join("\n")
}

fn key_prefix(key: &str) -> String {
    if key.is_empty() { String::new() } else { format!("{key}: ") }
}

fn did_you_mean(suggestion: &Option<String>) -> String {
    suggestion.as_ref().map_or_else(String::new, |name| format!("; did you mean `{name}`?"))
}

/// A step on the path from the top of a document to a value.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub(crate) enum KeyPathSegment {
    /// A key of a table.
    Key(&'static str),
    /// The index of an item in an array, such as a `[[service]]`.
    Index(usize),
}

/// The problems of several values, in their order.
#[derive(Debug, Default)]
pub(crate) struct ConfigProblems(pub(super) Vec<ConfigProblem>);

impl ConfigProblems {
    /// Adds the problem of a check, if it found one.
    pub(super) fn record(&mut self, checked: Result<(), ConfigProblem>) {
        self.0.extend(checked.err());
    }

    /// Adds the problems of an enclosed table, which is at a path.
    pub(super) fn record_all(&mut self, path: &[KeyPathSegment], problems: Self) {
        self.0.extend(problems.0.into_iter().map(|problem| problem.prefixed(path)));
    }
}

/// A well-formed value that is refused, with the path to it.
///
/// `ConfigDocument::locate_problem` adds the file, line and column.
#[derive(Debug)]
pub(crate) struct ConfigProblem {
    pub(super) path: Vec<KeyPathSegment>,
    pub(crate) reason: String,
}

impl ConfigProblem {
    pub(super) fn new(path: impl Into<Vec<KeyPathSegment>>, reason: impl Into<String>) -> Self {
        Self { path: path.into(), reason: reason.into() }
    }

    /// Returns the problem of a single key of a table.
    pub(super) fn at_key(key: &'static str, reason: impl Into<String>) -> Self {
        Self::new([KeyPathSegment::Key(key)], reason)
    }

    /// Returns the problem of a setting that the library refuses. `keys` has the key of each setting
    /// whose key has another name.
    pub(super) fn of_setting(mut error: SettingError, keys: &[(&str, &'static str)]) -> Self {
        if let Some((_, key)) = keys.iter().find(|(setting, _)| *setting == error.setting) {
            error.setting = key;
        }
        let path: Vec<_> = error.setting.split('.').map(KeyPathSegment::Key).collect();
        Self::new(path, error.to_string())
    }

    /// Puts segments in front of the path, for an enclosing table.
    pub(super) fn prefixed(mut self, segments: &[KeyPathSegment]) -> Self {
        self.path.splice(0..0, segments.iter().copied());
        self
    }
}
