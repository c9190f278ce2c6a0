//! The lines of a `keepalived.conf`: included files, conditions, definitions, sequences and lists are
//! resolved, and comments are removed.

use std::collections::{BTreeMap, BTreeSet};
use std::path::{Path, PathBuf};
use std::sync::Arc;

use super::sequence;
use crate::director::import::error::ImportError;
use crate::director::import::options::ImportOptions;
use crate::director::import::position::SourcePosition;
use crate::director::import::toml_writer::ImportedConfig;

/// A line after all replacements.
#[derive(Debug)]
pub(super) struct SourceLine {
    pub(super) position: SourcePosition,
    pub(super) text: String,
}

/// How deep files, definitions and sequences may be nested.
const MAX_DEPTH: usize = 32;
/// The number of lines after all replacements.
const MAX_LINES: usize = 200_000;
/// The number of lines, conditions and definitions included.
const MAX_STEPS: usize = 1_000_000;
/// The length of a line after all replacements, in bytes.
const MAX_LINE_LEN: usize = 65_536;
/// The size of an included file, in bytes.
const MAX_FILE_LEN: u64 = 16 << 20;

/// The file that is read.
#[derive(Clone, Copy)]
struct SourceFile<'a> {
    name: Option<&'a Arc<str>>,
    folder: Option<&'a Path>,
}

struct SourceReader<'a> {
    config_id: String,
    definitions: BTreeMap<String, String>,
    lines: Vec<SourceLine>,
    /// How many lines have been read, those of definitions and conditions included.
    steps: usize,
    reported_conditions: BTreeSet<String>,
    output: &'a mut ImportedConfig,
}

/// Reads a text, and the files that it includes.
pub(super) fn read_lines(
    text: &str,
    options: &ImportOptions,
    output: &mut ImportedConfig,
) -> Result<Vec<SourceLine>, ImportError> {
    let config_id = options.config_id.clone().unwrap_or_else(host_name);
    let mut reader = SourceReader {
        config_id,
        definitions: BTreeMap::new(),
        lines: Vec::new(),
        steps: 0,
        reported_conditions: BTreeSet::new(),
        output,
    };
    let file = SourceFile { name: None, folder: options.folder.as_deref() };
    reader.read_text(text, file, 0)?;
    Ok(reader.lines)
}

/// Returns the name of this machine up to its first dot.
fn host_name() -> String {
    let name = std::fs::read_to_string("/proc/sys/kernel/hostname").unwrap_or_default();
    name.trim().split('.').next().unwrap_or_default().to_owned()
}

