//! A program with its child processes, which end together.

use std::io;
use std::os::fd::AsFd;
use std::process::{Child, ChildStderr, Command, ExitStatus};

use rustix::process::{Pid, Signal, kill_process_group};
use tokio::io::AsyncReadExt;
use tokio::runtime::Handle;

/// The longest line of standard error that is kept, in bytes.
const MAX_STDERR_LINE_LEN: usize = 200;

/// A program in its own process group; the group is killed on drop.
///
/// Not tokio's `Child`, which is lost, and runs on, if the runtime shuts down during the start.
#[derive(Debug)]
pub(super) struct ProcessGroup {
    /// The program until it has been waited for: until then no other process has its PID.
    child: Option<Child>,
    leader: Pid,
    stderr: Option<ChildStderr>,
    first_line: FirstStderrLine,
}

impl ProcessGroup {
    /// Starts a program. Blocks until the program's file is read.
    pub(super) fn spawn(command: &mut Command) -> io::Result<Self> {
        let mut child = command.spawn()?;
        let (leader, stderr) = (Pid::from_child(&child), child.stderr.take());
        Ok(Self { child: Some(child), leader, stderr, first_line: FirstStderrLine::default() })
    }

    /// Waits for the program and kills the rest of its group; returns the exit status and the first
    /// line of standard error. Needs a runtime.
    pub(super) async fn wait(mut self) -> io::Result<(ExitStatus, Vec<u8>)> {
        self.read_stderr_until_exit().await?;
        self.kill();
        let status = match &mut self.child {
            // The program has exited, so the wait does not block.
            Some(child) => child.wait()?,
            None => return Err(io::Error::other("the program has already been waited for")),
        };
        self.child = None;
        Ok((status, std::mem::take(&mut self.first_line).into_bytes()))
    }

    /// Reads standard error until the program exits: a program would block at a full pipe.
    async fn read_stderr_until_exit(&mut self) -> io::Result<()> {
        let exit = wait_for_exit(self.leader);
        tokio::pin!(exit);
        let mut buffer = [0; 4096];
        let mut open_stderr =
            self.stderr.take().map(tokio::process::ChildStderr::from_std).transpose()?;
        while let Some(stderr) = &mut open_stderr {
            // In random order, so that a program that writes without end does not hide its exit.
            tokio::select! {
                result = &mut exit => {
                    result?;
                    // The last bytes are in the pipe, perhaps without a readiness event yet. Only
                    // one read, because another process may hold the other end of the pipe.
                    let len = rustix::io::read(stderr.as_fd(), &mut buffer).unwrap_or(0);
                    self.first_line.push(&buffer[..len]);
                    return Ok(());
                }
                read = stderr.read(&mut buffer) => match read {
                    Ok(1..) if self.first_line.is_complete() => {}
                    Ok(len @ 1..) => self.first_line.push(&buffer[..len]),
                    Ok(0) | Err(_) => open_stderr = None,
                },
            }
        }
        exit.await
    }

    fn kill(&self) {
        // An error means that no process is left, or that all have changed their user.
        let _ = kill_process_group(self.leader, Signal::KILL);
    }
}

impl Drop for ProcessGroup {
    fn drop(&mut self) {
        let Some(mut child) = self.child.take() else { return };
        self.kill();
        // The process ends soon, but a wait here might block.
        match Handle::try_current() {
            Ok(runtime) => drop(runtime.spawn_blocking(move || child.wait())),
            Err(_) => drop(child.wait()),
        }
    }
}

/// Waits until a child has exited, without reaping the child: until then no other process has its
/// PID, which is also that of its group.
#[cfg(target_os = "linux")]
async fn wait_for_exit(child: Pid) -> io::Result<()> {
    use rustix::process::{PidfdFlags, pidfd_open};

    use crate::sys::shared_fd::SharedFd;

    let descriptor = SharedFd::from(pidfd_open(child, PidfdFlags::NONBLOCK)?);
    descriptor.register_readable()?.readable().await?.retain_ready();
    Ok(())
}

#[cfg(not(target_os = "linux"))]
async fn wait_for_exit(_: Pid) -> io::Result<()> {
    Err(io::ErrorKind::Unsupported.into())
}

/// The beginning of the first line of standard error that is not blank.
#[derive(Debug, Default)]
pub(super) struct FirstStderrLine {
    bytes: Vec<u8>,
    complete: bool,
}

impl FirstStderrLine {
    pub(super) fn push(&mut self, bytes: &[u8]) {
        for &byte in bytes {
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

    pub(super) fn into_bytes(self) -> Vec<u8> {
        self.bytes.trim_ascii().to_vec()
    }
}
