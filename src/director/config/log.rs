//! The `[log]` table.

use serde::Deserialize;

use super::table::config_table;

config_table! {
/// A builder of a [`LogConfig`].
builder LogConfigBuilder;

/// What the program logs.
///
/// A reload applies each key. The program never waits for the reader of its log: when 1 MiB waits to be read, it drops lines, counts them in
/// the metric `lvs_log_dropped_lines_total`, and logs their number when it can write again.
#[derive(Clone, Debug, Default, Deserialize, Eq, PartialEq)]
#[serde(deny_unknown_fields, expecting = "a table")]
#[non_exhaustive]
pub struct LogConfig {
    /// The format of a log line. Default: `"text"`.
    #[serde(default)]
    pub format: LogFormat,
    /// The least severe level that is logged; more severe levels are logged too. Default: `"info"`.
    #[serde(default)]
    pub level: LogLevel,
    /// Logs a line for each TCP connection and each UDP flow that has ended. A reload that changes the key replaces
    /// the forwarders of all services; existing connections keep the forwarder that they have.
    /// Default: `false`.
    #[serde(default)]
    pub connections: bool,
}
}

impl LogConfig {
    /// Returns a builder of the defaults.
    pub fn builder() -> LogConfigBuilder {
        LogConfigBuilder { table: Self::default() }
    }

    /// Returns the format of the lines of connections and flows that end; `None` for no such lines.
    pub(crate) fn connection_format(&self) -> Option<LogFormat> {
        self.connections.then_some(self.format)
    }
}

/// The format of a log line.
#[derive(Clone, Copy, Debug, Default, Deserialize, Eq, PartialEq)]
#[serde(rename_all = "lowercase")]
#[non_exhaustive]
pub enum LogFormat {
    /// Plain text. The default.
    #[default]
    Text,
    /// One JSON object per line.
    Json,
}

/// The least severe level that is logged.
#[derive(Clone, Copy, Debug, Default, Deserialize, Eq, PartialEq)]
#[serde(rename_all = "lowercase")]
#[non_exhaustive]
pub enum LogLevel {
    /// Failures: a listener that cannot be opened, a reload that was refused.
    Error,
    /// Conditions that may become failures, such as a TLS certificate that ends soon, and failures
    /// that the director works around.
    Warn,
    /// Changes of state: a server that is up or down, a reload, an election. The default.
    #[default]
    Info,
    /// Details of these changes, for the diagnosis of a fault.
    Debug,
    /// Every step of every part.
    Trace,
}
