//! Errors of parsing and encoding PROXY protocol headers.

use thiserror::Error;

use super::format::{MAX_V1_LINE, MAX_V2_BLOCK};

/// The reason why bytes are not a PROXY protocol header.
///
/// More bytes cannot make the header valid: close the connection (section 2 of the specification).
/// Offsets count from the first byte, which is 0.
#[derive(Clone, Debug, Eq, Error, PartialEq)]
#[non_exhaustive]
pub enum ProxyHeaderError {
    /// The bytes begin with the signature of neither version: the sender does not use the PROXY
    /// protocol.
    #[error("not a PROXY header: byte {offset} differs from both signatures")]
    NotProxy {
        /// The first byte that differs.
        offset: usize,
    },
    /// A version 1 line is malformed.
    #[error("malformed PROXY v1 line: expected {expected} at byte {at}")]
    Line {
        /// The expected element.
        expected: &'static str,
        /// The first byte of the malformed element.
        at: usize,
    },
    /// A version 1 line does not end within the maximum length of its protocol.
    #[error("PROXY v1 line has no CRLF within {longest} bytes (limit of any line: {MAX_V1_LINE})")]
    Unterminated {
        /// The maximum length of a line of the named protocol.
        longest: usize,
    },
    /// The binary signature is followed by a version other than 2.
    #[error("unknown PROXY version {version}")]
    Version {
        /// The received version.
        version: u8,
    },
    /// The command is neither LOCAL nor PROXY.
    #[error("unknown PROXY command {command:#x}")]
    Command {
        /// The received command.
        command: u8,
    },
    /// The address family is not defined by version 2.
    #[error("unknown PROXY address family {family:#x}")]
    Family {
        /// The received address family.
        family: u8,
    },
    /// The transport is not defined by version 2.
    #[error("unknown PROXY transport {transport:#x}")]
    Transport {
        /// The received transport.
        transport: u8,
    },
    /// The announced length exceeds [`MAX_V2_BLOCK`].
    #[error(
        "PROXY header announces {len} bytes of addresses and TLVs; the maximum is {MAX_V2_BLOCK}"
    )]
    TooLong {
        /// The announced length, without the first 16 bytes.
        len: usize,
    },
    /// The announced length is too short for two addresses of the announced family.
    #[error("PROXY header announces {len} bytes; its addresses alone need {needed}")]
    ShortAddresses {
        /// The announced length, without the first 16 bytes.
        len: usize,
        /// The length of two addresses of the family.
        needed: usize,
    },
    /// The bytes after the addresses are not a valid list of TLVs.
    #[error(transparent)]
    Tlv(#[from] TlvError),
    /// The checksum does not match the header.
    #[error("PROXY header has checksum {sent:#010x}, but its bytes have checksum {computed:#010x}")]
    Checksum {
        /// The checksum in the header.
        sent: u32,
        /// The checksum of the received bytes.
        computed: u32,
    },
}

/// The reason why a TLV is rejected when a header is parsed, or when it is built.
#[derive(Clone, Debug, Eq, Error, PartialEq)]
#[non_exhaustive]
pub enum TlvError {
    /// The list ends within a TLV.
    #[error("PROXY TLV at byte {offset} of the list is truncated")]
    Truncated {
        /// The offset of the TLV in the list that holds it.
        offset: usize,
    },
    /// A type that may occur once occurs twice.
    #[error("PROXY header has TLV type {kind:#04x} twice")]
    Duplicate {
        /// The type.
        kind: u8,
    },
    /// The value does not have the length that its type requires.
    #[error("PROXY TLV type {kind:#04x} has an invalid length of {len} bytes")]
    Length {
        /// The type.
        kind: u8,
        /// The length of the value in bytes: a unique id has at most
        /// [`MAX_UNIQUE_ID`](super::MAX_UNIQUE_ID) bytes, a checksum 4, TLS details at least 5.
        len: usize,
    },
    /// A value to be sent is not valid text: UTF-8, or ASCII where the specification requires ASCII.
    #[error("PROXY TLV type {kind:#04x} is not valid text")]
    Text {
        /// The type.
        kind: u8,
    },
    /// Only the encoder writes this type: [`CRC32C`](super::Tlv::CRC32C) or
    /// [`NOOP`](super::Tlv::NOOP).
    #[error("PROXY TLV type {kind:#04x} is reserved for the encoder")]
    Reserved {
        /// The type.
        kind: u8,
    },
    /// The TLVs exceed the maximum length of a header.
    #[error("PROXY TLVs of {len} bytes exceed the maximum of {MAX_V2_BLOCK} bytes")]
    Full {
        /// The length of all TLVs together.
        len: usize,
    },
}

/// The reason why a header cannot be encoded.
#[derive(Clone, Debug, Eq, Error, PartialEq)]
#[non_exhaustive]
pub enum ProxyEncodeError {
    /// Addresses, TLVs and checksum together exceed [`MAX_V2_BLOCK`].
    #[error("PROXY header has {len} bytes of addresses and TLVs; the maximum is {MAX_V2_BLOCK}")]
    TooLong {
        /// The length, without the first 16 bytes.
        len: usize,
    },
}
