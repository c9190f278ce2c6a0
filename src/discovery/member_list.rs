//! The text form of a list of members.

use std::collections::HashMap;
use std::net::SocketAddr;

use thiserror::Error;

use super::address::parse_socket_address;
use crate::backend::{Limits, MAX_BACKENDS, MAX_CONNECTION_LIMIT, MAX_WEIGHT, Spec, Zone};
use crate::excerpt::excerpt;
use crate::setting::SettingError;

/// The longest name of a member, in bytes.
pub(super) const MAX_NAME_LEN: usize = 255;

/// A problem in the text of a member list, with its position.
#[derive(Clone, Debug, Eq, Error, PartialEq)]
#[non_exhaustive]
#[error("{line}:{column}: {kind}")]
pub struct MemberListError {
    /// The line, from 1.
    pub line: usize,
    /// The column, in characters, from 1.
    pub column: usize,
    /// The problem.
    pub kind: MemberListErrorKind,
}

/// The kinds of problems in the text of a member list. A quoted word is cut after about 40
/// characters.
#[derive(Clone, Debug, Eq, Error, PartialEq)]
#[non_exhaustive]
pub enum MemberListErrorKind {
    /// A line does not begin with an address and a port.
    #[error("\"{word}\" is not an address with a port, such as 10.0.0.1:80 or [2001:db8::1]:80")]
    InvalidAddress {
        /// The word in place of the address.
        word: String,
    },
    /// A word after the address is not a `key=value` pair.
    #[error("\"{word}\" is not a key=value pair")]
    NotKeyValue {
        /// The word.
        word: String,
    },
    /// A key is unknown.
    #[error(
        "unknown key \"{key}\": the keys are name, weight, tier, zone, max_connections and \
         resume_below"
    )]
    UnknownKey {
        /// The key.
        key: String,
    },
    /// A line sets a key twice.
    #[error("{key} is set twice")]
    DuplicateKey {
        /// The key.
        key: &'static str,
    },
    /// A value is not a number, or is too large.
    #[error("{key} must be a number from 0 to {max}, not \"{word}\"")]
    InvalidNumber {
        /// The key.
        key: &'static str,
        /// The largest value.
        max: u32,
        /// The word in place of the number.
        word: String,
    },
    /// `resume_below` is above `max_connections`.
    #[error("resume_below {resume} is above max_connections {max}")]
    ResumeAboveMax {
        /// The value of `resume_below`.
        resume: u32,
        /// The value of `max_connections`; 0 if the line does not set the key.
        max: u32,
    },
    /// A zone has another name than a zone may have.
    #[error("{0}")]
    InvalidZone(SettingError),
    /// A name is empty or too long.
    #[error("name must have 1 to {MAX_NAME_LEN} bytes")]
    InvalidName,
    /// Two lines name the same member; without `name=` the address is the name.
    #[error("member \"{name}\" is already on line {first_line}")]
    DuplicateName {
        /// The name.
        name: String,
        /// The first line that names the member.
        first_line: usize,
    },
    /// The list has more members than a backend set holds.
    #[error("the list has more than {MAX_BACKENDS} members")]
    TooManyMembers,
    /// The text is not UTF-8 from this position on.
    #[error("the text is not UTF-8")]
    NotUtf8,
}

/// A problem at a column of one line.
#[derive(Debug)]
struct LineError {
    column: usize,
    kind: MemberListErrorKind,
}

impl LineError {
    fn new(column: usize, kind: MemberListErrorKind) -> Self {
        Self { column, kind }
    }
}

/// Parses a list of one member a line.
pub(super) fn parse(text: &str) -> Result<Vec<Spec<SocketAddr>>, MemberListError> {
    let mut specs: Vec<Spec<SocketAddr>> = Vec::new();
    let mut lines_by_name = HashMap::new();
    // Editors may write a byte order mark, which is no part of the first address.
    let text = text.strip_prefix('\u{feff}').unwrap_or(text);
    for (line, content) in (1..).zip(text.lines()) {
        let at_line = |LineError { column, kind }| MemberListError { line, column, kind };
        let Some(spec) = parse_line(content).map_err(at_line)? else { continue };
        if let Some(first_line) = lines_by_name.insert(spec.id.clone(), line) {
            let name = word_excerpt(spec.id.as_str());
            let kind = MemberListErrorKind::DuplicateName { name, first_line };
            return Err(at_line(LineError::new(1, kind)));
        }
        if specs.len() == MAX_BACKENDS {
            return Err(at_line(LineError::new(1, MemberListErrorKind::TooManyMembers)));
        }
        specs.push(spec);
    }
    Ok(specs)
}

