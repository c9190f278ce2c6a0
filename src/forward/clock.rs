//! Where time begins: all below is told what time it is.

use std::time::Instant;

/// What time it is.
#[expect(clippy::disallowed_methods, reason = "the one place that asks")]
pub(super) fn now() -> Instant {
    Instant::now()
}
