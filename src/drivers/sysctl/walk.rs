//! Finds the keys that match a pattern, a part at a time: `net.ipv4.conf.*.*` of
//! 5,000 interfaces means 150,000 files.

use std::ffi::OsString;
use std::fs::{self, ReadDir};
use std::os::unix::ffi::{OsStrExt, OsStringExt};
use std::path::{Path, PathBuf};

use crate::model::{Pattern, Segment, SysctlKey, text};

/// A walk through the folders in which keys may match.
#[derive(Debug)]
pub struct Walk {
    pattern: Vec<Segment>,
    with_links: bool,
    /// The places on the way to where it is.
    places: Vec<Place>,
}

#[derive(Debug)]
struct Place {
    path: PathBuf,
    /// The segments that led here.
    names: Vec<String>,
    entries: Option<ReadDir>,
}

/// What a step has come to.
#[derive(Debug)]
pub enum Step {
    /// A key that matches, and its file, which may not be there where the last
    /// segments are literal.
    Found(PathBuf, SysctlKey),
    /// Nothing yet.
    Nothing,
    /// The end.
    End,
}

impl Walk {
    /// Begins a walk below `root`. A procfs has no symbolic links.
    pub fn new(root: &Path, pattern: &Pattern, with_links: bool) -> Self {
        let place = Place {
            path: root.to_owned(),
            names: Vec::new(),
            entries: None,
        };
        Walk {
            pattern: pattern.segments().to_vec(),
            with_links,
            places: vec![place],
        }
    }

    /// Checks one more name.
    pub fn step(&mut self) -> Step {
        let Some(place) = self.places.last_mut() else {
            return Step::End;
        };
        let Some(segment) = self.pattern.get(place.names.len()) else {
            return self.arrive();
        };
        let name = match segment {
            Segment::Literal(name) => Some(name.clone()),
            Segment::Glob(_) => {
                if place.entries.is_none() {
                    place.entries = fs::read_dir(&place.path).ok();
                }
                match place.entries.as_mut().and_then(Iterator::next) {
                    None => {
                        self.places.pop();
                        return Step::Nothing;
                    }
                    Some(entry) => entry
                        .ok()
                        // An interface's name may be any bytes.
                        .map(|entry| text::from_bytes(entry.file_name().as_bytes()))
                        .filter(|name| segment.matches(name)),
                }
            }
        };
        let is_literal = matches!(segment, Segment::Literal(_));
        let below = name.map(|name| place.below(name));
        if is_literal {
            self.places.pop();
        }
        self.places
            .extend(below.filter(|below| self.with_links || !below.path.is_symlink()));
        Step::Nothing
    }

    fn arrive(&mut self) -> Step {
        let Some(place) = self.places.pop() else {
            return Step::End;
        };
        let names: Vec<&str> = place.names.iter().map(String::as_str).collect();
        match SysctlKey::from_segments(&names) {
            Ok(key) => Step::Found(place.path, key),
            Err(_) => Step::Nothing,
        }
    }
}

impl Place {
    fn below(&self, name: String) -> Place {
        let path = self.path.join(OsString::from_vec(text::to_bytes(&name)));
        let mut names = self.names.clone();
        names.push(name);
        Place {
            path,
            names,
            entries: None,
        }
    }
}
