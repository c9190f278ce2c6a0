//! Says which tests are skipped, and why, where a plain run shows it.

use std::collections::BTreeSet;
use std::fmt::Display;
use std::io::stderr;
use std::sync::Mutex;
use std::thread;

/// Reports a test that does not run here, once for each reason in a program.
///
/// The harness holds back what a test prints until it fails, so this writes to standard error itself.
pub(crate) fn report_skipped(reason: impl Display) {
    static REASONS: Mutex<BTreeSet<String>> = Mutex::new(BTreeSet::new());
    let reason = reason.to_string().replace('\n', " ");
    if !REASONS.lock().expect("no panic").insert(reason.clone()) {
        return;
    }
    // The harness names a test's thread by the test.
    let test = thread::current().name().unwrap_or("a test").to_owned();
    let line = format!("skipped: {test} and all others that need it: {}\n", reason.trim_end());
    // Not worth failing for.
    let _ = rustix::io::write(stderr(), line.as_bytes());
}
