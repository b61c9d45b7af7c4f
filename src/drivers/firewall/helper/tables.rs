//! The tables of iptables, by its own programs.

use std::collections::{BTreeMap, HashMap, HashSet};
use std::fs;
use std::io;
use std::path::{Path, PathBuf};

use nix::libc;
use nix::unistd::gettid;

use super::super::kernel_rules::{self, Rules};
use super::super::protocol::{Backend, Chain, Change, Fault, Form, IN_PART, Spec, Tables};
use super::known::{Known, Snapshot};
use super::legacy;
use super::others;
use super::programs::{NOT_RUN, Ran, find, has_not_run, run, run_when};
use super::sizes::{is_untouched, sizes};
use crate::engine::Errno;
use crate::kinds::NO_SET;
use crate::model::Family;
use crate::modules::Modules;
use crate::resource::{ChainName, FirewallRule, FirewallTable, as_line, sets_in, target_in};
use crate::words::plain;

/// With more chains than this, all of the table is read at once.
const FEW: usize = 4;

/// How often a table is read that another program changes meanwhile.
const ATTEMPTS: usize = 3;

/// What iptables-nft prints in place of the rules where nft has made one that it cannot show.
const INCOMPATIBLE: &str = "is incompatible, use 'nft' tool";

/// How long a program waits for the lock of the tables, in seconds.
const WAIT: &str = "--wait=1";

/// The exit code of a program that did not get the lock of the tables, or met another
/// change of them; of iptables-nft-restore also where the kernel refuses a change.
const RESOURCE_PROBLEM: i32 = 4;

/// What shows that this kernel has no nf_tables. A program that waits for another, or does not run,
/// says that by another number.
const LACKING: [i32; 2] = [libc::EINVAL, libc::EPROTONOSUPPORT];

/// What the kernel answers, as iptables-nft-restore prints it, where a change may succeed
/// later.
const MAY_SUCCEED: [&str; 3] = [
    "Device or resource busy",
    "Resource temporarily unavailable",
    "Interrupted system call",
];

/// As there, where a chain or rule is no longer there, or is there already.
const OVERTAKEN: [&str; 2] = [
    " failed (No such file or directory)",
    " failed (File exists)",
];

/// The programs of one backend and family.
#[derive(Debug, Clone)]
pub struct Tool {
    backend: Backend,
    family: Family,
    is_preferred: bool,
    command: PathBuf,
    save: PathBuf,
    restore: PathBuf,
    known: HashMap<FirewallTable, Known>,
    /// Whether a chain cannot be made in the transaction that deletes it.
    deletes_first: bool,
}

/// The programs that there are, and where each of them was found.
#[derive(Debug, Default)]
pub struct Tools(HashMap<Family, (Vec<PathBuf>, Vec<Tool>)>);

impl Tools {
    /// Those for a family. They are looked for again where there are other programs than
    /// before.
    ///
    /// # Errors
    /// Where there are none, or it is not known of which backend they are.
    pub fn of(&mut self, family: Family) -> Result<&mut [Tool], Fault> {
        let base = base(family);
        let names = ["", "-legacy", "-nft"].map(|backend| format!("{base}{backend}"));
        let paths = names
            .iter()
            .filter_map(|it| fs::canonicalize(find(it)?).ok());
        let paths = paths.collect();
        let known = self
            .0
            .remove(&family)
            .filter(|(before, _)| *before == paths);
        let tools = match known {
            Some((_, tools)) => tools,
            None => Tool::all(family)?,
        };
        if tools.is_empty() {
            let text = format!("{base} is not installed");
            return Err(Fault::new(libc::ENOPKG, text));
        }
        let (_, tools) = self.0.entry(family).insert_entry((paths, tools)).into_mut();
        Ok(tools)
    }
}

fn base(family: Family) -> &'static str {
    match family {
        Family::Ipv4 => "iptables",
        Family::Ipv6 => "ip6tables",
    }
}

