//! Parses the first line of a reply of a Redis server (RESP).

/// The first line of a reply.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub(crate) enum RedisReply<'a> {
    /// `+`: a status.
    Simple(&'a [u8]),
    /// `-`: an error.
    Error(&'a [u8]),
    /// `$`: the number of bytes that follow, without the CR LF behind them.
    Bulk(usize),
}

/// The replication role of a server.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub(crate) enum RedisRole {
    /// `master`
    Master,
    /// `slave`, or `replica`, which later versions may report.
    Replica,
}

/// Parses a line without its end; `None` if the line does not begin such a reply.
pub(crate) fn parse_reply(bytes: &[u8]) -> Option<RedisReply<'_>> {
    match bytes {
        [b'+', status @ ..] => Some(RedisReply::Simple(status)),
        [b'-', error @ ..] => Some(RedisReply::Error(error)),
        [b'$', len @ ..] if len.first().is_some_and(u8::is_ascii_digit) => {
            Some(RedisReply::Bulk(std::str::from_utf8(len).ok()?.parse().ok()?))
        }
        _ => None,
    }
}

/// Returns the role in an answer to `INFO replication`.
pub(crate) fn parse_role(info: &[u8]) -> Option<RedisRole> {
    let lines = info.split(|&byte| byte == b'\n').map(|line| line.trim_ascii_end());
    match lines.into_iter().find_map(|line| line.strip_prefix(b"role:"))? {
        b"master" => Some(RedisRole::Master),
        b"slave" | b"replica" => Some(RedisRole::Replica),
        _ => None,
    }
}
