//! Names of things that the kernel may not have, such as a congestion control or a module.
//!
//! It lists what it has now, and a module may bring more: which ones there are
//! stands in the folder of its modules.

use std::ffi::OsStr;
use std::os::unix::ffi::OsStrExt;
use std::path::Path;

use super::diagnostic::{Diagnostic, Severity, quoted};
use super::file::Place;
use super::suggest::nearest;
use super::tree::read;
use super::units;
use crate::model::facts::{Fact, Offered};
use crate::model::{Invariant, Selector, Value, text};
use crate::modules::Modules;
use crate::resource::{Attribute, Fdb, Module, Resource, State};

/// A warning where the kernel of the node below `root` does not have what the
/// invariant would set, or the module that it requires, as far as is known.
pub(super) fn check(invariant: &Invariant, place: &Place, root: &Path) -> Option<Diagnostic> {
    match &invariant.selector {
        Selector::Resource(Resource::Module(module)) => no_module(module, place, root),
        Selector::Resource(Resource::Unit(unit)) => units::missing(unit, place, root),
        Selector::Resource(Resource::Fdb(entry)) => no_vxlan(entry, invariant, place, root),
        _ => {
            let module = invariant.module.as_deref().and_then(Module::parse);
            let missing = module.and_then(|it| no_module(&it, place, root));
            missing.or_else(|| not_offered(invariant, place, root))
        }
    }
}

/// An entry that says where to send to, of an interface that is no VXLAN interface.
fn no_vxlan(entry: &Fdb, invariant: &Invariant, place: &Place, root: &Path) -> Option<Diagnostic> {
    let target = invariant.desired.target(&State::Absent)?;
    target.get(Attribute::Dst)?;
    let name = text::to_bytes(entry.dev.as_str());
    let folder = Path::new("/sys/class/net").join(OsStr::from_bytes(&name));
    let known = String::from_utf8(read(root, &folder.join("uevent"))?).ok()?;
    let mut types = known.lines().filter_map(|it| it.strip_prefix("DEVTYPE="));
    let found = match types.next() {
        Some("vxlan") => return None,
        Some(other) => format!("a {other} interface"),
        None => "of another type".to_owned(),
    };
    let dev = quoted(&text::shown(entry.dev.as_str()));
    let message = format!("`dst` is for a VXLAN interface, and {dev} is {found}");
    let mut warning = Diagnostic::at(Severity::Warning, place.clone(), message);
    warning.note("the kernel refuses the entry");
    Some(warning)
}

fn no_module(module: &Module, place: &Place, root: &Path) -> Option<Diagnostic> {
    let modules = Modules::new(root);
    let (release, known) = (modules.release().ok()?, modules.all()?);
    if known.contains(module) {
        return None;
    }
    let name = quoted(module.as_str());
    let message = format!("there is no module {name} for this kernel ({release})");
    let mut warning = Diagnostic::at(Severity::Warning, place.clone(), message);
    warning.suggest(nearest(module.as_str(), known.iter().map(Module::as_str)));
    Some(warning)
}

fn not_offered(invariant: &Invariant, place: &Place, root: &Path) -> Option<Diagnostic> {
    let Offered { by, module } = Fact::of(&invariant.selector)?.offered?;
    let has = String::from_utf8(read(root, &Path::new("/proc/sys").join(by))?).ok()?;
    let has: Vec<&str> = has.split_ascii_whitespace().collect();
    let required = invariant.desired.restore_to(&Value::default())?;
    let names = required.as_str().split_ascii_whitespace();
    let mut missing = names.filter(|name| !has.contains(name)).peekable();
    missing.peek()?;
    let modules = Modules::new(root).all();
    let known = modules.iter().flatten();
    let known: Vec<&str> = known
        .filter_map(|it| it.as_str().strip_prefix(module))
        .collect();
    let missing = missing.find(|missing| !known.contains(missing))?;
    let module = quoted(&format!("{module}{missing}"));
    let why = match &modules {
        Some(_) => format!("there is no module {module}"),
        None => format!("whether there is a module {module} is unknown"),
    };
    let message = format!(
        "this kernel does not offer {} for {} now (it offers {}), and {why}",
        quoted(missing),
        quoted(&invariant.selector.to_string()),
        has.join(", "),
    );
    let mut warning = Diagnostic::at(Severity::Warning, place.clone(), message);
    let candidates = has.into_iter().chain(known);
    warning.suggest(nearest(missing, candidates));
    Some(warning)
}
