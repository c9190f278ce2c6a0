//! The parsers of server answers, for the fuzzer, with the properties that hold for any bytes.
//! Compiled only for the fuzzer (`--cfg fuzzing`).

use super::agent::AgentReply;
use super::icmp::echo::IcmpEchoRequest;
use super::udp::BytePattern;
use super::{mysql, postgres, redis, smtp};

/// The number of parsers.
pub const PARSER_COUNT: u8 = 7;

/// Passes an answer to a parser.
///
/// # Panics
/// If a property of the parser does not hold.
pub fn check_parser(parser: u8, answer: &[u8]) {
    match parser % PARSER_COUNT {
        0 => check_agent_line(answer),
        1 => check_mysql_packet(answer),
        2 => check_postgres_message(answer),
        3 => check_redis_reply(answer),
        4 => check_smtp_reply(answer),
        5 => check_icmp_echo(answer),
        _ => check_udp_pattern(answer),
    }
}

fn check_agent_line(line: &[u8]) {
    let reply = AgentReply::parse(line);
    let before_comment = line.split(|byte| *byte == b'#').next().unwrap_or_default();
    assert_eq!(reply, AgentReply::parse(before_comment), "text behind # is a comment");
    let repeated = [before_comment, before_comment].join(&b' ');
    assert_eq!(reply, AgentReply::parse(&repeated), "repeated words change nothing");
}

fn check_mysql_packet(bytes: &[u8]) {
    use mysql::packet::{MysqlPacket, parse_greeting, parse_header, parse_login_answer};
    if let Some(bytes) = bytes.first_chunk() {
        assert!(parse_header(bytes).len < 1 << 24);
    }
    for packet in [parse_greeting(bytes), parse_login_answer(bytes)].into_iter().flatten() {
        match packet {
            MysqlPacket::Handshake { version, .. } => assert!(!version.contains(&0)),
            MysqlPacket::Error(error) => {
                assert!(error.sqlstate.is_none_or(|sqlstate| sqlstate.len() == 5));
                assert!(bytes.ends_with(error.message), "the message is the rest of the packet");
            }
            MysqlPacket::Ok | MysqlPacket::AuthSwitch | MysqlPacket::AuthMore => {}
        }
    }
}

fn check_postgres_message(bytes: &[u8]) {
    use postgres::message::{parse_authentication, parse_error_response, parse_header};
    let _ = bytes.first_chunk().and_then(parse_header);
    assert_eq!(parse_authentication(bytes).is_some(), bytes.len() >= 4);
    if let Some(error) = parse_error_response(bytes) {
        assert!(!error.sqlstate.contains(&0) && !error.message.contains(&0));
        // Bytes behind the last field are ignored.
        assert_eq!(parse_error_response(&[bytes, b"more"].concat()), Some(error));
    }
}

fn check_redis_reply(bytes: &[u8]) {
    use redis::reply::{RedisReply, parse_reply, parse_role};
    if let Some(RedisReply::Simple(text) | RedisReply::Error(text)) = parse_reply(bytes) {
        assert_eq!(text, &bytes[1..]);
    }
    if let Some(role) = parse_role(bytes) {
        let longer = [bytes, b"\nrole:unknown\n"].concat();
        assert_eq!(parse_role(&longer), Some(role), "the first role counts");
    }
}

fn check_smtp_reply(bytes: &[u8]) {
    use smtp::reply::parse_reply_line;
    if let Some(line) = parse_reply_line(bytes) {
        assert!((200..=559).contains(&line.code));
        let without_cr = bytes.strip_suffix(b"\r").unwrap_or(bytes);
        assert!(bytes.starts_with(line.code.to_string().as_bytes()));
        assert!(without_cr.ends_with(line.text));
        assert!(!line.is_continued || bytes[3] == b'-');
    }
}

fn check_icmp_echo(packet: &[u8]) {
    let request = IcmpEchoRequest::random(true);
    // The payload has sixteen random bytes, which the fuzzer does not guess.
    assert!(!request.is_answered_by(packet));
    let longer = [&request.encode(true)[..], packet].concat();
    assert!(!request.is_answered_by(&longer), "a request is not a reply");
}

fn check_udp_pattern(bytes: &[u8]) {
    let Ok(text) = std::str::from_utf8(bytes) else { return };
    if let Ok(pattern) = text.parse::<BytePattern>() {
        assert_eq!(
            pattern.to_string().parse(),
            Ok(pattern.clone()),
            "the text parses as the pattern"
        );
        let shorter = vec![0; pattern.len().saturating_sub(1)];
        assert!(!pattern.is_prefix_of(&shorter) || pattern.is_empty());
    }
}
