//! Packets of a MySQL or MariaDB server: "Client/Server Protocol" in their manuals.

/// How long the header in front of every packet is.
pub(crate) const HEADER_LEN: usize = 4;

/// The server and the client speak the protocol of version 4.1 or later.
pub(crate) const CLIENT_PROTOCOL_41: u32 = 0x0000_0200;

/// Passwords are proven by a hash of a challenge.
pub(crate) const CLIENT_SECURE_CONNECTION: u32 = 0x0000_8000;

/// Ways to log in have names.
pub(crate) const CLIENT_PLUGIN_AUTH: u32 = 0x0008_0000;

/// What a header says.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub(crate) struct MysqlPacketHeader {
    /// How long the packet is.
    pub(crate) len: usize,
    /// The number of the packet within its exchange.
    pub(crate) sequence: u8,
}

/// What a server may say before and after a login.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub(crate) enum MysqlPacket<'a> {
    /// Its first: who it is, and the challenge. With its capabilities.
    Handshake { version: &'a [u8], capabilities: u32 },
    /// It refuses.
    Error(MysqlErrorPacket<'a>),
    /// We are in.
    Ok,
    /// It asks for a login of another kind.
    AuthSwitch,
    /// It goes on with the login.
    AuthMore,
}

/// Why a server refuses.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub(crate) struct MysqlErrorPacket<'a> {
    /// The number in its manual.
    pub(crate) code: u16,
    /// The SQLSTATE, five characters; not said before the handshake.
    pub(crate) sqlstate: Option<&'a [u8]>,
    /// What there is to be read by people.
    pub(crate) message: &'a [u8],
}

/// Reads the header of a packet.
pub(crate) fn parse_header(&[a, b, c, sequence]: &[u8; HEADER_LEN]) -> MysqlPacketHeader {
    MysqlPacketHeader { len: u32::from_le_bytes([a, b, c, 0]) as usize, sequence }
}

/// Reads the first packet of a server: a handshake of version 10, or an error.
pub(crate) fn parse_greeting(body: &[u8]) -> Option<MysqlPacket<'_>> {
    match body {
        [10, rest @ ..] => parse_handshake(rest),
        [0xff, rest @ ..] => parse_error(rest).map(MysqlPacket::Error),
        _ => None,
    }
}

/// Reads what a server says to a login.
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
    // The thread's number and the first part of the challenge, with a zero byte behind it.
    let (fixed, rest) = rest.split_first_chunk::<13>()?;
    if fixed[12] != 0 {
        return None;
    }
    let (&[a, b], rest) = rest.split_first_chunk()?;
    // Character set and status stand between the halves, which old servers leave out.
    let (c, d) = match rest {
        [_, _, _, c, d, ..] => (*c, *d),
        _ => (0, 0),
    };
    Some(MysqlPacket::Handshake { version, capabilities: u32::from_le_bytes([a, b, c, d]) })
}

fn parse_error(rest: &[u8]) -> Option<MysqlErrorPacket<'_>> {
    let (code, rest) = rest.split_first_chunk()?;
    let code = u16::from_le_bytes(*code);
    let (state, message) = match rest {
        [b'#', rest @ ..] if rest.len() >= 5 => (Some(&rest[..5]), &rest[5..]),
        _ => (None, rest),
    };
    Some(MysqlErrorPacket { code, sqlstate: state, message })
}
