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

/// The name of a set that is being made.
const NEW: &str = "netguard-new";

/// What `ipset` prints where a set already has the name that another must get.
const IS_THERE: &str = "a set with the new name already exists";

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

/// Makes these changes of a set. One that is made is filled under another name first: what
/// uses it never finds it without all of its members.
fn commit(ipset: &Path, set: &SetName, changes: &[SetChange]) -> Result<(), Fault> {
    let restore = |input: &str| run(ipset, &["restore", "-exist"], input);
    let is_made = changes.iter().any(|it| matches!(it, SetChange::Create(..)));
    if !is_made {
        return restore(&lines(set, changes)?)?.done(errno).map(drop);
    }
    let new = name(NEW)?;
    let (removed, made): (Vec<_>, Vec<_>) = changes
        .iter()
        .cloned()
        .partition(|it| *it == SetChange::Destroy);
    let input = lines(&new, &made)? + &lines(set, &removed)? + &format!("rename {new} {set}\n");
    // What a helper left that was killed.
    let remove = || run(ipset, &["destroy", NEW], "").map(drop);
    remove()?;
    let ran = restore(&input)?;
    match ran.code {
        Some(0) => Ok(()),
        _ => {
            remove()?;
            match ran.complaint.contains(IS_THERE) {
                // Another program was faster: what it has made is read now.
                true => Ok(()),
                false => ran.done(errno).map(drop),
            }
        }
    }
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
    let is_list = matches!(changes, [SetChange::Create(kind, _), ..] if kind == LIST);
    if is_list {
        run(ipset, &["restore", "-exist"], &members)?.done(errno)?;
    }
    let done = run(ipset, &["restore", "-exist"], &input)?.done(|_| libc::EINVAL);
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
        let (_, rest) = text.split_once("Error in line ")?;
        let (line, why) = rest.split_once(": ")?;
        match changes.get(line.parse::<usize>().ok()?.checked_sub(1)?)? {
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
        text.push('\n');
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
                Some("add a 10.0.0.0/8 nomatch\n"),
            ),
            (add("10.0.0.0/8\nflush", &[]), None),
            (add("-exist", &[]), None),
            (add("", &[]), None),
        ] {
            assert_eq!(change(it.clone()).as_deref(), line, "{it:?}");
        }
    }
}
