//! The file check.

use std::fs::{File, OpenOptions};
use std::io::{self, ErrorKind, Read};
use std::num::NonZeroI32;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use tokio::sync::Semaphore;
use tokio::task::spawn_blocking;

use super::quote::quoted_excerpt;
use crate::backend::{AgentOverride, AgentWeight};
use crate::health::{Check, CheckContext, CheckFailure, CheckFailureKind, CheckReport};

/// The longest content of a file with a number, in bytes, white space included.
const MAX_VALUE_LEN: usize = 128;

/// Reads a number from a file of this machine, or tests that the file exists.
///
/// # By number
/// [`FileCheck::value`] reads a whole decimal number from -2147483648 to 2147483647, as
/// keepalived's `FILE_CHECK` does: 0 is up. The meaning of another number depends on the weight:
///
/// | | 0 | n |
/// |---|---|---|
/// | no [`weight`](Self::weight) | up | down |
/// | `weight(w)` | up | up, the configured weight and n × w; down if that product is -2147483648 or less |
///
/// [`reversed`](Self::reversed) exchanges up and down in the first line, and uses -w in the second.
///
/// A missing file is a failure ([`Mismatch`](CheckFailureKind::Mismatch)), and so is a file without
/// a number ([`Protocol`](CheckFailureKind::Protocol)) or of more than 128 bytes
/// ([`TooLong`](CheckFailureKind::TooLong)): without a number the check must not be up. keepalived
/// takes these files for 0, which is up, and reads hexadecimal and octal numbers, too. A file that
/// cannot be read is [`Local`](CheckFailureKind::Local), which does not count against the backend.
/// Replace the file by a rename: a file that is written in place may be read half.
///
/// # By existence
/// [`FileCheck::exists`] is up while a file, or anything else, of that name exists; reversed, it is
/// up while none exists, so that `touch /run/maintenance` takes a server out.
///
/// # Cost
/// A few system calls on a thread for blocking work. A file system that hangs blocks at most one
/// such thread for each check, shared by all its clones; further checks wait until their timeout.
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
    /// Makes a check that is up if the number in the file is 0.
    pub fn value(path: impl Into<PathBuf>) -> Self {
        Self::new(path.into(), FileCheckMode::Value { weight: None })
    }

    /// Makes a check that is up if the file exists.
    pub fn exists(path: impl Into<PathBuf>) -> Self {
        Self::new(path.into(), FileCheckMode::Exists)
    }

    fn new(path: PathBuf, mode: FileCheckMode) -> Self {
        let read_permit = Arc::new(Semaphore::new(1));
        Self { path: path.into(), mode, reversed: false, read_permit }
    }

    /// Adds the number in the file, times this factor, to the backend's configured weight. Default:
    /// 0, which makes the number mean up or down. No effect on a check by existence.
    pub fn weight(self, weight: i32) -> Self {
        let mode = match self.mode {
            FileCheckMode::Exists => FileCheckMode::Exists,
            FileCheckMode::Value { .. } => FileCheckMode::Value { weight: NonZeroI32::new(weight) },
        };
        Self { mode, ..self }
    }

    /// Reverses the meaning: see the table. Default: not reversed.
    pub fn reversed(self) -> Self {
        Self { reversed: true, ..self }
    }

    fn judge_existence(&self, exists: bool) -> Result<CheckReport, CheckFailure> {
        if exists != self.reversed {
            return Ok(CheckReport::up());
        }
        let problem = if exists { "exists" } else { "does not exist" };
        Err(self.failure(CheckFailureKind::Mismatch, problem))
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
            let expected = if self.reversed { "another number than 0" } else { "0" };
            let problem = format!("contains {value}, expected {expected}");
            return Err(self.failure(CheckFailureKind::Mismatch, &problem));
        };
        let sign = if self.reversed { -1 } else { 1 };
        let change = i64::from(value) * i64::from(weight.get()) * sign;
        if change <= i64::from(i32::MIN) {
            let problem = format!("contains {value}: times the weight {weight}, that means down");
            return Err(self.failure(CheckFailureKind::Mismatch, &problem));
        }
        let change = i32::try_from(change).unwrap_or(i32::MAX);
        let agent_override =
            AgentOverride { weight: Some(AgentWeight::Plus(change)), ..AgentOverride::default() };
        Ok(CheckReport::up().with_agent_override(agent_override))
    }

    fn failure(&self, kind: CheckFailureKind, problem: &str) -> CheckFailure {
        CheckFailure::new(kind, format!("{} {problem}", self.path.display()))
    }

    fn io_failure(&self, error: &io::Error) -> CheckFailure {
        match error.kind() {
            ErrorKind::NotFound => self.failure(CheckFailureKind::Mismatch, "does not exist"),
            _ => CheckFailure::local(&format!("reading {}", self.path.display()), error),
        }
    }

    /// Runs blocking work on the file, one call at a time.
    async fn run_blocking<R: Send + 'static>(
        &self,
        context: &CheckContext,
        work: impl FnOnce(&Path) -> io::Result<R> + Send + 'static,
    ) -> io::Result<R> {
        context.set_stage("waiting for an earlier read of the file");
        let permit =
            Arc::clone(&self.read_permit).acquire_owned().await.map_err(io::Error::other)?;
        context.set_stage("waiting for the file system");
        let path = Arc::clone(&self.path);
        let work = spawn_blocking(move || {
            // Held by the thread, not by the check: a dropped check leaves the thread running.
            let _permit = permit;
            work(&path)
        });
        work.await.map_err(io::Error::other)?
    }
}

impl Check for FileCheck {
    async fn check(&self, context: &CheckContext) -> Result<CheckReport, CheckFailure> {
        match self.mode {
            FileCheckMode::Exists => {
                let exists = self.run_blocking(context, |path| path.try_exists()).await;
                self.judge_existence(exists.map_err(|error| self.io_failure(&error))?)
            }
            FileCheckMode::Value { weight } => {
                let text = self.run_blocking(context, read_limited).await;
                let text = text.map_err(|error| self.io_failure(&error))?;
                if text.len() > MAX_VALUE_LEN {
                    let problem = format!("has more than {MAX_VALUE_LEN} bytes");
                    return Err(self.failure(CheckFailureKind::TooLong, &problem));
                }
                let Some(value) = parse_value(&text) else {
                    let problem = format!("contains {}, expected a number", quoted_excerpt(&text));
                    return Err(self.failure(CheckFailureKind::Protocol, &problem));
                };
                self.judge_value(value, weight)
            }
        }
    }

    fn name(&self) -> &str {
        "file"
    }
}

/// Reads the file, at most one byte more than is allowed.
fn read_limited(path: &Path) -> io::Result<Vec<u8>> {
    let mut text = Vec::new();
    open_nonblocking(path)?.take(MAX_VALUE_LEN as u64 + 1).read_to_end(&mut text)?;
    Ok(text)
}

fn open_nonblocking(path: &Path) -> io::Result<File> {
    use std::os::unix::fs::OpenOptionsExt;
    // Opening a named pipe would otherwise block the thread until a writer opens the pipe.
    let flags = rustix::fs::OFlags::NONBLOCK.bits() as i32;
    OpenOptions::new().read(true).custom_flags(flags).open(path)
}

/// Parses a decimal number with white space around it.
fn parse_value(text: &[u8]) -> Option<i32> {
    std::str::from_utf8(text.trim_ascii()).ok()?.parse().ok()
}

#[cfg(all(test, not(lvs_loom)))]
mod tests;
