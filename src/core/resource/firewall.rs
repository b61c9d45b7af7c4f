//! The identities of rules of iptables.

use std::fmt;
use std::sync::Arc;

use serde::Deserialize;

use super::SetName;
use crate::model::{Family, text};

words! {
    /// Which of the two sets of tables in the kernel.
    #[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord, Deserialize)]
    #[serde(rename_all = "lowercase")]
    pub enum Backend {
        /// xtables.
        Legacy = "legacy",
        /// nf_tables.
        Nft = "nft",
    }
}

words! {
    /// A table of iptables.
    #[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
    pub enum FirewallTable {
        /// Before connections are tracked.
        Raw = "raw",
        /// Changes of packets.
        Mangle = "mangle",
        /// Translation of addresses.
        Nat = "nat",
        /// The default table.
        Filter = "filter",
        /// Labels of SELinux.
        Security = "security",
    }
}

impl FirewallTable {
    /// The chains of it that the kernel itself calls.
    pub fn built_in(self) -> &'static [&'static str] {
        match self {
            FirewallTable::Raw => &["PREROUTING", "OUTPUT"],
            FirewallTable::Mangle => &BUILT_IN,
            FirewallTable::Nat => &["PREROUTING", "INPUT", "OUTPUT", "POSTROUTING"],
            FirewallTable::Filter | FirewallTable::Security => &["INPUT", "FORWARD", "OUTPUT"],
        }
    }

    /// Whether that chain is one of those.
    pub fn has(self, chain: &ChainName) -> bool {
        self.built_in().contains(&chain.as_str())
    }
}

/// The chains that the kernel itself calls, in the order of its hooks (`NF_INET_PRE_ROUTING`
/// and so on).
pub const BUILT_IN: [&str; 5] = ["PREROUTING", "INPUT", "FORWARD", "OUTPUT", "POSTROUTING"];

/// A chain, by a name that no program takes for an option.
#[derive(Debug, Clone, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct ChainName(Arc<str>);

impl ChainName {
    /// The longest name (`XT_EXTENSION_MAXNAMELEN` without its NUL).
    pub const LONGEST: usize = 28;

    /// Whether a name may have this character.
    pub fn takes(c: char) -> bool {
        c.is_ascii_alphanumeric() || "-_.:@+#".contains(c)
    }

    pub fn parse(name: &str) -> Option<ChainName> {
        let is_name = (1..=Self::LONGEST).contains(&name.len())
            && !name.starts_with('-')
            && name.chars().all(Self::takes);
        is_name.then(|| ChainName(name.into()))
    }

    pub fn as_str(&self) -> &str {
        &self.0
    }

    /// Whether the kernel itself calls it.
    pub fn is_built_in(&self) -> bool {
        BUILT_IN.contains(&self.as_str())
    }
}

impl fmt::Display for ChainName {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

/// A chain of iptables that the kernel itself calls: what happens at its end.
#[derive(Debug, Clone, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct FirewallChain {
    pub family: Family,
    pub table: FirewallTable,
    pub chain: ChainName,
}

impl FirewallChain {
    /// Reads what `Display` writes, without the kind.
    pub(super) fn parse(text: &str) -> Option<FirewallChain> {
        let mut parts = text.split('/');
        let chain = FirewallChain {
            family: Family::of(parts.next()?)?,
            table: FirewallTable::of(parts.next()?)?,
            chain: ChainName::parse(parts.next()?)?,
        };
        let is_whole = parts.next().is_none();
        (is_whole && chain.table.has(&chain.chain)).then_some(chain)
    }
}

/// `chain/ipv4/filter/FORWARD`
impl fmt::Display for FirewallChain {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let (family, table) = (self.family.as_str(), self.table.as_str());
        write!(f, "chain/{family}/{table}/{}", self.chain)
    }
}

/// A rule of iptables, as it is written: what iptables(8) makes of that is known only
/// to iptables.
#[derive(Debug, Clone, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct FirewallRule {
    pub family: Family,
    pub table: FirewallTable,
    pub chain: ChainName,
    /// What follows `-A CHAIN`, word by word.
    pub says: Vec<String>,
}

