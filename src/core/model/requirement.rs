//! What a value must be.

use std::collections::{BTreeSet, HashSet};
use std::fmt;

use super::Value;
use super::facts::Format;

/// What a value must be.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Requirement {
    /// This value.
    Equal(Value),
    /// Any of these; the first is the one restored. Never empty.
    OneOf(Vec<Value>),
    /// These fields at least, each once and in the order of their text; others may be
    /// beside them.
    Includes(Vec<String>),
    /// Between these, ends included; at least one end is given. An end has one
    /// number for a value of any width, or one per field.
    Range {
        /// The minimum, per field.
        min: Option<Vec<i128>>,
        /// The maximum, per field.
        max: Option<Vec<i128>>,
    },
}

/// Why a requirement can never be met.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum RequirementError {
    /// No value is named.
    Nothing,
    /// `min` is above `max`.
    Inverted { min: i128, max: i128 },
    /// `min` and `max` name different numbers of fields.
    Width {
        /// Fields of `min`.
        min: usize,
        /// Fields of `max`.
        max: usize,
    },
}

impl fmt::Display for RequirementError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            RequirementError::Nothing => f.write_str("no value is named"),
            RequirementError::Inverted { min, max } => write!(f, "min {min} is above max {max}"),
            RequirementError::Width { min, max } => {
                write!(f, "min has {min} fields and max has {max}")
            }
        }
    }
}

impl std::error::Error for RequirementError {}

impl Requirement {
    /// Any of `values`; a single one is [`Requirement::Equal`].
    ///
    /// # Errors
    /// [`RequirementError::Nothing`] where there is none.
    pub fn one_of(mut values: Vec<Value>) -> Result<Self, RequirementError> {
        match values.len() {
            0 => Err(RequirementError::Nothing),
            1 => Ok(Requirement::Equal(values.remove(0))),
            _ => Ok(Requirement::OneOf(values)),
        }
    }

    /// Between `min` and `max`.
    ///
    /// # Errors
    /// [`RequirementError`] where no value can lie between them.
    pub fn range(min: Option<Vec<i128>>, max: Option<Vec<i128>>) -> Result<Self, RequirementError> {
        match (&min, &max) {
            (None, None) => return Err(RequirementError::Nothing),
            (Some(ends), None) | (None, Some(ends)) if ends.is_empty() => {
                return Err(RequirementError::Nothing);
            }
            (Some(low), Some(high)) => {
                if low.len() != high.len() {
                    return Err(RequirementError::Width {
                        min: low.len(),
                        max: high.len(),
                    });
                }
                if let Some((min, max)) = low.iter().zip(high).find(|(low, high)| low > high) {
                    return Err(RequirementError::Inverted {
                        min: *min,
                        max: *max,
                    });
                }
            }
            _ => {}
        }
        Ok(Requirement::Range { min, max })
    }

    /// Whether `value` is as it must be.
    pub fn holds(&self, value: &Value) -> bool {
        match self {
            Requirement::Equal(expected) => expected == value,
            Requirement::OneOf(values) => values.contains(value),
            Requirement::Includes(fields) => {
                let found: HashSet<&str> = value.fields().collect();
                fields.iter().all(|it| found.contains(it.as_str()))
            }
            Requirement::Range { .. } => self.clamp(value).is_some_and(|nearest| nearest == *value),
        }
    }

    /// Whether `value` is as it must be for keys of this format: a required value
    /// that the kernel keeps in another form is no drift.
    pub fn holds_as(&self, format: Format, value: &Value) -> bool {
        self.holds(value)
            || match self {
                Requirement::Equal(expected) => format.same(expected, value),
                Requirement::OneOf(values) => values.iter().any(|it| format.same(it, value)),
                Requirement::Includes(_) | Requirement::Range { .. } => false,
            }
    }

    /// The value to write where `found` does not match: the one required, the
    /// first of several, what is found with what is missing of it, or the nearest within a range (fields that match keep
    /// theirs). `None` where a range meets a value that is no row of as many
    /// integers: nothing sensible can be written then.
    pub fn restore_to(&self, found: &Value) -> Option<Value> {
        match self {
            Requirement::Equal(expected) => Some(expected.clone()),
            Requirement::OneOf(values) => values.first().cloned(),
            Requirement::Includes(fields) => {
                let fields = fields.iter().map(String::as_str);
                let all: BTreeSet<&str> = found.fields().chain(fields).collect();
                Some(Value::new(&Vec::from_iter(all).join(" ")))
            }
            Requirement::Range { .. } => self.clamp(found),
        }
    }

    fn clamp(&self, value: &Value) -> Option<Value> {
        let Requirement::Range { min, max } = self else {
            return None;
        };
        let fields = value.integers().filter(|fields| !fields.is_empty())?;
        let end = |ends: &Option<Vec<i128>>, i: usize| -> Option<Option<i128>> {
            match ends {
                None => Some(None),
                Some(ends) if ends.len() == 1 => Some(Some(ends[0])),
                Some(ends) if ends.len() == fields.len() => Some(Some(ends[i])),
                Some(_) => None,
            }
        };
        let mut nearest = Vec::with_capacity(fields.len());
        for (i, field) in fields.iter().enumerate() {
            let low = end(min, i)?.unwrap_or(i128::MIN);
            let high = end(max, i)?.unwrap_or(i128::MAX);
            nearest.push((*field).clamp(low, high).to_string());
        }
        Some(Value::new(&nearest.join(" ")))
    }

