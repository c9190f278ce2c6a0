//! The future of a call on a connection.

use std::fmt;
use std::pin::Pin;
use std::task::{Context, Poll};

use ::tower::BoxError;
use pin_project_lite::pin_project;

use crate::tower::error::BalanceError;

pin_project! {
    /// The future of [`Reconnect`](super::Reconnect).
    #[must_use = "futures do nothing unless polled"]
    pub struct ReconnectFuture<F> {
        // `None` if the service was called before it was ready.
        #[pin]
        future: Option<F>,
    }
}

impl<F> ReconnectFuture<F> {
    pub(super) fn new(future: F) -> Self {
        Self { future: Some(future) }
    }

    pub(super) fn not_ready() -> Self {
        Self { future: None }
    }
}

impl<F, Res, E> Future for ReconnectFuture<F>
where
    F: Future<Output = Result<Res, E>>,
    E: Into<BoxError>,
{
    type Output = Result<Res, BoxError>;

    fn poll(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Self::Output> {
        match self.project().future.as_pin_mut() {
            Some(future) => future.poll(cx).map_err(Into::into),
            None => Poll::Ready(Err(BalanceError::NotReady.into())),
        }
    }
}

impl<F> fmt::Debug for ReconnectFuture<F> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("ReconnectFuture").finish_non_exhaustive()
    }
}
