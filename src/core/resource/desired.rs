//! What a resource must be.

use std::fmt;

use super::sets::beside;
use super::{Attribute, State};
use crate::model::facts::Format;
use crate::model::{Requirement, Value};

/// What a resource must be.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Desired {
    /// It is left alone (`mode = "off"`), also where a pattern that gives way to
    /// this invariant would govern it.
    Anything,
    /// It must not exist.
    Absent,
    /// What the single attribute of a kernel parameter must be.
    Value(Requirement),
    /// What the named attributes of another kind must be, in the order of
    /// [`Attribute`]; others may be anything. With none, it must exist.
    Attributes(Vec<(Attribute, Requirement)>),
    /// What it was before a network restart: what it must be is known only once it
    /// was observed.
    Preserve,
}

impl Desired {
    /// [`Desired::Preserve`] as text.
    pub const PRESERVED: &'static str = "preserved";

    /// This value.
    pub fn equal(value: Value) -> Self {
        Desired::Value(Requirement::Equal(value))
    }

    /// These attributes.
    pub fn with(mut attributes: Vec<(Attribute, Requirement)>) -> Self {
        attributes.sort_by_key(|(name, _)| *name);
        Desired::Attributes(attributes)
    }

    /// Just this state: a list with what is in it, and whatever is beside that.
    pub fn exactly(state: &State) -> Self {
        let equal = |value: &Value| Requirement::Equal(value.clone());
        let named = |(name, value): &(Attribute, Value)| match name {
            Attribute::Members | Attribute::Chains | Attribute::Jumps => {
                let fields = value.fields().map(str::to_owned);
                Some((*name, Requirement::Includes(fields.collect())))
            }
            // What it is made with.
            Attribute::Options | Attribute::RuleCount | Attribute::Rules => None,
            name => Some((*name, equal(value))),
        };
        match state {
            State::Absent => Desired::Absent,
            State::Value(value) => Desired::Value(equal(value)),
            State::Attributes(attributes) => {
                Desired::Attributes(attributes.iter().filter_map(named).collect())
            }
        }
    }

    /// This state, with all that it has.
    pub fn all_of(state: &State) -> Self {
        match state {
            State::Attributes(all) => {
                let equal = |(name, value): &(_, Value)| (*name, Requirement::Equal(value.clone()));
                Desired::Attributes(all.iter().map(equal).collect())
            }
            other => Desired::exactly(other),
        }
    }

    /// What the single attribute must be, where the resource has just one.
    pub fn requirement(&self) -> Option<&Requirement> {
        match self {
            Desired::Value(requirement) => Some(requirement),
            _ => None,
        }
    }

    /// Whether what was observed is as it must be. What is preserved is, as
    /// nothing else is known of it here.
    pub fn matches(&self, observed: &State) -> bool {
        match self {
            Desired::Anything | Desired::Preserve => true,
            Desired::Absent => !observed.exists(),
            Desired::Value(requirement) => observed
                .value()
                .is_some_and(|value| requirement.holds(value)),
            Desired::Attributes(attributes) => {
                let matches = |(name, requirement): &(_, Requirement)| {
                    requirement.holds(&observed.attribute(*name))
                };
                observed.exists() && attributes.iter().all(matches)
            }
        }
    }

    /// What is said of a state that does not match: of what is named only, and of a unit
    /// why it cannot be started.
    pub fn part_of(&self, observed: State) -> State {
        match (self, &observed) {
            (Desired::Attributes(named), State::Attributes(all)) if !named.is_empty() => {
                let is_named = |it: &&(Attribute, Value)| {
                    it.0.explains() || named.iter().any(|(name, _)| *name == it.0)
                };
                State::with(all.iter().filter(is_named).cloned().collect()).without_rules()
            }
            _ => observed.without_rules(),
        }
    }

