//! The command check.

mod process_group;
mod program;

use std::ffi::{OsStr, OsString};
use std::os::unix::process::{CommandExt, ExitStatusExt};
use std::path::{Path, PathBuf};
use std::process::{Command, ExitStatus, Stdio};

use tokio::task::spawn_blocking;

use self::process_group::ProcessGroup;
pub use self::program::CommandCheckError;
use self::program::validate_program;
use super::quote::quoted_message;
use crate::backend::{AgentOverride, AgentWeight};
use crate::health::{Check, CheckContext, CheckFailure, CheckFailureKind, CheckReport};
use crate::program_user::ProgramUser;

/// Runs a program and evaluates its exit code as keepalived's `MISC_CHECK` does.
///
/// | exit code | result | result with [`dynamic`](Self::dynamic) |
/// |---|---|---|
/// | 0 | up | up, with the configured weight |
/// | 1 | down | down |
/// | 2 to 255 | down | up, with a weight of the code minus 2: 0 to 253 |
/// | a signal | down | down |
///
/// # How the program runs
/// Without a shell, so that nothing needs quoting; with the working directory and the environment of
/// this process, and as its user or as that of [`run_as`](Self::run_as). Standard input and output are `/dev/null`. The first line of
/// standard error, cut at 160 bytes, is quoted in the reason of a failure; the rest is read and
/// discarded.
///
/// The environment names the backend, with the variables of HAProxy's `external-check`:
///
/// | variable | value |
/// |---|---|
/// | `HAPROXY_SERVER_ADDR` | the IP address, without brackets |
/// | `HAPROXY_SERVER_PORT` | the port |
/// | `HAPROXY_SERVER_NAME` | the backend's name |
///
/// [`env`](Self::env) adds variables. The source address of the check is not passed to the program.
///
/// A program that cannot be started fails as [`Local`](CheckFailureKind::Local), which does not
/// count against a backend that was checked before; [`validated`](Self::validated) finds most of them
/// before.
///
/// # How the program ends
/// The program leads its own process group. When the program has ended, or the check's timeout has
/// passed (its future is dropped), SIGKILL ends the rest of the group, so that no check leaves a
/// process behind; a process that must stay has to leave the group (`setsid`). This process also
/// waits for the program: after a timeout on a thread for blocking work; if the runtime shuts down,
/// the program stays a zombie until this process ends. PID 1 must wait for the program's children:
/// a container in which this process is PID 1 needs an init process (`docker run --init`).
///
/// # Cost
/// A new process for each check: some milliseconds of processor time, started on a thread for
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
    user: Option<ProgramUser>,
    dynamic: bool,
}

impl CommandCheck {
    /// Makes a check that runs a program: a path, or a name that is searched in the `PATH` of this
    /// process.
    pub fn new(program: impl Into<PathBuf>) -> Self {
        let (arguments, environment) = (Vec::new(), Vec::new());
        Self { program: program.into(), arguments, environment, user: None, dynamic: false }
    }

    /// Makes the program run as this user. Default: the user of this process.
    pub fn run_as(self, user: ProgramUser) -> Self {
        Self { user: Some(user), ..self }
    }

    /// Adds an argument of the program.
    pub fn arg(mut self, argument: impl AsRef<OsStr>) -> Self {
        self.arguments.push(argument.as_ref().to_owned());
        self
    }

    /// Adds arguments of the program.
    pub fn args(mut self, arguments: impl IntoIterator<Item = impl AsRef<OsStr>>) -> Self {
        self.arguments.extend(arguments.into_iter().map(|argument| argument.as_ref().to_owned()));
        self
    }

    /// Sets an environment variable of the program; also replaces a variable of the table above.
    pub fn env(mut self, name: impl AsRef<OsStr>, value: impl AsRef<OsStr>) -> Self {
        self.environment.push((name.as_ref().to_owned(), value.as_ref().to_owned()));
        self
    }

    /// Makes the exit code set the weight: see the table. Default: the exit code only means up or
    /// down.
    pub fn dynamic(self) -> Self {
        Self { dynamic: true, ..self }
    }

    /// Returns the check if the program exists and this process may execute it, and the interpreter of a
    /// script. Reads the beginning of the program's file, which blocks.
    ///
    /// # Errors
    /// [`CommandCheckError`] names the program, and what is missing.
    pub fn validated(self) -> Result<Self, CommandCheckError> {
        validate_program(&self.program).map(|()| self)
    }

    fn build_command(&self, context: &CheckContext) -> Command {
        let mut command = Command::new(&self.program);
        command
            .args(&self.arguments)
            .env("HAPROXY_SERVER_ADDR", context.address().ip().to_string())
            .env("HAPROXY_SERVER_PORT", context.address().port().to_string())
            .env("HAPROXY_SERVER_NAME", context.id().as_str())
            .envs(self.environment.iter().map(|(name, value)| (name, value)))
            .stdin(Stdio::null())
            .stdout(Stdio::null())
            .stderr(Stdio::piped())
            .process_group(0);
        command
    }

    fn judge(&self, status: ExitStatus, stderr_line: &[u8]) -> Result<CheckReport, CheckFailure> {
        let with_weight =
            |weight| AgentOverride { weight: Some(weight), ..AgentOverride::default() };
        let result = match (status.code(), self.dynamic) {
            (Some(0), false) => return Ok(CheckReport::up()),
            // Explicitly 100 %, to replace the weight of an earlier run.
            (Some(0), true) => {
                return Ok(
                    CheckReport::up().with_agent_override(with_weight(AgentWeight::Percent(100)))
                );
            }
            (Some(code @ 2..=255), true) => {
                let weight = AgentWeight::Exactly(code.unsigned_abs() - 2);
                return Ok(CheckReport::up().with_agent_override(with_weight(weight)));
            }
            (Some(code), _) => format!("the program exited with code {code}"),
            (None, _) => match status.signal() {
                Some(signal) => format!("the program was ended by signal {signal}"),
                None => status.to_string(),
            },
        };
        let reason = match stderr_line {
            [] => result,
            line => format!("{result}: {}", quoted_message(line)),
        };
        Err(CheckFailure::new(CheckFailureKind::Mismatch, reason))
    }
}

impl Check for CommandCheck {
    async fn check(&self, context: &CheckContext) -> Result<CheckReport, CheckFailure> {
        let local = |program: &Path, stage: &str, error| {
            CheckFailure::local(&format!("{stage} {}", program.display()), &error)
        };
        context.set_stage("starting the program");
        let mut command = self.build_command(context);
        // The start blocks until the program's file is read. The group kills its processes when it
        // is dropped, so a check that is dropped during the start leaves no process behind either.
        let (program, user) = (self.program.clone(), self.user.clone());
        let start = spawn_blocking(move || {
            let applied = user.map_or(Ok(()), |user| user.apply(&mut command));
            // The system's error does not say whether the program or its interpreter is missing.
            applied.and_then(|()| ProcessGroup::spawn(&mut command)).map_err(|error| {
                match validate_program(&program) {
                    Err(problem) => CheckFailure::new(CheckFailureKind::Local, problem.to_string()),
                    Ok(()) => local(&program, "starting", error),
                }
            })
        });
        let group = start
            .await
            .map_err(|error| local(&self.program, "starting", std::io::Error::other(error)))
            .flatten()?;
        context.set_stage("waiting for the program to end");
        let (status, stderr_line) =
            group.wait().await.map_err(|error| local(&self.program, "waiting for", error))?;
        self.judge(status, &stderr_line)
    }

    fn name(&self) -> &str {
        "command"
    }
}

#[cfg(all(test, not(lvs_loom)))]
mod tests;
