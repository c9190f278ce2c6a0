//! Netlink attributes: values with a type and a length, some of which hold attributes themselves.
//!
//! Numbers are in the machine's byte order, unless the kernel's header says that they are in that of the
//! network. Attributes that this version does not know are ignored, as the protocol asks for.

use netlink_packet_core::{
    DefaultNla, Emitable, NLA_F_NESTED, NLA_HEADER_SIZE, NlaBuffer, NlasIterator,
};
use thiserror::Error;

/// The reason why a message cannot be decoded.
#[derive(Clone, Copy, Debug, Eq, Error, PartialEq)]
#[non_exhaustive]
pub enum IpvsDecodeError {
    /// A message is shorter than its header.
    #[error("the message is shorter than its header")]
    Truncated,
    /// A message is none of the requests that the kernel's IPVS knows.
    #[error("the message is not a request to IPVS")]
    NoRequest,
    /// The list of attributes ends within one, or one is shorter than its header.
    #[error("the list of attributes is malformed")]
    Attributes,
    /// An attribute without which the object means nothing is missing.
    #[error("the attribute {0} is missing")]
    Missing(&'static str),
    /// An attribute has another length than its type.
    #[error("the attribute {name} has {actual} octets instead of {expected}")]
    Length {
        /// The name in the kernel's header.
        name: &'static str,
        /// The octets that its type has.
        expected: usize,
        /// The octets that it has.
        actual: usize,
    },
    /// A name is not text.
    #[error("the attribute {0} is not UTF-8 text")]
    Text(&'static str),
    /// An address is neither IPv4 nor IPv6.
    #[error("the address family {0} is neither IPv4 nor IPv6")]
    Family(u16),
}

/// The number of an attribute, with its name in the kernel's header.
#[derive(Clone, Copy, Debug)]
pub(super) struct AttributeType {
    pub(super) number: u16,
    pub(super) name: &'static str,
}

/// Defines constants with the numbers and names of the kernel's header.
macro_rules! attribute_types {
    ($($number:literal $name:ident)*) => {
        $(
            const $name: $crate::ipvs::attribute::AttributeType =
                $crate::ipvs::attribute::AttributeType { number: $number, name: stringify!($name) };
        )*
    };
}
pub(super) use attribute_types;

impl AttributeType {
    pub(super) fn bytes(self, value: &[u8]) -> DefaultNla {
        DefaultNla::new(self.number, value.to_vec())
    }

    pub(super) fn u8(self, value: u8) -> DefaultNla {
        self.bytes(&[value])
    }

    pub(super) fn u16(self, value: u16) -> DefaultNla {
        self.bytes(&value.to_ne_bytes())
    }

    /// An attribute in the byte order of the network.
    pub(super) fn be16(self, value: u16) -> DefaultNla {
        self.bytes(&value.to_be_bytes())
    }

    pub(super) fn u32(self, value: u32) -> DefaultNla {
        self.bytes(&value.to_ne_bytes())
    }

    /// A text, which ends with a zero.
    pub(super) fn text(self, value: &str) -> DefaultNla {
        let mut bytes = value.as_bytes().to_vec();
        bytes.push(0);
        DefaultNla::new(self.number, bytes)
    }

    pub(super) fn nest(self, attributes: &[DefaultNla]) -> DefaultNla {
        DefaultNla::new(self.number | NLA_F_NESTED, emit(attributes))
    }
}

/// Encodes a list of attributes.
pub(super) fn emit(attributes: &[DefaultNla]) -> Vec<u8> {
    let mut bytes = vec![0; attributes.buffer_len()];
    attributes.emit(&mut bytes);
    bytes
}

/// A list of attributes that was received.
#[derive(Clone, Debug)]
pub(super) struct AttributeList<'a> {
    values: Vec<(u16, &'a [u8])>,
}

impl<'a> AttributeList<'a> {
    pub(super) fn parse(bytes: &'a [u8]) -> Result<Self, IpvsDecodeError> {
        let value = |attribute: NlaBuffer<&'a [u8]>| {
            let end = NLA_HEADER_SIZE + attribute.value_length();
            (attribute.kind(), &attribute.into_inner()[NLA_HEADER_SIZE..end])
        };
        let values: Result<_, _> =
            NlasIterator::new(bytes).map(|attribute| attribute.map(value)).collect();
        Ok(Self { values: values.map_err(|_| IpvsDecodeError::Attributes)? })
    }

    /// Returns an attribute's value. Of several of one type the last counts, as in the kernel.
    pub(super) fn bytes(&self, kind: AttributeType) -> Option<&'a [u8]> {
        let found = self.values.iter().rev().find(|(number, _)| *number == kind.number);
        found.map(|(_, value)| *value)
    }

