//! The name of one kernel parameter below `/proc/sys`.

use std::cmp::Ordering;
use std::ffi::OsString;
use std::fmt;
use std::hash::{Hash, Hasher};
use std::os::unix::ffi::OsStringExt;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use super::facts::{Fact, aliases};
use super::text::{self, WILDCARDS};

/// Whether the kernel accepts this as the name of an interface (`dev_valid_name`). Its
/// `isspace` counts the byte of Latin-1's no-break space.
pub fn may_be_interface(name: &str) -> bool {
    const LONGEST: usize = 15;
    let bytes = text::to_bytes(name);
    let is_odd = |byte: &u8| matches!(byte, b'/' | b':' | b' ' | b'\t'..=b'\r' | 0xa0);
    (1..=LONGEST).contains(&bytes.len()) && !bytes.iter().any(is_odd) && !matches!(name, "." | "..")
}

/// The name of one kernel parameter: its path below `/proc/sys`.
///
/// Spelled as in sysctl.d(5): the first separator decides. When it is a dot,
/// dots separate and a slash stands for a dot inside a segment; when it is a
/// slash, slashes separate and dots are plain characters. So
/// `net.ipv4.conf.eth0/100.rp_filter` and `net/ipv4/conf/eth0.100/rp_filter`
/// are the same key, of interface `eth0.100`.
///
/// An interface's name may be any bytes but white space, NUL and `/`. Here they
/// are [text that keeps them](text::from_bytes); a byte that cannot be shown is
/// spelled `\xHH`, and so are the backslash, `*`, `?` and `[` that stand for
/// themselves.
///
/// Cheap to clone; compares by path.
#[derive(Clone)]
pub struct SysctlKey {
    path: Arc<str>,
    /// A restore and a sweep ask for it again and again.
    fact: Option<&'static Fact>,
}

impl PartialEq for SysctlKey {
    fn eq(&self, other: &Self) -> bool {
        self.path == other.path
    }
}

impl Eq for SysctlKey {}

impl Hash for SysctlKey {
    fn hash<H: Hasher>(&self, state: &mut H) {
        self.path.hash(state);
    }
}

impl PartialOrd for SysctlKey {
    fn partial_cmp(&self, other: &Self) -> Option<Ordering> {
        Some(self.cmp(other))
    }
}

impl Ord for SysctlKey {
    fn cmp(&self, other: &Self) -> Ordering {
        self.path.cmp(&other.path)
    }
}

/// Why a key or a pattern cannot be one.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum KeyError {
    /// Nothing was given.
    Empty,
    /// It begins with a slash: keys are relative to `/proc/sys`.
    Absolute,
    /// Two separators follow each other, or one stands at an end.
    EmptySegment,
    /// A segment is `.` or `..` and would leave the tree.
    DotSegment,
    /// White space stands in it, or a control character or `=` outside of an
    /// interface's name.
    BadCharacter(char),
    /// A backslash that begins no `\xHH`.
    BadEscape,
    /// A single segment: `/proc/sys` holds only directories at its top.
    NoDirectory,
    /// A `[` without its `]`.
    UnclosedBracket,
}

impl fmt::Display for KeyError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            KeyError::Empty => f.write_str("the key is empty"),
            KeyError::Absolute => {
                f.write_str("a key is relative to /proc/sys and does not begin with a slash")
            }
            KeyError::EmptySegment => f.write_str("a part of the key is empty"),
            KeyError::DotSegment => f.write_str("`.` and `..` are not allowed as a part of a key"),
            KeyError::BadCharacter(c) => write!(f, "invalid character {c:?} in key"),
            KeyError::BadEscape => f.write_str(
                "`\\` in a key begins `\\xHH`, a byte in hexadecimal; a backslash is `\\x5c`",
            ),
            KeyError::NoDirectory => {
                f.write_str("a key has at least two parts, such as `kernel.panic`")
            }
            KeyError::UnclosedBracket => {
                f.write_str("`[` without its `]`; in a name it is written `\\x5b`")
            }
        }
    }
}

impl std::error::Error for KeyError {}

