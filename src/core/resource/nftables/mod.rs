//! Tables of nf_tables: which they are, and what is in them, in the syntax of nft(8).

mod elements;
mod interfaces;
mod listing;

use std::fmt;
use std::sync::Arc;

use super::firewall::{read_words, write_words};
use super::{Attribute, FirewallTable, State};
use crate::model::{Family, Segment, Value};
use elements::Elements;
use interfaces::{Interfaces, by_number, devices, is_number};
use listing::{Token, lines};

pub use listing::Unsuited;

words! {
    #[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
    pub enum TableFamily {
        /// IPv4.
        Ip = "ip",
        /// IPv6.
        Ip6 = "ip6",
        /// IPv4 and IPv6.
        Inet = "inet",
        /// ARP.
        Arp = "arp",
        /// Frames on a bridge.
        Bridge = "bridge",
        /// Packets on an interface.
        Netdev = "netdev",
    }
}

impl From<Family> for TableFamily {
    fn from(family: Family) -> TableFamily {
        match family {
            Family::Ipv4 => TableFamily::Ip,
            Family::Ipv6 => TableFamily::Ip6,
        }
    }
}

/// A table of nf_tables.
#[derive(Debug, Clone, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct NftTable {
    pub family: TableFamily,
    name: Arc<str>,
}

impl NftTable {
    /// The longest name (`NFT_TABLE_MAXNAMELEN` without its NUL).
    const LONGEST: usize = 255;

    /// The table of this family and name, where netguard takes the name.
    pub fn new(family: TableFamily, name: &str) -> Option<NftTable> {
        let begins = name.starts_with(|c: char| c.is_ascii_alphabetic() || "_.".contains(c));
        let is_name = begins && name.len() <= Self::LONGEST && name.chars().all(Self::takes);
        is_name.then(|| NftTable {
            family,
            name: name.into(),
        })
    }

    /// Reads its family and its name, as nft(8) and the configuration have them.
    pub fn parse(text: &str) -> Option<NftTable> {
        let (family, name) = text.split_once(' ')?;
        NftTable::new(TableFamily::of(family)?, name)
    }

    /// Reads what `Display` writes, without the kind.
    pub(super) fn parse_path(text: &str) -> Option<NftTable> {
        let (family, name) = text.split_once('/')?;
        NftTable::new(TableFamily::of(family)?, name)
    }

    /// Whether a name may have this character. nft(8) takes `/` besides, which would end
    /// the name in the text form.
    fn takes(c: char) -> bool {
        c.is_ascii_alphanumeric() || "_-.".contains(c)
    }

    /// The names that match, where they may be names of tables.
    pub fn names(text: &str) -> Option<Segment> {
        let may_have = |c: char| NftTable::takes(c) || "*?[]!^".contains(c);
        let name = Segment::parse(text).ok();
        name.filter(|_| text.len() <= Self::LONGEST && text.chars().all(may_have))
    }

    pub fn name(&self) -> &str {
        &self.name
    }

    /// As nft(8) has it: `inet filter`.
    pub fn spelled(&self) -> String {
        format!("{} {}", self.family.as_str(), self.name)
    }
}

/// `nftables/inet/filter`
impl fmt::Display for NftTable {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "nftables/{}/{}", self.family.as_str(), self.name)
    }
}

/// What is in a table, as nft(8) writes it between the braces of the table.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct TableContents(Vec<Box<str>>);

/// Whose a listed table is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Holder {
    /// Anybody may change it.
    Nobody,
    /// The process that has it open: it has the flag `owner`.
    Process,
    /// iptables, whose rules nft(8) does not print as it could read them.
    Iptables,
}

/// The word for the state of a table that a process of netguard holds.
const PINNED: &str = "pinned";

impl TableContents {
    /// The most that is kept of a table, in bytes of its text.
    pub const LONGEST: usize = 4 << 20;

    /// Takes what somebody has written as the inside of a table.
    ///
    /// # Errors
    /// Where it would not stay within a table, or reads another file.
    pub fn parse(text: &str) -> Result<TableContents, Unsuited> {
        let lines = lines(text)?;
        Ok(TableContents(
            lines.iter().map(|it| it.text.into()).collect(),
        ))
    }

