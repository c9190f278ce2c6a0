//! The error of compiling a scheduler.

use thiserror::Error;

/// A list of members that a scheduler cannot work with.
#[derive(Debug, Error)]
#[non_exhaustive]
pub enum CompileError {
    /// The list has more members than the scheduler supports.
    #[error("the set has {members} backends, but the scheduler supports at most {max}")]
    TooManyMembers {
        /// The number of members.
        members: usize,
        /// The largest number of members that the scheduler supports.
        max: usize,
    },
    /// The error of a scheduler outside this crate.
    #[error(transparent)]
    Other(#[from] Box<dyn std::error::Error + Send + Sync>),
}
