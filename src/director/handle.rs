//! The handle of a director, by which a program starts, changes and stops it.

use std::io;
use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::AtomicU64;
use std::time::Duration;

use super::applied::{ReloadPart, ReloadSummary};
use super::command::ControlSender;
use super::config::{DirectorConfig, RealServer};
use super::controller::{Controller, DirectorView};
use super::error::DirectorError;
use super::events::{ChangeOrigin, DirectorEvents};
use super::overrides::{ServerChange, ServerEdit};
use super::predecessor::Predecessor;
use super::service::check_service;
use super::sockets::ListeningSockets;
use super::status::DirectorStatus;
use crate::announce::AnnounceMode;
use crate::forward::DrainReport;
use crate::panics::catch_panic;
use crate::runtime::{require_io, require_time};
use crate::vrrp::Vrrp;

/// A running director; a clone is another handle on the same one.
///
/// It ends with [`stop`](Self::stop), which waits, or in the background when the last handle is
/// dropped: then it hands the virtual addresses over, and cuts all connections. It ends with its
/// runtime too.
#[derive(Clone, Debug)]
pub struct Director {
    control: ControlSender,
    view: DirectorView,
}

/// What a [`RuntimeError`](crate::RuntimeError) calls a director.
const PART: &str = "a director";

impl Director {
    /// Starts what a configuration describes, on the current tokio runtime. If the configuration has a
    /// `handover` and a director runs there, this one takes its listeners over, and no client is
    /// refused.
    ///
    /// # Errors
    /// [`DirectorError`] names what cannot be started; nothing runs then. [`DirectorError::Runtime`] if
    /// the tokio runtime was built without I/O or without time.
    ///
    /// # Cancel safety
    /// Dropped before it is ready, what was started ends.
    ///
    pub async fn start(config: DirectorConfig) -> Result<Self, DirectorError> {
        Self::start_with(config, ListeningSockets::default()).await
    }

    /// Starts a director as [`start`](Self::start) does, with sockets that are open already. It uses
    /// those that are bound to its addresses, and closes the others.
    ///
    /// # Errors
    /// As [`start`](Self::start).
    pub async fn start_with(
        config: DirectorConfig,
        sockets: ListeningSockets,
    ) -> Result<Self, DirectorError> {
        require_time(PART).and_then(|()| require_io(PART))?;
        let mut sockets = sockets;
        let mut predecessor = None;
        if let Some(path) = config.handover() {
            let connected = Predecessor::connect(path).await.map_err(|source| {
                DirectorError::Handover { path: path.to_owned(), source: io::Error::other(source) }
            })?;
            if let Some((connected, inherited)) = connected {
                sockets.extend(inherited);
                predecessor = Some(connected);
            }
        }
        let (control, commands) = ControlSender::new();
        let (controller, view) = Controller::new(commands, control.downgrade());
        tokio::spawn(async move {
            if let Err(message) = catch_panic(controller.run()).await {
                tracing::error!(
                    "the director's task panicked, and the director has ended: {message}"
                );
            }
        });
        let director = Self { control, view };
        let has_predecessor = predecessor.is_some();
        let summary = director.control.reload(config, sockets, predecessor).await;
        let failure = match summary {
            // The predecessor has ended when the handover socket is published: a failure of that is in
            // the status, and the next reload tries again.
            Ok(summary) => summary
                .into_failures()
                .into_iter()
                .find(|failure| !has_predecessor || failure.part != ReloadPart::Handover)
                .map(|failure| failure.error),
            Err(error) => Some(Arc::new(error)),
        };
        if let Some(error) = failure {
            director.stop(Duration::ZERO).await;
            return Err(Arc::into_inner(error).unwrap_or(DirectorError::Stopped));
        }
        Ok(director)
    }

    /// Checks a configuration as a start does that opens no socket: schedulers with the servers that they
    /// get, connection limits, health checks. Whether the addresses are free and the interfaces exist is
    /// known when the director starts.
    ///
    /// # Errors
    /// All that a start would refuse; [`DirectorError::Service`] names a service.
    pub fn check(config: &DirectorConfig) -> Result<(), Vec<DirectorError>> {
        let services = config.services.iter();
        let errors: Vec<_> = services.filter_map(|service| check_service(service).err()).collect();
        if errors.is_empty() { Ok(()) } else { Err(errors) }
    }