/// Whose configuration a key under `net/{ipv4,ipv6}/{conf,neigh}` is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Target<'a> {
    /// `conf/all`: combined with, or propagated to, every interface.
    All,
    /// `conf/default`: inherited by interfaces to come.
    Default,
    /// One interface, by name.
    Interface(&'a str),
}

impl<'a> Target<'a> {
    fn of(segment: &'a str) -> Self {
        match segment {
            "all" => Target::All,
            "default" => Target::Default,
            name => Target::Interface(name),
        }
    }
}

words! {
    /// The address family of a `net/ipv4` or `net/ipv6` key.
    #[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
    pub enum Family {
        /// `net/ipv4`
        Ipv4 = "ipv4",
        /// `net/ipv6`
        Ipv6 = "ipv6",
    }
}

impl SysctlKey {
    fn at(path: impl Into<Arc<str>>) -> Self {
        let path = path.into();
        let fact = Fact::of_path(&path);
        SysctlKey { path, fact }
    }

    /// What is known of it.
    pub(super) fn fact(&self) -> Option<&'static Fact> {
        self.fact
    }

    /// Reads a key as an administrator spells it.
    ///
    /// # Errors
    /// [`KeyError`] where it is no path that stays below `/proc/sys`.
    pub fn parse(text: &str) -> Result<Self, KeyError> {
        let segments = split(text)?.into_iter().map(|segment| {
            let plain = text::unescape(&segment, |byte, out| out.push(byte));
            let segment = plain.ok_or(KeyError::BadEscape)?;
            check_segment(&segment)?;
            Ok(segment)
        });
        let segments: Vec<String> = segments.collect::<Result<_, KeyError>>()?;
        Ok(SysctlKey::at(segments.join("/")))
    }

    /// The key of `net/FAMILY/conf/SEGMENT/NAME`, where SEGMENT is `all`,
    /// `default` or an interface's name.
    pub fn conf(family: Family, segment: &str, name: &str) -> Self {
        // Not `format!`: a write of ip_forward is reported for each interface.
        let path = ["net/", family.as_str(), "/conf/", segment, "/", name].concat();
        SysctlKey::at(path)
    }

    /// A key from a path below `/proc/sys` whose segments the kernel (a
    /// directory listing, an interface's name) has given.
    ///
    /// # Errors
    /// [`KeyError`] where a segment is not one.
    pub fn from_segments(segments: &[&str]) -> Result<Self, KeyError> {
        if segments.len() < 2 {
            return Err(KeyError::NoDirectory);
        }
        for segment in segments {
            check_segment(segment)?;
        }
        Ok(SysctlKey::at(segments.join("/")))
    }

    /// The path below `/proc/sys`, without a leading slash, its names as
    /// [text that keeps them](text::from_bytes).
    pub fn path(&self) -> &str {
        &self.path
    }

    /// The path of the file in `/proc/sys`, as it can be shown.
    pub fn shown_path(&self) -> String {
        format!("/proc/sys/{}", text::shown(&self.path))
    }

    /// The file below `root`, the folder that stands for `/proc/sys`.
    pub fn file(&self, root: &Path) -> PathBuf {
        root.join(OsString::from_vec(text::to_bytes(&self.path)))
    }

    /// The parts of the path, in order.
    pub fn segments(&self) -> impl DoubleEndedIterator<Item = &str> {
        self.path.split('/')
    }

    /// The last part: `rp_filter` of `net.ipv4.conf.all.rp_filter`.
    pub fn name(&self) -> &str {
        self.path.rsplit('/').next().unwrap_or(&self.path)
    }

    /// The folder of interfaces that it is in, if it is in one, and its path below that.
    fn in_folder(&self) -> Option<(InterfaceFolder, &str)> {
        InterfaceFolder::ALL.into_iter().find_map(|folder| {
            let rest = self.path.strip_prefix(folder.path())?;
            Some((folder, rest.strip_prefix('/')?))
        })
    }

    /// The folder of interfaces that it is in, if it is in one.
    pub fn interface_folder(&self) -> Option<InterfaceFolder> {
        self.in_folder().map(|(folder, _)| folder)
    }

    /// The family, the target and the name of a per-interface key, one of
    /// `net/{ipv4,ipv6}/{conf,neigh}/TARGET/NAME`.
    pub fn interface_key(&self) -> Option<(Family, Target<'_>, &str)> {
        let (folder, rest) = self.in_folder()?;
        let (target, name) = rest.split_once('/')?;
        Some((folder.family(), Target::of(target), name))
    }

    /// The interface that this key belongs to, if it belongs to one.
    pub fn interface(&self) -> Option<&str> {
        match self.interface_key() {
            Some((_, Target::Interface(name), _)) => Some(name),
            _ => None,
        }
    }

    /// The one name for what the kernel shows under two.
    #[must_use]
    pub fn canonical(self) -> Self {
        match aliases().iter().find(|(_, other)| *other == &*self.path) {
            Some((name, _)) => SysctlKey::at(name.as_str()),
            None => self,
        }
    }

    /// The other files of the kernel that show this key's value.
    pub fn aliases(&self) -> impl Iterator<Item = SysctlKey> {
        let own = aliases().iter().filter(|(name, _)| *name == *self.path);
        own.map(|(_, other)| SysctlKey::at(*other))
    }

    /// The same per-interface key of another interface, `all` or `default`.
    pub fn with_target(&self, target: &str) -> Option<SysctlKey> {
        let (folder, rest) = self.in_folder()?;
        let (_, name) = rest.split_once('/')?;
        check_segment(target).ok()?;
        Some(SysctlKey::at(
            [folder.path(), "/", target, "/", name].concat(),
        ))
    }
}

