//! Which settings disagree with an invariant, and how to fix that.

pub mod hints;
mod kernel;
pub mod line;
pub mod remedy;
pub mod resources;
pub mod world;

use super::appliers::Applied;
use super::pass::Pass;
use super::unknown::{self, Unknown};
use crate::model::{Applier, Settings};
use line::{Disagreement, Lines};
use world::{Judgement, Verdicts, World};

/// The most conflicts of one pass: a node with more has one cause for them.
pub const MOST: usize = 1000;

/// Judges what these programs apply.
pub fn judge(applied: &Applied, world: &World<'_>, settings: &Settings) -> Verdicts {
    let mut lines = Lines::new(settings);
    let mut verdicts = Verdicts::default();
    let mut unknown = Vec::new();
    for ways in &applied.ways {
        // What the same systemd applies, where that matters.
        let is_of_systemd = |it: &Pass| matches!(it.by, Applier::Boot | Applier::NetworkRestart);
        let is_same = ways.len() == applied.boot.len() && ways.iter().all(is_of_systemd);
        let mut judged: Vec<Judgement<'_>> = Vec::new();
        for (number, pass) in ways.iter().enumerate() {
            unknown.extend(unknown::unknown(pass, settings));
            let boots = match is_same {
                true => &applied.boot[number..=number],
                false => &applied.boot,
            };
            judged.extend(boots.iter().map(|boot| world.judge(pass, boot)));
        }
        let several = match ways.len() {
            1 => &applied.boot[0],
            _ => &ways[0],
        };
        for it in judged.iter().flat_map(|it| &it.found) {
            verdicts.wrong.extend(it.wrong(it.by));
        }
        verdicts
            .doubtful
            .extend(judged.iter().flat_map(|it| it.doubtful.clone()));
        let undecided = world::undecided(&judged);
        let is_doubtful = |it: &Disagreement<'_>| {
            it.overridden.is_none() && undecided.contains(&(it.invariant, it.by))
        };
        let doubtful = judged
            .iter()
            .flat_map(|it| &it.found)
            .filter(|it| is_doubtful(it));
        unknown.extend(doubtful.map(|it| {
            let guarded = &settings.invariants[it.invariant].selector;
            Unknown::version(guarded, it.setting, several.why_several)
        }));
        if let Some(last) = judged.into_iter().next_back() {
            unknown.extend(last.unknown);
            last.found
                .iter()
                .filter(|it| !is_doubtful(it))
                .for_each(|it| lines.add(it));
        }
    }
    for it in unknown {
        if verdicts.unknown.len() < MOST && !verdicts.unknown.contains(&it) {
            verdicts.unknown.push(it);
        }
    }
    verdicts.lines = lines.sorted();
    verdicts
}