    /// Applies another configuration. What both configurations have in common is not touched:
    /// listeners, servers, their health and counters, connections, flows. Changes by operators stay
    /// where the configuration says nothing new.
    ///
    /// - Servers, weights, limits, schedulers and health checks change in place.
    /// - Other options of a service (limits, timeouts, threads, PROXY headers, persistence) apply to
    ///   new connections: another forwarder serves the same sockets, and no client is refused. UDP
    ///   clients stay at their servers, in flows that start with their next datagrams.
    /// - A listener that is removed is closed, and its connections have the `drain_timeout`.
    /// - Another `[vrrp]` table changes the running virtual routers, and a master stays master; another
    ///   interface, number, version, source address, peer or number of virtual routers ends this
    ///   director's part in the election, in which the other director takes over, and starts another.
    ///
    /// A part that cannot be applied, although everything was prepared, is in the
    /// [failures](ReloadSummary::failures) of the summary and in the [status](Self::status); the next
    /// reload tries it again, with the same configuration too.
    ///
    /// # Errors
    /// [`DirectorError`] names what is impossible, and nothing has changed. If a new `[vrrp]` table is
    /// what fails, the old election was ended, and has been started again.
    ///
    /// # Cancel safety
    /// Dropped, a reload that has begun is completed.
    pub async fn reload(&self, config: DirectorConfig) -> Result<ReloadSummary, DirectorError> {
        self.control.reload(config, ListeningSockets::default(), None).await
    }

    /// Returns the election for the virtual addresses; `None` without a `[vrrp]` table. A reload that
    /// changes the table starts another election.
    #[must_use]
    pub fn vrrp(&self) -> Option<Arc<Vrrp>> {
        self.view.role.vrrp()
    }

    /// Returns a reader of the director's events from now on: health checks and ejections, the
    /// election, reloads, and changes of servers by operators. See [`Events`](crate::events::Events) for
    /// what a slow reader misses. The events end when the director has stopped.
    ///
    /// # Examples
    /// ```
    /// use lvs::director::{Director, DirectorConfig, DirectorEvent, ServerChange, ServiceConfig};
    ///
    /// # #[tokio::main]
    /// # async fn main() -> Result<(), Box<dyn std::error::Error>> {
    /// let web = ServiceConfig::tcp("web")
    ///     .listen(std::net::SocketAddr::from(([127, 0, 0, 1], 0)))
    ///     .server("127.0.0.1:8081".parse::<std::net::SocketAddr>()?);
    /// let director = Director::start(DirectorConfig::builder().service(web).build()?).await?;
    /// let mut events = director.events();
    ///
    /// director.change_server("web", "127.0.0.1:8081", ServerChange::new().with_weight(3))?;
    /// let event = events.next().await.expect("the director runs")?;
    /// assert_eq!(
    ///     event.to_string(),
    ///     "service web: server 127.0.0.1:8081 was changed to weight 3 by the program"
    /// );
    /// assert!(matches!(event, DirectorEvent::Operator(_)) && !event.is_alert());
    /// # Ok(())
    /// # }
    /// ```
    #[must_use]
    pub fn events(&self) -> DirectorEvents {
        self.view.registry.events().subscribe()
    }

    /// Returns the address of the admin server, with the real port where the configuration has 0.
    #[must_use]
    pub fn admin_address(&self) -> Option<SocketAddr> {
        *self.view.admin_address.borrow()
    }

    /// Returns the status of this moment.
    #[must_use]
    pub fn status(&self) -> DirectorStatus {
        self.view.status.read()
    }

    /// Sets the counter of the log lines that the program has dropped, which the status and the metric
    /// `lvs_log_dropped_lines_total` show. Only the first counter is used.
    ///
    /// A subscriber of `tracing` that writes to a pipe blocks the director's tasks while nobody reads
    /// the pipe. One that drops lines instead does not, and should count them.
    pub fn set_dropped_log_lines(&self, counter: Arc<AtomicU64>) {
        self.view.status.set_dropped_log_lines(counter);
    }

