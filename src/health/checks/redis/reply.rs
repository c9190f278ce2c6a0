//! Replies of a Redis server: RESP, the line that each begins with.

/// What a reply begins with.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub(crate) enum RedisReply<'a> {
    /// `+`: a word.
    Simple(&'a [u8]),
    /// `-`: why not.
    Error(&'a [u8]),
    /// `$`: so many bytes follow, and CR LF behind them.
    Bulk(usize),
}

/// The role that a server says it has.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub(crate) enum RedisRole {
    /// `master`
    Master,
    /// `slave`, and `replica`, should it ever say so.
    Replica,
}

/// Reads a line that was cut off at its end; `None` if no such reply begins so.
pub(crate) fn parse_reply(bytes: &[u8]) -> Option<RedisReply<'_>> {
    match bytes {
        [b'+', word @ ..] => Some(RedisReply::Simple(word)),
        [b'-', why @ ..] => Some(RedisReply::Error(why)),
        [b'$', len @ ..] if len.first().is_some_and(u8::is_ascii_digit) => {
            Some(RedisReply::Bulk(std::str::from_utf8(len).ok()?.parse().ok()?))
        }
        _ => None,
    }
}

/// Finds the role in an answer to `INFO replication`.
pub(crate) fn parse_role(info: &[u8]) -> Option<RedisRole> {
    let lines = info.split(|&byte| byte == b'\n').map(|line| line.trim_ascii_end());
    match lines.into_iter().find_map(|line| line.strip_prefix(b"role:"))? {
        b"master" => Some(RedisRole::Master),
        b"slave" | b"replica" => Some(RedisRole::Replica),
        _ => None,
    }
}