    /// Takes what `nft -s list table` has printed of a table, without the elements of sets
    /// that go by themselves: those with a timeout, and those that packets add, which add
    /// them again.
    ///
    /// # Errors
    /// Where it is not understood: a comment may have quotes in it, made by another program
    /// than nft(8). Where a rule has an interface by its number.
    pub fn listed(table: &NftTable, text: &str) -> Result<(TableContents, Holder), Unsuited> {
        let all = lines(text)?;
        let head = format!("table {} {{", table.spelled());
        let (first, rest) = all.split_first().ok_or(Unsuited::Unbalanced)?;
        let (last, inside) = rest.split_last().ok_or(Unsuited::Unbalanced)?;
        let is_whole = first.text == head && last.text == "}" && last.depth == (1, 0);
        if !is_whole || inside.iter().any(|it| it.depth.1 == 0) {
            return Err(Unsuited::Unbalanced);
        }
        if inside
            .iter()
            .any(|it| by_number(it.text).iter().any(is_number))
        {
            return Err(Unsuited::Index);
        }
        let (mut kept, mut holder) = (Vec::new(), Holder::Nobody);
        let mut set = None;
        let mut inside = inside.iter().peekable();
        while let Some(line) = inside.next() {
            if line.depth.0 == 1 {
                let words: Vec<&str> = line.text.split([' ', ',']).collect();
                set = ["set", "map", "meter"]
                    .contains(&line.word())
                    .then(Elements::default);
                if words[0] == "flags" && words.contains(&"owner") {
                    holder = Holder::Process;
                    continue;
                }
                if let ["chain", name, "{"] = words[..]
                    && is_of_iptables(table, name)
                {
                    holder = Holder::Iptables;
                }
            }
            let Some(elements) = &mut set else {
                kept.push(line.text.into());
                continue;
            };
            elements.learn(line.text);
            if line.depth.0 != 2 || line.word() != "elements" {
                kept.push(line.text.into());
                continue;
            }
            let mut all = line.text.to_owned();
            let mut depth = line.depth.1;
            while depth > 2
                && let Some(more) = inside.next()
            {
                all.push(' ');
                all.push_str(more.text);
                depth = more.depth.1;
            }
            if depth != 2 {
                return Err(Unsuited::Unbalanced);
            }
            let Some(statement) = elements.kept(&all) else {
                continue;
            };
            let interfaces = elements.interfaces.in_elements(&statement);
            if interfaces.iter().any(is_number) {
                return Err(Unsuited::Index);
            }
            kept.push(statement.into());
        }
        Ok((TableContents(kept), holder))
    }

    /// What a state says of it.
    pub fn of(state: &State) -> TableContents {
        let rules = state.attribute(Attribute::Rules);
        let words = rules.fields().filter_map(read_words);
        TableContents(words.map(|words| words.join(" ").into()).collect())
    }

    /// The state of a table with this in it.
    pub fn state(&self) -> State {
        let words = |line: &str| {
            let words: Vec<String> = line.split(' ').map(str::to_owned).collect();
            write_words(&words)
        };
        let lines: Vec<String> = self.0.iter().map(|line| words(line)).collect();
        let count = self.rules();
        let state = if count > 0 { "filled" } else { "empty" };
        let mut attributes = vec![
            (Attribute::State, Value::new(state)),
            (Attribute::Rules, Value::new(&lines.join(" "))),
        ];
        if count > 0 {
            attributes.push((Attribute::RuleCount, Value::from(count as i128)));
        }
        State::with(attributes)
    }

    /// The state of a table that netguard holds with this in it.
    pub fn pinned(&self) -> State {
        State::with(vec![
            (Attribute::State, Value::new(PINNED)),
            (Attribute::Rules, self.state().attribute(Attribute::Rules)),
        ])
    }

    /// Whether this is the state of a table that netguard holds.
    pub fn is_pinned(state: &State) -> bool {
        state.attribute(Attribute::State).as_str() == PINNED
    }

