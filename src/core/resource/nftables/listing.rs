//! The lines of a table as nft(8) writes them, and what they consist of.

use std::fmt;

use super::TableContents;

/// A line, and where in the blocks it stands.
pub(super) struct Line<'a> {
    /// Without a comment, and white space around it.
    pub text: &'a str,
    /// How many blocks are open before it and after it.
    pub depth: (usize, usize),
    pub opens_block: bool,
}

impl Line<'_> {
    pub fn word(&self) -> &str {
        let end = self.text.find(|c: char| !c.is_ascii_alphanumeric());
        &self.text[..end.unwrap_or(self.text.len())]
    }
}

/// A word, a quoted string, or a character between them.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(super) enum Token<'a> {
    Word(&'a str),
    /// What is between quotes.
    Quoted(&'a str),
    Mark(char),
}

/// The tokens of a line, each with where it begins; an error at a quote that is not closed,
/// and at what no listing has. A line may be megabytes long: all elements of a set.
pub(super) fn tokens(line: &str) -> impl Iterator<Item = Result<(usize, Token<'_>), Unsuited>> {
    let mut at = 0;
    std::iter::from_fn(move || {
        loop {
            let rest = &line[at..];
            let c = rest.chars().next()?;
            let begin = at;
            let is_of_word = |c: char| c.is_alphanumeric() || "_-./:".contains(c);
            let length = match c {
                '"' => match rest[1..].find('"') {
                    Some(end) => end + 2,
                    None => {
                        at = line.len();
                        return Some(Err(Unsuited::Unbalanced));
                    }
                },
                c if is_of_word(c) => rest.find(|c| !is_of_word(c)).unwrap_or(rest.len()),
                c => c.len_utf8(),
            };
            at += length;
            match c {
                '"' => return Some(Ok((begin, Token::Quoted(&rest[1..length - 1])))),
                // Continues a line, and would hide what it ends with.
                '\\' => return Some(Err(Unsuited::Character)),
                c if is_of_word(c) => {
                    return Some(Ok((begin, Token::Word(&rest[..length]))));
                }
                c if c.is_ascii_whitespace() => {}
                c => return Some(Ok((begin, Token::Mark(c)))),
            }
        }
    })
}

/// Why a text cannot be the inside of a table.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Unsuited {
    /// A brace or a quote is not closed, or closes what is not open.
    Unbalanced,
    /// It reads another file.
    Include,
    /// A character that no text has, or a backslash outside quotes.
    Character,
    /// It is longer than [`TableContents::LONGEST`].
    TooLong,
    /// It has the number of an interface that is gone, which another may get.
    Index,
}

impl fmt::Display for Unsuited {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Unsuited::Unbalanced => "a brace or a quote is not closed",
            Unsuited::Include => "it includes another file",
            Unsuited::Character => "it has a character that nft does not take",
            Unsuited::TooLong => "it is too long",
            Unsuited::Index => "a rule or an element is for an interface that is gone",
        })
    }
}

/// The lines of a text, of which all braces are closed, and none that was open before.
pub(super) fn lines(text: &str) -> Result<Vec<Line<'_>>, Unsuited> {
    if text.len() > TableContents::LONGEST {
        return Err(Unsuited::TooLong);
    }
    if text.chars().any(|c| c.is_control() && !"\n\t".contains(c)) {
        return Err(Unsuited::Character);
    }
    let (mut found, mut depth) = (Vec::new(), 0_usize);
    for line in text.lines() {
        let (before, mut end, mut opens_block) = (depth, line.len(), false);
        for token in tokens(line) {
            match token? {
                (_, Token::Word("include")) => return Err(Unsuited::Include),
                (_, Token::Mark('{')) => (depth, opens_block) = (depth + 1, true),
                (_, Token::Mark('}')) => {
                    depth = depth.checked_sub(1).ok_or(Unsuited::Unbalanced)?;
                }
                (at, Token::Mark('#')) => {
                    end = at;
                    break;
                }
                _ => {}
            }
        }
        let text = line[..end].trim();
        if !text.is_empty() {
            let depth = (before, depth);
            found.push(Line {
                text,
                depth,
                opens_block,
            });
        }
    }
    match depth {
        0 => Ok(found),
        _ => Err(Unsuited::Unbalanced),
    }
}
