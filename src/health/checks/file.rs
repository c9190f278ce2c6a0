//! What does a file say of it?

use std::fs::{File, OpenOptions};
use std::io::{self, ErrorKind, Read};
use std::num::NonZeroI32;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use tokio::sync::Semaphore;
use tokio::task::spawn_blocking;

use crate::backend::{Advice, WeightAdvice};
use crate::health::{Check, Failure, FailureKind, Probe, Report};

/// The most bytes a file's number may take, white space included.
const MAX_LEN: usize = 128;

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
/// A file that is missing is a failure ([`Mismatch`](FailureKind::Mismatch)), and so is one that
/// holds no number ([`Protocol`](FailureKind::Protocol)) or more than 128 bytes
/// ([`TooLong`](FailureKind::TooLong)): it says nothing, and a check that hears nothing must not
/// say up. keepalived takes all these for 0, and so for up, and reads hexadecimal and octal numbers,
/// too. A file that may not be read is [`Local`](FailureKind::Local), which counts for nothing.
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
    question: Question,
    reversed: bool,
    reading: Arc<Semaphore>,
}

#[derive(Clone, Copy, Debug)]
enum Question {
    Exists,
    Value { weight: Option<NonZeroI32> },
}

impl FileCheck {
    /// Up if the number in the file is 0.
    pub fn value(path: impl Into<PathBuf>) -> Self {
        Self::new(path.into(), Question::Value { weight: None })
    }

    /// Up if the file exists.
    pub fn exists(path: impl Into<PathBuf>) -> Self {
        Self::new(path.into(), Question::Exists)
    }

    fn new(path: PathBuf, question: Question) -> Self {
        let reading = Arc::new(Semaphore::new(1));
        Self { path: path.into(), question, reversed: false, reading }
    }

    /// Adds the file's number times this to the backend's configured weight; 0 is the default: the
    /// number is up or down. Without effect on a check by existence.
    pub fn weight(self, weight: i32) -> Self {
        let question = match self.question {
            Question::Exists => Question::Exists,
            Question::Value { .. } => Question::Value { weight: NonZeroI32::new(weight) },
        };
        Self { question, ..self }
    }

    /// Turns it round: see the table. Default: not.
    pub fn reversed(self) -> Self {
        Self { reversed: true, ..self }
    }

    fn judge_existence(&self, exists: bool) -> Result<Report, Failure> {
        if exists != self.reversed {
            return Ok(Report::up());
        }
        let what = if exists { "exists" } else { "does not exist" };
        Err(self.failure(FailureKind::Mismatch, what))
    }

    fn judge_value(&self, value: i32, weight: Option<NonZeroI32>) -> Result<Report, Failure> {
        let Some(weight) = weight else {
            if (value == 0) != self.reversed {
                return Ok(Report::up());
            }
            return Err(self.failure(FailureKind::Mismatch, &format!("says {value}")));
        };
        let sign = if self.reversed { -1 } else { 1 };
        let change = i64::from(value) * i64::from(weight.get()) * sign;
        if change <= i64::from(i32::MIN) {
            let what = format!("says {value}, and times {weight} that is down");
            return Err(self.failure(FailureKind::Mismatch, &what));
        }
        let change = i32::try_from(change).unwrap_or(i32::MAX);
        let advice = Advice { weight: Some(WeightAdvice::Plus(change)), ..Advice::default() };
        Ok(Report::up().with_advice(advice))
    }

    fn failure(&self, kind: FailureKind, what: &str) -> Failure {
        Failure::new(kind, format!("{} {what}", self.path.display()))
    }

    fn io_failure(&self, error: &io::Error) -> Failure {
        match error.kind() {
            ErrorKind::NotFound => self.failure(FailureKind::Mismatch, "does not exist"),
            _ => Failure::local(&format!("reading {}", self.path.display()), error),
        }
    }

    /// Runs blocking work on the file, one at a time.
    async fn blocking<R: Send + 'static>(
        &self,
        probe: &Probe,
        work: impl FnOnce(&Path) -> io::Result<R> + Send + 'static,
    ) -> io::Result<R> {
        probe.stage("waiting for an earlier look at the file to end");
        let turn = Arc::clone(&self.reading).acquire_owned().await.map_err(io::Error::other)?;
        probe.stage("waiting for the file system");
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
    async fn check(&self, probe: &Probe) -> Result<Report, Failure> {
        match self.question {
            Question::Exists => {
                let exists = self.blocking(probe, |path| path.try_exists()).await;
                self.judge_existence(exists.map_err(|error| self.io_failure(&error))?)
            }
            Question::Value { weight } => {
                let text = self.blocking(probe, beginning).await;
                let text = text.map_err(|error| self.io_failure(&error))?;
                if text.len() > MAX_LEN {
                    let what = format!("has more than {MAX_LEN} bytes");
                    return Err(self.failure(FailureKind::TooLong, &what));
                }
                let Some(value) = parse(&text) else {
                    let shown = text[..text.len().min(24)].escape_ascii();
                    let what = format!("does not hold a number but \"{shown}\"");
                    return Err(self.failure(FailureKind::Protocol, &what));
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
fn beginning(path: &Path) -> io::Result<Vec<u8>> {
    let mut text = Vec::new();
    open(path)?.take(MAX_LEN as u64 + 1).read_to_end(&mut text)?;
    Ok(text)
}

fn open(path: &Path) -> io::Result<File> {
    use std::os::unix::fs::OpenOptionsExt;
    // A pipe by that name would otherwise hold the thread until somebody opens its other end.
    let flags = rustix::fs::OFlags::NONBLOCK.bits() as i32;
    OpenOptions::new().read(true).custom_flags(flags).open(path)
}

/// A decimal number, white space around it left out.
fn parse(text: &[u8]) -> Option<i32> {
    std::str::from_utf8(text.trim_ascii()).ok()?.parse().ok()
}

#[cfg(all(test, not(lvs_loom)))]
mod tests;
