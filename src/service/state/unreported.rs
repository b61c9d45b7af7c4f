//! What a guard has not reported yet: drifts that wait for their writer or in a
//! sum. Where it is killed, the next guard reports them.

use serde::{Deserialize, Serialize};

use crate::engine::Record;
use crate::journal::entry::{Entry, Priority};
use crate::journal::fields;
use crate::model::text::visible;

/// No longer text is kept of a field, in bytes: there are at most some 150 records
/// ([`Engine::unreported`](crate::engine::Engine::unreported)) of a few long fields,
/// and the state file has a bound.
const LONGEST: usize = 1024;

/// A record as the journal would have it.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Unreported {
    pub priority: u8,
    pub message: String,
    /// The other fields: their names and values.
    pub fields: Vec<(String, String)>,
}

impl Unreported {
    /// A record that is logged at `time`.
    pub(super) fn of(record: &Record, time: u64) -> Self {
        let entry = Entry::of(record, time);
        let fields = entry.fields.into_iter();
        Unreported {
            priority: entry.priority.number(),
            message: shortened(entry.message),
            fields: fields
                .map(|(name, value)| (name.to_owned(), shortened(value)))
                .collect(),
        }
    }

    /// The same for the journal, where it makes sense.
    pub(super) fn entry(self) -> Option<Entry> {
        let known = |name: String| fields::ALL.iter().copied().find(|it| *it == name);
        let fields = self.fields.into_iter();
        Some(Entry {
            priority: Priority::of(self.priority)?,
            message: visible(&self.message).into_owned(),
            fields: fields
                .filter_map(|(name, value)| Some((known(name)?, value)))
                .collect(),
        })
    }
}

/// A text of at most [`LONGEST`] bytes.
fn shortened(mut text: String) -> String {
    const END: &str = "...";
    if text.len() > LONGEST {
        let fits = |end: &usize| text.is_char_boundary(*end);
        let end = (0..=LONGEST - END.len()).rev().find(fits);
        text.truncate(end.unwrap_or(0));
        text.push_str(END);
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::model::Source;

    #[test]
    fn what_is_kept_is_what_the_journal_gets() {
        let record = Record::SourceUnavailable {
            source: Source::Uevent,
            reason: "a \"reason\"".to_owned(),
        };
        let kept = Unreported::of(&record, 7);
        let text = serde_json::to_string(&kept).expect("JSON");
        let read: Unreported = serde_json::from_str(&text).expect("JSON");
        assert_eq!(read.entry(), Some(Entry::of(&record, 7)));
        // There is a bound.
        let record = Record::SourceUnavailable {
            source: Source::Uevent,
            reason: "ä".repeat(100_000),
        };
        let kept = Unreported::of(&record, 7);
        let text = serde_json::to_string(&kept).expect("JSON");
        assert!(text.len() < 3 * LONGEST, "{text}");
        assert!(kept.message.contains("ä..."), "{}", kept.message);
    }
}
