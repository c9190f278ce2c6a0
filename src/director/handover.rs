//! A restart that refuses nobody: a director takes the listeners over from the one before it.
//!
//! Both have the same configuration, with `handover = "PATH"`. The successor finds its predecessor's
//! socket there, and is given all listeners once the predecessor's part in the election has ended
//! (the standby has the virtual addresses meanwhile). When it serves it says so; the predecessor then
//! takes no more, and ends when its connections have. If the successor dies before, the predecessor
//! goes on as if nothing had been.

use std::fs::Permissions;
use std::io::{self, Read, Write};
use std::os::fd::AsFd;
use std::os::unix::fs::PermissionsExt;
use std::os::unix::net::{UnixListener, UnixStream};
use std::path::{Path, PathBuf};
use std::time::Duration;

use tokio::task::spawn_blocking;

use super::config::DirectorConfig;
use super::error::DirectorError;
use super::frontend::ListeningSockets;
use super::handle::Director;
use crate::forward::handover::{self, HandoverError};

/// How long the other one may take to speak.
const HANDOVER_IO_TIMEOUT: Duration = Duration::from_secs(5);
/// How long a successor may take to serve.
const SUCCESSOR_START_TIMEOUT: Duration = Duration::from_secs(60);
/// What a successor says when it serves.
const SERVING_BYTE: u8 = b'!';

/// The director that serves until this one does.
#[derive(Debug)]
pub(super) struct Predecessor(UnixStream);

impl Predecessor {
    /// Looks for one, and takes its sockets.
    pub(super) async fn connect(
        path: &Path,
    ) -> Result<Option<(Self, ListeningSockets)>, HandoverError> {
        let path = path.to_owned();
        let found = spawn_blocking(move || {
            let stream = match UnixStream::connect(&path) {
                Ok(stream) => stream,
                // Nobody is there, or somebody who has died.
                Err(error) => match error.kind() {
                    io::ErrorKind::NotFound | io::ErrorKind::ConnectionRefused => return Ok(None),
                    _ => return Err(error.into()),
                },
            };
            stream.set_read_timeout(Some(HANDOVER_IO_TIMEOUT))?;
            let sockets = handover::receive(&stream)?;
            Ok(Some((
                Self(stream),
                ListeningSockets::from_descriptors(sockets.into_iter().map(|(_, it)| it)),
            )))
        });
        found.await.unwrap_or(Ok(None))
    }

    /// This one serves: the other may go.
    pub(super) fn confirm_takeover(mut self) -> io::Result<()> {
        self.0.write_all(&[SERVING_BYTE])
    }
}

/// Where a successor comes.
#[derive(Debug)]
pub(super) struct HandoverListener {
    listener: UnixListener,
    path: PathBuf,
}

impl HandoverListener {
    /// Takes the place of what is there.
    pub(super) fn bind(path: &Path) -> Result<Self, DirectorError> {
        let begin = || {
            // Beside, and then over it: a successor finds one of the two.
            let beside = path.with_extension(format!("{}", std::process::id()));
            let _ = std::fs::remove_file(&beside);
            let listener = UnixListener::bind(&beside)?;
            std::fs::set_permissions(&beside, Permissions::from_mode(0o600))?;
            std::fs::rename(&beside, path)?;
            Ok(Self { listener, path: path.to_owned() })
        };
        begin().map_err(|source| DirectorError::Handover { path: path.to_owned(), source })
    }

    /// Hands over to whoever comes, until one of them serves.
    pub(super) async fn serve(self, director: Director) {
        let listener = match self.listener.set_nonblocking(true) {
            Ok(()) => tokio::net::UnixListener::from_std(self.listener),
            Err(error) => Err(error),
        };
        let listener = match listener {
            Ok(listener) => listener,
            Err(error) => {
                return tracing::error!("handover at {}: {error}", self.path.display());
            }
        };
        loop {
            let Ok((stream, _)) = listener.accept().await else {
                tokio::time::sleep(Duration::from_millis(100)).await;
                continue;
            };
            match hand_over_to(&director, stream).await {
                Ok(()) => {
                    tracing::info!("a successor serves");
                    director.shared.has_successor.send_replace(true);
                    return;
                }
                Err(error) => tracing::warn!("a successor came and does not serve: {error}"),
            }
        }
    }
}

async fn hand_over_to(director: &Director, stream: tokio::net::UnixStream) -> io::Result<()> {
    let stream = stream.into_std()?;
    stream.set_nonblocking(false)?;
    stream.set_write_timeout(Some(HANDOVER_IO_TIMEOUT))?;
    stream.set_read_timeout(Some(SUCCESSOR_START_TIMEOUT))?;
    // Nothing else is changed meanwhile.
    let current = director.shared.config.lock().await;
    let without = DirectorConfig { vrrp: Vec::new(), ..current.clone() };
    if !current.vrrp.is_empty() {
        director.restart_vrrp(&current, &without).await.map_err(io::Error::other)?;
    }
    let sockets = director.duplicate_sockets();
    let handed = spawn_blocking(move || {
        let sockets: Vec<_> = sockets.iter().map(|it| ("director", it.as_fd())).collect();
        handover::send(&stream, &sockets).map_err(io::Error::other)?;
        let mut said = [0];
        (&stream).read_exact(&mut said)?;
        if said == [SERVING_BYTE] { Ok(()) } else { Err(io::ErrorKind::InvalidData.into()) }
    });
    let handed = handed.await.unwrap_or_else(|error| Err(io::Error::other(error)));
    if handed.is_err()
        && !current.vrrp.is_empty()
        && let Err(error) = director.restart_vrrp(&without, &current).await
    {
        tracing::error!("the election that was cannot be begun again: {error}");
    }
    handed
}

impl Director {
    /// Waits until a successor serves in its place; then it is time to [`stop`](Self::stop). Never,
    /// where the configuration has no `handover`.
    pub async fn wait_for_successor(&self) {
        let mut succeeded = self.shared.has_successor.subscribe();
        if succeeded.wait_for(|succeeded| *succeeded).await.is_err() {
            std::future::pending::<()>().await;
        }
    }
}
