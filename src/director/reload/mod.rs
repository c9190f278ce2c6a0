//! A reload: it applies the difference of two configurations, and touches nothing else.
//!
//! ```text
//! configuration -- validate --> ValidatedReload -- prepare --> PreparedReload -- commit --> summary
//! ```
//! - *validate* checks everything that can be checked without the system: schedulers, servers, health
//!   checks, with the changes of operators.
//! - *prepare* opens everything that the system may refuse: listeners, the handover socket. A socket of
//!   a frontend that is replaced is duplicated, so that clients in its accept queue are served.
//! - *commit* makes the change, part by part. The election is restarted first: if that fails the old
//!   one is started again, and nothing else changes. A failure of another part is recorded, and the
//!   rest is applied; the next reload tries a failed part again, with the same configuration too.
//!
//! A failure before the first change leaves everything as it was. A start is a reload of a director in
//! which nothing runs.

mod commit;
mod parts;
mod prepare;
mod validate;

pub(super) use self::parts::RunningParts;
