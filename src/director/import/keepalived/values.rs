//! Values of keepalived's directives: numbers, durations, programs.

use std::iter::Peekable;
use std::ops::RangeInclusive;
use std::str::{Chars, FromStr};

use super::syntax::KeepalivedDirective;
use crate::director::import::toml_writer::{ImportedConfig, TomlInlineTable, toml_string_array};

/// The maximum of a duration in seconds.
const MAX_SECONDS: f64 = 1e9;

/// Returns a duration in TOML, of at least 1 ms.
pub(super) fn toml_duration(seconds: f64) -> String {
    format!("{}ms", (seconds * 1000.0).round().max(1.0) as u64)
}

/// Returns the number of the last directive of a name; one that is no number of the range is reported,
/// and the default is taken, as keepalived does.
pub(super) fn number<T>(
    block: &KeepalivedDirective,
    name: &str,
    range: RangeInclusive<T>,
    output: &mut ImportedConfig,
) -> Option<T>
where
    T: FromStr + PartialOrd + std::fmt::Display,
{
    number_of(block.last_child(name)?, range, output)
}

/// Returns the number of a directive, as [`number`] does.
pub(super) fn number_of<T>(
    node: &KeepalivedDirective,
    range: RangeInclusive<T>,
    output: &mut ImportedConfig,
) -> Option<T>
where
    T: FromStr + PartialOrd + std::fmt::Display,
{
    let value = node.value().and_then(|text| text.parse().ok());
    let value = value.filter(|value| range.contains(value));
    if value.is_none() {
        let (start, end) = range.into_inner();
        let report = format!(
            "{}: the value is not a number from {start} to {end}: the default is taken, as in keepalived",
            node.text()
        );
        output.report_skipped(&node.position, report);
    }
    value
}

/// Returns the seconds of the last directive of a name, as [`number`] does; 0 is a value.
pub(super) fn seconds(
    block: &KeepalivedDirective,
    name: &str,
    output: &mut ImportedConfig,
) -> Option<f64> {
    number(block, name, 0.0..=MAX_SECONDS, output)
}

/// Returns the seconds of the last directive of a name, as [`number`] does; keepalived refuses 0.
pub(super) fn positive_seconds(
    block: &KeepalivedDirective,
    name: &str,
    output: &mut ImportedConfig,
) -> Option<f64> {
    number(block, name, 0.000_001..=MAX_SECONDS, output)
}

/// Returns a value that another type parses; a text that it refuses is reported.
pub(super) fn parsed<T: FromStr>(
    node: &KeepalivedDirective,
    output: &mut ImportedConfig,
) -> Option<T> {
    let value = node.value().and_then(|text| text.parse().ok());
    if value.is_none() {
        output.report_skipped(&node.position, format!("{}: the value is not valid", node.text()));
    }
    value
}

/// Returns whether a switch such as `smtp_alert` or `smtp_alert off` is on; off if there is none.
pub(super) fn switch(block: &KeepalivedDirective, name: &str, output: &mut ImportedConfig) -> bool {
    optional_switch(block, name, output).unwrap_or(false)
}

/// Returns whether a switch is on, or `None` if there is none.
pub(super) fn optional_switch(
    block: &KeepalivedDirective,
    name: &str,
    output: &mut ImportedConfig,
) -> Option<bool> {
    let node = block.last_child(name)?;
    Some(match node.value() {
        None | Some("on" | "true" | "yes") => true,
        Some("off" | "false" | "no") => false,
        Some(_) => {
            let report = format!("{}: the value is neither on nor off: taken as on", node.text());
            output.report_skipped(&node.position, report);
            true
        }
    })
}

/// The user and the group that a script runs as.
#[derive(Clone, Debug, Default)]
pub(super) struct ScriptUser {
    user: Option<String>,
    group: Option<String>,
}