/// The options of iptables-extensions(8) that are followed by the name of a set.
const SET_OPTIONS: [&str; 4] = ["--match-set", "--add-set", "--del-set", "--map-set"];

/// The targets that are no chains: verdicts, and the extensions of iptables-extensions(8)
/// and xtables-addons(8).
pub const TARGETS: [&str; 58] = [
    "ACCEPT",
    "DROP",
    "QUEUE",
    "RETURN",
    "AUDIT",
    "CHECKSUM",
    "CLASSIFY",
    "CLUSTERIP",
    "CONNMARK",
    "CONNSECMARK",
    "CT",
    "DNAT",
    "DNPT",
    "DSCP",
    "ECN",
    "HL",
    "HMARK",
    "IDLETIMER",
    "LED",
    "LOG",
    "MARK",
    "MASQUERADE",
    "MIRROR",
    "NETMAP",
    "NFLOG",
    "NFQUEUE",
    "NOTRACK",
    "RATEEST",
    "REDIRECT",
    "REJECT",
    "SAME",
    "SECMARK",
    "SET",
    "SNAT",
    "SNPT",
    "SYNPROXY",
    "TCPMSS",
    "TCPOPTSTRIP",
    "TEE",
    "TOS",
    "TPROXY",
    "TRACE",
    "TTL",
    "ULOG",
    "ACCOUNT",
    "CHAOS",
    "DELUDE",
    "DHCPMAC",
    "DNETMAP",
    "ECHO",
    "IPMARK",
    "LOGMARK",
    "PROTO",
    "RAWDNAT",
    "RAWSNAT",
    "RTPENGINE",
    "SYSRQ",
    "TARPIT",
];

/// Between two words of a rule in its text form.
const BETWEEN: char = '~';

impl FirewallRule {
    /// The longest rule that is read, in bytes.
    pub const LONGEST: usize = 4096;

    /// Reads what `Display` writes, without the kind.
    pub(super) fn parse(text: &str) -> Option<FirewallRule> {
        let mut parts = text.splitn(4, '/');
        let family = Family::of(parts.next()?)?;
        let table = FirewallTable::of(parts.next()?)?;
        let chain = ChainName::parse(parts.next()?)?;
        let rest = parts.next().filter(|rest| !rest.is_empty())?;
        // As a person writes it, or as `Display` does.
        let says = match rest.contains(' ') {
            true => words_of_line(rest)?,
            false => read_words(rest)?,
        };
        let is_rule = !says.is_empty() && says.iter().all(|it| Self::takes(it));
        is_rule.then_some(FirewallRule {
            family,
            table,
            chain,
            says,
        })
    }

    /// Whether this may be a word of a rule: text on one line.
    pub fn takes(word: &str) -> bool {
        !word.chars().any(|c| c.is_control() || text::is_foreign(c))
    }

    /// The sets that it names.
    pub fn sets(&self) -> impl Iterator<Item = SetName> {
        sets_in(&self.says)
    }

    /// As iptables-save(8) writes it: what iptables-restore(8) reads.
    pub fn says_as_line(&self) -> String {
        as_line(&self.says)
    }
}

/// `iptables/ipv4/nat/POSTROUTING/-s~10.0.0.0/8~-j~MASQUERADE`
impl fmt::Display for FirewallRule {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let FirewallRule {
            family,
            table,
            chain,
            says,
        } = self;
        let (family, table) = (family.as_str(), table.as_str());
        write!(f, "iptables/{family}/{table}/{chain}/{}", write_words(says))
    }
}

/// The words of a rule as one word.
pub(super) fn write_words(says: &[String]) -> String {
    let mut words = String::new();
    for (i, word) in says.iter().enumerate() {
        if i > 0 {
            words.push(BETWEEN);
        }
        // A string takes everything.
        let _ = text::write_escaped(&mut words, word, &[BETWEEN]);
    }
    words
}

/// Reads what [`write_words`] writes.
pub(super) fn read_words(text: &str) -> Option<Vec<String>> {
    let word = |word: &str| text::unescape(word, |byte, out| out.push(byte));
    text.split(BETWEEN).map(word).collect()
}

