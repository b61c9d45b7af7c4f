//! Interfaces in rules and in the elements of sets: some stand there by their numbers, which
//! another interface gets when they are gone.

use super::listing::{Token, tokens};

/// The interfaces after `device` or `devices =` on a line.
pub(super) fn devices(line: &str) -> Vec<String> {
    let Some((_, rest)) = line.split_once("device") else {
        return Vec::new();
    };
    let rest = rest.trim_start_matches('s').trim_start();
    let names = match rest.strip_prefix('=') {
        Some(list) => list.split('}').next().unwrap_or_default(),
        None => rest.split(' ').next().unwrap_or_default(),
    };
    let names = names.split([' ', ',', '{', '}', '"', ';']);
    let names = names.filter(|it| !it.is_empty());
    names.map(str::to_owned).collect()
}

/// What has an interface by its number, the key of a rule (`iif`), and the type of the elements
/// of a set.
const BY_NUMBER: [&str; 4] = ["iif", "oif", "sdif", "iface_index"];

/// What stands on a line of a chain for interfaces that the kernel knows by their numbers: the
/// name in quotes, or the number where there is no such interface.
pub(super) fn by_number(line: &str) -> Vec<Token<'_>> {
    let all: Vec<Token<'_>> = tokens(line).flatten().map(|(_, it)| it).collect();
    let mut found = Vec::new();
    let mut at = 0;
    while let Some(token) = all.get(at) {
        let begin = at;
        if *token == Token::Word("fib") {
            // Its own keys come first, then its result.
            at += 1;
            while all.get(at + 1) == Some(&Token::Word(".")) {
                at += 2;
            }
            at += 1;
        }
        let before = begin.checked_sub(1).map(|it| all[it]);
        let rest = all.get(at + 1..).unwrap_or_default();
        match all.get(at) {
            Some(Token::Word(word)) if BY_NUMBER.contains(word) => {
                let field = fields_before(&all[..begin]);
                found.extend(values(rest, &[field], &[]));
            }
            Some(Token::Word("device")) => found.extend(values(rest, &[0], &[0])),
            Some(Token::Word("to"))
                if [Some(Token::Word("fwd")), Some(Token::Word("dup"))].contains(&before) =>
            {
                found.extend(values(rest, &[0], &[0]));
            }
            _ => {}
        }
        at += 1;
    }
    found
}

/// Whether a word may be part of a key, and is no value.
fn is_of_key(token: &Token<'_>) -> bool {
    match token {
        Token::Word(word) => {
            !word.starts_with(|c: char| c.is_ascii_digit()) && !["map", "vmap"].contains(word)
        }
        _ => false,
    }
}

/// How many fields of a concatenation come before what follows these.
fn fields_before(before: &[Token<'_>]) -> usize {
    let own = before.iter().rev().take_while(|it| is_of_key(it));
    own.filter(|it| **it == Token::Word(".")).count()
}

/// What these fields of a key are compared with, and these fields of the data that is looked
/// up with it. The rest of the key may come first.
fn values<'a>(tokens: &[Token<'a>], keys: &[usize], data: &[usize]) -> Vec<Token<'a>> {
    let is_concatenated = tokens.first() == Some(&Token::Word("."));
    let is_looked_up = tokens.iter().position(|it| *it == Token::Word("map"));
    let is_before = |token: &&Token<'a>| match token {
        Token::Mark('!' | '=' | '<' | '>') | Token::Word("map" | "vmap") => true,
        it => is_concatenated && is_of_key(it),
    };
    let begin = tokens.iter().take_while(is_before).count();
    match (tokens.get(begin), is_looked_up) {
        (Some(Token::Mark('{')), _) => elements(&tokens[begin + 1..], keys, &[]),
        (Some(token), Some(map)) if !data.is_empty() && is_of_key(token) => {
            match tokens.get(map + 1) {
                Some(Token::Mark('{')) => elements(&tokens[map + 2..], &[], data),
                _ => Vec::new(),
            }
        }
        // One value for each field, and a dot between them.
        (Some(Token::Word(_) | Token::Quoted(_)), _) => {
            let places = keys.iter().map(|field| begin + 2 * field);
            places.filter_map(|it| tokens.get(it).copied()).collect()
        }
        _ => Vec::new(),
    }
}

/// What these fields of the keys, and of the data, of elements are, up to the end of all.
fn elements<'a>(tokens: &[Token<'a>], keys: &[usize], data: &[usize]) -> Vec<Token<'a>> {
    let end = tokens.iter().position(|it| *it == Token::Mark('}'));
    let all = &tokens[..end.unwrap_or(tokens.len())];
    let field = |part: &[Token<'a>], field: &usize| {
        let mut fields = part.split(|it| *it == Token::Word("."));
        fields.nth(*field)?.first().copied()
    };
    let of_element = |element: &[Token<'a>]| {
        let mut parts = element.split(|it| *it == Token::Word(":"));
        let (key, of_key) = (parts.next().unwrap_or_default(), parts.next());
        let keys = keys.iter().filter_map(|it| field(key, it));
        let data = data.iter().filter_map(|it| field(of_key?, it));
        keys.chain(data).collect::<Vec<_>>()
    };
    all.split(|it| *it == Token::Mark(','))
        .flat_map(of_element)
        .collect()
}

/// Whether this is the number of an interface, or several. 0 is none: there is no route.
pub(super) fn is_number(token: &Token<'_>) -> bool {
    let is_number = |it: &str| it.parse().is_ok_and(|it: u32| it > 0);
    matches!(token, Token::Word(word) if word.split('-').all(is_number))
}

/// Which fields of the elements of a set are interfaces by their numbers.
#[derive(Default)]
pub(super) struct Interfaces {
    keys: Vec<usize>,
    data: Vec<usize>,
}

impl Interfaces {
    /// Takes them from the line that has the type of the elements, `type` or `typeof`.
    pub fn learn(&mut self, line: &str) {
        let all: Vec<Token<'_>> = tokens(line).flatten().map(|(_, it)| it).collect();
        let Some((Token::Word("type" | "typeof"), all)) = all.split_first() else {
            return;
        };
        let mut parts = all.split(|it| *it == Token::Word(":")).map(Self::of);
        self.keys = parts.next().unwrap_or_default();
        self.data = parts.next().unwrap_or_default();
    }

    fn of(part: &[Token<'_>]) -> Vec<usize> {
        let (mut found, mut field, mut is_fib) = (Vec::new(), 0, false);
        for words in part.split(|it| *it == Token::Word(".")) {
            // What it looks up has fields of its own, the last of them with its result.
            is_fib |= words.len() == 2 && words[0] == Token::Word("fib");
            let is_last = words.len() > 1 && words[0] != Token::Word("fib");
            if is_fib && !is_last {
                continue;
            }
            is_fib = false;
            if let Some(Token::Word(word)) = words.last()
                && BY_NUMBER.contains(word)
            {
                found.push(field);
            }
            field += 1;
        }
        found
    }

    /// What stands for interfaces in the statement with all elements.
    pub fn in_elements<'a>(&self, statement: &'a str) -> Vec<Token<'a>> {
        if self.keys.is_empty() && self.data.is_empty() {
            return Vec::new();
        }
        let all: Vec<Token<'_>> = tokens(statement).flatten().map(|(_, it)| it).collect();
        let begin = all.iter().position(|it| *it == Token::Mark('{'));
        let all = begin.and_then(|begin| all.get(begin + 1..));
        elements(all.unwrap_or_default(), &self.keys, &self.data)
    }
}
