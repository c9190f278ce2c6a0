//! The log of the program, on standard error.

use std::panic::PanicHookInfo;

use lvs::director::{LogConfig, LogFormat, LogLevel};
use tracing_subscriber::Registry;
use tracing_subscriber::filter::{LevelFilter, filter_fn};
use tracing_subscriber::fmt;
use tracing_subscriber::prelude::*;
use tracing_subscriber::reload::{self, Handle};

use crate::output;

/// The log that runs, whose level a reload changes.
pub(crate) struct RunningLog {
    level: Handle<LevelFilter, Registry>,
    format: LogFormat,
}

/// Starts the log that a configuration describes.
pub(crate) fn start(config: &LogConfig) -> RunningLog {
    let (filter, level) = reload::Layer::new(level_filter(config.level));
    // A log that cannot be written must not end the director.
    let lines = fmt::layer().with_writer(output::log_writer).log_internal_errors(false);
    let log = tracing_subscriber::registry().with(filter);
    match config.format {
        LogFormat::Json => log.with(lines.json().flatten_event(true)).init(),
        _ => log.with(lines.with_target(false)).init(),
    }
    std::panic::set_hook(Box::new(log_panic));
    RunningLog { level, format: config.format }
}

impl RunningLog {
    /// Applies the `[log]` table of a configuration that was reloaded. `report` logs the reload, at the
    /// more verbose of both levels.
    pub(crate) fn apply(&self, config: &LogConfig, report: impl FnOnce()) {
        let new = level_filter(config.level);
        // An error means that the log has ended, which it does with the program.
        let _ = self.level.modify(|level| *level = new.max(*level));
        report();
        let _ = self.level.modify(|level| *level = new);
        if config.format != self.format {
            tracing::warn!("reload: `log.format` has changed: restart lvs to apply it");
        }
    }
}

/// Starts a log of the program's own lines alone: the demonstration shows the rest in its table.
pub(crate) fn start_for_demonstration() {
    let lines = fmt::layer().with_writer(output::log_writer).with_target(false);
    let lines = lines.log_internal_errors(false);
    let own = filter_fn(|line| line.target() == "lvs::program" || line.target() == "lvs::output");
    tracing_subscriber::registry().with(lines.with_filter(own)).init();
}

fn level_filter(level: LogLevel) -> LevelFilter {
    match level {
        LogLevel::Error => LevelFilter::ERROR,
        LogLevel::Warn => LevelFilter::WARN,
        LogLevel::Debug => LevelFilter::DEBUG,
        LogLevel::Trace => LevelFilter::TRACE,
        _ => LevelFilter::INFO,
    }
}

/// Logs a panic. The hook of `std` writes to standard error itself, which may block the thread.
fn log_panic(panic: &PanicHookInfo<'_>) {
    let place = panic.location().map(ToString::to_string).unwrap_or_default();
    let payload = panic.payload();
    let message = payload.downcast_ref::<&str>().copied();
    let message = message.or_else(|| payload.downcast_ref::<String>().map(String::as_str));
    let message = message.unwrap_or("no message").replace('\n', " ");
    tracing::error!(place, "a thread panicked: {message}");
}
