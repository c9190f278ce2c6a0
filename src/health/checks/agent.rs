//! The agent check: an agent reports weight, state and health of its server.

use super::quote::quoted_message;
use super::stream::{CheckStream, protocol_failure};
use crate::backend::{AgentOverride, AgentWeight, BackendAdminState, Health};
use crate::health::{Check, CheckContext, CheckFailure, CheckFailureKind, CheckReport};

/// Asks an agent that answers in HAProxy's agent protocol, and applies the answer to the backend.
///
/// The answer is one line, which ends with CR, LF or the connection. Its words are separated by
/// spaces, tabs or commas:
///
/// | word | meaning |
/// |---|---|
/// | `up` | the server is up |
/// | `down`, `fail`, `failed`, `stopped` | the server is down; text behind `#` is the reason |
/// | `75%` | percent of the configured weight (0% to 25600%; more counts as 25600%) |
/// | `maxconn:30` | the connection limit; 0 is no limit |
/// | `drain` | no new connections; existing connections go on |
/// | `maint` | out of service |
/// | `ready` | the end of `drain` and `maint` |
///
/// Words may be in upper or lower case, and other words are ignored. Weight, limit and state hold until
/// the agent reports another value; values that an operator sets take precedence.
///
/// # What an agent decides
/// As in HAProxy, the agent decides by what it says, and by nothing else: only `down` (and the words of
/// its line) takes the server down, and only `up` ends that. An agent that does not answer, or whose
/// line has no word of the table, leaves the health as it is, and is a
/// [warning](crate::health::HealthEventKind::Warning); so does a line with neither `up` nor `down`.
/// Two words of HAProxy's manuals, which HAProxy 2.6 itself ignores, mean what the manuals say: `failed`,
/// and `down#reason` without a space. And a line may end with the connection in place of LF.
/// [`required`](Self::required) makes the agent itself a condition: then an agent that is gone is a
/// failure, and every line without `down` counts as up.
///
/// Give the agent a [port of its own](crate::health::TimedCheck::port), beside a check of the
/// service: the backend is up while neither check has it down. HAProxy's agents act at once:
/// [`rise`](crate::health::TimedCheck::rise) and [`fall`](crate::health::TimedCheck::fall) of 1.
///
/// # Examples
/// ```
/// use lvs::health::{AgentCheck, TimedCheck};
///
/// let agent = TimedCheck::new(AgentCheck::new().send("web\n")).port(9707).rise(1).fall(1);
/// # let _ = agent;
/// ```
#[derive(Clone, Debug, Default)]
pub struct AgentCheck {
    send: Vec<u8>,
    required: bool,
}

impl AgentCheck {
    /// Makes a check that connects and reads the line.
    #[must_use]
    pub fn new() -> Self {
        Self::default()
    }

    /// Sends bytes before reading: an agent of several services may need the name of the service.
    /// Default: nothing.
    #[must_use]
    pub fn send(self, bytes: impl AsRef<[u8]>) -> Self {
        Self { send: bytes.as_ref().to_vec(), ..self }
    }

    /// Makes an agent that does not answer, or whose line has no known word, a failure. Default: it
    /// leaves the health as it is, as in HAProxy.
    #[must_use]
    pub fn required(self) -> Self {
        Self { required: true, ..self }
    }

    async fn ask(&self, context: &CheckContext) -> Result<CheckReport, CheckFailure> {
        let mut stream = CheckStream::connect(context).await?;
        if !self.send.is_empty() {
            stream.send("sending the request", &self.send).await?;
        }
        let line = stream.read_last_line("waiting for the agent's line").await?;
        stream.close().await;
        let Some(reply) = AgentReply::parse(&line) else {
            return Err(protocol_failure("the agent's line has no known word", &line));
        };
        match reply.health {
            Some(Health::Down) => {
                let reason = format!("the agent reports {}", quoted_message(line.trim_ascii()));
                Err(CheckFailure::new(CheckFailureKind::Mismatch, reason)
                    .with_agent_override(reply.agent_override))
            }
            None if !self.required => {
                Ok(CheckReport::unchanged().with_agent_override(reply.agent_override))
            }
            _ => Ok(CheckReport::up().with_agent_override(reply.agent_override)),
        }
    }
}

impl Check for AgentCheck {
    async fn check(&self, context: &CheckContext) -> Result<CheckReport, CheckFailure> {
        if self.required {
            return self.ask(context).await;
        }
        let unheard = |problem: &str| {
            CheckReport::unchanged().with_warning(format!("the agent is not heard: {problem}"))
        };
        context.set_report(unheard("no answer within the timeout"));
        match self.ask(context).await {
            // What the agent says, and what this machine lacks.
            Err(failure)
                if !matches!(
                    failure.kind(),
                    CheckFailureKind::Mismatch | CheckFailureKind::Local
                ) =>
            {
                Ok(unheard(failure.reason()))
            }
            result => result,
        }
    }

