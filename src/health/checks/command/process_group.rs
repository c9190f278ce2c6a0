//! A program and all that it starts, which end together.

use std::io;
use std::os::fd::AsFd;
use std::process::{Child, ChildStderr, Command, ExitStatus};

use rustix::process::{Pid, Signal, kill_process_group};
use tokio::io::AsyncReadExt;
use tokio::runtime::Handle;

/// The most bytes of what the program said that are kept, and that a reason shows.
const MAX_STDERR_LINE_LEN: usize = 200;

/// A program in a process group of its own; when dropped, the group is killed.
///
/// Not tokio's `Child`: where the runtime ends while one is started, it is lost, and lives on.
#[derive(Debug)]
pub(super) struct ProcessGroup {
    /// Until it has been waited for: so long its number is nobody else's.
    child: Option<Child>,
    leader: Pid,
    stderr: Option<ChildStderr>,
    first_line: FirstStderrLine,
}

impl ProcessGroup {
    /// Starts a program. Blocks until its file is read.
    pub(super) fn spawn(command: &mut Command) -> io::Result<Self> {
        let mut child = command.spawn()?;
        let (leader, stderr) = (Pid::from_child(&child), child.stderr.take());
        Ok(Self { child: Some(child), leader, stderr, first_line: FirstStderrLine::default() })
    }

    /// Waits for the program, ends what it has left behind in its group, and tells how it ended and
    /// the first line that it said on standard error. Within a runtime only.
    pub(super) async fn wait(mut self) -> io::Result<(ExitStatus, String)> {
        self.read_stderr_until_exit().await?;
        self.kill();
        let status = match &mut self.child {
            // It has ended: this does not block.
            Some(child) => child.wait()?,
            None => return Err(io::Error::other("waited for already")),
        };
        self.child = None;
        Ok((status, self.first_line.text()))
    }

    /// Reads all that is said meanwhile: a program whose pipe is full would wait for ever.
    async fn read_stderr_until_exit(&mut self) -> io::Result<()> {
        let ended = wait_for_exit(self.leader);
        tokio::pin!(ended);
        let mut buffer = [0; 4096];
        let mut speaking =
            self.stderr.take().map(tokio::process::ChildStderr::from_std).transpose()?;
        while let Some(stderr) = &mut speaking {
            // In random order, so that one who talks without end does not hide the other's end.
            tokio::select! {
                result = &mut ended => {
                    result?;
                    // What was said at last: it is in the pipe, if perhaps not yet announced. No
                    // more than this, because another may hold the pipe's other end.
                    let said = rustix::io::read(stderr.as_fd(), &mut buffer).unwrap_or(0);
                    self.first_line.push(&buffer[..said]);
                    return Ok(());
                }
                read = stderr.read(&mut buffer) => match read {
                    Ok(1..) if self.first_line.is_complete() => {}
                    Ok(len @ 1..) => self.first_line.push(&buffer[..len]),
                    Ok(0) | Err(_) => speaking = None,
                },
            }
        }
        ended.await
    }

    fn kill(&self) {
        // Nobody is left, or all are another user's now.
        let _ = kill_process_group(self.leader, Signal::KILL);
    }
}

impl Drop for ProcessGroup {
    fn drop(&mut self) {
        let Some(mut child) = self.child.take() else { return };
        self.kill();
        // Dead in a moment, but not yet: to wait for it here might block.
        match Handle::try_current() {
            Ok(runtime) => drop(runtime.spawn_blocking(move || child.wait())),
            Err(_) => drop(child.wait()),
        }
    }
}

/// Waits until a child has ended, and leaves it to be waited for: until then its number, which is
/// its group's too, is nobody else's.
#[cfg(target_os = "linux")]
async fn wait_for_exit(child: Pid) -> io::Result<()> {
    use rustix::process::{PidfdFlags, pidfd_open};
    use tokio::io::Interest;
    use tokio::io::unix::AsyncFd;
    let descriptor = pidfd_open(child, PidfdFlags::NONBLOCK)?;
    #[expect(deprecated, reason = "sound with an OwnedFd, which stays the same open descriptor")]
    let descriptor = AsyncFd::with_interest(descriptor, Interest::READABLE)?;
    descriptor.readable().await?.retain_ready();
    Ok(())
}

#[cfg(not(target_os = "linux"))]
async fn ended(_: Pid) -> io::Result<()> {
    Err(io::ErrorKind::Unsupported.into())
}

/// The beginning of the first line that is not empty.
#[derive(Debug, Default)]
pub(super) struct FirstStderrLine {
    bytes: Vec<u8>,
    complete: bool,
}

impl FirstStderrLine {
    pub(super) fn push(&mut self, said: &[u8]) {
        for &byte in said {
            if self.is_complete() {
                return;
            }
            match byte {
                b'\n' => self.complete = !self.bytes.trim_ascii().is_empty(),
                _ => self.bytes.push(byte),
            }
        }
    }

    pub(super) fn is_complete(&self) -> bool {
        self.complete || self.bytes.len() >= MAX_STDERR_LINE_LEN
    }

    /// For a log: what is no character, or one that steers a terminal, is shown as U+FFFD.
    pub(super) fn text(&self) -> String {
        let shown = |c: char| if c.is_control() { char::REPLACEMENT_CHARACTER } else { c };
        let mut text = String::new();
        for character in String::from_utf8_lossy(self.bytes.trim_ascii()).chars().map(shown) {
            // What takes the place of one byte has three.
            if text.len() + character.len_utf8() > MAX_STDERR_LINE_LEN {
                break;
            }
            text.push(character);
        }
        text
    }
}
