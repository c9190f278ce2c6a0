//! What is written.

use std::collections::BTreeSet;
use std::fmt;

/// A configuration as it is put together.
#[derive(Debug, Default)]
pub(super) struct Output {
    tables: Vec<Table>,
    notes: Vec<(usize, String)>,
}

/// A table and what is to be said of it.
#[derive(Clone, Debug)]
pub(super) struct Table {
    head: &'static str,
    lines: Vec<String>,
    below: Vec<Table>,
}

impl Table {
    pub(super) fn new(head: &'static str) -> Self {
        Self { head, lines: Vec::new(), below: Vec::new() }
    }

    /// A key and a value as it is written.
    pub(super) fn put(&mut self, key: &str, value: impl fmt::Display) {
        self.lines.push(format!("{key} = {value}"));
    }

    pub(super) fn text(&mut self, key: &str, value: &str) {
        self.put(key, quoted(value));
    }

    /// A remark behind what was put last.
    pub(super) fn note(&mut self, what: impl fmt::Display) {
        self.lines.push(format!("# {}", one_line(&what.to_string())));
    }

    pub(super) fn add(&mut self, table: Self) {
        self.below.push(table);
    }
}

/// A value of the form `{ a = 1, b = 2 }`.
#[derive(Clone, Debug, Default, Eq, PartialEq)]
pub(super) struct Inline(Vec<String>);

impl Inline {
    pub(super) fn put(&mut self, key: &str, value: impl fmt::Display) {
        self.0.push(format!("{key} = {value}"));
    }

    pub(super) fn text(&mut self, key: &str, value: &str) {
        self.put(key, quoted(value));
    }
}

impl fmt::Display for Inline {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{{ {} }}", self.0.join(", "))
    }
}

/// A text as TOML has it. A `${` is one, and no variable.
pub(super) fn quoted(text: &str) -> String {
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
pub(super) fn list<'a>(texts: impl IntoIterator<Item = &'a str>) -> String {
    let all: Vec<_> = texts.into_iter().map(quoted).collect();
    format!("[{}]", all.join(", "))
}

fn one_line(text: &str) -> String {
    text.chars().map(|it| if it.is_control() { ' ' } else { it }).collect()
}

impl Output {
    pub(super) fn add(&mut self, table: Table) {
        self.tables.push(table);
    }

    /// What could not be carried over.
    pub(super) fn note(&mut self, line: usize, what: impl fmt::Display) {
        self.notes.push((line, one_line(&what.to_string())));
    }
}

impl fmt::Display for Output {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let notes: BTreeSet<_> = self.notes.iter().collect();
        if notes.is_empty() {
            writeln!(f, "# Everything could be carried over.")?;
        } else {
            writeln!(f, "# Not carried over:")?;
        }
        for (line, what) in notes {
            writeln!(f, "#   line {line}: {what}")?;
        }
        for table in &self.tables {
            write(f, table)?;
        }
        Ok(())
    }
}

fn write(f: &mut fmt::Formatter<'_>, table: &Table) -> fmt::Result {
    writeln!(f, "\n{}", table.head)?;
    for line in &table.lines {
        writeln!(f, "{line}")?;
    }
    table.below.iter().try_for_each(|table| write(f, table))
}
