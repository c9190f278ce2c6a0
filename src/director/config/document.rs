//! A text that is read, and the places in it that errors point to.

use std::env::{self, VarError};
use std::fmt::Write;

use serde::de::DeserializeOwned;
use toml::Spanned;
use toml::de::{DeTable, DeValue, Deserializer};

use super::error::{ConfigProblem, DirectorConfigError, KeyPathSegment};
use crate::scheduler::suggest;

/// A text, and what it is called.
#[derive(Clone, Debug)]
pub(super) struct ConfigDocument {
    name: String,
    text: String,
}

impl ConfigDocument {
    pub(super) fn new(name: impl Into<String>, text: impl Into<String>) -> Self {
        Self { name: name.into(), text: text.into() }
    }

    /// Reads it, with environment variables put in.
    pub(super) fn deserialize<T: DeserializeOwned>(&self) -> Result<T, DirectorConfigError> {
        let mut table =
            DeTable::parse(&self.text).map_err(|error| self.locate_toml_error(&error))?;
        for (_, value) in table.get_mut().iter_mut() {
            self.expand_variables(value)?;
        }
        T::deserialize(Deserializer::from(table)).map_err(|error| self.locate_toml_error(&error))
    }

    /// An error at the value that a fault is about, or at what is nearest above it.
    pub(super) fn locate_problem(&self, fault: ConfigProblem) -> DirectorConfigError {
        let (mut at, mut names) = (0, Vec::new());
        if let Ok(table) = DeTable::parse(&self.text) {
            walk_path(table.get_ref(), &fault.path, &mut at, &mut names);
        }
        self.error_at(at, names.join("."), fault.reason, None)
    }

    fn locate_toml_error(&self, error: &toml::de::Error) -> DirectorConfigError {
        let span = error.span().unwrap_or(0..0);
        let what = error.message().to_owned();
        let mut names = Vec::new();
        if let Ok(table) = DeTable::parse(&self.text) {
            keys_at_offset(table.get_ref(), span.start, &mut names);
        }
        let help = suggested_key(&what);
        self.error_at(span.start, names.join("."), what, help)
    }

    fn error_at(
        &self,
        offset: usize,
        key: String,
        what: String,
        help: Option<String>,
    ) -> DirectorConfigError {
        let before = self.text.get(..offset).unwrap_or_default();
        let line = before.matches('\n').count() + 1;
        let column = before.rsplit('\n').next().unwrap_or_default().chars().count() + 1;
        DirectorConfigError::Invalid {
            file: self.name.clone(),
            line,
            column,
            key,
            reason: what,
            suggestion: help,
        }
    }

    /// Puts environment variables into all strings below.
    fn expand_variables(
        &self,
        value: &mut Spanned<DeValue<'_>>,
    ) -> Result<(), DirectorConfigError> {
        let at = value.span().start;
        match value.get_mut() {
            DeValue::String(text) if text.contains("${") => {
                let replaced = expand_environment(text, |name| env::var(name));
                *text =
                    replaced.map_err(|what| self.error_at(at, String::new(), what, None))?.into();
            }
            DeValue::Array(values) => {
                for value in values.iter_mut() {
                    self.expand_variables(value)?;
                }
            }
            DeValue::Table(table) => {
                for (_, value) in table.iter_mut() {
                    self.expand_variables(value)?;
                }
            }
            _ => {}
        }
        Ok(())
    }
}

/// Follows a path as far as it goes; tells where that is, and what it is called.
fn walk_path(
    table: &DeTable<'_>,
    path: &[KeyPathSegment],
    at: &mut usize,
    names: &mut Vec<String>,
) {
    let Some((KeyPathSegment::Key(key), rest)) = path.split_first() else { return };
    names.push((*key).to_owned());
    let found = table.iter().find(|(name, _)| name.get_ref() == key);
    let Some((name, value)) = found else { return };
    *at = name.span().start;
    match (value.get_ref(), rest) {
        // One of several may stand there alone.
        (DeValue::Table(table), [KeyPathSegment::Index(_), rest @ ..])
        | (DeValue::Table(table), rest) => walk_path(table, rest, at, names),
        (DeValue::Array(values), [KeyPathSegment::Index(n), rest @ ..]) => {
            let Some(value) = values.get(*n) else { return };
            *at = value.span().start;
            names.push(item_label(value.get_ref(), *n));
            if let DeValue::Table(table) = value.get_ref() {
                walk_path(table, rest, at, names);
            }
        }
        _ => *at = value.span().start,
    }
}