impl Tool {
    /// Those that there are for a family.
    fn all(family: Family) -> Result<Vec<Tool>, Fault> {
        let base = base(family);
        let own = find(base).map(|path| backend_of(&path)).transpose()?;
        let tool = |backend, name: &str, is_preferred| {
            Some(Tool {
                backend,
                family,
                is_preferred,
                command: find(name)?,
                save: find(&format!("{name}-save"))?,
                restore: find(&format!("{name}-restore"))?,
                known: HashMap::new(),
                deletes_first: false,
            })
        };
        let tools = [(Backend::Legacy, "legacy"), (Backend::Nft, "nft")];
        let tools = tools.into_iter().filter_map(|(backend, name)| {
            let is_preferred = own == Some(backend);
            let own = || is_preferred.then(|| tool(backend, base, true)).flatten();
            tool(backend, &format!("{base}-{name}"), is_preferred).or_else(own)
        });
        let mut tools: Vec<Tool> = tools.collect();
        if let [only] = &mut tools[..] {
            only.is_preferred = true;
        }
        // What it complains of a rule is known best.
        tools.sort_by_key(|it| !it.is_preferred);
        Ok(tools)
    }

    /// Which.
    pub fn backend(&self) -> Backend {
        self.backend
    }

    /// Reads these chains of a table, or all; nothing where this kernel does not have this
    /// backend. With `again`, a legacy table is printed also where the kernel still has what was
    /// printed.
    ///
    /// # Errors
    /// Where the program fails.
    pub fn read(
        &mut self,
        table: FirewallTable,
        chains: Option<&[ChainName]>,
        again: bool,
    ) -> Result<Option<Tables>, Fault> {
        let found = match (has(self.backend, self.family, table), self.backend) {
            (true, Backend::Legacy) => self.list_legacy(table, chains, again),
            (true, Backend::Nft) => self.list(table, chains),
            (false, _) => Ok(BTreeMap::new()),
        };
        let is_lacking = |it: &Fault| LACKING.contains(&it.errno);
        if !self.is_preferred && found.as_ref().is_err_and(is_lacking) {
            return Ok(None);
        }
        Ok(Some(Tables {
            backend: self.backend,
            is_preferred: self.is_preferred,
            chains: found?,
        }))
    }

    /// Reads these chains of a table, or all. The table is made where there is none.
    pub(super) fn list(
        &mut self,
        table: FirewallTable,
        chains: Option<&[ChainName]>,
    ) -> Result<BTreeMap<String, Chain>, Fault> {
        if self.backend == Backend::Legacy {
            return self.print(table, chains);
        }
        for _ in 0..ATTEMPTS {
            let before = kernel_rules::generation();
            let is_current = || kernel_rules::generation() == before;
            let snapshot = Snapshot::of(self.family, table).ok().flatten();
            let rules = match self.kernel_rules(table, chains) {
                Ok(rules) => rules,
                Err(Errno(libc::EAGAIN)) => continue,
                Err(Errno(errno)) => {
                    return Err(unread("rules", &io::Error::from_raw_os_error(errno)));
                }
            };
            let known = self.known.get(&table).zip(snapshot.as_ref());
            let known = known.and_then(|(known, now)| known.listed(now, &rules, chains));
            if let Some(found) = known.filter(|_| is_current()) {
                return Ok(found);
            }
            let mut found = self.print(table, chains)?;
            let printed = mark(&mut found, table, &rules);
            match printed {
                Some(_) if is_current() => {
                    if let Some(now) = snapshot {
                        let known = self.known.entry(table).or_default();
                        known.learn(&now, &rules, &found);
                    }
                    return Ok(found);
                }
                Some(Printed::Whole) => return Ok(found),
                // It was changed in between.
                _ => {}
            }
        }
        Err(Fault::new(libc::EBUSY, "they change while they are read"))
    }

    /// As [`list`](Self::list), in the legacy backend.
    fn list_legacy(
        &mut self,
        table: FirewallTable,
        chains: Option<&[ChainName]>,
        again: bool,
    ) -> Result<BTreeMap<String, Chain>, Fault> {
        // In all of a table an owner has changed something.
        let Some(asked) = chains else {
            return self.print(table, None);
        };
        let family = self.family;
        let of_kernel = || legacy::snapshot(family, table, asked).ok().flatten();
        let before = of_kernel();
        let known = self.known.get(&table).zip(before.as_ref());
        let known = known.and_then(|(known, (now, rules))| known.listed(now, rules, chains));
        if let Some(found) = known.filter(|_| !again) {
            return Ok(found);
        }
        let found = self.print(table, chains)?;
        if let Some((now, rules)) = &before
            && before == of_kernel()
        {
            let known = self.known.entry(table).or_default();
            known.learn(now, rules, &found);
            // Other rules may have been printed than those that were there before and after.
            if known.listed(now, rules, chains).as_ref() != Some(&found) {
                self.known.remove(&table);
            }
        }
        Ok(found)
    }

