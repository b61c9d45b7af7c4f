//! The elements of a set.

use super::interfaces::Interfaces;
use super::listing::{Token, tokens};

/// Which elements of a set remain until somebody removes them.
#[derive(Default)]
pub(super) struct Elements {
    are_learnt: bool,
    time_out: bool,
    pub interfaces: Interfaces,
}

impl Elements {
    pub fn learn(&mut self, line: &str) {
        self.interfaces.learn(line);
        let mut words = line.split([' ', ',']);
        match words.next() {
            Some("flags") => self.are_learnt |= words.any(|it| it == "dynamic"),
            Some("timeout") => self.time_out = true,
            _ => {}
        }
    }

    /// The statement with all elements, with those that stay; nothing where none does.
    pub fn kept(&self, statement: &str) -> Option<String> {
        let inside = statement.split_once('{')?.1.rsplit_once('}')?.0;
        let mut elements: Vec<(&str, bool)> = Vec::new();
        let (mut begin, mut depth, mut times_out) = (0, 0_usize, false);
        for (at, token) in tokens(inside).flatten() {
            match token {
                Token::Word("timeout") => times_out = true,
                Token::Mark('{') => depth += 1,
                Token::Mark('}') => depth = depth.saturating_sub(1),
                Token::Mark(',') if depth == 0 => {
                    elements.push((inside[begin..at].trim(), times_out));
                    (begin, times_out) = (at + 1, false);
                }
                _ => {}
            }
        }
        elements.push((inside[begin..].trim(), times_out));
        let stays = |(element, times_out): &&(&str, bool)| {
            !element.is_empty() && !times_out && !self.time_out && !self.are_learnt
        };
        let kept: Vec<&str> = elements.iter().filter(stays).map(|(it, _)| *it).collect();
        (!kept.is_empty()).then(|| format!("elements = {{ {} }}", kept.join(", ")))
    }
}
