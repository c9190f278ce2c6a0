//! Why a director cannot run, or cannot do what it is asked.

use std::io;
use std::net::SocketAddr;
use std::path::PathBuf;

use thiserror::Error;

use crate::backend::SetError;
use crate::forward::ForwardError;
use crate::health::HealthPlanError;
use crate::scheduler::SchedulerRegistryError;
use crate::vrrp::VrrpStartError;

/// Why a director cannot run, or cannot do what it is asked.
#[derive(Debug, Error)]
#[non_exhaustive]
pub enum DirectorError {
    /// A service cannot be set up.
    #[error("service {service:?}")]
    Service {
        /// Which.
        service: String,
        /// Why.
        source: ServiceError,
    },
    /// The virtual addresses cannot be had.
    #[error("[vrrp]")]
    Vrrp(#[from] VrrpStartError),
    /// An address for the admin pages, or for the standby, cannot be listened on.
    #[error("[{table}] cannot listen on {address}")]
    Listen {
        /// Which of the two.
        table: &'static str,
        /// The address.
        address: SocketAddr,
        /// What the system said.
        source: io::Error,
    },
    /// The system gives no thread for the admin pages.
    #[error("[admin] no thread")]
    AdminThread {
        /// What it said.
        source: io::Error,
    },
    /// Listeners cannot be handed over, or taken over.
    #[error("handover at {}", path.display())]
    Handover {
        /// The path of the socket.
        path: PathBuf,
        /// What the system said, or the other director.
        source: io::Error,
    },
    /// What the priority depends on cannot be looked at.
    #[error("[[vrrp.track]] {track:?}: {reason}")]
    Track {
        /// Which.
        track: String,
        /// Why.
        reason: String,
    },
    /// The service has this server already.
    #[error("service {service:?} has server {server} already")]
    ServerExists {
        /// The service.
        service: String,
        /// The server.
        server: SocketAddr,
    },
    /// There is no service of this name.
    #[error("there is no service {0:?}")]
    NoService(String),
    /// The service has no server of this name.
    #[error("service {service:?} has no server {server:?}")]
    NoServer {
        /// The service.
        service: String,
        /// What was asked for.
        server: String,
    },
}

/// What is wrong with a service.
#[derive(Debug, Error)]
#[non_exhaustive]
pub enum ServiceError {
    /// Its listener.
    #[error(transparent)]
    Forward(#[from] ForwardError),
    /// Its listener on a path.
    #[error("cannot listen on {}", path.display())]
    Unix {
        /// The path.
        path: PathBuf,
        /// What the system said.
        source: io::Error,
    },
    /// Its servers, or that its scheduler cannot use them.
    #[error(transparent)]
    Set(#[from] SetError),
    /// Its scheduler.
    #[error(transparent)]
    Scheduler(#[from] SchedulerRegistryError),
    /// Its checks.
    #[error(transparent)]
    Checks(#[from] HealthPlanError),
    /// What its configuration says of checks, or of where servers come from.
    #[error("{0}")]
    Config(String),
}
