//! The kernel's own load balancer, IPVS: its virtual services, destinations, counters and daemons, read
//! and changed by netlink.
//!
//! [`IpvsClient`] sends an [`IpvsRequest`] and returns plain values: [`IpvsService`],
//! [`IpvsDestination`], [`IpvsStats`], [`IpvsDaemon`], [`IpvsTimeouts`]. It has every command and every
//! attribute of the kernel's interface, for IPv4 and IPv6. Attributes of later kernels are ignored, and
//! numbers that have no name here are kept (`Other`).
//!
//! [`IpvsClient::reconcile`] makes the kernel's services what an [`IpvsTable`] says, with the fewest changes
//! in a safe order, and leaves those of other programs alone.
//!
//! [`IpvsSyncMessage`] parses and encodes what the kernels' synchronization daemons tell each other.
//!
//! For Linux only; the kernel's module `ip_vs` must be loaded, and changing needs `CAP_NET_ADMIN`.
//!
//! # What the interface has not
//! There are no notifications of changes, no transactions, and no way to list or to end connections:
//! those are in `/proc/net/ip_vs_conn` only, whose lines [`IpvsConnection`] parses. Each change is a request
//! of its own.

mod address;
mod attribute;
mod captured_request;
mod client;
mod connection;
mod daemon;
mod desired;
mod destination;
mod engine;
mod error;
mod exchange;
#[cfg(fuzzing)]
pub mod fuzzing;
mod message;
mod reconcile;
mod reply;
mod request;
mod scheduler;
mod service;
mod stats;
mod sync_connection;
mod sync_message;
mod table;

pub use self::address::IpvsFamily;
pub use self::attribute::IpvsDecodeError;
pub use self::client::IpvsClient;
pub use self::connection::{IpvsConnection, IpvsConnectionOrigin};
pub use self::daemon::{IpvsDaemon, IpvsDaemonState, IpvsInfo, IpvsTimeouts};
pub use self::destination::{
    IpvsDestination, IpvsDestinationStatus, IpvsForwarding, IpvsTunnel, IpvsTunnelChecksum,
};
pub use self::engine::{IPVS_CHECK_MARK_COUNT, IpvsEngine, IpvsSettings};
pub use self::error::IpvsError;
pub use self::reconcile::{IpvsReconcileReport, plan_changes};
pub use self::request::IpvsRequest;
#[cfg(feature = "director")]
pub(crate) use self::scheduler::kernel_scheduler;
pub use self::service::{
    IpvsNetmask, IpvsPersistence, IpvsProtocol, IpvsSchedulerFlags, IpvsService, IpvsServiceKey,
    IpvsServiceStatus,
};
pub use self::stats::IpvsStats;
pub use self::sync_connection::{IpvsSequence, IpvsSyncConnection, IpvsSyncError};
pub use self::sync_message::IpvsSyncMessage;
pub use self::table::IpvsTable;
