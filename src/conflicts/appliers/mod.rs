//! The programs that apply files. Each has a module, which makes settings of the lines of its
//! files, in the order in which they are applied.

pub mod network_manager;
pub mod network_script;
pub mod networkd;
pub mod reader;
pub mod scripts;
pub mod sysconfig;
pub mod sysctl_d;
pub mod tuned;
pub mod ufw;
mod version;

use super::files::tree::Tree;
use super::pass::Pass;
use crate::model::{Applier, Settings};

/// Everybody who applies files on a node, and what.
pub struct Applied {
    /// In each way that is possible: one, where the versions are known.
    pub ways: Vec<Vec<Pass>>,
    /// What udev applies for a new interface, in each way.
    pub boot: Vec<Pass>,
    /// Whether systemd-sysctl is known not to be too old for patterns.
    pub patterns: bool,
}

impl Applied {
    pub fn of(tree: &Tree, settings: &Settings) -> Self {
        let systemd = version::systemd(tree);
        let boot = systemd.iter().flat_map(|it| sysctl_d::boots(tree, *it));
        let boot: Vec<Pass> = boot.collect();
        let procps = version::procps(tree, &systemd);
        let procps = procps.into_iter().map(|it| sysctl_d::procps(tree, it));
        let restart = boot.iter().filter_map(|boot| {
            Some(Pass {
                by: Applier::NetworkRestart,
                settings: network_script::restart(tree, &boot.settings)?,
                doubts: Vec::new(),
                ..boot.clone()
            })
        });
        let mut ways = vec![
            boot.clone(),
            procps.collect(),
            vec![tuned::pass(tree)],
            vec![Pass::new(Applier::Ufw, ufw::applied(tree))],
            restart.collect(),
        ];
        if networkd::is_enabled(tree) {
            ways.push(networkd::passes(tree, settings));
        }
        ways.retain(|it| !it.is_empty());
        Applied {
            ways,
            boot,
            patterns: systemd.last() >= Some(&reader::Systemd::V244),
        }
    }

    /// Each pass as it most likely is.
    pub fn likely(&self) -> Vec<Pass> {
        self.ways
            .iter()
            .filter_map(|it| it.last().cloned())
            .collect()
    }
}
