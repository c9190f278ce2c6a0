//! Members that the program itself names, from anywhere in it.

use thiserror::Error;
use tokio::sync::mpsc;

use super::{DiscoveryError, MemberSource, MemberUpdate};

/// Makes a source that says what is sent to it, and the sender.
///
/// For a program that learns of its members in a way of its own: from its control plane, from an API
/// call. `capacity` words (at least one) wait in between; who sends more
/// [waits](MemberSender::send) or [is told](MemberSender::try_send). The source ends when every sender is
/// dropped; the members stay.
///
/// # Examples
/// ```
/// use std::net::SocketAddr;
/// use lvs::discovery::{Feed, MemberUpdate, channel};
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
pub fn channel<T>(capacity: usize) -> (MemberSender<T>, ChannelSource<T>) {
    // The most that tokio's channel can hold; beyond, it panics.
    let capacity = capacity.clamp(1, tokio::sync::Semaphore::MAX_PERMITS);
    let (sender, receiver) = mpsc::channel(capacity);
    (MemberSender { sender }, ChannelSource { receiver })
}

/// Says who the members are; made by [`channel`]. A cheap clone.
#[derive(Debug)]
pub struct MemberSender<T> {
    sender: mpsc::Sender<Result<MemberUpdate<T>, DiscoveryError>>,
}

/// Why a word was not sent; it is in there.
#[derive(Debug, Error)]
#[non_exhaustive]
pub enum MemberSendError<T> {
    /// As many words as the channel holds wait already.
    #[error("the feed has not heard the last words yet")]
    Full(MemberUpdate<T>),
    /// The source is gone, and its feed with it.
    #[error("there is no feed any more")]
    Closed(MemberUpdate<T>),
}

impl<T> MemberSender<T> {
    /// Sends a word, and waits where the channel is full.
    ///
    /// Cancel safe: dropped, it has sent nothing.
    ///
    /// # Errors
    /// [`MemberSendError::Closed`].
    pub async fn send(&self, update: MemberUpdate<T>) -> Result<(), MemberSendError<T>> {
        match self.sender.reserve().await {
            Ok(permit) => {
                permit.send(Ok(update));
                Ok(())
            }
            Err(_) => Err(MemberSendError::Closed(update)),
        }
    }

    /// Sends a word if there is room.
    ///
    /// # Errors
    /// [`MemberSendError::Full`], [`MemberSendError::Closed`].
    pub fn try_send(&self, update: MemberUpdate<T>) -> Result<(), MemberSendError<T>> {
        match self.sender.try_reserve() {
            Ok(permit) => {
                permit.send(Ok(update));
                Ok(())
            }
            Err(mpsc::error::TrySendError::Full(())) => Err(MemberSendError::Full(update)),
            Err(mpsc::error::TrySendError::Closed(())) => Err(MemberSendError::Closed(update)),
        }
    }

    /// Says that what the members are is not known at present: the feed keeps those it has, counts
    /// the failure, and in time calls them [stale](super::Feed::max_staleness). The next word sent
    /// ends it.
    ///
    /// Waits where the channel is full; does nothing where the feed is gone.
    pub async fn send_error(&self, error: DiscoveryError) {
        let _ = self.sender.send(Err(error)).await;
    }
}

impl<T> Clone for MemberSender<T> {
    fn clone(&self) -> Self {
        Self { sender: self.sender.clone() }
    }
}

/// A source that says what is sent to it; made by [`channel`].
#[derive(Debug)]
pub struct ChannelSource<T> {
    receiver: mpsc::Receiver<Result<MemberUpdate<T>, DiscoveryError>>,
}

impl<T: Send> MemberSource<T> for ChannelSource<T> {
    async fn next(&mut self) -> Option<Result<MemberUpdate<T>, DiscoveryError>> {
        self.receiver.recv().await
    }

    fn name(&self) -> &str {
        "channel"
    }
}