impl ScriptUser {
    /// Reads `user [[:]group]`.
    pub(super) fn from_words(
        words: &[String],
        node: &KeepalivedDirective,
        output: &mut ImportedConfig,
    ) -> Self {
        let user = words.first().cloned();
        let group = words.get(1).map(|group| {
            if group.starts_with(':') {
                let report = format!("{}: supplementary groups are not set", node.text());
                output.report_skipped(&node.position, report);
            }
            group.trim_start_matches(':').to_owned()
        });
        Self { user, group: group.filter(|group| !group.is_empty()) }
    }

    /// Returns the default user for a program without a user of its own.
    fn clone_for(&self, node: &KeepalivedDirective, output: &mut ImportedConfig) -> Self {
        if self.user.is_none() {
            let report = "programs without a user run as the director's user; keepalived runs them as \
                          keepalived_script, if that user exists";
            output.report_skipped(&node.position, report);
        }
        self.clone()
    }

    pub(super) fn write(&self, table: &mut TomlInlineTable) {
        if let Some(user) = &self.user {
            table.insert_string("user", user);
        }
        if let Some(group) = &self.group {
            table.insert_string("group", group);
        }
    }
}

/// A program with its arguments, and its user.
#[derive(Clone, Debug)]
pub(super) struct ImportedCommand {
    words: Vec<String>,
    user: ScriptUser,
}

impl ImportedCommand {
    /// Reads a directive such as `notify_master "PROGRAM ARGUMENTS" USER GROUP` of a block: the first
    /// word is the command. Without a user, it runs as the default one. keepalived ignores further
    /// directives of the name.
    pub(super) fn read(
        block: &KeepalivedDirective,
        key: &str,
        default_user: &ScriptUser,
        output: &mut ImportedConfig,
    ) -> Option<Self> {
        let node = block.first_child(key)?;
        for ignored in block.children_named(key).skip(1) {
            let report = format!("{}: the first `{key}` counts, as in keepalived", ignored.text());
            output.report_skipped(&ignored.position, report);
        }
        let user = match node.values().get(1..).unwrap_or_default() {
            [] => default_user.clone_for(node, output),
            user => ScriptUser::from_words(user, node, output),
        };
        Self::parse(node, user, output)
    }

    /// Reads a directive such as `script "PROGRAM ARGUMENTS"`, whose user is in the directive `user` of
    /// the block.
    pub(super) fn read_with_user(
        block: &KeepalivedDirective,
        key: &str,
        default_user: &ScriptUser,
        output: &mut ImportedConfig,
    ) -> Option<Self> {
        let node = block.last_child(key)?;
        let user = match block.last_child("user") {
            Some(user) => ScriptUser::from_words(user.values(), user, output),
            None => default_user.clone_for(node, output),
        };
        Self::parse(node, user, output)
    }

    /// Splits the command as keepalived does.
    fn parse(
        node: &KeepalivedDirective,
        user: ScriptUser,
        output: &mut ImportedConfig,
    ) -> Option<Self> {
        match split_command(node.value()?) {
            Some(words) if !words.is_empty() => Some(Self { words, user }),
            _ => {
                let report = format!("{}: the quotes of the command do not match", node.text());
                output.warn(&node.position, report);
                None
            }
        }
    }

    /// Returns the value of a key such as `notify_master`.
    pub(super) fn to_toml(&self) -> String {
        let words = toml_string_array(self.words.iter().map(String::as_str));
        if self.user.user.is_none() { words } else { self.to_table() }
    }

    /// Returns an element of such a key with several programs.
    pub(super) fn to_table(&self) -> String {
        let mut table = TomlInlineTable::default();
        table.insert("command", toml_string_array(self.words.iter().map(String::as_str)));
        self.user.write(&mut table);
        table.to_string()
    }

