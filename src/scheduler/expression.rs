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
/// [`Registry`](super::Registry).
///
/// # Examples
/// ```
/// use lvs::scheduler::{Argument, Expression};
///
/// let it: Expression = "priority( wlc,panic = 50 )".parse()?;
/// assert_eq!(it.name(), "priority");
/// assert!(matches!(&it.arguments()[1], Argument::Value { key, .. } if key == "panic"));
/// assert_eq!(it.to_string(), "priority(wlc, panic=50)");
/// # Ok::<(), lvs::scheduler::ExpressionError>(())
/// ```
#[derive(Clone, Debug, Eq, Hash, PartialEq)]
pub struct Expression {
    name: String,
    arguments: Vec<Argument>,
}

/// What can stand between the parentheses of an [`Expression`].
#[derive(Clone, Debug, Eq, Hash, PartialEq)]
pub enum Argument {
    /// `replicas=100`.
    Value {
        /// What stands before the sign.
        key: String,
        /// What stands behind it; never empty.
        value: String,
    },
    /// A nested scheduler or, where it has no arguments of its own, perhaps a flag.
    Expression(Expression),
}

/// Why a text is no [`Expression`].
#[derive(Clone, Debug, Eq, Error, PartialEq)]
#[non_exhaustive]
pub enum ExpressionError {
    /// Something else must stand here.
    #[error("unexpected {found:?} at byte {at} where {expected} is due")]
    Unexpected {
        /// The character.
        found: char,
        /// Its offset in bytes.
        at: usize,
        /// What can stand here.
        expected: &'static str,
    },
    /// The text stops too early.
    #[error("unexpected end at byte {at} where {expected} is due")]
    End {
        /// The length of the text in bytes.
        at: usize,
        /// What must still come.
        expected: &'static str,
    },
    /// Schedulers stand in each other more than [`Expression::MAX_DEPTH`] deep.
    #[error("scheduler {name} at byte {at} is nested more than {} deep", Expression::MAX_DEPTH)]
    TooDeep {
        /// The name of the innermost one.
        name: String,
        /// Its offset in bytes.
        at: usize,
    },
    /// The text is longer than [`Expression::MAX_LEN`].
    #[error("{len} bytes are more than the {} of a scheduler expression", Expression::MAX_LEN)]
    TooLong {
        /// Its length in bytes.
        len: usize,
    },
}

impl Expression {
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
    pub fn arguments(&self) -> &[Argument] {
        &self.arguments
    }

    pub(super) fn into_parts(self) -> (String, Vec<Argument>) {
        (self.name, self.arguments)
    }
}

impl FromStr for Expression {
    type Err = ExpressionError;

    fn from_str(text: &str) -> Result<Self, ExpressionError> {
        if text.len() > Self::MAX_LEN {
            return Err(ExpressionError::TooLong { len: text.len() });
        }
        let mut parser = Parser { text, at: 0 };
        let expression = parser.expression(1)?;
        match parser.peek() {
            None => Ok(expression),
            Some(_) => Err(parser.unexpected("the end")),
        }
    }
}

impl fmt::Display for Expression {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.name)?;
        for (i, argument) in self.arguments.iter().enumerate() {
            f.write_str(if i == 0 { "(" } else { ", " })?;
            argument.fmt(f)?;
        }
        if self.arguments.is_empty() { Ok(()) } else { f.write_str(")") }
    }
}

impl fmt::Display for Argument {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Value { key, value } => write!(f, "{key}={value}"),
            Self::Expression(expression) => expression.fmt(f),
        }
    }
}

/// Tells whether a text can be a name in an expression.
pub(super) fn is_name(text: &str) -> bool {
    !text.is_empty() && text.len() <= Expression::MAX_LEN && text.chars().all(in_name)
}

fn in_name(c: char) -> bool {
    c.is_ascii_alphanumeric() || c == '_' || c == '-'
}

const NAME: &str = "a name";
const VALUE: &str = "a value";
const SEPARATOR: &str = "',' or ')'";

struct Parser<'a> {
    text: &'a str,
    at: usize,
}

impl<'a> Parser<'a> {
    fn expression(&mut self, depth: usize) -> Result<Expression, ExpressionError> {
        let (at, name) = self.name()?;
        self.expression_named(at, name, depth)
    }

    /// Goes on behind the name of an expression.
    fn expression_named(
        &mut self,
        at: usize,
        name: &str,
        depth: usize,
    ) -> Result<Expression, ExpressionError> {
        if depth > Expression::MAX_DEPTH {
            return Err(ExpressionError::TooDeep { name: name.to_owned(), at });
        }
        let mut arguments = Vec::new();
        if self.take('(') {
            arguments.push(self.argument(depth)?);
            while self.take(',') {
                arguments.push(self.argument(depth)?);
            }
            if !self.take(')') {
                return Err(self.unexpected(SEPARATOR));
            }
        }
        Ok(Expression { name: name.to_owned(), arguments })
    }

    fn argument(&mut self, depth: usize) -> Result<Argument, ExpressionError> {
        let (at, name) = self.name()?;
        if self.take('=') {
            let value = self.value()?.to_owned();
            return Ok(Argument::Value { key: name.to_owned(), value });
        }
        self.expression_named(at, name, depth + 1).map(Argument::Expression)
    }

    fn name(&mut self) -> Result<(usize, &'a str), ExpressionError> {
        self.skip_blanks();
        let name = self.until(|c| !in_name(c));
        if name.is_empty() {
            return Err(self.unexpected(NAME));
        }
        Ok((self.at - name.len(), name))
    }

