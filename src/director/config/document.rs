//! A TOML text, its environment variables, and the lines and columns of errors in it.

use std::collections::BTreeSet;
use std::env::{self, VarError};

use serde::de::DeserializeOwned;
use toml::Spanned;
use toml::de::{DeArray, DeTable, DeValue, Deserializer};

use super::error::{ConfigProblem, DirectorConfigError, KeyPathSegment};
use super::parser_message::{explain, suggested_key};

/// The most errors that are listed.
const MAX_ERRORS: usize = 50;

/// A TOML text with the name that errors show.
#[derive(Clone, Debug)]
pub(super) struct ConfigDocument {
    name: String,
    text: String,
}

impl ConfigDocument {
    pub(super) fn new(name: impl Into<String>, text: impl Into<String>) -> Self {
        Self { name: name.into(), text: text.into() }
    }

    /// Replaces environment variables and deserializes the text.
    ///
    /// # Errors
    /// All keys and values that are refused, up to [`MAX_ERRORS`]. After each the key is removed, and the
    /// rest is deserialized again.
    pub(super) fn deserialize<T: DeserializeOwned>(&self) -> Result<T, Vec<DirectorConfigError>> {
        let (mut table, syntax_errors) = DeTable::parse_recoverable(&self.text);
        if !syntax_errors.is_empty() {
            // What follows from the first error on the same line is no news.
            let located = syntax_errors.iter().map(|error| self.locate_toml_error(error));
            // The parser reports some errors of a line after those of later lines.
            let mut errors = in_order(located.take(MAX_ERRORS).collect());
            errors.dedup_by_key(|error| error.position().map(|(line, _)| line));
            return Err(errors);
        }
        let mut errors = Vec::new();
        for (_, value) in table.get_mut().iter_mut() {
            self.expand_variables(value, &mut errors);
        }
        if !errors.is_empty() {
            return Err(errors);
        }
        let mut removed = BTreeSet::new();
        loop {
            let error = match T::deserialize(Deserializer::from(table.clone())) {
                Ok(value) if errors.is_empty() => return Ok(value),
                Ok(_) => return Err(in_order(errors)),
                Err(error) => error,
            };
            let missing = error.message().strip_prefix("missing field `");
            let missing = missing.and_then(|name| name.strip_suffix('`'));
            // A key that is missing because it was removed is no error of the text.
            if !missing.is_some_and(|name| removed.contains(name)) {
                errors.push(self.locate_toml_error(&error));
            }
            let offset = error.span().map_or(usize::MAX, |span| span.start);
            if errors.len() == MAX_ERRORS
                || !remove_at_offset(table.get_mut(), offset, &mut removed)
            {
                return Err(in_order(errors));
            }
        }
    }

    /// Returns an error at the value that the problem is about, or at the closest enclosing table
    /// that the text has.
    pub(super) fn locate_problem(&self, problem: ConfigProblem) -> DirectorConfigError {
        let (mut offset, mut names) = (0, Vec::new());
        if let Ok(table) = DeTable::parse(&self.text) {
            walk_path(table.get_ref(), &problem.path, &mut offset, &mut names);
        }
        self.error_at(offset, names.join("."), problem.reason, None)
    }

    fn locate_toml_error(&self, error: &toml::de::Error) -> DirectorConfigError {
        let span = error.span().unwrap_or(0..0);
        let (offset, message) = (span.start, error.message());
        let text = self.text.get(span).unwrap_or_default();
        let mut names = Vec::new();
        if let Ok(table) = DeTable::parse(&self.text) {
            keys_at_offset(table.get_ref(), offset, &mut names);
        }
        let reason = explain(message, text, &names).unwrap_or_else(|| message.to_owned());
        self.error_at(offset, names.join("."), reason, suggested_key(message))
    }

    fn error_at(
        &self,
        offset: usize,
        key: String,
        reason: String,
        suggestion: Option<String>,
    ) -> DirectorConfigError {
        let before = self.text.get(..offset).unwrap_or_default();
        let line = before.matches('\n').count() + 1;
        let column = before.rsplit('\n').next().unwrap_or_default().chars().count() + 1;
        DirectorConfigError::Invalid {
            file: self.name.clone(),
            line,
            column,
            key,
            reason,
            suggestion,
        }
    }

