//! What does an agent beside the server say of it?

use super::stream::{CheckStream, escape_message, protocol_failure};
use crate::backend::{AgentOverride, AgentWeight, BackendAdminState};
use crate::health::{Check, CheckContext, CheckFailure, CheckFailureKind, CheckReport};

/// Asks an agent that answers with HAProxy's agent line, and does what it says.
///
/// The line ends with LF or the connection. Its words stand apart by spaces, tabs or commas:
///
/// | word | meaning |
/// |---|---|
/// | `up` | it can serve |
/// | `down`, `fail`, `failed`, `stopped` | it cannot; what stands behind `#` says why |
/// | `75%` | so much of its configured weight (0% to 25600%) |
/// | `maxconn:30` | so many connections; 0 is no limit |
/// | `drain` | no new work; what it has goes on |
/// | `maint` | out of service |
/// | `ready` | the end of `drain` and `maint` |
///
/// Other words are passed over, as in HAProxy; a line without any of these is a
/// [`Mismatch`](CheckFailureKind::Mismatch). A line without `up` or `down` says nothing of health, and
/// that it was said counts as up. What is said of weight, connections and state holds until
/// something else is said of it; the operator's word stands above it.
///
/// Let it listen on a [port of its own](crate::health::Checks::port), beside a check of the service:
/// the backend is up while neither says no.
///
/// # Examples
/// ```
/// use lvs::health::{AgentCheck, Checks};
///
/// let agent = Checks::new(AgentCheck::new().send("web\n")).port(9707);
/// # let _ = agent;
/// ```
#[derive(Clone, Debug, Default)]
pub struct AgentCheck {
    send: Vec<u8>,
}

impl AgentCheck {
    /// Connects, and listens.
    #[must_use]
    pub fn new() -> Self {
        Self::default()
    }

    /// Sends this first: an agent for several services may want to know for which. Default: nothing.
    #[must_use]
    pub fn send(self, bytes: impl AsRef<[u8]>) -> Self {
        Self { send: bytes.as_ref().to_vec() }
    }
}

impl Check for AgentCheck {
    async fn check(&self, probe: &CheckContext) -> Result<CheckReport, CheckFailure> {
        let mut talk = CheckStream::connect(probe).await?;
        if !self.send.is_empty() {
            talk.send("sending", &self.send).await?;
        }
        let line = talk.read_last_line("waiting for the agent's line").await?;
        talk.close().await;
        let Some(word) = AgentReply::parse(&line) else {
            return Err(protocol_failure("no word of an agent", &line));
        };
        match word.health {
            Some(false) => {
                let reason = format!("the agent says {}", escape_message(line.trim_ascii()));
                Err(CheckFailure::new(CheckFailureKind::Mismatch, reason)
                    .with_agent_override(word.advice))
            }
            _ => Ok(CheckReport::up().with_agent_override(word.advice)),
        }
    }

    fn name(&self) -> &str {
        "agent"
    }
}

/// What a line says.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
pub(super) struct AgentReply {
    health: Option<bool>,
    advice: AgentOverride,
}

/// HAProxy's bound: the largest weight, 256, of the smallest, 1.
const MAX_WEIGHT_PERCENT: u32 = 25_600;

impl AgentReply {
    /// Reads a line; `None` if it has no word that is known.
    pub(super) fn parse(line: &[u8]) -> Option<Self> {
        // What is behind it is for people.
        let line = line.split(|byte| *byte == b'#').next()?;
        let words = line.split(|byte| b" \t\r,".contains(byte)).filter(|word| !word.is_empty());
        let (mut all, mut known) = (Self::default(), false);
        for word in words {
            known |= all.apply_word(word);
        }
        known.then_some(all)
    }

    /// Takes one word; `false` if it is not known.
    fn apply_word(&mut self, word: &[u8]) -> bool {
        let advice = &mut self.advice;
        let number = |digits: &[u8]| std::str::from_utf8(digits).ok()?.parse::<u32>().ok();
        match word {
            b"up" => self.health = Some(true),
            b"down" | b"fail" | b"failed" | b"stopped" => self.health = Some(false),
            b"drain" => advice.admin = Some(BackendAdminState::Draining),
            b"maint" => advice.admin = Some(BackendAdminState::Disabled),
            b"ready" => advice.admin = Some(BackendAdminState::Enabled),
            _ => {
                if let Some(percent) = word.strip_suffix(b"%").and_then(number) {
                    advice.weight = Some(AgentWeight::Percent(percent.min(MAX_WEIGHT_PERCENT)));
                } else if let Some(most) = word.strip_prefix(b"maxconn:").and_then(number) {
                    advice.max_connections = Some(most);
                } else {
                    return false;
                }
            }
        }
        true
    }
}

#[cfg(all(test, not(lvs_loom)))]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn word(line: &str) -> Option<(Option<bool>, AgentOverride)> {
        AgentReply::parse(line.as_bytes()).map(|word| (word.health, word.advice))
    }

    #[test]
    fn the_words_of_haproxys_manual() {
        let advice =
            |weight, max_connections, admin| AgentOverride { weight, max_connections, admin };
        let percent = |it| Some(AgentWeight::Percent(it));
        let none = AgentOverride::default();
        assert_eq!(
            word("up 75% maxconn:30 drain"),
            Some((Some(true), advice(percent(75), Some(30), Some(BackendAdminState::Draining))))
        );
        assert_eq!(
            word("75%,ready"),
            Some((None, advice(percent(75), None, Some(BackendAdminState::Enabled))))
        );
        assert_eq!(
            word("maint # 100%"),
            Some((None, advice(None, None, Some(BackendAdminState::Disabled))))
        );
        assert_eq!(word("down#out of disk"), Some((Some(false), none)));
        assert_eq!(word("\tstopped\r"), Some((Some(false), none)));
        assert_eq!(word("up so far"), Some((Some(true), none)), "others are passed over");
        assert_eq!(
            word("99999999%"),
            Some((None, advice(percent(MAX_WEIGHT_PERCENT), None, None)))
        );
        for nothing in ["", "  ", "# up", "UP", "%", "-1%", "maxconn:", "75 %", "9999999999%"] {
            assert_eq!(word(nothing), None, "{nothing:?}");
        }
    }

    proptest! {
        #[test]
        fn no_line_panics(line in proptest::collection::vec(any::<u8>(), 0..200)) {
            let _ = AgentReply::parse(&line);
        }
    }
}