/// A folder below `/proc/sys` with a folder for each interface.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum InterfaceFolder {
    /// `net/ipv4/conf`
    Ipv4Conf,
    /// `net/ipv6/conf`
    Ipv6Conf,
    /// `net/ipv4/neigh`
    Ipv4Neigh,
    /// `net/ipv6/neigh`
    Ipv6Neigh,
}

impl InterfaceFolder {
    /// All of them.
    pub const ALL: [InterfaceFolder; 4] = [
        InterfaceFolder::Ipv4Conf,
        InterfaceFolder::Ipv6Conf,
        InterfaceFolder::Ipv4Neigh,
        InterfaceFolder::Ipv6Neigh,
    ];

    pub(super) fn of(family: &str, directory: &str) -> Option<Self> {
        match (family, directory) {
            ("ipv4", "conf") => Some(InterfaceFolder::Ipv4Conf),
            ("ipv6", "conf") => Some(InterfaceFolder::Ipv6Conf),
            ("ipv4", "neigh") => Some(InterfaceFolder::Ipv4Neigh),
            ("ipv6", "neigh") => Some(InterfaceFolder::Ipv6Neigh),
            _ => None,
        }
    }

    fn family(self) -> Family {
        match self {
            InterfaceFolder::Ipv4Conf | InterfaceFolder::Ipv4Neigh => Family::Ipv4,
            InterfaceFolder::Ipv6Conf | InterfaceFolder::Ipv6Neigh => Family::Ipv6,
        }
    }

    /// Its path below `/proc/sys`.
    pub fn path(self) -> &'static str {
        match self {
            InterfaceFolder::Ipv4Conf => "net/ipv4/conf",
            InterfaceFolder::Ipv6Conf => "net/ipv6/conf",
            InterfaceFolder::Ipv4Neigh => "net/ipv4/neigh",
            InterfaceFolder::Ipv6Neigh => "net/ipv6/neigh",
        }
    }
}

/// Dotted, as in sysctl(8), with a slash for a dot inside a segment.
impl fmt::Display for SysctlKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for (i, segment) in self.segments().enumerate() {
            if i > 0 {
                f.write_str(".")?;
            }
            write_segment(f, i, segment, &WILDCARDS)?;
        }
        Ok(())
    }
}

impl fmt::Debug for SysctlKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{self}")
    }
}

