//! What does a file say of it?

use std::fs::{File, OpenOptions};
use std::io::{self, ErrorKind, Read};
use std::num::NonZeroI32;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use tokio::sync::Semaphore;
use tokio::task::spawn_blocking;

use crate::backend::{AgentOverride, AgentWeight};
use crate::health::{Check, CheckContext, CheckFailure, CheckFailureKind, CheckReport};

/// The most bytes a file's number may take, white space included.
const MAX_VALUE_LEN: usize = 128;

/// Follows a file of this machine, which an operator or a program writes.
///
/// # By number
/// [`FileCheck::value`] reads a whole decimal number from -2147483648 to 2147483647, as
/// keepalived's `FILE_CHECK` does: 0 is up. What another number is depends on the weight:
///
/// | | 0 | n |
/// |---|---|---|
/// | no [`weight`](Self::weight) | up | down |
/// | `weight(w)` | up | up, the configured weight and n × w; down if that product is -2147483648 or less |
///
/// [`reversed`](Self::reversed) takes up for down in the first line and -w for w in the second.
///
/// A file that is missing is a failure ([`Mismatch`](CheckFailureKind::Mismatch)), and so is one that
/// holds no number ([`Protocol`](CheckFailureKind::Protocol)) or more than 128 bytes
/// ([`TooLong`](CheckFailureKind::TooLong)): it says nothing, and a check that hears nothing must not
/// say up. keepalived takes all these for 0, and so for up, and reads hexadecimal and octal numbers,
/// too. A file that may not be read is [`Local`](CheckFailureKind::Local), which counts for nothing.
/// Replace the file by renaming a new one to it: one that is written in place may be read half.
///
/// # By existence
/// [`FileCheck::exists`] is up while there is a file, or anything else, of that name; reversed it is
/// up while there is none, as operators take a server out by `touch /run/maintenance`.
///
/// # Cost
/// A few system calls on a thread for blocking work. A file system that hangs holds one such thread
/// for each check, shared by all its clones, and no more; the others wait until their timeout.
///
/// # Examples
/// ```
/// use lvs::health::FileCheck;
///
/// let maintenance = FileCheck::exists("/run/maintenance").reversed();
/// let batteries = FileCheck::value("/run/ups/level").weight(-2);
/// # let _ = (maintenance, batteries);
/// ```
#[derive(Clone, Debug)]
#[must_use]
pub struct FileCheck {
    path: Arc<Path>,
    mode: FileCheckMode,
    reversed: bool,
    read_permit: Arc<Semaphore>,
}

#[derive(Clone, Copy, Debug)]
enum FileCheckMode {
    Exists,
    Value { weight: Option<NonZeroI32> },
}

impl FileCheck {
    /// Up if the number in the file is 0.
    pub fn value(path: impl Into<PathBuf>) -> Self {
        Self::new(path.into(), FileCheckMode::Value { weight: None })
    }

    /// Up if the file exists.
    pub fn exists(path: impl Into<PathBuf>) -> Self {
        Self::new(path.into(), FileCheckMode::Exists)
    }

    fn new(path: PathBuf, question: FileCheckMode) -> Self {
        let reading = Arc::new(Semaphore::new(1));
        Self { path: path.into(), mode: question, reversed: false, read_permit: reading }
    }

    /// Adds the file's number times this to the backend's configured weight; 0 is the default: the
    /// number is up or down. Without effect on a check by existence.
    pub fn weight(self, weight: i32) -> Self {
        let question = match self.mode {
            FileCheckMode::Exists => FileCheckMode::Exists,
            FileCheckMode::Value { .. } => FileCheckMode::Value { weight: NonZeroI32::new(weight) },
        };
        Self { mode: question, ..self }
    }

    /// Turns it round: see the table. Default: not.
    pub fn reversed(self) -> Self {
        Self { reversed: true, ..self }
    }

    fn judge_existence(&self, exists: bool) -> Result<CheckReport, CheckFailure> {
        if exists != self.reversed {
            return Ok(CheckReport::up());
        }
        let what = if exists { "exists" } else { "does not exist" };
        Err(self.failure(CheckFailureKind::Mismatch, what))
    }