    /// As nft(8) reads it between the braces of a table.
    pub fn text(&self) -> String {
        let mut text = self.0.join("\n");
        text.push('\n');
        text
    }

    /// What the table itself has of it, which nft(8) sets only when it makes the table.
    pub fn of_table(&self) -> String {
        let text = self.text();
        let lines = lines(&text).unwrap_or_default().into_iter();
        let own = lines.filter(|it| it.depth.0 == 0 && !it.opens_block && it.text != "}");
        own.map(|it| format!("{}\n", it.text)).collect()
    }

    /// How many rules there are, those within another not counted.
    pub fn rules(&self) -> usize {
        let text = self.text();
        let lines = lines(&text).unwrap_or_default();
        let (mut count, mut is_chain) = (0, false);
        for line in lines {
            match line.depth.0 {
                0 => is_chain = line.word() == "chain",
                1 if is_chain && line.text != "}" => {
                    let no_rules = ["type", "policy", "comment", "devices"];
                    count += usize::from(!no_rules.contains(&line.word()));
                }
                _ => {}
            }
        }
        count
    }

    /// Whether the table itself has flags.
    pub fn has_flags(&self) -> bool {
        let own = self.of_table();
        own.lines().any(|line| line.starts_with("flags"))
    }

    /// The interfaces that its chains are on, or that its rules and the elements of its sets
    /// have by their numbers: without them it cannot be made.
    pub fn devices(&self) -> Vec<String> {
        let mut all = Vec::new();
        let mut of_set = Interfaces::default();
        for line in &self.0 {
            of_set.learn(line);
            let of_line = match &**line {
                line if line.starts_with("type ") => {
                    all.extend(devices(line));
                    continue;
                }
                line if line.starts_with("elements") => of_set.in_elements(line),
                line => by_number(line),
            };
            let names = of_line.into_iter().filter_map(|it| match it {
                Token::Quoted(name) => Some(name.to_owned()),
                _ => None,
            });
            all.extend(names);
        }
        all.sort_unstable();
        all.dedup();
        all
    }

    /// This, with only those interfaces in its flowtables that there are: one without any
    /// can be made (kernel 5.8).
    #[must_use]
    pub fn on(self, is_there: impl Fn(&str) -> bool) -> TableContents {
        let line = |line: Box<str>| {
            if !line.starts_with("devices") {
                return Some(line);
            }
            let names = devices(&line).into_iter();
            let names: Vec<String> = names
                .filter(|it| is_there(it))
                .map(|it| format!("\"{it}\""))
                .collect();
            (!names.is_empty()).then(|| format!("devices = {{ {} }}", names.join(", ")).into())
        };
        TableContents(self.0.into_iter().filter_map(line).collect())
    }
}