impl SourceReader<'_> {
    fn read_text(
        &mut self,
        text: &str,
        file: SourceFile<'_>,
        depth: usize,
    ) -> Result<(), ImportError> {
        let mut lines = text.lines().enumerate();
        while let Some((n, line)) = lines.next() {
            let position = SourcePosition::in_file(file.name.cloned(), n + 1);
            // A line that ends with `\` goes on in the next one.
            let (mut joined, mut goes_on) = without_comment(line);
            while goes_on {
                let Some((_, line)) = lines.next() else { break };
                let (next, again) = without_comment(line);
                joined = joined + "\n" + &next;
                goes_on = again;
            }
            if let Some(pattern) = included_pattern(&joined) {
                self.include(pattern, &position, file, depth)?;
            } else {
                self.read_line(joined.trim(), &position, file, depth)?;
            }
        }
        Ok(())
    }

    fn include(
        &mut self,
        pattern: &str,
        position: &SourcePosition,
        file: SourceFile<'_>,
        depth: usize,
    ) -> Result<(), ImportError> {
        let error = |reason: String| ImportError::new(position, reason);
        if depth == MAX_DEPTH {
            return Err(error(format!("files include each other more than {MAX_DEPTH} deep")));
        }
        let Some(folder) = file.folder else {
            return Err(error(format!(
                "cannot include {pattern:?}: import the file, not its text"
            )));
        };
        let pattern = pattern.trim_matches('"');
        let paths = glob::glob(&folder.join(pattern).to_string_lossy())
            .map_err(|reason| error(format!("{pattern:?} is not a pattern: {reason}")))?;
        let mut count = 0;
        for path in paths {
            let path = path.map_err(|reason| error(reason.to_string()))?;
            let text = read_file(&path)
                .map_err(|reason| error(format!("cannot include {}: {reason}", path.display())))?;
            let name: Arc<str> = path.display().to_string().into();
            let included = SourceFile { name: Some(&name), folder: path.parent() };
            self.read_text(&text, included, depth + 1)?;
            count += 1;
        }
        if count == 0 {
            self.output.warn(position, format!("`include {pattern}` names no file"));
        }
        Ok(())
    }

    /// Reads a line without comment; it has several lines if it is or uses a definition of several.
    fn read_line(
        &mut self,
        line: &str,
        position: &SourcePosition,
        file: SourceFile<'_>,
        depth: usize,
    ) -> Result<(), ImportError> {
        let error = |reason: String| ImportError::new(position, reason);
        if depth > MAX_DEPTH {
            return Err(error(format!("definitions are nested more than {MAX_DEPTH} deep")));
        }
        self.steps += 1;
        if self.steps > MAX_STEPS {
            return Err(error(format!("the definitions make more than {MAX_STEPS} lines")));
        }
        if line.is_empty() {
            return Ok(());
        }
        if line.len() > MAX_LINE_LEN {
            return Err(error(format!("the line is longer than {MAX_LINE_LEN} bytes")));
        }
        if let Some(condition) = line.strip_prefix('@') {
            let (name, rest) = condition.split_once(char::is_whitespace).unwrap_or((condition, ""));
            if !self.matches(name, position) {
                return Ok(());
            }
            return self.read_line(rest.trim(), position, file, depth + 1);
        }
        if let Some((name, value)) = definition(line) {
            self.definitions.insert(name.to_owned(), value.to_owned());
            return Ok(());
        }
        if line.starts_with("~SEQ") || line.starts_with("~LST") {
            let resolved = |text: &str| self.replace(text, position, file).map(|(text, _)| text);
            let repeated = sequence::parse(line, resolved).map_err(error)?;
            for values in repeated.values {
                for (name, value) in repeated.names.iter().zip(values) {
                    self.definitions.insert(name.clone(), value);
                }
                self.read_line(repeated.rest, position, file, depth + 1)?;
            }
            return Ok(());
        }
        let (replaced, undefined) = self.replace(line, position, file)?;
        // What was replaced may be a definition, a condition, or several lines.
        let has_statement = replaced.starts_with(['@', '~']) || definition(&replaced).is_some();
        if replaced != line && (has_statement || replaced.contains('\n')) {
            for line in replaced.split('\n') {
                self.read_line(line.trim(), position, file, depth + 1)?;
            }
            return Ok(());
        }
        for name in undefined {
            let report = format!("`${name}` is not defined: it is taken as text, as in keepalived");
            self.output.report_skipped(position, report);
        }
        if self.lines.len() == MAX_LINES {
            return Err(error(format!("the configuration has more than {MAX_LINES} lines")));
        }
        let text = replaced.replace('\n', " ");
        self.lines.push(SourceLine { position: position.clone(), text });
        Ok(())
    }

    /// Tells whether a condition such as `main` or `^main` is true.
    fn matches(&mut self, condition: &str, position: &SourcePosition) -> bool {
        let (name, is_equal) = match condition.strip_prefix('^') {
            Some(name) => (name, false),
            None => (condition, true),
        };
        if self.reported_conditions.insert(name.to_owned()) {
            let report = format!(
                "condition `@{condition}`: converted for the configuration id {:?}; see the option \
                 --config-id of `lvs import`",
                self.config_id
            );
            self.output.report_skipped(position, report);
        }
        (name == self.config_id) == is_equal
    }

    /// Replaces definitions, again and again; returns the undefined names too.
    fn replace(
        &self,
        line: &str,
        position: &SourcePosition,
        file: SourceFile<'_>,
    ) -> Result<(String, BTreeSet<String>), ImportError> {
        let error = |reason: String| ImportError::new(position, reason);
        let mut text = line.to_owned();
        for _ in 0..MAX_DEPTH {
            let (mut replaced, mut undefined) = (String::new(), BTreeSet::new());
            let (mut rest, mut has_changed) = (text.as_str(), false);
            while let Some(start) = rest.find('$') {
                replaced.push_str(&rest[..start]);
                let Some((name, end)) = parameter(&rest[start..]) else {
                    replaced.push('$');
                    rest = &rest[start + 1..];
                    continue;
                };
                match self.value_of(name, file).map_err(error)? {
                    Some(value) => {
                        replaced.push_str(&value);
                        has_changed = true;
                    }
                    None => {
                        undefined.insert(name.to_owned());
                        replaced.push_str(&rest[start..start + end]);
                    }
                }
                rest = &rest[start + end..];
            }
            replaced.push_str(rest);
            if replaced.len() > MAX_LINE_LEN {
                return Err(error(format!("the line is longer than {MAX_LINE_LEN} bytes")));
            }
            // The lines of a definition are replaced one by one: they may define what they use.
            if !has_changed || replaced.contains('\n') || replaced.starts_with(['@', '~']) {
                return Ok((replaced, undefined));
            }
            text = replaced;
        }
        Err(error(format!("the definitions name each other more than {MAX_DEPTH} deep")))
    }

    fn value_of(&self, name: &str, file: SourceFile<'_>) -> Result<Option<String>, String> {
        let (name, argument) = name.split_once(' ').unwrap_or((name, ""));
        if let Some(value) = self.definitions.get(name) {
            return Ok(Some(value.clone()));
        }
        match name {
            "_HASH" => Ok(Some("#".to_owned())),
            "_BANG" => Ok(Some("!".to_owned())),
            "_PWD" => {
                let folder = file
                    .folder
                    .map(|folder| folder.canonicalize().unwrap_or_else(|_| PathBuf::from(folder)));
                let folder = folder.ok_or("`$_PWD` needs the folder of the file")?;
                Ok(Some(folder.display().to_string()))
            }
            "_ENV" => std::env::var(argument.trim())
                .map(Some)
                .map_err(|_| format!("the environment variable {argument:?} is not set")),
            "_RANDOM" => Err("`$_RANDOM` has no fixed value: write a number".to_owned()),
            _ => Ok(None),
        }
    }
}

