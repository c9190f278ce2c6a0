//! What tests of a director in a network namespace have in common; they need root.

use std::process::Command;
use std::thread;
use std::time::Duration;

use nix::sched::{CloneFlags, unshare};

#[path = "../../tests/common/namespaces.rs"]
#[allow(clippy::duplicate_mod, reason = "the tests of `announce` have it, too")]
mod namespaces;

/// Runs a test on a runtime in a network namespace of its own, after these commands of `ip`.
pub(super) fn run_in_namespace(setup: &[&str], test: impl AsyncFnOnce() + Send) {
    if !namespaces::can_run(&["ip"]) {
        return;
    }
    thread::scope(|scope| {
        let run = scope.spawn(|| {
            // For this thread, and those that it starts.
            unshare(CloneFlags::CLONE_NEWNET).expect("as root");
            for words in setup {
                let status = Command::new("ip").args(words.split(' ')).status().expect("`ip`");
                assert!(status.success(), "ip {words}");
            }
            let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build();
            runtime.expect("a runtime").block_on(test());
        });
        run.join().expect("the test passes");
    });
}

/// Waits until a condition holds, by the system's clock: threads of the director make it so.
pub(super) async fn until(what: &str, mut condition: impl FnMut() -> bool) {
    for _ in 0..1000 {
        if condition() {
            return;
        }
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
    panic!("{what}: not within 20 s");
}
