//! `netguard explain conntrack`: the kernel's conntrack table, and who fills it.

use super::super::load::is_running;
use super::super::{exit, print};
use super::page::Page;
use crate::config::Request;
use crate::drivers::conntrack::{Conntrack, sources};
use crate::journal::message::connections;
use crate::model::ConntrackSettings;
use crate::words::Count;

/// Whether this is what is asked for.
pub(super) fn is_meant(text: &str) -> bool {
    text.trim_end_matches('/').eq_ignore_ascii_case("conntrack")
}

/// How many addresses are shown, unless all are.
const SHOWN: usize = 10;

/// Explains the table.
pub(super) fn run(settings: &ConntrackSettings, request: &Request, mut page: Page) -> u8 {
    page.text.push_str("conntrack\n");
    page.item(
        "means",
        "The kernel's conntrack table: NAT and a firewall's stateful rules use it.",
    );
    page.item(
        "kernel",
        "NAT is decided at the first packet of a connection. When the table is full, the first packet of each further connection is dropped (net.netfilter.nf_conntrack_max).",
    );
    page.item("clean", &clean(settings));
    let full = match settings.full {
        Some(percent) => format!("reported when more than {percent} % are in use"),
        None => "not reported (full = \"off\")".to_owned(),
    };
    page.item("full", &full);
    let usage = Conntrack::new(&request.root).usage();
    let usage = usage.map_or_else(
        || "unreadable: nf_conntrack is not loaded, or cannot be read".to_owned(),
        connections,
    );
    page.item("current", &usage);
    if is_running(request) {
        add_sources(&mut page);
    }
    print::result(&page.text, exit::OK)
}

fn clean(settings: &ConntrackSettings) -> String {
    let networks: Vec<String> = settings.clean.iter().map(ToString::to_string).collect();
    match networks.as_slice() {
        [] => "nothing is deleted (clean is empty)".to_owned(),
        networks => format!(
            "after NAT was restored, unanswered connections without NAT from {} are deleted",
            networks.join(", ")
        ),
    }
}

/// Who has opened the most.
fn add_sources(page: &mut Page) {
    let sources = match sources() {
        Ok(sources) => sources,
        Err(why) => return page.item("opened by", &format!("unreadable: {why}")),
    };
    if sources.is_empty() {
        return page.item("opened by", "none: there are no connections");
    }
    let shown = if page.all { usize::MAX } else { SHOWN };
    for (address, count) in sources.iter().take(shown) {
        let opened = Count(*count, "connection");
        page.item("opened by", &format!("{address}: {opened}"));
    }
    if let Some(more @ 1..) = sources.len().checked_sub(shown) {
        let more = Count(more, "more address");
        page.item("opened by", &format!("{more} (--all shows them)"));
    }
}
