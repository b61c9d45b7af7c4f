//! The tables of nf_tables, by nft(8).

use std::path::Path;

use nix::libc;
use nix::net::if_::if_nametoindex;

use super::super::protocol::{Fault, NftAnswer, NftAsk, NftReply};
use super::alone;
use super::others;
use super::pins::Pins;
use super::programs::{find, run, run_when};
use crate::kinds::NO_DEVICE;
use crate::modules::Modules;
use crate::resource::{NftTable, TableContents, Unsuited};

/// The module of tables.
const MODULE: &str = "nf_tables";

/// What nft prints of a table that does not exist.
const NO_SUCH_TABLE: &str = "No such file or directory";

/// Where nft finds an error that is in the first line of its input.
const FIRST_LINE: &str = "/dev/stdin:1:";

/// What nft warns of since 1.0.6: it prints only a part of such a table.
const IS_IPTABLES: &str = "is managed by iptables";

/// Answers a request about tables.
pub fn answer(ask: &NftAsk, pins: &mut Pins) -> NftAnswer {
    let none = || Fault::new(libc::ENOPKG, "nft is not installed");
    let nft = find("nft").ok_or_else(none)?;
    Ok(match ask {
        NftAsk::List => NftReply::Names(list(&nft)?),
        NftAsk::Read(name) => NftReply::Listed(read(&nft, &table(name)?)?),
        NftAsk::Restore {
            table: name,
            inside,
        } => NftReply::Done(restore(&nft, &table(name)?, inside)?),
        NftAsk::Normalise {
            table: name,
            inside,
            may_load,
        } => {
            if !may_load && Modules::here().may_be_loaded() {
                let text = "trying it could load modules of the kernel";
                return Err(Fault::new(libc::ENOSYS, text));
            }
            let (name, nft) = (table(name)?, &nft);
            let input = transaction(&name, inside, false)?;
            let listed = alone(|| {
                let ran = run(nft, &["-f", "-"], &input)?;
                ran.done(errno).map_err(|fault| located(fault, &input))?;
                read(nft, &name)
            });
            NftReply::Listed(listed?)
        }
        NftAsk::Pin(name, inside) => {
            let name = table(name)?;
            let contents = TableContents::parse(inside).map_err(unsuited)?;
            if contents.has_flags() {
                return Err(Fault::new(libc::EINVAL, "it has flags of its own"));
            }
            NftReply::Done(Some(pins.pin(&nft, &name, &contents)?))
        }
        NftAsk::Keep(names) => {
            let names: Result<Vec<_>, _> = names.iter().map(|it| table(it)).collect();
            pins.keep(&names?);
            NftReply::Kept
        }
    })
}

fn unsuited(why: Unsuited) -> Fault {
    Fault::new(libc::EINVAL, why.to_string())
}

fn table(name: &str) -> Result<NftTable, Fault> {
    NftTable::parse(name).ok_or_else(|| Fault::new(libc::EINVAL, "invalid name of a table"))
}

/// The names of all tables that can be guarded.
fn list(nft: &Path) -> Result<Vec<String>, Fault> {
    if !Modules::here().may_use(MODULE) {
        return Ok(Vec::new());
    }
    let listed = run(nft, &["list", "tables"], "")?.done(errno)?;
    let names = listed.lines().filter_map(|it| it.strip_prefix("table "));
    let names = names.filter(|it| NftTable::parse(it).is_some());
    Ok(names.map(str::to_owned).collect())
}

/// A table without counters and the like.
fn read(nft: &Path, table: &NftTable) -> Result<Option<String>, Fault> {
    if !Modules::here().may_use(MODULE) {
        return Ok(None);
    }
    let (family, name) = (table.family.as_str(), table.name());
    let ran = run(nft, &["-s", "list", "table", family, name], "")?;
    match ran.code {
        Some(0) if ran.warnings.contains(IS_IPTABLES) => {
            let text = "it is iptables'; preserve its chains instead";
            Err(Fault::new(libc::EMEDIUMTYPE, text))
        }
        Some(0) if ran.printed.len() > TableContents::LONGEST => {
            Err(Fault::new(libc::EFBIG, Unsuited::TooLong.to_string()))
        }
        Some(1..) if ran.complaint.contains(NO_SUCH_TABLE) => Ok(None),
        _ => ran.done(errno).map(Some),
    }
}

