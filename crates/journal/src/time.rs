//! Points in time, for people: rows are ordered by revision, never by the clock.

use std::{
    fmt,
    time::{Duration, SystemTime, UNIX_EPOCH},
};

use prost_types::Timestamp;
use sea_orm::DeriveValueType;

const MICROS: i64 = 1_000_000; // in a second

/// Microseconds since the Unix epoch, UTC. Kept as BIGINT, because MySQL's DATETIME loses microseconds.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash, DeriveValueType)]
pub struct Time(i64);

impl Time {
    /// What the wall clock says. Only the edges of a service ask for it; nouns are told the time.
    #[must_use]
    pub fn now() -> Self {
        let since = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
        Self(micros(since))
    }

    /// The time so many microseconds after the Unix epoch.
    #[must_use]
    pub const fn from_micros(micros: i64) -> Self {
        Self(micros)
    }

    /// Microseconds since the Unix epoch.
    #[must_use]
    pub const fn micros(self) -> i64 {
        self.0
    }

    /// So much later.
    #[must_use]
    pub fn plus(self, duration: Duration) -> Self {
        Self(self.0.saturating_add(micros(duration)))
    }

    /// So much earlier.
    #[must_use]
    pub fn minus(self, duration: Duration) -> Self {
        Self(self.0.saturating_sub(micros(duration)))
    }

    /// How long ago `earlier` was; zero if it is later.
    #[must_use]
    pub fn since(self, earlier: Self) -> Duration {
        Duration::from_micros(u64::try_from(self.0.saturating_sub(earlier.0)).unwrap_or(0))
    }
}

fn micros(duration: Duration) -> i64 {
    i64::try_from(duration.as_micros()).unwrap_or(i64::MAX)
}

impl From<Time> for Timestamp {
    fn from(time: Time) -> Self {
        let nanos = i32::try_from(time.0.rem_euclid(MICROS) * 1_000).expect("less than a second");
        Self { seconds: time.0.div_euclid(MICROS), nanos }
    }
}

/// A timestamp that microseconds in 64 bits cannot hold: some 292,000 years from now.
#[derive(Debug, thiserror::Error)]
#[error("the time is out of range")]
pub struct OutOfRange;

impl TryFrom<&Timestamp> for Time {
    type Error = OutOfRange;

    fn try_from(timestamp: &Timestamp) -> Result<Self, OutOfRange> {
        let seconds = timestamp.seconds.checked_mul(MICROS).ok_or(OutOfRange)?;
        seconds.checked_add(i64::from(timestamp.nanos / 1_000)).map(Self).ok_or(OutOfRange)
    }
}

/// RFC 3339 in UTC, with microseconds where there are any.
impl fmt::Display for Time {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        Timestamp::from(*self).fmt(f)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn people_read_rfc_3339() {
        assert_eq!(
            Time::from_micros(1_700_000_000_000_001).to_string(),
            "2023-11-14T22:13:20.000001Z"
        );
        assert_eq!(Time::from_micros(-1).to_string(), "1969-12-31T23:59:59.999999Z");
    }

    #[test]
    fn a_timestamp_comes_back_as_it_went() {
        for micros in [0, 1, -1, 1_700_000_000_123_456, -62_135_596_800_000_000] {
            let time = Time::from_micros(micros);
            assert_eq!(Time::try_from(&Timestamp::from(time)).unwrap(), time);
        }
        assert!(Time::try_from(&Timestamp { seconds: i64::MAX, nanos: 0 }).is_err());
    }

    #[test]
    fn the_past_is_never_in_the_future() {
        let now = Time::now();
        assert_eq!(now.since(now.plus(Duration::from_secs(1))), Duration::ZERO);
        assert_eq!(now.since(now.minus(Duration::from_secs(2))), Duration::from_secs(2));
    }
}