    /// What to write where what was observed does not match: of what is named only,
    /// and what matches of that as it is. `None` where there is nothing to write,
    /// or nothing sensible.
    pub fn target(&self, observed: &State) -> Option<State> {
        match self {
            Desired::Anything | Desired::Preserve => None,
            Desired::Absent => Some(State::Absent),
            Desired::Value(requirement) => {
                let found = observed.value().cloned();
                let target = requirement.restore_to(&found.unwrap_or_default())?;
                Some(State::Value(target))
            }
            Desired::Attributes(attributes) => {
                let target = |(name, requirement): &(Attribute, Requirement)| {
                    let found = observed.attribute(*name);
                    let value = match requirement {
                        requirement if requirement.holds(&found) => found,
                        Requirement::Includes(members) if *name == Attribute::Members => {
                            requirement.restore_to(&beside(&found, members))?
                        }
                        requirement => requirement.restore_to(&found)?,
                    };
                    Some((*name, value))
                };
                let targets: Option<Vec<_>> = attributes.iter().map(target).collect();
                Some(State::with(targets?))
            }
        }
    }

    /// Whether `value` is as it must be.
    pub fn holds(&self, value: &Value) -> bool {
        self.requirement().is_none_or(|it| it.holds(value))
    }

    /// As [`Requirement::holds_as`].
    pub fn holds_as(&self, format: Format, value: &Value) -> bool {
        self.requirement()
            .is_none_or(|it| it.holds_as(format, value))
    }

    /// As [`Requirement::restore_to`]; `None` where it is left alone.
    pub fn restore_to(&self, found: &Value) -> Option<Value> {
        self.requirement()?.restore_to(found)
    }

    /// Whether some state satisfies both, as far as that is known: as
    /// [`Requirement::compatible`] for each attribute that both name.
    pub fn compatible(&self, other: &Desired) -> bool {
        match (self, other) {
            (Desired::Value(own), Desired::Value(other)) => own.compatible(other),
            (Desired::Attributes(own), Desired::Attributes(other)) => {
                own.iter().all(|(name, own)| {
                    let named = other.iter().filter(|(other, _)| other == name);
                    named.into_iter().all(|(_, other)| own.compatible(other))
                })
            }
            (Desired::Absent, Desired::Value(_) | Desired::Attributes(_))
            | (Desired::Value(_) | Desired::Attributes(_), Desired::Absent) => false,
            _ => true,
        }
    }
}

