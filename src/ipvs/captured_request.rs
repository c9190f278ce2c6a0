//! Requests of other programs, decoded.

use netlink_packet_core::{NLM_F_DUMP, NetlinkMessage, NetlinkPayload};

use super::attribute::{AttributeList, IpvsDecodeError};
use super::daemon::{IpvsDaemon, IpvsDaemonState, IpvsTimeouts};
use super::destination::{IpvsDestination, IpvsDestinationStatus};
use super::message::GenericMessage;
use super::request::IpvsRequest;
use super::service::{IpvsServiceKey, IpvsServiceStatus};

impl IpvsRequest {
    /// Decodes a netlink message to the kernel's IPVS, such as one of `ipvsadm` or keepalived that was
    /// captured on an interface of the kind `nlmon`.
    ///
    /// What the kernel has no use for is left out: those programs describe a service in full wherever
    /// they name one, and give every destination the attributes of a tunnel. That the message is one to
    /// IPVS, whose number the kernel chooses, is for the caller to know.
    ///
    /// # Errors
    /// [`IpvsDecodeError::NoRequest`] for a command that IPVS does not have; the others for a message that
    /// is malformed or lacks something.
    ///
    /// # Examples
    /// ```
    /// use lvs::ipvs::IpvsRequest;
    ///
    /// // A header of netlink and one of generic netlink, without attributes.
    /// let message = [20, 0, 0, 0, 25, 0, 5, 0, 1, 0, 0, 0, 0, 0, 0, 0, 17, 1, 0, 0];
    /// # #[cfg(target_endian = "little")]
    /// assert_eq!(IpvsRequest::decode(&message), Ok(IpvsRequest::Flush));
    /// ```
    pub fn decode(message: &[u8]) -> Result<Self, IpvsDecodeError> {
        let message = NetlinkMessage::<GenericMessage>::deserialize(message)
            .map_err(|_| IpvsDecodeError::Truncated)?;
        let is_dump = message.header.flags & NLM_F_DUMP == NLM_F_DUMP;
        let NetlinkPayload::InnerMessage(message) = message.payload else {
            return Err(IpvsDecodeError::NoRequest);
        };
        let list = AttributeList::parse(&message.attributes)?;
        let named = IpvsServiceKey::decode_named(&list)?;
        let key = || named.ok_or(IpvsDecodeError::Missing("IPVS_CMD_ATTR_SERVICE"));
        let service = || IpvsServiceStatus::decode(&list).map(|status| status.service);
        let destination = |service: IpvsServiceKey| {
            let status = IpvsDestinationStatus::decode(&list, service.family());
            status.map(|status| status.destination)
        };
        Ok(match message.command {
            1 => Self::AddService(service()?),
            2 => Self::EditService(service()?),
            3 => Self::RemoveService(key()?),
            4 if is_dump => Self::ListServices,
            4 => Self::GetService(key()?),
            5 => {
                let service = key()?;
                Self::AddDestination { service, destination: destination(service)? }
            }
            6 => {
                let service = key()?;
                Self::EditDestination { service, destination: destination(service)? }
            }
            7 => {
                let service = key()?;
                let address = IpvsDestination::decode_key(&list, service.family())?;
                Self::RemoveDestination { service, address }
            }
            8 => Self::ListDestinations(key()?),
            9 => Self::StartDaemon(IpvsDaemon::decode(&list)?),
            10 => Self::StopDaemon(IpvsDaemonState::decode(&list)?),
            11 => Self::ListDaemons,
            12 => Self::SetTimeouts(IpvsTimeouts::decode(&list)?),
            13 => Self::GetTimeouts,
            15 => Self::GetInfo,
            16 => Self::ZeroCounters(named),
            17 => Self::Flush,
            _ => return Err(IpvsDecodeError::NoRequest),
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::ipvs::{IpvsForwarding, IpvsService, IpvsTunnel};

    fn message(request: &IpvsRequest) -> Vec<u8> {
        request.encode(25).expect("the values fit").encode(1, request.is_dump())
    }

    fn every_request() -> Vec<IpvsRequest> {
        use IpvsRequest as R;
        let service = IpvsServiceKey::tcp("10.0.0.1:80".parse().expect("an address"));
        let destination = IpvsDestination::new(
            "[2001:db8::1]:80".parse().expect("an address"),
            IpvsForwarding::Tunnel(IpvsTunnel::Ipip),
        );
        let address = destination.address;
        vec![
            R::AddService(IpvsService::new(service, "wlc")),
            R::EditService(IpvsService::new(service, "rr")),
            R::RemoveService(service),
            R::GetService(service),
            R::ListServices,
            R::AddDestination { service, destination: destination.clone() },
            R::EditDestination { service, destination },
            R::RemoveDestination { service, address },
            R::ListDestinations(service),
            R::StartDaemon(IpvsDaemon::new(IpvsDaemonState::Backup, "eth0", 7)),
            R::StopDaemon(IpvsDaemonState::Master),
            R::ListDaemons,
            R::SetTimeouts(IpvsTimeouts::new(1, 2, 3)),
            R::GetTimeouts,
            R::GetInfo,
            R::ZeroCounters(Some(service)),
            R::ZeroCounters(None),
            R::Flush,
        ]
    }

    #[test]
    fn every_request_is_decoded_from_its_message() {
        for request in every_request() {
            assert_eq!(IpvsRequest::decode(&message(&request)), Ok(request));
        }
    }

    #[test]
    fn a_message_that_is_cut_is_another_request_or_an_error() {
        for request in every_request() {
            let whole = message(&request);
            for end in 0..whole.len() {
                assert_ne!(IpvsRequest::decode(&whole[..end]), Ok(request.clone()));
            }
        }
    }

    #[test]
    fn answers_and_commands_of_others_are_no_requests() {
        for (command, kind) in [(14, 25), (0, 25), (18, 25), (1, 3)] {
            let mut bytes = message(&IpvsRequest::Flush);
            bytes[16] = command;
            bytes[4..6].copy_from_slice(&u16::to_ne_bytes(kind));
            let result = IpvsRequest::decode(&bytes);
            assert_eq!(result, Err(IpvsDecodeError::NoRequest), "{command} of {kind}");
        }
        let mut unnamed = message(&IpvsRequest::Flush);
        unnamed[16] = 3;
        let missing = IpvsDecodeError::Missing("IPVS_CMD_ATTR_SERVICE");
        assert_eq!(IpvsRequest::decode(&unnamed), Err(missing));
    }
}