/// Finds what stands at a place of the text.
fn keys_at_offset(table: &DeTable<'_>, at: usize, names: &mut Vec<String>) {
    for (name, value) in table.iter() {
        let key = name.span();
        let span = value.span();
        let is_below = match value.get_ref() {
            DeValue::Table(_) | DeValue::Array(_) => contains_offset(value, at),
            _ => span.contains(&at),
        };
        if !key.contains(&at) && !is_below {
            continue;
        }
        names.push(name.get_ref().to_string());
        match value.get_ref() {
            DeValue::Table(table) => keys_at_offset(table, at, names),
            DeValue::Array(values) => {
                let nth = values.iter().enumerate().find(|(_, value)| contains_offset(value, at));
                if let Some((n, value)) = nth {
                    names.push(item_label(value.get_ref(), n));
                    if let DeValue::Table(table) = value.get_ref() {
                        keys_at_offset(table, at, names);
                    }
                }
            }
            _ => {}
        }
        return;
    }
}

/// Is that place within a value? The span of a table that has a head is the head alone.
fn contains_offset(value: &Spanned<DeValue<'_>>, at: usize) -> bool {
    value.span().contains(&at)
        || match value.get_ref() {
            DeValue::Table(table) => table
                .iter()
                .any(|(name, value)| name.span().contains(&at) || contains_offset(value, at)),
            DeValue::Array(values) => values.iter().any(|value| contains_offset(value, at)),
            _ => false,
        }
}

/// What operators call one of several: by its name, its address, or its number.
fn item_label(value: &DeValue<'_>, n: usize) -> String {
    let name = |key| value.as_table().and_then(|table| table.get(key)?.get_ref().as_str());
    name("name").or_else(|| name("address")).map_or_else(|| (n + 1).to_string(), str::to_owned)
}

/// Which of those that could stand there was meant: "unknown field `x`, expected one of `y`, `z`".
fn suggested_key(what: &str) -> Option<String> {
    if !what.starts_with("unknown ") {
        return None;
    }
    let mut quoted = what.split('`').skip(1).step_by(2);
    let name = quoted.next()?;
    suggest(name, quoted).map(str::to_owned)
}

/// Puts variables in: `${NAME}`, `${NAME:-otherwise}`; `$${` is left as `${`.
fn expand_environment(
    text: &str,
    variable: impl Fn(&str) -> Result<String, VarError>,
) -> Result<String, String> {
    let (mut all, mut rest) = (String::new(), text);
    while let Some(at) = rest.find("${") {
        let (before, behind) = (&rest[..at], &rest[at + 2..]);
        if let Some(before) = before.strip_suffix('$') {
            all.push_str(before);
            all.push_str("${");
            rest = behind;
            continue;
        }
        all.push_str(before);
        let (inside, behind) =
            behind.split_once('}').ok_or_else(|| format!("${{{behind} has no end"))?;
        let (name, otherwise) = match inside.split_once(":-") {
            Some((name, otherwise)) => (name, Some(otherwise)),
            None => (inside, None),
        };
        match (variable(name), otherwise) {
            (Ok(value), _) => all.push_str(&value),
            (Err(VarError::NotPresent), Some(otherwise)) => all.push_str(otherwise),
            (Err(error), _) => {
                let mut what = String::new();
                let _ = write!(what, "environment variable {name:?}: {error}");
                return Err(what);
            }
        }
        rest = behind;
    }
    all.push_str(rest);
    Ok(all)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn variables_are_put_in() {
        let variable = |name: &str| match name {
            "HOST" => Ok("10.0.0.1".to_owned()),
            _ => Err(VarError::NotPresent),
        };
        let expand = |text| expand_environment(text, variable);
        assert_eq!(expand("${HOST}:${PORT:-80}"), Ok("10.0.0.1:80".into()));
        assert_eq!(expand("a $${HOST} b"), Ok("a ${HOST} b".into()));
        assert_eq!(expand("${PORT:-}"), Ok(String::new()));
        assert!(expand("${PORT}").expect_err("not set").contains("\"PORT\""));
        assert!(expand("x${HOST").expect_err("no end").contains("no end"));
    }

    #[test]
    fn a_slip_is_put_right() {
        let what = "unknown field `schedular`, expected one of `name`, `scheduler`, `listen`";
        assert_eq!(suggested_key(what).as_deref(), Some("scheduler"));
        assert_eq!(suggested_key("unknown field `x`, expected `name`"), None);
        assert_eq!(suggested_key("invalid type: integer `3`, expected a string"), None);
    }
}
