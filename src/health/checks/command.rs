//! What does a program of the operator's say?

mod process_group;

use std::ffi::{OsStr, OsString};
use std::os::unix::process::{CommandExt, ExitStatusExt};
use std::path::PathBuf;
use std::process::{Command, ExitStatus, Stdio};

use tokio::task::spawn_blocking;

use self::process_group::ProcessGroup;
use crate::backend::{AgentOverride, AgentWeight};
use crate::health::{Check, CheckContext, CheckFailure, CheckFailureKind, CheckReport};

/// Runs a program and reads its exit code as keepalived's `MISC_CHECK` does.
///
/// | it ends with | | [`dynamic`](Self::dynamic) |
/// |---|---|---|
/// | 0 | up | up, with the configured weight |
/// | 1 | down | down |
/// | 2 to 255 | down | up, with a weight of the code less 2: 0 to 253 |
/// | a signal | down | down |
///
/// # How it is run
/// Without a shell, so that nothing is to be quoted; with the user, the folder and the environment
/// of this process. Standard input and output are `/dev/null`. The first line of standard error, up
/// to 200 bytes of it, goes into the failure's reason; the rest is read and forgotten.
///
/// The environment says whom to check, by the names of HAProxy's `external-check`:
///
/// | variable | value |
/// |---|---|
/// | `HAPROXY_SERVER_ADDR` | the IP address, without brackets |
/// | `HAPROXY_SERVER_PORT` | the port |
/// | `HAPROXY_SERVER_NAME` | the backend's name |
///
/// [`env`](Self::env) adds others. A source address of the check is not passed on.
///
/// A program that cannot be started fails as [`Local`](CheckFailureKind::Local) and counts against
/// nobody.
///
/// # How it ends
/// The program leads a process group of its own. When it has ended, or the check's time has (its
/// future is dropped), all that is left of the group is killed by SIGKILL, so that no check leaves
/// a process behind; one that shall stay must leave the group (`setsid`). What this process started
/// itself is also waited for: after a timeout by a thread for blocking work; where the runtime is
/// ending it stays a zombie until this process ends. The program's own children are left to PID 1;
/// who runs this as PID 1 of a container needs one that waits for them (`docker run --init`).
///
/// # Cost
/// A new process for each check: some milliseconds of a processor, started from a thread for
/// blocking work. Needs Linux 5.3 or later.
///
/// # Examples
/// ```
/// use lvs::health::CommandCheck;
///
/// let replica = CommandCheck::new("/usr/local/bin/replica-lag").arg("--below=10s").dynamic();
/// # let _ = replica;
/// ```
#[derive(Clone, Debug)]
#[must_use]
pub struct CommandCheck {
    program: PathBuf,
    arguments: Vec<OsString>,
    environment: Vec<(OsString, OsString)>,
    dynamic: bool,
}

impl CommandCheck {
    /// Runs a program: a path, or a name that is looked for in this process' `PATH`.
    pub fn new(program: impl Into<PathBuf>) -> Self {
        let (arguments, environment) = (Vec::new(), Vec::new());
        Self { program: program.into(), arguments, environment, dynamic: false }
    }

    /// Hands it an argument, behind those before.
    pub fn arg(mut self, argument: impl AsRef<OsStr>) -> Self {
        self.arguments.push(argument.as_ref().to_owned());
        self
    }

    /// Hands it arguments, behind those before.
    pub fn args(mut self, arguments: impl IntoIterator<Item = impl AsRef<OsStr>>) -> Self {
        self.arguments.extend(arguments.into_iter().map(|one| one.as_ref().to_owned()));
        self
    }

    /// Sets a variable of its environment; it also takes the place of one in the table above.
    pub fn env(mut self, name: impl AsRef<OsStr>, value: impl AsRef<OsStr>) -> Self {
        self.environment.push((name.as_ref().to_owned(), value.as_ref().to_owned()));
        self
    }

    /// Lets the exit code set the weight: see the table. Default: not.
    pub fn dynamic(self) -> Self {
        Self { dynamic: true, ..self }
    }

    fn build_command(&self, probe: &CheckContext) -> Command {
        let mut command = Command::new(&self.program);
        command
            .args(&self.arguments)
            .env("HAPROXY_SERVER_ADDR", probe.address().ip().to_string())
            .env("HAPROXY_SERVER_PORT", probe.address().port().to_string())
            .env("HAPROXY_SERVER_NAME", probe.id().as_str())
            .envs(self.environment.iter().map(|(name, value)| (name, value)))
            .stdin(Stdio::null())
            .stdout(Stdio::null())
            .stderr(Stdio::piped())
            .process_group(0);
        command
    }

    fn judge(&self, status: ExitStatus, said: &str) -> Result<CheckReport, CheckFailure> {
        let exactly = |weight| AgentOverride { weight: Some(weight), ..AgentOverride::default() };
        let what = match (status.code(), self.dynamic) {
            (Some(0), false) => return Ok(CheckReport::up()),
            // Said aloud, so that it takes back what a run before has said.
            (Some(0), true) => {
                return Ok(
                    CheckReport::up().with_agent_override(exactly(AgentWeight::Percent(100)))
                );
            }
            (Some(code @ 2..=255), true) => {
                let weight = AgentWeight::Exactly(code.unsigned_abs() - 2);
                return Ok(CheckReport::up().with_agent_override(exactly(weight)));
            }
            (Some(code), _) => format!("exit code {code}"),
            (None, _) => match status.signal() {
                Some(signal) => format!("ended by signal {signal}"),
                None => status.to_string(),
            },
        };
        let reason = if said.is_empty() { what } else { format!("{what}: {said}") };
        Err(CheckFailure::new(CheckFailureKind::Mismatch, reason))
    }
}

impl Check for CommandCheck {
    async fn check(&self, probe: &CheckContext) -> Result<CheckReport, CheckFailure> {
        let local = |doing: &str, error| {
            CheckFailure::local(&format!("{doing} {}", self.program.display()), &error)
        };
        probe.set_stage("starting the program");
        let mut command = self.build_command(probe);
        // A start takes until the program's file is read. Its result has a thing that kills on
        // drop, so a check that is dropped meanwhile leaves nothing behind either.
        let started = spawn_blocking(move || ProcessGroup::spawn(&mut command));
        let started = started.await.map_err(std::io::Error::other).flatten();
        let group = started.map_err(|error| local("starting", error))?;
        probe.set_stage("waiting for the program to end");
        let (status, said) = group.wait().await.map_err(|error| local("waiting for", error))?;
        self.judge(status, &said)
    }

    fn name(&self) -> &str {
        "command"
    }
}

#[cfg(all(test, not(lvs_loom)))]
mod tests;