    /// What the kernel has in these chains, or in all.
    fn kernel_rules(
        &self,
        table: FirewallTable,
        chains: Option<&[ChainName]>,
    ) -> Result<Rules, Errno> {
        let Some(chains) = chains else {
            return kernel_rules::read(self.family, Some(table), None);
        };
        let mut all = Rules::new();
        for chain in chains {
            let name = Some(chain.as_str());
            all.extend(kernel_rules::read(self.family, Some(table), name)?);
        }
        Ok(all)
    }

    /// Has the programs list these chains, or all.
    fn print(
        &self,
        table: FirewallTable,
        chains: Option<&[ChainName]>,
    ) -> Result<BTreeMap<String, Chain>, Fault> {
        // Of the other backend a program reads all of the table in any case, and takes the
        // lock to list a chain.
        if self.backend == Backend::Nft
            && let Some(few) = chains.filter(|chains| chains.len() <= FEW)
        {
            let listed = few.iter().map(|chain| {
                let arguments = ["-t", table.as_str(), "-S", chain.as_str()];
                let ran = run(&self.command, &arguments, "")?;
                let mut found = listed(&ran.printed, Some(std::slice::from_ref(chain)));
                Ok(found.pop_first().filter(|_| ran.code == Some(0)))
            });
            // One that is not listed may be none, or its table one that nft has made.
            if let Some(all) = listed.collect::<Result<Option<_>, Fault>>()? {
                return Ok(all);
            }
        }
        let ran = run(&self.save, &["-t", table.as_str()], "")?;
        self.check(&ran)?;
        // It prints none of the rules then, and succeeds.
        let why = ran.printed.lines().find(|it| it.contains(INCOMPATIBLE));
        if let Some(why) = why {
            let why = why.trim_start_matches(['#', ' ']);
            return Err(Fault::new(libc::EINVAL, format!("iptables-save: {why}")));
        }
        Ok(listed(&ran.printed, chains))
    }

    /// Makes these changes, all or none; with iptables 1.8.4 the first of two transactions may be
    /// made alone. The processes that make them are added to `pids`.
    ///
    /// # Errors
    /// Where a name is none, or the program fails.
    pub fn commit(
        &mut self,
        table: FirewallTable,
        changes: &[Change],
        pids: &mut Vec<u32>,
    ) -> Result<(), Fault> {
        let (deleted, others): (Vec<&Change>, Vec<&Change>) = changes
            .iter()
            .partition(|it| matches!(it, Change::Delete(_)));
        let is_split = self.deletes_first && !deleted.is_empty();
        if !is_split {
            match self.restore(table, changes, pids) {
                Err(fault) if !deleted.is_empty() && is_unexplained(&fault) => {}
                made => return made,
            }
        }
        // iptables-nft-restore 1.8.4 makes no chain that it deletes in the same transaction.
        // Between two of them an owner may make it, and the second fails.
        self.restore(table, deleted, pids)?;
        self.restore(table, others, pids)?;
        self.deletes_first = true;
        Ok(())
    }