    /// Whether some value satisfies both, as far as that can be reported: two
    /// ranges of different widths count as compatible.
    pub fn compatible(&self, other: &Requirement) -> bool {
        match (self, other) {
            (Requirement::Equal(value), other) | (other, Requirement::Equal(value)) => {
                other.holds(value)
            }
            (Requirement::OneOf(values), other) | (other, Requirement::OneOf(values)) => {
                values.iter().any(|value| other.holds(value))
            }
            (Requirement::Includes(_), _) | (_, Requirement::Includes(_)) => true,
            (Requirement::Range { min: a, max: b }, Requirement::Range { min: c, max: d }) => {
                let disjoint = |low: &Option<Vec<i128>>, high: &Option<Vec<i128>>| match (low, high)
                {
                    (Some(low), Some(high)) => low.iter().zip(high).any(|(low, high)| low > high),
                    _ => false,
                };
                !disjoint(a, d) && !disjoint(c, b)
            }
        }
    }
}

/// As people read it: `1`, `0 or 1`, `at least 65536`, `1024 to 65536`.
impl fmt::Display for Requirement {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let join = |ends: &[i128]| {
            ends.iter()
                .map(i128::to_string)
                .collect::<Vec<_>>()
                .join(" ")
        };
        match self {
            Requirement::Equal(value) => write!(f, "{value}"),
            Requirement::OneOf(values) => {
                for (i, value) in values.iter().enumerate() {
                    let separator = if i == 0 { "" } else { " or " };
                    write!(f, "{separator}{value}")?;
                }
                Ok(())
            }
            Requirement::Includes(fields) => f.write_str(&fields.join(" ")),
            Requirement::Range {
                min: Some(min),
                max: Some(max),
            } => write!(f, "{} to {}", join(min), join(max)),
            Requirement::Range {
                min: Some(min),
                max: None,
            } => write!(f, "at least {}", join(min)),
            Requirement::Range {
                min: None,
                max: Some(max),
            } => write!(f, "at most {}", join(max)),
            Requirement::Range {
                min: None,
                max: None,
            } => f.write_str("any number"),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn range(min: Option<&[i128]>, max: Option<&[i128]>) -> Requirement {
        Requirement::range(min.map(<[_]>::to_vec), max.map(<[_]>::to_vec)).expect("a range")
    }

    #[test]
    fn each_form_holds_and_restores() {
        let v = Value::new;
        let one_of = Requirement::one_of(vec![v("0"), v("1")]).expect("values");
        let includes = Requirement::Includes(vec!["a".to_owned(), "c".to_owned()]);
        assert!(includes.holds(&v("c b a")));
        for (requirement, found, restored) in [
            (Requirement::Equal(v("1")), v("0"), Some(v("1"))),
            (one_of, v("2"), Some(v("0"))),
            (includes, v("c b"), Some(v("a b c"))),
            (range(Some(&[10]), None), v("9"), Some(v("10"))),
            (range(Some(&[10]), Some(&[20])), v("21"), Some(v("20"))),
            (range(Some(&[4, 5, 6]), None), v("9 1 9"), Some(v("9 5 9"))),
            (range(Some(&[4]), None), v("9 1 9"), Some(v("9 4 9"))),
            (range(Some(&[4, 5]), None), v("9 1 9"), None),
            (range(Some(&[4]), None), v("cubic"), None),
        ] {
            assert!(!requirement.holds(&found), "{requirement} {found}");
            let target = requirement.restore_to(&found);
            assert_eq!(target, restored, "{requirement} {found}");
            if let Some(target) = target {
                assert!(requirement.holds(&target), "{requirement} {target}");
            }
        }
    }

    #[test]
    fn impossible_ranges_are_refused() {
        assert_eq!(
            Requirement::range(Some(vec![2]), Some(vec![1])),
            Err(RequirementError::Inverted { min: 2, max: 1 })
        );
        assert_eq!(
            Requirement::range(Some(vec![2, 3]), Some(vec![4])),
            Err(RequirementError::Width { min: 2, max: 1 })
        );
        assert_eq!(
            Requirement::range(None, None),
            Err(RequirementError::Nothing)
        );
        assert_eq!(Requirement::one_of(vec![]), Err(RequirementError::Nothing));
    }

    #[test]
    fn contradictions_are_seen() {
        let one = Requirement::Equal(Value::new("1"));
        let zero = Requirement::Equal(Value::new("0"));
        assert!(!one.compatible(&zero));
        assert!(one.compatible(&range(Some(&[0]), Some(&[1]))));
        assert!(!range(None, Some(&[5])).compatible(&range(Some(&[6]), None)));
    }
}
