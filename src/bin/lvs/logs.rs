//! The log of the program, on standard error.

use std::io::stderr;

use lvs::director::{LogConfig, LogFormat, LogLevel};
use tracing::Level;
use tracing_subscriber::filter::filter_fn;
use tracing_subscriber::prelude::*;

/// Starts the log that a configuration describes.
pub(crate) fn start(config: &LogConfig) {
    let level = match config.level {
        LogLevel::Error => Level::ERROR,
        LogLevel::Warn => Level::WARN,
        LogLevel::Debug => Level::DEBUG,
        LogLevel::Trace => Level::TRACE,
        _ => Level::INFO,
    };
    let logs = tracing_subscriber::fmt().with_writer(stderr).with_max_level(level);
    // A log that cannot be written must not end the director.
    let logs = logs.log_internal_errors(false);
    match config.format {
        LogFormat::Json => logs.json().flatten_event(true).init(),
        _ => logs.with_target(false).init(),
    }
}

/// Starts a log of the program's own lines alone: the demonstration shows the rest in its table.
pub(crate) fn start_for_demonstration() {
    let lines = tracing_subscriber::fmt::layer().with_writer(stderr).with_target(false);
    let lines = lines.log_internal_errors(false);
    let own = filter_fn(|line| line.target() == "lvs::program");
    tracing_subscriber::registry().with(lines.with_filter(own)).init();
}
