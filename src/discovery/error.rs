//! The error of a member source.

use std::error::Error;
use std::io;

use thiserror::Error;

use super::MemberListError;
use crate::backend::SetError;
use crate::runtime::RuntimeError;

/// The reason why a [member source](super::MemberSource) cannot list its members.
///
/// The backend set keeps the members that it has.
#[derive(Debug, Error)]
#[non_exhaustive]
pub enum DiscoveryError {
    /// A file or another input cannot be read.
    #[error("cannot read {name}: {source}")]
    Io {
        /// The name of the input: a file's path.
        name: String,
        /// The error of the system.
        source: io::Error,
    },
    /// A list of members is malformed.
    #[error("{name}:{error}")]
    List {
        /// The name of the list: a file's path.
        name: String,
        /// The line, the column and the problem.
        error: MemberListError,
    },
    /// A name cannot be resolved.
    #[error("cannot resolve {name}: {source}")]
    Resolve {
        /// The name.
        name: String,
        /// The reason.
        source: Box<dyn Error + Send + Sync>,
    },
    /// The source lists no member, and an empty list [is not allowed](super::Feed::allow_empty).
    #[error("the source lists no members, and an empty list is not allowed")]
    Empty,
    /// The backend set refuses every member, or the whole change.
    #[error("the backend set refuses the members: {source}")]
    Refused {
        /// The first refusal.
        #[from]
        source: SetError,
    },
    /// The feed or the source lacks something of its tokio runtime.
    #[error(transparent)]
    Runtime(#[from] RuntimeError),
    /// An error of a source outside this crate.
    #[error(transparent)]
    Other(Box<dyn Error + Send + Sync>),
}

impl DiscoveryError {
    /// Wraps an error of a source outside this crate.
    pub fn other(error: impl Into<Box<dyn Error + Send + Sync>>) -> Self {
        Self::Other(error.into())
    }

    /// Returns the error and its causes in one line, each cause once.
    pub(super) fn with_causes(&self) -> String {
        let mut text = self.to_string();
        // The errors of this crate print their causes themselves.
        let Self::Other(error) = self else { return text };
        let mut cause = error.source();
        while let Some(error) = cause {
            text = format!("{text}: {error}");
            cause = error.source();
        }
        text
    }
}
