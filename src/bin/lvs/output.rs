//! Standard output and standard error, either of which may be closed: `println!` would panic.

use std::io::{self, Write};

/// Prints a text.
pub(crate) fn print(text: impl AsRef<[u8]>) -> io::Result<()> {
    let mut out = io::stdout().lock();
    out.write_all(text.as_ref())?;
    out.flush()
}

/// Prints a line that the program can do without: a director goes on if nobody reads its lines.
pub(crate) fn print_if_read(line: &str) {
    let _ = writeln!(io::stdout(), "{line}");
}

/// Prints a text to standard error.
pub(crate) fn complain(text: &str) {
    let _ = io::stderr().write_all(text.as_bytes());
}
