//! Configurations of other programs, as this one's.

mod ipvsadm;
mod keepalived;
mod output;

use thiserror::Error;

/// Why a text cannot be imported.
#[derive(Clone, Debug, Eq, Error, PartialEq)]
#[error("line {line}: {reason}")]
pub struct ImportError {
    /// The line, from 1.
    pub line: usize,
    /// What is wrong there.
    pub reason: String,
}

impl ImportError {
    fn new(line: usize, what: impl Into<String>) -> Self {
        Self { line, reason: what.into() }
    }
}

/// Writes down in TOML what another program's configuration means: that of `keepalived.conf`
/// (virtual servers, real servers, checkers, virtual routers), or what `ipvsadm-save` wrote.
///
/// Comments in the result name what could not be carried over, with its line in the original: every
/// directive is carried or named. It is a beginning: whether clients that came by direct routing can
/// come by a proxy is for an operator to say.
///
/// # Errors
/// [`ImportError`] if it is neither, or what it says has no end.
///
/// # Examples
/// ```
/// use lvs::director::{Config, import};
///
/// let saved = "-A -t 10.88.0.100:80 -s wrr -p 300\n-a -t 10.88.0.100:80 -r 10.88.1.1:80 -m -w 3\n";
/// let text = import(saved)?;
/// assert!(text.contains("persistence = { timeout = \"300s\" }"));
/// Config::parse(&text)?;
/// # Ok::<(), Box<dyn std::error::Error>>(())
/// ```
pub fn import(text: &str) -> Result<String, ImportError> {
    let is_command = |line: &str| line.starts_with('-');
    let first = text.lines().map(str::trim).find(|line| !line.is_empty() && !line.starts_with('#'));
    let output = match first {
        Some(line) if is_command(line.trim_start_matches("ipvsadm ")) => ipvsadm::import(text)?,
        _ => keepalived::import(text)?,
    };
    Ok(output.to_string())
}

#[cfg(test)]
mod tests;
