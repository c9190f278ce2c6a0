use proptest::prelude::*;

use super::process_group::FirstStderrLine;
use super::*;

fn judge(check: &CommandCheck, raw: i32) -> Result<Option<AgentWeight>, String> {
    let judged = check.judge(ExitStatus::from_raw(raw), b"");
    judged.map(|report| report.agent_override().weight).map_err(|failure| failure.to_string())
}

fn exit(code: i32) -> i32 {
    code << 8
}

#[test]
fn exit_codes_mean_what_they_mean_to_keepalived() {
    let (plain, dynamic) = (CommandCheck::new("x"), CommandCheck::new("x").dynamic());
    assert_eq!(judge(&plain, exit(0)), Ok(None));
    assert_eq!(judge(&dynamic, exit(0)), Ok(Some(AgentWeight::Percent(100))));
    assert_eq!(judge(&dynamic, exit(1)), Err("the program exited with code 1".to_owned()));
    for code in 1..=255 {
        assert_eq!(judge(&plain, exit(code)), Err(format!("the program exited with code {code}")));
    }
    for code in 2..=255 {
        let weight = AgentWeight::Exactly(code as u32 - 2);
        assert_eq!(judge(&dynamic, exit(code)), Ok(Some(weight)));
    }
    for check in [plain, dynamic] {
        assert_eq!(judge(&check, 9), Err("the program was ended by signal 9".to_owned()));
        assert_eq!(
            judge(&check, 6 | 0x80),
            Err("the program was ended by signal 6".to_owned()),
            "with a core dump"
        );
    }
}

#[test]
fn the_first_line_that_is_not_blank_is_kept() {
    let line = |parts: &[&[u8]]| {
        let mut line = FirstStderrLine::default();
        parts.iter().for_each(|part| line.push(part));
        line.into_bytes()
    };
    assert_eq!(line(&[]), b"");
    assert_eq!(line(&[b"\n \r\nno ", b"disk\r\nmore"]), b"no disk");
    assert_eq!(line(&["x".repeat(500).as_bytes()]), "x".repeat(200).as_bytes());
}

#[test]
fn the_reason_quotes_the_first_line() {
    let status = ExitStatus::from_raw(exit(1));
    let failure =
        CommandCheck::new("x").judge(status, b"\x1b[31mred\xff").expect_err("exit code 1");
    let expected = r#"the program exited with code 1: "\u{1b}[31mred\xff""#;
    assert_eq!(failure.reason(), expected);
}

proptest! {
    #[test]
    fn the_first_line_is_bounded(parts in any::<Vec<Vec<u8>>>()) {
        let mut line = FirstStderrLine::default();
        parts.iter().for_each(|part| line.push(part));
        prop_assert!(line.into_bytes().len() <= 200);
    }
}
