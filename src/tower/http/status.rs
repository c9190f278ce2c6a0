//! What a status says about the backend.

use ::tower::BoxError;
use http::{HeaderMap, Response};

use crate::backend::Outcome;
use crate::tower::Classify;
use crate::tower::classify::classify_error;

/// A status of 500 or above is the backend's failure, and so is an error; 504 is a timeout.
///
/// 4xx is not: the client is at fault, and other backends would say the same.
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

/// By gRPC's status, in the headers of a response without body, or in the trailers where
/// [`OnBodyEnd`](super::OnBodyEnd) waits for them.
///
/// The backend's failures are `UNKNOWN`, `INTERNAL`, `UNAVAILABLE`, `DATA_LOSS`, `RESOURCE_EXHAUSTED`
/// and `UNIMPLEMENTED`; `DEADLINE_EXCEEDED` is a timeout; the others are the client's, and other
/// backends would say the same. An HTTP status counts as for [`HttpStatusClassifier`].
#[derive(Clone, Copy, Debug, Default)]
pub struct GrpcStatusClassifier;

impl<B> Classify<Response<B>> for GrpcStatusClassifier {
    fn classify(&self, result: Result<&Response<B>, &BoxError>) -> Outcome {
        let by_http = HttpStatusClassifier.classify(result);
        match result {
            Ok(response) if by_http == Outcome::Ok => {
                self.classify_trailers(response.headers(), by_http)
            }
            _ => by_http,
        }
    }
}

/// What trailers say, for classifiers of responses whose end is in their body.
pub trait ClassifyTrailers {
    /// What these trailers mean, where the headers meant `so_far`.
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
    fn statuses_of_the_server_count_against_it() {
        let of = |status: u16| {
            let response = Response::builder().status(status).body(()).expect("a status");
            HttpStatusClassifier.classify(Ok(&response))
        };
        assert_eq!([200, 301, 404, 429, 499].map(of), [Outcome::Ok; 5]);
        assert_eq!([500, 501, 503, 599].map(of), [Outcome::AppError; 4]);
        assert_eq!(of(504), Outcome::Timeout);
    }

    #[test]
    fn grpc_statuses_count_wherever_they_are() {
        let of = |status: &str| {
            let response = Response::builder().header("grpc-status", status).body(());
            GrpcStatusClassifier.classify(Ok(&response.expect("a status")))
        };
        assert_eq!(["0", "1", "3", "5", "7", "16"].map(of), [Outcome::Ok; 6]);
        assert_eq!(["2", "8", "12", "13", "14", "15", "x"].map(of), [Outcome::AppError; 7]);
        assert_eq!(of("4"), Outcome::Timeout);
        assert_eq!(GrpcStatusClassifier.classify(Ok(&Response::new(()))), Outcome::Ok);
        let failed = Response::builder().status(502).header("grpc-status", "0").body(());
        assert_eq!(
            GrpcStatusClassifier.classify(Ok(&failed.expect("a status"))),
            Outcome::AppError
        );
    }
}
