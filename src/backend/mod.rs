//! Who can serve: the set of backends, what is known of each, and how readers see it.
//!
//! - [`BackendSet`] is the writer. Each change (or each [`SetEdit`] of several) publishes one new
//!   [`Snapshot`] to every balancer made from the set.
//! - A [`Backend`] is a stable name ([`BackendId`]), a target of the caller's own type, and an
//!   account of work: [`Load`], [`OutcomeCounts`], [`TrafficEstimate`]. The account outlives every change of
//!   weight, state, address and table.
//! - [`Members`] is the part of a snapshot that schedulers see: a list in the kernel's order,
//!   newest first.
//!
//! # Who may be chosen
//! | [`BackendState`] | new work | existing work | set by |
//! |---|---|---|---|
//! | `Eligible` | yes | goes on | |
//! | `Quiesced` | no | goes on | weight 0 |
//! | `Draining` | no | goes on, affinity ends | the operator |
//! | `Down` | no | its owner decides | a checker |
//! | `Ejected` | no | its owner decides | its own traffic |
//! | `Withheld` | no | goes on | a lost [`Quorum`] |
//! | `Disabled` | no | its owner decides | the operator |
//!
//! Where too few are healthy, a [`FailMode`] may make those that are not eligible all the same.
//! Besides, a backend at its [`Limits`] is passed over until it has fallen below them.
//!
//! Nothing here knows a runtime or reads a clock: time is an argument.

mod account;
mod advice;
mod alarm;
mod board;
mod draft;
mod edit;
mod error;
mod estimate;
mod fail_mode;
mod id;
mod lane;
mod load;
mod member;
mod outcome;
mod quorum;
#[cfg(feature = "health")]
mod saved;
mod set;
mod slow_start;
mod snapshot;
mod spec;
mod state;
mod status;
mod timeline;

pub(crate) use self::account::{BackendAccount, SetContext};
#[cfg(feature = "health")]
pub(crate) use self::alarm::{FailureStreak, TrialState};
pub(crate) use self::set::{SnapshotCommit, SnapshotReader};

pub use self::advice::{AgentOverride, AgentWeight};
pub use self::edit::SetEdit;
pub use self::error::SetError;
pub use self::estimate::TrafficEstimate;
pub(crate) use self::estimate::{CoarseInstant, RawTrafficEstimate};
pub use self::fail_mode::FailMode;
pub use self::id::BackendId;
pub use self::load::{Limits, Load};
pub(crate) use self::member::PickView;
pub use self::member::{Member, Members};
pub use self::outcome::{Outcome, OutcomeCounts};
pub use self::quorum::Quorum;
#[cfg(feature = "health")]
#[cfg_attr(docsrs, doc(cfg(feature = "health")))]
pub use self::saved::SavedBackend;
pub use self::set::BackendSet;
pub use self::slow_start::SlowStart;
pub(crate) use self::snapshot::LeaseHandle;
pub use self::snapshot::{Backend, Snapshot};
pub use self::spec::Spec;
pub use self::state::{BackendAdminState, BackendState, Health, OutlierState};
pub use self::status::BackendStatus;

/// The largest weight of a backend, that of `ipvsadm`.
pub const MAX_WEIGHT: u32 = 65_535;

/// The most backends a set holds.
pub const MAX_BACKENDS: usize = 65_536;