    fn value(&mut self) -> Result<&'a str, ExpressionError> {
        self.skip_blanks();
        let value = self.until(|c| matches!(c, ',' | '(' | ')')).trim_end();
        if value.is_empty() {
            return Err(self.unexpected(VALUE));
        }
        Ok(value)
    }

    /// Moves on to the first character that `stops`, and returns what was passed.
    fn until(&mut self, stops: impl Fn(char) -> bool) -> &'a str {
        let rest = self.rest();
        let len = rest.find(stops).unwrap_or(rest.len());
        self.at += len;
        &rest[..len]
    }

    fn take(&mut self, wanted: char) -> bool {
        let found = self.peek() == Some(wanted);
        if found {
            self.at += wanted.len_utf8();
        }
        found
    }

    /// The next character that is no blank.
    fn peek(&mut self) -> Option<char> {
        self.skip_blanks();
        self.rest().chars().next()
    }

    fn skip_blanks(&mut self) {
        self.at = self.text.len() - self.rest().trim_start().len();
    }

    fn unexpected(&mut self, expected: &'static str) -> ExpressionError {
        match self.peek() {
            Some(found) => ExpressionError::Unexpected { found, at: self.at, expected },
            None => ExpressionError::End { at: self.at, expected },
        }
    }

    fn rest(&self) -> &'a str {
        // `at` only ever moves by whole characters.
        &self.text[self.at..]
    }
}

#[cfg(all(test, not(lvs_loom)))]
mod tests {
    use proptest::prelude::*;
    use proptest::test_runner::RngSeed;

    use super::*;

    fn parse(text: &str) -> Result<Expression, ExpressionError> {
        text.parse()
    }

    fn plain(name: &str) -> Expression {
        Expression { name: name.to_owned(), arguments: Vec::new() }
    }

    fn value(key: &str, value: &str) -> Argument {
        Argument::Value { key: key.to_owned(), value: value.to_owned() }
    }

    #[test]
    fn names_flags_values_and_nested_schedulers_are_told_apart() {
        assert_eq!(parse("peak_ewma"), Ok(plain("peak_ewma")));
        let maglev = Expression { arguments: vec![value("seed", "7")], ..plain("maglev") };
        let arguments = vec![
            Argument::Expression(maglev),
            Argument::Expression(plain("sh-port")),
            value("factor", "1.25"),
        ];
        let bounded = Expression { arguments, ..plain("bounded") };
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
        let unexpected =
            |found, at, expected| Err(ExpressionError::Unexpected { found, at, expected });
        let end = |at, expected| Err(ExpressionError::End { at, expected });
        assert_eq!(parse(""), end(0, NAME));
        assert_eq!(parse("  "), end(2, NAME));
        assert_eq!(parse("(rr)"), unexpected('(', 0, NAME));
        assert_eq!(parse("rr()"), unexpected(')', 3, NAME));
        assert_eq!(parse("rr(a,)"), unexpected(')', 5, NAME));
        assert_eq!(parse("rr(a"), end(4, SEPARATOR));
        assert_eq!(parse("rr(a b)"), unexpected('b', 5, SEPARATOR));
        assert_eq!(parse("rr(a="), end(5, VALUE));
        assert_eq!(parse("rr(a=,b)"), unexpected(',', 5, VALUE));
        assert_eq!(parse("rr(a=b(c))"), unexpected('(', 6, SEPARATOR));
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
        assert!(parse(&nested(Expression::MAX_DEPTH)).is_ok());
        assert_eq!(
            parse(&nested(Expression::MAX_DEPTH + 1)),
            Err(ExpressionError::TooDeep { name: "z".to_owned(), at: 16 })
        );
        assert_eq!(
            parse(&"(".repeat(1024)),
            Err(ExpressionError::Unexpected { found: '(', at: 0, expected: NAME })
        );
        assert!(parse(&"a".repeat(Expression::MAX_LEN)).is_ok());
        assert_eq!(
            parse(&"a".repeat(Expression::MAX_LEN + 1)),
            Err(ExpressionError::TooLong { len: 1025 })
        );
    }

    fn any_expression() -> impl Strategy<Value = Expression> {
        let name = || "[A-Za-z0-9_-]{1,8}";
        let any_value = (name(), "[^,()\\s]([^,()]{0,6}[^,()\\s])?")
            .prop_map(|(key, value)| Argument::Value { key, value });
        let leaf = name().prop_map(|name| Expression { name, arguments: Vec::new() });
        leaf.prop_recursive(3, 12, 3, move |inner| {
            let argument = prop_oneof![any_value.clone(), inner.prop_map(Argument::Expression)];
            (name(), prop::collection::vec(argument, 1..4))
                .prop_map(|(name, arguments)| Expression { name, arguments })
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
            prop_assume!(it.to_string().len() <= Expression::MAX_LEN);
            prop_assert_eq!(parse(&it.to_string()), Ok(it));
        }

        #[test]
        fn no_text_panics_and_what_parses_is_stable(text in "([a-c=,() \u{a0}é.-]|\\PC){0,40}") {
            match parse(&text) {
                Ok(it) => prop_assert_eq!(parse(&it.to_string()), Ok(it)),
                Err(ExpressionError::Unexpected { found, at, .. }) => {
                    prop_assert!(text[at..].starts_with(found));
                }
                Err(ExpressionError::End { at, .. }) => prop_assert_eq!(at, text.len()),
                Err(other) => prop_assert!(false, "{}", other),
            }
        }
    }
}
