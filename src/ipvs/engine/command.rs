//! What the owner of a service and the thread of the engine say to each other.

use std::sync::Arc;
use std::sync::mpsc::SyncSender;
use std::time::Duration;

use super::settings::IpvsSettings;
use crate::engine::{EngineRequest, NewConnections, SharedService};
use crate::ipvs::daemon::IpvsDaemon;
use crate::ipvs::error::IpvsError;
use crate::ipvs::service::{IpvsService, IpvsServiceKey};

/// The engine's name in a configuration.
pub(super) const ENGINE: &str = "ipvs";

/// What the owners of services ask of the thread.
pub(super) enum EngineCommand {
    /// Serves a request, in place of the service that has the same key.
    Begin {
        request: Box<EngineRequest>,
        service: IpvsService,
        owner: Arc<SharedService>,
        reply: SyncSender<Result<(), IpvsError>>,
    },
    /// Drains a service and removes it, if it is still this owner's.
    Drain {
        key: IpvsServiceKey,
        owner: Arc<SharedService>,
        within: Duration,
        new_connections: NewConnections,
    },
    /// Forgets a service, and leaves it in the kernel.
    HandOver(IpvsServiceKey, Arc<SharedService>),
    /// Changes the settings.
    Configure(IpvsSettings),
    /// Runs this synchronization daemon and no other.
    RunDaemon(Option<IpvsDaemon>),
    /// A set has changed.
    SetChanged,
    /// Ends the thread, and leaves everything in the kernel.
    Stop,
}
