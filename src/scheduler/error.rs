//! Why a scheduler could not be made or could not use a set.

use thiserror::Error;

/// Why a scheduler cannot work with a list of members.
#[derive(Debug, Error)]
#[non_exhaustive]
pub enum CompileError {
    /// There are more members than the scheduler's table has room for.
    #[error("{members} members do not fit a table for {max}")]
    TooManyMembers {
        /// How many there are.
        members: usize,
        /// How many fit.
        max: usize,
    },
    /// A scheduler from outside this crate said no.
    #[error(transparent)]
    Other(#[from] Box<dyn std::error::Error + Send + Sync>),
}
