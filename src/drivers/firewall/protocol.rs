//! The protocol between the daemon and the helper: JSON in frames, each after its
//! length. Names are checked where they are received.

use std::collections::BTreeMap;
use std::fmt::Display;
use std::io::{self, Read, Write};
use std::time::Duration;

use nix::libc;
use serde::de::DeserializeOwned;
use serde::{Deserialize, Serialize};

use super::TableId;
use crate::engine::{self, Errno};
pub use crate::resource::{Backend, Extent};

/// The longest frame in bytes: a chain of 100,000 rules.
pub const LONGEST: u32 = 16 << 20;

/// How long the helper may send nothing while it works on a request: until it answers, it sends
/// a keepalive, which is an empty frame, at this interval: [`KEEPALIVE`].
pub const SILENCE: Duration = Duration::from_secs(5);
/// See [`SILENCE`].
pub const KEEPALIVE: Duration = Duration::from_secs(1);

/// The bytes of a frame's length.
const HEAD: usize = size_of::<u32>();

/// What the helper is asked for.
#[derive(Debug, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Call {
    /// Something to do with a table, answered by an [`Answer`].
    Table(Request),
    /// Something to do with sets, answered by a [`SetAnswer`].
    Sets(SetAsk),
    /// Something to do with tables of nf_tables, answered by an [`NftAnswer`].
    Nftables(NftAsk),
}

impl Call {
    /// Asks this of a table.
    pub(super) fn of_table((family, table): TableId, ask: Ask) -> Call {
        Call::Table(Request {
            family: family.as_str().to_owned(),
            table: table.as_str().to_owned(),
            ask,
        })
    }

    /// Whether a fault concerns more than what this is about: the program is missing. Of
    /// iptables there is one program for each family.
    pub(super) fn is_for_all(&self, fault: &Fault) -> bool {
        !matches!(self, Call::Table(_)) && fault.errno == libc::ENOPKG
    }

    /// Whether it lists all that there is.
    pub(super) fn is_list(&self) -> bool {
        matches!(
            self,
            Call::Sets(SetAsk::List) | Call::Nftables(NftAsk::List)
        )
    }

    /// Whether it changes something.
    pub fn is_commit(&self) -> bool {
        match self {
            Call::Table(request) => matches!(request.ask, Ask::Commit(..)),
            Call::Sets(ask) => matches!(ask, SetAsk::Commit(..)),
            Call::Nftables(ask) => matches!(ask, NftAsk::Restore { .. } | NftAsk::Pin(..)),
        }
    }
}

/// What is to be done with sets.
#[derive(Debug, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum SetAsk {
    /// Read the names of all.
    List,
    /// Read these.
    Read(Vec<String>),
    /// Make these changes of one, in this order.
    Commit(String, Vec<SetChange>),
    /// Make these changes of one in an empty network namespace, and read it there.
    TryOut(String, Vec<SetChange>),
}

/// A change of a set.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum SetChange {
    /// It is removed, which the kernel refuses where something uses it.
    Destroy,
    /// It is made, with this type and these options.
    Create(String, Vec<String>),
    /// It gets this member, with these options.
    Add(String, Vec<String>),
}

/// The answer about sets.
pub type SetAnswer = Result<SetReply, Fault>;

/// What was found or done.
#[derive(Debug, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum SetReply {
    /// All names.
    Names(Vec<String>),
    /// What `ipset save` printed of each, in the order asked; `None` where there is no
    /// such set.
    Saved(Vec<Result<Option<String>, Fault>>),
    /// The changes are made.
    Done,
}

/// What is to be done with tables of nf_tables, each named as nft(8) does: `inet filter`.
#[derive(Debug, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum NftAsk {
    /// Read the names of all.
    List,
    /// Read this one.
    Read(String),
    /// Make this one in one transaction, unless there is one with rules.
    Restore {
        /// Its name.
        table: String,
        /// What is in it, as nft(8) reads it between the braces of a table.
        inside: String,
    },
    /// Read how this one is listed with this in it, found out in an empty network namespace.
    Normalise {
        /// Its name.
        table: String,
        /// What is in it.
        inside: String,
        /// Whether the kernel may load a module for that.
        may_load: bool,
    },
    /// Make this one with this in it, and hold it, or replace what is in it.
    Pin(String, String),
    /// Let all go that are held, but these.
    Keep(Vec<String>),
}

/// The answer about tables of nf_tables.
pub type NftAnswer = Result<NftReply, Fault>;

/// What was found or done.
#[derive(Debug, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum NftReply {
    /// The names of all.
    Names(Vec<String>),
    /// What `nft list table` printed; `None` where there is no such table.
    Listed(Option<String>),
    /// It is made, by the program with this process id; `None` where it has rules.
    Done(Option<u32>),
    /// Others are no longer held.
    Kept,
}

/// Something to do with a table.
#[derive(Debug, Serialize, Deserialize)]
pub struct Request {
    /// `ipv4` or `ipv6`.
    pub family: String,
    /// The table.
    pub table: String,
    /// What.
    pub ask: Ask,
}

/// What is to be done.
#[derive(Debug, Clone, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Ask {
    /// Read these chains, or all, in one backend or both.
    Read(Option<Vec<String>>, Option<Backend>),
    /// Find out how large one backend's table is, as far as chains with these names are
    /// concerned.
    Measure(Vec<String>, Backend),
    /// Make these changes, all or none.
    Commit(Backend, Vec<Change>),
    /// Find out how these rules are listed.
    Normalise {
        /// The rules.
        rules: Vec<Spec>,
        /// Whether the kernel may load a module for them.
        may_load: bool,
    },
}

