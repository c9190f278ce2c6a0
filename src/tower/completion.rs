//! When a request ends, and what its caller receives.

use ::tower::BoxError;

use super::classify::{Classify, ResultClassifier};
use super::in_flight::InFlight;
use crate::backend::Outcome;

/// Decides when a request returns its backend, and what response the balancer's caller receives.
///
/// [`OnResponse`] is the default. With the feature `tower-http`, `OnBodyEnd` keeps the lease until the
/// last byte of the response's body.
pub trait Completion<S, Res>: Clone {
    /// The response that the balancer's caller receives.
    type Response;

    /// Returns what a result means for the backend. [`Retry`](super::Retry) repeats failures and does
    /// not pass them to [`complete`](Self::complete).
    fn outcome(&self, result: Result<&Res, &BoxError>) -> Outcome;

    /// Ends a request: receives its result, its [outcome](Self::outcome), and what it holds. An
    /// `in_flight` that the response does not carry on is returned when this function returns.
    ///
    /// # Errors
    /// Returns the request's error, or an error of its own.
    fn complete(
        self,
        result: Result<Res, BoxError>,
        outcome: Outcome,
        in_flight: InFlight<S>,
    ) -> Result<Self::Response, BoxError>;
}

/// A [`Completion`] that ends a request with its response.
#[derive(Clone, Copy, Debug, Default)]
pub struct OnResponse<F = ResultClassifier>(pub(super) F);

impl<F> OnResponse<F> {
    /// Ends each request with its response, whose outcome the classifier decides.
    pub const fn new<Res>(classify: F) -> Self
    where
        F: Classify<Res>,
    {
        Self(classify)
    }
}

impl<S, Res, F: Classify<Res> + Clone> Completion<S, Res> for OnResponse<F> {
    type Response = Res;

    #[inline]
    fn outcome(&self, result: Result<&Res, &BoxError>) -> Outcome {
        self.0.classify(result)
    }

    #[inline]
    fn complete(
        self,
        result: Result<Res, BoxError>,
        outcome: Outcome,
        in_flight: InFlight<S>,
    ) -> Result<Res, BoxError> {
        in_flight.complete(outcome);
        result
    }
}