    /// Replaces environment variables in all strings of a value.
    fn expand_variables(
        &self,
        value: &mut Spanned<DeValue<'_>>,
        errors: &mut Vec<DirectorConfigError>,
    ) {
        let offset = value.span().start;
        match value.get_mut() {
            DeValue::String(text) if text.contains("${") => {
                match expand_environment(text, |name| env::var(name)) {
                    Ok(expanded) => *text = expanded.into(),
                    Err(reason) if errors.len() < MAX_ERRORS => {
                        errors.push(self.error_at(offset, String::new(), reason, None));
                    }
                    Err(_) => {}
                }
            }
            DeValue::Array(values) => {
                values.iter_mut().for_each(|value| self.expand_variables(value, errors));
            }
            DeValue::Table(table) => {
                table.iter_mut().for_each(|(_, value)| self.expand_variables(value, errors));
            }
            _ => {}
        }
    }
}

/// Sorts errors of one file by their position.
fn in_order(mut errors: Vec<DirectorConfigError>) -> Vec<DirectorConfigError> {
    errors.sort_by_key(DirectorConfigError::position);
    errors
}

/// Removes the key, or the item of an array, whose name or value has an offset of the text, as deep as
/// the text has one. Returns whether there is one; `removed` gets the names of keys.
fn remove_at_offset(
    table: &mut DeTable<'_>,
    offset: usize,
    removed: &mut BTreeSet<String>,
) -> bool {
    let mut entries = table.iter_mut();
    let found = entries
        .find(|(name, value)| name.span().contains(&offset) || contains_offset(value, offset));
    let Some((name, value)) = found else { return false };
    let key = name.get_ref().to_string();
    let is_inside = !name.span().contains(&offset)
        && match value.get_mut() {
            DeValue::Table(table) => remove_at_offset(table, offset, removed),
            DeValue::Array(values) => remove_item_at_offset(values, offset, removed),
            _ => false,
        };
    if !is_inside {
        table.remove(&*key);
        removed.insert(key);
    }
    true
}

fn remove_item_at_offset(
    values: &mut DeArray<'_>,
    offset: usize,
    removed: &mut BTreeSet<String>,
) -> bool {
    let Some(n) = values.iter().position(|value| contains_offset(value, offset)) else {
        return false;
    };
    let is_inside = match values.get_mut(n).map(Spanned::get_mut) {
        Some(DeValue::Table(table)) => remove_at_offset(table, offset, removed),
        _ => false,
    };
    if !is_inside {
        let items = std::mem::replace(values, std::iter::empty().collect()).into_iter().enumerate();
        *values = items.filter(|(other, _)| *other != n).map(|(_, value)| value).collect();
    }
    true
}

/// Follows a path as far as the text has it, and writes the offset and the names on the way.
fn walk_path(
    table: &DeTable<'_>,
    path: &[KeyPathSegment],
    offset: &mut usize,
    names: &mut Vec<String>,
) {
    let Some((KeyPathSegment::Key(key), rest)) = path.split_first() else { return };
    names.push((*key).to_owned());
    let found = table.iter().find(|(name, _)| name.get_ref() == key);
    let Some((name, value)) = found else { return };
    *offset = name.span().start;
    match (value.get_ref(), rest) {
        // A single table may stand in place of an array of tables.
        (DeValue::Table(table), [KeyPathSegment::Index(_), rest @ ..])
        | (DeValue::Table(table), rest) => walk_path(table, rest, offset, names),
        (DeValue::Array(values), [KeyPathSegment::Index(n), rest @ ..]) => {
            let Some(value) = values.get(*n) else { return };
            *offset = value.span().start;
            names.push(item_label(value.get_ref(), *n));
            if let DeValue::Table(table) = value.get_ref() {
                walk_path(table, rest, offset, names);
            }
        }
        _ => *offset = value.span().start,
    }
}

/// Writes the names of the tables and keys that enclose an offset of the text.
fn keys_at_offset(table: &DeTable<'_>, offset: usize, names: &mut Vec<String>) {
    for (name, value) in table.iter() {
        let is_in_value = match value.get_ref() {
            DeValue::Table(_) | DeValue::Array(_) => contains_offset(value, offset),
            _ => value.span().contains(&offset),
        };
        if !name.span().contains(&offset) && !is_in_value {
            continue;
        }
        names.push(name.get_ref().to_string());
        match value.get_ref() {
            DeValue::Table(table) => keys_at_offset(table, offset, names),
            DeValue::Array(values) => {
                let item =
                    values.iter().enumerate().find(|(_, value)| contains_offset(value, offset));
                if let Some((n, value)) = item {
                    names.push(item_label(value.get_ref(), n));
                    if let DeValue::Table(table) = value.get_ref() {
                        keys_at_offset(table, offset, names);
                    }
                }
            }
            _ => {}
        }
        return;
    }
}