/// A rule as it is written.
#[derive(Debug, Clone, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub struct Spec {
    /// Its chain.
    pub chain: String,
    /// What it says, word by word.
    pub says: Vec<String>,
}

/// A change of a table.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Change {
    /// A new chain.
    New(String),
    /// A chain is removed, which has no rules and is not used.
    Delete(String),
    /// A rule becomes the one with this number, or the last.
    Add(Spec, Option<usize>),
    /// A rule is removed.
    Remove(Spec),
    /// The policy of a chain.
    Policy(String, String),
}

/// The answer to a request, or why there is none.
pub type Answer = Result<Answered, Fault>;

/// What came of a request.
#[derive(Debug, Serialize, Deserialize)]
pub struct Answered {
    /// What was found or done, or why not.
    pub reply: Result<Reply, Fault>,
    /// The processes of the programs that were to change something, whether or not they did.
    pub pids: Vec<u32>,
}

/// What was found or done.
#[derive(Debug, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Reply {
    /// The chains in each backend that there is.
    Chains(Vec<Tables>),
    /// How large the table is, for each of the names.
    Extents(Vec<Extent>),
    /// The changes are made.
    Done,
    /// How each rule is listed, in the order asked.
    Forms(Vec<Forms>),
}

/// The chains of one backend.
#[derive(Debug, Serialize, Deserialize)]
pub struct Tables {
    /// Which.
    pub backend: Backend,
    /// Whether it is that of the node's `iptables`.
    pub is_preferred: bool,
    /// Those of the chains asked for that there are, by name.
    pub chains: BTreeMap<String, Chain>,
}

/// A chain.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Chain {
    /// What happens to packets at its end, of a built-in chain.
    pub policy: Option<String>,
    /// Its rules, each without `-A CHAIN`; before one of which that is only a part stands
    /// [`IN_PART`].
    pub rules: Vec<String>,
}

/// Before the text of a rule that nft has made and iptables-save shows in part: it is no rule
/// of iptables.
pub const IN_PART: &str = "nft: ";

/// How a rule is listed in each backend, that of the node's iptables first; none is known where
/// there is no backend.
pub type Forms = Vec<(Backend, Form)>;

/// How a rule is listed.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Form {
    /// Like this, without `-A CHAIN`.
    Listed(String),
    /// The program refuses it.
    Invalid(String),
    /// It is not known without this module.
    Lacks(String),
}

/// Why something was not done.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Fault {
    /// The number of the error.
    pub errno: i32,
    /// For people.
    pub text: String,
}

impl Fault {
    /// With this number and text.
    pub fn new(errno: i32, text: impl Into<String>) -> Fault {
        let text = text.into();
        Fault { errno, text }
    }

    /// What the engine is answered.
    pub(super) fn refused(&self) -> engine::Fault {
        engine::Fault {
            errno: Errno(self.errno),
            why: Some(self.text.as_str().into()),
        }
    }

    /// The helper's answer is to another request.
    pub fn unexpected() -> Fault {
        Fault::new(libc::EPROTO, "the firewall helper answered something else")
    }

    /// The same, with what it is about.
    #[must_use]
    pub fn of(self, what: impl Display) -> Fault {
        Fault::new(self.errno, format!("{what}: {}", self.text))
    }
}

/// Reads a frame that is not empty, or nothing at the end of the stream.
///
/// # Errors
/// The system's; where it is too long, or is none.
pub fn read<T: DeserializeOwned>(stream: &mut impl Read) -> io::Result<Option<T>> {
    let mut head = [0; HEAD];
    while head == [0; HEAD] {
        match stream.read_exact(&mut head) {
            Err(error) if error.kind() == io::ErrorKind::UnexpectedEof => return Ok(None),
            read => read?,
        }
    }
    let length = u32::from_be_bytes(head);
    if length > LONGEST {
        return Err(io::Error::from_raw_os_error(libc::EFBIG));
    }
    let mut body = Vec::new();
    stream.take(length.into()).read_to_end(&mut body)?;
    Ok(Some(serde_json::from_slice(&body)?))
}

/// Writes a keepalive.
///
/// # Errors
/// The system's.
pub fn write_keepalive(stream: &mut impl Write) -> io::Result<()> {
    stream.write_all(&[0; HEAD])
}

/// Writes a frame.
///
/// # Errors
/// The system's; EFBIG where it is too long.
pub fn write(stream: &mut impl Write, it: &impl Serialize) -> io::Result<()> {
    let mut frame = vec![0; HEAD];
    serde_json::to_writer(&mut frame, it)?;
    let length = u32::try_from(frame.len() - HEAD).unwrap_or(u32::MAX);
    if length > LONGEST {
        return Err(io::Error::from_raw_os_error(libc::EFBIG));
    }
    frame[..HEAD].copy_from_slice(&length.to_be_bytes());
    stream.write_all(&frame)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_frame_is_read_back_and_none_is_too_long() {
        let mut stream = Vec::new();
        write(
            &mut stream,
            &Ask::Read(Some(vec!["INPUT".to_owned()]), None),
        )
        .expect("a frame");
        // A keepalive is no answer.
        let kept_alive = [&[0; HEAD], &stream[..]].concat();
        let mut rest = &kept_alive[..];
        let ask: Ask = read(&mut rest).expect("a frame").expect("one");
        assert!(matches!(ask, Ask::Read(Some(chains), None) if chains == ["INPUT"]));
        assert!(read::<Ask>(&mut rest).expect("the end").is_none());
        for broken in [
            &[0, 0, 0, 9, b'{'][..],
            &[255, 0, 0, 0],
            &[0, 0, 0, 2, b'{', b'}'],
        ] {
            let read = read::<Ask>(&mut &*broken);
            assert!(read.is_err(), "{broken:?}");
        }
    }
}
