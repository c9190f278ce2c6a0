//! The syntax of `keepalived.conf`: a directive per line, which may have a block of directives.

use std::cell::Cell;

use super::source::SourceLine;
use crate::director::import::error::ImportError;
use crate::director::import::position::SourcePosition;

/// A directive: its words, and its block.
#[derive(Debug)]
pub(super) struct KeepalivedDirective {
    pub(super) position: SourcePosition,
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

/// The directives whose words may be in single quotes too: they name programs.
const QUOTED_KEYWORDS: [&str; 14] = [
    "notify",
    "notify_master",
    "notify_backup",
    "notify_fault",
    "notify_stop",
    "notify_deleted",
    "notify_master_rx_lower_pri",
    "notify_up",
    "notify_down",
    "quorum_up",
    "quorum_down",
    "script",
    "misc_path",
    "startup_script",
];

/// Parses lines.
pub(super) fn parse(lines: &[SourceLine]) -> Result<Vec<KeepalivedDirective>, ImportError> {
    let mut tokens = Vec::new();
    for SourceLine { position, text } in lines {
        let of_line = tokenize(text).map_err(|reason| ImportError::new(position, reason))?;
        tokens.extend(of_line.into_iter().map(|token| (position, token)));
        tokens.push((position, KeepalivedToken::EndOfLine));
    }
    let mut index = 0;
    let nodes = parse_block(&tokens, &mut index, 0)?;
    match tokens.get(index) {
        Some((position, _)) => Err(ImportError::new(position, "this `}` closes no block")),
        None => Ok(nodes),
    }
}

/// Parses directives up to the end of a block; `index` is left at its `}`.
fn parse_block(
    tokens: &[(&SourcePosition, KeepalivedToken)],
    index: &mut usize,
    depth: usize,
) -> Result<Vec<KeepalivedDirective>, ImportError> {
    let mut nodes: Vec<KeepalivedDirective> = Vec::new();
    let mut words: Vec<String> = Vec::new();
    let mut first = None;
    let flush = |nodes: &mut Vec<KeepalivedDirective>,
                 words: &mut Vec<String>,
                 position: Option<&SourcePosition>| {
        if let Some(position) = position.filter(|_| !words.is_empty()) {
            nodes.push(KeepalivedDirective::new(position.clone(), std::mem::take(words)));
        }
    };
    while let Some((position, token)) = tokens.get(*index) {
        match token {
            KeepalivedToken::Word(word) => {
                if words.is_empty() {
                    first = Some(*position);
                }
                words.push(word.clone());
            }
            KeepalivedToken::EndOfLine => flush(&mut nodes, &mut words, first),
            KeepalivedToken::CloseBrace => {
                flush(&mut nodes, &mut words, first);
                return Ok(nodes);
            }
            KeepalivedToken::OpenBrace => {
                flush(&mut nodes, &mut words, first);
                if depth == MAX_BLOCK_DEPTH {
                    return Err(ImportError::new(
                        position,
                        format!("blocks are nested deeper than {MAX_BLOCK_DEPTH}"),
                    ));
                }
                *index += 1;
                let inner = parse_block(tokens, index, depth + 1)?;
                if tokens.get(*index).is_none() {
                    return Err(ImportError::new(position, "the block has no closing `}`"));
                }
                match nodes.last_mut().filter(|node| node.block.is_none()) {
                    Some(node) => node.block = Some(inner),
                    None => {
                        return Err(ImportError::new(
                            position,
                            "the block has no directive before its `{`",
                        ));
                    }
                }
            }
        }
        *index += 1;
    }
    flush(&mut nodes, &mut words, first);
    Ok(nodes)
}

/// Splits a line without comment into words and braces. `"` makes one word; so does `'` where a program
/// is named, and there a backslash stays with the character after it.
fn tokenize(line: &str) -> Result<Vec<KeepalivedToken>, String> {
    let mut tokens = Vec::new();
    let mut word: Option<String> = None;
    let mut quote = None;
    // Whether the directive's words may be in single quotes.
    let mut is_quoted_keyword = None;
    let mut characters = line.chars().peekable();
    let end_word = |word: &mut Option<String>,
                    tokens: &mut Vec<KeepalivedToken>,
                    is_quoted_keyword: &mut Option<bool>| {
        if let Some(word) = word.take() {
            is_quoted_keyword.get_or_insert(QUOTED_KEYWORDS.contains(&&*word));
            tokens.push(KeepalivedToken::Word(word));
        }
    };
    while let Some(character) = characters.next() {
        match (quote, character) {
            (Some(end), _) if character == end => quote = None,
            (_, '\\') if is_quoted_keyword == Some(true) => {
                let escaped = characters.next().ok_or("a backslash ends the line")?;
                word.get_or_insert_default().extend(['\\', escaped]);
            }
            (Some(_), _) => word.get_or_insert_default().push(character),
            (None, '"') => {
                quote = Some(character);
                word.get_or_insert_default();
            }
            (None, '\'') if is_quoted_keyword == Some(true) => {
                quote = Some(character);
                word.get_or_insert_default();
            }
            // `${NAME}` of an undefined name is text.
            (None, '{') if word.as_ref().is_some_and(|word| word.ends_with('$')) => {
                let word = word.get_or_insert_default();
                word.push('{');
                while let Some(next) = characters.next_if(|next| !next.is_whitespace()) {
                    word.push(next);
                    if next == '}' {
                        break;
                    }
                }
            }
            (None, '{' | '}') => {
                end_word(&mut word, &mut tokens, &mut is_quoted_keyword);
                is_quoted_keyword = None;
                tokens.push(match character {
                    '{' => KeepalivedToken::OpenBrace,
                    _ => KeepalivedToken::CloseBrace,
                });
            }
            (None, _) if character.is_whitespace() => {
                end_word(&mut word, &mut tokens, &mut is_quoted_keyword);
            }
            (None, _) => word.get_or_insert_default().push(character),
        }
    }
    if let Some(quote) = quote {
        return Err(format!("the quote {quote} is not closed"));
    }
    end_word(&mut word, &mut tokens, &mut is_quoted_keyword);
    Ok(tokens)
}

impl KeepalivedDirective {
    fn new(position: SourcePosition, words: Vec<String>) -> Self {
        Self { position, words, block: None, is_used: Cell::new(false) }
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

    /// Marks the directive and its block as reported.
    pub(super) fn mark_all_used(&self) {
        self.mark_used();
        self.children().iter().for_each(Self::mark_all_used);
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

    /// Returns the first directive of a name in the block, if keepalived ignores the others. Marks all
    /// of that name as used.
    pub(super) fn first_child<'a>(&'a self, name: &'a str) -> Option<&'a Self> {
        self.children_named(name).fold(None, |first, node| first.or(Some(node)))
    }

    /// Returns the last directive in the block with one of these names, which stand for one setting.
    /// Marks all of these names as used.
    pub(super) fn last_child_of(&self, names: &[&str]) -> Option<&Self> {
        let nodes = self.children().iter().filter(|node| names.contains(&node.name()));
        nodes.map(Self::mark_used).last()
    }

    /// Returns the value of the last directive of a name. Marks all of that name as used.
    pub(super) fn child_value<'a>(&'a self, name: &'a str) -> Option<&'a str> {
        self.last_child(name)?.value()
    }

    /// Returns the words as they are written, for a report.
    pub(super) fn text(&self) -> String {
        format!("`{}`", self.words.join(" "))
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
        let parse = |text: &str| {
            let lines = text.lines().enumerate().map(|(n, line)| SourceLine {
                position: SourcePosition::of_line(n + 1),
                text: line.to_owned(),
            });
            parse(&lines.collect::<Vec<_>>())
        };
        let text = "a 1\nb \"x y\" {\n c\n d { e f }\n}\ng\n{\n h 'z'\n notify 'z y'x ${A}\n}\n";
        let nodes = parse(text).expect("a valid file");
        assert_eq!(shape(&nodes), "a 1; b x y(c; d(e f)); g(h 'z'; notify z yx ${A})");
        assert_eq!(nodes[2].position.line(), 6);
        let error_of = |text: &str| parse(text).expect_err(text).to_string();
        assert_eq!(error_of("a \"b"), "line 1: the quote \" is not closed");
        assert_eq!(error_of("a {\n b\n"), "line 1: the block has no closing `}`");
        assert_eq!(error_of("a\n}\n"), "line 2: this `}` closes no block");
        assert_eq!(error_of("{\n}\n"), "line 1: the block has no directive before its `{`");
        assert_eq!(error_of(&"a {\n".repeat(1000)), "line 33: blocks are nested deeper than 32");
    }
}
