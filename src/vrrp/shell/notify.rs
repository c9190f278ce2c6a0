//! Commands that are run when the state changes.

use std::collections::VecDeque;
use std::ffi::OsString;
use std::fmt;
use std::process::{Child, Command, Stdio};
use std::sync::Arc;
use std::time::Duration;

use super::events::{VrrpEvent, VrrpEventKind, VrrpEvents};
use crate::vrrp::VrrpState;

/// How often a command is asked whether it has ended.
const CHILD_POLL_INTERVAL: Duration = Duration::from_millis(10);

/// Commands that are run when a virtual router changes its state: to move what this crate does not
/// know of, or to wake somebody.
///
/// They get what keepalived's get: `INSTANCE`, the name, the state in capitals, the priority; `STOP`
/// is the state of one that has been told to end. They run one after the other, in the order of what
/// happened, and those that take too long are killed. What has gone by until a command's turn comes
/// is still told, up to a thousand changes.
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
        f.debug_struct("Notify")
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
    /// No command.
    pub fn new() -> Self {
        Self {
            commands: Vec::new(),
            timeout: Duration::from_secs(30),
            on_failure: Arc::new(|_| {}),
        }
    }

    /// A program and its first arguments, for when a router has become this.
    pub fn on_state<W: Into<OsString>>(
        mut self,
        state: VrrpState,
        command: impl IntoIterator<Item = W>,
    ) -> Self {
        self.commands.push((Some(state), command.into_iter().map(Into::into).collect()));
        self
    }

    /// The same, for whatever it has become.
    pub fn on_any_state<W: Into<OsString>>(mut self, command: impl IntoIterator<Item = W>) -> Self {
        self.commands.push((None, command.into_iter().map(Into::into).collect()));
        self
    }

    /// How long a command may take before it is killed. Default: 30 s.
    pub fn timeout(self, timeout: Duration) -> Self {
        Self { timeout, ..self }
    }

    /// Is told what went wrong: a command that could not be started, that failed, or was killed.
    pub fn on_failure(self, report: impl Fn(&str) + Send + Sync + 'static) -> Self {
        Self { on_failure: Arc::new(report), ..self }
    }

    /// Runs them in a thread of its own until the events end.
    pub(super) fn spawn(self, events: VrrpEvents) {
        let report = Arc::clone(&self.on_failure);
        let thread = std::thread::Builder::new().name("vrrp-notify".into());
        let started = thread.spawn(move || {
            for event in events {
                for (program, words) in self.commands_for(&event) {
                    if let Err(why) = run_command(&program, &words, self.timeout) {
                        (self.on_failure)(&format!("{}: {why}", program.display()));
                    }
                }
            }
        });
        if let Err(error) = started {
            report(&format!("cannot start a thread for commands: {error}"));
        }
    }

    /// What is to be run for an event.
    fn commands_for(&self, event: &VrrpEvent) -> Vec<(OsString, VecDeque<OsString>)> {
        let VrrpEventKind::StateChanged(transition, priority) = &event.kind else {
            return Vec::new();
        };
        let state = match transition.to {
            VrrpState::Init => "STOP".to_owned(),
            state => state.to_string().to_uppercase(),
        };
        let due = self.commands.iter().filter(|(on, _)| on.is_none_or(|on| on == transition.to));
        due.filter_map(|(_, command)| {
            let mut words: VecDeque<_> = command.iter().cloned().collect();
            let program = words.pop_front()?;
            let told = ["INSTANCE", &event.router_name, &state, &priority.to_string()];
            words.extend(told.map(OsString::from));
            Some((program, words))
        })
        .collect()
    }
}

fn run_command(
    program: &OsString,
    words: &VecDeque<OsString>,
    timeout: Duration,
) -> Result<(), String> {
    let mut command = Command::new(program);
    command.args(words).stdin(Stdio::null());
    let mut child = command.spawn().map_err(|error| format!("cannot be started: {error}"))?;
    let status = wait_or_kill(&mut child, timeout).map_err(|error| error.to_string())?;
    match status {
        Some(status) if status.success() => Ok(()),
        Some(status) => Err(status.to_string()),
        None => Err(format!("killed, as it took longer than {timeout:?}")),
    }
}

/// Waits for a child; kills it when its time is over.
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
        VrrpEvent {
            router_name: "51@eth0".into(),
            kind: VrrpEventKind::StateChanged(transition, 150),
        }
    }

    #[test]
    fn each_state_has_its_commands_and_they_are_told_what_happened() {
        let notify =
            NotifyCommands::new().on_state(VrrpState::Master, ["a", "-x"]).on_any_state(["b"]);
        let due = |state| {
            let due = notify.commands_for(&event(state)).into_iter();
            let line = |(program, mut words): (OsString, VecDeque<OsString>)| {
                words.push_front(program);
                let words: Vec<_> =
                    words.into_iter().map(|it| it.into_string().expect("text")).collect();
                words.join(" ")
            };
            due.map(line).collect::<Vec<_>>()
        };
        let told = "INSTANCE 51@eth0";
        assert_eq!(
            due(VrrpState::Master),
            [format!("a -x {told} MASTER 150"), format!("b {told} MASTER 150")]
        );
        assert_eq!(due(VrrpState::Init), [format!("b {told} STOP 150")]);
    }

    #[test]
    fn a_command_that_fails_or_hangs_is_reported() {
        let run = |words: &[&str], timeout| {
            run_command(&words[0].into(), &words[1..].iter().map(OsString::from).collect(), timeout)
        };
        let long = Duration::from_secs(20);
        assert_eq!(run(&["true"], long), Ok(()));
        assert!(run(&["false"], long).expect_err("it fails").contains("exit status: 1"));
        assert!(run(&["/no/such"], long).expect_err("it is not there").contains("started"));
        let hangs = run(&["sleep", "60"], Duration::from_millis(20)).expect_err("it hangs");
        assert!(hangs.contains("killed"), "{hangs}");
    }
}
