//! A restart without a refused connection: a director takes the listeners over from the one that ran
//! before it.
//!
//! Both have the same configuration, with `handover = "PATH"`. The successor connects to its
//! predecessor's socket there. The predecessor leaves the election (the standby gets the virtual
//! addresses meanwhile) and sends duplicates of all its sockets. When the successor serves it confirms,
//! and then puts its own socket at the path; the predecessor stops accepting, and ends when its
//! connections have ended. If the successor fails before, the predecessor takes part in the election
//! again and continues to serve, and the path still leads to it.

use std::fs::{self, Permissions};
use std::io::{self, Read};
use std::os::fd::AsFd;
use std::os::unix::fs::PermissionsExt;
use std::os::unix::net::UnixListener;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use tokio::sync::watch;
use tokio::task::spawn_blocking;

use super::command::{SuccessorServes, WeakControlSender};
use super::error::DirectorError;
use super::predecessor::{HANDOVER_IO_TIMEOUT, SERVING_BYTE};
use crate::forward::handover;

/// How long a successor may take until it serves.
const SUCCESSOR_START_TIMEOUT: Duration = Duration::from_secs(60);
/// How long to wait after `accept` has failed.
const ACCEPT_RETRY_INTERVAL: Duration = Duration::from_millis(100);

/// The socket for a successor, at a temporary path beside that which the configuration names, until
/// [`publish`](Self::publish).
#[derive(Debug)]
pub(super) struct HandoverListener {
    listener: UnixListener,
    path: PathBuf,
    /// `None` once the socket is published.
    temporary: Option<PathBuf>,
}

impl HandoverListener {
    /// Binds the socket at the temporary path. It is removed if this is dropped.
    pub(super) fn bind(path: &Path) -> Result<Self, DirectorError> {
        let temporary = path.with_extension(format!("{}", std::process::id()));
        let bind = || {
            // A rename would replace it.
            match fs::symlink_metadata(path) {
                Ok(file) if file.is_file() => {
                    return Err(io::Error::new(io::ErrorKind::AlreadyExists, "it is a file"));
                }
                _ => {}
            }
            let _ = fs::remove_file(&temporary);
            let listener = UnixListener::bind(&temporary)?;
            fs::set_permissions(&temporary, Permissions::from_mode(0o600))?;
            listener.set_nonblocking(true)?;
            Ok(listener)
        };
        let listener =
            bind().map_err(|source| DirectorError::Handover { path: path.to_owned(), source })?;
        Ok(Self { listener, path: path.to_owned(), temporary: Some(temporary) })
    }

    /// Moves the socket to its path, in one step: a successor finds this socket or the one before.
    pub(super) fn publish(&mut self) -> Result<(), DirectorError> {
        if let Some(temporary) = &self.temporary {
            fs::rename(temporary, &self.path)
                .map_err(|source| DirectorError::Handover { path: self.path.clone(), source })?;
        }
        self.temporary = None;
        Ok(())
    }

    /// Hands the sockets to every successor that connects, until one of them serves; then sets
    /// `succeeded`.
    pub(super) async fn serve(
        self: Arc<Self>,
        control: WeakControlSender,
        succeeded: watch::Sender<bool>,
    ) {
        let listener = self.listener.try_clone().and_then(tokio::net::UnixListener::from_std);
        let listener = match listener {
            Ok(listener) => listener,
            Err(error) => {
                let path = self.path.display();
                return tracing::error!("cannot use handover socket {path}: {error}");
            }
        };
        loop {
            let Ok((stream, _)) = listener.accept().await else {
                tokio::time::sleep(ACCEPT_RETRY_INTERVAL).await;
                continue;
            };
            match hand_over_to(&control, stream).await {
                Ok(()) => {
                    tracing::info!(
                        "handover: the new process serves; this process drains its connections"
                    );
                    succeeded.send_replace(true);
                    return;
                }
                Err(error) => {
                    tracing::warn!(
                        "handover: the new process ended before it served; this process continues to \
                         serve: {error}"
                    )
                }
            }
        }
    }
}

impl Drop for HandoverListener {
    fn drop(&mut self) {
        if let Some(temporary) = &self.temporary {
            let _ = fs::remove_file(temporary);
        }
    }
}

async fn hand_over_to(
    control: &WeakControlSender,
    stream: tokio::net::UnixStream,
) -> io::Result<()> {
    let stream = stream.into_std()?;
    stream.set_nonblocking(false)?;
    stream.set_write_timeout(Some(HANDOVER_IO_TIMEOUT))?;
    stream.set_read_timeout(Some(SUCCESSOR_START_TIMEOUT))?;
    let Some((sockets, outcome)) = control.hand_over().await else {
        return Err(io::Error::other(
            "this process cannot hand over now: a reload runs, or it is stopping",
        ));
    };
    let handed_over = spawn_blocking(move || {
        let named: Vec<_> = sockets.iter().map(|socket| ("director", socket.as_fd())).collect();
        handover::send(&stream, &named).map_err(io::Error::other)?;
        drop(sockets);
        let mut answer = [0];
        (&stream).read_exact(&mut answer).map_err(|error| match error.kind() {
            io::ErrorKind::UnexpectedEof => {
                io::Error::new(error.kind(), "it closed the handover socket; see its log")
            }
            io::ErrorKind::WouldBlock => {
                let limit = SUCCESSOR_START_TIMEOUT;
                io::Error::new(error.kind(), format!("it did not serve within {limit:?}"))
            }
            _ => error,
        })?;
        if answer == [SERVING_BYTE] { Ok(()) } else { Err(io::ErrorKind::InvalidData.into()) }
    });
    handed_over.await.unwrap_or_else(|error| Err(io::Error::other(error)))?;
    // Dropped on every other path, which means that the successor failed.
    let _ = outcome.send(SuccessorServes);
    Ok(())
}
