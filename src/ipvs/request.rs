//! What the kernel can be asked for: each command of the IPVS family, with the object that it is about.

use std::fmt;
use std::net::SocketAddr;

use netlink_packet_core::DefaultNla;

use super::address::IpvsFamily;
use super::attribute::emit;
use super::daemon::{IpvsDaemon, IpvsDaemonState, IpvsTimeouts};
use super::destination::IpvsDestination;
use super::message::GenericMessage;
use super::service::{IpvsService, IpvsServiceKey};
use crate::setting::SettingError;

/// A request to the kernel's IPVS.
///
/// Its text names the command and the object: `add destination 10.0.0.2:80 to service TCP 10.0.0.1:80`.
#[derive(Clone, Debug, Eq, Hash, PartialEq)]
#[non_exhaustive]
pub enum IpvsRequest {
    /// Adds a service, without destinations.
    AddService(IpvsService),
    /// Changes everything of a service but its key.
    EditService(IpvsService),
    /// Removes a service with its destinations.
    RemoveService(IpvsServiceKey),
    /// Reads one service.
    GetService(IpvsServiceKey),
    /// Reads all services.
    ListServices,
    /// Adds a destination to a service.
    AddDestination {
        /// The service.
        service: IpvsServiceKey,
        /// The destination.
        destination: IpvsDestination,
    },
    /// Changes everything of a destination but its address.
    EditDestination {
        /// The service.
        service: IpvsServiceKey,
        /// The destination.
        destination: IpvsDestination,
    },
    /// Removes a destination from a service.
    RemoveDestination {
        /// The service.
        service: IpvsServiceKey,
        /// The address of the destination.
        address: SocketAddr,
    },
    /// Reads the destinations of a service. Of a service that is not there, there are none.
    ListDestinations(IpvsServiceKey),
    /// Starts a synchronization daemon.
    StartDaemon(IpvsDaemon),
    /// Stops a synchronization daemon.
    StopDaemon(IpvsDaemonState),
    /// Reads which synchronization daemons run.
    ListDaemons,
    /// Sets the timeouts that are not 0.
    SetTimeouts(IpvsTimeouts),
    /// Reads the timeouts.
    GetTimeouts,
    /// Reads the version.
    GetInfo,
    /// Sets the counters of a service and its destinations to 0, or all that there are.
    ZeroCounters(Option<IpvsServiceKey>),
    /// Removes all services.
    Flush,
}

impl IpvsRequest {
    /// Returns the key of the service that the request is about, or whose destination it is about.
    #[must_use]
    pub const fn service(&self) -> Option<IpvsServiceKey> {
        match self {
            Self::AddService(service) | Self::EditService(service) => Some(service.key),
            Self::RemoveService(key)
            | Self::GetService(key)
            | Self::ListDestinations(key)
            | Self::ZeroCounters(Some(key))
            | Self::AddDestination { service: key, .. }
            | Self::EditDestination { service: key, .. }
            | Self::RemoveDestination { service: key, .. } => Some(*key),
            Self::ListServices
            | Self::StartDaemon(_)
            | Self::StopDaemon(_)
            | Self::ListDaemons
            | Self::SetTimeouts(_)
            | Self::GetTimeouts
            | Self::GetInfo
            | Self::ZeroCounters(None)
            | Self::Flush => None,
        }
    }

    /// Tells whether the answer is a list of objects.
    pub(super) const fn is_dump(&self) -> bool {
        matches!(self, Self::ListServices | Self::ListDestinations(_) | Self::ListDaemons)
    }

    /// Returns the family of the service that the request is about.
    pub(super) const fn service_family(&self) -> IpvsFamily {
        match self {
            Self::ListDestinations(key) => key.family(),
            _ => IpvsFamily::V4,
        }
    }

    /// Encodes the request for the family with this number.
    ///
    /// # Errors
    /// If a value does not fit into the message.
    pub(super) fn encode(&self, family_id: u16) -> Result<GenericMessage, SettingError> {
        let attributes = emit(&self.attributes()?);
        Ok(GenericMessage { family_id, command: self.command(), attributes })
    }

    const fn command(&self) -> u8 {
        match self {
            Self::AddService(_) => 1,
            Self::EditService(_) => 2,
            Self::RemoveService(_) => 3,
            Self::GetService(_) | Self::ListServices => 4,
            Self::AddDestination { .. } => 5,
            Self::EditDestination { .. } => 6,
            Self::RemoveDestination { .. } => 7,
            Self::ListDestinations(_) => 8,
            Self::StartDaemon(_) => 9,
            Self::StopDaemon(_) => 10,
            Self::ListDaemons => 11,
            Self::SetTimeouts(_) => 12,
            Self::GetTimeouts => 13,
            // 14 is the answer to 15.
            Self::GetInfo => 15,
            Self::ZeroCounters(_) => 16,
            Self::Flush => 17,
        }
    }

    fn attributes(&self) -> Result<Vec<DefaultNla>, SettingError> {
        Ok(match self {
            Self::AddService(service) | Self::EditService(service) => vec![service.encode()?],
            Self::RemoveService(key)
            | Self::GetService(key)
            | Self::ListDestinations(key)
            | Self::ZeroCounters(Some(key)) => vec![key.encode()?],
            Self::AddDestination { service, destination }
            | Self::EditDestination { service, destination } => {
                vec![service.encode()?, destination.encode(service.family())?]
            }
            Self::RemoveDestination { service, address } => {
                vec![service.encode()?, IpvsDestination::encode_key(*address, service.family())?]
            }
            Self::StartDaemon(daemon) => vec![daemon.encode()?],
            Self::StopDaemon(state) => vec![state.encode()],
            Self::SetTimeouts(timeouts) => timeouts.encode().to_vec(),
            Self::ListServices
            | Self::ListDaemons
            | Self::GetTimeouts
            | Self::GetInfo
            | Self::ZeroCounters(None)
            | Self::Flush => Vec::new(),
        })
    }
}

impl fmt::Display for IpvsRequest {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::AddService(service) => write!(f, "add service {}", service.key),
            Self::EditService(service) => write!(f, "edit service {}", service.key),
            Self::RemoveService(key) => write!(f, "remove service {key}"),
            Self::GetService(key) => write!(f, "read service {key}"),
            Self::ListServices => f.write_str("list services"),
            Self::AddDestination { service, destination } => {
                write!(f, "add destination {} to service {service}", destination.address)
            }
            Self::EditDestination { service, destination } => {
                write!(f, "edit destination {} of service {service}", destination.address)
            }
            Self::RemoveDestination { service, address } => {
                write!(f, "remove destination {address} from service {service}")
            }
            Self::ListDestinations(key) => write!(f, "list destinations of service {key}"),
            Self::StartDaemon(daemon) => {
                write!(f, "start {} sync daemon on {}", daemon.state, daemon.interface)
            }
            Self::StopDaemon(state) => write!(f, "stop {state} sync daemon"),
            Self::ListDaemons => f.write_str("list sync daemons"),
            Self::SetTimeouts(_) => f.write_str("set timeouts"),
            Self::GetTimeouts => f.write_str("read timeouts"),
            Self::GetInfo => f.write_str("read the version"),
            Self::ZeroCounters(Some(key)) => write!(f, "zero the counters of service {key}"),
            Self::ZeroCounters(None) => f.write_str("zero all counters"),
            Self::Flush => f.write_str("remove all services"),
        }
    }
}
