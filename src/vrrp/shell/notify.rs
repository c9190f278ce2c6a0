//! Commands that run when a virtual router changes its state.

use std::ffi::OsString;
use std::os::unix::process::CommandExt;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::process::{Child, Command, ExitStatus, Stdio};
use std::sync::Arc;
use std::thread::JoinHandle;
use std::time::Duration;
use std::{fmt, io};

use rustix::process::{Pid, Signal, kill_process_group};

use super::events::{VrrpEvent, VrrpEventKind, VrrpEvents};
use crate::events::MissedEvents;
use crate::panics::panic_message;
use crate::program_user::ProgramUser;
use crate::vrrp::VrrpState;

/// How often a command is polled for its end.
const CHILD_POLL_INTERVAL: Duration = Duration::from_millis(10);

/// A program with its arguments, and the user that it runs as.
///
/// # Examples
/// ```
/// use lvs::ProgramUser;
/// use lvs::vrrp::NotifyCommand;
///
/// let command = NotifyCommand::new(["logger", "-t", "lvs"]).run_as(ProgramUser::new("nobody"));
/// # drop(command);
/// ```
#[derive(Clone, Debug, Eq, PartialEq)]
#[must_use]
pub struct NotifyCommand {
    words: Vec<OsString>,
    user: Option<ProgramUser>,
}

impl NotifyCommand {
    /// Names the program, a path or a name in `PATH`, and its arguments. Without any word the command
    /// does nothing.
    pub fn new<W: Into<OsString>>(words: impl IntoIterator<Item = W>) -> Self {
        Self { words: words.into_iter().map(Into::into).collect(), user: None }
    }

    /// Makes the program run as this user. Default: the user of this process.
    pub fn run_as(self, user: ProgramUser) -> Self {
        Self { user: Some(user), ..self }
    }

    /// Runs the program with further arguments, and waits for its end.
    ///
    /// # Errors
    /// The reason why the program did not start, failed, or was killed after the timeout.
    pub(crate) fn run(&self, arguments: &[String], timeout: Duration) -> Result<(), String> {
        let Some((program, words)) = self.words.split_first() else { return Ok(()) };
        let cannot_start = |error: io::Error| format!("cannot start: {error}");
        let mut command = Command::new(program);
        command.args(words).args(arguments).stdin(Stdio::null()).process_group(0);
        if let Some(user) = &self.user {
            user.apply(&mut command).map_err(cannot_start)?;
        }
        let mut child = command.spawn().map_err(cannot_start)?;
        let status = wait_or_kill(&mut child, timeout)
            .map_err(|error| format!("cannot wait for its end: {error}"))?;
        match status {
            Some(status) if status.success() => Ok(()),
            Some(status) => Err(status.to_string()),
            None => Err(format!("killed after the timeout of {timeout:?}")),
        }
    }

    /// Returns the program, for messages.
    pub(crate) fn program(&self) -> String {
        self.words.first().map_or_else(String::new, |program| program.display().to_string())
    }
}

impl<W: Into<OsString>, const N: usize> From<[W; N]> for NotifyCommand {
    fn from(words: [W; N]) -> Self {
        Self::new(words)
    }
}

impl<W: Into<OsString>> From<Vec<W>> for NotifyCommand {
    fn from(words: Vec<W>) -> Self {
        Self::new(words)
    }
}

/// Commands that run when a virtual router changes its state, to move other resources with the
/// addresses or to send a notification.
///
/// The commands of [`on_state`](Self::on_state) get the arguments that they have. Those of
/// [`on_any_state`](Self::on_any_state) follow them, with the arguments of keepalived's `notify`
/// script: `INSTANCE`, the name of the virtual router, the state in capitals, the priority; the state
/// of a stopped virtual router is `STOP`. Commands run one after the other, in the order of the
/// events; a command that exceeds the timeout is killed with its child processes. While a command runs,
/// events wait; if more than 4096 do, the oldest are missed, which [`on_failure`](Self::on_failure)
/// reports.
///
/// # Examples
/// ```
/// use lvs::vrrp::{NotifyCommands, VrrpState};
///
/// let notify = NotifyCommands::new()
///     .on_state(VrrpState::Master, ["/etc/lvs/master.sh"])
///     .on_any_state(["logger", "-t", "lvs"]);
/// # drop(notify);
/// ```
#[derive(Clone)]
#[must_use]
pub struct NotifyCommands {
    router_name: Option<String>,
    commands: Vec<(Option<VrrpState>, NotifyCommand)>,
    timeout: Duration,
    on_failure: FailureReport,
    on_panic: Option<FailureReport>,
}

