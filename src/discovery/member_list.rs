//! The text form of a list of members.

use std::collections::HashMap;
use std::net::SocketAddr;

use thiserror::Error;

use crate::backend::{Limits, MAX_BACKENDS, MAX_WEIGHT, Spec};

/// The longest name of a member, in bytes.
pub(super) const MAX_NAME_LEN: usize = 255;

/// Why a text is no list of members: where, and what is wrong there.
#[derive(Clone, Debug, Eq, Error, PartialEq)]
#[error("{line}:{column}: {kind}")]
pub struct MemberListError {
    /// The line, from 1.
    pub line: usize,
    /// The column, in characters, from 1.
    pub column: usize,
    /// What is wrong there.
    pub kind: MemberListErrorKind,
}

/// What is wrong with a list of members. Words of the list are cut at 40 characters.
#[derive(Clone, Debug, Eq, Error, PartialEq)]
#[non_exhaustive]
pub enum MemberListErrorKind {
    /// A line does not begin with an address and a port.
    #[error("\"{word}\" is no address and port, such as 10.0.0.1:80 or [2001:db8::1]:80")]
    InvalidAddress {
        /// What is there.
        word: String,
    },
    /// What follows the address is no `key=value`.
    #[error("\"{word}\" is no key=value")]
    NotKeyValue {
        /// What is there.
        word: String,
    },
    /// There is no such key.
    #[error("there is no \"{key}\": use name, weight, tier, max_connections or resume_below")]
    UnknownKey {
        /// What is there.
        key: String,
    },
    /// A key is there twice.
    #[error("{key} is given twice")]
    DuplicateKey {
        /// The key.
        key: &'static str,
    },
    /// A value is no number, or too large.
    #[error("{key} is a number from 0 to {max}, not \"{word}\"")]
    InvalidNumber {
        /// The key.
        key: &'static str,
        /// The largest value.
        max: u32,
        /// What is there.
        word: String,
    },
    /// `resume_below` is above `max_connections`.
    #[error("resume_below {resume} is above max_connections {max}")]
    ResumeAboveMax {
        /// The lower threshold.
        resume: u32,
        /// The upper one; 0 where none is given.
        max: u32,
    },
    /// A name is empty or too long.
    #[error("a name has 1 to {MAX_NAME_LEN} bytes")]
    InvalidName,
    /// A name is there twice; without `name=` the address is the name.
    #[error("\"{name}\" is on line {first_line} already")]
    DuplicateName {
        /// The name.
        name: String,
        /// The line it was on first.
        first_line: usize,
    },
    /// There are more members than a set holds.
    #[error("a set holds {MAX_BACKENDS} members, and no more")]
    TooManyMembers,
    /// The text is not UTF-8 from here on.
    #[error("this is not UTF-8")]
    NotUtf8,
}

/// Reads a list: a member a line; what follows a `#` at the beginning of a word is a comment.
pub(super) fn parse(text: &str) -> Result<Vec<Spec<SocketAddr>>, MemberListError> {
    let mut specs: Vec<Spec<SocketAddr>> = Vec::new();
    let mut lines_of = HashMap::new();
    // An editor's mark at the head of the file is no part of the first address.
    let text = text.strip_prefix('\u{feff}').unwrap_or(text);
    for (line, content) in (1..).zip(text.lines()) {
        let at = |(column, fault)| MemberListError { line, column, kind: fault };
        let Some(spec) = parse_line(content).map_err(at)? else { continue };
        if let Some(first) = lines_of.insert(spec.id.clone(), line) {
            let name = excerpt(spec.id.as_str());
            return Err(at((1, MemberListErrorKind::DuplicateName { name, first_line: first })));
        }
        if specs.len() == MAX_BACKENDS {
            return Err(at((1, MemberListErrorKind::TooManyMembers)));
        }
        specs.push(spec);
    }
    Ok(specs)
}

