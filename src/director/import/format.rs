//! The importer: it detects the source format, converts, and checks the result.

use std::path::PathBuf;

use super::error::ImportError;
use super::options::ImportOptions;
use super::position::SourcePosition;
use super::{ipvsadm, keepalived};
use crate::director::config::DirectorConfig;

/// Converts configurations of other programs to TOML: a `keepalived.conf` (virtual servers, real
/// servers, checkers, virtual routers) with the files that it includes, or the output of
/// `ipvsadm-save`.
///
/// Each directive is converted, or named in a comment at the top of the result with its line in the
/// original; differences that may harm are marked `WARNING`. An operator must review the result, which
/// passes the checks of [`DirectorConfig::parse`].
///
/// If a service is by firewall mark, has servers with direct routing or tunnels, or if the kernel's
/// synchronization daemon runs, all services of the file stay with the kernel (`engine = "ipvs"`);
/// otherwise this crate's forwarder serves them, and servers see the director's address.
///
/// # Examples
/// ```
/// use lvs::director::Importer;
///
/// let original = "vrrp_instance A {\n interface eth0\n virtual_router_id 5\n\
///     @main priority 150\n @backup priority 100\n virtual_ipaddress { 192.0.2.5/24 }\n}\n";
/// let text = Importer::new().config_id("backup").import(original)?;
/// assert!(text.contains("priority = 100"));
/// # Ok::<(), lvs::director::ImportError>(())
/// ```
#[derive(Clone, Debug, Default)]
#[must_use]
pub struct Importer {
    options: ImportOptions,
}

impl Importer {
    /// Creates an importer of a text that includes no files.
    pub fn new() -> Self {
        Self::default()
    }

    /// Sets the folder of the file, in which the relative paths of `include` begin. Default: none,
    /// `include` is an error.
    pub fn folder(self, folder: impl Into<PathBuf>) -> Self {
        let folder = Some(folder.into());
        Self { options: ImportOptions { folder, ..self.options } }
    }

    /// Sets the name that conditions such as `@main` are compared with, keepalived's `--config-id`.
    /// Default: this machine's name up to its first dot, as in keepalived.
    pub fn config_id(self, id: impl Into<String>) -> Self {
        let config_id = Some(id.into());
        Self { options: ImportOptions { config_id, ..self.options } }
    }

    /// Converts a text. It reads the files that the text includes.
    ///
    /// # Errors
    /// [`ImportError`] if the text has neither format, a syntax error, a service or server that neither the
    /// kernel nor this crate can have, or if the result is no valid configuration.
    pub fn import(&self, text: &str) -> Result<String, ImportError> {
        let is_command = |line: &str| line.starts_with('-');
        let first =
            text.lines().map(str::trim).find(|line| !line.is_empty() && !line.starts_with('#'));
        let output = match first {
            Some(line) if is_command(line.trim_start_matches("ipvsadm ")) => ipvsadm::import(text)?,
            _ => keepalived::import(text, &self.options)?,
        };
        let text = output.to_string();
        match DirectorConfig::parse(&text) {
            Ok(_) => Ok(text),
            Err(error) => {
                let reason = match output.is_empty() {
                    true => format!("nothing in the configuration can be converted:\n{text}"),
                    false => format!("the result is no valid configuration: {error}\n{text}"),
                };
                Err(ImportError::new(&SourcePosition::of_line(1), reason))
            }
        }
    }
}

/// Converts a text that includes no files, as [`Importer::import`] does.
///
/// # Errors
/// As [`Importer::import`].
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
    Importer::new().import(text)
}
