//! Commands that are run when the state changes.

use std::collections::VecDeque;
use std::ffi::OsString;
use std::fmt;
use std::process::{Child, Command, Stdio};
use std::sync::Arc;
use std::time::Duration;

use super::events::{Event, Events, What};
use crate::vrrp::State;

/// How often a command is asked whether it has ended.
const STEP: Duration = Duration::from_millis(10);

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
/// use lvs::vrrp::{Notify, State};
///
/// let notify = Notify::new()
///     .on(State::Master, ["/etc/lvs/master.sh"])
///     .always(["logger", "-t", "lvs"]);
/// # drop(notify);
/// ```
#[derive(Clone)]
#[must_use]
pub struct Notify {
    commands: Vec<(Option<State>, Vec<OsString>)>,
    timeout: Duration,
    report: Arc<dyn Fn(&str) + Send + Sync>,
}

impl fmt::Debug for Notify {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Notify")
            .field("commands", &self.commands)
            .field("timeout", &self.timeout)
            .finish_non_exhaustive()
    }
}

impl Default for Notify {
    fn default() -> Self {
        Self::new()
    }
}

impl Notify {
    /// No command.
    pub fn new() -> Self {
        Self { commands: Vec::new(), timeout: Duration::from_secs(30), report: Arc::new(|_| {}) }
    }

    /// A program and its first arguments, for when a router has become this.
    pub fn on<W: Into<OsString>>(
        mut self,
        state: State,
        command: impl IntoIterator<Item = W>,
    ) -> Self {
        self.commands.push((Some(state), command.into_iter().map(Into::into).collect()));
        self
    }

    /// The same, for whatever it has become.
    pub fn always<W: Into<OsString>>(mut self, command: impl IntoIterator<Item = W>) -> Self {
        self.commands.push((None, command.into_iter().map(Into::into).collect()));
        self
    }

    /// How long a command may take before it is killed. Default: 30 s.
    pub fn timeout(self, timeout: Duration) -> Self {
        Self { timeout, ..self }
    }

    /// Is told what went wrong: a command that could not be started, that failed, or was killed.
    pub fn report(self, report: impl Fn(&str) + Send + Sync + 'static) -> Self {
        Self { report: Arc::new(report), ..self }
    }

    /// Runs them in a thread of its own until the events end.
    pub(super) fn follow(self, events: Events) {
        let report = Arc::clone(&self.report);
        let thread = std::thread::Builder::new().name("vrrp-notify".into());
        let started = thread.spawn(move || {
            for event in events {
                for (program, words) in self.due(&event) {
                    if let Err(why) = run(&program, &words, self.timeout) {
                        (self.report)(&format!("{}: {why}", program.display()));
                    }
                }
            }
        });
        if let Err(error) = started {
            report(&format!("cannot start a thread for commands: {error}"));
        }
    }

    /// What is to be run for an event.
    fn due(&self, event: &Event) -> Vec<(OsString, VecDeque<OsString>)> {
        let What::Changed(transition, priority) = &event.what else { return Vec::new() };
        let state = match transition.to {
            State::Init => "STOP".to_owned(),
            state => state.to_string().to_uppercase(),
        };
        let due = self.commands.iter().filter(|(on, _)| on.is_none_or(|on| on == transition.to));
        due.filter_map(|(_, command)| {
            let mut words: VecDeque<_> = command.iter().cloned().collect();
            let program = words.pop_front()?;
            let told = ["INSTANCE", &event.router, &state, &priority.to_string()];
            words.extend(told.map(OsString::from));
            Some((program, words))
        })
        .collect()
    }
}

fn run(program: &OsString, words: &VecDeque<OsString>, timeout: Duration) -> Result<(), String> {
    let mut command = Command::new(program);
    command.args(words).stdin(Stdio::null());
    let mut child = command.spawn().map_err(|error| format!("cannot be started: {error}"))?;
    let status = wait(&mut child, timeout).map_err(|error| error.to_string())?;
    match status {
        Some(status) if status.success() => Ok(()),
        Some(status) => Err(status.to_string()),
        None => Err(format!("killed, as it took longer than {timeout:?}")),
    }
}

/// Waits for a child; kills it when its time is over.
fn wait(child: &mut Child, timeout: Duration) -> std::io::Result<Option<std::process::ExitStatus>> {
    let steps = timeout.as_millis().div_ceil(STEP.as_millis());
    for _ in 0..steps {
        if let Some(status) = child.try_wait()? {
            return Ok(Some(status));
        }
        std::thread::sleep(STEP);
    }
    child.kill()?;
    child.wait()?;
    Ok(None)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::vrrp::{Transition, Why};

    fn event(to: State) -> Event {
        let transition = Transition { from: State::Backup, to, why: Why::Silence };
        Event { router: "51@eth0".into(), what: What::Changed(transition, 150) }
    }

    #[test]
    fn each_state_has_its_commands_and_they_are_told_what_happened() {
        let notify = Notify::new().on(State::Master, ["a", "-x"]).always(["b"]);
        let due = |state| {
            let due = notify.due(&event(state)).into_iter();
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
            due(State::Master),
            [format!("a -x {told} MASTER 150"), format!("b {told} MASTER 150")]
        );
        assert_eq!(due(State::Init), [format!("b {told} STOP 150")]);
    }

    #[test]
    fn a_command_that_fails_or_hangs_is_reported() {
        let run = |words: &[&str], timeout| {
            run(&words[0].into(), &words[1..].iter().map(OsString::from).collect(), timeout)
        };
        let long = Duration::from_secs(20);
        assert_eq!(run(&["true"], long), Ok(()));
        assert!(run(&["false"], long).expect_err("it fails").contains("exit status: 1"));
        assert!(run(&["/no/such"], long).expect_err("it is not there").contains("started"));
        let hangs = run(&["sleep", "60"], Duration::from_millis(20)).expect_err("it hangs");
        assert!(hangs.contains("killed"), "{hangs}");
    }
}
