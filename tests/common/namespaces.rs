//! A check whether tests in network namespaces can run.

use std::process::Command;
use std::sync::OnceLock;

use self::skipped::report_skipped;

#[path = "skipped.rs"]
pub(crate) mod skipped;

/// Returns whether tests in network namespaces can run with these programs; prints the reason if
/// not.
///
/// # Panics
/// In CI, if the tests cannot run.
pub(crate) fn can_run(programs: &[&str]) -> bool {
    let Some(missing) = missing(programs) else { return true };
    assert!(std::env::var_os("CI").is_none(), "{missing}");
    report_skipped(missing);
    false
}

fn missing(programs: &[&str]) -> Option<String> {
    if !rustix::process::getuid().is_root() {
        return Some("network namespaces need root".to_owned());
    }
    for program in programs {
        if Command::new(program).arg("-V").output().is_err() {
            return Some(format!("the program {program} is missing"));
        }
    }
    // Checked once, because the tests of a process run at the same time.
    static CAN_CREATE: OnceLock<bool> = OnceLock::new();
    let can_create = CAN_CREATE.get_or_init(|| {
        let name = format!("lvs{}-probe", std::process::id());
        let ip = |action| Command::new("ip").args(["netns", action, &name]).output();
        let is_created = ip("add").is_ok_and(|output| output.status.success());
        let _ = ip("del");
        is_created
    });
    (!can_create).then(|| "a network namespace cannot be created".to_owned())
}
