//! What keeps the guard from its work, or a part of it, beside unavailable sources.

use std::sync::Arc;

use crate::model::Errno;
use crate::resource::Resource;

/// Something that the guard cannot do as it should; the worst kind first.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Limitation {
    /// What it reads is not the kernel's.
    Blind {
        /// Why, for people.
        reason: Arc<str>,
    },
    /// A part of the firewall can be neither read nor restored.
    Firewall {
        /// Why, for people.
        reason: Arc<str>,
    },
    /// It could not restore these values.
    Unwritable {
        values: Affected,
        /// What opening the first for writing gave.
        errno: Errno,
    },
    /// A start with an invalid configuration: the last good one is in force.
    LastGood(Arc<LastGood>),
    /// Writes to these values are not detected, only found by reading.
    Undetected {
        values: Affected,
        /// Why, of the first, for people.
        reason: Arc<str>,
    },
    /// What the next guard should know is not saved.
    Unsaved {
        /// Why, for people.
        reason: Arc<str>,
    },
}

/// Several values of which one is named.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Affected {
    pub count: usize,
    /// Of how many that the guard should care for.
    pub of: usize,
    /// The first in the order of restores.
    pub first: Resource,
}

/// The configuration that was in force when the last one was good.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct LastGood {
    /// When it was loaded, in microseconds since 1970.
    pub saved: u64,
    /// Why the present one is invalid.
    pub diagnostics: String,
}

words! {
    /// The kind of a [`Limitation`]; the worst first.
    #[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
    pub enum LimitationKind {
        Blind = "blind",
        Firewall = "firewall",
        Unwritable = "unwritable",
        LastGood = "last-good",
        Undetected = "undetected",
        Unsaved = "unsaved",
    }
}

impl LimitationKind {
    /// Whether drift is not found, or not restored.
    pub fn is_severe(self) -> bool {
        matches!(
            self,
            LimitationKind::Blind | LimitationKind::Firewall | LimitationKind::Unwritable
        )
    }
}

impl Limitation {
    pub fn kind(&self) -> LimitationKind {
        match self {
            Limitation::Blind { .. } => LimitationKind::Blind,
            Limitation::Firewall { .. } => LimitationKind::Firewall,
            Limitation::Unwritable { .. } => LimitationKind::Unwritable,
            Limitation::LastGood(_) => LimitationKind::LastGood,
            Limitation::Undetected { .. } => LimitationKind::Undetected,
            Limitation::Unsaved { .. } => LimitationKind::Unsaved,
        }
    }
}