/// Makes a table that is gone or that has no rules. One that has rules is its owner's work
/// since, so it is read right before. Returns the process that has made it.
fn restore(nft: &Path, table: &NftTable, inside: &str) -> Result<Option<u32>, Fault> {
    let found = read(nft, table)?.map(|text| TableContents::listed(table, &text));
    let found = found.transpose().map_err(unsuited)?;
    if found.as_ref().is_some_and(|(it, _)| it.rules() > 0) {
        return Ok(None);
    }
    let replace = found.is_some();
    let input = transaction(table, inside, replace)?;
    let ran = run_when(nft, &["-f", "-"], &input, others::wait)?;
    match ran.code {
        Some(0) => Ok(Some(ran.pid)),
        Some(_) if replace && is_gone(&ran.complaint) => {
            Err(Fault::new(libc::ESRCH, ran.complaint))
        }
        _ => Err(located(ran.fault(errno), &input)),
    }
}

/// Whether the table that was to give way has gone since it was read: what it deletes is in
/// the first line. An object or a module may be missing further down.
fn is_gone(complaint: &str) -> bool {
    complaint.starts_with(FIRST_LINE) && complaint.ends_with(NO_SUCH_TABLE)
}

/// The input of nft(8) that makes a table: all of it or nothing.
fn transaction(table: &NftTable, inside: &str, replace: bool) -> Result<String, Fault> {
    let contents = TableContents::parse(inside).map_err(unsuited)?;
    let is_there = |name: &str| if_nametoindex(name).is_ok();
    if let Some(missing) = contents.devices().iter().find(|it| !is_there(it)) {
        let text = format!("there is no interface {missing}");
        return Err(Fault::new(NO_DEVICE.0, text));
    }
    let name = table.spelled();
    let (own, all) = (contents.of_table(), contents.on(is_there).text());
    let mut input = String::new();
    if replace {
        input.push_str(&format!("delete table {name}\n"));
    }
    // One that another program has made in the meantime stays as it is. No more than this is made
    // by `create`.
    input.push_str(&format!("create table {name} {{\n{own}}}\n"));
    input.push_str(&format!("table {name} {{\n{all}}}\n"));
    Ok(input)
}

/// A complaint of nft about a line of its input, with that line in place of its number.
fn located(fault: Fault, input: &str) -> Fault {
    let place = fault.text.strip_prefix("/dev/stdin:");
    let parts = place.and_then(|it| it.split_once(':'));
    let line = parts.and_then(|(line, rest)| {
        let line = input
            .lines()
            .nth(line.parse::<usize>().ok()?.checked_sub(1)?)?;
        let (_, why) = rest.split_once(": ")?;
        Some((line.trim(), why.strip_prefix("Error: ").unwrap_or(why)))
    });
    match line {
        Some((line, why)) => Fault::new(fault.errno, format!("`{line}`: {why}")),
        None => fault,
    }
}

/// The number of what nft complains of.
fn errno(complaint: &str) -> i32 {
    match complaint {
        it if it.ends_with("File exists") => libc::EEXIST,
        _ => libc::EINVAL,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_table_is_gone_where_its_deletion_fails() {
        let error = "Error: Could not process rule: No such file or directory";
        for (place, expected) in [("1:14-14", true), ("5:11-13", false), ("11:1-2", false)] {
            let complaint = format!("/dev/stdin:{place}: {error}");
            assert_eq!(is_gone(&complaint), expected, "{complaint}");
        }
        assert!(!is_gone(
            "/dev/stdin:1:1-2: Error: Could not process rule: File exists"
        ));
    }

    #[test]
    fn a_complaint_shows_the_line_that_it_is_about() {
        let input = "table inet a {\n\taccept now\n}\n";
        for (complaint, expected) in [
            (
                "/dev/stdin:2:9-11: Error: syntax error",
                "`accept now`: syntax error",
            ),
            (
                "/dev/stdin:9:1-1: Error: why",
                "/dev/stdin:9:1-1: Error: why",
            ),
            (
                "/dev/stdin:0:1-1: Error: why",
                "/dev/stdin:0:1-1: Error: why",
            ),
            ("/dev/stdin:x", "/dev/stdin:x"),
            ("no memory", "no memory"),
        ] {
            let fault = located(Fault::new(libc::EINVAL, complaint), input);
            assert_eq!(fault.text, expected);
        }
    }

    #[test]
    fn only_one_table_is_made() {
        let table = table("inet a").expect("a table");
        let input = |inside: &str, replace| transaction(&table, inside, replace).ok();
        let inside = "comment \"a { b\"\nchain c {\naccept\n}\n";
        for (replace, before) in [(false, ""), (true, "delete table inet a\n")] {
            let created = "create table inet a {\ncomment \"a { b\"\n}\n";
            let expected = format!("{before}{created}table inet a {{\n{inside}}}\n");
            assert_eq!(input(inside, replace), Some(expected));
        }
        for inside in [
            "}\nflush ruleset\ntable inet b {\n",
            "include \"/etc/shadow\"\n",
            "chain c {\ntype filter hook ingress device \"no-such-link\" priority 0;\n}\n",
        ] {
            assert_eq!(input(inside, false), None, "{inside}");
        }
    }
}
