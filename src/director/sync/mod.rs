//! State synchronization: the standby director follows what the active one knows.
//!
//! Both directors run [`RunningSync`]: it listens for a standby and publishes to it while this
//! director is active, and follows the other director while this one is standby.

mod active;
mod channel;
mod flow_publisher;
mod message;
mod run;
mod standby;
mod state;
mod table_difference;
mod takeover;

pub(super) use self::run::RunningSync;
pub use self::state::SyncStatus;
pub(super) use self::state::SyncStatusSlot;
