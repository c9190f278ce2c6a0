//! Members from a watched file.

use std::io::{self, ErrorKind};
use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use tokio::task::spawn_blocking;
use tokio::time::sleep;

use super::{DiscoveryError, MemberSource, MemberUpdate, member_list};
use crate::regular_file::read_regular_file;
use crate::setting::{SettingError, check_range};

/// The largest file that is read, in bytes: 256 for each member that a set can hold.
const MAX_FILE_SIZE: u64 = 16 << 20;

/// The time for which a changed file must stay unchanged before it is used.
const STABILITY_INTERVAL: Duration = Duration::from_millis(100);

/// The most reads of a file that changes all the time, before that is a failure.
const MAX_STABILITY_READS: u32 = 20;

/// A source that reads its members from a file, again when the file changes.
///
/// The file is in the [text form](crate::discovery#the-text-form). A malformed file changes no
/// member, and the [error](DiscoveryError::List) names file, line and column. A file that is
/// missing or cannot be read changes no member either. Each failure is reported once, until the
/// file changes.
///
/// # How the file is watched
/// The file is read at an [interval](Self::interval) and compared with the last content. Only this
/// detects every kind of change: a rename over the file, a symbolic link to another file
/// (Kubernetes changes a ConfigMap so, two links away), a network file system, which sends no
/// events to the kernel of this machine. Reading a small file costs some microseconds, on a thread
/// of tokio's pool for blocking work.
///
/// A program that writes the file in place may be seen half done. So new content must be the same
/// in two reads, 100 ms apart; to be safe, write another file and rename it over this file. Files
/// of more than 16 MiB, and files that are not regular files, are failures.
///
/// # Examples
/// ```no_run
/// use std::net::SocketAddr;
/// use lvs::BackendSet;
/// use lvs::discovery::{Feed, FileSource};
///
/// # async fn run() {
/// let set = BackendSet::<SocketAddr>::new();
/// tokio::spawn(Feed::new(&set, FileSource::new("/etc/lvs/web.members")).run());
/// # }
/// ```
#[derive(Debug)]
pub struct FileSource {
    path: Arc<Path>,
    name: String,
    interval: Duration,
    /// The observation behind the last report; `None` before the first report.
    last_reported: Option<FileObservation>,
}

/// The result of reading the file.
#[derive(Clone, Debug, Eq, PartialEq)]
enum FileObservation {
    Content(Vec<u8>),
    Failure(ErrorKind),
    /// The content was different in every read.
    Unstable,
}

impl FileSource {
    /// Makes a source that reads the file once a second; the file need not exist yet.
    #[must_use]
    pub fn new(path: impl Into<PathBuf>) -> Self {
        let path = path.into();
        let name = path.display().to_string();
        Self { path: path.into(), name, interval: Duration::from_secs(1), last_reported: None }
    }

    /// Sets the time between two reads, at least 100 ms. A change is reported at most this time and
    /// 100 ms later. Default: 1 s.
    ///
    /// # Errors
    /// [`SettingError`] if the interval is shorter.
    pub fn interval(self, interval: Duration) -> Result<Self, SettingError> {
        Ok(Self { interval: check_range("interval", interval, STABILITY_INTERVAL..)?, ..self })
    }

    /// Reads the file until two reads have the same result.
    async fn read_stable(&self) -> (FileObservation, Option<io::Error>) {
        let mut last = self.read_once().await;
        for _ in 0..MAX_STABILITY_READS {
            if self.last_reported.as_ref() == Some(&last.0) {
                return last;
            }
            sleep(STABILITY_INTERVAL).await;
            let next = self.read_once().await;
            if next.0 == last.0 {
                return next;
            }
            last = next;
        }
        let error = io::Error::other("the content is different each time the file is read");
        (FileObservation::Unstable, Some(error))
    }

    async fn read_once(&self) -> (FileObservation, Option<io::Error>) {
        let path = Arc::clone(&self.path);
        let read = spawn_blocking(move || read_regular_file(&path, MAX_FILE_SIZE)).await;
        // The task fails only when the runtime shuts down.
        match read.unwrap_or_else(|error| Err(io::Error::other(error))) {
            Ok(content) => (FileObservation::Content(content), None),
            Err(error) => (FileObservation::Failure(error.kind()), Some(error)),
        }
    }
}

impl MemberSource<SocketAddr> for FileSource {
    async fn next(&mut self) -> Option<Result<MemberUpdate<SocketAddr>, DiscoveryError>> {
        loop {
            if self.last_reported.is_some() {
                sleep(self.interval).await;
            }
            let (observation, error) = self.read_stable().await;
            if self.last_reported.as_ref() == Some(&observation) {
                continue;
            }
            let report = match (&observation, error) {
                (FileObservation::Content(content), _) => member_list::parse_bytes(content)
                    .map(MemberUpdate::All)
                    .map_err(|error| DiscoveryError::List { name: self.name.clone(), error }),
                (FileObservation::Failure(_) | FileObservation::Unstable, error) => {
                    let source = error.unwrap_or_else(|| ErrorKind::Other.into());
                    Err(DiscoveryError::Io { name: self.name.clone(), source })
                }
            };
            self.last_reported = Some(observation);
            return Some(report);
        }
    }

    fn name(&self) -> &str {
        &self.name
    }
}