    /// Makes these changes in one transaction.
    fn restore<'a>(
        &self,
        table: FirewallTable,
        changes: impl IntoIterator<Item = &'a Change>,
        pids: &mut Vec<u32>,
    ) -> Result<(), Fault> {
        let mut input = format!("*{}\n", table.as_str());
        for change in changes {
            input.push_str(&line_of(change)?);
            input.push('\n');
        }
        input.push_str("COMMIT\n");
        let ran = run_when(&self.restore, &["--noflush", WAIT], &input, |own| {
            pids.push(own);
            // Legacy tables have a lock.
            if self.backend == Backend::Nft {
                others::wait(own);
            }
        })?;
        self.check(&ran).map_err(|fault| {
            // Each rule was tried before: another program was faster. It is read again at once.
            match OVERTAKEN.iter().any(|it| fault.text.contains(it)) {
                true => Fault::new(libc::EEXIST, fault.text),
                false => fault,
            }
        })
    }

    /// How these rules are listed, found out in this network namespace, which must be
    /// nobody's: the table is replaced, by processes that are added to `pids`.
    ///
    /// # Errors
    /// Where the program does not run: that shows nothing about a rule.
    pub fn normalise(
        &mut self,
        table: FirewallTable,
        rules: &[Spec],
        may_load: bool,
        pids: &mut Vec<u32>,
    ) -> Result<Vec<Form>, Fault> {
        let lacks = |rule: &Spec| (!may_load).then(|| missing_module(&rule.says)).flatten();
        let mut try_out = |rules: &[Spec], targets| {
            let tried = self.try_out(table, rules, targets, pids);
            match tried {
                // Another program may have the lock.
                Err(fault) if fault.errno == libc::EBUSY || has_not_run(&fault) => Err(fault),
                tried => Ok(tried),
            }
        };
        if !rules.iter().any(|rule| lacks(rule).is_some())
            && let Ok(all) = try_out(rules, Targets::ByName)?
        {
            return Ok(all.into_iter().map(Form::Listed).collect());
        }
        let mut form = |rule: &Spec| {
            if let Some(module) = lacks(rule) {
                return Ok(Form::Lacks(module));
            }
            let alone = std::slice::from_ref(rule);
            let tried = match try_out(alone, Targets::ByName)? {
                Err(first) => try_out(alone, Targets::AllChains)?.map_err(|_| first),
                listed => listed,
            };
            Ok(match tried {
                Ok(mut listed) => Form::Listed(listed.pop().unwrap_or_default()),
                Err(fault) => Form::Invalid(fault.text),
            })
        };
        rules.iter().map(&mut form).collect()
    }

    fn try_out(
        &mut self,
        table: FirewallTable,
        rules: &[Spec],
        targets: Targets,
        pids: &mut Vec<u32>,
    ) -> Result<Vec<String>, Fault> {
        let mut chains = Vec::new();
        for rule in rules {
            chains.push(chain(&rule.chain)?);
            chains.extend(targets.of(&rule.says));
        }
        chains.sort();
        chains.dedup();
        make_sets(self.family, rules)?;
        let mut input = format!("*{}\n", table.as_str());
        for chain in &chains {
            let policy = if chain.is_built_in() { "ACCEPT" } else { "-" };
            input.push_str(&format!(":{chain} {policy} [0:0]\n"));
        }
        for rule in rules {
            input.push_str(&line_of(&Change::Add(rule.clone(), None))?);
            input.push('\n');
        }
        input.push_str("COMMIT\n");
        let ran = run_when(&self.restore, &[WAIT], &input, |own| pids.push(own))?;
        self.check(&ran)?;
        // Each chain lists its rules in the order given.
        let mut listed: BTreeMap<String, _> = self
            .list(table, Some(&chains))?
            .into_iter()
            .map(|(name, it)| (name, it.rules.into_iter()))
            .collect();
        let forms = rules.iter().map(|rule| listed.get_mut(&rule.chain)?.next());
        let forms: Option<Vec<String>> = forms.collect();
        let is_all = listed.values_mut().all(|it| it.next().is_none());
        forms
            .filter(|_| is_all)
            .ok_or_else(|| Fault::new(libc::EINVAL, "it is not just one rule"))
    }

    fn check(&self, ran: &Ran) -> Result<(), Fault> {
        match ran.code {
            Some(0) => Ok(()),
            code => {
                let fault = ran.fault(|complaint| match code {
                    _ if complaint.contains("(you must be root)") => libc::EACCES,
                    Some(RESOURCE_PROBLEM) if !is_refusal(complaint) => libc::EBUSY,
                    // The dynamic loader, or a shell, could not start it.
                    Some(126..) => NOT_RUN,
                    _ if lacks_set(complaint) => NO_SET.0,
                    _ => libc::EINVAL,
                });
                Err(Fault::new(fault.errno, without_place(&fault.text)))
            }
        }
    }
}

/// All tables that the kernel has for a family, as iptables-save(8) prints them.
#[derive(Debug)]
pub struct Saved {
    /// The backend.
    pub backend: Backend,
    /// The command that lists and changes them.
    pub command: String,
    /// Whether it is that of the node's `iptables`.
    pub is_preferred: bool,
    /// What was printed.
    pub text: String,
    /// Why it is not all, where it is that of nf_tables.
    pub fault: Option<Fault>,
}

