//! Parses schedulers as they are written in configuration: `wlc`, `sh(sh-port)`,
//! `priority(wlc, panic=50)`.
//!
//! ```text
//! expression = name [ "(" argument { "," argument } ")" ]
//! argument   = key "=" value | expression
//! ```
//!
//! A name or key consists of ASCII letters, digits, `_` and `-`. A value is the text before the
//! next comma or parenthesis, without the blanks around it. A flag is an expression without
//! arguments; only the scheduler that takes it can tell a flag from a nested scheduler. Blanks
//! between the parts are ignored.
//!
//! Parsing takes time in proportion to the length of the text, which has at most 1024 bytes and 8
//! levels of nesting. No text makes the parser panic.

use std::fmt;
use std::str::FromStr;

use thiserror::Error;

/// A scheduler as written: its name and the arguments between its parentheses.
///
/// Whether a scheduler of the name exists is for a
/// [`SchedulerRegistry`](crate::scheduler::SchedulerRegistry) to decide.
///
/// # Examples
/// ```
/// use lvs::scheduler::{SchedulerArgument, SchedulerExpression};
///
/// let expression: SchedulerExpression = "priority( wlc,panic = 50 )".parse()?;
/// assert_eq!(expression.name(), "priority");
/// assert!(matches!(&expression.arguments()[1], SchedulerArgument::Value { key, .. } if key == "panic"));
/// assert_eq!(expression.to_string(), "priority(wlc, panic=50)");
/// # Ok::<(), lvs::scheduler::SchedulerExpressionError>(())
/// ```
#[derive(Clone, Debug, Eq, Hash, PartialEq)]
pub struct SchedulerExpression {
    name: String,
    arguments: Vec<SchedulerArgument>,
}

/// An argument of a [`SchedulerExpression`].
#[derive(Clone, Debug, Eq, Hash, PartialEq)]
#[non_exhaustive]
pub enum SchedulerArgument {
    /// `replicas=100`.
    Value {
        /// The text before the equals sign.
        key: String,
        /// The text after the equals sign; never empty.
        value: String,
    },
    /// A nested scheduler or, if it has no arguments, perhaps a flag.
    Expression(SchedulerExpression),
}

/// A text that is not a [`SchedulerExpression`].
#[derive(Clone, Debug, Eq, Error, PartialEq)]
#[non_exhaustive]
pub enum SchedulerExpressionError {
    /// A character cannot stand at its place.
    #[error("unexpected {found:?} at byte {offset} of the scheduler, where {expected} is expected")]
    UnexpectedChar {
        /// The character.
        found: char,
        /// Its offset in bytes.
        offset: usize,
        /// The text that can follow at this offset.
        expected: &'static str,
    },
    /// The text ends too early.
    #[error("the scheduler ends at byte {offset}, where {expected} is expected")]
    UnexpectedEnd {
        /// The length of the text in bytes.
        offset: usize,
        /// The text that can follow at this offset.
        expected: &'static str,
    },
    /// Schedulers are nested more than [`SchedulerExpression::MAX_DEPTH`] levels deep.
    #[error(
        "scheduler {name} at byte {offset} is nested more than {} levels deep",
        SchedulerExpression::MAX_DEPTH
    )]
    TooDeep {
        /// The name of the innermost scheduler.
        name: String,
        /// Its offset in bytes.
        offset: usize,
    },
    /// The text is longer than [`SchedulerExpression::MAX_LEN`].
    #[error(
        "a scheduler expression of {len} bytes is longer than {} bytes",
        SchedulerExpression::MAX_LEN
    )]
    TooLong {
        /// Its length in bytes.
        len: usize,
    },
}

impl SchedulerExpression {
    /// The length of the longest text that is accepted, in bytes.
    pub const MAX_LEN: usize = 1024;
    /// The largest number of levels; a plain name is 1 level.
    pub const MAX_DEPTH: usize = 8;

    /// Returns the name of the scheduler.
    #[must_use]
    pub fn name(&self) -> &str {
        &self.name
    }

    /// Returns the arguments in the order written.
    #[must_use]
    pub fn arguments(&self) -> &[SchedulerArgument] {
        &self.arguments
    }

    pub(super) fn into_parts(self) -> (String, Vec<SchedulerArgument>) {
        (self.name, self.arguments)
    }
}

impl FromStr for SchedulerExpression {
    type Err = SchedulerExpressionError;

    fn from_str(text: &str) -> Result<Self, SchedulerExpressionError> {
        if text.len() > Self::MAX_LEN {
            return Err(SchedulerExpressionError::TooLong { len: text.len() });
        }
        let mut parser = ExpressionParser { text, offset: 0 };
        let expression = parser.parse_expression(1)?;
        match parser.peek() {
            None => Ok(expression),
            Some(_) => Err(parser.unexpected_error(EXPECTED_END)),
        }
    }
}