    fn name(&self) -> &str {
        "agent"
    }
}

/// The parsed line of an agent.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
pub(super) struct AgentReply {
    health: Option<Health>,
    agent_override: AgentOverride,
}

/// HAProxy's bound: the largest weight, 256, in percent of the smallest weight, 1.
const MAX_WEIGHT_PERCENT: u32 = 25_600;

impl AgentReply {
    /// Parses a line; `None` if the line has no known word.
    pub(super) fn parse(line: &[u8]) -> Option<Self> {
        // The text behind `#` is a comment.
        let line = line.split(|byte| *byte == b'#').next()?;
        let words = line.split(|byte| b" \t\r,".contains(byte)).filter(|word| !word.is_empty());
        let (mut reply, mut is_known) = (Self::default(), false);
        for word in words {
            is_known |= reply.apply_word(word);
        }
        is_known.then_some(reply)
    }

    /// Applies a word; returns whether the word is known.
    fn apply_word(&mut self, word: &[u8]) -> bool {
        let word = &*word.to_ascii_lowercase();
        let agent_override = &mut self.agent_override;
        match word {
            b"up" => self.health = Some(Health::Up),
            b"down" | b"fail" | b"failed" | b"stopped" => self.health = Some(Health::Down),
            b"drain" => agent_override.admin = Some(BackendAdminState::Draining),
            b"maint" => agent_override.admin = Some(BackendAdminState::Disabled),
            b"ready" => agent_override.admin = Some(BackendAdminState::Enabled),
            _ => {
                if let Some(percent) = word.strip_suffix(b"%").and_then(parse_number) {
                    agent_override.weight =
                        Some(AgentWeight::Percent(percent.min(MAX_WEIGHT_PERCENT)));
                } else if let Some(limit) = word.strip_prefix(b"maxconn:").and_then(parse_number) {
                    agent_override.max_connections = Some(limit);
                } else {
                    return false;
                }
            }
        }
        true
    }
}

/// Parses decimal digits; a number above the type's maximum counts as the maximum.
fn parse_number(digits: &[u8]) -> Option<u32> {
    if digits.is_empty() || !digits.iter().all(u8::is_ascii_digit) {
        return None;
    }
    Some(digits.iter().fold(0_u32, |number, digit| {
        number.saturating_mul(10).saturating_add(u32::from(digit - b'0'))
    }))
}

#[cfg(all(test, not(lvs_loom)))]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn parse(line: &str) -> Option<(Option<Health>, AgentOverride)> {
        AgentReply::parse(line.as_bytes()).map(|reply| (reply.health, reply.agent_override))
    }

    #[test]
    fn words_are_parsed_as_haproxys_manual_defines_them() {
        let overrides =
            |weight, max_connections, admin| AgentOverride { weight, max_connections, admin };
        let percent = |weight| Some(AgentWeight::Percent(weight));
        let none = AgentOverride::default();
        assert_eq!(
            parse("up 75% maxconn:30 drain"),
            Some((
                Some(Health::Up),
                overrides(percent(75), Some(30), Some(BackendAdminState::Draining))
            ))
        );
        assert_eq!(
            parse("75%,ready"),
            Some((None, overrides(percent(75), None, Some(BackendAdminState::Enabled))))
        );
        assert_eq!(
            parse("maint # 100%"),
            Some((None, overrides(None, None, Some(BackendAdminState::Disabled))))
        );
        assert_eq!(parse("down#out of disk"), Some((Some(Health::Down), none)));
        assert_eq!(parse("\tstopped\r"), Some((Some(Health::Down), none)));
        assert_eq!(parse("up so far"), Some((Some(Health::Up), none)), "other words are ignored");
        assert_eq!(
            parse("99999999%"),
            Some((None, overrides(percent(MAX_WEIGHT_PERCENT), None, None)))
        );
        assert_eq!(parse("9999999999%"), parse("25600%"), "a number above 32 bits");
        assert_eq!(
            parse("UP Drain MAXCONN:7 50%"),
            Some((
                Some(Health::Up),
                overrides(percent(50), Some(7), Some(BackendAdminState::Draining))
            ))
        );
        assert_eq!(parse("STOPPED"), Some((Some(Health::Down), none)));
        for unknown in ["", "  ", "# up", "uptime", "%", "-1%", "+1%", "maxconn:", "75 %"] {
            assert_eq!(parse(unknown), None, "{unknown:?}");
        }
    }

    proptest! {
        #[test]
        fn no_line_panics(line in proptest::collection::vec(any::<u8>(), 0..200)) {
            let _ = AgentReply::parse(&line);
        }
    }
}
