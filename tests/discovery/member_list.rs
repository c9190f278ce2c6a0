//! The text form of a list of members.

use std::net::SocketAddr;

use lvs::Limits;
use lvs::discovery::{MemberListError, MemberListErrorKind, StaticList};

use crate::world::*;

fn parse(text: &str) -> Result<StaticList<SocketAddr>, MemberListError> {
    text.parse()
}

#[tokio::test(start_paused = true)]
async fn every_key_is_parsed_in_any_order() {
    let list = parse(
        "\u{feff}# a list\r\n\
         10.0.0.1:80\r\n\
         \t 10.0.0.2:80 weight=0 # quiesced\n\
         [2001:db8::1]:8080 resume_below=5 name=six#1 zone=eu/1 max_connections=10 tier=255 weight=65535 #\n\
         \n",
    )
    .expect("a list");
    let set = BackendSet::new();
    Feed::new(&set, list).run().await;
    assert_eq!(shows(&set), ["10.0.0.1:80 1", "10.0.0.2:80 0 quiesced", "six#1 65535"]);
    let snapshot = set.snapshot();
    let (backend, member) = snapshot.iter().next().expect("the last named is the first");
    assert_eq!(backend.target().to_string(), "[2001:db8::1]:8080");
    assert_eq!(member.address(), Some(*backend.target()));
    assert_eq!((member.tier(), member.limits()), (255, Limits::new(10).with_resume_below(5)));
    assert_eq!(member.zone().map(|zone| zone.to_string()).as_deref(), Some("eu/1"));
}

#[test]
fn errors_name_line_and_column() {
    let cases = [
        (
            "10.0.0.1",
            "1:1: \"10.0.0.1\" is not an address with a port, such as 10.0.0.1:80 or [2001:db8::1]:80",
        ),
        (
            "\n  web:80 # by name",
            "2:3: \"web:80\" is not an address with a port, such as 10.0.0.1:80 or [2001:db8::1]:80",
        ),
        ("10.0.0.1:80 backup", "1:13: \"backup\" is not a key=value pair"),
        (
            "10.0.0.1:80 =",
            "1:13: unknown key \"\": the keys are name, weight, tier, zone, max_connections and resume_below",
        ),
        (
            "10.0.0.1:80 wait=3",
            "1:13: unknown key \"wait\": the keys are name, weight, tier, zone, max_connections and resume_below",
        ),
        ("10.0.0.1:80 weight=1  weight=2", "1:23: weight is set twice"),
        ("10.0.0.1:80 name=a name=b", "1:20: name is set twice"),
        (
            "10.0.0.1:80 weight=65536",
            "1:20: weight must be a number from 0 to 65535, not \"65536\"",
        ),
        ("10.0.0.1:80 weight=", "1:20: weight must be a number from 0 to 65535, not \"\""),
        ("10.0.0.1:80 weight=+1", "1:20: weight must be a number from 0 to 65535, not \"+1\""),
        (
            "10.0.0.1:80 weight=99999999999",
            "1:20: weight must be a number from 0 to 65535, not \"99999999999\"",
        ),
        ("10.0.0.1:80 tier=256", "1:18: tier must be a number from 0 to 255, not \"256\""),
        (
            "10.0.0.1:80 max_connections=1073741825",
            "1:29: max_connections must be a number from 0 to 1073741824, not \"1073741825\"",
        ),
        (
            "10.0.0.1:80 resume_below=3 max_connections=2",
            "1:13: resume_below 3 is above max_connections 2",
        ),
        ("10.0.0.1:80 resume_below=3", "1:13: resume_below 3 is above max_connections 0"),
        ("10.0.0.1:80 zone=a zone=a", "1:20: zone is set twice"),
        (
            "10.0.0.1:80 zone=a,b",
            "1:18: zone is \"a,b\", must be a name of 1 to 64 ASCII letters, digits, `.`, `_`, `-` and `/`",
        ),
        ("10.0.0.1:80 name=", "1:18: name must have 1 to 255 bytes"),
        (
            "10.0.0.1:80 näme=ü weight=x",
            "1:13: unknown key \"näme\": the keys are name, weight, tier, zone, max_connections and resume_below",
        ),
        ("10.0.0.1:80 name=ü weight=x", "1:27: weight must be a number from 0 to 65535, not \"x\""),
        (
            "10.0.0.1:80\n10.0.0.1:81\n10.0.0.1:80 weight=3",
            "3:1: member \"10.0.0.1:80\" is already on line 1",
        ),
        ("10.0.0.1:80 name=a\n10.0.0.2:80 name=a", "2:1: member \"a\" is already on line 1"),
        (
            "a\u{1b}[31m",
            "1:1: \"a\\u{1b}[31m\" is not an address with a port, such as 10.0.0.1:80 or [2001:db8::1]:80",
        ),
    ];
    for (text, expected) in cases {
        let error = parse(text).map(drop).expect_err(text);
        assert_eq!(error.to_string(), expected, "{text}");
    }
}

#[test]
fn error_texts_and_names_are_bounded() {
    let error = parse(&"x".repeat(1 << 20)).map(drop).expect_err("no list");
    assert!(error.to_string().len() < 200, "{error}");
    let named = |length| parse(&format!("10.0.0.1:80 name={}", "n".repeat(length)));
    assert!(named(255).is_ok());
    assert_eq!(named(256).map(drop).expect_err("too long").kind, MemberListErrorKind::InvalidName);
    let many: String =
        (0..=lvs::backend::MAX_BACKENDS).map(|n| format!("10.0.0.1:80 name={n}\n")).collect();
    let error = parse(&many).map(drop).expect_err("one too many");
    assert_eq!(
        (error.line, error.kind),
        (lvs::backend::MAX_BACKENDS + 1, MemberListErrorKind::TooManyMembers)
    );
}
