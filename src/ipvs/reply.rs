//! The kernel's answers.

use super::address::IpvsFamily;
use super::attribute::{AttributeList, IpvsDecodeError};
use super::daemon::{IpvsDaemon, IpvsInfo, IpvsTimeouts};
use super::destination::IpvsDestinationStatus;
use super::service::IpvsServiceStatus;

/// One object of an answer.
#[derive(Clone, Debug, Eq, PartialEq)]
pub(super) enum IpvsReply {
    Service(IpvsServiceStatus),
    Destination(IpvsDestinationStatus),
    Daemon(IpvsDaemon),
    Timeouts(IpvsTimeouts),
    Info(IpvsInfo),
}

impl IpvsReply {
    /// Decodes the message of a command. `service_family` is that of the service whose destinations
    /// were asked for: kernels before 3.18 leave a destination's out. A command that is no answer gives
    /// `None`.
    pub(super) fn decode(
        command: u8,
        attributes: &[u8],
        service_family: IpvsFamily,
    ) -> Result<Option<Self>, IpvsDecodeError> {
        let list = AttributeList::parse(attributes)?;
        Ok(Some(match command {
            1 => Self::Service(IpvsServiceStatus::decode(&list)?),
            5 => Self::Destination(IpvsDestinationStatus::decode(&list, service_family)?),
            9 => Self::Daemon(IpvsDaemon::decode(&list)?),
            12 => Self::Timeouts(IpvsTimeouts::decode(&list)?),
            14 => Self::Info(IpvsInfo::decode(&list)?),
            _ => return Ok(None),
        }))
    }
}

#[cfg(test)]
mod tests;
