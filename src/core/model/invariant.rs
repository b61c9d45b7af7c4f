//! An invariant: which keys, what they must be, and where that is required.

use std::fmt;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use serde::Serialize;

use super::pattern::is_glob;
use super::{KeyError, Pattern, Segment, SysctlKey, Value, facts, text};
use crate::resource::{Desired, Group, Resource, ResourceKind, State};

/// What an invariant is about: one resource, or all that match.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub enum Selector {
    /// One key, spelled out.
    Key(SysctlKey),
    /// Every key that matches, now and later.
    Pattern(Pattern),
    /// One resource of another kind.
    Resource(Resource),
    /// Every resource of another kind that matches, now and later.
    Group(Arc<Group>),
}

impl Selector {
    /// Reads a selector as an administrator spells it.
    ///
    /// # Errors
    /// [`KeyError`] where it is no path below `/proc/sys`.
    pub fn parse(text: &str) -> Result<Self, KeyError> {
        if is_glob(text) {
            Pattern::parse(text).map(Selector::Pattern)
        } else {
            SysctlKey::parse(text).map(|key| Selector::Key(key.canonical()))
        }
    }

    /// Reads the text form of a resource or a group of this kind.
    pub fn of_kind(kind: ResourceKind, text: &str) -> Option<Self> {
        if kind == ResourceKind::Sysctl {
            return Selector::parse(text).ok();
        }
        let group = Group::parse(text).map(|it| Selector::Group(Arc::new(it)));
        let resource = || Resource::parse(text).map(Selector::Resource);
        group
            .or_else(resource)
            .filter(|selector| selector.kind() == kind)
    }

    /// The kind that a text form begins with, if it is another than sysctl.
    pub fn kind_of(text: &str) -> Option<ResourceKind> {
        let kind = ResourceKind::called(text.split('/').next()?);
        kind.filter(|kind| *kind != ResourceKind::Sysctl)
    }

    /// The kind of what is meant.
    pub fn kind(&self) -> ResourceKind {
        match self {
            Selector::Key(_) | Selector::Pattern(_) => ResourceKind::Sysctl,
            Selector::Resource(resource) => resource.kind(),
            Selector::Group(group) => group.kind,
        }
    }

    /// Whether it is about kernel parameters.
    pub fn is_sysctl(&self) -> bool {
        self.kind() == ResourceKind::Sysctl
    }

    /// Whether it may mean several.
    pub fn is_pattern(&self) -> bool {
        matches!(self, Selector::Pattern(_) | Selector::Group(_))
    }

    /// How narrowly it selects, among the patterns.
    pub fn specificity(&self) -> usize {
        match self {
            Selector::Key(_) | Selector::Resource(_) => 0,
            Selector::Pattern(pattern) => pattern.specificity(),
            Selector::Group(group) => group.specificity(),
        }
    }

    /// The kernel parameter that is spelled out.
    pub fn key(&self) -> Option<&SysctlKey> {
        match self {
            Selector::Key(key) => Some(key),
            _ => None,
        }
    }

    /// The resource of another kind that is spelled out.
    pub fn resource(&self) -> Option<&Resource> {
        match self {
            Selector::Resource(resource) => Some(resource),
            _ => None,
        }
    }

    /// The group of resources of another kind.
    pub fn group(&self) -> Option<&Group> {
        match self {
            Selector::Group(group) => Some(group),
            _ => None,
        }
    }

    /// The pattern of kernel parameters.
    pub fn pattern(&self) -> Option<&Pattern> {
        match self {
            Selector::Pattern(pattern) => Some(pattern),
            _ => None,
        }
    }

    /// The parts of the key or pattern; none where it is about another kind.
    pub fn segments(&self) -> Vec<&str> {
        match self {
            Selector::Key(key) => key.segments().collect(),
            Selector::Pattern(pattern) => pattern.segments().iter().map(Segment::as_str).collect(),
            Selector::Resource(_) | Selector::Group(_) => Vec::new(),
        }
    }

    /// Whether `key` is meant.
    pub fn matches(&self, key: &SysctlKey) -> bool {
        match self {
            Selector::Key(own) => own == key,
            Selector::Pattern(pattern) => pattern.matches(key),
            Selector::Resource(_) | Selector::Group(_) => false,
        }
    }

