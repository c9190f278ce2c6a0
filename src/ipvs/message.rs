//! Messages of generic netlink: a header of four octets, and attributes.

use netlink_packet_core::{
    DecodeError, NLM_F_ACK, NLM_F_DUMP, NLM_F_REQUEST, NetlinkDeserializable, NetlinkHeader,
    NetlinkMessage, NetlinkPayload, NetlinkSerializable,
};

use super::attribute::{AttributeList, AttributeType, IpvsDecodeError, emit, require};

/// The version of the IPVS family, and of the family that names families.
const VERSION: u8 = 1;
const HEADER_LEN: usize = 4;

/// A message of a family.
#[derive(Clone, Debug, Eq, PartialEq)]
pub(super) struct GenericMessage {
    /// The number that the kernel gave the family.
    pub(super) family_id: u16,
    pub(super) command: u8,
    /// The encoded attributes.
    pub(super) attributes: Vec<u8>,
}

impl GenericMessage {
    /// Encodes a request for one answer or for all objects (a dump).
    pub(super) fn encode(self, sequence_number: u32, is_dump: bool) -> Vec<u8> {
        let mut header = NetlinkHeader::default();
        header.flags = NLM_F_REQUEST | if is_dump { NLM_F_DUMP } else { NLM_F_ACK };
        header.sequence_number = sequence_number;
        let mut message = NetlinkMessage::new(header, NetlinkPayload::InnerMessage(self));
        message.finalize();
        let mut bytes = vec![0; message.buffer_len()];
        message.serialize(&mut bytes);
        bytes
    }
}

impl NetlinkSerializable for GenericMessage {
    fn message_type(&self) -> u16 {
        self.family_id
    }

    fn buffer_len(&self) -> usize {
        HEADER_LEN + self.attributes.len()
    }

    fn serialize(&self, buffer: &mut [u8]) {
        buffer[..HEADER_LEN].copy_from_slice(&[self.command, VERSION, 0, 0]);
        buffer[HEADER_LEN..].copy_from_slice(&self.attributes);
    }
}

impl NetlinkDeserializable for GenericMessage {
    type Error = DecodeError;

    fn deserialize(header: &NetlinkHeader, payload: &[u8]) -> Result<Self, DecodeError> {
        let Some((head, attributes)) = payload.split_first_chunk::<HEADER_LEN>() else {
            return Err(DecodeError::from("the generic netlink header is cut"));
        };
        let attributes = attributes.to_vec();
        Ok(Self { family_id: header.message_type, command: head[0], attributes })
    }
}

/// Returns the request for the number of a family.
pub(super) fn family_request(name: &str) -> GenericMessage {
    GenericMessage {
        family_id: GENL_ID_CTRL,
        command: CTRL_CMD_GETFAMILY,
        attributes: emit(&[CTRL_ATTR_FAMILY_NAME.text(name)]),
    }
}

/// Returns the number of the family that the kernel's answer is about.
pub(super) fn decode_family(answer: &GenericMessage) -> Result<u16, IpvsDecodeError> {
    let list = AttributeList::parse(&answer.attributes)?;
    require(CTRL_ATTR_FAMILY_ID, list.u16(CTRL_ATTR_FAMILY_ID)?)
}

/// The family that names families.
const GENL_ID_CTRL: u16 = 16;
const CTRL_CMD_GETFAMILY: u8 = 3;
const CTRL_ATTR_FAMILY_ID: AttributeType = AttributeType { number: 1, name: "CTRL_ATTR_FAMILY_ID" };
const CTRL_ATTR_FAMILY_NAME: AttributeType =
    AttributeType { number: 2, name: "CTRL_ATTR_FAMILY_NAME" };

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_request_for_a_family_is_that_of_the_kernels_documentation() {
        let bytes = family_request("IPVS").encode(7, false);
        let expected = [
            32, 0, 0, 0, 16, 0, 5, 0, 7, 0, 0, 0, 0, 0, 0, 0, 3, 1, 0, 0, 9, 0, 2, 0, b'I', b'P',
            b'V', b'S', 0, 0, 0, 0,
        ];
        assert_eq!(bytes, expected);
        let answer = GenericMessage {
            family_id: 16,
            command: 1,
            attributes: vec![
                9, 0, 2, 0, b'I', b'P', b'V', b'S', 0, 0, 0, 0, 6, 0, 1, 0, 34, 0, 0, 0,
            ],
        };
        assert_eq!(decode_family(&answer), Ok(34));
    }

    #[test]
    fn a_message_without_its_header_is_refused() {
        let bytes = [18, 0, 0, 0, 34, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 1, 1];
        assert!(NetlinkMessage::<GenericMessage>::deserialize(&bytes).is_err());
    }
}
