//! What the program writes about itself, on standard error.

use std::io::stderr;

use lvs::director::{LogConfig, LogFormat, LogLevel};
use tracing::Level;

pub(crate) fn start(asked: &LogConfig) {
    let level = match asked.level {
        LogLevel::Error => Level::ERROR,
        LogLevel::Warn => Level::WARN,
        LogLevel::Debug => Level::DEBUG,
        LogLevel::Trace => Level::TRACE,
        _ => Level::INFO,
    };
    let logs = tracing_subscriber::fmt().with_writer(stderr).with_max_level(level);
    match asked.format {
        LogFormat::Json => logs.json().flatten_event(true).init(),
        _ => logs.with_target(false).init(),
    }
}
