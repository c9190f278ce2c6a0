//! Waiting for a backend: until something changes, for a moment at a time, and not for ever.

use std::fmt;
use std::pin::Pin;
use std::task::{Context, Poll};
use std::time::Duration;

use tokio::time::{Instant, timeout_at};

use super::shared::{InLine, Shared};

/// How soon one who waits looks again though nobody said a word: instances that are ready for
/// somebody else's reasons, and limits of leases that others hold, say none.
const LOOK_AGAIN: Duration = Duration::from_millis(50);

/// One who waits.
pub(super) struct Wait {
    begun: Instant,
    until: Instant,
    pause: Pin<Box<dyn Future<Output = ()> + Send + Sync>>,
    place: InLine,
}

impl Wait {
    pub(super) fn begin<S>(shared: &Shared<S>) -> Box<Self> {
        let begun = Instant::now();
        let far = begun + Duration::from_secs(86_400 * 365);
        let until = begun.checked_add(shared.rules.wait).unwrap_or(far);
        let place = shared.line().enter();
        Box::new(Self { begun, until, pause: pause(&place, begun, until), place })
    }

    /// `Ready` when it is time to look: something has changed, or may have. `Err` when the time for
    /// looking is over, and how long it was.
    ///
    /// Whatever changes after one `Ready` makes the next one come: look between them.
    pub(super) fn poll(&mut self, cx: &mut Context<'_>) -> Poll<Result<(), Duration>> {
        if self.pause.as_mut().poll(cx).is_pending() {
            return Poll::Pending;
        }
        let now = Instant::now();
        if now >= self.until {
            return Poll::Ready(Err(now.saturating_duration_since(self.begun)));
        }
        self.pause = pause(&self.place, now, self.until);
        Poll::Ready(Ok(()))
    }
}

fn pause(
    place: &InLine,
    now: Instant,
    until: Instant,
) -> Pin<Box<dyn Future<Output = ()> + Send + Sync>> {
    // Made here: it hears of all that happens from now on.
    let word = place.notify().notified_owned();
    let look = until.min(now + LOOK_AGAIN);
    Box::pin(async move {
        let _ = timeout_at(look, word).await;
    })
}

impl fmt::Debug for Wait {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Wait")
            .field("begun", &self.begun)
            .field("until", &self.until)
            .finish_non_exhaustive()
    }
}
