//! Members that the program itself sends.

use thiserror::Error;
use tokio::sync::{Semaphore, mpsc};

use super::{DiscoveryError, MemberSource, MemberUpdate};
use crate::setting::{SettingError, check_range};

/// Returns a sender of member updates, and the source that receives them.
///
/// For a program that learns of its members in its own way: from a control plane, from an API call.
/// The channel holds `capacity` updates, at least 1; [`usize::MAX`] is no bound that a machine
/// reaches. When the channel is full, [`send`](MemberSender::send) waits and
/// [`try_send`](MemberSender::try_send) fails. The source ends when every sender is dropped; the
/// members stay in the set.
///
/// # Errors
/// [`SettingError`] if the capacity is 0.
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
/// let (members, source) = channel(16)?;
/// let feed = Feed::new(&set, source);
/// let mut handle = feed.handle();
/// tokio::spawn(feed.run());
///
/// members.send(MemberUpdate::Insert(Spec::new("web-1", "10.0.0.1:80".parse()?))).await?;
/// handle.ready().await;
/// assert_eq!(set.snapshot().members().len(), 1);
/// # Ok(())
/// # }
/// ```
pub fn channel<T>(capacity: usize) -> Result<(MemberSender<T>, ChannelSource<T>), SettingError> {
    // tokio's channel panics on 0 and above MAX_PERMITS.
    let capacity = check_range("capacity", capacity, 1..)?.min(Semaphore::MAX_PERMITS);
    let (sender, receiver) = mpsc::channel(capacity);
    Ok((MemberSender { sender }, ChannelSource { receiver }))
}

/// The sending half of [`channel`]. Cheap to clone.
#[derive(Debug)]
pub struct MemberSender<T> {
    sender: mpsc::Sender<Result<MemberUpdate<T>, DiscoveryError>>,
}

/// The reason why a member update was not sent; each variant returns the update.
#[derive(Debug, Error)]
#[non_exhaustive]
pub enum MemberSendError<T> {
    /// The channel holds as many updates as its capacity allows.
    #[error("member channel is full: the previous update has not been applied yet")]
    Full(MemberUpdate<T>),
    /// The source, and its feed, were dropped.
    #[error("member channel is closed: the feed has ended")]
    Closed(MemberUpdate<T>),
}

impl<T> MemberSender<T> {
    /// Sends an update; waits while the channel is full.
    ///
    /// Cancel safe: a dropped future has sent nothing.
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

    /// Sends an update unless the channel is full.
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

    /// Reports that the members are unknown at present.
    ///
    /// The feed keeps its members, counts the failure, and calls the members
    /// [stale](super::Feed::max_staleness) if the failure lasts. The next update that is sent ends
    /// the failure.
    ///
    /// Waits while the channel is full; does nothing if the feed was dropped.
    pub async fn send_error(&self, error: DiscoveryError) {
        let _ = self.sender.send(Err(error)).await;
    }
}

impl<T> Clone for MemberSender<T> {
    fn clone(&self) -> Self {
        Self { sender: self.sender.clone() }
    }
}

/// The receiving half of [`channel`]: a source of the updates that were sent.
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
