//! Standard output and standard error, either of which may be closed, or a pipe that nobody reads:
//! `println!` would panic or block.

use std::io::{self, Write};
use std::os::fd::AsFd;
use std::sync::OnceLock;
use std::time::Duration;

use crate::background_writer::BackgroundWriter;

static STDOUT: OnceLock<BackgroundWriter> = OnceLock::new();
static STDERR: OnceLock<BackgroundWriter> = OnceLock::new();

/// Prints the result of a command. It waits for the reader, as `cat` does.
pub(crate) fn print(text: impl AsRef<[u8]>) -> io::Result<()> {
    let mut out = io::stdout().lock();
    out.write_all(text.as_ref())?;
    out.flush()
}

/// Prints a line that the program can do without: a director goes on if nobody reads its lines.
pub(crate) fn print_if_read(line: &str) {
    let _ = print_in_background(&format!("{line}\n"));
}

/// Prints a text, of which parts may be dropped while nobody reads it.
///
/// # Errors
/// `BrokenPipe` if there is no reader any more.
pub(crate) fn print_in_background(text: &str) -> io::Result<()> {
    let start = || BackgroundWriter::start(io::stdout().as_fd(), report_dropped_lines);
    STDOUT.get_or_init(start).push(text.as_bytes())
}

/// Checks that what was printed in the background so far had a reader: a text is written after the call
/// that prints it has returned.
///
/// # Errors
/// `BrokenPipe` if there is no reader any more.
pub(crate) fn check_reader() -> io::Result<()> {
    print_in_background("")
}

/// Prints a text to standard error.
pub(crate) fn complain(text: &str) {
    let _ = log_writer().push(text.as_bytes());
}

/// Returns the writer of the log.
pub(crate) fn log_writer() -> BackgroundWriter {
    let start = || BackgroundWriter::start(io::stderr().as_fd(), report_dropped_lines);
    STDERR.get_or_init(start).clone()
}

/// Waits until everything is written, for `limit` at most for each of both.
pub(crate) fn flush(limit: Duration) {
    // A writer that was never used has no thread.
    [&STDOUT, &STDERR].into_iter().filter_map(OnceLock::get).for_each(|writer| writer.flush(limit));
}

fn report_dropped_lines(lines: u64) {
    tracing::error!(lines, "output: lines were dropped, because they were not read in time");
}
