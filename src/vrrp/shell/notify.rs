//! Commands that run when a virtual router changes its state.

use std::collections::VecDeque;
use std::ffi::OsString;
use std::fmt;
use std::process::{Child, Command, Stdio};
use std::sync::Arc;
use std::time::Duration;

use super::events::{VrrpEvent, VrrpEventKind, VrrpEvents};
use crate::vrrp::VrrpState;

/// How often a command is polled for its end.
const CHILD_POLL_INTERVAL: Duration = Duration::from_millis(10);

/// Commands that run when a virtual router changes its state, to move other resources with the
/// addresses or to send a notification.
///
/// A command gets the same arguments as keepalived's notify scripts: `INSTANCE`, the name of the
/// virtual router, the state in capitals, the priority; the state of a stopped virtual router is
/// `STOP`. Commands run one after the other, in the order of the events; a command that exceeds the
/// timeout is killed. While a command runs, events wait; if
/// more than 4096 do, the oldest are missed, which [`on_failure`](Self::on_failure) reports.
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
    commands: Vec<(Option<VrrpState>, Vec<OsString>)>,
    timeout: Duration,
    on_failure: Arc<dyn Fn(&str) + Send + Sync>,
}

impl fmt::Debug for NotifyCommands {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("NotifyCommands")
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
            commands: Vec::new(),
            timeout: Duration::from_secs(30),
            on_failure: Arc::new(|_| {}),
        }
    }

    /// Adds a command, a program and its first arguments, for transitions to this state.
    pub fn on_state<W: Into<OsString>>(
        mut self,
        state: VrrpState,
        command: impl IntoIterator<Item = W>,
    ) -> Self {
        self.commands.push((Some(state), command.into_iter().map(Into::into).collect()));
        self
    }

    /// Adds a command, a program and its first arguments, for all transitions.
    pub fn on_any_state<W: Into<OsString>>(mut self, command: impl IntoIterator<Item = W>) -> Self {
        self.commands.push((None, command.into_iter().map(Into::into).collect()));
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

    /// Runs the commands in a new thread until the events end.
    pub(super) fn spawn(self, mut events: VrrpEvents) {
        let report = Arc::clone(&self.on_failure);
        let thread = std::thread::Builder::new().name("vrrp-notify".into());
        let started = thread.spawn(move || {
            while let Some(event) = events.blocking_next() {
                let event = match event {
                    Ok(event) => event,
                    Err(missed) => {
                        (self.on_failure)(&format!("notify commands of VRRP: {missed}"));
                        continue;
                    }
                };
                for (program, arguments) in self.commands_for(&event) {
                    if let Err(reason) = run_command(&program, &arguments, self.timeout) {
                        let (router, program) = (&event.router, program.display());
                        let state = event.new_state().map(state_argument).unwrap_or_default();
                        (self.on_failure)(&format!(
                            "virtual router {router}: notify command {program} for state {state} \
                             failed: {reason}"
                        ));
                    }
                }
            }
        });
        if let Err(error) = started {
            report(&format!("cannot start a thread for the notify commands of VRRP: {error}"));
        }
    }

    /// Returns the programs to run for an event, with their arguments.
    fn commands_for(&self, event: &VrrpEvent) -> Vec<(OsString, VecDeque<OsString>)> {
        let VrrpEventKind::StateChanged { transition, priority } = &event.kind else {
            return Vec::new();
        };
        let state = state_argument(transition.to);
        let matching = self
            .commands
            .iter()
            .filter(|(state, _)| state.is_none_or(|state| state == transition.to));
        matching
            .filter_map(|(_, command)| {
                let mut arguments: VecDeque<_> = command.iter().cloned().collect();
                let program = arguments.pop_front()?;
                let appended = ["INSTANCE", &event.router, &state, &priority.to_string()];
                arguments.extend(appended.map(OsString::from));
                Some((program, arguments))
            })
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

fn run_command(
    program: &OsString,
    arguments: &VecDeque<OsString>,
    timeout: Duration,
) -> Result<(), String> {
    let mut command = Command::new(program);
    command.args(arguments).stdin(Stdio::null());
    let mut child = command.spawn().map_err(|error| format!("cannot start: {error}"))?;
    let status = wait_or_kill(&mut child, timeout)
        .map_err(|error| format!("cannot wait for its end: {error}"))?;
    match status {
        Some(status) if status.success() => Ok(()),
        Some(status) => Err(status.to_string()),
        None => Err(format!("killed after the timeout of {timeout:?}")),
    }
}

/// Waits for a child; kills it after the timeout and returns `None`.
fn wait_or_kill(
    child: &mut Child,
    timeout: Duration,
) -> std::io::Result<Option<std::process::ExitStatus>> {
    let steps = timeout.as_millis().div_ceil(CHILD_POLL_INTERVAL.as_millis());
    for _ in 0..steps {
        if let Some(status) = child.try_wait()? {
            return Ok(Some(status));
        }
        std::thread::sleep(CHILD_POLL_INTERVAL);
    }
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
    fn a_transition_runs_the_commands_of_its_state_with_keepalived_arguments() {
        let notify =
            NotifyCommands::new().on_state(VrrpState::Master, ["a", "-x"]).on_any_state(["b"]);
        let command_lines = |state| {
            let commands = notify.commands_for(&event(state)).into_iter();
            let line = |(program, mut words): (OsString, VecDeque<OsString>)| {
                words.push_front(program);
                let words: Vec<_> =
                    words.into_iter().map(|word| word.into_string().expect("UTF-8")).collect();
                words.join(" ")
            };
            commands.map(line).collect::<Vec<_>>()
        };
        let instance = "INSTANCE 51@eth0";
        assert_eq!(
            command_lines(VrrpState::Master),
            [format!("a -x {instance} MASTER 150"), format!("b {instance} MASTER 150")]
        );
        assert_eq!(command_lines(VrrpState::Init), [format!("b {instance} STOP 150")]);
    }

    #[test]
    fn a_command_that_fails_or_exceeds_the_timeout_is_reported() {
        let run = |words: &[&str], timeout| {
            run_command(&words[0].into(), &words[1..].iter().map(OsString::from).collect(), timeout)
        };
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
    }
}
