//! How a scheduler is written in configuration: `wlc`, `sh(sh-port)`, `priority(wlc, panic=50)`.
//!
//! ```text
//! expression = name [ "(" argument { "," argument } ")" ]
//! argument   = key "=" value | expression
//! ```
//!
//! A name or key is made of ASCII letters, digits, `_` and `-`. A value is whatever stands before
//! the next comma or parenthesis, without the blanks around it. A flag is an expression without
//! arguments; only the scheduler it is given to can tell it from a nested scheduler. Blanks between
//! the parts mean nothing.
//!
//! Parsing costs time in proportion to the text, which has at most 1024 bytes and nests at most 8
//! deep; it panics on nothing.

use std::fmt;
use std::str::FromStr;

use thiserror::Error;

/// A scheduler as written: its name and what stands between its parentheses.
///
/// Says nothing about whether such a scheduler exists; that is for a
/// [`Registry`](crate::scheduler::Registry).
///
/// # Examples
/// ```
/// use lvs::scheduler::{SchedulerArgument, SchedulerExpression};
///
/// let it: SchedulerExpression = "priority( wlc,panic = 50 )".parse()?;
/// assert_eq!(it.parse_name(), "priority");
/// assert!(matches!(&it.arguments()[1], SchedulerArgument::Value { key, .. } if key == "panic"));
/// assert_eq!(it.to_string(), "priority(wlc, panic=50)");
/// # Ok::<(), lvs::scheduler::SchedulerExpressionError>(())
/// ```
#[derive(Clone, Debug, Eq, Hash, PartialEq)]
pub struct SchedulerExpression {
    name: String,
    arguments: Vec<SchedulerArgument>,
}

/// What can stand between the parentheses of an [`SchedulerExpression`].
#[derive(Clone, Debug, Eq, Hash, PartialEq)]
pub enum SchedulerArgument {
    /// `replicas=100`.
    Value {
        /// What stands before the sign.
        key: String,
        /// What stands behind it; never empty.
        value: String,
    },
    /// A nested scheduler or, where it has no arguments of its own, perhaps a flag.
    Expression(SchedulerExpression),
}

/// Why a text is no [`SchedulerExpression`].
#[derive(Clone, Debug, Eq, Error, PartialEq)]
#[non_exhaustive]
pub enum SchedulerExpressionError {
    /// Something else must stand here.
    #[error("unexpected {found:?} at byte {at} where {expected} is due")]
    UnexpectedChar {
        /// The character.
        found: char,
        /// Its offset in bytes.
        at: usize,
        /// What can stand here.
        expected: &'static str,
    },
    /// The text stops too early.
    #[error("unexpected end at byte {at} where {expected} is due")]
    UnexpectedEnd {
        /// The length of the text in bytes.
        at: usize,
        /// What must still come.
        expected: &'static str,
    },
    /// Schedulers stand in each other more than [`SchedulerExpression::MAX_DEPTH`] deep.
    #[error(
        "scheduler {name} at byte {offset} is nested more than {} deep",
        SchedulerExpression::MAX_DEPTH
    )]
    TooDeep {
        /// The name of the innermost one.
        name: String,
        /// Its offset in bytes.
        offset: usize,
    },
    /// The text is longer than [`SchedulerExpression::MAX_LEN`].
    #[error(
        "{len} bytes are more than the {} of a scheduler expression",
        SchedulerExpression::MAX_LEN
    )]
    TooLong {
        /// Its length in bytes.
        len: usize,
    },
}

impl SchedulerExpression {
    /// The longest text that is read, in bytes.
    pub const MAX_LEN: usize = 1024;
    /// How deep expressions may stand in each other; a plain name is 1 deep.
    pub const MAX_DEPTH: usize = 8;

    /// The name of the scheduler.
    #[must_use]
    pub fn name(&self) -> &str {
        &self.name
    }

    /// What it is given, in the order written.
    #[must_use]
    pub fn arguments(&self) -> &[SchedulerArgument] {
        &self.arguments
    }

