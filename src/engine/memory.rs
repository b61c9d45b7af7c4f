//! What outlives the daemon: it is kept elsewhere and given to the next one.

use std::time::Duration;

use super::Engine;
use super::episode::OpenEpisode;
use super::outages::BySelector;
use crate::model::Monotonic;

/// A restart of the network of which the last guard knew this long ago is over,
/// whatever became of it.
const STALE: Duration = Duration::from_secs(60);

/// What a guard knows that the next one cannot find out. Its moments are on the
/// clock of this boot, and it is worth nothing after the next.
#[derive(Debug, Clone, PartialEq, Default)]
pub struct Memory {
    /// When it was so.
    pub at: Monotonic,
    /// The number of the last network restart; 0 where there was none.
    pub episodes: u64,
    /// The network restart in progress.
    pub episode: Option<OpenEpisode>,
    /// The outages of each invariant.
    pub outages: BySelector,
}

impl Engine {
    /// Takes over what another guard knew, before [`Event::Start`]; from now on
    /// a network restart in progress is not over when the guard ends, since
    /// the next one goes on with it.
    ///
    /// [`Event::Start`]: super::Event::Start
    pub fn remember(&mut self, memory: Memory, now: Monotonic) {
        self.kept = true;
        self.episodes = self.episodes.max(memory.episodes);
        for (selector, mut outage) in memory.outages {
            // What is still wrong is found so by the first look, and counted anew.
            outage.open = 0;
            self.outages.insert(selector, outage);
        }
        if let Some(mut episode) = memory.episode {
            self.episodes = self.episodes.max(episode.id.0);
            episode.lapsed = now.since(memory.at) > STALE;
            let known_until = if episode.lapsed { memory.at } else { now };
            episode.forget_jobs(known_until);
            self.episode = Some(episode);
            self.await_quiet(now);
        }
        self.status_changed = true;
    }

    /// What the next guard is to know.
    pub fn memory(&self, now: Monotonic) -> Memory {
        Memory {
            at: now,
            episodes: self.episodes,
            episode: self.episode.clone(),
            outages: self.outages.clone(),
        }
    }
}
