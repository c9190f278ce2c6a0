//! The syntax of `keepalived.conf`: a line is a directive, and may have a block of lines.

use std::cell::Cell;

use crate::director::import::ImportError;

/// A directive.
#[derive(Debug)]
pub(super) struct Node {
    pub(super) line: usize,
    pub(super) words: Vec<String>,
    pub(super) block: Option<Vec<Node>>,
    /// It has been carried over, or somebody has said why not.
    seen: Cell<bool>,
}

/// What the depth of a sound file never is.
const DEPTH: usize = 32;

#[derive(Debug, PartialEq)]
enum Token {
    Word(String),
    Open,
    Close,
    End,
}

/// Reads a file.
pub(super) fn parse(text: &str) -> Result<Vec<Node>, ImportError> {
    let mut tokens = Vec::new();
    for (n, line) in text.lines().enumerate() {
        tokens.extend(split(line).into_iter().map(|token| (n + 1, token)));
        tokens.push((n + 1, Token::End));
    }
    let mut place = 0;
    let nodes = block(&tokens, &mut place, 0)?;
    match tokens.get(place) {
        Some((line, _)) => Err(ImportError::new(*line, "a `}` closes nothing")),
        None => Ok(nodes),
    }
}

/// The directives up to the end of a block.
fn block(
    tokens: &[(usize, Token)],
    place: &mut usize,
    depth: usize,
) -> Result<Vec<Node>, ImportError> {
    let mut nodes: Vec<Node> = Vec::new();
    let mut words = Vec::new();
    let mut begun = 0;
    let flush = |nodes: &mut Vec<Node>, words: &mut Vec<String>, line| {
        if !words.is_empty() {
            nodes.push(Node::new(line, std::mem::take(words)));
        }
    };
    while let Some((line, token)) = tokens.get(*place) {
        match token {
            Token::Word(word) => {
                if words.is_empty() {
                    begun = *line;
                }
                words.push(word.clone());
            }
            Token::End => flush(&mut nodes, &mut words, begun),
            Token::Close => {
                flush(&mut nodes, &mut words, begun);
                return Ok(nodes);
            }
            Token::Open => {
                flush(&mut nodes, &mut words, begun);
                if depth == DEPTH {
                    return Err(ImportError::new(*line, "blocks are too deep"));
                }
                let open = *line;
                *place += 1;
                let inner = block(tokens, place, depth + 1)?;
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
fn split(line: &str) -> Vec<Token> {
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
                tokens.extend(word.take().map(Token::Word));
                tokens.push(if character == '{' { Token::Open } else { Token::Close });
            }
            (None, it) if it.is_whitespace() => tokens.extend(word.take().map(Token::Word)),
            (None, it) => word.get_or_insert_default().push(it),
        }
    }
    tokens.extend(word.map(Token::Word));
    tokens
}

impl Node {
    fn new(line: usize, words: Vec<String>) -> Self {
        Self { line, words, block: None, seen: Cell::new(false) }
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
    pub(super) fn see(&self) -> &Self {
        self.seen.set(true);
        self
    }

    pub(super) fn below(&self) -> &[Self] {
        self.block.as_deref().unwrap_or_default()
    }

    /// The directives of a name in its block, which are looked at now.
    pub(super) fn all<'a>(&'a self, name: &'a str) -> impl Iterator<Item = &'a Self> {
        self.below().iter().filter(move |node| node.name() == name).map(Self::see)
    }

    /// The last of them, which is the one that counts.
    pub(super) fn get<'a>(&'a self, name: &'a str) -> Option<&'a Self> {
        self.all(name).last()
    }

    /// The value of the last.
    pub(super) fn text<'a>(&'a self, name: &'a str) -> Option<&'a str> {
        self.get(name)?.value()
    }

    /// The value of the last, if it is a number.
    pub(super) fn number(&self, name: &str) -> Option<f64> {
        self.text(name)?.parse().ok().filter(|it: &f64| it.is_finite() && (0.0..1e9).contains(it))
    }

    /// Those that nobody has looked at.
    pub(super) fn unseen<'a>(nodes: &'a [Self], found: &mut Vec<&'a Self>) {
        for node in nodes {
            if node.seen.get() {
                Self::unseen(node.below(), found);
            } else {
                found.push(node);
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn shape(nodes: &[Node]) -> String {
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
