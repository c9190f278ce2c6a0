//! The syntax of `keepalived.conf`: a directive per line, which may have a block of directives.

use std::cell::Cell;

use crate::director::import::error::ImportError;

/// A directive: its words, and its block.
#[derive(Debug)]
pub(super) struct KeepalivedDirective {
    pub(super) line: usize,
    pub(super) words: Vec<String>,
    pub(super) block: Option<Vec<KeepalivedDirective>>,
    /// Whether the directive has been converted or reported.
    is_used: Cell<bool>,
}

/// The maximum depth of nested blocks: a deeper file is refused instead of using up the stack.
const MAX_BLOCK_DEPTH: usize = 32;

#[derive(Debug, PartialEq)]
enum KeepalivedToken {
    Word(String),
    OpenBrace,
    CloseBrace,
    EndOfLine,
}

/// Parses a file.
pub(super) fn parse(text: &str) -> Result<Vec<KeepalivedDirective>, ImportError> {
    let mut tokens = Vec::new();
    for (n, line) in text.lines().enumerate() {
        tokens.extend(tokenize(line).into_iter().map(|token| (n + 1, token)));
        tokens.push((n + 1, KeepalivedToken::EndOfLine));
    }
    let mut position = 0;
    let nodes = parse_block(&tokens, &mut position, 0)?;
    match tokens.get(position) {
        Some((line, _)) => Err(ImportError::new(*line, "this `}` closes no block")),
        None => Ok(nodes),
    }
}

/// Parses directives up to the end of a block; `position` is left at its `}`.
fn parse_block(
    tokens: &[(usize, KeepalivedToken)],
    position: &mut usize,
    depth: usize,
) -> Result<Vec<KeepalivedDirective>, ImportError> {
    let mut nodes: Vec<KeepalivedDirective> = Vec::new();
    let mut words = Vec::new();
    let mut first_line = 0;
    let flush = |nodes: &mut Vec<KeepalivedDirective>, words: &mut Vec<String>, line| {
        if !words.is_empty() {
            nodes.push(KeepalivedDirective::new(line, std::mem::take(words)));
        }
    };
    while let Some((line, token)) = tokens.get(*position) {
        match token {
            KeepalivedToken::Word(word) => {
                if words.is_empty() {
                    first_line = *line;
                }
                words.push(word.clone());
            }
            KeepalivedToken::EndOfLine => flush(&mut nodes, &mut words, first_line),
            KeepalivedToken::CloseBrace => {
                flush(&mut nodes, &mut words, first_line);
                return Ok(nodes);
            }
            KeepalivedToken::OpenBrace => {
                flush(&mut nodes, &mut words, first_line);
                if depth == MAX_BLOCK_DEPTH {
                    return Err(ImportError::new(
                        *line,
                        format!("blocks are nested deeper than {MAX_BLOCK_DEPTH}"),
                    ));
                }
                let open = *line;
                *position += 1;
                let inner = parse_block(tokens, position, depth + 1)?;
                if tokens.get(*position).is_none() {
                    return Err(ImportError::new(open, "the block has no closing `}`"));
                }
                match nodes.last_mut().filter(|node| node.block.is_none()) {
                    Some(node) => node.block = Some(inner),
                    None => {
                        return Err(ImportError::new(
                            open,
                            "the block has no directive before its `{`",
                        ));
                    }
                }
            }
        }
        *position += 1;
    }
    flush(&mut nodes, &mut words, first_line);
    Ok(nodes)
}

