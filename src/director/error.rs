//! The errors of a director.

use std::io;
use std::net::{IpAddr, SocketAddr};
use std::path::PathBuf;

use thiserror::Error;

use crate::announce::AnnounceStartError;
use crate::backend::SetError;
use crate::engine::EngineError;
use crate::forward::ForwardError;
use crate::health::HealthPlanError;
use crate::runtime::RuntimeError;
use crate::scheduler::SchedulerRegistryError;
use crate::setting::SettingError;
use crate::vrrp::VrrpStartError;

/// The reason for which a director cannot start, reload, or edit a server. Printed, it names what
/// failed, with its cause.
#[derive(Debug, Error)]
#[non_exhaustive]
pub enum DirectorError {
    /// The tokio runtime lacks what a director needs.
    #[error(transparent)]
    Runtime(#[from] RuntimeError),
    /// A service cannot be set up or changed.
    #[error("service {service}: {source}")]
    Service {
        /// The name of the service.
        service: String,
        /// The cause.
        source: ServiceError,
    },
    /// The worker threads that services share cannot be started.
    #[error("`workers`: {0}")]
    Workers(#[source] ForwardError),
    /// The election for the virtual addresses cannot be started.
    #[error("[vrrp]: {0}")]
    Vrrp(#[from] VrrpStartError),
    /// The announcements cannot be started or changed.
    #[error("[announce]: {0}")]
    Announce(#[from] AnnounceStartError),
    /// An operator's mode for announcements that there are not.
    #[error("this director announces no addresses: its configuration has no [announce]")]
    NoAnnouncements,
    /// The system starts no thread for the events of the election.
    #[error("[vrrp]: cannot start a thread: {source}")]
    VrrpThread {
        /// The system's error.
        source: io::Error,
    },
    /// The address of the admin server, or of state synchronization, cannot be listened on.
    #[error("[{table}]: cannot listen on {address}: {source}")]
    Listen {
        /// The table of the configuration: `admin` or `sync`.
        table: &'static str,
        /// The address.
        address: SocketAddr,
        /// The system's error.
        source: io::Error,
    },
    /// The system starts no thread for the admin server.
    #[error("[admin]: cannot start a thread: {source}")]
    AdminThread {
        /// The system's error.
        source: io::Error,
    },
    /// The socket for a successor cannot be opened, or the predecessor does not hand over.
    #[error("cannot use handover socket {}: {source}", path.display())]
    Handover {
        /// The path of the socket.
        path: PathBuf,
        /// The system's error, or what the predecessor did wrong.
        source: io::Error,
    },
    /// A resource that the priority depends on cannot be tracked.
    #[error("[[vrrp.track]] {track:?}: {reason}")]
    Track {
        /// The name of the track.
        track: String,
        /// The reason.
        reason: String,
    },
    /// The service already has this server.
    #[error("service {service} already has server {server}")]
    ServerExists {
        /// The name of the service.
        service: String,
        /// The server.
        server: SocketAddr,
    },
    /// There is no service of this name.
    #[error("there is no service {0:?}")]
    NoService(String),
    /// The service has no such server.
    #[error("service {service} has no server {server:?}")]
    NoServer {
        /// The name of the service.
        service: String,
        /// The address or the name that was asked for.
        server: String,
    },
    /// The reload panicked, which is a fault of this crate or of a scheduler, check or source of the
    /// program.
    #[error("the reload panicked: {message}")]
    Panic {
        /// The message of the panic.
        message: String,
    },
    /// Several servers of the service have this name.
    #[error(
        "service {service} has several servers {server:?}: use one of the addresses {addresses:?}"
    )]
    AmbiguousServer {
        /// The name of the service.
        service: String,
        /// The name that was asked for.
        server: String,
        /// The addresses of the servers that have the name.
        addresses: Vec<SocketAddr>,
    },
    /// An operator's change of a standby that follows an active director would change nothing there.
    #[error("this director is standby: change the servers at the active one; sync peer: {peer}")]
    Standby {
        /// The address of the other director in the table `[sync]`.
        peer: SocketAddr,
    },
    /// The running engine does not apply changed keys of `[packet]`.
    #[error("[packet]: the running engine keeps its values of {}: restart the director to change them", keys.join(", "))]
    PacketRestart {
        /// The names of the keys.
        keys: Vec<&'static str>,
    },
    /// The director has been stopped.
    #[error("the director has been stopped")]
    Stopped,
}

/// The reason for which a service cannot be set up or changed.
#[derive(Debug, Error)]
#[non_exhaustive]
pub enum ServiceError {
    /// A listener cannot be opened.
    #[error(transparent)]
    Forward(#[from] ForwardError),
    /// The engine cannot serve an address.
    #[error(transparent)]
    Engine(#[from] EngineError),
    /// A Unix listener cannot be opened.
    #[error("cannot listen on {}: {source}", path.display())]
    Unix {
        /// The path.
        path: PathBuf,
        /// The system's error.
        source: io::Error,
    },
    /// The set refuses the servers, or the scheduler cannot schedule them.
    #[error(transparent)]
    Set(#[from] SetError),
    /// A setting is out of its range.
    #[error(transparent)]
    Setting(#[from] SettingError),
    /// The scheduler's name or parameters are wrong.
    #[error(transparent)]
    Scheduler(#[from] SchedulerRegistryError),
    /// The health checks are wrong.
    #[error(transparent)]
    Checks(#[from] HealthPlanError),
    /// The kernel would drop what a server answers to a check of the virtual address, and the server would be
    /// down for as long as this director has the address.
    #[error(
        "the check of server {server} at the virtual address {virtual_address}: its answers come from an \
         address of this machine, and the kernel drops them; set {setting} = {value}"
    )]
    CheckAnswers {
        /// The server.
        server: SocketAddr,
        /// The virtual address.
        virtual_address: IpAddr,
        /// The name of the setting of the kernel.
        setting: String,
        /// The value that it needs.
        value: u8,
    },
    /// The configuration of health checks or discovery is wrong.
    #[error("{0}")]
    Config(String),
}
