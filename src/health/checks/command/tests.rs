use proptest::prelude::*;

use super::process_group::FirstStderrLine;
use super::*;

fn read(check: &CommandCheck, raw: i32) -> Result<Option<AgentWeight>, String> {
    let judged = check.judge(ExitStatus::from_raw(raw), "");
    judged.map(|report| report.agent_override().weight).map_err(|failure| failure.to_string())
}

fn exit(code: i32) -> i32 {
    code << 8
}

#[test]
fn exit_codes_are_read_as_keepalived_reads_them() {
    let (plain, dynamic) = (CommandCheck::new("x"), CommandCheck::new("x").dynamic());
    assert_eq!(read(&plain, exit(0)), Ok(None));
    assert_eq!(read(&dynamic, exit(0)), Ok(Some(AgentWeight::Percent(100))));
    assert_eq!(read(&dynamic, exit(1)), Err("exit code 1".to_owned()));
    for code in 1..=255 {
        assert_eq!(read(&plain, exit(code)), Err(format!("exit code {code}")));
    }
    for code in 2..=255 {
        let weight = AgentWeight::Exactly(code as u32 - 2);
        assert_eq!(read(&dynamic, exit(code)), Ok(Some(weight)));
    }
    for check in [plain, dynamic] {
        assert_eq!(read(&check, 9), Err("ended by signal 9".to_owned()));
        assert_eq!(read(&check, 6 | 0x80), Err("ended by signal 6".to_owned()), "with a core");
    }
}

#[test]
fn the_first_line_is_for_a_log() {
    let said = |parts: &[&[u8]]| {
        let mut line = FirstStderrLine::default();
        parts.iter().for_each(|part| line.push(part));
        line.text()
    };
    assert_eq!(said(&[]), "");
    assert_eq!(said(&[b"\n \r\nno ", b"disk\r\nmore"]), "no disk");
    assert_eq!(said(&[b"\x1b[31mred\xff"]), "\u{fffd}[31mred\u{fffd}");
    assert_eq!(said(&["\u{e9}".repeat(500).as_bytes()]), "\u{e9}".repeat(100));
}

proptest! {
    #[test]
    fn whatever_is_said_fits(parts in any::<Vec<Vec<u8>>>()) {
        let mut line = FirstStderrLine::default();
        parts.iter().for_each(|part| line.push(part));
        let text = line.text();
        prop_assert!(text.len() <= 200);
        prop_assert!(!text.chars().any(char::is_control));
    }
}
