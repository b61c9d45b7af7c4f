//! Advisory findings, which set no guarded key.

use serde::Serialize;

use crate::model::Origin;

/// Something to know.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Hint {
    /// What the hint is about: a guarded key, a pattern, or a service.
    pub about: String,
    /// The line that it comes from, where one does.
    pub place: Option<Origin>,
    /// What is so.
    pub what: String,
    /// What to do.
    pub remedy: Option<String>,
}