/// Writes the segment at this place the way sysctl.d(5) spells it between dots, with those
/// characters escaped that are `special`.
pub(super) fn write_segment(
    f: &mut fmt::Formatter<'_>,
    place: usize,
    segment: &str,
    special: &[char],
) -> fmt::Result {
    // The first dot or slash of a key shows which of them separates its segments.
    let dot = if place == 0 { "\\x2e" } else { "/" };
    for (i, part) in segment.split('.').enumerate() {
        if i > 0 {
            f.write_str(dot)?;
        }
        text::write_escaped(f, part, special)?;
    }
    Ok(())
}

/// Cuts a key or a pattern into segments by sysctl.d(5)'s rule, what is escaped
/// in them left so. White space is found here, and what stands in no name but an
/// interface's.
pub(super) fn split(text: &str) -> Result<Vec<String>, KeyError> {
    if text.is_empty() {
        return Err(KeyError::Empty);
    }
    if text.starts_with('/') {
        return Err(KeyError::Absolute);
    }
    let dotted = match text.find(['.', '/']) {
        None => return Err(KeyError::NoDirectory),
        Some(i) => text.as_bytes()[i] == b'.',
    };
    let segments = if dotted {
        text.split('.')
            .map(|s| s.replace('/', "."))
            .collect::<Vec<_>>()
    } else {
        text.split('/').map(str::to_owned).collect()
    };
    for (i, segment) in segments.iter().enumerate() {
        let of_interface = i == 3 && segments.len() == 5 && segments[0] == "net";
        let bad = |c: &char| c.is_whitespace() || (!of_interface && (c.is_control() || *c == '='));
        if let Some(c) = segment.chars().find(bad) {
            return Err(KeyError::BadCharacter(c));
        }
    }
    Ok(segments)
}

