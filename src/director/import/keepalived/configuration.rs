//! Conversion of a `keepalived.conf`.

use super::syntax::{self, KeepalivedDirective};
use super::{virtual_server, vrrp};
use crate::director::import::error::ImportError;
use crate::director::import::toml_writer::ImportedConfig;

pub(in crate::director::import) fn import(text: &str) -> Result<ImportedConfig, ImportError> {
    let nodes = syntax::parse(text)?;
    let known = ["global_defs", "virtual_server", "vrrp_instance", "vrrp_sync_group", "include"];
    if !nodes.iter().any(|node| known.contains(&node.name())) {
        let reason = "the text is neither a keepalived.conf nor the output of ipvsadm-save";
        return Err(ImportError::new(1, reason));
    }
    let mut output = ImportedConfig::default();
    for node in &nodes {
        // `global_defs` is about keepalived itself: mail, router name, processes.
        if node.name() == "global_defs" {
            node.mark_used();
            for inner in node.children() {
                let value = inner.mark_used().values().join(" ");
                output
                    .report_skipped(inner.line, format!("global_defs: `{} {value}`", inner.name()));
            }
        }
    }
    virtual_server::import(&nodes, &mut output);
    vrrp::import(&nodes, &mut output);
    let mut unused = Vec::new();
    KeepalivedDirective::collect_unused(&nodes, &mut unused);
    for node in unused {
        output.report_skipped(node.line, format!("`{}`", node.words.join(" ")));
    }
    Ok(output)
}
