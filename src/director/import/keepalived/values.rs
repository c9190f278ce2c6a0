//! Values of keepalived's directives.

use super::syntax::KeepalivedDirective;

/// Returns a duration in TOML, of at least 1 ms.
pub(super) fn toml_duration(seconds: f64) -> String {
    format!("{}ms", (seconds * 1000.0).round().max(1.0) as u64)
}

/// Returns the program and arguments of a command directive. A single quoted string is split at
/// white space, as keepalived does.
pub(super) fn command_words(node: &KeepalivedDirective) -> Vec<String> {
    let words = node.values();
    match words {
        [command] => command.split_whitespace().map(str::to_owned).collect(),
        _ => words.to_vec(),
    }
}
