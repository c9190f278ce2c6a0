//! What an import depends on beside the text.

use std::path::PathBuf;

/// The options of an import.
#[derive(Clone, Debug, Default)]
pub(super) struct ImportOptions {
    /// The folder in which relative paths of `include` begin; `None` if nothing can be included.
    pub(super) folder: Option<PathBuf>,
    /// The name that conditions are compared with; `None` for that of this machine.
    pub(super) config_id: Option<String>,
}
