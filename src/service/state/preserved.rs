//! The last good states of preserved resources that are lost, or that a network restart
//! in progress may yet take away: `/run/netguard/preserved.json`, for the next netguard.
//!
//! An interface is known by its index here: one of the same name that was made since is
//! another one, and what the first had is not for it.

use std::collections::HashMap;
use std::io::{self, ErrorKind};

use serde::{Deserialize, Serialize};

use crate::engine::{GoodState, Preserved};
use crate::model::{Value, text};
use crate::process_namespaces::NetworkNamespace;
use crate::resource::{Attribute, Resource, State};
use crate::service::folder::Folder;
use crate::words::plain;

pub(super) const FILE: &str = "preserved.json";
const VERSION: u32 = 1;
/// The engine keeps at most 16,384 of some 300 bytes.
const LONGEST: u64 = 16 * 1024 * 1024;
/// The name of the single attribute of a kernel parameter.
const VALUE: &str = "value";

#[derive(Debug, Serialize, Deserialize)]
struct Contents {
    version: u32,
    /// The network namespace (the inode of its `net/dev` in `/proc`).
    network: Option<NetworkNamespace>,
    entries: Vec<Entry>,
}

/// Those of a state, by name.
type Attributes = Vec<(String, String)>;

#[derive(Debug, Serialize, Deserialize)]
struct Entry {
    resource: String,
    state: Attributes,
    lost: bool,
    /// What was found in its place, where it was lost and not absent.
    found: Option<Attributes>,
    /// The interfaces that it goes with, by name and index.
    interfaces: Vec<(String, u32)>,
}

/// Replaces the file; where there is nothing to keep, removes it.
///
/// # Errors
/// The system's; there is no file then.
pub(super) fn write(folder: &Folder, preserved: &Preserved) -> io::Result<()> {
    if preserved.entries.is_empty() {
        return folder.remove(FILE);
    }
    let mut indices = Indices::default();
    let entries = preserved.entries.iter();
    let contents = Contents {
        version: VERSION,
        network: NetworkNamespace::own().ok(),
        entries: entries
            .filter_map(|it| Entry::of(it, &mut indices))
            .collect(),
    };
    let text = serde_json::to_vec(&contents).map_err(io::Error::from);
    let written = text.and_then(|text| match text.len() as u64 > LONGEST {
        true => Err(ErrorKind::FileTooLarge.into()),
        // /run is memory: there is nothing to sync.
        false => folder.replace(FILE, &text, false),
    });
    if written.is_err() {
        // An old one may say of a resource that is lost that it must be restored.
        let _ = folder.remove(FILE);
    }
    written
}

/// What an earlier netguard has left, as far as it makes sense and its interfaces are
/// still there.
pub(super) fn read(folder: &Folder) -> Preserved {
    entries(folder).unwrap_or_else(|error| {
        let path = folder.path(FILE);
        tracing::warn!(
            "{}: {}; what was lost before is not restored",
            path.display(),
            plain(&error)
        );
        Preserved::default()
    })
}

/// What is lost, by the file of the netguard that runs, where this user may read it.
pub(super) fn lost(folder: &Folder) -> Preserved {
    let mut lost = entries(folder).unwrap_or_default();
    lost.entries.retain(|it| it.lost.is_some());
    lost
}

fn entries(folder: &Folder) -> io::Result<Preserved> {
    let Some(text) = folder.read(FILE, LONGEST)? else {
        return Ok(Preserved::default());
    };
    let contents: Contents = serde_json::from_slice(&text)?;
    if contents.version != VERSION || contents.network != NetworkNamespace::own().ok() {
        return Ok(Preserved::default());
    }
    let mut indices = Indices::default();
    let entries = contents.entries.into_iter();
    Ok(Preserved {
        entries: entries.filter_map(|it| it.state(&mut indices)).collect(),
        left_out: 0,
    })
}

impl Entry {
    /// Nothing where one of its interfaces is gone, and it with that.
    fn of(good: &GoodState, indices: &mut Indices) -> Option<Entry> {
        let index = |name: &str| Some((name.to_owned(), indices.of(name)?));
        let interfaces: Option<Vec<_>> = good.interfaces().map(index).collect();
        Some(Entry {
            resource: good.key.to_string(),
            state: attributes_of(&good.state)?,
            lost: good.lost.is_some(),
            found: good.lost.as_ref().and_then(attributes_of),
            interfaces: interfaces?,
        })
    }