/// As people read it: `1`, `0 or 1`, `at least 65536`, `via 10.39.0.1 dev eth0`,
/// `active`, `present`, `absent`, `preserved`, `anything`.
impl fmt::Display for Desired {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Desired::Anything => f.write_str("anything"),
            Desired::Absent => f.write_str("absent"),
            Desired::Preserve => f.write_str(Self::PRESERVED),
            Desired::Value(requirement) => requirement.fmt(f),
            Desired::Attributes(attributes) if attributes.is_empty() => f.write_str("present"),
            Desired::Attributes(attributes) => {
                let shown = attributes.iter().filter(|it| it.0 != Attribute::Rules);
                for (i, (name, requirement)) in shown.enumerate() {
                    let blank = if i == 0 { "" } else { " " };
                    let is_list = matches!(requirement, Requirement::Includes(_));
                    match name {
                        Attribute::State => write!(f, "{requirement}")?,
                        Attribute::Position => write!(f, "{blank}{requirement} in its chain")?,
                        name if let Requirement::Equal(value) = requirement => {
                            write!(f, "{blank}{} {}", name.as_str(), name.shown(value))?;
                        }
                        name if is_list => write!(f, "{blank}{} {requirement}", name.as_str())?,
                        // What belongs together among others.
                        name => write!(f, "{blank}{} ({requirement})", name.as_str())?,
                    }
                }
                Ok(())
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn equal(name: Attribute, value: &str) -> (Attribute, Requirement) {
        (name, Requirement::Equal(Value::new(value)))
    }

    fn state(attributes: &[(Attribute, &str)]) -> State {
        let attributes = attributes.iter();
        State::with(
            attributes
                .map(|(name, value)| (*name, Value::new(value)))
                .collect(),
        )
    }

    #[test]
    fn only_named_attributes_are_compared_and_written() {
        use Attribute::{Dev, Mtu, Via};
        let desired = Desired::with(vec![equal(Dev, "eth0"), equal(Via, "10.39.0.1")]);
        assert_eq!(desired.to_string(), "via 10.39.0.1 dev eth0");
        let target = state(&[(Via, "10.39.0.1"), (Dev, "eth0")]);
        for (observed, matches) in [
            (State::Absent, false),
            (target.clone(), true),
            (
                state(&[(Via, "10.39.0.1"), (Dev, "eth0"), (Mtu, "1400")]),
                true,
            ),
            (state(&[(Via, "10.39.0.2"), (Dev, "eth0")]), false),
            (state(&[(Dev, "eth0"), (Mtu, "1400")]), false),
        ] {
            assert_eq!(desired.matches(&observed), matches, "{observed:?}");
            assert_eq!(desired.target(&observed), Some(target.clone()));
        }
        let found = state(&[(Dev, "eth0"), (Mtu, "1400")]);
        assert_eq!(desired.part_of(found), state(&[(Dev, "eth0")]));
        assert_eq!(desired.part_of(State::Absent), State::Absent);
        let active = Desired::with(vec![equal(Attribute::State, "active")]);
        let masked = State::parse("inactive load masked job 7").expect("a unit");
        assert_eq!(active.part_of(masked).to_string(), "inactive load masked");
    }

    #[test]
    fn an_attribute_that_is_not_observed_is_empty() {
        use Attribute::{Master, Mtu, Up};
        let no_master = Desired::with(vec![equal(Master, "")]);
        assert!(no_master.matches(&state(&[(Up, "true")])));
        assert!(!no_master.matches(&state(&[(Master, "cni0")])));
        let mtu = Requirement::range(Some(vec![1400]), Some(vec![1500])).expect("a range");
        let mtu = Desired::with(vec![equal(Up, "true"), (Mtu, mtu)]);
        let found = state(&[(Up, "false"), (Mtu, "1450")]);
        let target = state(&[(Up, "true"), (Mtu, "1450")]);
        assert_eq!(mtu.target(&found), Some(target), "what matches stays");
        assert_eq!(
            mtu.target(&State::Absent),
            None,
            "there is no nearest MTU to none"
        );
    }

    #[test]
    fn a_member_of_a_set_is_an_exception_or_not() {
        let members = |text| state(&[(Attribute::Members, text)]);
        let desired = Desired::exactly(&members("10.1.0.0/16 10.2.0.0/16,nomatch"));
        for (found, target) in [
            (
                "10.0.0.0/8 10.1.0.0/16,nomatch 10.2.0.0/16",
                "10.0.0.0/8 10.1.0.0/16 10.2.0.0/16,nomatch",
            ),
            (
                "10.1.0.0/16 10.3.0.0/16,nomatch",
                "10.1.0.0/16 10.2.0.0/16,nomatch 10.3.0.0/16,nomatch",
            ),
        ] {
            assert_eq!(desired.target(&members(found)), Some(members(target)));
        }
    }

    #[test]
    fn existence_alone_can_be_desired() {
        let some = state(&[(Attribute::Dev, "eth0")]);
        let present = Desired::with(Vec::new());
        for (desired, of_none, of_some) in [
            (Desired::Absent, true, false),
            (present, false, true),
            (Desired::Anything, true, true),
            (Desired::Preserve, true, true),
        ] {
            assert_eq!(desired.matches(&State::Absent), of_none, "{desired}");
            assert_eq!(desired.matches(&some), of_some, "{desired}");
        }
    }

    #[test]
    fn a_kernel_parameter_has_a_single_attribute() {
        let one = Desired::equal(Value::new("1"));
        let zero = State::from(Value::new("0"));
        let target = State::from(Value::new("1"));
        assert!(!one.matches(&zero));
        assert!(!one.matches(&State::Absent));
        assert!(one.matches(&target));
        assert_eq!(one.target(&zero), Some(target));
        assert!(!one.compatible(&Desired::equal(Value::new("0"))));
        assert!(!one.compatible(&Desired::Absent));
    }
}
