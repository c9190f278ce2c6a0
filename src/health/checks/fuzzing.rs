//! What servers answer, for the fuzzer: the parsers of the checks beside this file, and what holds of
//! them for any bytes. Built for it alone (`--cfg fuzzing`).

use super::agent::Word;
use super::icmp::echo::Echo;
use super::udp::BytePattern;
use super::{mysql, postgres, redis, smtp};

/// How many parsers there are.
pub const PARSERS: u8 = 7;

/// Hands an answer to one of the parsers; panics where something does not hold.
pub fn read(parser: u8, answer: &[u8]) {
    match parser % PARSERS {
        0 => agent_line(answer),
        1 => mysql_packet(answer),
        2 => postgres_message(answer),
        3 => redis_reply(answer),
        4 => smtp_reply(answer),
        5 => icmp_echo(answer),
        _ => udp_pattern(answer),
    }
}

fn agent_line(line: &[u8]) {
    let word = Word::of(line);
    let before_comment = line.split(|byte| *byte == b'#').next().unwrap_or_default();
    assert_eq!(word, Word::of(before_comment), "what is behind # is for people");
    let twice = [before_comment, before_comment].join(&b' ');
    assert_eq!(word, Word::of(&twice), "said twice is said once");
}

fn mysql_packet(bytes: &[u8]) {
    use mysql::packet::{Packet, answer, first, header};
    if let Some(bytes) = bytes.first_chunk() {
        assert!(header(bytes).len < 1 << 24);
    }
    for packet in [first(bytes), answer(bytes)].into_iter().flatten() {
        match packet {
            Packet::Handshake { version, .. } => assert!(!version.contains(&0)),
            Packet::Error(error) => {
                assert!(error.state.is_none_or(|state| state.len() == 5));
                assert!(bytes.ends_with(error.message), "all that is left");
            }
            Packet::Ok | Packet::AuthSwitch | Packet::AuthMore => {}
        }
    }
}

fn postgres_message(bytes: &[u8]) {
    use postgres::message::{authentication, error, header};
    let _ = bytes.first_chunk().and_then(header);
    assert_eq!(authentication(bytes).is_some(), bytes.len() >= 4);
    if let Some(error) = error(bytes) {
        assert!(!error.state.contains(&0) && !error.message.contains(&0));
        // What follows the last field is not looked at.
        assert_eq!(postgres::message::error(&[bytes, b"more"].concat()), Some(error));
    }
}

fn redis_reply(bytes: &[u8]) {
    use redis::reply::{Reply, line, role};
    if let Some(Reply::Simple(text) | Reply::Error(text)) = line(bytes) {
        assert_eq!(text, &bytes[1..]);
    }
    if let Some(role) = role(bytes) {
        let more = [bytes, b"\nrole:nobody\n"].concat();
        assert_eq!(redis::reply::role(&more), Some(role), "the first word counts");
    }
}

fn smtp_reply(bytes: &[u8]) {
    use smtp::reply::line;
    if let Some(line) = line(bytes) {
        assert!((200..=559).contains(&line.code));
        assert!(bytes.starts_with(line.code.to_string().as_bytes()) && bytes.ends_with(line.text));
        assert!(!line.goes_on || bytes[3] == b'-');
    }
}

fn icmp_echo(packet: &[u8]) {
    let echo = Echo::random(true);
    // Sixteen random bytes that are not known are not guessed.
    assert!(!echo.is_answered_by(packet));
    assert!(!echo.is_answered_by(&[&echo.request(true)[..], packet].concat()), "a request");
}

fn udp_pattern(bytes: &[u8]) {
    let Ok(text) = std::str::from_utf8(bytes) else { return };
    if let Ok(pattern) = text.parse::<BytePattern>() {
        assert_eq!(pattern.to_string().parse(), Ok(pattern.clone()), "its text reads as itself");
        assert!(!pattern.begins(&vec![0; pattern.len().saturating_sub(1)]) || pattern.is_empty());
    }
}
