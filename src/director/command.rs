//! The commands of a director: handles and the handover socket send them, the controller runs them.

use std::time::Duration;

use tokio::sync::{mpsc, oneshot};

use super::applied::ReloadSummary;
use super::config::DirectorConfig;
use super::error::DirectorError;
use super::predecessor::Predecessor;
use super::sockets::ListeningSockets;
use crate::forward::DrainReport;

/// Commands that may wait; a sender waits for room beyond.
const COMMAND_QUEUE_CAPACITY: usize = 16;

/// A command for the controller, which runs one after the other.
#[derive(Debug)]
pub(super) enum ControlCommand {
    /// Applies another configuration.
    Reload {
        config: Box<DirectorConfig>,
        sockets: ListeningSockets,
        /// The director that `sockets` come from. It is told to end when everything runs.
        predecessor: Option<Predecessor>,
        reply: oneshot::Sender<Result<ReloadSummary, DirectorError>>,
    },
    /// Leaves the election and gives duplicates of all sockets, for a successor. Reloads wait until
    /// `outcome` arrives, or is dropped: the successor failed, and the election starts again.
    HandOver {
        reply: oneshot::Sender<ListeningSockets>,
        outcome: oneshot::Receiver<SuccessorServes>,
    },
    /// Starts the election again, if its thread has ended by itself or it could not be started.
    RestartElection,
    /// Ends the director. The connections that are left are cut after `timeout`, or when the receiver
    /// of the reply is dropped.
    Stop { timeout: Duration, reply: oneshot::Sender<DrainReport> },
}

/// A successor serves the sockets that it was given.
#[derive(Debug)]
pub(super) struct SuccessorServes;

/// Sends commands. The director ends when the last of these is dropped.
#[derive(Clone, Debug)]
pub(super) struct ControlSender(mpsc::Sender<ControlCommand>);

/// Sends commands as long as there is a [`ControlSender`].
#[derive(Clone, Debug)]
pub(super) struct WeakControlSender(mpsc::WeakSender<ControlCommand>);

pub(super) type ControlReceiver = mpsc::Receiver<ControlCommand>;

impl ControlSender {
    pub(super) fn new() -> (Self, ControlReceiver) {
        let (sender, receiver) = mpsc::channel(COMMAND_QUEUE_CAPACITY);
        (Self(sender), receiver)
    }

    pub(super) fn downgrade(&self) -> WeakControlSender {
        WeakControlSender(self.0.downgrade())
    }

    /// Waits until a configuration runs. Dropped, the reload is not cancelled once it has begun.
    pub(super) async fn reload(
        &self,
        config: DirectorConfig,
        sockets: ListeningSockets,
        predecessor: Option<Predecessor>,
    ) -> Result<ReloadSummary, DirectorError> {
        let (reply, summary) = oneshot::channel();
        let config = Box::new(config);
        let command = ControlCommand::Reload { config, sockets, predecessor, reply };
        // The reply is dropped with a command that cannot be sent.
        let _ = self.0.send(command).await;
        summary.await.unwrap_or(Err(DirectorError::Stopped))
    }

    /// Waits until the director's task has ended.
    pub(super) async fn closed(&self) {
        self.0.closed().await;
    }

    /// Waits until the director has ended. Dropped, the connections that are left are cut.
    pub(super) async fn stop(&self, timeout: Duration) -> DrainReport {
        let (reply, report) = oneshot::channel();
        let _ = self.0.send(ControlCommand::Stop { timeout, reply }).await;
        // Without a reply the director had ended before: no connection was left.
        report.await.unwrap_or_default()
    }
}

impl WeakControlSender {
    /// Asks for another start of the election; waits while other commands wait.
    pub(super) async fn restart_election(&self) {
        if let Some(sender) = self.0.upgrade() {
            // An error means that the director has ended.
            let _ = sender.send(ControlCommand::RestartElection).await;
        }
    }

    /// As [`restart_election`](Self::restart_election), for a thread without a runtime.
    pub(super) fn restart_election_blocking(&self) {
        if let Some(sender) = self.0.upgrade() {
            let _ = sender.blocking_send(ControlCommand::RestartElection);
        }
    }

    /// Asks for all sockets, for a successor. `None` if the director has ended.
    pub(super) async fn hand_over(
        &self,
    ) -> Option<(ListeningSockets, oneshot::Sender<SuccessorServes>)> {
        let (reply, sockets) = oneshot::channel();
        let (serves, outcome) = oneshot::channel();
        {
            // The sender is not held while waiting: it would keep the director alive.
            let sender = self.0.upgrade()?;
            sender.try_send(ControlCommand::HandOver { reply, outcome }).ok()?;
        }
        Some((sockets.await.ok()?, serves))
    }
}
