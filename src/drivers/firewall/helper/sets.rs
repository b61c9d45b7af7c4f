//! The sets of ipset, by its own program.

use std::path::Path;

use nix::libc;

use super::super::protocol::{Fault, SetAnswer, SetAsk, SetChange, SetReply};
use super::alone;
use super::programs::{find, run};
use crate::kinds::NO_SET;
use crate::modules::Modules;
use crate::resource::{SetName, SetType, is_member};

/// The module of sets.
const MODULE: &str = "ip_set";

/// The type of sets whose members are sets.
const LIST: &str = "list:set";

/// What `ipset` prints of a set that does not exist.
const NO_SUCH_SET: &str = "set with the given name does not exist";

/// What `ipset` prints where a set does not exist that is to be a member of another.
const NO_SUCH_MEMBER: &str = "Set to be added/deleted/tested as element does not exist";

/// What `ipset` prints where a set is to be made that another program has made meanwhile.
const IS_THERE: &str = "set with the same name already exists";

/// What `ipset` prints of a set that it must not remove.
const IN_USE: &str = "in use by a kernel component";

/// Answers a request about sets.
pub fn answer(ask: &SetAsk) -> SetAnswer {
    let none = || Fault::new(libc::ENOPKG, "ipset is not installed");
    let ipset = find("ipset").ok_or_else(none)?;
    Ok(match ask {
        SetAsk::List => SetReply::Names(list(&ipset)?),
        SetAsk::Read(names) => {
            let read = |it: &String| save(&ipset, &name(it)?).map_err(|fault| of(it, fault));
            SetReply::Saved(names.iter().map(read).collect())
        }
        SetAsk::Commit(set, changes) => {
            commit(&ipset, &name(set)?, changes).map_err(|fault| of(set, fault))?;
            SetReply::Done
        }
        SetAsk::TryOut(set, changes) => {
            let set = name(set)?;
            SetReply::Saved(vec![alone(|| try_out(&ipset, &set, changes))])
        }
    })
}

/// Makes these changes of a set. One that cannot be made with all of its members is not made.
fn commit(ipset: &Path, set: &SetName, changes: &[SetChange]) -> Result<(), Fault> {
    // Checked first, so that the set that is replaced is not destroyed for nothing.
    let (replaced, made): (Vec<_>, Vec<_>) = changes
        .iter()
        .cloned()
        .partition(|it| *it == SetChange::Destroy);
    if !replaced.is_empty() && made.iter().any(is_create) {
        alone(|| try_out(ipset, set, &made))?;
    }
    if is_made_list(changes) {
        let there = list(ipset)?;
        let lacks =
            |it: &SetChange| matches!(it, SetChange::Add(member, _) if !there.contains(member));
        if changes.iter().any(lacks) {
            return Err(Fault::new(NO_SET.0, NO_SUCH_MEMBER));
        }
    }
    let ran = run(ipset, &["restore"], &lines(set, changes)?)?;
    let failed = failed_at(&ran.complaint).and_then(|it| changes.get(it));
    match failed {
        // What the other program has made is read now.
        Some(SetChange::Create(..)) if ran.complaint.contains(IS_THERE) => return Ok(()),
        Some(SetChange::Add(..)) if changes.iter().any(is_create) => {
            run(ipset, &["destroy", set.as_str()], "")?;
        }
        _ => {}
    }
    ran.done(errno).map(drop)
}

fn is_create(change: &SetChange) -> bool {
    matches!(change, SetChange::Create(..))
}

/// Whether a set of sets is made.
fn is_made_list(changes: &[SetChange]) -> bool {
    let is_list = |it: &SetChange| matches!(it, SetChange::Create(kind, _) if kind == LIST);
    changes.iter().any(is_list)
}

/// The index of the change that ipset complains of.
fn failed_at(complaint: &str) -> Option<usize> {
    let (_, rest) = complaint.split_once("Error in line ")?;
    let (line, _) = rest.split_once(": ")?;
    line.parse::<usize>().ok()?.checked_sub(1)
}

/// What `ipset save` prints of a set after these changes, where there is no other set but
/// those that are to be its members.
fn try_out(ipset: &Path, set: &SetName, changes: &[SetChange]) -> Result<Option<String>, Fault> {
    let input = lines(set, changes)?;
    let mut members = String::new();
    for change in changes {
        match change {
            SetChange::Create(kind, _) if !Modules::here().may_use(&module_of(kind)) => {
                let text = format!("the module {} is not loaded", module_of(kind));
                return Err(Fault::new(libc::ENOSYS, text));
            }
            SetChange::Add(member, _) if member != set.as_str() => {
                if let Some(member) = SetName::parse(member) {
                    members += &format!("create {member} hash:ip\n");
                }
            }
            _ => {}
        }
    }
    if is_made_list(changes) {
        run(ipset, &["restore", "-exist"], &members)?.done(errno)?;
    }
    let done = run(ipset, &["restore"], &input)?.done(|_| libc::EINVAL);
    done.map_err(|fault| located(fault, changes))?;
    save(ipset, set)
}

