//! Globs of interface names, and what they have in common.

use super::setting::selector;
use crate::model::{Segment, Selector};

/// Whether `glob` means every interface that `target` means.
pub fn covers(glob: &str, target: &str) -> bool {
    if !is_glob(target) {
        return Segment::Glob(glob.to_owned()).matches(target) || glob == target;
    }
    let of = |glob: &str| selector(&format!("net/ipv4/conf/{glob}/forwarding"));
    match (of(glob), of(target)) {
        (Some(Selector::Pattern(glob)), Some(Selector::Pattern(target))) => glob.covers(&target),
        _ => false,
    }
}

/// Whether there is an interface that both mean.
pub fn meets(glob: &str, target: &str) -> bool {
    if !is_glob(target) {
        return covers(glob, target);
    }
    if !is_glob(glob) {
        return covers(target, glob);
    }
    let of = |glob: &str| selector(&format!("net/ipv4/conf/{glob}/forwarding"));
    match (of(glob), of(target)) {
        (Some(Selector::Pattern(glob)), Some(Selector::Pattern(target))) => glob.meets(&target),
        _ => true,
    }
}

fn is_glob(name: &str) -> bool {
    name.contains(['*', '?', '['])
}
