//! What the program writes about itself.

use serde::Deserialize;

/// `[log]`: what the program writes about itself.
#[derive(Clone, Debug, Default, Deserialize, Eq, PartialEq)]
#[serde(deny_unknown_fields)]
#[non_exhaustive]
pub struct LogConfig {
    /// How a line looks.
    #[serde(default)]
    pub format: LogFormat,
    /// The least that is worth a line.
    #[serde(default)]
    pub level: LogLevel,
    /// A line for each connection of TCP that has ended.
    #[serde(default)]
    pub connections: bool,
}

/// How a line of the log looks.
#[derive(Clone, Copy, Debug, Default, Deserialize, Eq, PartialEq)]
#[serde(rename_all = "lowercase")]
#[non_exhaustive]
pub enum LogFormat {
    /// For people. The default.
    #[default]
    Text,
    /// An object of JSON a line, for machines.
    Json,
}

/// The least that is worth a line of the log.
#[derive(Clone, Copy, Debug, Default, Deserialize, Eq, PartialEq)]
#[serde(rename_all = "lowercase")]
#[non_exhaustive]
pub enum LogLevel {
    /// What fails.
    Error,
    /// What will.
    Warn,
    /// What happens. The default.
    #[default]
    Info,
    /// And why.
    Debug,
    /// Everything.
    Trace,
}
