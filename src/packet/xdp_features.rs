//! What a device's driver can do with frames at XDP, as the kernel's netlink family `netdev` tells (since Linux 6.3).

use std::io;

use netlink_packet_core::{
    DecodeError, DefaultNla, Emitable as _, NLM_F_ACK, NLM_F_REQUEST, NetlinkDeserializable,
    NetlinkHeader, NetlinkMessage, NetlinkPayload, NetlinkSerializable, NlaBuffer, NlasIterator,
};
use netlink_sys::protocols::NETLINK_GENERIC;
use netlink_sys::{Socket, SocketAddr};

#[cfg(doc)]
use super::layout::RawXdpDevice;
use super::layout::{XDP_DEVICE_REDIRECTS, XDP_DEVICE_SENDS, XDP_DEVICE_SENDS_MULTI_BUFFER};

/// The family that names families, its command and attributes (uapi/linux/genetlink.h).
const CONTROLLER: u16 = 0x10;
const GET_FAMILY: u8 = 3;
const FAMILY_ID: u16 = 1;
const FAMILY_NAME: u16 = 2;
/// The command and the attributes of the family (uapi/linux/netdev.h).
const GET_DEVICE: u8 = 1;
const DEVICE_INDEX: u16 = 1;
const DEVICE_FEATURES: u16 = 3;
/// The driver gives frames to other devices, sends those of other devices, and of these multi-buffer frames, too.
const REDIRECT: u64 = 2;
const SENDS: u64 = 4;
const SENDS_MULTI_BUFFER: u64 = 64;
const FAMILY: &[u8] = b"netdev\0";

const HEADER_LEN: usize = 4;
/// The longest answer that is expected.
const MAX_ANSWER_LEN: usize = 8192;

/// Returns the [flags](RawXdpDevice::flags) of what a driver does with frames; none of them if the kernel does not tell.
pub(super) fn driver_flags(index: u32) -> u16 {
    features(index).map_or(0, flags_of)
}

fn flags_of(features: u64) -> u16 {
    let flag = |feature, flag| if features & feature == 0 { 0 } else { flag };
    flag(REDIRECT, XDP_DEVICE_REDIRECTS)
        | flag(SENDS, XDP_DEVICE_SENDS)
        | flag(SENDS_MULTI_BUFFER, XDP_DEVICE_SENDS_MULTI_BUFFER)
}

fn features(index: u32) -> io::Result<u64> {
    let mut socket = Socket::new(NETLINK_GENERIC)?;
    socket.bind_auto()?;
    socket.connect(&SocketAddr::new(0, 0))?;
    socket.set_non_blocking(true)?;
    let name = DefaultNla::new(FAMILY_NAME, FAMILY.to_vec());
    let request = NetdevMessage::new(CONTROLLER, GET_FAMILY, &name);
    let family = exchange(&socket, request, FAMILY_ID)?;
    let family = family.try_into().map(u16::from_ne_bytes).map_err(|_| unexpected())?;
    let device = DefaultNla::new(DEVICE_INDEX, index.to_ne_bytes().to_vec());
    let request = NetdevMessage::new(family, GET_DEVICE, &device);
    let features = exchange(&socket, request, DEVICE_FEATURES)?;
    features.try_into().map(u64::from_ne_bytes).map_err(|_| unexpected())
}

fn unexpected() -> io::Error {
    io::Error::new(io::ErrorKind::InvalidData, "an unexpected answer of the kernel")
}

/// Sends a request, and returns the value of an attribute of the answer, which is there at once.
fn exchange(socket: &Socket, request: NetdevMessage, wanted: u16) -> io::Result<Vec<u8>> {
    let mut header = NetlinkHeader::default();
    header.flags = NLM_F_REQUEST | NLM_F_ACK;
    let mut message = NetlinkMessage::new(header, NetlinkPayload::InnerMessage(request));
    message.finalize();
    let mut bytes = vec![0; message.buffer_len()];
    message.serialize(&mut bytes);
    socket.send(&bytes, 0)?;
    let mut found = None;
    let mut buffer = Vec::with_capacity(MAX_ANSWER_LEN);
    loop {
        buffer.clear();
        socket.recv(&mut buffer, 0)?;
        let mut rest = buffer.as_slice();
        while !rest.is_empty() {
            let message = NetlinkMessage::<NetdevMessage>::deserialize(rest)
                .map_err(|error| io::Error::new(io::ErrorKind::InvalidData, error))?;
            let len = (message.header.length as usize).max(1).next_multiple_of(4);
            rest = rest.get(len..).unwrap_or_default();
            match message.payload {
                NetlinkPayload::InnerMessage(answer) => {
                    found = found.or_else(|| answer.attribute(wanted));
                }
                NetlinkPayload::Error(error) if error.code.is_some() => return Err(error.to_io()),
                NetlinkPayload::Error(_) => return found.ok_or_else(unexpected),
                _ => {}
            }
        }
    }
}

/// A message of the family, or of that which names families.
#[derive(Clone, Debug, Eq, PartialEq)]
struct NetdevMessage {
    family: u16,
    command: u8,
    attributes: Vec<u8>,
}

impl NetdevMessage {
    fn new(family: u16, command: u8, attribute: &DefaultNla) -> Self {
        let mut attributes = vec![0; attribute.buffer_len()];
        attribute.emit(&mut attributes);
        Self { family, command, attributes }
    }

    fn attribute(&self, wanted: u16) -> Option<Vec<u8>> {
        let attributes = NlasIterator::new(self.attributes.as_slice()).flatten();
        let mut found =
            attributes.filter(|attribute: &NlaBuffer<&[u8]>| attribute.kind() == wanted);
        found.next().map(|attribute| attribute.value().to_vec())
    }
}

impl NetlinkSerializable for NetdevMessage {
    fn message_type(&self) -> u16 {
        self.family
    }

    fn buffer_len(&self) -> usize {
        HEADER_LEN + self.attributes.len()
    }

    fn serialize(&self, buffer: &mut [u8]) {
        let (header, attributes) = buffer.split_at_mut(HEADER_LEN);
        header.copy_from_slice(&[self.command, 1, 0, 0]);
        attributes.copy_from_slice(&self.attributes);
    }
}

impl NetlinkDeserializable for NetdevMessage {
    type Error = DecodeError;

    fn deserialize(header: &NetlinkHeader, payload: &[u8]) -> Result<Self, DecodeError> {
        let (head, attributes) = payload
            .split_first_chunk::<HEADER_LEN>()
            .ok_or_else(|| DecodeError::from("the header is cut"))?;
        let attributes = attributes.to_vec();
        Ok(Self { family: header.message_type, command: head[0], attributes })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_device_that_is_not_there_has_no_features() {
        assert!(features(u32::MAX >> 1).is_err());
        assert_eq!(driver_flags(u32::MAX >> 1), 0);
    }

    /// Those of the kernel's header, by drivers that have some of them.
    #[test]
    fn features_are_those_of_the_kernel() {
        let (basic, redirect, sends, zero_copy, receives, sends_long) = (1, 2, 4, 8, 32, 64);
        assert_eq!(flags_of(basic), 0, "ixgbevf");
        assert_eq!(flags_of(basic | receives | zero_copy), 0);
        assert_eq!(flags_of(basic | redirect | sends), XDP_DEVICE_REDIRECTS | XDP_DEVICE_SENDS);
        let all = XDP_DEVICE_REDIRECTS | XDP_DEVICE_SENDS | XDP_DEVICE_SENDS_MULTI_BUFFER;
        assert_eq!(flags_of(basic | redirect | sends | receives | sends_long), all, "virtio_net");
    }
}