    /// Changes a server, which is named by its address, or by its name if no other server of the
    /// service has the same. The change outlives reloads until the configuration says something new of the
    /// same thing, and the standby adopts it.
    ///
    /// # Errors
    /// [`DirectorError::NoService`], [`DirectorError::NoServer`], [`DirectorError::AmbiguousServer`],
    /// [`DirectorError::Standby`] for a standby that follows another director, a limit is out of its range,
    /// or the scheduler cannot use the weight. Nothing is changed then.
    pub fn change_server(
        &self,
        service: &str,
        server: &str,
        change: ServerChange,
    ) -> Result<(), DirectorError> {
        self.edit_servers(service, ServerEdit::Change(server.to_owned(), change))
    }

    /// Adds a server, as an operator's change (see [`change_server`](Self::change_server)).
    ///
    /// # Errors
    /// [`DirectorError::NoService`], [`DirectorError::ServerExists`], or the scheduler cannot use the
    /// server.
    pub fn add_server(&self, service: &str, server: RealServer) -> Result<(), DirectorError> {
        self.edit_servers(service, ServerEdit::Add(server))
    }

    /// Removes a server, as an operator's change (see [`change_server`](Self::change_server)). Its
    /// connections go on.
    ///
    /// # Errors
    /// [`DirectorError::NoService`], [`DirectorError::NoServer`], [`DirectorError::AmbiguousServer`].
    pub fn remove_server(&self, service: &str, server: &str) -> Result<(), DirectorError> {
        self.edit_servers(service, ServerEdit::Remove(server.to_owned()))
    }

    /// Sets an operator's mode of the announced addresses, and returns when the routes are changed: for maintenance of
    /// this director while others serve. The mode lasts until the director ends; a successor begins with
    /// [`AnnounceMode::Normal`].
    ///
    /// # Errors
    /// [`DirectorError::NoAnnouncements`] without an `[announce]` table, [`DirectorError::Announce`] if the thread of
    /// the announcements does not answer.
    pub fn set_announce_mode(&self, mode: AnnounceMode) -> Result<(), DirectorError> {
        self.view.status.set_announce_mode(mode, ChangeOrigin::Program)
    }

    /// Makes the thread of the announcements panic.
    #[cfg(test)]
    pub(super) fn panic_announcements(&self) {
        self.view.status.announcements().panic_thread();
    }

    fn edit_servers(&self, service: &str, edit: ServerEdit) -> Result<(), DirectorError> {
        self.view.status.refuse_on_standby()?;
        self.view.registry.edit_servers(service, &[edit], &ChangeOrigin::Program)
    }

    /// Waits until the director has ended: because it was stopped, or because the task that owns it has
    /// panicked, which ends everything that it runs.
    ///
    /// # Cancel safety
    /// Dropped, it changes nothing.
    pub async fn wait_ended(&self) {
        self.control.closed().await;
    }

    /// Waits until a successor serves in this director's place: then it is time to
    /// [`stop`](Self::stop). It waits for ever where the configuration has no `handover`.
    pub async fn wait_for_successor(&self) {
        let mut has_successor = self.view.has_successor.clone();
        if has_successor.wait_for(|has_successor| *has_successor).await.is_err() {
            std::future::pending::<()>().await;
        }
    }

    /// Stops the director. It first withdraws the announced addresses, and serves on for `withdraw_delay`. It hands the virtual addresses over, and serves until the other
    /// director has them, which takes a part of an advertisement's interval; then it accepts no more
    /// connections, and cuts those that are left after `timeout`. Returns how many ended by themselves,
    /// and how many were cut.
    ///
    /// Connections to a virtual address end with the address; the time is for those to other
    /// addresses.
    ///
    /// # Cancel safety
    /// Dropped, the virtual addresses are handed over all the same, and the connections that are left
    /// are cut.
    pub async fn stop(&self, timeout: Duration) -> DrainReport {
        self.control.stop(timeout).await
    }
}
