//! The TOML text that an import writes.

use std::collections::BTreeSet;
use std::fmt;

use super::position::SourcePosition;

/// The tables of an import, and the directives that were not converted.
#[derive(Debug, Default)]
pub(super) struct ImportedConfig {
    tables: Vec<TomlTable>,
    warnings: BTreeSet<(SourcePosition, String)>,
    skipped: BTreeSet<(SourcePosition, String)>,
}

/// A TOML table with its subtables.
#[derive(Clone, Debug)]
pub(super) struct TomlTable {
    header: &'static str,
    lines: Vec<String>,
    subtables: Vec<TomlTable>,
}

impl TomlTable {
    pub(super) fn new(header: &'static str) -> Self {
        Self { header, lines: Vec::new(), subtables: Vec::new() }
    }

    /// Adds a key with a value that is TOML already.
    pub(super) fn insert(&mut self, key: &str, value: impl fmt::Display) {
        self.lines.push(format!("{key} = {value}"));
    }

    pub(super) fn insert_string(&mut self, key: &str, value: &str) {
        self.insert(key, toml_string(value));
    }

    /// Adds a comment line.
    pub(super) fn push_comment(&mut self, comment: impl fmt::Display) {
        self.lines.push(format!("# {}", replace_control_chars(&comment.to_string())));
    }

    pub(super) fn push_subtable(&mut self, table: Self) {
        self.subtables.push(table);
    }
}

/// An inline table such as `{ a = 1, b = 2 }`.
#[derive(Clone, Debug, Default, Eq, PartialEq)]
pub(super) struct TomlInlineTable(Vec<(String, String)>);

impl TomlInlineTable {
    pub(super) fn insert(&mut self, key: &str, value: impl fmt::Display) {
        self.0.push((key.to_owned(), value.to_string()));
    }

    /// Returns the value of a key, as TOML.
    pub(super) fn get(&self, key: &str) -> Option<&str> {
        self.0.iter().find_map(|(known, value)| (known == key).then_some(value.as_str()))
    }

    pub(super) fn insert_string(&mut self, key: &str, value: &str) {
        self.insert(key, toml_string(value));
    }
}

impl fmt::Display for TomlInlineTable {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let keys: Vec<_> = self.0.iter().map(|(key, value)| format!("{key} = {value}")).collect();
        write!(f, "{{ {} }}", keys.join(", "))
    }
}

/// Returns a TOML string. `${` is escaped, so that it does not name an environment variable.
pub(super) fn toml_string(text: &str) -> String {
    let mut quoted = String::from("\"");
    for character in text.replace("${", "$${").chars() {
        match character {
            '"' | '\\' => quoted.extend(['\\', character]),
            _ if character.is_control() => {
                quoted.push_str(&format!("\\u{:04X}", u32::from(character)));
            }
            _ => quoted.push(character),
        }
    }
    quoted + "\""
}

/// Returns a TOML array of strings.
pub(super) fn toml_string_array<'a>(texts: impl IntoIterator<Item = &'a str>) -> String {
    let strings: Vec<_> = texts.into_iter().map(toml_string).collect();
    format!("[{}]", strings.join(", "))
}

fn replace_control_chars(text: &str) -> String {
    text.replace(char::is_control, " ")
}

impl ImportedConfig {
    pub(super) fn push_table(&mut self, table: TomlTable) {
        self.tables.push(table);
    }

    /// Returns whether there is a table with this header.
    pub(super) fn has_table(&self, header: &str) -> bool {
        self.tables.iter().any(|table| table.header == header)
    }

    pub(super) fn is_empty(&self) -> bool {
        self.tables.is_empty()
    }

    /// Names a directive, or a part of it, that is not converted or is converted with a difference, with
    /// its line.
    pub(super) fn report_skipped(
        &mut self,
        position: &SourcePosition,
        directive: impl fmt::Display,
    ) {
        self.skipped.insert((position.clone(), replace_control_chars(&directive.to_string())));
    }

    /// As [`report_skipped`](Self::report_skipped), for a difference that may harm: the operator must
    /// act.
    pub(super) fn warn(&mut self, position: &SourcePosition, difference: impl fmt::Display) {
        self.warnings.insert((position.clone(), replace_control_chars(&difference.to_string())));
    }
}

impl fmt::Display for ImportedConfig {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for (position, difference) in &self.warnings {
            writeln!(f, "# WARNING: {position}: {difference}")?;
        }
        if !self.skipped.is_empty() {
            writeln!(f, "# Not converted, or converted with a difference:")?;
        } else if self.warnings.is_empty() {
            writeln!(f, "# Everything was converted.")?;
        }
        for (position, directive) in &self.skipped {
            writeln!(f, "#   {position}: {directive}")?;
        }
        for table in &self.tables {
            write_table(f, table)?;
        }
        Ok(())
    }
}

fn write_table(f: &mut fmt::Formatter<'_>, table: &TomlTable) -> fmt::Result {
    writeln!(f, "\n{}", table.header)?;
    for line in &table.lines {
        writeln!(f, "{line}")?;
    }
    table.subtables.iter().try_for_each(|table| write_table(f, table))
}
