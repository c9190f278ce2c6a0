//! What becomes of a keyword of keepalived.

/// What becomes of a keyword.
#[derive(Clone, Copy, Debug)]
pub(super) enum KeywordFate {
    /// Converted; at most this many words may follow it.
    Carried(usize),
    /// Converted, with a block of further keywords.
    Block(Keywords),
    /// Converted, with a block of values.
    Values,
    /// Reported, with the reason.
    Reported(&'static str),
    /// Reported as a warning, with what it changes.
    Warned(&'static str),
}

/// The keywords of a block, several for each fate.
pub(super) type Keywords = &'static [(&'static [&'static str], KeywordFate)];
