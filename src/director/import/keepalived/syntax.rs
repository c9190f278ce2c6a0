//! The syntax of `keepalived.conf`: a line is a directive, and may have a block of lines.

use std::cell::Cell;

use crate::director::import::error::ImportError;

/// A directive.
#[derive(Debug)]
pub(super) struct KeepalivedDirective {
    pub(super) line: usize,
    pub(super) words: Vec<String>,
    pub(super) block: Option<Vec<KeepalivedDirective>>,
    /// It has been carried over, or somebody has said why not.
    is_used: Cell<bool>,
}

/// What the depth of a sound file never is.
const MAX_BLOCK_DEPTH: usize = 32;

#[derive(Debug, PartialEq)]
enum KeepalivedToken {
    Word(String),
    OpenBrace,
    CloseBrace,
    EndOfLine,
}

/// Reads a file.
pub(super) fn parse(text: &str) -> Result<Vec<KeepalivedDirective>, ImportError> {
    let mut tokens = Vec::new();
    for (n, line) in text.lines().enumerate() {
        tokens.extend(tokenize(line).into_iter().map(|token| (n + 1, token)));
        tokens.push((n + 1, KeepalivedToken::EndOfLine));
    }
    let mut place = 0;
    let nodes = parse_block(&tokens, &mut place, 0)?;
    match tokens.get(place) {
        Some((line, _)) => Err(ImportError::new(*line, "a `}` closes nothing")),
        None => Ok(nodes),
    }
}

/// The directives up to the end of a block.
fn parse_block(
    tokens: &[(usize, KeepalivedToken)],
    place: &mut usize,
    depth: usize,
) -> Result<Vec<KeepalivedDirective>, ImportError> {
    let mut nodes: Vec<KeepalivedDirective> = Vec::new();
    let mut words = Vec::new();
    let mut begun = 0;
    let flush = |nodes: &mut Vec<KeepalivedDirective>, words: &mut Vec<String>, line| {
        if !words.is_empty() {
            nodes.push(KeepalivedDirective::new(line, std::mem::take(words)));
        }
    };
    while let Some((line, token)) = tokens.get(*place) {
        match token {
            KeepalivedToken::Word(word) => {
                if words.is_empty() {
                    begun = *line;
                }
                words.push(word.clone());
            }
            KeepalivedToken::EndOfLine => flush(&mut nodes, &mut words, begun),
            KeepalivedToken::CloseBrace => {
                flush(&mut nodes, &mut words, begun);
                return Ok(nodes);
            }
            KeepalivedToken::OpenBrace => {
                flush(&mut nodes, &mut words, begun);
                if depth == MAX_BLOCK_DEPTH {
                    return Err(ImportError::new(*line, "blocks are too deep"));
                }
                let open = *line;
                *place += 1;
                let inner = parse_block(tokens, place, depth + 1)?;
                if tokens.get(*place).is_none() {
                    return Err(ImportError::new(open, "the block has no end"));
                }
                match nodes.last_mut().filter(|node| node.block.is_none()) {
                    Some(node) => node.block = Some(inner),
                    None => return Err(ImportError::new(open, "a block of what?")),
                }
            }
        }
        *place += 1;
    }
    flush(&mut nodes, &mut words, begun);
    Ok(nodes)
}

/// A line's words. What stands behind `#` or `!` is a remark; between quotes everything is a word.
fn tokenize(line: &str) -> Vec<KeepalivedToken> {
    let mut tokens = Vec::new();
    let mut word: Option<String> = None;
    let mut quote = None;
    for character in line.chars() {
        match (quote, character) {
            (Some(end), it) if it == end => quote = None,
            (Some(_), it) => word.get_or_insert_default().push(it),
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
            (None, it) if it.is_whitespace() => {
                tokens.extend(word.take().map(KeepalivedToken::Word))
            }
            (None, it) => word.get_or_insert_default().push(it),
        }
    }
    tokens.extend(word.map(KeepalivedToken::Word));
    tokens
}

impl KeepalivedDirective {
    fn new(line: usize, words: Vec<String>) -> Self {
        Self { line, words, block: None, is_used: Cell::new(false) }
    }

    /// What it is.
    pub(super) fn name(&self) -> &str {
        self.words.first().map_or("", |word| word)
    }

    /// The words behind that.
    pub(super) fn values(&self) -> &[String] {
        self.words.get(1..).unwrap_or_default()
    }

    pub(super) fn value(&self) -> Option<&str> {
        self.values().first().map(String::as_str)
    }

    /// It was looked at: whoever did has carried it over, or said why not.
    pub(super) fn mark_used(&self) -> &Self {
        self.is_used.set(true);
        self
    }

    pub(super) fn children(&self) -> &[Self] {
        self.block.as_deref().unwrap_or_default()
    }

    /// The directives of a name in its block, which are looked at now.
    pub(super) fn children_named<'a>(&'a self, name: &'a str) -> impl Iterator<Item = &'a Self> {
        self.children().iter().filter(move |node| node.name() == name).map(Self::mark_used)
    }

    /// The last of them, which is the one that counts.
    pub(super) fn last_child<'a>(&'a self, name: &'a str) -> Option<&'a Self> {
        self.children_named(name).last()
    }

    /// The value of the last.
    pub(super) fn child_value<'a>(&'a self, name: &'a str) -> Option<&'a str> {
        self.last_child(name)?.value()
    }

    /// The value of the last, if it is a number.
    pub(super) fn child_number(&self, name: &str) -> Option<f64> {
        self.child_value(name)?
            .parse()
            .ok()
            .filter(|it: &f64| it.is_finite() && (0.0..1e9).contains(it))
    }

    /// Those that nobody has looked at.
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
    fn lines_and_blocks_are_told_apart() {
        let text = "a 1 # said\nb \"x y\" {\n c\n d { e f }\n}\ng\n{\n! said\n h 'z'\n}\n";
        let nodes = parse(text).expect("sound");
        assert_eq!(shape(&nodes), "a 1; b x y(c; d(e f)); g(h z)");
        assert_eq!(nodes[2].line, 6);
        let wrong = |text| parse(text).expect_err("unsound").to_string();
        assert_eq!(wrong("a {\n b\n"), "line 1: the block has no end");
        assert_eq!(wrong("a\n}\n"), "line 2: a `}` closes nothing");
        assert_eq!(wrong("{\n}\n"), "line 1: a block of what?");
        assert_eq!(wrong(&"a {\n".repeat(1000)), "line 33: blocks are too deep");
    }
}
