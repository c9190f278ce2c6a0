//! The backends of a service: their set, what is known of each, and the snapshots that readers see.
//!
//! - [`BackendSet`] is the writer. Each change, or each [`SetEdit`] of several changes, publishes one
//!   new [`Snapshot`] to every balancer of the set.
//! - A [`Backend`] is a stable name ([`BackendId`]), a target of the caller's own type, and an
//!   account of its work: [`Load`], [`OutcomeCounts`], [`TrafficEstimate`]. The account stays the
//!   same through every change of weight, state, address and table.
//! - [`Members`] is the part of a snapshot that schedulers read: a list in the kernel's order, with
//!   the newest backend first.
//!
//! # Which backends may be chosen
//! | [`BackendState`] | new work | existing work | set by |
//! |---|---|---|---|
//! | `Eligible` | yes | goes on | |
//! | `Quiesced` | no | goes on | weight 0 |
//! | `Draining` | no | goes on, persistence ends | the operator |
//! | `Down` | no | its owner decides | health checks |
//! | `Ejected` | no | its owner decides | outlier detection |
//! | `Withheld` | no | goes on | a [`Quorum`] that is not met |
//! | `Disabled` | no | its owner decides | the operator |
//!
//! When too few backends are healthy, a [`FailMode`] may make unhealthy ones eligible. A backend that
//! has reached its [`Limits`] gets no new work until its connections fall below the lower limit.
//!
//! This module knows no runtime and reads no clock: time is an argument.

mod account;
mod agent_override;
mod coarse_clock;
mod counter_lane;
mod edit;
mod error;
mod estimate;
mod fail_mode;
mod id;
mod load;
mod load_versions;
mod member;
mod outcome;
mod passive_health;
mod quorum;
#[cfg(feature = "health")]
mod saved_backend;
mod set;
mod set_state;
mod slow_start;
mod snapshot;
mod spec;
mod state;
mod status;
mod subscription;
mod writing_thread;
mod zone;

pub(crate) use self::account::{BackendAccount, SetContext};
#[cfg(feature = "health")]
pub(crate) use self::passive_health::{FailureStreak, TrialState};
pub(crate) use self::set::{SnapshotCommit, SnapshotReader};

pub use self::agent_override::{AgentOverride, AgentWeight};
pub use self::edit::SetEdit;
#[cfg(feature = "director")]
pub(crate) use self::edit::validate_weight;
pub use self::error::SetError;
pub use self::estimate::TrafficEstimate;
pub(crate) use self::estimate::{CoarseInstant, RawTrafficEstimate};
pub use self::fail_mode::FailMode;
#[cfg(feature = "director")]
pub(crate) use self::fail_mode::panic_percent_error;
pub use self::id::BackendId;
pub use self::load::{Limits, Load, MAX_CONNECTION_LIMIT};
pub(crate) use self::member::PickView;
pub use self::member::{Member, Members};
pub use self::outcome::{Outcome, OutcomeCounts};
pub use self::quorum::Quorum;
#[cfg(feature = "health")]
#[cfg_attr(docsrs, doc(cfg(feature = "health")))]
pub use self::saved_backend::SavedBackend;
pub use self::set::BackendSet;
pub use self::slow_start::SlowStart;
pub(crate) use self::snapshot::LeaseHandle;
pub use self::snapshot::{Backend, Snapshot};
pub use self::spec::Spec;
pub(crate) use self::state::InitialHealthRule;
pub use self::state::{BackendAdminState, BackendState, Health, OutlierState};
pub use self::status::BackendStatus;
pub use self::subscription::SetSubscription;
pub use self::zone::Zone;

/// The largest weight of a backend, as in `ipvsadm`.
pub const MAX_WEIGHT: u32 = 65_535;

/// The most backends that a set holds.
pub const MAX_BACKENDS: usize = 65_536;
