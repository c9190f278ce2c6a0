//! Responses whose body holds the lease of its backend until the last byte.

use std::fmt;
use std::pin::Pin;
use std::task::{Context, Poll, ready};

use ::tower::BoxError;
use bytes::Buf;
use http::Response;
use http_body::{Body, Frame, SizeHint};
use pin_project_lite::pin_project;

use super::status::{ClassifyTrailers, HttpStatusClassifier};
use crate::backend::Outcome;
use crate::tower::balance::Balance;
use crate::tower::classify::Classify;
use crate::tower::completion::{Completion, OnResponse};
use crate::tower::in_flight::InFlight;
use crate::tower::ready_first::ReadyFirst;

/// A [`Completion`] that ends a request with the body of its response: at the body's last byte, at its
/// error, or when it is dropped, which counts neither for nor against the backend.
///
/// For long bodies (downloads, streams, gRPC): schedulers that read the load count the request until
/// its body ends.
#[derive(Clone, Copy, Debug, Default)]
pub struct OnBodyEnd<F = HttpStatusClassifier>(F);

impl<F> OnBodyEnd<F> {
    /// Ends each request with its body; the classifier reads headers and trailers.
    #[must_use]
    pub const fn new(classify: F) -> Self {
        Self(classify)
    }
}

impl<S, K, R, F> Balance<S, K, OnResponse<F>, R> {
    /// Ends each request with the last byte of its response's body, which holds the lease and, with
    /// [`max_in_flight`](Self::max_in_flight), the permit until then.
    #[must_use]
    pub fn until_body_end(self) -> Balance<S, K, OnBodyEnd<F>, R>
    where
        F: Clone,
    {
        let classify = self.completion_ref().0.clone();
        self.completion(OnBodyEnd(classify))
    }
}

impl<S, F> ReadyFirst<S, OnResponse<F>> {
    /// Ends each request with the last byte of its response's body; see [`Balance::until_body_end`].
    #[must_use]
    pub fn until_body_end(self) -> ReadyFirst<S, OnBodyEnd<F>>
    where
        F: Clone,
    {
        let classify = self.completion_ref().0.clone();
        self.completion(OnBodyEnd(classify))
    }
}

impl<S, B, F> Completion<S, Response<B>> for OnBodyEnd<F>
where
    B: Body,
    F: Classify<Response<B>> + ClassifyTrailers + Clone,
{
    type Response = Response<LeasedBody<B, S, F>>;

    fn outcome(&self, result: Result<&Response<B>, &BoxError>) -> Outcome {
        self.0.classify(result)
    }

    fn complete(
        self,
        result: Result<Response<B>, BoxError>,
        outcome: Outcome,
        in_flight: InFlight<S>,
    ) -> Result<Self::Response, BoxError> {
        let response = match result {
            Ok(response) => response,
            Err(error) => {
                in_flight.complete(outcome);
                return Err(error);
            }
        };
        Ok(response.map(|body| {
            let mut in_flight = Some(in_flight);
            if body.is_end_stream()
                && let Some(in_flight) = in_flight.take()
            {
                in_flight.complete(outcome);
            }
            LeasedBody { body, in_flight, outcome, classify: self.0 }
        }))
    }
}

pin_project! {
    /// A body that holds the lease of its request until its last byte.
    pub struct LeasedBody<B, S, F = HttpStatusClassifier> {
        #[pin]
        body: B,
        // `None` after the request has ended.
        in_flight: Option<InFlight<S>>,
        outcome: Outcome,
        classify: F,
    }
}

impl<B, S, F> Body for LeasedBody<B, S, F>
where
    B: Body,
    B::Data: Buf,
    F: ClassifyTrailers,
{
    type Data = B::Data;
    type Error = B::Error;

    fn poll_frame(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<B::Data>, B::Error>>> {
        let mut this = self.project();
        let frame = ready!(this.body.as_mut().poll_frame(cx));
        let is_last = match &frame {
            None => true,
            Some(Err(_)) => {
                *this.outcome = Outcome::AppError;
                true
            }
            Some(Ok(frame)) => {
                if let Some(trailers) = frame.trailers_ref() {
                    *this.outcome = this.classify.classify_trailers(trailers, *this.outcome);
                }
                this.body.is_end_stream()
            }
        };
        if is_last && let Some(in_flight) = this.in_flight.take() {
            in_flight.complete(*this.outcome);
        }
        Poll::Ready(frame)
    }

    fn is_end_stream(&self) -> bool {
        self.body.is_end_stream()
    }

    fn size_hint(&self) -> SizeHint {
        self.body.size_hint()
    }
}

/// An empty body that holds no lease, for responses that no backend has sent.
impl<B: Default, S, F: Default> Default for LeasedBody<B, S, F> {
    fn default() -> Self {
        let (body, classify) = (B::default(), F::default());
        Self { body, in_flight: None, outcome: Outcome::Cancelled, classify }
    }
}

impl<B: fmt::Debug, S, F> fmt::Debug for LeasedBody<B, S, F> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("LeasedBody")
            .field("body", &self.body)
            .field("in_flight", &self.in_flight)
            .finish()
    }
}
