//! Parses packets of a MySQL or MariaDB server: "Client/Server Protocol" in their manuals.

/// The length of the header of every packet, in bytes.
pub(crate) const HEADER_LEN: usize = 4;

/// The capability flag of the protocol of version 4.1 or later.
pub(crate) const CLIENT_PROTOCOL_41: u32 = 0x0000_0200;

/// The capability flag of passwords hashed with a challenge.
pub(crate) const CLIENT_SECURE_CONNECTION: u32 = 0x0000_8000;

/// The capability flag of named login methods.
pub(crate) const CLIENT_PLUGIN_AUTH: u32 = 0x0008_0000;

/// The header of a packet.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub(crate) struct MysqlPacketHeader {
    /// The length of the packet without the header, in bytes.
    pub(crate) len: usize,
    /// The sequence number of the packet.
    pub(crate) sequence: u8,
}

/// A packet of the server before or after a login.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub(crate) enum MysqlPacket<'a> {
    /// The greeting, with the version and the capability flags of the server.
    Handshake { version: &'a [u8], capabilities: u32 },
    /// An error.
    Error(MysqlErrorPacket<'a>),
    /// The login succeeded.
    Ok,
    /// The server requests another login method.
    AuthSwitch,
    /// The server continues the login.
    AuthMore,
}

/// An error packet.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub(crate) struct MysqlErrorPacket<'a> {
    /// The error code in the server's manual.
    pub(crate) code: u16,
    /// The SQLSTATE, five characters; missing before the handshake.
    pub(crate) sqlstate: Option<&'a [u8]>,
    /// The message for the operator.
    pub(crate) message: &'a [u8],
}

/// Parses the header of a packet.
pub(crate) fn parse_header(&[a, b, c, sequence]: &[u8; HEADER_LEN]) -> MysqlPacketHeader {
    MysqlPacketHeader { len: u32::from_le_bytes([a, b, c, 0]) as usize, sequence }
}

/// Parses the first packet of a server: a handshake of version 10, or an error.
pub(crate) fn parse_greeting(body: &[u8]) -> Option<MysqlPacket<'_>> {
    match body {
        [10, rest @ ..] => parse_handshake(rest),
        [0xff, rest @ ..] => parse_error(rest).map(MysqlPacket::Error),
        _ => None,
    }
}

/// Parses the answer to a login.
pub(crate) fn parse_login_answer(body: &[u8]) -> Option<MysqlPacket<'_>> {
    match body {
        [0x00, ..] => Some(MysqlPacket::Ok),
        [0x01, ..] => Some(MysqlPacket::AuthMore),
        [0xfe, ..] => Some(MysqlPacket::AuthSwitch),
        [0xff, rest @ ..] => parse_error(rest).map(MysqlPacket::Error),
        _ => None,
    }
}

fn parse_handshake(rest: &[u8]) -> Option<MysqlPacket<'_>> {
    let end = rest.iter().position(|&byte| byte == 0)?;
    let (version, rest) = (&rest[..end], &rest[end + 1..]);
    // The thread identifier and the first part of the challenge, with a zero byte behind it.
    let (fixed, rest) = rest.split_first_chunk::<13>()?;
    if fixed[12] != 0 {
        return None;
    }
    let (&[a, b], rest) = rest.split_first_chunk()?;
    // Character set and status are between the halves of the capabilities; old servers omit them.
    let (c, d) = match rest {
        [_, _, _, c, d, ..] => (*c, *d),
        _ => (0, 0),
    };
    Some(MysqlPacket::Handshake { version, capabilities: u32::from_le_bytes([a, b, c, d]) })
}

fn parse_error(rest: &[u8]) -> Option<MysqlErrorPacket<'_>> {
    let (code, rest) = rest.split_first_chunk()?;
    let code = u16::from_le_bytes(*code);
    let (sqlstate, message) = match rest {
        [b'#', rest @ ..] if rest.len() >= 5 => (Some(&rest[..5]), &rest[5..]),
        _ => (None, rest),
    };
    Some(MysqlErrorPacket { code, sqlstate, message })
}
