//! Reports what is not converted, by the list of keywords.

use super::keyword_fate::{KeywordFate, Keywords};
use super::keyword_list::TOP;
use super::syntax::KeepalivedDirective;
use crate::director::import::error::ImportError;
use crate::director::import::position::SourcePosition;
use crate::director::import::toml_writer::ImportedConfig;

/// Reports every directive that is not converted, and words that keepalived ignores too. What is left
/// must be converted.
pub(super) fn report(
    nodes: &[KeepalivedDirective],
    output: &mut ImportedConfig,
) -> Result<(), ImportError> {
    if !nodes.iter().any(|node| fate_of(node, TOP).is_some()) {
        let reason = "the text is neither a keepalived.conf nor the output of ipvsadm-save";
        let position = nodes.first().map(|node| node.position.clone());
        let start = SourcePosition::of_line(1);
        return Err(ImportError::new(&position.unwrap_or(start), reason));
    }
    report_block(nodes, TOP, output);
    Ok(())
}

fn fate_of(node: &KeepalivedDirective, keywords: Keywords) -> Option<KeywordFate> {
    let mut keywords = keywords.iter();
    keywords.find_map(|(names, fate)| names.contains(&node.name()).then_some(*fate))
}

fn report_block(nodes: &[KeepalivedDirective], keywords: Keywords, output: &mut ImportedConfig) {
    for node in nodes {
        let position = &node.position;
        match fate_of(node, keywords) {
            None => {
                node.mark_all_used();
                output.warn(position, format!("{} is not a known keyword here", node.text()));
            }
            Some(KeywordFate::Reported(reason)) => {
                node.mark_all_used();
                output.report_skipped(position, format!("{}: {reason}", node.text()));
            }
            Some(KeywordFate::Warned(difference)) => {
                node.mark_all_used();
                output.warn(position, format!("{}: {difference}", node.text()));
            }
            Some(KeywordFate::Carried(max_words)) => {
                if node.values().len() > max_words {
                    let report = format!(
                        "{}: only the first {max_words} words after the keyword count, as in keepalived",
                        node.text()
                    );
                    output.report_skipped(position, report);
                }
                for inner in node.children() {
                    let report = format!("{} is not a known keyword here", inner.text());
                    output.warn(&inner.position, report);
                }
            }
            Some(KeywordFate::Values) => {}
            Some(KeywordFate::Block(inner)) => report_block(node.children(), inner, output),
        }
    }
}

/// Reports what the list calls converted and no converter has used: a directive that another one
/// replaces, or that its block does not have.
pub(super) fn report_unused(nodes: &[KeepalivedDirective], output: &mut ImportedConfig) {
    let mut unused = Vec::new();
    KeepalivedDirective::collect_unused(nodes, &mut unused);
    for node in unused {
        output.warn(&node.position, format!("{} has no effect here", node.text()));
    }
}
