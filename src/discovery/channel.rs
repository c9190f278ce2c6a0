//! Members that the program itself names, from anywhere in it.

use thiserror::Error;
use tokio::sync::mpsc;

use super::{Source, SourceError, Update};

/// Makes a source that says what is sent to it, and the sender.
///
/// For a program that learns of its members in a way of its own: from its control plane, from an API
/// call. `capacity` words (at least one) wait in between; who sends more
/// [waits](Sender::send) or [is told](Sender::try_send). The source ends when every sender is
/// dropped; the members stay.
///
/// # Examples
/// ```
/// use std::net::SocketAddr;
/// use lvs::discovery::{Feed, Update, channel};
/// use lvs::{BackendSet, Spec};
///
/// # #[tokio::main(flavor = "current_thread")]
/// # async fn main() -> Result<(), Box<dyn std::error::Error>> {
/// let set = BackendSet::<SocketAddr>::new();
/// let (members, source) = channel(16);
/// let feed = Feed::new(&set, source);
/// let mut handle = feed.handle();
/// tokio::spawn(feed.run());
///
/// members.send(Update::Insert(Spec::new("web-1", "10.0.0.1:80".parse()?))).await?;
/// handle.ready().await;
/// assert_eq!(set.snapshot().members().len(), 1);
/// # Ok(())
/// # }
/// ```
#[must_use]
pub fn channel<T>(capacity: usize) -> (Sender<T>, ChannelSource<T>) {
    // The most that tokio's channel can hold; beyond, it panics.
    let capacity = capacity.clamp(1, tokio::sync::Semaphore::MAX_PERMITS);
    let (sender, receiver) = mpsc::channel(capacity);
    (Sender { sender }, ChannelSource { receiver })
}

/// Says who the members are; made by [`channel`]. A cheap clone.
#[derive(Debug)]
pub struct Sender<T> {
    sender: mpsc::Sender<Result<Update<T>, SourceError>>,
}

/// Why a word was not sent; it is in there.
#[derive(Debug, Error)]
#[non_exhaustive]
pub enum SendError<T> {
    /// As many words as the channel holds wait already.
    #[error("the feed has not heard the last words yet")]
    Full(Update<T>),
    /// The source is gone, and its feed with it.
    #[error("there is no feed any more")]
    Closed(Update<T>),
}

impl<T> Sender<T> {
    /// Sends a word, and waits where the channel is full.
    ///
    /// Cancel safe: dropped, it has sent nothing.
    ///
    /// # Errors
    /// [`SendError::Closed`].
    pub async fn send(&self, update: Update<T>) -> Result<(), SendError<T>> {
        match self.sender.reserve().await {
            Ok(permit) => {
                permit.send(Ok(update));
                Ok(())
            }
            Err(_) => Err(SendError::Closed(update)),
        }
    }

    /// Sends a word if there is room.
    ///
    /// # Errors
    /// [`SendError::Full`], [`SendError::Closed`].
    pub fn try_send(&self, update: Update<T>) -> Result<(), SendError<T>> {
        match self.sender.try_reserve() {
            Ok(permit) => {
                permit.send(Ok(update));
                Ok(())
            }
            Err(mpsc::error::TrySendError::Full(())) => Err(SendError::Full(update)),
            Err(mpsc::error::TrySendError::Closed(())) => Err(SendError::Closed(update)),
        }
    }

    /// Says that what the members are is not known at present: the feed keeps those it has, counts
    /// the failure, and in time calls them [stale](super::Feed::max_staleness). The next word sent
    /// ends it.
    ///
    /// Waits where the channel is full; does nothing where the feed is gone.
    pub async fn fail(&self, error: SourceError) {
        let _ = self.sender.send(Err(error)).await;
    }
}

impl<T> Clone for Sender<T> {
    fn clone(&self) -> Self {
        Self { sender: self.sender.clone() }
    }
}

/// A source that says what is sent to it; made by [`channel`].
#[derive(Debug)]
pub struct ChannelSource<T> {
    receiver: mpsc::Receiver<Result<Update<T>, SourceError>>,
}

impl<T: Send> Source<T> for ChannelSource<T> {
    async fn next(&mut self) -> Option<Result<Update<T>, SourceError>> {
        self.receiver.recv().await
    }

    fn name(&self) -> &str {
        "channel"
    }
}
