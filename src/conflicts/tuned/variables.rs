//! `${NAME}` in a profile, as far as files tell its value.

use std::collections::HashMap;

/// A text after its variables were put in.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Expanded {
    pub text: String,
    /// Whether a function (`${f:...}`) has a say: tuned alone knows its result. Or
    /// it is too long to be a value.
    pub unknown: bool,
}

/// No text is longer: variables that name others twice double it each time.
const LONGEST: usize = 64 * 1024;

/// The variables of the profiles that are in force.
#[derive(Debug, Default)]
pub struct Variables(HashMap<String, Expanded>);

impl Variables {
    /// Defines one by what is defined so far.
    pub fn define(&mut self, name: &str, value: &str) {
        if name.chars().all(is_word) && !name.is_empty() {
            let value = self.expand(value);
            self.0.insert(name.to_owned(), value);
        }
    }

    /// `text` with what is defined; the rest stays as it is. `\${NAME}` stands
    /// for `${NAME}` itself.
    pub fn expand(&self, text: &str) -> Expanded {
        let mut expanded = String::with_capacity(text.len());
        let mut unknown = false;
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
                            unknown: true,
                        };
                    }
                    expanded.push_str(&value.text);
                    unknown |= value.unknown;
                    after
                }
                None => {
                    expanded.push_str("${");
                    &rest[at + 2..]
                }
            };
        }
        expanded.push_str(rest);
        unknown |= expanded.contains("${f:");
        Expanded {
            text: expanded.replace("\\${", "${"),
            unknown,
        }
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
        variables.define("f", "${f:exec:true}");
        let of = |text| {
            let it = variables.expand(text);
            (it.text, it.unknown)
        };
        for (text, expected) in [
            ("${a}${late}", "x11"),
            ("${early}", "${late}"),
            ("\\${late}", "${late}"),
            ("${not-a-name} ${", "${not-a-name} ${"),
            ("${${late}}", "${1}"),
        ] {
            assert_eq!(of(text), (expected.to_owned(), false), "{text}");
        }
        assert!(of("${f}").1 && of("1${f:virt_check:0:1}").1);
        variables.define("v0", "1234567890");
        for n in 0..99 {
            variables.define(&format!("v{}", n + 1), &format!("${{v{n}}}${{v{n}}}"));
        }
        assert_eq!(variables.expand("${v99}").text, "");
        assert!(variables.expand("x${v99}").unknown);
    }
}