fn read_file(path: &Path) -> std::io::Result<String> {
    let information = std::fs::metadata(path)?;
    if !information.is_file() || information.len() > MAX_FILE_LEN {
        let reason = format!("it is not a regular file of at most {MAX_FILE_LEN} bytes");
        return Err(std::io::Error::other(reason));
    }
    std::fs::read_to_string(path)
}

/// Returns the pattern of a line such as `include conf.d/*.conf`.
fn included_pattern(line: &str) -> Option<&str> {
    let (keyword, pattern) = line.trim().split_once(char::is_whitespace)?;
    let is_include = matches!(
        keyword,
        "include" | "includer" | "includem" | "includew" | "includeb" | "includea"
    );
    is_include.then_some(pattern.trim())
}

/// Returns the name and the value of a line such as `$NAME=value`.
fn definition(line: &str) -> Option<(&str, &str)> {
    let (name, value) = line.strip_prefix('$')?.split_once('=')?;
    is_name(name).then_some((name, value.trim_matches([' ', '\t', '\n'])))
}

/// Returns the name that a text such as `${NAME}/24` or `$NAME ` begins with, and where it ends.
fn parameter(text: &str) -> Option<(&str, usize)> {
    if let Some(braced) = text.strip_prefix("${") {
        let end = braced.find('}')?;
        let name = &braced[..end];
        return is_name(name.split(' ').next()?).then_some((name, end + 3));
    }
    let name = text[1..].split(|character: char| !is_name_character(character)).next()?;
    let next = text[1 + name.len()..].chars().next();
    let ends =
        next.is_none_or(|next| next.is_whitespace() || matches!(next, '"' | '\'' | ')' | ','));
    (is_name(name) && ends).then_some((name, name.len() + 1))
}

fn is_name_character(character: char) -> bool {
    character.is_ascii_alphanumeric() || character == '_'
}

fn is_name(name: &str) -> bool {
    !name.starts_with(|first: char| first.is_ascii_digit())
        && !name.is_empty()
        && name.chars().all(is_name_character)
}

/// Returns a line without its comment, which begins with `#` or `!` outside of `"`, and whether the line
/// goes on in the next one.
fn without_comment(line: &str) -> (String, bool) {
    let (mut kept, mut is_quoted) = (String::new(), false);
    let mut characters = line.trim().chars().peekable();
    while let Some(character) = characters.next() {
        match character {
            '"' => is_quoted = !is_quoted,
            '\\' => match characters.next() {
                None => return (kept, true),
                Some(next @ ('#' | '!')) if !is_quoted => {
                    kept.push(next);
                    continue;
                }
                Some(next) => {
                    kept.extend(['\\', next]);
                    continue;
                }
            },
            '#' | '!' if !is_quoted => break,
            _ => {}
        }
        kept.push(character);
    }
    (kept.trim_end().to_owned(), false)
}
