//! Classifiers: what the result of a request means for its backend.

use std::error::Error;
use std::io::{self, ErrorKind};

use ::tower::BoxError;
use ::tower::timeout::error::Elapsed;
use tokio::time::error::Elapsed as TokioElapsed;

use super::error::BalanceError;
use crate::backend::Outcome;

/// Classifies the result of a request as an outcome of the backend that served it. Schedulers, outlier
/// ejection and counters read the outcomes.
///
/// Closures implement it; so do [`ResultClassifier`] and, with the feature `tower-http`,
/// `HttpStatusClassifier` and `GrpcStatusClassifier`.
pub trait Classify<Res> {
    /// Returns the outcome of a response or an error.
    fn classify(&self, result: Result<&Res, &BoxError>) -> Outcome;
}

impl<Res, F: Fn(Result<&Res, &BoxError>) -> Outcome> Classify<Res> for F {
    fn classify(&self, result: Result<&Res, &BoxError>) -> Outcome {
        self(result)
    }
}

/// A classifier by which a response is a success and an error is a failure.
///
/// If an I/O error is among an error's sources, the outcome is that of the I/O error: a failed connect
/// or a timeout. The `Elapsed` of tower's `Timeout` and of `tokio::time::timeout`, and the
/// [`BalanceError::Timeout`] of a balancer below, are timeouts. Any other error is an application
/// error.
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
    let mut source = Some(error);
    // Bounded, in case the sources form a cycle.
    for _ in 0..16 {
        let Some(error) = source else { break };
        if is_timeout(error) {
            return Outcome::Timeout;
        }
        let io_error = error.downcast_ref::<io::Error>();
        match io_error.map(io::Error::kind) {
            Some(ErrorKind::TimedOut) => return Outcome::Timeout,
            Some(
                ErrorKind::ConnectionRefused
                | ErrorKind::HostUnreachable
                | ErrorKind::NetworkUnreachable
                | ErrorKind::AddrNotAvailable,
            ) => return Outcome::ConnectError,
            // The source of an I/O error around another error is the source of that, and not that itself.
            _ => {
                let inner = io_error.and_then(io::Error::get_ref);
                source = inner.map_or_else(|| error.source(), |inner| Some(inner));
            }
        }
    }
    Outcome::AppError
}

/// Tells whether an error itself, and not one of its sources, is a timeout of tower, tokio or a balancer.
fn is_timeout(error: &(dyn Error + 'static)) -> bool {
    error.is::<Elapsed>()
        || error.is::<TokioElapsed>()
        || matches!(error.downcast_ref(), Some(BalanceError::Timeout { .. }))
}

#[cfg(all(test, not(lvs_loom)))]
mod tests {
    use std::time::Duration;

    use super::*;

    #[test]
    fn an_error_is_classified_by_the_io_error_among_its_sources() {
        let outcome_of = |error: BoxError| ResultClassifier.classify(Err::<&(), _>(&error));
        let nested = |kind: ErrorKind| BoxError::from(io::Error::other(io::Error::from(kind)));
        assert_eq!(ResultClassifier.classify(Ok(&())), Outcome::Ok);
        assert_eq!(outcome_of("failed".into()), Outcome::AppError);
        assert_eq!(outcome_of(io::Error::from(ErrorKind::TimedOut).into()), Outcome::Timeout);
        assert_eq!(
            outcome_of(io::Error::from(ErrorKind::ConnectionRefused).into()),
            Outcome::ConnectError
        );
        assert_eq!(outcome_of(nested(ErrorKind::BrokenPipe)), Outcome::AppError);
    }

    #[test]
    fn the_timeouts_of_tower_tokio_and_a_balancer_are_timeouts() {
        let outcome_of = |error: BoxError| ResultClassifier.classify(Err::<&(), _>(&error));
        assert_eq!(outcome_of(Elapsed::new().into()), Outcome::Timeout);
        assert_eq!(outcome_of(io::Error::other(Elapsed::new()).into()), Outcome::Timeout);
        let below = BalanceError::Timeout { backend: "a".into(), timeout: Duration::from_secs(1) };
        assert_eq!(outcome_of(below.into()), Outcome::Timeout);
        assert_eq!(outcome_of(BalanceError::NoKey.into()), Outcome::AppError);
    }
}
