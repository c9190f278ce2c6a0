//! The handle of running announcements.

use std::net::IpAddr;
use std::sync::mpsc::{Sender, SyncSender, channel, sync_channel};
use std::sync::{Arc, Weak};
use std::thread::JoinHandle;
use std::time::Duration;

use super::thread::{AnnounceCommand, AnnounceThread};
use super::{AnnounceEvent, AnnounceEvents, AnnounceMode, AnnounceStartError, AnnouncerConfig};
use super::{AnnounceStatus, routes::AnnounceRoutes};
use crate::events::EventSender;
use crate::sync::{Mutex, lock};

/// How long the thread may take to reply.
const REPLY_TIMEOUT: Duration = Duration::from_secs(1);

/// The handle of addresses that are announced by a thread of their own.
///
/// Dropping the handle [stops](Self::stop) it. The [module](crate::announce#when-a-director-ends) says what happens
/// to the announcements when the process dies.
///
/// All methods may be called from any thread, and from async tasks: those that wait for the thread wait some
/// microseconds, and at most a second.
#[derive(Debug)]
pub struct Announcer {
    thread: Mutex<Option<JoinHandle<()>>>,
    commands: Sender<AnnounceCommand>,
    /// The events since the start, until the first call of [`Announcer::events`].
    initial_events: Mutex<Option<AnnounceEvents>>,
    /// The thread owns the sender.
    events: Weak<EventSender<AnnounceEvent>>,
}

impl Announcer {
    /// Starts to announce addresses, in the network namespace of the calling thread. Nothing is announced before
    /// [`set_health`](Self::set_health) tells that the services at an address can serve; what a predecessor has
    /// announced stays until then.
    ///
    /// # Errors
    /// [`AnnounceStartError`] names the setting that is not valid, the address that an interface has, or the operation
    /// that failed.
    pub fn start(config: AnnouncerConfig) -> Result<Self, AnnounceStartError> {
        config.validate()?;
        let mut routes = AnnounceRoutes::open()?;
        routes.refuse_interface_addresses(&config.addresses)?;
        let found = routes.announced();
        let found =
            found.map_err(|error| AnnounceStartError::wrap_io("list the routes")(error.source))?;
        let (commands, receiver) = channel();
        let events = Arc::new(EventSender::new());
        let weak_events = Arc::downgrade(&events);
        let initial_events = events.subscribe();
        let data = AnnounceThread::new(config, routes, &found, receiver, events);
        let thread = std::thread::Builder::new().name("lvs-announce".into());
        let thread = thread.spawn(|| data.run());
        let thread = thread.map_err(AnnounceStartError::wrap_io("start the thread"))?;
        Ok(Self {
            thread: Mutex::new(Some(thread)),
            commands,
            initial_events: Mutex::new(Some(initial_events)),
            events: weak_events,
        })
    }

    /// Sets whether the services at an address can serve. An address that is not announced is ignored.
    pub fn set_health(&self, address: IpAddr, is_healthy: bool) {
        self.send(AnnounceCommand::SetHealth { address, is_healthy });
    }

    /// Sets an operator's mode for all addresses. Returns when the routes are changed; a change that fails is
    /// tried again each second, and reported by an event and in the [status](Self::status).
    ///
    /// # Errors
    /// [`AnnounceStartError::NoAnswer`] if the thread has ended or does not answer.
    pub fn set_mode(&self, mode: AnnounceMode) -> Result<(), AnnounceStartError> {
        self.ask(|reply| AnnounceCommand::SetMode { mode, reply })
    }

    /// Changes the addresses, metrics and delays. Addresses that stay keep their health and their routes.
    ///
    /// # Errors
    /// [`AnnounceStartError`] names the setting that is not valid, or the address that an interface has; nothing has
    /// changed. After [`AnnounceStartError::NoAnswer`] the change may come later.
    pub fn reconfigure(&self, config: AnnouncerConfig) -> Result<(), AnnounceStartError> {
        config.validate()?;
        self.ask(|reply| AnnounceCommand::Reconfigure { config, reply })?
    }

    /// Returns the status; `None` if the thread does not reply within a second, or has ended.
    #[must_use]
    pub fn status(&self) -> Option<AnnounceStatus> {
        self.ask(AnnounceCommand::Status).ok()
    }

    /// Returns a reader of the events from now on; that of the first call has the events since the start. See
    /// [`Events`](crate::events::Events).
    #[must_use]
    pub fn events(&self) -> AnnounceEvents {
        if let Some(initial_events) = lock(&self.initial_events).take() {
            return initial_events;
        } else if let Some(sender) = self.events.upgrade() {
            return sender.subscribe();
        }
        // Without its sender, the stream has ended.
        EventSender::new().subscribe()
    }

    /// Removes all routes, and ends. Afterwards there is no status, and the events end.
    pub fn stop(&self) {
        self.end(AnnounceCommand::Stop);
    }

    /// Leaves the announcements as they are, for a successor that takes them over, or continues to follow health
    /// and modes.
    #[cfg(feature = "director")]
    pub(crate) fn pause(&self, is_paused: bool) {
        self.send(AnnounceCommand::Pause(is_paused));
    }

    /// Ends, and leaves the routes to another process that has the interface open.
    #[cfg(feature = "director")]
    pub(crate) fn leave(&self) {
        self.end(AnnounceCommand::Leave);
    }

    /// Decides from now on in place of a predecessor, and withdraws what that one has announced of other addresses, or
    /// with another protocol number.
    #[cfg(feature = "director")]
    pub(crate) fn take_over(&self) {
        self.send(AnnounceCommand::TakeOver);
    }

    /// Returns whether the thread has ended.
    #[cfg(feature = "director")]
    pub(crate) fn has_ended(&self) -> bool {
        lock(&self.thread).as_ref().is_none_or(JoinHandle::is_finished)
    }

    /// Makes the thread panic.
    #[cfg(all(test, feature = "director"))]
    pub(crate) fn panic_thread(&self) {
        self.send(AnnounceCommand::Panic);
    }

    fn end(&self, command: AnnounceCommand) {
        self.send(command);
        let thread = lock(&self.thread).take();
        // If the thread has panicked, the interface is gone, and the routes with it.
        thread.map(JoinHandle::join);
    }

    /// Sends a command, and waits for its reply.
    fn ask<R>(
        &self,
        command: impl FnOnce(SyncSender<R>) -> AnnounceCommand,
    ) -> Result<R, AnnounceStartError> {
        let (sender, reply) = sync_channel(1);
        self.send(command(sender));
        reply.recv_timeout(REPLY_TIMEOUT).map_err(|_| AnnounceStartError::NoAnswer)
    }

    fn send(&self, command: AnnounceCommand) {
        // Fails if the thread has ended; then there is no reply either.
        let _ = self.commands.send(command);
    }
}

impl Drop for Announcer {
    fn drop(&mut self) {
        self.stop();
    }
}