/// What there is in each backend that this kernel has, by iptables-save(8) with these options.
///
/// # Errors
/// Where a program fails.
pub fn saved(family: Family, options: &[&str]) -> Result<Vec<Saved>, Fault> {
    let mut all = Vec::new();
    let tools = Tool::all(family)?;
    for table in FirewallTable::ALL {
        check_unread(&tools, family, table)?;
    }
    for tool in tools {
        let is_there = |table: &FirewallTable| has(tool.backend, family, *table);
        if !FirewallTable::ALL.iter().any(is_there) {
            continue;
        }
        let ran = run(&tool.save, options, "")?;
        let fault = tool.check(&ran).err();
        // One rule of nft that it does not know may keep it from printing any.
        if let (Backend::Legacy, Some(fault)) = (tool.backend, &fault) {
            return Err(fault.clone());
        }
        let command = match tool.is_preferred {
            true => base(family).to_owned(),
            false => tool
                .command
                .file_name()
                .map_or_else(String::new, |it| it.to_string_lossy().into()),
        };
        all.push(Saved {
            backend: tool.backend,
            command,
            is_preferred: tool.is_preferred,
            text: ran.printed,
            fault,
        });
    }
    Ok(all)
}

/// Marks the rules of which only a part was printed; not where other rules were printed than
/// those that there are.
fn mark(
    found: &mut BTreeMap<String, Chain>,
    table: FirewallTable,
    rules: &Rules,
) -> Option<Printed> {
    let mut printed_as = Printed::Whole;
    for (name, chain) in found {
        let rules = rules.get(&(table, name.clone()));
        let rules = rules.map_or(&[][..], Vec::as_slice);
        if chain.rules.len() != rules.len() {
            return None;
        }
        for (printed, rule) in chain.rules.iter_mut().zip(rules) {
            if !rule.is_printed_by(printed) {
                printed.insert_str(0, IN_PART);
                printed_as = Printed::InPart;
            }
        }
    }
    Some(printed_as)
}

/// How the rules of all chains were printed.
enum Printed {
    Whole,
    InPart,
}

/// Whether a program refuses a line without saying why, as 1.8.4 does where a chain is made in the
/// transaction that deletes it: `iptables-restore: line 3 failed`.
fn is_unexplained(fault: &Fault) -> bool {
    let line = fault.text.strip_suffix(" failed");
    line.is_some_and(|it| {
        it.trim_end_matches(|c: char| c.is_ascii_digit())
            .ends_with("line ")
    })
}

/// Whether iptables-nft-restore reports that the kernel refuses a change
/// (`RULE_APPEND failed (Invalid argument)`), and would do so again.
fn is_refusal(complaint: &str) -> bool {
    let answer = complaint.split_once(" failed (").map(|(_, rest)| rest);
    answer.is_some_and(|it| !MAY_SUCCEED.iter().any(|errno| it.starts_with(errno)))
}

/// A complaint without what is before it: which program of which version and backend it is of
/// (`iptables-nft-restore v1.8.9 (nf_tables): line 3: why`), and the line of its input, which
/// nobody has seen.
fn without_place(complaint: &str) -> &str {
    let Some((program, why)) = complaint.split_once(": ") else {
        return complaint;
    };
    let mut words = program.split(' ');
    let is_program = words.next().is_some_and(|it| it.contains("tables"))
        && words.next().is_some_and(|it| it.starts_with('v'));
    if !is_program {
        return complaint;
    }
    let why = why.trim_start();
    let line = why.strip_prefix("line ").and_then(|it| it.split_once(": "));
    let line = line.filter(|(number, _)| number.bytes().all(|it| it.is_ascii_digit()));
    line.map_or(why, |(_, why)| why)
}

/// Whether a program reports that a set does not exist that a rule names.
fn lacks_set(complaint: &str) -> bool {
    complaint.contains("Set ") && complaint.contains(" doesn't exist")
}

/// The backend of a program that may be of either.
fn backend_of(program: &Path) -> Result<Backend, Fault> {
    let version = run(program, &["-V"], "")?.done(|_| NOT_RUN)?;
    Ok(match version.contains("nf_tables") {
        true => Backend::Nft,
        false => Backend::Legacy,
    })
}