    /// Nothing where it makes no sense, or an interface is another one now.
    fn state(self, indices: &mut Indices) -> Option<GoodState> {
        let key = Resource::parse(&self.resource)?;
        let found = match self.found {
            Some(found) => state_of(&key, &found)?,
            None => State::Absent,
        };
        let good = GoodState {
            state: state_of(&key, &self.state)?,
            lost: self.lost.then_some(found),
            key,
        };
        let mut interfaces = self.interfaces.iter();
        let is_known = |name: &str| self.interfaces.iter().any(|(own, _)| own == name);
        (good.interfaces().all(is_known)
            && interfaces.all(|(name, index)| indices.of(name) == Some(*index)))
        .then_some(good)
    }
}

/// Nothing where it is absent.
fn attributes_of(state: &State) -> Option<Attributes> {
    match state {
        State::Absent => None,
        State::Value(value) => Some(vec![(VALUE.to_owned(), value.as_str().to_owned())]),
        State::Attributes(attributes) => {
            let attributes = attributes.iter();
            let text = |(name, value): &(Attribute, Value)| {
                (name.as_str().to_owned(), value.as_str().to_owned())
            };
            Some(attributes.map(text).collect())
        }
    }
}

fn state_of(key: &Resource, attributes: &Attributes) -> Option<State> {
    match (key.sysctl(), &attributes[..]) {
        (Some(_), [(name, value)]) if name == VALUE => Some(Value::new(value).into()),
        (Some(_), _) => None,
        (None, attributes) => {
            let attributes = attributes.iter();
            let attributes =
                attributes.map(|(name, value)| Some((Attribute::of(name)?, Value::new(value))));
            Some(State::with(attributes.collect::<Option<_>>()?))
        }
    }
}

/// The indices of interfaces, each asked for once.
#[derive(Default)]
struct Indices(HashMap<String, Option<u32>>);

impl Indices {
    fn of(&mut self, name: &str) -> Option<u32> {
        if let Some(known) = self.0.get(name) {
            return *known;
        }
        let index = nix::net::if_::if_nametoindex(&text::to_bytes(name)[..]).ok();
        self.0.insert(name.to_owned(), index);
        index
    }
}

#[cfg(test)]
mod tests {
    use std::fs;
    use std::os::unix::fs::PermissionsExt;
    use std::path::PathBuf;

    use proptest::prelude::*;

    use super::*;

    /// A folder that is gone when dropped.
    struct Scratch(PathBuf, Folder);

    impl Scratch {
        fn new(name: &str) -> Scratch {
            let name = format!("netguard-preserved-{}-{name}", std::process::id());
            let path = std::env::temp_dir().join(name);
            fs::create_dir_all(&path).expect("a folder");
            let folder = Folder::open(&path).expect("a folder").expect("a folder");
            Scratch(path, folder)
        }
    }

    impl Drop for Scratch {
        fn drop(&mut self) {
            let _ = fs::remove_dir_all(&self.0);
        }
    }

    fn good(key: &str, state: State, lost: Option<State>) -> GoodState {
        let key = Resource::parse(key).expect(key);
        GoodState { key, state, lost }
    }

    fn attributes(attributes: &[(Attribute, &str)]) -> State {
        let attributes = attributes.iter();
        State::with(
            attributes
                .map(|(name, value)| (*name, Value::new(value)))
                .collect(),
        )
    }

    fn entries() -> Vec<GoodState> {
        use Attribute::{Dev, Nexthops, Other};
        vec![
            good(
                "route/main/192.168.4.25/32",
                attributes(&[(Dev, "lo")]),
                Some(State::Absent),
            ),
            good(
                "route/200/10.0.0.0/8",
                attributes(&[
                    (Nexthops, "dev lo weight 1 nexthop dev lo weight 2"),
                    (Other, "22=01"),
                ]),
                None,
            ),
            good("rule/ipv4/9/fwmark=0x200/table=2004", attributes(&[]), None),
            good(
                "net.ipv4.conf.lo.proxy_arp",
                Value::new("1").into(),
                Some(Value::new("0").into()),
            ),
            good(
                "net.ipv4.tcp_rmem",
                Value::new("4096\t131072\t6291456").into(),
                None,
            ),
        ]
    }