impl fmt::Display for SchedulerExpression {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.name)?;
        for (i, argument) in self.arguments.iter().enumerate() {
            f.write_str(if i == 0 { "(" } else { ", " })?;
            argument.fmt(f)?;
        }
        if self.arguments.is_empty() { Ok(()) } else { f.write_str(")") }
    }
}

impl fmt::Display for SchedulerArgument {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Value { key, value } => write!(f, "{key}={value}"),
            Self::Expression(expression) => expression.fmt(f),
        }
    }
}

/// Tells whether a text can be a name in an expression.
pub(super) fn is_name(text: &str) -> bool {
    !text.is_empty() && text.len() <= SchedulerExpression::MAX_LEN && text.chars().all(is_name_char)
}

fn is_name_char(c: char) -> bool {
    c.is_ascii_alphanumeric() || c == '_' || c == '-'
}

const EXPECTED_NAME: &str = "the name of a scheduler or parameter";
const EXPECTED_END: &str = "the end of the scheduler";
const EXPECTED_VALUE: &str = "a value";
const EXPECTED_SEPARATOR: &str = "',' or ')'";

struct ExpressionParser<'a> {
    text: &'a str,
    offset: usize,
}

impl<'a> ExpressionParser<'a> {
    fn parse_expression(
        &mut self,
        depth: usize,
    ) -> Result<SchedulerExpression, SchedulerExpressionError> {
        let (offset, name) = self.parse_name()?;
        self.parse_expression_after_name(offset, name, depth)
    }

    /// Parses the rest of an expression behind its name.
    fn parse_expression_after_name(
        &mut self,
        offset: usize,
        name: &str,
        depth: usize,
    ) -> Result<SchedulerExpression, SchedulerExpressionError> {
        if depth > SchedulerExpression::MAX_DEPTH {
            return Err(SchedulerExpressionError::TooDeep { name: name.to_owned(), offset });
        }
        let mut arguments = Vec::new();
        if self.consume_char('(') {
            arguments.push(self.parse_argument(depth)?);
            while self.consume_char(',') {
                arguments.push(self.parse_argument(depth)?);
            }
            if !self.consume_char(')') {
                return Err(self.unexpected_error(EXPECTED_SEPARATOR));
            }
        }
        Ok(SchedulerExpression { name: name.to_owned(), arguments })
    }

    fn parse_argument(
        &mut self,
        depth: usize,
    ) -> Result<SchedulerArgument, SchedulerExpressionError> {
        let (offset, name) = self.parse_name()?;
        if self.consume_char('=') {
            let value = self.parse_value()?.to_owned();
            return Ok(SchedulerArgument::Value { key: name.to_owned(), value });
        }
        self.parse_expression_after_name(offset, name, depth + 1).map(SchedulerArgument::Expression)
    }

    fn parse_name(&mut self) -> Result<(usize, &'a str), SchedulerExpressionError> {
        self.skip_blanks();
        let name = self.read_until(|c| !is_name_char(c));
        if name.is_empty() {
            return Err(self.unexpected_error(EXPECTED_NAME));
        }
        Ok((self.offset - name.len(), name))
    }

    fn parse_value(&mut self) -> Result<&'a str, SchedulerExpressionError> {
        self.skip_blanks();
        let value = self.read_until(|c| matches!(c, ',' | '(' | ')')).trim_end();
        if value.is_empty() {
            return Err(self.unexpected_error(EXPECTED_VALUE));
        }
        Ok(value)
    }

    /// Consumes the text before the first character that `stops`, and returns it.
    fn read_until(&mut self, stops: impl Fn(char) -> bool) -> &'a str {
        let rest = self.remaining();
        let len = rest.find(stops).unwrap_or(rest.len());
        self.offset += len;
        &rest[..len]
    }

    fn consume_char(&mut self, wanted: char) -> bool {
        let found = self.peek() == Some(wanted);
        if found {
            self.offset += wanted.len_utf8();
        }
        found
    }

    /// Returns the next character that is not a blank.
    fn peek(&mut self) -> Option<char> {
        self.skip_blanks();
        self.remaining().chars().next()
    }

    fn skip_blanks(&mut self) {
        self.offset = self.text.len() - self.remaining().trim_start().len();
    }

    fn unexpected_error(&mut self, expected: &'static str) -> SchedulerExpressionError {
        match self.peek() {
            Some(found) => {
                SchedulerExpressionError::UnexpectedChar { found, offset: self.offset, expected }
            }
            None => SchedulerExpressionError::UnexpectedEnd { offset: self.offset, expected },
        }
    }

    fn remaining(&self) -> &'a str {
        // `offset` only moves by whole characters.
        &self.text[self.offset..]
    }
}

#[cfg(all(test, not(lvs_loom)))]
mod tests;
