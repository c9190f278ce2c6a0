//! Conversion of a `keepalived.conf`.

use super::global::GlobalSettings;
use super::{ipvs_table, keywords, source, syntax, virtual_server, vrrp};
use crate::director::import::error::ImportError;
use crate::director::import::options::ImportOptions;
use crate::director::import::toml_writer::ImportedConfig;

pub(in crate::director::import) fn import(
    text: &str,
    options: &ImportOptions,
) -> Result<ImportedConfig, ImportError> {
    let mut output = ImportedConfig::default();
    let lines = source::read_lines(text, options, &mut output)?;
    let nodes = syntax::parse(&lines)?;
    keywords::report(&nodes, &mut output)?;
    let global = GlobalSettings::read(&nodes, &mut output);
    let in_kernel = virtual_server::import(&nodes, &global, &mut output)?;
    vrrp::import(&nodes, &global, &mut output);
    ipvs_table::import(&nodes, &global, in_kernel, &mut output);
    keywords::report_unused(&nodes, &mut output);
    Ok(output)
}