    /// Whether `key` is meant, by this name or by its other one.
    pub fn means(&self, key: &SysctlKey) -> bool {
        self.matches(key) || key.aliases().any(|alias| self.matches(&alias))
    }

    /// Whether some key is meant by both, or something of another kind.
    pub fn meets(&self, other: &Selector) -> bool {
        match (self, other) {
            (selector, Selector::Key(key)) | (Selector::Key(key), selector) => selector.means(key),
            (Selector::Pattern(own), Selector::Pattern(other)) => own.meets(other),
            (Selector::Group(own), Selector::Group(other)) => own.meets(other),
            (Selector::Group(group), Selector::Resource(resource))
            | (Selector::Resource(resource), Selector::Group(group)) => group.may_match(resource),
            (own, other) => own == other,
        }
    }

    /// Whether every key that `other` means is meant by this one. Where that is
    /// not plain from the text, it is taken not to.
    pub fn covers(&self, other: &Selector) -> bool {
        match (self, other) {
            (selector, Selector::Key(key)) => selector.means(key),
            (Selector::Pattern(own), Selector::Pattern(other)) => own.covers(other),
            (own, other) => own == other,
        }
    }
}

impl fmt::Display for Selector {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Selector::Key(key) => key.fmt(f),
            Selector::Pattern(pattern) => pattern.fmt(f),
            Selector::Resource(resource) => resource.fmt(f),
            Selector::Group(group) => group.fmt(f),
        }
    }
}

words! {
    /// What the guard does about drift.
    #[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
    pub enum Mode {
        /// Writes the expected value back and records it.
        #[default]
        Restore = "restore",
        /// Records it and never writes.
        Observe = "observe",
    }
}

/// The place in a file that a setting comes from.
#[derive(Debug, Clone, Default, PartialEq, Eq, Hash, Serialize)]
pub struct Origin {
    #[serde(serialize_with = "text::serialize_path")]
    pub file: Arc<PathBuf>,
    /// The line, counted from 1.
    pub line: u32,
}

/// `FILE:LINE`, as compilers and editors have it.
impl fmt::Display for Origin {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}:{}", self.file.display(), self.line)
    }
}

/// What is required of the keys of one line of the configuration.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Invariant {
    /// The keys.
    pub selector: Selector,
    /// What they must be.
    pub desired: Desired,
    /// What to do where they are not; already settled between the line's own
    /// `mode` and `[guard] mode`.
    pub mode: Mode,
    /// How long its owner has to restore it first; none without.
    pub grace: Option<Duration>,
    /// The kernel module to be loaded where they do not exist, such as `br_netfilter`.
    pub module: Option<String>,
    /// Whether a unit is restarted rather than started.
    pub restart: bool,
    /// Why, in the administrator's words.
    pub reason: Option<String>,
    /// Where it is written.
    pub origin: Origin,
}

impl Invariant {
    /// One that restores, and says nothing else.
    pub fn new(selector: Selector, desired: Desired, origin: Origin) -> Invariant {
        Invariant {
            selector,
            desired,
            mode: Mode::Restore,
            grace: None,
            module: None,
            restart: false,
            reason: None,
            origin,
        }
    }

    /// Whether it leaves the keys alone.
    pub fn is_off(&self) -> bool {
        self.desired == Desired::Anything
    }

    /// Whether a resource of this invariant that was observed like this is as it
    /// must be, compared as the kernel does.
    pub fn matches(&self, observed: &State) -> bool {
        match observed {
            State::Value(value) => self.holds(value),
            observed => self.desired.matches(observed),
        }
    }

    /// As [`Desired::target`].
    pub fn target(&self, observed: &State) -> Option<State> {
        self.desired.target(observed)
    }

    /// Whether a key of this invariant with this value is as it must be, compared
    /// as the kernel does.
    pub fn holds(&self, value: &Value) -> bool {
        // The format is looked up only where the plain comparison fails.
        self.desired.holds(value) || self.desired.holds_as(facts::format(&self.selector), value)
    }
}
