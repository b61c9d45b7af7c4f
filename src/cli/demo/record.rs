//! The guard's records, as `--log json` writes them.

use serde_json::Value;

/// One record, a JSON object with the journal's field names.
#[derive(Debug)]
pub struct Record(Value);

impl Record {
    /// Reads a line; nothing where it is no record.
    pub fn parse(line: &str) -> Option<Record> {
        let record = Record(serde_json::from_str(line).ok()?);
        record.field("NETGUARD_EVENT").is_some().then_some(record)
    }

    /// The field of this name, a number as its digits.
    pub fn field(&self, name: &str) -> Option<String> {
        match self.0.get(name)? {
            Value::String(text) => Some(text.clone()),
            Value::Number(number) => Some(number.to_string()),
            _ => None,
        }
    }

    /// Whether it is an event of this kind.
    pub fn is(&self, event: &str) -> bool {
        self.field("NETGUARD_EVENT").is_some_and(|own| own == event)
    }
}