/// Whether the kernel has the table in this network namespace, as far as can be seen
/// without having it made: reading would load its module.
pub(super) fn has(backend: Backend, family: Family, table: FirewallTable) -> bool {
    match backend {
        Backend::Legacy => {
            let list = match family {
                Family::Ipv4 => "ip_tables_names",
                Family::Ipv6 => "ip6_tables_names",
            };
            is_in(list, table.as_str())
        }
        Backend::Nft => Modules::here().may_use("nf_tables"),
    }
}

/// Whether one of the kernel's lists of legacy tables has this one.
pub fn is_in(list: &str, table: &str) -> bool {
    // This thread may be in another network namespace than the process.
    let list = format!("/proc/self/task/{}/net/{list}", gettid());
    let list = fs::read_to_string(list).unwrap_or_default();
    list.lines().any(|name| name == table)
}

/// Fails where the kernel has the table, and in use, in a backend that none of these programs
/// reads.
///
/// # Errors
/// Which program is missing.
pub(super) fn check_unread(
    tools: &[Tool],
    family: Family,
    table: FirewallTable,
) -> Result<(), Fault> {
    for backend in Backend::ALL {
        let is_read = tools.iter().any(|it| it.backend == backend);
        if is_read || !has(backend, family, table) || !is_in_use(backend, family, table)? {
            continue;
        }
        let name = match backend {
            Backend::Legacy => "legacy",
            Backend::Nft => "nft",
        };
        let text = format!(
            "the kernel has the table {} in the {name} backend, and {}-{name} is not installed",
            table.as_str(),
            base(family)
        );
        return Err(Fault::new(NOT_RUN, text));
    }
    Ok(())
}

/// Whether a table, which the kernel has, is one of iptables, and not as it was made: of
/// nf_tables another program may have made it, and a legacy one whatever listed it.
fn is_in_use(backend: Backend, family: Family, table: FirewallTable) -> Result<bool, Fault> {
    let is_in_use = match backend {
        Backend::Legacy => is_untouched(family, table).map(|it| !it),
        Backend::Nft => match sizes(backend, family, table) {
            Err(error) if error.raw_os_error().is_some_and(|it| LACKING.contains(&it)) => Ok(false),
            sizes => sizes.map(|it| table.built_in().iter().any(|name| it.contains_key(*name))),
        },
    };
    is_in_use.map_err(|error| unread("chains", &error))
}

/// The kernel does not show this of a table.
pub(super) fn unread(what: &str, error: &io::Error) -> Fault {
    let errno = error.raw_os_error().unwrap_or(libc::EIO);
    Fault::new(errno, format!("reading its {what}: {}", plain(error)))
}

/// Which targets of rules are taken for chains.
#[derive(Clone, Copy)]
enum Targets {
    /// Those whose names no extension has.
    ByName,
    /// All.
    AllChains,
}

impl Targets {
    fn of(self, says: &[String]) -> Option<ChainName> {
        let name = target_in(says)?;
        let is_extension = !name.contains(|c: char| c == '-' || c.is_ascii_lowercase());
        match self {
            Targets::ByName if is_extension => None,
            _ => ChainName::parse(name),
        }
    }
}

/// Makes the sets that rules name, which a rule needs to be one.
fn make_sets(family: Family, rules: &[Spec]) -> Result<(), Fault> {
    let names: Vec<_> = rules.iter().flat_map(|it| sets_in(&it.says)).collect();
    if names.is_empty() {
        return Ok(());
    }
    let ipset = find("ipset").ok_or_else(|| Fault::new(libc::ENOENT, "there is no ipset"))?;
    let family = match family {
        Family::Ipv4 => "inet",
        Family::Ipv6 => "inet6",
    };
    for name in names {
        let arguments = [
            "create",
            name.as_str(),
            "hash:ip",
            "family",
            family,
            "-exist",
        ];
        let ran = run(&ipset, &arguments, "")?;
        ran.done(|_| libc::EINVAL)?;
    }
    Ok(())
}

fn chain(name: &str) -> Result<ChainName, Fault> {
    ChainName::parse(name).ok_or_else(|| Fault::new(libc::EINVAL, "invalid name of a chain"))
}

