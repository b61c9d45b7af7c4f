//! Units as systemd's bus interface shows them: object paths and states.

use std::fmt;

use serde::de::{Deserialize, Deserializer, IgnoredAny, MapAccess, Visitor};
use zbus::{OwnedObjectPath, Signature, Variant};

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

/// The object path of a unit: [`unit_of`] the other way round.
pub fn path_of(unit: &str) -> String {
    let mut path = "/org/freedesktop/systemd1/unit/".to_owned();
    for (at, byte) in unit.bytes().enumerate() {
        match byte.is_ascii_alphabetic() || byte.is_ascii_digit() && at > 0 {
            true => path.push(byte.into()),
            false => path.push_str(&format!("_{byte:02x}")),
        }
    }
    path
}

/// Properties of a unit, those that are there, of the answer to `GetAll` or of a
/// `PropertiesChanged`.
///
/// There are a hundred, and systemd 219 sends all each time: the others are stepped over
/// and not taken into memory.
#[derive(Debug, Default, PartialEq, Eq)]
pub struct UnitProperties {
    /// `active`, `inactive`, `failed` ...
    pub active_state: Option<String>,
    /// `loaded`, `not-found`, `masked` ...
    pub load_state: Option<String>,
    /// The number of its job, where it has one.
    pub job: Option<u32>,
    /// When it stopped the last time, in microseconds since 1970; 0 where it never ran.
    pub inactive_since: Option<u64>,
}

impl zbus::Type for UnitProperties {
    const SIGNATURE: &'static Signature =
        &Signature::static_dict(&Signature::Str, &Signature::Variant);
}

impl<'de> Deserialize<'de> for UnitProperties {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        deserializer.deserialize_map(Properties)
    }
}

struct Properties;

impl<'de> Visitor<'de> for Properties {
    type Value = UnitProperties;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("a dictionary of properties")
    }

    fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<UnitProperties, A::Error> {
        let mut found = UnitProperties::default();
        while let Some(name) = map.next_key::<&str>()? {
            match name {
                "ActiveState" => found.active_state = text(map.next_value()?),
                "LoadState" => found.load_state = text(map.next_value()?),
                "InactiveEnterTimestamp" => {
                    found.inactive_since = u64::try_from(map.next_value::<Variant<'_>>()?).ok();
                }
                "Job" => found.job = job(map.next_value()?),
                _ => drop(map.next_value::<IgnoredAny>()?),
            }
        }
        Ok(found)
    }
}

fn text(value: Variant<'_>) -> Option<String> {
    String::try_from(value).ok()
}

/// The job's number and path; 0 and `/` where there is none.
fn job(value: Variant<'_>) -> Option<u32> {
    let (number, _) = <(u32, OwnedObjectPath)>::try_from(value).ok()?;
    (number != 0).then_some(number)
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
        let path = "/org/freedesktop/systemd1/unit/_35g_40a_2eservice";
        assert_eq!(path_of("5g@a.service"), path);
    }

    proptest! {
        #[test]
        fn any_path_is_read(path in ".*") {
            let _ = unit_of(&path);
            let _ = unit_of(&format!("/org/freedesktop/systemd1/unit/{path}"));
        }

        #[test]
        fn every_escaped_name_is_found_again(name in "[ -~]*\\.service") {
            let path = path_of(&name);
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
            let (_, unit, invalidated): (&str, UnitProperties, Vec<&str>) =
                body.deserialize().expect("a body");
            assert_eq!(invalidated, ["Invalidated"]);
            unit
        };
        let path = |text| zbus::ObjectPath::try_from(text).expect("a path");
        let others = || {
            HashMap::from([
                ("Job", Variant::from((0_u32, path("/")))),
                ("After", Variant::from(vec!["a.service", "b.service"])),
                ("InvocationID", Variant::from(vec![1_u8, 2, 3])),
                ("CanStart", Variant::from(true)),
            ])
        };
        assert_eq!(read(others()), UnitProperties::default());
        let mut properties = others();
        properties.insert("ActiveState", Variant::from("deactivating"));
        properties.insert("LoadState", Variant::from("masked"));
        properties.insert("Job", Variant::from((7_u32, path("/job/7"))));
        let unit = UnitProperties {
            active_state: Some("deactivating".to_owned()),
            load_state: Some("masked".to_owned()),
            job: Some(7),
            inactive_since: None,
        };
        assert_eq!(read(properties), unit);
        let mut properties = others();
        properties.insert("ActiveState", Variant::from(3_u32));
        assert_eq!(read(properties).active_state, None);
    }
}
