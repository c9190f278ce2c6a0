//! What the end of a request says about its backend.

use std::error::Error;
use std::io::{self, ErrorKind};

use ::tower::BoxError;

use crate::backend::Outcome;

/// Tells what the end of a request says about the backend that served it: schedulers, outlier
/// ejection and counters learn from that.
///
/// A closure is one. With the feature `tower-http`, `HttpStatus` and `GrpcStatus` are others.
pub trait Classify<Res> {
    /// What this response, or this error, means.
    fn classify(&self, result: Result<&Res, &BoxError>) -> Outcome;
}

impl<Res, F: Fn(Result<&Res, &BoxError>) -> Outcome> Classify<Res> for F {
    fn classify(&self, result: Result<&Res, &BoxError>) -> Outcome {
        self(result)
    }
}

/// A response is good, and an error is not: one whose causes include an I/O error counts as what
/// that is, a refused or failed connection or a timeout.
#[derive(Clone, Copy, Debug, Default)]
pub struct ResultClassifier;

impl<Res> Classify<Res> for ResultClassifier {
    #[inline]
    fn classify(&self, result: Result<&Res, &BoxError>) -> Outcome {
        result.map_or_else(|error| classify_error(&**error), |_| Outcome::Ok)
    }
}

#[cold]
pub(super) fn classify_error(error: &(dyn Error + 'static)) -> Outcome {
    let mut cause = Some(error);
    // A chain that bites its tail ends here.
    for _ in 0..16 {
        let Some(error) = cause else { break };
        match error.downcast_ref::<io::Error>().map(io::Error::kind) {
            Some(ErrorKind::TimedOut) => return Outcome::Timeout,
            Some(
                ErrorKind::ConnectionRefused
                | ErrorKind::HostUnreachable
                | ErrorKind::NetworkUnreachable
                | ErrorKind::AddrNotAvailable,
            ) => return Outcome::ConnectError,
            _ => cause = error.source(),
        }
    }
    Outcome::AppError
}

#[cfg(all(test, not(lvs_loom)))]
mod tests {
    use super::*;

    #[test]
    fn an_error_counts_as_what_lies_beneath_it() {
        let of = |error: BoxError| ResultClassifier.classify(Err::<&(), _>(&error));
        let io = |kind: ErrorKind| BoxError::from(io::Error::other(io::Error::from(kind)));
        assert_eq!(ResultClassifier.classify(Ok(&())), Outcome::Ok);
        assert_eq!(of("no".into()), Outcome::AppError);
        assert_eq!(of(io::Error::from(ErrorKind::TimedOut).into()), Outcome::Timeout);
        assert_eq!(of(io::Error::from(ErrorKind::ConnectionRefused).into()), Outcome::ConnectError);
        assert_eq!(of(io(ErrorKind::BrokenPipe)), Outcome::AppError);
    }
}
