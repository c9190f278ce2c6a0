//! Why bytes are no PROXY header, and why a header cannot be written.

use thiserror::Error;

use super::format::{MAX_V1_LINE, MAX_V2_BLOCK};

/// Why bytes are no PROXY protocol header.
///
/// No further byte can make them one: the connection they came on is to be ended (section 2 of the
/// specification). Offsets count from the first byte, which is 0.
#[derive(Clone, Debug, Eq, Error, PartialEq)]
#[non_exhaustive]
pub enum ProxyHeaderError {
    /// The bytes begin like neither version: whoever sent them does not speak the protocol.
    #[error("no PROXY header: byte {offset} fits neither version")]
    NotProxy {
        /// The first byte that does not fit.
        offset: usize,
    },
    /// A line of version 1 does not have the form it must have.
    #[error("PROXY line: {expected} is due at byte {at}")]
    Line {
        /// What must stand there.
        expected: &'static str,
        /// Where the wrong part begins.
        at: usize,
    },
    /// A line of version 1 has no end where it must have one at the latest.
    #[error("PROXY line: no CRLF within {longest} of at most {MAX_V1_LINE} bytes")]
    Unterminated {
        /// The longest that a line of the named protocol can be.
        longest: usize,
    },
    /// The signature is that of the binary header, the version behind it is not 2.
    #[error("PROXY version {version} is not known")]
    Version {
        /// What stands in its place.
        version: u8,
    },
    /// The command is neither LOCAL nor PROXY.
    #[error("PROXY command {command:#x} is not known")]
    Command {
        /// What stands in its place.
        command: u8,
    },
    /// The address family is none of those that version 2 has.
    #[error("PROXY address family {family:#x} is not known")]
    Family {
        /// What stands in its place.
        family: u8,
    },
    /// The transport is none of those that version 2 has.
    #[error("PROXY transport {transport:#x} is not known")]
    Transport {
        /// What stands in its place.
        transport: u8,
    },
    /// The header says it is longer than [`MAX_V2_BLOCK`] allows.
    #[error("PROXY header announces {len} bytes, of which at most {MAX_V2_BLOCK} are read")]
    TooLong {
        /// The length it announces, without the 16 bytes that come before.
        len: usize,
    },
    /// The header says it is too short for the addresses of its family.
    #[error("PROXY header announces {len} bytes, of which its addresses alone take {needed}")]
    ShortAddresses {
        /// The length it announces, without the 16 bytes that come before.
        len: usize,
        /// What two addresses of its family take.
        needed: usize,
    },
    /// What stands behind the addresses is no list of TLVs.
    #[error(transparent)]
    Tlv(#[from] TlvError),
    /// The header has a checksum, and it is that of other bytes.
    #[error("PROXY header has checksum {computed:#010x} and says it is {sent:#010x}")]
    Checksum {
        /// The checksum in the header.
        sent: u32,
        /// The checksum of the header.
        computed: u32,
    },
}

/// Why a TLV was refused, when reading as when building a header.
#[derive(Clone, Debug, Eq, Error, PartialEq)]
#[non_exhaustive]
pub enum TlvError {
    /// The list ends within a TLV.
    #[error("TLV at byte {offset} of the list ends before it is whole")]
    Truncated {
        /// Where the TLV begins, from the first byte of the list it stands in.
        offset: usize,
    },
    /// A type that can be there once is there twice.
    #[error("TLV type {kind:#04x} is there twice")]
    Duplicate {
        /// The type.
        kind: u8,
    },
    /// The value does not have the length that its type requires.
    #[error("TLV type {kind:#04x} has {len} bytes, which it cannot have")]
    Length {
        /// The type.
        kind: u8,
        /// The length of the value in bytes: a unique id has at most [`MAX_UNIQUE_ID`](super::MAX_UNIQUE_ID) bytes, a
        /// checksum 4, TLS details at least 5.
        len: usize,
    },
    /// The value must be text and is not: UTF-8, and ASCII where the specification says so.
    #[error("TLV type {kind:#04x} is no text")]
    Text {
        /// The type.
        kind: u8,
    },
    /// The type is written by the encoder alone: [`CRC32C`](super::Tlv::CRC32C) or
    /// [`NOOP`](super::Tlv::NOOP).
    #[error("TLV type {kind:#04x} is not for the caller to set")]
    Reserved {
        /// The type.
        kind: u8,
    },
    /// There is no room left for the value.
    #[error("TLVs of {len} bytes do not fit into a header, which has room for {MAX_V2_BLOCK}")]
    Full {
        /// What the TLVs would take together.
        len: usize,
    },
}

/// Why a header cannot be written.
#[derive(Clone, Debug, Eq, Error, PartialEq)]
#[non_exhaustive]
pub enum ProxyEncodeError {
    /// Addresses, TLVs and checksum together are longer than [`MAX_V2_BLOCK`].
    #[error("PROXY header has {len} bytes of addresses and TLVs, of which {MAX_V2_BLOCK} fit")]
    TooLong {
        /// The length, without the 16 bytes that come before.
        len: usize,
    },
}
