//! Runs `lvs` and `ipvsadm` with the same arguments, and compares what they print.

use std::io::Write as _;
use std::os::unix::process::CommandExt as _;
use std::process::{Command, Stdio};

/// The exit code, what is printed, and whether there is an error.
pub(super) type Printed = (Option<i32>, String, bool);

/// Runs a program under a name, with lines to read.
pub(super) fn execute(program: &str, name: &str, words: &[&str], input: &str) -> Printed {
    let mut child = Command::new(program)
        .arg0(name)
        .args(words)
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .unwrap_or_else(|error| panic!("{program}: {error}"));
    // A program that does not read its input closes it.
    let _ = child.stdin.take().expect("piped").write_all(input.as_bytes());
    let output = child.wait_with_output().expect("a child of ours");
    let stdout = String::from_utf8(output.stdout).expect("text");
    (output.status.code(), stdout, !output.stderr.is_empty())
}

fn words(line: &str) -> Vec<&str> {
    line.split_whitespace().collect()
}

/// Runs `lvs` as ipvsadm.
pub(super) fn linked(line: &str) -> Printed {
    execute("lvs", "/usr/sbin/ipvsadm", &words(line), "")
}

/// Runs `lvs ipvs`.
pub(super) fn subcommand(line: &str) -> Printed {
    execute("lvs", "lvs", &[&["ipvs"], &*words(line)].concat(), "")
}

pub(super) fn original(line: &str) -> Printed {
    execute("ipvsadm", "ipvsadm", &words(line), "")
}

/// Checks that both print the same, at a time when the kernel says the same to both; but for the times that
/// connections have left, which are between those that the kernel says before and after.
pub(super) fn compare(line: &str) -> Printed {
    let mut before = original(line);
    for _ in 0..20 {
        let (printed, after) = (linked(line), original(line));
        if printed == before || printed == after || is_between(&before, &printed, &after) {
            return printed;
        }
        assert!(before != after, "ipvsadm {line}:\n{before:?}\nlvs:\n{printed:?}");
        before = after;
    }
    panic!("ipvsadm {line}: it never prints the same twice");
}

/// Returns whether texts are the same but for times, none of which is later than the one before.
fn is_between(before: &Printed, printed: &Printed, after: &Printed) -> bool {
    let is_step = |before: &Printed, after: &Printed| {
        let ((rest, times), (rest_after, times_after)) =
            (split_times(&before.1), split_times(&after.1));
        (before.0, before.2, rest) == (after.0, after.2, rest_after)
            && times.iter().zip(&times_after).all(|(before, after)| before >= after)
    };
    is_step(before, printed) && is_step(printed, after)
}

/// Returns a text with its times, such as `04:59`, replaced, and the times.
fn split_times(text: &str) -> (String, Vec<String>) {
    let is_time = |word: &str| {
        let digits = |part: &str| part.len() == 2 && part.bytes().all(|byte| byte.is_ascii_digit());
        word.split_once(':').is_some_and(|(minutes, seconds)| digits(minutes) && digits(seconds))
    };
    let (mut rest, mut times) = (String::new(), Vec::new());
    for word in text.split_inclusive([' ', '\n']) {
        match word.trim_end() {
            time if is_time(time) => {
                times.push(time.to_owned());
                rest.push_str(&word.replace(time, "time"));
            }
            _ => rest.push_str(word),
        }
    }
    (rest, times)
}
