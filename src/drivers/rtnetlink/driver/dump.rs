//! The dumps that the driver makes of what is suspect: read in parts, and decoded in
//! slices.

use std::collections::BTreeSet;
use std::time::Duration;

use tokio::time::Instant;

use super::{Change, ChangedBy, News, Rtnetlink, SLICE};
use crate::clock;
use crate::drivers::rtnetlink::codec::{self, Listing};
use crate::drivers::rtnetlink::worker::Write;
use crate::engine::Errno;
use crate::resource::Resource;

/// How long after a dump failed it is tried again.
const RETRY: Duration = Duration::from_millis(500);

/// A dump that is under way.
#[derive(Debug)]
pub(super) struct Dump {
    pub listing: Listing,
    pub began: Instant,
    pub stage: Stage,
}

#[derive(Debug)]
pub(super) enum Stage {
    /// The thread reads the next part.
    Reading,
    /// It has read this. What is not in it was reported before, with who removed it: all
    /// notifications that wait are read first.
    Waiting(Vec<u8>, Option<Result<bool, Errno>>),
    /// A part is decoded, from this byte on.
    Decoding(Vec<u8>, usize, Option<Result<bool, Errno>>),
    /// What it did not list is forgotten.
    Settling,
}

impl Rtnetlink {
    pub(super) fn is_resting(&self) -> bool {
        self.dump.is_none() && !self.is_dropping && self.mirror.next_dump().is_some()
    }

    pub(super) fn begin_dump(&mut self) {
        let began = Instant::now();
        if self.is_resting()
            && began >= self.rest
            && let Some(listing) = self.mirror.next_dump()
        {
            self.mirror.begin(listing);
            let stage = Stage::Reading;
            self.dump = Some(Dump {
                listing,
                began,
                stage,
            });
            self.worker.dump(listing);
        }
    }

    /// All notifications are read that came before a part of the dump.
    pub(super) fn begin_to_decode(&mut self) {
        if let Some(Dump { stage, .. }) = &mut self.dump
            && let Stage::Waiting(bytes, end) = stage
        {
            *stage = Stage::Decoding(std::mem::take(bytes), 0, end.take());
        }
    }

    /// Takes in a slice of what there is of the dump.
    pub(super) fn decode(&mut self) {
        let Some(Dump {
            listing,
            began,
            stage,
        }) = &mut self.dump
        else {
            return;
        };
        let listing = *listing;
        match stage {
            Stage::Reading | Stage::Waiting(..) => return,
            Stage::Decoding(bytes, from, end) => {
                let rest = bytes.get(*from..).unwrap_or(&[]);
                let mut count = 0;
                for message in codec::messages(rest).take(SLICE) {
                    self.mirror.part(listing, &message, &mut self.changed);
                    *from += (16 + message.payload.len()).next_multiple_of(4);
                    count += 1;
                }
                if count < SLICE {
                    *stage = match end {
                        Some(end) => {
                            // Half of the time, at most, is spent on dumps.
                            self.rest = Instant::now() + began.elapsed();
                            if let Err(errno) = *end {
                                self.rest += RETRY;
                                self.news.push_back(News::Unreadable(listing, errno));
                            }
                            self.mirror
                                .end(listing, *end == Ok(true), &mut self.changed);
                            Stage::Settling
                        }
                        None => {
                            self.worker.more();
                            Stage::Reading
                        }
                    };
                }
            }
            Stage::Settling => {
                if self.mirror.settle(listing, SLICE, &mut self.changed) {
                    self.dump = None;
                }
            }
        }
        let at = clock::now();
        let change = Change {
            by: ChangedBy::Unknown,
            after: at,
            at,
        };
        for resource in self.changed.drain(..) {
            let reported = self.uncertain.remove(&resource);
            if let Some(change) = reported {
                self.changes.insert(resource.clone(), change);
            }
            let change = reported.unwrap_or(change);
            self.news.push_back(News::Changed(resource, change));
        }
        if self.dump.is_none() {
            self.settled(listing);
        }
    }

    /// A dump is over, with all that follows from it.
    fn settled(&mut self, listing: Listing) {
        if !self.mirror.is_in_sync(listing) {
            return;
        }
        self.delete_copies(listing);
        self.uncertain
            .retain(|resource, _| Listing::of(resource) != Some(listing));
        let (of_listing, others) = of_listing(&mut self.reads, listing);
        self.reads = others;
        self.news
            .extend(of_listing.into_iter().map(|resource| News::Read {
                state: self.mirror.state(&resource),
                resource,
            }));
        self.news.push_back(News::InSync(listing));
    }

    /// Old kernels take a rule that is there already as one more copy of it.
    fn delete_copies(&mut self, listing: Listing) {
        let (of_listing, others) = of_listing(&mut self.added, listing);
        self.added = others;
        for rule in of_listing {
            let surplus = self.mirror.copies(&rule).saturating_sub(1);
            if surplus > 0
                && let Ok(delete) = codec::delete(&rule, self.mirror.links())
            {
                // One was added, and no more.
                self.worker.write(
                    0,
                    Write {
                        requests: vec![delete],
                        needs: Vec::new(),
                    },
                );
            }
        }
    }
}

/// Those of a listing, and the others.
fn of_listing(
    all: &mut BTreeSet<Resource>,
    listing: Listing,
) -> (BTreeSet<Resource>, BTreeSet<Resource>) {
    let all = std::mem::take(all).into_iter();
    all.partition(|it| Listing::of(it) == Some(listing))
}