/// What no segment of a key or a pattern may be.
pub(super) fn check_segment(segment: &str) -> Result<(), KeyError> {
    match segment {
        "" => return Err(KeyError::EmptySegment),
        "." | ".." => return Err(KeyError::DotSegment),
        _ => {}
    }
    match segment.chars().find(|c| matches!(c, '/' | '\0')) {
        Some(c) => Err(KeyError::BadCharacter(c)),
        None => Ok(()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn interfaces_have_the_names_that_the_kernel_accepts() {
        for (name, expected) in [
            ("eth0", true),
            ("a/b", false),
            ("eth0:1", false),
            ("eth0.\t7", false),
            ("..x", true),
            ("..", false),
            ("", false),
            ("abcdefghijklmno", true),
            ("abcdefghijklmnop", false),
            ("\u{e9}", true),
            // Its second byte is 0xa0.
            ("\u{e0}", false),
        ] {
            assert_eq!(may_be_interface(name), expected, "{name:?}");
        }
    }

    #[test]
    fn the_first_separator_decides() {
        for text in [
            "net.ipv4.conf.eth0/100.rp_filter",
            "net/ipv4/conf/eth0.100/rp_filter",
        ] {
            let key = SysctlKey::parse(text).expect(text);
            assert_eq!(key.path(), "net/ipv4/conf/eth0.100/rp_filter");
            assert_eq!(key.to_string(), "net.ipv4.conf.eth0/100.rp_filter");
            assert_eq!(key.interface(), Some("eth0.100"));
        }
        let odd = SysctlKey::parse(r"a\x2eb@1.c").expect("a key");
        assert_eq!(odd.path(), "a.b@1/c");
        assert_eq!(SysctlKey::parse(&odd.to_string()), Ok(odd));
    }

    #[test]
    fn an_interface_may_have_any_name() {
        for (name, shown) in [
            (&b"a=b"[..], "a=b"),
            (b"a\x1b[m", r"a\x1b\x5bm"),
            (b"\xff.\xe2\x80\xae", r"\xff/\xe2\x80\xae"),
            (b"\\x*?", r"\x5cx\x2a\x3f"),
            ("é网".as_bytes(), "é网"),
        ] {
            let name = text::from_bytes(name);
            let key = SysctlKey::conf(Family::Ipv4, &name, "rp_filter");
            let dotted = format!("net.ipv4.conf.{shown}.rp_filter");
            assert_eq!(key.to_string(), dotted);
            assert_eq!(SysctlKey::parse(&dotted), Ok(key.clone()));
            let segments = ["net", "ipv4", "conf", &name, "rp_filter"];
            assert_eq!(SysctlKey::from_segments(&segments), Ok(key.clone()));
            assert_eq!(key.interface(), Some(name.as_str()));
            let file = key.file(Path::new("/")).into_os_string().into_vec();
            let path = [
                b"/net/ipv4/conf/",
                &text::to_bytes(&name)[..],
                b"/rp_filter",
            ];
            assert_eq!(file, path.concat());
        }
        let key = SysctlKey::parse("net.ipv4.conf.a\u{1}b.rp_filter").expect("a key");
        assert_eq!(key.to_string(), r"net.ipv4.conf.a\x01b.rp_filter");
        assert_eq!(
            key.shown_path(),
            r"/proc/sys/net/ipv4/conf/a\x01b/rp_filter"
        );
    }

    #[test]
    fn nothing_leaves_the_tree() {
        for (text, error) in [
            ("", KeyError::Empty),
            ("/net/ipv4/ip_forward", KeyError::Absolute),
            ("net/../../etc/passwd", KeyError::DotSegment),
            ("net.//.x", KeyError::DotSegment),
            ("net./.x", KeyError::DotSegment),
            ("net..ipv4", KeyError::EmptySegment),
            ("net.ipv4.", KeyError::EmptySegment),
            ("net.ipv4.ip forward", KeyError::BadCharacter(' ')),
            ("net.ipv4\0.x", KeyError::BadCharacter('\0')),
            ("net.ipv4.conf.a\0.x", KeyError::BadCharacter('\0')),
            (r"net.ipv4.conf.a\x00.x", KeyError::BadCharacter('\0')),
            (r"net.ipv4.conf.\x2e\x2e.x", KeyError::DotSegment),
            (r"net.ipv4.conf.a\x2f.x", KeyError::BadCharacter('/')),
            (r"net.ipv4.conf.a\x2.x", KeyError::BadEscape),
            (r"net.ipv4.conf.a\b.x", KeyError::BadEscape),
            (r"net.ipv4.conf.a\x+1.x", KeyError::BadEscape),
            ("net.ipv4.ip_forward=1", KeyError::BadCharacter('=')),
            ("panic", KeyError::NoDirectory),
        ] {
            assert_eq!(SysctlKey::parse(text), Err(error), "{text:?}");
        }
    }

    #[test]
    fn ip_forward_has_one_name() {
        let alias = SysctlKey::parse("net.ipv4.conf.all.forwarding").expect("a key");
        let key = alias.clone().canonical();
        assert_eq!(key.to_string(), "net.ipv4.ip_forward");
        assert_eq!(key.aliases().collect::<Vec<_>>(), [alias]);
        let old = SysctlKey::parse("net.nf_conntrack_max").expect("a key");
        let name = old.canonical().to_string();
        assert_eq!(name, "net.netfilter.nf_conntrack_max");
        let other = SysctlKey::parse("net.ipv6.conf.all.forwarding").expect("a key");
        assert_eq!(other.clone().canonical(), other);
    }

    #[test]
    fn interface_keys_know_their_target() {
        let target = |text: &str| {
            let key = SysctlKey::parse(text).expect("a key");
            format!("{:?}", key.interface_key())
        };
        assert_eq!(
            target("net.ipv4.conf.all.rp_filter"),
            r#"Some((Ipv4, All, "rp_filter"))"#
        );
        assert_eq!(
            target("net.ipv6.neigh.default.gc_thresh3"),
            r#"Some((Ipv6, Default, "gc_thresh3"))"#
        );
        assert_eq!(
            target("net.ipv4.conf.cali1.forwarding"),
            r#"Some((Ipv4, Interface("cali1"), "forwarding"))"#
        );
        assert_eq!(target("net.ipv4.ip_forward"), "None");
    }
}