    pub(in crate::scheduler) fn into_parts(self) -> (String, Vec<SchedulerArgument>) {
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
            Some(_) => Err(parser.unexpected_error("the end")),
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
pub(in crate::scheduler) fn is_name(text: &str) -> bool {
    !text.is_empty() && text.len() <= SchedulerExpression::MAX_LEN && text.chars().all(is_name_char)
}

fn is_name_char(c: char) -> bool {
    c.is_ascii_alphanumeric() || c == '_' || c == '-'
}

const EXPECTED_NAME: &str = "a name";
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
        let (at, name) = self.parse_name()?;
        self.parse_expression_after_name(at, name, depth)
    }

    /// Goes on behind the name of an expression.
    fn parse_expression_after_name(
        &mut self,
        at: usize,
        name: &str,
        depth: usize,
    ) -> Result<SchedulerExpression, SchedulerExpressionError> {
        if depth > SchedulerExpression::MAX_DEPTH {
            return Err(SchedulerExpressionError::TooDeep { name: name.to_owned(), offset: at });
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
        let (at, name) = self.parse_name()?;
        if self.consume_char('=') {
            let value = self.parse_value()?.to_owned();
            return Ok(SchedulerArgument::Value { key: name.to_owned(), value });
        }
        self.parse_expression_after_name(at, name, depth + 1).map(SchedulerArgument::Expression)
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

    /// Moves on to the first character that `stops`, and returns what was passed.
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

    /// The next character that is no blank.
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
                SchedulerExpressionError::UnexpectedChar { found, at: self.offset, expected }
            }
            None => SchedulerExpressionError::UnexpectedEnd { at: self.offset, expected },
        }
    }

    fn remaining(&self) -> &'a str {
        // `at` only ever moves by whole characters.
        &self.text[self.offset..]
    }
}

#[cfg(all(test, not(lvs_loom)))]
mod tests {
    use proptest::prelude::*;
    use proptest::test_runner::RngSeed;

    use super::*;

    fn parse(text: &str) -> Result<SchedulerExpression, SchedulerExpressionError> {
        text.parse()
    }

    fn plain(name: &str) -> SchedulerExpression {
        SchedulerExpression { name: name.to_owned(), arguments: Vec::new() }
    }

    fn value(key: &str, value: &str) -> SchedulerArgument {
        SchedulerArgument::Value { key: key.to_owned(), value: value.to_owned() }
    }

    #[test]
    fn names_flags_values_and_nested_schedulers_are_told_apart() {
        assert_eq!(parse("peak_ewma"), Ok(plain("peak_ewma")));
        let maglev = SchedulerExpression { arguments: vec![value("seed", "7")], ..plain("maglev") };
        let arguments = vec![
            SchedulerArgument::Expression(maglev),
            SchedulerArgument::Expression(plain("sh-port")),
            value("factor", "1.25"),
        ];
        let bounded = SchedulerExpression { arguments, ..plain("bounded") };
        assert_eq!(parse("bounded(maglev(seed=7), sh-port, factor=1.25)"), Ok(bounded));
    }

    #[test]
    fn blanks_mean_nothing_but_inside_a_value() {
        let it = parse(" a ( b = c  d , e\t( f ) ) ").expect("well formed");
        assert_eq!(it.to_string(), "a(b=c  d, e(f))");
        assert_eq!(it.arguments()[0], value("b", "c  d"));
    }

