//! What a guard has not reported yet: drifts that wait for their writer or in a
//! sum. Where it is killed, the next guard reports them.

use serde::{Deserialize, Serialize};

use crate::effects::entry::{Entry, Priority};
use crate::effects::fields;
use crate::engine::Record;
use crate::model::text::visible;

/// The most text that is kept of all, in bytes.
const MOST: usize = 512 * 1024;

/// A record as the journal would have it.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Unreported {
    /// PRIORITY.
    pub priority: u8,
    /// MESSAGE.
    pub message: String,
    /// The other fields: their names and values.
    pub fields: Vec<(String, String)>,
}

impl Unreported {
    /// These records, each with its time, as far as there is room.
    pub(super) fn all<'a>(records: impl Iterator<Item = (&'a Record, u64)>) -> Vec<Unreported> {
        let mut size = 0;
        let entries = records.map(|(record, time)| Unreported::of(Entry::of(record, time)));
        let with_room = entries.take_while(|it| {
            size += it
                .fields
                .iter()
                .map(|(_, value)| value.len())
                .sum::<usize>();
            size <= MOST
        });
        with_room.collect()
    }

    fn of(entry: Entry) -> Self {
        let fields = entry.fields.into_iter();
        Unreported {
            priority: entry.priority.number(),
            message: entry.message,
            fields: fields
                .map(|(name, value)| (name.to_owned(), value))
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

#[cfg(test)]
mod tests {
    use super::*;
    use crate::model::Source;

    #[test]
    fn what_is_kept_is_what_the_journal_gets() {
        let record = Record::SourceLost {
            source: Source::Uevent,
            reason: "a \"reason\"".to_owned(),
        };
        let kept = Unreported::all([(&record, 7)].into_iter());
        let text = serde_json::to_string(&kept).expect("JSON");
        let read: Vec<Unreported> = serde_json::from_str(&text).expect("JSON");
        let read: Vec<_> = read.into_iter().map(Unreported::entry).collect();
        assert_eq!(read, [Some(Entry::of(&record, 7))]);
        // There is a bound.
        let many = vec![(&record, 7); 100_000];
        assert!(Unreported::all(many.into_iter()).len() < 10_000);
    }
}
