//! Members from a file that is watched.

use std::fs::File;
use std::io::{self, ErrorKind, Read};
use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use tokio::task::spawn_blocking;
use tokio::time::sleep;

use super::{DiscoveryError, MemberSource, MemberUpdate, member_list};

/// The largest file that is read, in bytes: a line of 256 for each member that a set holds.
const MAX_FILE_SIZE: u64 = 16 << 20;

/// How long a changed file must stay as it is to be believed.
const STABILITY_INTERVAL: Duration = Duration::from_millis(100);

/// How often a file that is never the same twice is read before that is called a failure.
const MAX_STABILITY_READS: u32 = 20;

/// A source that says what is in a file, and says it again when the file changes.
///
/// The file is in the [text form](crate::discovery#the-text-form). A bad one changes nothing, and
/// the [error](DiscoveryError::List) names file, line and column; so do a missing file and one that
/// cannot be read. Each failure is told once, until the file is another or good again.
///
/// # How it is watched
/// It is read once [an interval](Self::interval) and compared with what was read before. Nothing
/// else sees every way in which files change: a rename over it, a symbolic link that is pointed
/// elsewhere (how Kubernetes changes a ConfigMap, two links away), a file system on the network,
/// which tells the kernel of this machine nothing. Reading a small file costs some microseconds, on
/// a thread of tokio's pool for blocking work.
///
/// A program that writes the file in place is seen half done. So what is new must be the same twice,
/// 100 ms apart, to be believed; to be sure, write another file and rename it. Files of more than
/// 16 MiB, and what is no regular file, are failures.
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
    /// What the last word was about; `None` before the first.
    last_reported: Option<FileObservation>,
}

/// What was found where the file should be.
#[derive(Clone, Debug, Eq, PartialEq)]
enum FileObservation {
    Content(Vec<u8>),
    Failure(ErrorKind),
    /// It was another one each time.
    Unstable,
}

impl FileSource {
    /// Reads the file once a second; it need not be there yet.
    #[must_use]
    pub fn new(path: impl Into<PathBuf>) -> Self {
        let path = path.into();
        let name = path.display().to_string();
        Self { path: path.into(), name, interval: Duration::from_secs(1), last_reported: None }
    }

    /// How often to read it, 100 ms at the most often; a change is known after at most this and
    /// 100 ms. Default: 1 s.
    #[must_use]
    pub fn interval(self, interval: Duration) -> Self {
        Self { interval, ..self }
    }

    /// Reads the file until it is the same twice.
    async fn read_stable(&self) -> (FileObservation, Option<io::Error>) {
        let mut last = self.read_once().await;
        for _ in 0..MAX_STABILITY_READS {
            if self.last_reported.as_ref() == Some(&last.0) {
                return last;
            }
            sleep(STABILITY_INTERVAL).await;
            let again = self.read_once().await;
            if again.0 == last.0 {
                return again;
            }
            last = again;
        }
        let error = io::Error::other("it is another one each time it is read");
        (FileObservation::Unstable, Some(error))
    }

    async fn read_once(&self) -> (FileObservation, Option<io::Error>) {
        let path = Arc::clone(&self.path);
        let read = spawn_blocking(move || read_file(&path)).await;
        // The pool's threads end with the runtime, and this future with it.
        match read.unwrap_or_else(|ended| Err(io::Error::other(ended))) {
            Ok(content) => (FileObservation::Content(content), None),
            Err(error) => (FileObservation::Failure(error.kind()), Some(error)),
        }
    }
}

fn read_file(path: &Path) -> io::Result<Vec<u8>> {
    // Opening a pipe would wait for somebody to write into it.
    let size = match path.metadata()? {
        metadata if metadata.is_file() => metadata.len(),
        _ => return Err(io::Error::new(ErrorKind::InvalidInput, "it is no regular file")),
    };
    let mut content = Vec::with_capacity(size.min(MAX_FILE_SIZE) as usize + 1);
    File::open(path)?.take(MAX_FILE_SIZE + 1).read_to_end(&mut content)?;
    if content.len() as u64 > MAX_FILE_SIZE {
        return Err(io::Error::new(ErrorKind::FileTooLarge, "it has more than 16 MiB"));
    }
    Ok(content)
}

impl MemberSource<SocketAddr> for FileSource {
    async fn next(&mut self) -> Option<Result<MemberUpdate<SocketAddr>, DiscoveryError>> {
        loop {
            if self.last_reported.is_some() {
                sleep(self.interval.max(STABILITY_INTERVAL)).await;
            }
            let (seen, error) = self.read_stable().await;
            if self.last_reported.as_ref() == Some(&seen) {
                continue;
            }
            let answer = match (&seen, error) {
                (FileObservation::Content(content), _) => member_list::parse_bytes(content)
                    .map(MemberUpdate::All)
                    .map_err(|error| DiscoveryError::List { name: self.name.clone(), error }),
                (FileObservation::Failure(_) | FileObservation::Unstable, error) => {
                    let source = error.unwrap_or_else(|| ErrorKind::Other.into());
                    Err(DiscoveryError::Io { name: self.name.clone(), source })
                }
            };
            self.last_reported = Some(seen);
            return Some(answer);
        }
    }

    fn name(&self) -> &str {
        &self.name
    }
}