/// The size of iptables-restore's buffer for a word: 1.4.21 writes a longer one in quotes beyond
/// its end.
const WORD: usize = 1024;

/// The line of iptables-restore(8) for a change.
fn line_of(change: &Change) -> Result<String, Fault> {
    let says = |spec: &Spec| {
        // What a preserved rule says may have been written by any program.
        let is_line = |word: &String| !word.contains(['\n', '\0']) && word.len() < WORD;
        let is_valid = spec.says.iter().all(is_line) && !has_program(&spec.says);
        let line = as_line(&spec.says);
        match is_valid && line.len() <= 2 * FirewallRule::LONGEST {
            true => Ok(line),
            false => Err(Fault::new(libc::EINVAL, "this is no rule")),
        }
    };
    Ok(match change {
        Change::New(name) => format!("-N {}", chain(name)?),
        Change::Delete(name) => format!("-X {}", chain(name)?),
        Change::Add(spec, None) => format!("-A {} {}", chain(&spec.chain)?, says(spec)?),
        Change::Add(spec, Some(number)) => {
            format!("-I {} {number} {}", chain(&spec.chain)?, says(spec)?)
        }
        Change::Policy(name, policy) if ["ACCEPT", "DROP"].contains(&policy.as_str()) => {
            format!("-P {} {policy}", chain(name)?)
        }
        Change::Policy(..) => return Err(Fault::new(libc::EINVAL, "this is no policy")),
        Change::Remove(spec) => format!("-D {} {}", chain(&spec.chain)?, says(spec)?),
    })
}

/// The options whose value is any text, each with what it is an option of, as
/// iptables-save(8) lists them.
const TEXTS: [[&str; 3]; 4] = [
    ["-m", "comment", "--comment"],
    ["-m", "string", "--string"],
    ["-j", "LOG", "--log-prefix"],
    ["-j", "NFLOG", "--nflog-prefix"],
];

/// Whether a rule may name a program to be run. Other than a text, which an option takes
/// whatever it looks like, each word is taken for an option.
fn has_program(says: &[String]) -> bool {
    let comes_after = |place: usize, option: &[&str; 3]| {
        let before = place.checked_sub(option.len());
        before.is_some_and(|from| says[from..place].iter().eq(option))
    };
    let is_text = |place| TEXTS.iter().any(|option| comes_after(place, option));
    let mut words = says.iter().enumerate();
    words.any(|(place, word)| is_program(word) && !is_text(place))
}

/// Whether an option may name a program to be run (`--modprobe=`, and what getopt_long(3)
/// takes for it).
fn is_program(word: &str) -> bool {
    let name = word.split('=').next().unwrap_or_default();
    let is_short = word.starts_with('-') && !word.starts_with("--") && word.contains('M');
    is_short || name.len() > "--m".len() && "--modprobe".starts_with(name)
}

/// What is listed of these chains, or of all, by `-S` or iptables-save(8).
pub fn listed(text: &str, chains: Option<&[ChainName]>) -> BTreeMap<String, Chain> {
    let names = chains.map(|it| it.iter().map(ChainName::as_str).collect::<HashSet<_>>());
    let mut found: BTreeMap<String, Chain> = BTreeMap::new();
    for line in text.lines() {
        let (word, rest) = line.split_once(' ').unwrap_or((line, ""));
        let (word, name, rest) = match word.strip_prefix(':') {
            Some(name) => (":", name, rest),
            None => {
                let (name, rest) = rest.split_once(' ').unwrap_or((rest, ""));
                (word, name, rest)
            }
        };
        let is_chain = ["-A", ":", "-P", "-N"].contains(&word);
        if !is_chain || names.as_ref().is_some_and(|it| !it.contains(name)) {
            continue;
        }
        let chain = match found.get_mut(name) {
            Some(chain) => chain,
            None => found.entry(name.to_owned()).or_default(),
        };
        match word {
            "-A" => chain.rules.push(rest.to_owned()),
            "-N" => {}
            _ => {
                let policy = rest.split(' ').next().filter(|it| *it != "-");
                chain.policy = policy.map(str::to_owned);
            }
        }
    }
    found
}

