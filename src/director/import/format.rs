//! Which program's configuration it is.

use super::error::ImportError;
use super::{ipvsadm, keepalived};

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
