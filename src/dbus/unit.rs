//! Units as systemd's bus interface shows them: object paths and states.

use std::fmt;

use serde::de::{Deserialize, Deserializer, IgnoredAny, MapAccess, Visitor};
use zbus::{Signature, Variant};

/// The name of the unit that an object path stands for, `None` where it stands
/// for none.
///
/// systemd (bus_label_escape) writes what is no letter or digit, and a digit at
/// the beginning, as `_` with two hexadecimal digits.
pub fn unit_of(path: &str) -> Option<String> {
    let label = path.strip_prefix("/org/freedesktop/systemd1/unit/")?;
    let mut name = Vec::with_capacity(label.len());
    let mut rest = label.as_bytes();
    while let [first, tail @ ..] = rest {
        rest = match (first, tail) {
            (b'/', _) => return None,
            (b'_', [high, low, tail @ ..]) => {
                let digit = |byte: &u8| char::from(*byte).to_digit(16);
                let code = digit(high)? * 16 + digit(low)?;
                name.push(u8::try_from(code).ok()?);
                tail
            }
            (b'_', _) => return None,
            (plain, tail) => {
                name.push(*plain);
                tail
            }
        };
    }
    // A unit has a type, so a name has a dot.
    String::from_utf8(name)
        .ok()
        .filter(|name| name.contains('.'))
}

/// The ActiveState in the dictionary of a `PropertiesChanged`, where it is there.
///
/// systemd 219 sends all hundred properties of a unit each time, so the others
/// are stepped over and not taken into memory.
#[derive(Debug, Default, PartialEq, Eq)]
pub struct ActiveState(pub Option<String>);

impl zbus::Type for ActiveState {
    const SIGNATURE: &'static Signature =
        &Signature::static_dict(&Signature::Str, &Signature::Variant);
}

impl<'de> Deserialize<'de> for ActiveState {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        deserializer.deserialize_map(Properties)
    }
}

struct Properties;

impl<'de> Visitor<'de> for Properties {
    type Value = ActiveState;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("a dictionary of properties")
    }

    fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<ActiveState, A::Error> {
        let mut found = ActiveState::default();
        while let Some(name) = map.next_key::<&str>()? {
            if name == "ActiveState" {
                found.0 = String::try_from(map.next_value::<Variant<'_>>()?).ok();
            } else {
                map.next_value::<IgnoredAny>()?;
            }
        }
        Ok(found)
    }
}

#[cfg(test)]
mod tests {
    use std::collections::HashMap;

    use proptest::prelude::*;
    use zbus::Message;

    use super::*;

    #[test]
    fn object_paths_become_names() {
        let unit = |label: &str| unit_of(&format!("/org/freedesktop/systemd1/unit/{label}"));
        for (label, name) in [
            ("network_2eservice", "network.service"),
            ("systemd_2dnetworkd_2eservice", "systemd-networkd.service"),
            ("_35g_2eservice", "5g.service"),
            ("getty_40tty1_2eservice", "getty@tty1.service"),
            ("dev_2d_5cx5f_2edevice", "dev-\\x5f.device"),
            ("caf_c3_a9_2eservice", "café.service"),
        ] {
            assert_eq!(unit(label).as_deref(), Some(name), "{label}");
        }
        for label in [
            "",
            "_",
            "_2",
            "_zz_2eservice",
            "a_2eservice/b",
            "_ff_2eservice",
        ] {
            assert_eq!(unit(label), None, "{label}");
        }
        assert_eq!(unit_of("/org/freedesktop/systemd1/job/1_2e"), None);
    }

    proptest! {
        #[test]
        fn any_path_is_read(path in ".*") {
            let _ = unit_of(&path);
            let _ = unit_of(&format!("/org/freedesktop/systemd1/unit/{path}"));
        }

        #[test]
        fn every_escaped_name_is_found_again(name in "[ -~]*\\.service") {
            let escaped: String = name
                .bytes()
                .map(|byte| if byte.is_ascii_alphanumeric() {
                    char::from(byte).to_string()
                } else {
                    format!("_{byte:02x}")
                })
                .collect();
            let path = format!("/org/freedesktop/systemd1/unit/{escaped}");
            prop_assert_eq!(unit_of(&path), Some(name));
        }
    }

    #[test]
    fn the_state_is_found_among_other_properties() {
        let read = |properties: HashMap<&str, Variant<'_>>| {
            let body = (
                "org.freedesktop.systemd1.Unit",
                properties,
                vec!["Invalidated"],
            );
            let message = Message::signal("/a", "a.b", "PropertiesChanged")
                .build(&body)
                .expect("a message");
            let body = message.body();
            let (_, state, invalidated): (&str, ActiveState, Vec<&str>) =
                body.deserialize().expect("a body");
            assert_eq!(invalidated, ["Invalidated"]);
            state.0
        };
        let others = || {
            HashMap::from([
                ("Job", Variant::from((7_u32, "/job"))),
                ("After", Variant::from(vec!["a.service", "b.service"])),
                ("InvocationID", Variant::from(vec![1_u8, 2, 3])),
                ("CanStart", Variant::from(true)),
            ])
        };
        assert_eq!(read(others()), None);
        let mut properties = others();
        properties.insert("ActiveState", Variant::from("deactivating"));
        assert_eq!(read(properties).as_deref(), Some("deactivating"));
        let mut properties = others();
        properties.insert("ActiveState", Variant::from(3_u32));
        assert_eq!(read(properties), None);
    }
}
