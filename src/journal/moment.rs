//! A moment of the journal as the reader's clock shows it.

use jiff::Timestamp;
use jiff::tz::TimeZone;

/// The reader's time zone: `TZ`, else `/etc/localtime`, else UTC.
#[derive(Debug, Clone)]
pub struct Zone(TimeZone);

impl Zone {
    /// The user's.
    pub fn local() -> Zone {
        Zone(TimeZone::system())
    }

    /// The date and time of day, `2026-11-23 16:56:18`; without the year where
    /// `short`.
    pub fn show(&self, usec: u64, short: bool) -> String {
        self.format(usec, if short { "%m-%d %H:%M:%S" } else { "%F %T" })
    }

    /// The date, `2026-11-23`.
    pub fn date(&self, usec: u64) -> String {
        self.format(usec, "%F")
    }

    /// The time of day, `16:56:18`.
    pub fn time(&self, usec: u64) -> String {
        self.format(usec, "%T")
    }

    /// To the minute, as journalctl has it: `Nov 23 16:56`.
    pub fn minute(&self, usec: u64) -> String {
        self.format(usec, "%b %e %H:%M")
    }

    /// What the zone is called at that moment, `CET`.
    pub fn name(&self, usec: u64) -> String {
        self.format(usec, "%Z")
    }

    fn format(&self, usec: u64, format: &str) -> String {
        // A moment beyond the year 9999 is a broken record's.
        let moment = i64::try_from(usec)
            .ok()
            .and_then(|usec| Timestamp::from_microsecond(usec).ok())
            .unwrap_or(Timestamp::UNIX_EPOCH);
        moment
            .to_zoned_datetime(self.0.clone())
            .strftime(format)
            .to_string()
    }
}

#[cfg(test)]
impl Zone {
    /// An hour ahead of UTC.
    pub fn for_test() -> Zone {
        Zone(TimeZone::fixed(jiff::tz::offset(1)))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_zone_of_the_reader_counts() {
        let zone = Zone::for_test();
        let new_year = 1_735_687_800_000_031;
        assert_eq!(zone.show(new_year, false), "2025-01-01 00:30:00");
        assert_eq!(zone.show(new_year, true), "01-01 00:30:00");
        assert_eq!(zone.minute(new_year), "Jan  1 00:30");
        assert_eq!(zone.name(new_year), "+01");
        assert_eq!(zone.show(u64::MAX, false), "1970-01-01 01:00:00");
    }
}