/// Parses a list from bytes that may not be UTF-8.
pub(super) fn parse_bytes(bytes: &[u8]) -> Result<Vec<Spec<SocketAddr>>, MemberListError> {
    let error = match std::str::from_utf8(bytes) {
        Ok(text) => return parse(text),
        Err(error) => error,
    };
    let valid = bytes.get(..error.valid_up_to()).unwrap_or_default();
    let valid = std::str::from_utf8(valid).unwrap_or_default();
    let line = 1 + valid.matches('\n').count();
    let column = 1 + valid.rsplit('\n').next().map_or(0, |last_line| last_line.chars().count());
    Err(MemberListError { line, column, kind: MemberListErrorKind::NotUtf8 })
}

/// Parses a line; `None` if the line is empty or a comment.
fn parse_line(line: &str) -> Result<Option<Spec<SocketAddr>>, LineError> {
    let mut words = words(line);
    let Some((column, word)) = words.next() else { return Ok(None) };
    let address = parse_socket_address(word).ok_or_else(|| {
        LineError::new(column, MemberListErrorKind::InvalidAddress { word: word_excerpt(word) })
    })?;

    let (mut name, mut zone) = (None, None);
    let (mut weight, mut tier, mut max, mut resume) = (None, None, None, None);
    let mut resume_column = column;
    for (column, word) in words {
        let error = |kind| LineError::new(column, kind);
        let Some((key, value)) = word.split_once('=') else {
            return Err(error(MemberListErrorKind::NotKeyValue { word: word_excerpt(word) }));
        };
        let value_at = (column + key.chars().count() + 1, value);
        match key {
            "name" => {
                if value.is_empty() || value.len() > MAX_NAME_LEN {
                    return Err(LineError::new(value_at.0, MemberListErrorKind::InvalidName));
                }
                set_once(&mut name, value, "name").map_err(error)?;
            }
            "weight" => parse_number(&mut weight, "weight", MAX_WEIGHT, column, value_at)?,
            "tier" => parse_number(&mut tier, "tier", u8::MAX.into(), column, value_at)?,
            "zone" => {
                let parsed = Zone::new(value).map_err(|error| {
                    LineError::new(value_at.0, MemberListErrorKind::InvalidZone(error))
                })?;
                set_once(&mut zone, parsed, "zone").map_err(error)?;
            }
            "max_connections" => {
                parse_number(&mut max, "max_connections", MAX_CONNECTION_LIMIT, column, value_at)?
            }
            "resume_below" => {
                resume_column = column;
                parse_number(&mut resume, "resume_below", MAX_CONNECTION_LIMIT, column, value_at)?;
            }
            _ => return Err(error(MemberListErrorKind::UnknownKey { key: word_excerpt(key) })),
        }
    }
    let (max, resume) = (max.unwrap_or(0), resume.unwrap_or(0));
    if resume > max {
        let kind = MemberListErrorKind::ResumeAboveMax { resume, max };
        return Err(LineError::new(resume_column, kind));
    }
    let spec = match name {
        Some(name) => Spec::new(name, address).address(address),
        None => Spec::from(address),
    };
    let spec = Spec { zone, ..spec };
    Ok(Some(
        spec.weight(weight.unwrap_or(1))
            .tier(u8::try_from(tier.unwrap_or(0)).unwrap_or(u8::MAX))
            .limits(Limits::new(max).with_resume_below(resume)),
    ))
}

/// Returns the words of a line up to a comment, each with its column.
fn words(line: &str) -> impl Iterator<Item = (usize, &str)> {
    let mut rest = line;
    let mut column = 1;
    std::iter::from_fn(move || {
        let trimmed = rest.trim_start();
        column += rest.get(..rest.len() - trimmed.len()).map_or(0, |gap| gap.chars().count());
        let word = trimmed.split(char::is_whitespace).next().filter(|word| !word.is_empty())?;
        rest = trimmed.get(word.len()..).unwrap_or_default();
        let start = column;
        column += word.chars().count();
        (!word.starts_with('#')).then_some((start, word))
    })
    .fuse()
}

fn set_once<V>(
    target: &mut Option<V>,
    value: V,
    key: &'static str,
) -> Result<(), MemberListErrorKind> {
    match target.replace(value) {
        None => Ok(()),
        Some(_) => Err(MemberListErrorKind::DuplicateKey { key }),
    }
}

fn parse_number(
    target: &mut Option<u32>,
    key: &'static str,
    max: u32,
    key_column: usize,
    (column, word): (usize, &str),
) -> Result<(), LineError> {
    // The standard library would accept `+5`, which is a typing error here.
    let digits = Some(word).filter(|word| word.bytes().all(|byte| byte.is_ascii_digit()));
    let value = digits.and_then(|word| word.parse().ok()).filter(|&value: &u32| value <= max);
    let value = value.ok_or_else(|| {
        let word = word_excerpt(word);
        LineError::new(column, MemberListErrorKind::InvalidNumber { key, max, word })
    })?;
    set_once(target, value, key).map_err(|kind| LineError::new(key_column, kind))
}

fn word_excerpt(word: &str) -> String {
    excerpt(word.as_bytes(), 40)
}
