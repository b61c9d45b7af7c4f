//! An entry as `journalctl -o json` prints it, on a line of its own.
//!
//! A value is a string, an array of byte numbers where it is not printable,
//! `null` where it is too long and `--all` was not given; a repeated field is an
//! array of those ([systemd.io/JOURNAL_EXPORT_FORMATS]).
//!
//! Up to systemd 224 a byte beyond ASCII is printed with its sign extended, the
//! two bytes of an `é` as `\uffffffc3\uffffffa9` (systemd/systemd#987): valid
//! JSON that means something else. It is put right here.
//!
//! [systemd.io/JOURNAL_EXPORT_FORMATS]: https://systemd.io/JOURNAL_EXPORT_FORMATS

use serde_json::Value as Json;

use super::Entry;

/// Reads one line.
///
/// # Errors
/// Why it cannot be parsed, where it is no JSON object.
pub(super) fn entry(line: &[u8]) -> Result<Entry, String> {
    let object: serde_json::Map<String, Json> =
        // Each is on one line.
        serde_json::from_slice(line).map_err(|error| error.to_string().replace(" line 1 ", " "))?;
    Ok(Entry::new(
        object
            .into_iter()
            .map(|(name, value)| (name, values(value)))
            .collect(),
    ))
}

fn values(value: Json) -> Vec<String> {
    match value {
        Json::Array(items) if !items.iter().all(Json::is_number) => {
            items.into_iter().filter_map(text).collect()
        }
        one => text(one).into_iter().collect(),
    }
}

fn text(value: Json) -> Option<String> {
    match value {
        Json::Null => None,
        Json::String(text) => Some(repaired(text)),
        Json::Array(numbers) => {
            let byte = |number: &Json| number.as_u64().and_then(|byte| u8::try_from(byte).ok());
            let bytes: Vec<u8> = numbers.iter().filter_map(byte).collect();
            Some(String::from_utf8_lossy(&bytes).into_owned())
        }
        other => Some(other.to_string()),
    }
}

/// What `\uffff` and four digits stood for. U+FFFF is no character, so nothing
/// else is printed so.
fn repaired(text: String) -> String {
    const SIGN: &str = "\u{ffff}ff";
    if !text.contains(SIGN) {
        return text;
    }
    let mut bytes = Vec::with_capacity(text.len());
    let mut rest = text.as_str();
    while let Some(at) = rest.find(SIGN) {
        bytes.extend_from_slice(&rest.as_bytes()[..at]);
        let after = &rest[at + SIGN.len()..];
        match after.get(..2).map(|digits| u8::from_str_radix(digits, 16)) {
            Some(Ok(byte)) => {
                bytes.push(byte);
                rest = &after[2..];
            }
            _ => {
                bytes.extend_from_slice(SIGN.as_bytes());
                rest = after;
            }
        }
    }
    bytes.extend_from_slice(rest.as_bytes());
    String::from_utf8_lossy(&bytes).into_owned()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn values_of_every_form_are_read() {
        let line =
            br#"{ "ONE" : "a", "TWO" : [ "a", [ 98, 195, 40 ], null ], "BINARY" : [ 195, 164 ],
            "LONG" : null, "NONE" : [ ], "NUMBER" : 7 }"#;
        let entry = entry(line).expect("an entry");
        assert_eq!(entry.all("ONE"), ["a"]);
        assert_eq!(entry.all("TWO"), ["a", "b\u{fffd}("]);
        assert_eq!(entry.all("BINARY"), ["ä"]);
        assert_eq!(entry.all("NUMBER"), ["7"]);
        assert_eq!(entry.field("LONG"), None);
        assert_eq!(entry.field("ABSENT"), None);
    }

    #[test]
    fn text_of_systemd_219_is_put_right() {
        let line = br#"{"MESSAGE":"f\uffffffc3\uffffffbcr \uffffffe2\uffffff94\uffffff94 \uffffffzz \uffff"}"#;
        let entry = entry(line).expect("an entry");
        assert_eq!(entry.all("MESSAGE"), ["für └ \u{ffff}ffzz \u{ffff}"]);
    }

    #[test]
    fn what_is_no_entry_says_so() {
        for line in ["", "-- No entries --", "[1]", r#"{"A":"#] {
            assert!(entry(line.as_bytes()).is_err(), "{line}");
        }
    }
}
