//! The decoders of the kernel's answers and of requests to it, for the fuzzer, with the properties that
//! hold for any bytes.
//! Compiled only for the fuzzer (`--cfg fuzzing`).

use super::address::IpvsFamily;
use super::message::GenericMessage;
use super::reply::IpvsReply;
use super::request::IpvsRequest;

/// Decodes the attributes of an answer. What was decoded gives, encoded and decoded again, an equal
/// object, if it can be encoded.
///
/// # Panics
/// If a property of the decoder does not hold.
pub fn check_reply(command: u8, attributes: &[u8]) {
    let Ok(Some(reply)) = IpvsReply::decode(command, attributes, IpvsFamily::V4) else { return };
    let request = match reply {
        IpvsReply::Service(status) => IpvsRequest::AddService(status.service),
        IpvsReply::Daemon(daemon) => IpvsRequest::StartDaemon(daemon),
        IpvsReply::Timeouts(timeouts) => IpvsRequest::SetTimeouts(timeouts),
        IpvsReply::Destination(_) | IpvsReply::Info(_) => return,
    };
    // A name may be too long, or empty.
    let Ok(GenericMessage { command, attributes, .. }) = request.encode(0) else { return };
    let again = IpvsReply::decode(command, &attributes, IpvsFamily::V4);
    let again = again.expect("what was encoded can be decoded").expect("the command has a reply");
    let again = match again {
        IpvsReply::Service(status) => IpvsRequest::AddService(status.service),
        IpvsReply::Daemon(daemon) => IpvsRequest::StartDaemon(daemon),
        IpvsReply::Timeouts(timeouts) => IpvsRequest::SetTimeouts(timeouts),
        IpvsReply::Destination(_) | IpvsReply::Info(_) => unreachable!("the command is the same"),
    };
    assert_eq!(request, again);
}

/// Decodes a request with these attributes. What was decoded gives, encoded and decoded again, an equal
/// request, if it can be encoded.
///
/// # Panics
/// If a property of the decoder does not hold.
pub fn check_request(command: u8, attributes: &[u8]) {
    let message = GenericMessage { family_id: 25, command, attributes: attributes.to_vec() };
    let Ok(request) = IpvsRequest::decode(&message.encode(0, false)) else { return };
    let Ok(message) = request.encode(25) else { return };
    assert_eq!(IpvsRequest::decode(&message.encode(0, false)), Ok(request));
}
