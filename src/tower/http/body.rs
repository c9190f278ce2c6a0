//! Responses whose body holds the lease until its last byte.

use std::fmt;
use std::pin::Pin;
use std::task::{Context, Poll, ready};

use ::tower::BoxError;
use bytes::Buf;
use http::Response;
use http_body::{Body, Frame, SizeHint};
use pin_project_lite::pin_project;

use super::{ClassifyTrailers, HttpStatusClassifier};
use crate::backend::Outcome;
use crate::tower::{Balance, Classify, Completion, InFlight, OnResponse, ReadyFirst};

/// A request is over when its response's body is: at its last byte, its error, or when it is dropped
/// (which says nothing about the backend).
///
/// For bodies that take long (downloads, streams, gRPC): schedulers that go by load see them.
#[derive(Clone, Copy, Debug, Default)]
pub struct OnBodyEnd<F = HttpStatusClassifier>(F);

impl<F> OnBodyEnd<F> {
    /// Ends requests with the body; the classifier says what headers and trailers mean.
    #[must_use]
    pub const fn new(classify: F) -> Self {
        Self(classify)
    }
}

impl<S, K, R, F> Balance<S, K, OnResponse<F>, R> {
    /// Lets the bodies of responses hold the lease (and the place, where requests are
    /// [bounded](Self::max_in_flight)) until their last byte.
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
    /// As [`Balance::until_body_end`].
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
        held: InFlight<S>,
    ) -> Result<Self::Response, BoxError> {
        let response = match result {
            Ok(response) => response,
            Err(error) => {
                held.complete(outcome);
                return Err(error);
            }
        };
        Ok(response.map(|body| {
            let mut held = Some(held);
            if body.is_end_stream()
                && let Some(held) = held.take()
            {
                held.complete(outcome);
            }
            LeasedBody { body, in_flight: held, outcome, classify: self.0 }
        }))
    }
}

pin_project! {
    /// A body that holds its request's lease until its last byte.
    pub struct LeasedBody<B, S, F = HttpStatusClassifier> {
        #[pin]
        body: B,
        // `None` once it is over.
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
        let over = match &frame {
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
        if over && let Some(held) = this.in_flight.take() {
            held.complete(*this.outcome);
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

impl<B: fmt::Debug, S, F> fmt::Debug for LeasedBody<B, S, F> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("LeasedBody")
            .field("body", &self.body)
            .field("held", &self.in_flight)
            .finish()
    }
}
