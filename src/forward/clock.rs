//! The clock of the forwarders: the only file that reads the time for balancers and limits.

use std::time::Instant;

/// Returns the current instant.
#[expect(clippy::disallowed_methods, reason = "the only call that reads the clock")]
pub(super) fn now() -> Instant {
    Instant::now()
}
