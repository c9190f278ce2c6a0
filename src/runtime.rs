//! What a part needs of the tokio runtime that runs it, checked when the part starts.

use std::panic::{AssertUnwindSafe, catch_unwind};
use std::time::Duration;

use thiserror::Error;
use tokio::runtime::Handle;

/// The runtime that runs a part of the crate lacks what the part needs.
///
/// A part checks its runtime when it starts, so that it fails there and not in a task that nobody
/// watches. tokio prints a panic message besides: it has no other way to ask.
#[derive(Clone, Copy, Debug, Eq, Error, Hash, PartialEq)]
#[non_exhaustive]
pub enum RuntimeError {
    /// There is no tokio runtime.
    #[error("{part} needs a tokio runtime, and runs outside of one")]
    Missing {
        /// The part that was started.
        part: &'static str,
    },
    /// The runtime was built without time.
    #[error("{part} needs a tokio runtime with time: build it with enable_time or enable_all")]
    NoTime {
        /// The part that was started.
        part: &'static str,
    },
    /// The runtime was built without I/O.
    #[error("{part} needs a tokio runtime with I/O: build it with enable_io or enable_all")]
    NoIo {
        /// The part that was started.
        part: &'static str,
    },
}

/// Refuses a runtime without time.
pub(crate) fn require_time(part: &'static str) -> Result<(), RuntimeError> {
    Handle::try_current().map_err(|_| RuntimeError::Missing { part })?;
    let has_time = catch_unwind(|| drop(tokio::time::sleep(Duration::ZERO))).is_ok();
    if has_time { Ok(()) } else { Err(RuntimeError::NoTime { part }) }
}

/// Refuses a runtime without I/O. Opens a socket for a moment; a machine that has none left passes.
#[cfg_attr(
    not(any(feature = "health", feature = "discovery-dns")),
    allow(dead_code, reason = "checks and name servers need it")
)]
pub(crate) fn require_io(part: &'static str) -> Result<(), RuntimeError> {
    Handle::try_current().map_err(|_| RuntimeError::Missing { part })?;
    let open_socket = || {
        #[cfg(unix)]
        let _ = tokio::net::UnixDatagram::unbound();
    };
    let has_io = catch_unwind(AssertUnwindSafe(open_socket)).is_ok();
    if has_io { Ok(()) } else { Err(RuntimeError::NoIo { part }) }
}

#[cfg(all(test, not(lvs_loom)))]
mod tests {
    use tokio::runtime::Builder;

    use super::*;

    #[test]
    fn a_runtime_without_a_driver_is_refused_by_name() {
        let bare = Builder::new_current_thread().build().expect("a runtime");
        let part = "a part";
        bare.block_on(async {
            assert_eq!(require_time(part), Err(RuntimeError::NoTime { part }));
            assert_eq!(require_io(part), Err(RuntimeError::NoIo { part }));
        });
        let whole = Builder::new_current_thread().enable_all().build().expect("a runtime");
        whole.block_on(async {
            assert_eq!((require_time(part), require_io(part)), (Ok(()), Ok(())));
        });
        assert_eq!(require_time(part), Err(RuntimeError::Missing { part }));
    }
}
