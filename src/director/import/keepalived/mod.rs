//! `keepalived.conf`.

mod checker;
mod syntax;
mod virtual_server;
mod vrrp;

use self::syntax::KeepalivedDirective;
use super::ImportError;
use super::output::ImportedConfig;

pub(super) fn import(text: &str) -> Result<ImportedConfig, ImportError> {
    let nodes = syntax::parse(text)?;
    let known = ["global_defs", "virtual_server", "vrrp_instance", "vrrp_sync_group", "include"];
    if !nodes.iter().any(|node| known.contains(&node.name())) {
        let what = "neither a keepalived.conf nor what ipvsadm-save writes";
        return Err(ImportError::new(1, what));
    }
    let mut output = ImportedConfig::default();
    for node in &nodes {
        // What is for keepalived itself: its mails, its own name, its processes.
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
    let mut unseen = Vec::new();
    KeepalivedDirective::collect_unused(&nodes, &mut unseen);
    for node in unseen {
        output.report_skipped(node.line, format!("`{}`", node.words.join(" ")));
    }
    Ok(output)
}

/// A length of time of so many seconds.
fn toml_duration(seconds: f64) -> String {
    format!("{}ms", (seconds * 1000.0).round().max(1.0) as u64)
}

/// A command line as a list of words, as keepalived's own rules for quotes leave it.
fn command_words(node: &KeepalivedDirective) -> Vec<String> {
    let words = node.values();
    match words {
        [one] => one.split_whitespace().map(str::to_owned).collect(),
        _ => words.to_vec(),
    }
}