/// A function that is called with the message of a failure.
type FailureReport = Arc<dyn Fn(&str) + Send + Sync>;

impl fmt::Debug for NotifyCommands {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("NotifyCommands")
            .field("router_name", &self.router_name)
            .field("commands", &self.commands)
            .field("timeout", &self.timeout)
            .finish_non_exhaustive()
    }
}

impl Default for NotifyCommands {
    fn default() -> Self {
        Self::new()
    }
}

impl NotifyCommands {
    /// Creates an empty list of commands.
    pub fn new() -> Self {
        Self {
            router_name: None,
            commands: Vec::new(),
            timeout: Duration::from_secs(30),
            on_failure: Arc::new(|_| {}),
            on_panic: None,
        }
    }

    /// Runs the commands for the virtual router of this name only. Default: for all.
    pub fn router(self, name: impl Into<String>) -> Self {
        Self { router_name: Some(name.into()), ..self }
    }

    /// Adds a command for transitions to this state.
    pub fn on_state(mut self, state: VrrpState, command: impl Into<NotifyCommand>) -> Self {
        self.commands.push((Some(state), command.into()));
        self
    }

    /// Adds a command for all transitions.
    pub fn on_any_state(mut self, command: impl Into<NotifyCommand>) -> Self {
        self.commands.push((None, command.into()));
        self
    }

    /// Sets how long a command may run before it is killed. Default: 30 s.
    pub fn timeout(self, timeout: Duration) -> Self {
        Self { timeout, ..self }
    }

    /// Sets a function that is called with a message when a command cannot be started, fails, or is
    /// killed, and when events were missed. Default: failures are ignored.
    pub fn on_failure(self, report: impl Fn(&str) + Send + Sync + 'static) -> Self {
        Self { on_failure: Arc::new(report), ..self }
    }

    /// Sets a function that is called with the message of a panic, after which the thread goes on with
    /// the next event. Default: that of [`on_failure`](Self::on_failure).
    #[cfg(any(test, feature = "director"))]
    pub(crate) fn on_panic(self, report: impl Fn(&str) + Send + Sync + 'static) -> Self {
        Self { on_panic: Some(Arc::new(report)), ..self }
    }

    /// Runs the commands in a new thread until the events end.
    pub(super) fn spawn(self, mut events: VrrpEvents) -> Option<JoinHandle<()>> {
        let report = Arc::clone(&self.on_failure);
        let thread = std::thread::Builder::new().name("vrrp-notify".into());
        let started = thread.spawn(move || {
            while let Some(event) = events.blocking_next() {
                // `on_failure` is the caller's code: a panic of it must not end the notifications.
                let handled = catch_unwind(AssertUnwindSafe(|| self.handle_event(event)));
                let Err(payload) = handled else { continue };
                let message = panic_message(&*payload);
                let _ = catch_unwind(AssertUnwindSafe(|| self.report_panic(&message)));
            }
        });
        let failed = |error| {
            report(&format!("cannot start a thread for the notify commands of VRRP: {error}"));
        };
        started.map_err(failed).ok()
    }

    fn handle_event(&self, event: Result<VrrpEvent, MissedEvents>) {
        let event = match event {
            Ok(event) => event,
            Err(missed) => return (self.on_failure)(&format!("notify commands of VRRP: {missed}")),
        };
        for (command, arguments) in self.commands_for(&event) {
            if let Err(reason) = command.run(&arguments, self.timeout) {
                let (router, program) = (&event.router, command.program());
                let state = event.new_state().map(state_argument).unwrap_or_default();
                (self.on_failure)(&format!(
                    "virtual router {router}: notify command {program} for state {state} failed: \
                     {reason}"
                ));
            }
        }
    }

    fn report_panic(&self, message: &str) {
        match &self.on_panic {
            Some(report) => report(message),
            None => (self.on_failure)(&format!("notify commands of VRRP panicked: {message}")),
        }
    }

    /// Returns the commands to run for an event, with their further arguments: those of the state
    /// first, as keepalived does.
    fn commands_for(&self, event: &VrrpEvent) -> Vec<(&NotifyCommand, Vec<String>)> {
        let VrrpEventKind::StateChanged { transition, priority } = &event.kind else {
            return Vec::new();
        };
        if self.router_name.as_ref().is_some_and(|name| **name != *event.router) {
            return Vec::new();
        }
        let (state, priority) = (state_argument(transition.to), priority.to_string());
        let arguments = ["INSTANCE", &event.router, &state, &priority].map(str::to_owned);
        let of_state = self.commands.iter().filter(|(state, _)| *state == Some(transition.to));
        let of_any_state = self.commands.iter().filter(|(state, _)| state.is_none());
        of_state
            .map(|(_, command)| (command, Vec::new()))
            .chain(of_any_state.map(|(_, command)| (command, arguments.to_vec())))
            .collect()
    }
}

