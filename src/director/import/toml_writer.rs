//! What is written.

use std::collections::BTreeSet;
use std::fmt;

/// A configuration as it is put together.
#[derive(Debug, Default)]
pub(super) struct ImportedConfig {
    tables: Vec<TomlTable>,
    skipped: Vec<(usize, String)>,
}

/// A table and what is to be said of it.
#[derive(Clone, Debug)]
pub(super) struct TomlTable {
    header: &'static str,
    lines: Vec<String>,
    subtables: Vec<TomlTable>,
}

impl TomlTable {
    pub(super) fn new(head: &'static str) -> Self {
        Self { header: head, lines: Vec::new(), subtables: Vec::new() }
    }

    /// A key and a value as it is written.
    pub(super) fn insert(&mut self, key: &str, value: impl fmt::Display) {
        self.lines.push(format!("{key} = {value}"));
    }

    pub(super) fn insert_string(&mut self, key: &str, value: &str) {
        self.insert(key, toml_string(value));
    }

    /// A remark behind what was put last.
    pub(super) fn push_comment(&mut self, what: impl fmt::Display) {
        self.lines.push(format!("# {}", replace_control_chars(&what.to_string())));
    }

    pub(super) fn push_subtable(&mut self, table: Self) {
        self.subtables.push(table);
    }
}

/// A value of the form `{ a = 1, b = 2 }`.
#[derive(Clone, Debug, Default, Eq, PartialEq)]
pub(super) struct TomlInlineTable(Vec<String>);

impl TomlInlineTable {
    pub(super) fn insert(&mut self, key: &str, value: impl fmt::Display) {
        self.0.push(format!("{key} = {value}"));
    }

    pub(super) fn insert_string(&mut self, key: &str, value: &str) {
        self.insert(key, toml_string(value));
    }
}

impl fmt::Display for TomlInlineTable {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{{ {} }}", self.0.join(", "))
    }
}

/// A text as TOML has it. A `${` is one, and no variable.
pub(super) fn toml_string(text: &str) -> String {
    let mut all = String::from("\"");
    for character in text.replace("${", "$${").chars() {
        match character {
            '"' | '\\' => all.extend(['\\', character]),
            it if it.is_control() => all.push_str(&format!("\\u{:04X}", u32::from(it))),
            it => all.push(it),
        }
    }
    all + "\""
}

/// A list of texts.
pub(super) fn toml_string_array<'a>(texts: impl IntoIterator<Item = &'a str>) -> String {
    let all: Vec<_> = texts.into_iter().map(toml_string).collect();
    format!("[{}]", all.join(", "))
}

fn replace_control_chars(text: &str) -> String {
    text.chars().map(|it| if it.is_control() { ' ' } else { it }).collect()
}

impl ImportedConfig {
    pub(super) fn push_table(&mut self, table: TomlTable) {
        self.tables.push(table);
    }

    /// What could not be carried over.
    pub(super) fn report_skipped(&mut self, line: usize, what: impl fmt::Display) {
        self.skipped.push((line, replace_control_chars(&what.to_string())));
    }
}

impl fmt::Display for ImportedConfig {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let notes: BTreeSet<_> = self.skipped.iter().collect();
        if notes.is_empty() {
            writeln!(f, "# Everything could be carried over.")?;
        } else {
            writeln!(f, "# Not carried over:")?;
        }
        for (line, what) in notes {
            writeln!(f, "#   line {line}: {what}")?;
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