    /// Writes the keys of a check of type `command`.
    pub(super) fn write_check(&self, check: &mut TomlInlineTable) {
        let Some((program, arguments)) = self.words.split_first() else { return };
        check.insert_string("type", "command");
        check.insert_string("command", program);
        if !arguments.is_empty() {
            check.insert("arguments", toml_string_array(arguments.iter().map(String::as_str)));
        }
        self.user.write(check);
    }
}

/// Splits a command into a program and its arguments: by white space outside of quotes, with the
/// escapes of C. `None` if a quote is not closed.
fn split_command(command: &str) -> Option<Vec<String>> {
    let mut words = Vec::new();
    let mut word: Option<String> = None;
    let mut quote = None;
    let mut characters = command.chars().peekable();
    while let Some(character) = characters.next() {
        match (quote, character) {
            (Some(end), _) if character == end => quote = None,
            (_, '\\') => word.get_or_insert_default().push(unescaped(&mut characters)?),
            (Some(_), _) => word.get_or_insert_default().push(character),
            (None, '"' | '\'') => {
                quote = Some(character);
                word.get_or_insert_default();
            }
            (None, _) if character.is_whitespace() => words.extend(word.take()),
            (None, _) => word.get_or_insert_default().push(character),
        }
    }
    words.extend(word);
    // keepalived gives a command such as `</dev/tcp/192.0.2.1/22` to the shell.
    let is_redirection = words.first().is_some_and(|word| word.starts_with(['<', '>']));
    if is_redirection {
        let quoted = |word: &String| format!("'{}'", word.replace('\'', "'\\''"));
        let arguments = words[1..].iter().map(quoted);
        let line: Vec<_> = std::iter::once(words[0].clone()).chain(arguments).collect();
        words = vec!["/bin/sh".to_owned(), "-c".to_owned(), line.join(" ")];
    }
    quote.is_none().then_some(words)
}

/// Returns the character of the escape after a backslash.
fn unescaped(characters: &mut Peekable<Chars<'_>>) -> Option<char> {
    let first = characters.next()?;
    let is_hexadecimal = characters.peek().is_some_and(char::is_ascii_hexdigit);
    match first {
        'a' => Some('\x07'),
        'b' => Some('\x08'),
        'E' => Some('\x1b'),
        'f' => Some('\x0c'),
        'n' => Some('\n'),
        'r' => Some('\r'),
        't' => Some('\t'),
        'v' => Some('\x0b'),
        'x' if is_hexadecimal => code(0, 16, characters),
        'c' => characters.next().map(|character| char::from(character as u8 & 0x1f)),
        '0'..='7' => code(first.to_digit(8)?, 8, characters),
        other => Some(other),
    }
}

/// Returns the character of a code, of which up to two more digits follow.
fn code(mut value: u32, radix: u32, characters: &mut Peekable<Chars<'_>>) -> Option<char> {
    for _ in 0..2 {
        let Some(digit) = characters.peek().and_then(|next| next.to_digit(radix)) else { break };
        characters.next();
        value = value * radix + digit;
    }
    char::from_u32(value & 0xff)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_command_is_split_as_keepalived_does() {
        let split = |command: &str| split_command(command).map(|words| words.join("|"));
        let expect = |words: &str| Some(words.to_owned());
        assert_eq!(split("/bin/sh -c 'exit 0'"), expect("/bin/sh|-c|exit 0"));
        assert_eq!(split("a  'b c'd \"e f\""), expect("a|b cd|e f"));
        assert_eq!(split(r"a \x41\102 \' '\'x'"), expect("a|AB|'|'x"));
        assert_eq!(split("pidof x >/dev/null || exit 1"), expect("pidof|x|>/dev/null||||exit|1"));
        assert_eq!(split("</dev/tcp/1.2.3.4/5"), expect("/bin/sh|-c|</dev/tcp/1.2.3.4/5"));
        assert_eq!(split("</a b'"), None);
        assert_eq!(split("</a 'b c'"), expect("/bin/sh|-c|</a 'b c'"));
    }
}
