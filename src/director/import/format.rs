//! Detection of the source format.

use super::error::ImportError;
use super::{ipvsadm, keepalived};

/// Converts a configuration of another program to TOML: a `keepalived.conf` (virtual servers, real
/// servers, checkers, virtual routers), or the output of `ipvsadm-save -n`.
///
/// Each directive is converted, or named in a comment at the top of the result with its line in the
/// original. An operator must review the result: for example, servers that answered clients directly
/// (direct routing, tunnels) answer the director afterwards.
///
/// # Errors
/// [`ImportError`] if the text has neither format, or a syntax error.
///
/// # Examples
/// ```
/// use lvs::director::{DirectorConfig, import};
///
/// let saved = "-A -t 10.88.0.100:80 -s wrr -p 300\n-a -t 10.88.0.100:80 -r 10.88.1.1:80 -m -w 3\n";
/// let text = import(saved)?;
/// assert!(text.contains("persistence = { timeout = \"300s\" }"));
/// DirectorConfig::parse(&text)?;
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
