//! The log of the program, on standard error.

use std::panic::PanicHookInfo;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use lvs::director::{LogConfig, LogFormat, LogLevel};
use tracing_subscriber::Registry;
use tracing_subscriber::filter::{LevelFilter, dynamic_filter_fn, filter_fn};
use tracing_subscriber::fmt;
use tracing_subscriber::fmt::format::{DefaultFields, Format};
use tracing_subscriber::layer::Filter;
use tracing_subscriber::prelude::*;
use tracing_subscriber::reload::{self, Handle};

use crate::background_writer::BackgroundWriter;
use crate::output;

/// The log that runs, whose level and format a reload changes.
pub(crate) struct RunningLog {
    level: Handle<LevelFilter, Registry>,
    is_json: Arc<AtomicBool>,
}

/// Starts the log that a configuration describes.
pub(crate) fn start(config: &LogConfig) -> RunningLog {
    let (filter, level) = reload::Layer::new(level_filter(config.level));
    let is_json = Arc::new(AtomicBool::new(config.format == LogFormat::Json));
    // A layer for each format.
    let text = lines().with_target(false).with_filter(of_format(&is_json, false));
    let json = lines().json().flatten_event(true).with_filter(of_format(&is_json, true));
    tracing_subscriber::registry().with(filter).with(text).with(json).init();
    std::panic::set_hook(Box::new(log_panic));
    RunningLog { level, is_json }
}

/// Returns a layer of text lines. A log that cannot be written must not end the director.
fn lines<S>() -> fmt::Layer<S, DefaultFields, Format, fn() -> BackgroundWriter> {
    let writer: fn() -> BackgroundWriter = output::log_writer;
    fmt::layer().with_writer(writer).log_internal_errors(false)
}

/// Returns a filter for the layer of a format. Spans have the fields of both formats: one that began before a
/// reload is part of the lines after it, and a layer panics without its own fields.
fn of_format<S: 'static>(is_json: &Arc<AtomicBool>, json: bool) -> impl Filter<S> + 'static {
    let is_json = Arc::clone(is_json);
    dynamic_filter_fn(move |metadata, _| {
        metadata.is_span() || is_json.load(Ordering::Relaxed) == json
    })
}

impl RunningLog {
    /// Applies the `[log]` table of a configuration that was reloaded. `report` logs the reload, in the new
    /// format and at the more verbose of both levels.
    pub(crate) fn apply(&self, config: &LogConfig, report: impl FnOnce()) {
        let new = level_filter(config.level);
        self.is_json.store(config.format == LogFormat::Json, Ordering::Relaxed);
        // An error means that the log has ended, which it does with the program.
        let _ = self.level.modify(|level| *level = new.max(*level));
        report();
        let _ = self.level.modify(|level| *level = new);
    }
}

/// Starts a log of the program's own lines alone: the demonstration shows the rest in its table.
pub(crate) fn start_for_demonstration() {
    let lines = lines().with_target(false);
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
