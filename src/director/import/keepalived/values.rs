//! Values of directives.

use super::syntax::KeepalivedDirective;

/// A length of time of so many seconds.
pub(super) fn toml_duration(seconds: f64) -> String {
    format!("{}ms", (seconds * 1000.0).round().max(1.0) as u64)
}

/// A command line as a list of words, as keepalived's own rules for quotes leave it.
pub(super) fn command_words(node: &KeepalivedDirective) -> Vec<String> {
    let words = node.values();
    match words {
        [one] => one.split_whitespace().map(str::to_owned).collect(),
        _ => words.to_vec(),
    }
}
