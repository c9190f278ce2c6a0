//! The HTTP client of the HTTP and gRPC checks.

use std::error::Error as _;
use std::fmt::Display;
use std::future::Future;
use std::io;
use std::pin::pin;

use crate::health::{CheckContext, CheckFailure, CheckFailureKind, CheckReport};

/// Waits for the result of a check while its connection is polled.
pub(super) async fn await_on_connection<C>(
    check: impl Future<Output = Result<CheckReport, CheckFailure>>,
    connection: C,
) -> Result<CheckReport, CheckFailure>
where
    C: Future,
{
    let (mut check, connection) = (pin!(check), pin!(connection));
    tokio::select! {
        biased;
        result = &mut check => return result,
        _ = connection => {}
    }
    // The connection has ended: the check ends with what was received.
    check.await
}

/// Returns the failure of a request that cannot be built.
pub(super) fn invalid_request_failure(error: impl Display) -> CheckFailure {
    CheckFailure::new(CheckFailureKind::Local, format!("the request is invalid: {error}"))
}

/// Returns the failure of an error of the HTTP library at the present stage.
pub(super) fn hyper_failure(context: &CheckContext, error: &hyper::Error) -> CheckFailure {
    let stage = context.stage();
    let mut source = error.source();
    while let Some(cause) = source {
        if let Some(error) = cause.downcast_ref::<io::Error>() {
            return CheckFailure::io(stage, error);
        }
        source = cause.source();
    }
    let kind = if error.is_parse_too_large() {
        CheckFailureKind::TooLong
    } else if error.is_incomplete_message() || error.is_closed() || error.is_canceled() {
        CheckFailureKind::Closed
    } else {
        CheckFailureKind::Protocol
    };
    let cause = error.source().map(|cause| format!(": {cause}")).unwrap_or_default();
    CheckFailure::new(kind, format!("{stage}: {error}{cause}"))
}
