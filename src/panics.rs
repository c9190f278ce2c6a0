//! Panics that are caught, so that what panicked can be started again.

use std::any::Any;
use std::future::poll_fn;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::pin::pin;
use std::task::Poll;

use crate::excerpt::excerpt;

/// The most bytes of a panic's message in a log line or a reason.
const MAX_PANIC_MESSAGE: usize = 200;

/// Awaits a future; returns the message of its panic if it panics. The future is dropped then.
///
/// The caller uses nothing any more that the panic may have left half changed.
#[cfg_attr(not(feature = "forward"), allow(dead_code, reason = "forwarders and directors need it"))]
pub(crate) async fn catch_panic<R>(future: impl Future<Output = R>) -> Result<R, String> {
    let mut future = pin!(future);
    poll_fn(|cx| match catch_unwind(AssertUnwindSafe(|| future.as_mut().poll(cx))) {
        Ok(Poll::Pending) => Poll::Pending,
        Ok(Poll::Ready(value)) => Poll::Ready(Ok(value)),
        Err(payload) => Poll::Ready(Err(panic_message(&*payload))),
    })
    .await
}

/// Returns the message of a panic, escaped and cut.
pub(crate) fn panic_message(payload: &(dyn Any + Send)) -> String {
    let message = payload.downcast_ref::<&str>().copied();
    let message = message.or_else(|| payload.downcast_ref::<String>().map(String::as_str));
    message.map_or_else(
        || "without a message".to_owned(),
        |message| excerpt(message.as_bytes(), MAX_PANIC_MESSAGE),
    )
}