/// Splits a line into words and braces. `#` and `!` begin a comment; quotes make one word.
fn tokenize(line: &str) -> Vec<KeepalivedToken> {
    let mut tokens = Vec::new();
    let mut word: Option<String> = None;
    let mut quote = None;
    for character in line.chars() {
        match (quote, character) {
            (Some(end), _) if character == end => quote = None,
            (Some(_), _) => word.get_or_insert_default().push(character),
            (None, '"' | '\'') => {
                quote = Some(character);
                word.get_or_insert_default();
            }
            (None, '#' | '!') => break,
            (None, '{' | '}') => {
                tokens.extend(word.take().map(KeepalivedToken::Word));
                tokens.push(if character == '{' {
                    KeepalivedToken::OpenBrace
                } else {
                    KeepalivedToken::CloseBrace
                });
            }
            (None, _) if character.is_whitespace() => {
                tokens.extend(word.take().map(KeepalivedToken::Word))
            }
            (None, _) => word.get_or_insert_default().push(character),
        }
    }
    tokens.extend(word.map(KeepalivedToken::Word));
    tokens
}

impl KeepalivedDirective {
    fn new(line: usize, words: Vec<String>) -> Self {
        Self { line, words, block: None, is_used: Cell::new(false) }
    }

    /// Returns the first word.
    pub(super) fn name(&self) -> &str {
        self.words.first().map_or("", |word| word)
    }

    /// Returns the words after the name.
    pub(super) fn values(&self) -> &[String] {
        self.words.get(1..).unwrap_or_default()
    }

    pub(super) fn value(&self) -> Option<&str> {
        self.values().first().map(String::as_str)
    }

    /// Marks the directive as converted or reported.
    pub(super) fn mark_used(&self) -> &Self {
        self.is_used.set(true);
        self
    }

    pub(super) fn children(&self) -> &[Self] {
        self.block.as_deref().unwrap_or_default()
    }

    /// Returns the directives of a name in the block, and marks them as used.
    pub(super) fn children_named<'a>(&'a self, name: &'a str) -> impl Iterator<Item = &'a Self> {
        self.children().iter().filter(move |node| node.name() == name).map(Self::mark_used)
    }

    /// Returns the last directive of a name in the block, which is the effective one. Marks all of
    /// that name as used.
    pub(super) fn last_child<'a>(&'a self, name: &'a str) -> Option<&'a Self> {
        self.children_named(name).last()
    }

    /// Returns the value of the last directive of a name. Marks all of that name as used.
    pub(super) fn child_value<'a>(&'a self, name: &'a str) -> Option<&'a str> {
        self.last_child(name)?.value()
    }

    /// Returns the value of the last directive of a name if it is a number below 10^9 and not
    /// negative. Marks all of that name as used.
    pub(super) fn child_number(&self, name: &str) -> Option<f64> {
        self.child_value(name)?
            .parse()
            .ok()
            .filter(|number: &f64| number.is_finite() && (0.0..1e9).contains(number))
    }

    /// Writes the directives that are not marked as used; not those within an unused block.
    pub(super) fn collect_unused<'a>(nodes: &'a [Self], found: &mut Vec<&'a Self>) {
        for node in nodes {
            if node.is_used.get() {
                Self::collect_unused(node.children(), found);
            } else {
                found.push(node);
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn shape(nodes: &[KeepalivedDirective]) -> String {
        let shapes = nodes.iter().map(|node| match &node.block {
            Some(block) => format!("{}({})", node.words.join(" "), shape(block)),
            None => node.words.join(" "),
        });
        shapes.collect::<Vec<_>>().join("; ")
    }

    #[test]
    fn lines_and_blocks_are_parsed() {
        let text = "a 1 # comment\nb \"x y\" {\n c\n d { e f }\n}\ng\n{\n! comment\n h 'z'\n}\n";
        let nodes = parse(text).expect("a valid file");
        assert_eq!(shape(&nodes), "a 1; b x y(c; d(e f)); g(h z)");
        assert_eq!(nodes[2].line, 6);
        let error_of = |text: &str| parse(text).expect_err(text).to_string();
        assert_eq!(error_of("a {\n b\n"), "line 1: the block has no closing `}`");
        assert_eq!(error_of("a\n}\n"), "line 2: this `}` closes no block");
        assert_eq!(error_of("{\n}\n"), "line 1: the block has no directive before its `{`");
        assert_eq!(error_of(&"a {\n".repeat(1000)), "line 33: blocks are nested deeper than 32");
    }
}