    pub(super) fn array<const N: usize>(
        &self,
        kind: AttributeType,
    ) -> Result<Option<[u8; N]>, IpvsDecodeError> {
        let Some(value) = self.bytes(kind) else { return Ok(None) };
        let wrong = IpvsDecodeError::Length { name: kind.name, expected: N, actual: value.len() };
        value.try_into().map(Some).map_err(|_| wrong)
    }

    pub(super) fn u8(&self, kind: AttributeType) -> Result<Option<u8>, IpvsDecodeError> {
        Ok(self.array(kind)?.map(u8::from_ne_bytes))
    }

    pub(super) fn u16(&self, kind: AttributeType) -> Result<Option<u16>, IpvsDecodeError> {
        Ok(self.array(kind)?.map(u16::from_ne_bytes))
    }

    pub(super) fn be16(&self, kind: AttributeType) -> Result<Option<u16>, IpvsDecodeError> {
        Ok(self.array(kind)?.map(u16::from_be_bytes))
    }

    pub(super) fn u32(&self, kind: AttributeType) -> Result<Option<u32>, IpvsDecodeError> {
        Ok(self.array(kind)?.map(u32::from_ne_bytes))
    }

    /// Returns a text up to its zero, which old kernels left out.
    pub(super) fn text(&self, kind: AttributeType) -> Result<Option<String>, IpvsDecodeError> {
        let Some(value) = self.bytes(kind) else { return Ok(None) };
        let text = value.split(|octet| *octet == 0).next().unwrap_or_default();
        let text = std::str::from_utf8(text).map_err(|_| IpvsDecodeError::Text(kind.name))?;
        Ok(Some(text.to_owned()))
    }

    pub(super) fn nest(&self, kind: AttributeType) -> Result<Option<Self>, IpvsDecodeError> {
        self.bytes(kind).map(Self::parse).transpose()
    }
}

/// Returns the value of an attribute that must be there.
pub(super) fn require<T>(kind: AttributeType, value: Option<T>) -> Result<T, IpvsDecodeError> {
    value.ok_or(IpvsDecodeError::Missing(kind.name))
}

#[cfg(test)]
mod tests {
    use super::{AttributeList, AttributeType, IpvsDecodeError, emit};

    const NUMBER: AttributeType = AttributeType { number: 1, name: "NUMBER" };
    const NAME: AttributeType = AttributeType { number: 2, name: "NAME" };
    const NEST: AttributeType = AttributeType { number: 3, name: "NEST" };

    #[test]
    fn attributes_are_padded_to_four_octets() {
        let bytes = emit(&[NUMBER.be16(0x1234), NEST.nest(&[NAME.text("wlc"), NUMBER.u8(7)])]);
        let expected = [
            6, 0, 1, 0, 0x12, 0x34, 0, 0, 20, 0, 3, 0x80, 8, 0, 2, 0, b'w', b'l', b'c', 0, 5, 0, 1,
            0, 7, 0, 0, 0,
        ];
        assert_eq!(bytes, expected);
        let list = AttributeList::parse(&bytes).unwrap();
        assert_eq!(list.be16(NUMBER), Ok(Some(0x1234)));
        let nest = list.nest(NEST).unwrap().unwrap();
        assert_eq!(nest.text(NAME), Ok(Some("wlc".to_owned())));
        assert_eq!((nest.u8(NUMBER), nest.u32(NEST)), (Ok(Some(7)), Ok(None)));
    }

    #[test]
    fn a_wrong_length_and_a_cut_list_are_errors() {
        let bytes = emit(&[NUMBER.u16(1)]);
        let list = AttributeList::parse(&bytes).unwrap();
        let error = IpvsDecodeError::Length { name: "NUMBER", expected: 4, actual: 2 };
        assert_eq!(list.u32(NUMBER), Err(error));
        for end in 1..6 {
            assert!(AttributeList::parse(&bytes[..end]).is_err(), "{end}");
        }
        // A length that is less than the header.
        assert!(AttributeList::parse(&[3, 0, 1, 0]).is_err());
    }

    #[test]
    fn the_last_of_equal_attributes_counts() {
        let bytes = emit(&[NUMBER.u8(1), NUMBER.u8(2)]);
        assert_eq!(AttributeList::parse(&bytes).unwrap().u8(NUMBER), Ok(Some(2)));
    }
}