/// The same of bytes from anywhere.
pub(super) fn parse_bytes(bytes: &[u8]) -> Result<Vec<Spec<SocketAddr>>, MemberListError> {
    let error = match std::str::from_utf8(bytes) {
        Ok(text) => return parse(text),
        Err(error) => error,
    };
    let good = bytes.get(..error.valid_up_to()).unwrap_or_default();
    let good = std::str::from_utf8(good).unwrap_or_default();
    let line = 1 + good.matches('\n').count();
    let column = 1 + good.rsplit('\n').next().map_or(0, |last| last.chars().count());
    Err(MemberListError { line, column, kind: MemberListErrorKind::NotUtf8 })
}

/// One line; `None` where nothing is on it. A fault comes with its column.
fn parse_line(line: &str) -> Result<Option<Spec<SocketAddr>>, (usize, MemberListErrorKind)> {
    let mut words = words(line);
    let Some((column, word)) = words.next() else { return Ok(None) };
    let address: SocketAddr = word
        .parse()
        .map_err(|_| (column, MemberListErrorKind::InvalidAddress { word: excerpt(word) }))?;

    let mut name = None;
    let (mut weight, mut tier, mut max, mut resume) = (None, None, None, None);
    let mut resume_column = column;
    for (column, word) in words {
        let at = |fault| (column, fault);
        let Some((key, value)) = word.split_once('=') else {
            return Err(at(MemberListErrorKind::NotKeyValue { word: excerpt(word) }));
        };
        let value_at = (column + key.chars().count() + 1, value);
        match key {
            "name" => {
                if value.is_empty() || value.len() > MAX_NAME_LEN {
                    return Err((value_at.0, MemberListErrorKind::InvalidName));
                }
                set_once(&mut name, value, "name").map_err(at)?;
            }
            "weight" => parse_number(&mut weight, "weight", MAX_WEIGHT, column, value_at)?,
            "tier" => parse_number(&mut tier, "tier", u8::MAX.into(), column, value_at)?,
            "max_connections" => {
                parse_number(&mut max, "max_connections", MAX_CONNECTION_LIMIT, column, value_at)?
            }
            "resume_below" => {
                resume_column = column;
                parse_number(&mut resume, "resume_below", MAX_CONNECTION_LIMIT, column, value_at)?;
            }
            _ => return Err(at(MemberListErrorKind::UnknownKey { key: excerpt(key) })),
        }
    }
    let (max, resume) = (max.unwrap_or(0), resume.unwrap_or(0));
    if resume > max {
        return Err((resume_column, MemberListErrorKind::ResumeAboveMax { resume, max }));
    }
    let spec = match name {
        Some(name) => Spec::new(name, address).address(address),
        None => Spec::from(address),
    };
    Ok(Some(
        spec.weight(weight.unwrap_or(1))
            .tier(u8::try_from(tier.unwrap_or(0)).unwrap_or(u8::MAX))
            .limits(Limits::new(max).with_resume_below(resume)),
    ))
}

/// The largest connection limit there is: see [`Limits::new`].
const MAX_CONNECTION_LIMIT: u32 = 1 << 30;

/// The words of a line up to a comment, each with its column.
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
    place: &mut Option<V>,
    value: V,
    key: &'static str,
) -> Result<(), MemberListErrorKind> {
    match place.replace(value) {
        None => Ok(()),
        Some(_) => Err(MemberListErrorKind::DuplicateKey { key }),
    }
}

fn parse_number(
    place: &mut Option<u32>,
    key: &'static str,
    max: u32,
    key_column: usize,
    (column, word): (usize, &str),
) -> Result<(), (usize, MemberListErrorKind)> {
    // `+5` is a number for the standard library, and a slip of the pen here.
    let digits = Some(word).filter(|word| word.bytes().all(|byte| byte.is_ascii_digit()));
    let value = digits.and_then(|word| word.parse().ok()).filter(|&value: &u32| value <= max);
    let value = value.ok_or_else(|| {
        (column, MemberListErrorKind::InvalidNumber { key, max, word: excerpt(word) })
    })?;
    set_once(place, value, key).map_err(|fault| (key_column, fault))
}

/// A word that comes from outside, fit for a message.
fn excerpt(word: &str) -> String {
    let mut text: String = word.chars().take(40).flat_map(char::escape_debug).collect();
    if word.chars().nth(40).is_some() {
        text.push('…');
    }
    text
}