    fn judge_value(
        &self,
        value: i32,
        weight: Option<NonZeroI32>,
    ) -> Result<CheckReport, CheckFailure> {
        let Some(weight) = weight else {
            if (value == 0) != self.reversed {
                return Ok(CheckReport::up());
            }
            return Err(self.failure(CheckFailureKind::Mismatch, &format!("says {value}")));
        };
        let sign = if self.reversed { -1 } else { 1 };
        let change = i64::from(value) * i64::from(weight.get()) * sign;
        if change <= i64::from(i32::MIN) {
            let what = format!("says {value}, and times {weight} that is down");
            return Err(self.failure(CheckFailureKind::Mismatch, &what));
        }
        let change = i32::try_from(change).unwrap_or(i32::MAX);
        let advice =
            AgentOverride { weight: Some(AgentWeight::Plus(change)), ..AgentOverride::default() };
        Ok(CheckReport::up().with_agent_override(advice))
    }

    fn failure(&self, kind: CheckFailureKind, what: &str) -> CheckFailure {
        CheckFailure::new(kind, format!("{} {what}", self.path.display()))
    }

    fn io_failure(&self, error: &io::Error) -> CheckFailure {
        match error.kind() {
            ErrorKind::NotFound => self.failure(CheckFailureKind::Mismatch, "does not exist"),
            _ => CheckFailure::local(&format!("reading {}", self.path.display()), error),
        }
    }

    /// Runs blocking work on the file, one at a time.
    async fn run_blocking<R: Send + 'static>(
        &self,
        probe: &CheckContext,
        work: impl FnOnce(&Path) -> io::Result<R> + Send + 'static,
    ) -> io::Result<R> {
        probe.set_stage("waiting for an earlier look at the file to end");
        let turn = Arc::clone(&self.read_permit).acquire_owned().await.map_err(io::Error::other)?;
        probe.set_stage("waiting for the file system");
        let path = Arc::clone(&self.path);
        let work = spawn_blocking(move || {
            // With the thread, not with the check: a dropped check leaves the thread behind.
            let _turn = turn;
            work(&path)
        });
        work.await.map_err(io::Error::other)?
    }
}

impl Check for FileCheck {
    async fn check(&self, probe: &CheckContext) -> Result<CheckReport, CheckFailure> {
        match self.mode {
            FileCheckMode::Exists => {
                let exists = self.run_blocking(probe, |path| path.try_exists()).await;
                self.judge_existence(exists.map_err(|error| self.io_failure(&error))?)
            }
            FileCheckMode::Value { weight } => {
                let text = self.run_blocking(probe, read_limited).await;
                let text = text.map_err(|error| self.io_failure(&error))?;
                if text.len() > MAX_VALUE_LEN {
                    let what = format!("has more than {MAX_VALUE_LEN} bytes");
                    return Err(self.failure(CheckFailureKind::TooLong, &what));
                }
                let Some(value) = parse_value(&text) else {
                    let shown = text[..text.len().min(24)].escape_ascii();
                    let what = format!("does not hold a number but \"{shown}\"");
                    return Err(self.failure(CheckFailureKind::Protocol, &what));
                };
                self.judge_value(value, weight)
            }
        }
    }

    fn name(&self) -> &str {
        "file"
    }
}

/// Reads one byte more than there may be.
fn read_limited(path: &Path) -> io::Result<Vec<u8>> {
    let mut text = Vec::new();
    open_nonblocking(path)?.take(MAX_VALUE_LEN as u64 + 1).read_to_end(&mut text)?;
    Ok(text)
}

fn open_nonblocking(path: &Path) -> io::Result<File> {
    use std::os::unix::fs::OpenOptionsExt;
    // A pipe by that name would otherwise hold the thread until somebody opens its other end.
    let flags = rustix::fs::OFlags::NONBLOCK.bits() as i32;
    OpenOptions::new().read(true).custom_flags(flags).open(path)
}

/// A decimal number, white space around it left out.
fn parse_value(text: &[u8]) -> Option<i32> {
    std::str::from_utf8(text.trim_ascii()).ok()?.parse().ok()
}

#[cfg(all(test, not(lvs_loom)))]
mod tests;