/// Returns whether an offset lies within a value. The span of a table with a header is the header
/// alone, so the table's values are searched too.
fn contains_offset(value: &Spanned<DeValue<'_>>, offset: usize) -> bool {
    value.span().contains(&offset)
        || match value.get_ref() {
            DeValue::Table(table) => table.iter().any(|(name, value)| {
                name.span().contains(&offset) || contains_offset(value, offset)
            }),
            DeValue::Array(values) => values.iter().any(|value| contains_offset(value, offset)),
            _ => false,
        }
}

/// Returns how an error names an item of an array: by its name, its address, or its number from 1.
fn item_label(value: &DeValue<'_>, n: usize) -> String {
    let text = |key| value.as_table().and_then(|table| table.get(key)?.get_ref().as_str());
    text("name").or_else(|| text("address")).map_or_else(|| (n + 1).to_string(), str::to_owned)
}

/// Replaces `${NAME}` and `${NAME:-default}` by the value of a variable, and `$${` by `${`.
fn expand_environment(
    text: &str,
    variable: impl Fn(&str) -> Result<String, VarError>,
) -> Result<String, String> {
    let (mut expanded, mut rest) = (String::new(), text);
    while let Some(start) = rest.find("${") {
        let (before, after) = (&rest[..start], &rest[start + 2..]);
        if let Some(before) = before.strip_suffix('$') {
            expanded.push_str(before);
            expanded.push_str("${");
            rest = after;
            continue;
        }
        expanded.push_str(before);
        let (content, after) =
            after.split_once('}').ok_or_else(|| format!("${{{after} has no closing brace"))?;
        let (name, default) = match content.split_once(":-") {
            Some((name, default)) => (name, Some(default)),
            None => (content, None),
        };
        match (variable(name), default) {
            (Ok(value), _) => expanded.push_str(&value),
            (Err(VarError::NotPresent), Some(default)) => expanded.push_str(default),
            (Err(VarError::NotPresent), None) => {
                return Err(format!(
                    "environment variable {name:?} is not set: set it, or write \
                     ${{{name}:-DEFAULT}}"
                ));
            }
            (Err(error), _) => return Err(format!("environment variable {name:?}: {error}")),
        }
        rest = after;
    }
    expanded.push_str(rest);
    Ok(expanded)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn environment_variables_are_replaced() {
        let variable = |name: &str| match name {
            "HOST" => Ok("10.0.0.1".to_owned()),
            _ => Err(VarError::NotPresent),
        };
        let expand = |text| expand_environment(text, variable);
        assert_eq!(expand("${HOST}:${PORT:-80}"), Ok("10.0.0.1:80".into()));
        assert_eq!(expand("a $${HOST} b"), Ok("a ${HOST} b".into()));
        assert_eq!(expand("${PORT:-}"), Ok(String::new()));
        assert!(expand("${PORT}").expect_err("not set").contains("\"PORT\""));
        assert!(expand("x${HOST").expect_err("no brace").contains("no closing brace"));
    }

    #[test]
    fn messages_of_the_parsers_are_shown_in_the_terms_of_the_file() {
        #[derive(Debug, serde::Deserialize)]
        #[serde(rename_all = "lowercase")]
        enum EngineName {
            Proxy,
        }
        #[derive(Debug, serde::Deserialize)]
        #[expect(dead_code, reason = "only the errors matter")]
        struct Table {
            small: Option<u8>,
            workers: Option<std::num::NonZeroUsize>,
            address: Option<std::net::SocketAddr>,
            engine: Option<EngineName>,
        }
        for (text, expected) in [
            ("small = 300", "t:1:9: small: 300 is not a whole number from 0 to 255"),
            ("small = \"x\"", "t:1:9: small: \"x\" is not a whole number from 0 to 255"),
            ("workers = 0", "t:1:11: workers: 0 is not a whole number of at least 1"),
            ("small = 1\nsmall = 2", "t:2:1: key `small` is set twice"),
            (
                "address = \"shop\"",
                "t:1:11: address: \"shop\" is not an address with a port, such as \"10.0.0.1:80\"",
            ),
            ("engine = \"ipvs\"", "t:1:10: engine: `ipvs` is not accepted here, expected `proxy`"),
        ] {
            let error = ConfigDocument::new("t", text).deserialize::<Table>();
            let errors = error.expect_err(text);
            assert_eq!((errors.len(), &*errors[0].to_string()), (1, expected));
        }
    }
}