/// Whether a chain is one that iptables has the kernel call.
fn is_of_iptables(table: &NftTable, chain: &str) -> bool {
    let has_iptables = !matches!(table.family, TableFamily::Inet | TableFamily::Netdev);
    let own = FirewallTable::of(table.name()).filter(|_| has_iptables);
    own.is_some_and(|it| it.built_in().contains(&chain))
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    /// As nft 1.0.6 prints it.
    const LISTED: &str = r#"table inet x {
	comment "hello \\ there"
	counter c1 {
		comment "a"
	}

	quota q1 {
		over 10 mbytes
	}

	limit l1 {
		rate 10/second
	}

	ct helper h1 {
		type "ftp" protocol tcp
		l3proto inet
	}

	set s {
		type ipv4_addr
		flags interval
		auto-merge
		elements = { 10.0.0.0/8 comment "a, b }", 192.168.0.1-192.168.0.9 }
	}

	set d {
		type ipv4_addr
		size 100
		flags dynamic,timeout
		timeout 1h
		elements = { 3.3.3.3, 4.4.4.4 timeout 5m }
	}

	set t {
		type ipv4_addr
		flags timeout
		elements = { 1.1.1.1 timeout 1h, 2.2.2.2 }
	}

	set dd {
		type ipv4_addr
		size 65535
		flags dynamic
		elements = { 3.3.3.3 }
	}

	map m {
		type inet_service : verdict
		elements = { 80 : jump c, 81 : drop }
	}

	map mm {
		typeof ip daddr . tcp dport : ip daddr . tcp dport
		elements = { 1.2.3.4 . 80 : 5.6.7.8 . 8080 }
	}

	chain c {
		counter accept comment "x # { y"
	}

	chain in {
		type filter hook input priority filter - 5; policy drop;
		ct state established,related accept
		iifname "lo" accept
		tcp dport { 22, 80 } counter name "c1" accept
		tcp dport vmap @m
		update @d { ip saddr limit rate 5/second }
		quota name "q1" drop
		ip saddr @s log prefix "hey " drop
	}

	chain f {
		type filter hook forward priority filter; policy accept;
		jump {
			counter
			ip saddr 1.1.1.1 drop
		}
	}

	chain n {
		type nat hook prerouting priority dstnat; policy accept;
		dnat ip to ip daddr . tcp dport map @mm
	}
}
"#;

    fn table(text: &str) -> NftTable {
        NftTable::parse(text).expect(text)
    }

    #[test]
    fn names_are_checked_strictly() {
        for (text, is_table) in [
            ("ip kube-proxy", true),
            ("inet io.systemd.nat", true),
            ("netdev _a", true),
            ("ipv4 a", false),
            ("ip", false),
            ("ip ", false),
            ("ip -a", false),
            ("ip 1a", false),
            ("ip a b", false),
            ("ip a/b", false),
            ("ip a{", false),
            ("ip a\n", false),
        ] {
            assert_eq!(NftTable::parse(text).is_some(), is_table, "{text}");
        }
    }

    #[test]
    fn what_goes_by_itself_is_not_kept() {
        let (contents, holder) =
            TableContents::listed(&table("inet x"), LISTED).expect("a listing");
        assert_eq!(holder, Holder::Nobody);
        assert_eq!(contents.rules(), 10);
        let text = contents.text();
        for kept in [
            "elements = { 10.0.0.0/8 comment \"a, b }\", 192.168.0.1-192.168.0.9 }\n",
            "elements = { 2.2.2.2 }\n",
            "elements = { 80 : jump c, 81 : drop }\n",
            "timeout 1h\n",
            "counter accept comment \"x # { y\"\n",
        ] {
            assert!(text.contains(kept), "{kept}\n{text}");
        }
        for dropped in ["3.3.3.3", "4.4.4.4", "1.1.1.1 timeout"] {
            assert!(!text.contains(dropped), "{dropped}\n{text}");
        }
        // What is left is as it was printed.
        let left = text.lines().filter(|it| !it.starts_with("elements"));
        assert!(left.into_iter().all(|line| LISTED.contains(line)));
        let state = contents.state();
        assert_eq!(TableContents::of(&state), contents);
        assert_eq!(state.to_string(), "10 rules");
    }

    #[test]
    fn it_shows_whose_a_table_is() {
        let listed = |name: &str, inside: &str| {
            let table = table(name);
            let text = format!("table {name} {{ # progname nft\n{inside}\n}}\n");
            TableContents::listed(&table, &text).expect("a listing").1
        };
        let chain = "chain INPUT {\n}";
        for (name, inside, expected) in [
            ("inet a", "flags owner", Holder::Process),
            ("inet a", "flags owner,persist", Holder::Process),
            ("inet a", "flags dormant", Holder::Nobody),
            ("inet a", "set s {\nflags owner\n}", Holder::Nobody),
            ("ip filter", chain, Holder::Iptables),
            ("bridge filter", chain, Holder::Iptables),
            ("ip filter", "chain input {\n}", Holder::Nobody),
            ("ip nat", chain, Holder::Iptables),
            ("ip a", chain, Holder::Nobody),
            ("inet filter", chain, Holder::Nobody),
        ] {
            assert_eq!(listed(name, inside), expected, "{name} {inside}");
        }
    }

    #[test]
    fn an_interface_by_its_number_is_not_kept() {
        let table = table("inet a");
        for (rule, has_index) in [
            ("iif 3 accept", true),
            ("iif != 3 accept", true),
            ("oif { \"lo\", 3 } accept", true),
            ("iif vmap { \"lo\" : accept, 3 : drop }", true),
            ("fwd to 3", true),
            ("fwd ip to 10.0.0.1 device 3", true),
            ("dup to 10.0.0.1 device 3", true),
            ("iif \"lo\" tcp dport 3 accept", false),
            ("oif { \"lo\", \"3\" } tcp dport { 2, 3 } accept", false),
            ("iif vmap { \"lo\" : accept } meta mark { 3, 4 }", false),
            ("fib saddr . iif oif 0 drop", false),
            ("fib daddr . iif type local accept", false),
            ("iifname \"eth*\" log prefix \"iif 3\" accept", false),
            ("dnat ip to 10.0.0.1:3", false),
            (
                "iif . ip saddr { \"lo\" . 10.0.0.1, 3 . 10.0.0.2 } accept",
                true,
            ),
            (
                "ip saddr . iif { 10.0.0.1 . \"lo\", 10.0.0.2 . 3 } accept",
                true,
            ),
            (
                "ip saddr . meta iif . tcp dport != { 10.0.0.1 . 3 . 80 } accept",
                true,
            ),
            (
                "iif . oif vmap { \"lo\" . \"lo\" : accept, \"lo\" . 3 : drop }",
                true,
            ),
            ("iif . tcp dport 3 . 80 accept", true),
            ("tcp dport . oif 80 . 3 accept", true),
            ("iif 2-3 accept", true),
            ("fib saddr . iif oif 3 drop", true),
            ("fib saddr . iif oif . tcp dport { 3 . 80 } drop", true),
            ("tcp dport . fib saddr . iif oif { 80 . 3 } drop", true),
            (
                "fwd to ip saddr map { 10.0.0.1 : \"lo\", 10.0.0.2 : 3 }",
                true,
            ),
            (
                "iif . tcp dport { \"lo\" . 80, \"lo\" . 443 } accept",
                false,
            ),
            ("tcp dport . iif { 80 . \"lo\" } accept", false),
            ("tcp dport . iif 80 . \"lo\" meta mark 3 accept", false),
            (
                "iif . tcp dport vmap { \"lo\" . 80 : accept } meta mark 3",
                false,
            ),
            ("fib saddr . iif oif . tcp dport { 0 . 80 } drop", false),
            (
                "fib saddr . iif oifname . tcp dport { \"lo\" . 3 } drop",
                false,
            ),
            ("iif . tcp dport @s meta mark 3 accept", false),
            (
                "ip saddr . tcp dport { 10.0.0.1 . 3 } iif \"lo\" accept",
                false,
            ),
            ("fwd to ip saddr map { 10.0.0.1 : \"lo\" }", false),
        ] {
            let text = format!("table inet a {{\nchain c {{\n{rule}\n}}\n}}\n");
            let listed = TableContents::listed(&table, &text);
            let expected = has_index.then_some(Unsuited::Index);
            assert_eq!(listed.err(), expected, "{rule}");
        }
    }

    #[test]
    fn an_interface_by_its_number_in_a_set_is_not_kept() {
        let table = table("inet a");
        let listed = |of: &str, all: &str| {
            let set = format!("set s {{\n{of}\nelements = {{ {all} }}\n}}\n");
            let text = format!("table inet a {{\n{set}chain c {{\niif @s accept\n}}\n}}\n");
            TableContents::listed(&table, &text).map(|it| it.0.devices())
        };
        for (of, all, number, name) in [
            ("type iface_index", "X, \"lo\"", "3", "\"v\""),
            ("typeof iif", "\"lo\",\nX", "3", "\"v\""),
            (
                "typeof meta oif . tcp dport",
                "\"lo\" . 80, X . 80",
                "3",
                "\"v\"",
            ),
            (
                "type ipv4_addr . iface_index",
                "10.0.0.1 . X comment \"a\"",
                "3",
                "\"v\"",
            ),
            ("type iface_index : verdict", "X : jump c", "3", "\"v\""),
            ("type ipv4_addr : iface_index", "10.0.0.1 : X", "3", "\"v\""),
            ("type iface_index . iface_index", "\"lo\" . X", "3", "\"v\""),
            (
                "typeof fib saddr . iif oif . tcp dport",
                "X . 80",
                "3",
                "\"v\"",
            ),
        ] {
            let with = |it: &str| listed(of, &all.replace('X', it));
            assert_eq!(with(number), Err(Unsuited::Index), "{of}");
            assert!(with(name).expect(of).contains(&"v".to_owned()), "{of}");
        }
        for (of, all) in [
            ("type inet_service", "3, 4"),
            ("type iface_index . inet_service", "\"lo\" . 3"),
            ("typeof fib saddr . iif type . tcp dport", "local . 3"),
            ("type ifname", "\"3\""),
            ("type iface_index\nflags timeout", "3 timeout 1h"),
        ] {
            let devices = listed(of, all).expect(of);
            assert!(!devices.contains(&"3".to_owned()), "{of}");
        }
    }

    #[test]
    fn no_text_leaves_its_table() {
        for (text, expected) in [
            ("chain a {\n}", None),
            (
                "chain a {\n} }\nflush ruleset\ntable ip b {",
                Some(Unsuited::Unbalanced),
            ),
            ("chain a {", Some(Unsuited::Unbalanced)),
            ("include \"/etc/shadow\"", Some(Unsuited::Include)),
            (
                "chain a { include \"/etc/shadow\"; }",
                Some(Unsuited::Include),
            ),
            ("chain a { accept comment \"include\"; }", None),
            ("# include \"x\"\nchain includes {\n}", None),
            ("comment \"a\" # }\n", None),
            ("comment \"a # }", Some(Unsuited::Unbalanced)),
            ("comment \"a # }\"", None),
            ("chain a \\\n{ }", Some(Unsuited::Character)),
            ("chain a {\r}", Some(Unsuited::Character)),
        ] {
            assert_eq!(TableContents::parse(text).err(), expected, "{text}");
        }
        let table = table("ip a");
        for text in [
            "",
            "table ip b {\n}",
            "table ip a {\n}\ntable ip a {\n}",
            "table ip a {\ncomment \"x\"\n}\ntable ip b {\n\"\n}\n",
            "table ip a {\nset b {\nelements = { 1.1.1.1 }}\n}\n",
        ] {
            assert!(TableContents::listed(&table, text).is_err(), "{text}");
        }
    }

    #[test]
    fn flowtables_do_without_interfaces_that_are_gone() {
        let text = "flowtable f {\nhook ingress priority filter\ndevices = { \"a\", b }\n}\n\
             chain c {\ntype filter hook ingress device \"a\" priority filter; policy accept;\n}\n\
             chain d {\ntype filter hook ingress devices = { \"b\", \"c\" } priority filter;\n\
             iif { \"d\", \"a\" } fwd to \"e\" comment \"x\"\n}\n";
        let contents = TableContents::parse(text).expect("contents");
        assert_eq!(contents.devices(), ["a", "b", "c", "d", "e"]);
        assert_eq!(contents.rules(), 1);
        let on = |name: &str| contents.clone().on(|it| it == name).text();
        assert_eq!(on("b"), text.replace("\"a\", b", "\"b\""));
        assert_eq!(on("x"), text.replace("devices = { \"a\", b }\n", ""));
    }

    proptest! {
        #[test]
        fn a_state_is_read_back(lines in prop::collection::vec("[a-z{}\" ,~#\\\\é]{0,12}", 0..6)) {
            if let Ok(contents) = TableContents::parse(&lines.join("\n")) {
                prop_assert_eq!(&TableContents::of(&contents.state()), &contents);
                // It stays what it is, and within its table.
                prop_assert_eq!(TableContents::parse(&contents.text()), Ok(contents));
            }
        }
    }
}