    #[test]
    fn what_is_written_is_read_by_its_owner_alone() {
        let scratch = Scratch::new("written");
        let preserved = Preserved {
            entries: entries(),
            left_out: 0,
        };
        write(&scratch.1, &preserved).expect("a file");
        let file = scratch.0.join(FILE);
        let mode = fs::metadata(&file).expect("a file").permissions().mode();
        assert_eq!(mode & 0o777, 0o600);
        assert_eq!(read(&scratch.1), preserved);
        write(&scratch.1, &Preserved::default()).expect("nothing");
        assert!(!file.exists());
        assert_eq!(read(&scratch.1), Preserved::default());
    }

    #[test]
    fn what_an_interface_had_that_is_gone_is_not_for_another() {
        let scratch = Scratch::new("gone");
        let gone = good(
            "route/main/192.168.4.26/32",
            attributes(&[(Attribute::Dev, "nosuchlink0")]),
            Some(State::Absent),
        );
        let mut entries = entries();
        entries.push(gone);
        let left_out = 0;
        write(&scratch.1, &Preserved { entries, left_out }).expect("a file");
        assert_eq!(read(&scratch.1).entries, super::tests::entries());
        // The same name, and another interface.
        let file = scratch.0.join(FILE);
        let text = fs::read_to_string(&file).expect("a file");
        let changed = text.replace("[\"lo\",1]", "[\"lo\",7]");
        assert_ne!(text, changed);
        fs::write(&file, changed).expect("a file");
        let left: Vec<_> = read(&scratch.1).entries;
        assert_eq!(
            left,
            [
                super::tests::entries()[2].clone(),
                super::tests::entries()[4].clone()
            ]
        );
    }

    #[test]
    fn a_file_that_makes_no_sense_is_none() {
        let scratch = Scratch::new("damaged");
        let file = scratch.0.join(FILE);
        let network = NetworkNamespace::own().expect("a namespace");
        let network = serde_json::to_string(&network).expect("a number");
        let whole =
            |entry: &str| format!("{{\"version\":1,\"network\":{network},\"entries\":[{entry}]}}");
        let entry = |resource: &str, state: &str, interfaces: &str| {
            whole(&format!(
                "{{\"resource\":\"{resource}\",\"state\":{state},\"lost\":true,\"interfaces\":{interfaces}}}"
            ))
        };
        let route = "route/main/192.168.4.25/32";
        for text in [
            "",
            "[]",
            "{}",
            &entry("route/x", "[]", "[]"),
            &entry(route, "[[\"colour\",\"red\"]]", "[]"),
            // Its interface is not named.
            &entry(route, "[[\"dev\",\"lo\"]]", "[]"),
            &entry("net.ipv4.ip_forward", "[[\"dev\",\"lo\"]]", "[]"),
            &entry("net.ipv4.ip_forward", "[]", "[]"),
        ] {
            fs::write(&file, text).expect("a file");
            assert_eq!(read(&scratch.1), Preserved::default(), "{text}");
        }
        fs::write(&file, entry(route, "[[\"dev\",\"lo\"]]", "[[\"lo\",1]]")).expect("a file");
        assert_eq!(read(&scratch.1).entries.len(), 1);
        let other = entry(route, "[[\"dev\",\"lo\"]]", "[[\"lo\",1]]");
        let other = other.replace(&network, "1");
        fs::write(&file, other).expect("a file");
        assert_eq!(read(&scratch.1), Preserved::default(), "another namespace");
    }

    proptest! {
        #[test]
        fn any_bytes_are_read(bytes in prop::collection::vec(any::<u8>(), 0..200)) {
            let scratch = Scratch::new("bytes");
            fs::write(scratch.0.join(FILE), &bytes).expect("a file");
            let _ = read(&scratch.1);
        }
    }
}
