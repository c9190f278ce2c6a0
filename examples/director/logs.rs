//! The log of the program, on standard error.

use std::io::stderr;

use lvs::director::{LogConfig, LogFormat, LogLevel};
use tracing::Level;

pub(crate) fn start(config: &LogConfig) {
    let level = match config.level {
        LogLevel::Error => Level::ERROR,
        LogLevel::Warn => Level::WARN,
        LogLevel::Debug => Level::DEBUG,
        LogLevel::Trace => Level::TRACE,
        _ => Level::INFO,
    };
    let logs = tracing_subscriber::fmt().with_writer(stderr).with_max_level(level);
    match config.format {
        LogFormat::Json => logs.json().flatten_event(true).init(),
        _ => logs.with_target(false).init(),
    }
}
