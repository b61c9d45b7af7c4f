//! `${NAME}` in a profile, as far as files show its value.

use std::collections::HashMap;

/// A text after its variables were put in.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Expanded {
    pub text: String,
    pub call: Call,
}

/// What functions (`${f:...}`) have to do with a text.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum Call {
    /// It has none.
    None,
    /// tuned alone knows what they make of it. So with a text that is too long.
    Unknown,
    /// And they may fail, which ends what tuned was at.
    MayFail,
    /// `${f}`: that does end it.
    Fails,
}

/// No text is longer: variables that name others twice double it each time.
const LONGEST: usize = 64 * 1024;

/// The variables of the profiles that are in force.
#[derive(Debug, Default)]
pub struct Variables(HashMap<String, Expanded>);

impl Variables {
    /// Defines one by what is defined so far; what it is to expand its value.
    pub fn define(&mut self, name: &str, value: &str) -> Call {
        if !name.chars().all(is_word) || name.is_empty() {
            return Call::None;
        }
        let value = self.expand(value);
        let call = value.call;
        self.0.insert(name.to_owned(), value);
        call
    }

    /// `text` with what is defined; the rest stays as it is. `\\${NAME}` stands
    /// for `${NAME}` itself.
    pub fn expand(&self, text: &str) -> Expanded {
        let mut expanded = String::with_capacity(text.len());
        let mut call = Call::None;
        let mut rest = text;
        while let Some(at) = rest.find("${") {
            let is_escaped = rest[..at].ends_with('\\');
            expanded.push_str(&rest[..at]);
            let known = rest[at + 2..]
                .split_once('}')
                .filter(|_| !is_escaped)
                .and_then(|(name, after)| Some((self.0.get(name)?, after)));
            rest = match known {
                Some((value, after)) => {
                    if expanded.len() + value.text.len() > LONGEST {
                        return Expanded {
                            text: String::new(),
                            call: Call::Unknown,
                        };
                    }
                    expanded.push_str(&value.text);
                    call = call.max(value.call);
                    after
                }
                None => {
                    expanded.push_str("${");
                    &rest[at + 2..]
                }
            };
        }
        expanded.push_str(rest);
        let text = unescaped(&expanded);
        Expanded {
            call: call.max(calls(&text)),
            text,
        }
    }
}

/// A text without the backslash before each `${NAME}`.
fn unescaped(text: &str) -> String {
    let mut plain = String::with_capacity(text.len());
    let mut rest = text;
    while let Some(at) = rest.find("\\${") {
        let after = &rest[at + 3..];
        let name = after.split_once('}').map(|(name, _)| name);
        let is_name = name.is_some_and(|it| !it.is_empty() && it.chars().all(is_word));
        plain.push_str(&rest[..at]);
        plain.push_str(if is_name { "${" } else { "\\${" });
        rest = after;
    }
    plain + rest
}

/// What functions make of a text: they are called from within, by the braces that
/// close.
fn calls(text: &str) -> Call {
    let mut open: Vec<(usize, bool)> = Vec::new();
    let mut call = Call::None;
    let mut is_escaped = false;
    for (at, c) in text.char_indices() {
        if c == '}' {
            let Some((from, escaped)) = open.pop() else {
                break;
            };
            if !escaped {
                call = call.max(called(&text[from + 2..at]));
            }
        } else if text[at..].starts_with("${") {
            open.push((at, is_escaped));
        }
        is_escaped = c == '\\';
    }
    call
}

/// What it is to call what stands between the braces.
fn called(inner: &str) -> Call {
    /// The functions that never fail, whatever they are given.
    const SAFE: [&str; 7] = [
        "strip",
        "exec",
        "virt_check",
        "kb2s",
        "s2kb",
        "calc_isolated_cores",
        "check_net_queue_count",
    ];
    if inner == "f" {
        return Call::Fails;
    }
    let name = inner.strip_prefix("f:").and_then(|it| it.split(':').next());
    match name {
        None => Call::None,
        Some(name) if SAFE.contains(&name) => Call::Unknown,
        Some(_) => Call::MayFail,
    }
}

fn is_word(c: char) -> bool {
    c.is_alphanumeric() || c == '_'
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn variables_are_put_in_once_and_functions_are_unknown() {
        let mut variables = Variables::default();
        variables.define("early", "${late}");
        variables.define("late", "1");
        variables.define("a", "x${late}");
        variables.define("not-a-name", "1");
        variables.define("f", "${f:assertion:x:1:2}");
        let of = |text| {
            let it = variables.expand(text);
            (it.text, it.call)
        };
        for (text, expected) in [
            ("${a}${late}", "x11"),
            ("${early}", "${late}"),
            ("\\${late}", "${late}"),
            ("${not-a-name} ${", "${not-a-name} ${"),
            ("${${late}}", "${1}"),
            ("\\${i:x} \\${", "\\${i:x} \\${"),
        ] {
            assert_eq!(of(text), (expected.to_owned(), Call::None), "{text}");
        }
        for (text, expected) in [
            ("${f}", Call::MayFail),
            ("1${f:virt_check:0:1}", Call::Unknown),
            ("${f:strip:${late}}", Call::Unknown),
            ("\\${f:strip:1}", Call::None),
            ("}${f:strip:1}", Call::None),
        ] {
            assert_eq!(of(text).1, expected, "{text}");
        }
        assert_eq!(Variables::default().expand("${f}").call, Call::Fails);
        variables.define("v0", "1234567890");
        for n in 0..99 {
            variables.define(&format!("v{}", n + 1), &format!("${{v{n}}}${{v{n}}}"));
        }
        assert_eq!(variables.expand("${v99}").text, "");
        assert_eq!(variables.expand("x${v99}").call, Call::Unknown);
    }
}