/// The sets that these words of a rule name.
pub fn sets_in(says: &[String]) -> impl Iterator<Item = SetName> {
    let pairs = says.windows(2);
    let named = pairs.filter(|pair| SET_OPTIONS.contains(&&*pair[0]));
    named.filter_map(|pair| SetName::parse(&pair[1]))
}

/// The target that these words of a rule name, or the chain.
pub fn target_in(says: &[String]) -> Option<&str> {
    const JUMPS: [&str; 4] = ["-j", "--jump", "-g", "--goto"];
    let pairs = says.windows(2);
    let mut named = pairs.filter(|pair| JUMPS.contains(&&*pair[0]));
    named.next().map(|pair| &*pair[1])
}

/// The words of a line as a shell and iptables-restore(8) take it apart: blanks are
/// between them, unless they are quoted. `None` where a quote is not closed.
pub fn words_of_line(line: &str) -> Option<Vec<String>> {
    let mut words = Vec::new();
    let mut word: Option<String> = None;
    let mut quote = None;
    let mut chars = line.chars();
    while let Some(c) = chars.next() {
        match (quote, c) {
            (Some(open), c) if c == open => quote = None,
            (None | Some('"'), '\\') => word.get_or_insert_default().push(chars.next()?),
            (None, '"' | '\'') => {
                word.get_or_insert_default();
                quote = Some(c);
            }
            (None, c) if c.is_ascii_whitespace() => words.extend(word.take()),
            (_, c) => word.get_or_insert_default().push(c),
        }
    }
    words.extend(word);
    quote.is_none().then_some(words)
}

/// One line of these words, as [`words_of_line`] reads it.
pub fn as_line(words: &[String]) -> String {
    let mut line = String::new();
    for word in words {
        if !line.is_empty() {
            line.push(' ');
        }
        let is_plain = |c: char| !c.is_ascii_whitespace() && !"\"'\\".contains(c);
        if !word.is_empty() && word.chars().all(is_plain) {
            line.push_str(word);
            continue;
        }
        line.push('"');
        for c in word.chars() {
            if matches!(c, '"' | '\\') {
                line.push('\\');
            }
            line.push(c);
        }
        line.push('"');
    }
    line
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn a_line_is_taken_apart_as_iptables_restore_does() {
        for (line, words) in [
            (
                " -s 10.0.0.0/8  -j\tACCEPT ",
                vec!["-s", "10.0.0.0/8", "-j", "ACCEPT"],
            ),
            (
                r#"--comment "a b" -j X"#,
                vec!["--comment", "a b", "-j", "X"],
            ),
            (
                r#"--comment 'a "b"' -j X"#,
                vec!["--comment", r#"a "b""#, "-j", "X"],
            ),
            (r#"--comment "a \"b\\""#, vec!["--comment", r#"a "b\"#]),
            (r#"--comment "" -j X"#, vec!["--comment", "", "-j", "X"]),
            ("", vec![]),
        ] {
            assert_eq!(words_of_line(line).expect(line), words, "{line}");
        }
        assert_eq!(words_of_line("--comment \"a b"), None);
        assert_eq!(words_of_line("--comment a\\"), None);
    }

    #[test]
    fn names_of_chains_are_checked_strictly() {
        for (name, is_chain) in [
            ("POSTROUTING", true),
            ("cali-fw-cali0", true),
            ("KUBE-SVC-NPX46M4PTMTKRN6Y", true),
            ("CNI-DN-0123456789abcdef01234", true),
            ("", false),
            ("-A", false),
            ("!", false),
            ("a b", false),
            ("a/b", false),
            ("a\nCOMMIT", false),
            (&"x".repeat(29), false),
        ] {
            assert_eq!(ChainName::parse(name).is_some(), is_chain, "{name}");
        }
    }

    proptest! {
        #[test]
        fn words_are_read_back(words in prop::collection::vec("[ -~é]{0,8}", 0..6)) {
            let line = as_line(&words);
            prop_assert_eq!(words_of_line(&line), Some(words), "{}", line);
        }
    }
}
