//! Whether tests in network namespaces can run here.

use std::process::Command;
use std::sync::OnceLock;

/// Tells whether they can, with these programs; says why not. In CI they must.
///
/// # Panics
/// In CI, if they cannot.
pub(crate) fn can_run(programs: &[&str]) -> bool {
    let Some(missing) = missing(programs) else { return true };
    assert!(std::env::var_os("CI").is_none(), "{missing}");
    println!("skipped: {missing}");
    false
}

fn missing(programs: &[&str]) -> Option<String> {
    if !rustix::process::getuid().is_root() {
        return Some("network namespaces need root".to_owned());
    }
    for program in programs {
        if Command::new(program).arg("-V").output().is_err() {
            return Some(format!("no {program}"));
        }
    }
    // Once: the tests of a process run at the same time.
    static CAN: OnceLock<bool> = OnceLock::new();
    let can = CAN.get_or_init(|| {
        let name = format!("lvs{}-probe", std::process::id());
        let ip = |word| Command::new("ip").args(["netns", word, &name]).output();
        let made = ip("add").is_ok_and(|output| output.status.success());
        let _ = ip("del");
        made
    });
    (!can).then(|| "no network namespace can be made".to_owned())
}