/// The first extension of a rule whose module is not known to be loaded or built in.
fn missing_module(says: &[String]) -> Option<String> {
    let modules = Modules::here();
    let options = ["-m", "--match", "-j", "--jump", "-p", "--protocol"];
    let pairs = says
        .windows(2)
        .filter(|pair| options.contains(&pair[0].as_str()));
    let names = pairs.map(|pair| pair[1].as_str());
    let mut extensions = names.filter(|name| {
        let standard = [
            "ACCEPT",
            "DROP",
            "RETURN",
            "QUEUE",
            "all",
            "icmp",
            "icmpv6",
            "ipv6-icmp",
        ];
        // A chain, or a protocol by number.
        let is_extension = name.starts_with(|c: char| c.is_ascii_alphabetic())
            && (name
                .chars()
                .all(|c| c.is_ascii_uppercase() || c.is_ascii_digit())
                || name
                    .chars()
                    .all(|c| c.is_ascii_lowercase() || c.is_ascii_digit()));
        is_extension && !standard.contains(name)
    });
    extensions
        .find(|name| {
            let shared = match *name {
                "tcp" | "udp" => "tcpudp",
                "DNAT" | "SNAT" => "nat",
                "state" => "conntrack",
                name => name,
            };
            let names = ["xt", "ipt", "ip6t"].map(|kind| format!("{kind}_{shared}"));
            let names = names.iter().chain(&names).cloned();
            let names = names
                .chain(["xt", "ipt", "ip6t"].map(|it| format!("{it}_{}", shared.to_lowercase())));
            !names.into_iter().any(|name| modules.may_use(&name))
        })
        .map(|name| format!("xt_{name}"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_the_kernel_refuses_is_not_taken_for_a_lock() {
        let nft = |answer| {
            format!(
                "iptables-nft-restore v1.8.9 (nf_tables): line 2: RULE_APPEND failed ({answer}): \
                 rule in chain FORWARD"
            )
        };
        for (complaint, expected) in [
            (nft("Invalid argument"), true),
            (nft("Operation not supported"), true),
            (nft("No such file or directory"), true),
            (nft("Device or resource busy"), false),
            (nft("Resource temporarily unavailable"), false),
            (
                "Another app is currently holding the xtables lock; still 1s 0us time ahead"
                    .to_owned(),
                false,
            ),
        ] {
            assert_eq!(is_refusal(&complaint), expected, "{complaint}");
        }
    }

    #[test]
    fn a_complaint_is_shown_without_the_program_and_its_line() {
        for (complaint, expected) in [
            (
                "iptables-nft-restore v1.8.9 (nf_tables): line 3: RULE_APPEND failed (x): y",
                "RULE_APPEND failed (x): y",
            ),
            (
                "iptables v1.8.9 (nf_tables):  RULE_APPEND failed",
                "RULE_APPEND failed",
            ),
            (
                "iptables-restore v1.4.21: Set a doesn't exist.",
                "Set a doesn't exist.",
            ),
            (
                "ip6tables-restore v1.8.9 (legacy): unknown option \"--x\"",
                "unknown option \"--x\"",
            ),
            (
                "iptables-restore: line 4 failed",
                "iptables-restore: line 4 failed",
            ),
            (
                "iptables: error while loading shared libraries: x",
                "iptables: error while loading shared libraries: x",
            ),
        ] {
            assert_eq!(without_place(complaint), expected);
        }
    }

    #[test]
    fn no_line_names_a_program_or_is_two() {
        let line = |says: &str| {
            let says = says.split(' ').map(|it| it.replace('~', " ")).collect();
            let chain = "INPUT".to_owned();
            line_of(&Change::Add(Spec { chain, says }, None)).ok()
        };
        for says in [
            "-m comment --comment -Masq -j ACCEPT",
            "-m comment --comment --modprobe=/x",
            "-m comment --comment \u{1b}[1m",
            "-j LOG --log-prefix -M",
        ] {
            assert_eq!(line(says), Some(format!("-A INPUT {says}")));
        }
        for says in [
            "-j ACCEPT -M /x",
            "-j ACCEPT --modp=/x",
            "--comment -M/x",
            "-m comment --comment --comment -M/x",
            "-m comment --comment a -M/x",
            "-m comment --comment a\n-F",
            &format!("-m string --string {}", "a".repeat(WORD)),
        ] {
            assert_eq!(line(says), None, "{says}");
        }
    }
}