/// The module of sets of a type.
fn module_of(kind: &str) -> String {
    format!("{MODULE}_{}", kind.replace(':', "_").replace(',', ""))
}

/// The complaint about one change, with its member in place of its line.
fn located(fault: Fault, changes: &[SetChange]) -> Fault {
    let about = |text: &str| {
        let change = changes.get(failed_at(text)?)?;
        let (_, why) = text.split_once("Error in line ")?.1.split_once(": ")?;
        match change {
            SetChange::Add(member, _) => Some(format!("`{member}`: {why}")),
            _ => Some(why.to_owned()),
        }
    };
    let text = about(&fault.text);
    Fault {
        text: text.unwrap_or(fault.text),
        ..fault
    }
}

fn of(set: &str, fault: Fault) -> Fault {
    fault.of(format!("set {set}"))
}

fn list(ipset: &Path) -> Result<Vec<String>, Fault> {
    if !Modules::here().may_use(MODULE) {
        return Ok(Vec::new());
    }
    let names = run(ipset, &["list", "-name"], "")?.done(errno)?;
    Ok(names.lines().map(str::to_owned).collect())
}

fn save(ipset: &Path, set: &SetName) -> Result<Option<String>, Fault> {
    if !Modules::here().may_use(MODULE) {
        return Ok(None);
    }
    let ran = run(ipset, &["save", set.as_str()], "")?;
    match ran.code {
        Some(1..) if ran.complaint.contains(NO_SUCH_SET) => Ok(None),
        _ => ran.done(errno).map(Some),
    }
}

fn name(text: &str) -> Result<SetName, Fault> {
    SetName::parse(text).ok_or_else(|| Fault::new(libc::EINVAL, "invalid name of a set"))
}

/// The lines of ipset(8) for changes of a set.
fn lines(set: &SetName, changes: &[SetChange]) -> Result<String, Fault> {
    let invalid = || Fault::new(libc::EINVAL, "invalid change of a set");
    let mut text = String::new();
    for change in changes {
        let (line, options) = match change {
            SetChange::Destroy => (format!("destroy {set}"), None),
            SetChange::Create(kind, options) => {
                let kind = SetType::parse(kind).ok_or_else(invalid)?;
                (format!("create {set} {}", kind.as_str()), Some(options))
            }
            SetChange::Add(member, options) if is_member(member) => {
                (format!("add {set} {member}"), Some(options))
            }
            SetChange::Add(..) => return Err(invalid()),
        };
        text.push_str(&line);
        for option in options.into_iter().flatten() {
            let is_plain = |c: char| c.is_ascii_alphanumeric() || ".:/-".contains(c);
            if option.is_empty() || option.starts_with('-') || !option.chars().all(is_plain) {
                return Err(invalid());
            }
            text.push(' ');
            text.push_str(option);
        }
        // Two of the configured members may be one.
        text.push_str(match change {
            SetChange::Add(..) => " -exist\n",
            SetChange::Destroy | SetChange::Create(..) => "\n",
        });
    }
    Ok(text)
}

/// The number of what `ipset` complains of.
fn errno(complaint: &str) -> i32 {
    match complaint {
        it if it.contains(IN_USE) => libc::EADDRINUSE,
        it if it.contains(NO_SUCH_MEMBER) => NO_SET.0,
        _ => libc::EINVAL,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_changes_of_one_set_are_written() {
        let set = SetName::parse("a").expect("a name");
        let words = |all: &[&str]| all.iter().map(|it| (*it).to_owned()).collect();
        let change = |change| lines(&set, &[change]).ok();
        let create = |kind: &str, options| SetChange::Create(kind.to_owned(), words(options));
        let add = |member: &str, options| SetChange::Add(member.to_owned(), words(options));
        for (it, line) in [
            (SetChange::Destroy, Some("destroy a\n")),
            (
                create("hash:net", &["family", "inet"]),
                Some("create a hash:net family inet\n"),
            ),
            (create("hash:net", &["a\nflush"]), None),
            (create("hash:net", &["-file"]), None),
            (create("hash:net\nflush", &[]), None),
            (
                add("10.0.0.0/8", &["nomatch"]),
                Some("add a 10.0.0.0/8 nomatch -exist\n"),
            ),
            (add("10.0.0.0/8\nflush", &[]), None),
            (add("-exist", &[]), None),
            (add("", &[]), None),
        ] {
            assert_eq!(change(it.clone()).as_deref(), line, "{it:?}");
        }
    }
}
