//! The seam between a director and the engines that carry traffic outside of its process.
//!
//! An engine is asked for a virtual service at one address, or for one firewall mark, by an
//! [`EngineRequest`], a plain value, and follows the service's backend set by itself: it subscribes to the
//! publications of [the balancer's set](crate::Balancer::backend_set), so that health, weights, drains,
//! limits and discovery need nothing from the director. No publication waits for an engine.
//!
//! | step | what happens | what may fail |
//! |---|---|---|
//! | [`Engine::claim`] | the engine checks that it can serve the request; nothing changes | everything that can be known |
//! | [`EngineClaim::begin`] | the engine serves the address | the kernel's refusal |
//! | [`EngineService::drain`] | no new connections; those that are open go on for a time | |
//! | [`EngineService::hand_over`] | everything stays as it is, for a successor | |
//!
//! A claim of an address that the engine serves already replaces the service in place: the kernel's
//! connections and counters stay. The service that was replaced is handed over, not drained.
//!
//! Health checks of the clients' way to a backend need a firewall mark: an engine fills the
//! [`CheckMarks`] of a request that has some.
//!
//! Counters that an engine cannot know are [absent](EngineCounters), and never 0.

mod address;
mod check_marks;
mod counters;
mod entry;
mod error;
mod flow_record;
mod request;
#[cfg(all(target_os = "linux", any(feature = "ipvs", feature = "packet")))]
mod shared_service;

use std::fmt;
use std::task::{Context, Poll};
use std::time::Duration;

pub use self::address::{EngineAddress, EngineProtocol, FirewallMark};
pub use self::check_marks::{CheckMark, CheckMarks};
pub use self::counters::{EngineCounters, EngineServerCounters};
pub use self::entry::{EngineEntry, EngineEntryKind, EngineEntryOrigin};
pub use self::error::EngineError;
pub use self::flow_record::{EngineFlowCallback, EngineFlowEnd, EngineFlowRecord};
pub use self::request::{
    EnginePersistence, EngineRequest, ForwardingMethod, ForwardingMethods, TunnelChecksum,
    TunnelKind,
};
#[cfg(all(target_os = "linux", any(feature = "ipvs", feature = "packet")))]
pub(crate) use self::shared_service::SharedService;

/// An engine of a director. A director has one of each kind, for all its services.
pub trait Engine: fmt::Debug + Send + Sync {
    /// Returns the engine's name in a configuration.
    fn name(&self) -> &'static str;

    /// Checks that the engine can serve a request, and changes nothing.
    ///
    /// # Errors
    /// [`EngineError::Refused`] names what the engine cannot do.
    fn claim(&self, request: EngineRequest) -> Result<Box<dyn EngineClaim>, EngineError>;
}

/// A request that an engine can serve. Dropped, it changes nothing.
pub trait EngineClaim: fmt::Debug + Send {
    /// Serves the request. When this returns, new connections are carried by the engine.
    ///
    /// # Errors
    /// [`EngineError`] if the kernel refuses the service; nothing is served then.
    fn begin(self: Box<Self>) -> Result<Box<dyn EngineService>, EngineError>;
}

/// A virtual service that an engine serves at one address. Dropped without
/// [`hand_over`](Self::hand_over), it ends at once with its connections.
pub trait EngineService: fmt::Debug + Send + Sync {
    /// Gives the service no new connections, and ends it when those that are open have ended, or after a
    /// time with those that are left. Returns at once.
    fn drain(&self, within: Duration, new_connections: NewConnections);

    /// Stops following the set, and leaves the service to a claim of the same address, of this process
    /// or of the next.
    fn hand_over(&self);

    /// Polls for the end of the service: the engine has nothing left to do for it. Only the waker of the
    /// last call is woken.
    fn poll_finished(&self, context: &mut Context<'_>) -> Poll<EngineDrainReport>;

    /// Returns the newest counters, without asking the kernel.
    fn counters(&self) -> EngineCounters;

    /// Returns entries of the service's table, `limit` at most; none when the service has ended.
    ///
    /// Asks the kernel and blocks meanwhile: call it on a thread that may block, and not for several
    /// services at a time.
    ///
    /// # Errors
    /// [`EngineError::Entries`] if the table cannot be read.
    fn entries(&self, kind: EngineEntryKind, limit: usize)
    -> Result<Vec<EngineEntry>, EngineError>;
}

/// What becomes of new connections while a service drains.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
#[non_exhaustive]
pub enum NewConnections {
    /// They are refused.
    Refused,
    /// They go to a socket of this machine that listens on the virtual address.
    Local,
}

/// How the connections of a service ended.
#[derive(Clone, Copy, Debug, Default, Eq, PartialEq)]
#[non_exhaustive]
pub struct EngineDrainReport {
    /// Connections that ended by themselves.
    pub finished: u64,
    /// Connections that were left when the service ended.
    pub cut: u64,
}