/// Returns the name of a state in the arguments of a command.
fn state_argument(state: VrrpState) -> String {
    match state {
        VrrpState::Init => "STOP".to_owned(),
        state => state.to_string().to_uppercase(),
    }
}

/// Waits for a child, the leader of its process group; kills the group after the timeout and returns
/// `None`.
fn wait_or_kill(child: &mut Child, timeout: Duration) -> io::Result<Option<ExitStatus>> {
    let steps = timeout.as_millis().div_ceil(CHILD_POLL_INTERVAL.as_millis());
    for _ in 0..steps {
        if let Some(status) = child.try_wait()? {
            return Ok(Some(status));
        }
        std::thread::sleep(CHILD_POLL_INTERVAL);
    }
    // An error means that no process is left, or that all have changed their user.
    let _ = kill_process_group(Pid::from_child(child), Signal::KILL);
    child.kill()?;
    child.wait()?;
    Ok(None)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::vrrp::{TransitionReason, VrrpTransition};

    fn event(to: VrrpState) -> VrrpEvent {
        let transition =
            VrrpTransition { from: VrrpState::Backup, to, reason: TransitionReason::MasterTimeout };
        VrrpEvent::new("51@eth0", VrrpEventKind::StateChanged { transition, priority: 150 })
    }

    #[test]
    fn a_transition_runs_its_own_commands_first_and_the_general_ones_with_keepalived_arguments() {
        let notify = NotifyCommands::new()
            .on_any_state(["b"])
            .on_state(VrrpState::Master, ["a", "-x"])
            .on_state(VrrpState::Init, ["s"]);
        let command_lines = |notify: &NotifyCommands, state| {
            let event = event(state);
            let line = |(command, arguments): (&NotifyCommand, Vec<String>)| {
                let words = command.words.iter().map(|word| word.display().to_string());
                words.chain(arguments).collect::<Vec<_>>().join(" ")
            };
            notify.commands_for(&event).into_iter().map(line).collect::<Vec<_>>()
        };
        let instance = "INSTANCE 51@eth0";
        assert_eq!(
            command_lines(&notify, VrrpState::Master),
            ["a -x".to_owned(), format!("b {instance} MASTER 150")]
        );
        assert_eq!(
            command_lines(&notify, VrrpState::Init),
            ["s".to_owned(), format!("b {instance} STOP 150")]
        );
        let own = notify.clone().router("51@eth0");
        assert_eq!(command_lines(&own, VrrpState::Master).len(), 2);
        let of_another = notify.router("52@eth0");
        assert_eq!(command_lines(&of_another, VrrpState::Master), [""; 0]);
    }

    #[test]
    fn a_command_that_fails_or_exceeds_the_timeout_is_reported() {
        let run =
            |words: &[&str], timeout| NotifyCommand::new(words.iter().copied()).run(&[], timeout);
        let long = Duration::from_secs(20);
        assert_eq!(run(&["true"], long), Ok(()));
        assert!(run(&["false"], long).expect_err("`false` fails").contains("exit status: 1"));
        assert!(
            run(&["/no/such"], long)
                .expect_err("there is no such program")
                .contains("cannot start")
        );
        let error = run(&["sleep", "60"], Duration::from_millis(20)).expect_err("the timeout ends");
        assert!(error.contains("killed"), "{error}");
        let unknown = NotifyCommand::new(["true"]).run_as(ProgramUser::new("no-such-user"));
        let error = unknown.run(&[], long).expect_err("there is no such user");
        assert_eq!(error, "cannot start: there is no user \"no-such-user\"");
    }

    #[test]
    fn a_panic_does_not_end_the_notifications() {
        let (sender, panics) = std::sync::mpsc::channel();
        let events = crate::events::EventSender::new();
        let report = |failure: &str| panic!("{}", failure.len());
        let notify = NotifyCommands::new().on_any_state(["/no/such"]).on_failure(report);
        let notify = notify.on_panic(move |message| {
            sender.send(message.to_owned()).expect("the test waits");
            panic!("again");
        });
        let thread = notify.spawn(events.subscribe()).expect("a thread");
        for _ in 0..2 {
            events.send(event(VrrpState::Backup));
            panics.recv().expect("the thread runs");
        }
        drop(events);
        thread.join().expect("no panic leaves the thread");
    }
}
