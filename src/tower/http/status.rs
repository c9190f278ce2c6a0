//! Classifiers of responses by their HTTP or gRPC status.

use ::tower::BoxError;
use http::{HeaderMap, Response};

use crate::backend::Outcome;
use crate::tower::classify::{Classify, classify_error};

/// A classifier by which an error and a status of 500 or above are failures of the backend; 504 is a
/// timeout.
///
/// A 4xx status is no failure: the client is at fault, and other backends would answer the same.
#[derive(Clone, Copy, Debug, Default)]
pub struct HttpStatusClassifier;

impl<B> Classify<Response<B>> for HttpStatusClassifier {
    fn classify(&self, result: Result<&Response<B>, &BoxError>) -> Outcome {
        match result.map(|response| response.status().as_u16()) {
            Ok(504) => Outcome::Timeout,
            Ok(500..) => Outcome::AppError,
            Ok(_) => Outcome::Ok,
            Err(error) => classify_error(&**error),
        }
    }
}

/// A classifier by gRPC status: in the headers of a response without body, or in the trailers, with
/// [`OnBodyEnd`](super::OnBodyEnd).
///
/// Failures of the backend are `UNKNOWN`, `INTERNAL`, `UNAVAILABLE`, `DATA_LOSS`,
/// `RESOURCE_EXHAUSTED`, `UNIMPLEMENTED`, and a status that is no number; `DEADLINE_EXCEEDED` is a
/// timeout. Any other status is the client's fault, and other backends would answer the same. The
/// HTTP status counts as with [`HttpStatusClassifier`].
#[derive(Clone, Copy, Debug, Default)]
pub struct GrpcStatusClassifier;

impl<B> Classify<Response<B>> for GrpcStatusClassifier {
    fn classify(&self, result: Result<&Response<B>, &BoxError>) -> Outcome {
        let http_outcome = HttpStatusClassifier.classify(result);
        match result {
            Ok(response) if http_outcome == Outcome::Ok => {
                self.classify_trailers(response.headers(), http_outcome)
            }
            _ => http_outcome,
        }
    }
}

/// Classifies the trailers of a response, for [`OnBodyEnd`](super::OnBodyEnd).
pub trait ClassifyTrailers {
    /// Returns the outcome of a response with these trailers, whose headers meant `so_far`.
    fn classify_trailers(&self, trailers: &HeaderMap, so_far: Outcome) -> Outcome;
}

impl ClassifyTrailers for HttpStatusClassifier {
    fn classify_trailers(&self, _: &HeaderMap, so_far: Outcome) -> Outcome {
        so_far
    }
}

impl ClassifyTrailers for GrpcStatusClassifier {
    fn classify_trailers(&self, trailers: &HeaderMap, so_far: Outcome) -> Outcome {
        let status = trailers.get("grpc-status").and_then(|status| status.to_str().ok());
        match status.map(str::parse::<u8>) {
            None => so_far,
            Some(Ok(4)) => Outcome::Timeout,
            Some(Ok(2 | 8 | 12 | 13 | 14 | 15) | Err(_)) => Outcome::AppError,
            Some(Ok(_)) => so_far,
        }
    }
}

#[cfg(all(test, not(lvs_loom)))]
mod tests {
    use super::*;

    #[test]
    fn statuses_from_500_are_failures() {
        let outcome_of = |status: u16| {
            let response = Response::builder().status(status).body(()).expect("a status");
            HttpStatusClassifier.classify(Ok(&response))
        };
        assert_eq!([200, 301, 404, 429, 499].map(outcome_of), [Outcome::Ok; 5]);
        assert_eq!([500, 501, 503, 599].map(outcome_of), [Outcome::AppError; 4]);
        assert_eq!(outcome_of(504), Outcome::Timeout);
    }

    #[test]
    fn a_grpc_status_in_the_headers_is_classified() {
        let outcome_of = |status: &str| {
            let response = Response::builder().header("grpc-status", status).body(());
            GrpcStatusClassifier.classify(Ok(&response.expect("a status")))
        };
        assert_eq!(["0", "1", "3", "5", "7", "16"].map(outcome_of), [Outcome::Ok; 6]);
        assert_eq!(["2", "8", "12", "13", "14", "15", "x"].map(outcome_of), [Outcome::AppError; 7]);
        assert_eq!(outcome_of("4"), Outcome::Timeout);
        assert_eq!(GrpcStatusClassifier.classify(Ok(&Response::new(()))), Outcome::Ok);
        let failed = Response::builder().status(502).header("grpc-status", "0").body(());
        assert_eq!(
            GrpcStatusClassifier.classify(Ok(&failed.expect("a status"))),
            Outcome::AppError
        );
    }
}