    #[test]
    fn an_error_says_what_was_found_where_and_what_was_due() {
        let unexpected = |found, at, expected| {
            Err(SchedulerExpressionError::UnexpectedChar { found, at, expected })
        };
        let end = |at, expected| Err(SchedulerExpressionError::UnexpectedEnd { at, expected });
        assert_eq!(parse(""), end(0, EXPECTED_NAME));
        assert_eq!(parse("  "), end(2, EXPECTED_NAME));
        assert_eq!(parse("(rr)"), unexpected('(', 0, EXPECTED_NAME));
        assert_eq!(parse("rr()"), unexpected(')', 3, EXPECTED_NAME));
        assert_eq!(parse("rr(a,)"), unexpected(')', 5, EXPECTED_NAME));
        assert_eq!(parse("rr(a"), end(4, EXPECTED_SEPARATOR));
        assert_eq!(parse("rr(a b)"), unexpected('b', 5, EXPECTED_SEPARATOR));
        assert_eq!(parse("rr(a="), end(5, EXPECTED_VALUE));
        assert_eq!(parse("rr(a=,b)"), unexpected(',', 5, EXPECTED_VALUE));
        assert_eq!(parse("rr(a=b(c))"), unexpected('(', 6, EXPECTED_SEPARATOR));
        assert_eq!(parse("rr)"), unexpected(')', 2, "the end"));
        assert_eq!(parse("rr=1"), unexpected('=', 2, "the end"));
        assert_eq!(parse("wörter"), unexpected('ö', 1, "the end"));
        assert_eq!(
            parse("rr(é)").expect_err("no name").to_string(),
            "unexpected 'é' at byte 3 where a name is due"
        );
    }

    #[test]
    fn depth_and_length_are_bounded() {
        let nested =
            |depth: usize| format!("{}{}", "a(".repeat(depth - 1) + "z", ")".repeat(depth - 1));
        assert!(parse(&nested(SchedulerExpression::MAX_DEPTH)).is_ok());
        assert_eq!(
            parse(&nested(SchedulerExpression::MAX_DEPTH + 1)),
            Err(SchedulerExpressionError::TooDeep { name: "z".to_owned(), offset: 16 })
        );
        assert_eq!(
            parse(&"(".repeat(1024)),
            Err(SchedulerExpressionError::UnexpectedChar {
                found: '(',
                at: 0,
                expected: EXPECTED_NAME
            })
        );
        assert!(parse(&"a".repeat(SchedulerExpression::MAX_LEN)).is_ok());
        assert_eq!(
            parse(&"a".repeat(SchedulerExpression::MAX_LEN + 1)),
            Err(SchedulerExpressionError::TooLong { len: 1025 })
        );
    }

    fn any_expression() -> impl Strategy<Value = SchedulerExpression> {
        let name = || "[A-Za-z0-9_-]{1,8}";
        let any_value = (name(), "[^,()\\s]([^,()]{0,6}[^,()\\s])?")
            .prop_map(|(key, value)| SchedulerArgument::Value { key, value });
        let leaf = name().prop_map(|name| SchedulerExpression { name, arguments: Vec::new() });
        leaf.prop_recursive(3, 12, 3, move |inner| {
            let argument =
                prop_oneof![any_value.clone(), inner.prop_map(SchedulerArgument::Expression)];
            (name(), prop::collection::vec(argument, 1..4))
                .prop_map(|(name, arguments)| SchedulerExpression { name, arguments })
        })
    }

    proptest! {
        #![proptest_config(ProptestConfig {
            failure_persistence: None,
            rng_seed: RngSeed::Fixed(1),
            ..ProptestConfig::default()
        })]

        #[test]
        fn what_is_written_reads_back_the_same(it in any_expression()) {
            prop_assume!(it.to_string().len() <= SchedulerExpression::MAX_LEN);
            prop_assert_eq!(parse(&it.to_string()), Ok(it));
        }

        #[test]
        fn no_text_panics_and_what_parses_is_stable(text in "([a-c=,() \u{a0}é.-]|\\PC){0,40}") {
            match parse(&text) {
                Ok(it) => prop_assert_eq!(parse(&it.to_string()), Ok(it)),
                Err(SchedulerExpressionError::UnexpectedChar { found, at, .. }) => {
                    prop_assert!(text[at..].starts_with(found));
                }
                Err(SchedulerExpressionError::UnexpectedEnd { at, .. }) => prop_assert_eq!(at, text.len()),
                Err(other) => prop_assert!(false, "{}", other),
            }
        }
    }
}
