//! Time as an argument.
//!
//! Decides what a point in time is (whole milliseconds, UTC) and where the current one comes from.
//! Everything above takes a [`Clock`]; only this module may ask the operating system, which a test
//! enforces.

use std::{
    fmt,
    str::FromStr,
    sync::atomic::{AtomicI64, Ordering},
    time::{Duration, Instant, SystemTime, UNIX_EPOCH},
};

use chrono::{DateTime, Utc};
use rustix::time::{ClockId, clock_gettime};
use serde::{Deserialize, Deserializer, Serialize, Serializer};

use crate::setting::shown;

/// A point in time: whole milliseconds since the Unix epoch, UTC.
///
/// Milliseconds are what all three databases can store without rounding, so a value read back
/// equals the value written.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Timestamp(i64);

/// Last millisecond of the year 9999, the latest time RFC 3339 can write.
const MAX_MILLIS: i64 = 253_402_300_799_999;

impl Timestamp {
    /// The Unix epoch.
    pub const EPOCH: Self = Self(0);

    /// From milliseconds since the epoch, clamped to 0001-01-01 … 9999-12-31.
    #[must_use]
    pub const fn from_millis(millis: i64) -> Self {
        const MIN_MILLIS: i64 = -62_135_596_800_000;
        if millis > MAX_MILLIS {
            Self(MAX_MILLIS)
        } else if millis < MIN_MILLIS {
            Self(MIN_MILLIS)
        } else {
            Self(millis)
        }
    }

    /// Milliseconds since the epoch.
    #[must_use]
    pub const fn as_millis(self) -> i64 {
        self.0
    }

    /// Whole seconds since the epoch, rounded down: a JWT `NumericDate` (RFC 7519 §2).
    #[must_use]
    pub const fn as_secs(self) -> i64 {
        self.0.div_euclid(1000)
    }

    /// This time and `span` more; never beyond the year 9999.
    #[must_use]
    pub fn plus(self, span: Span) -> Self {
        Self::from_millis(self.0.saturating_add(span.as_millis()))
    }

    /// This time less `span`.
    #[must_use]
    pub fn minus(self, span: Span) -> Self {
        Self::from_millis(self.0.saturating_sub(span.as_millis()))
    }

    /// The same time as `chrono` writes it.
    #[must_use]
    pub fn to_datetime(self) -> DateTime<Utc> {
        DateTime::from_timestamp_millis(self.0).unwrap_or(DateTime::UNIX_EPOCH)
    }
}

impl From<DateTime<Utc>> for Timestamp {
    fn from(at: DateTime<Utc>) -> Self {
        Self::from_millis(at.timestamp_millis())
    }
}

impl fmt::Display for Timestamp {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(
            &self
                .to_datetime()
                .to_rfc3339_opts(chrono::SecondsFormat::Millis, true),
        )
    }
}

/// A length of time in whole milliseconds, written in configuration as `15m`, `7d` or `1h 30m`.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, PartialOrd, Ord)]
pub struct Span(i64);

impl Span {
    /// No time at all.
    pub const ZERO: Self = Self(0);

    /// A span of `n` milliseconds.
    #[must_use]
    pub const fn millis(n: i64) -> Self {
        Self(n)
    }

    /// A span of `n` seconds.
    #[must_use]
    pub const fn secs(n: i64) -> Self {
        Self(n * 1000)
    }

    /// A span of `n` minutes.
    #[must_use]
    pub const fn minutes(n: i64) -> Self {
        Self::secs(n * 60)
    }

    /// A span of `n` days.
    #[must_use]
    pub const fn days(n: i64) -> Self {
        Self::minutes(n * 24 * 60)
    }

    /// Its milliseconds.
    #[must_use]
    pub const fn as_millis(self) -> i64 {
        self.0
    }

    /// Its whole seconds, rounded down.
    #[must_use]
    pub const fn as_secs(self) -> i64 {
        self.0 / 1000
    }

    /// The same length for timers.
    #[must_use]
    pub fn to_duration(self) -> Duration {
        Duration::from_millis(u64::try_from(self.0).unwrap_or(0))
    }

    /// The sum, saturating.
    #[must_use]
    pub fn plus(self, other: Self) -> Self {
        Self(self.0.saturating_add(other.0))
    }
}

impl fmt::Display for Span {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        humantime::format_duration(self.to_duration()).fmt(f)
    }
}

impl FromStr for Span {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        let shown = shown(text);
        let wrong = || format!("{shown} is not a length of time such as `15m`, `7d` or `1h 30m`");
        let length = humantime::parse_duration(text).map_err(|_| wrong())?;
        let millis = i64::try_from(length.as_millis()).map_err(|_| wrong())?;
        // A century bounds every sum with a timestamp.
        if millis > Span::days(36_525).0 {
            return Err(format!("{shown} is longer than a century"));
        }
        Ok(Self(millis))
    }
}

impl<'de> Deserialize<'de> for Span {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        String::deserialize(deserializer)?
            .parse()
            .map_err(serde::de::Error::custom)
    }
}

impl Serialize for Span {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_str(self)
    }
}

/// Where the current time comes from.
pub trait Clock: Send + Sync + 'static {
    /// The current time.
    fn now(&self) -> Timestamp;
}

/// The database's time, or the operating system's until the database has been asked.
///
/// Several nodes judge the same rows, so they must agree on the time; the database is the one clock
/// they share. [`SystemClock::follow`] is fed by whoever asks it. In between a clock that never jumps
/// counts on, through a suspended machine as well: when somebody sets the operating system's, no
/// session ends for it.
#[derive(Debug)]
pub struct SystemClock {
    /// The database's time when the machine was started; [`NOT_ASKED`] until it is known.
    at_boot: AtomicI64,
}

const NOT_ASKED: i64 = i64::MIN;

impl Default for SystemClock {
    fn default() -> Self {
        Self::new()
    }
}

impl SystemClock {
    /// A clock that shows the operating system's time until it is told otherwise.
    #[must_use]
    pub fn new() -> Self {
        Self {
            at_boot: AtomicI64::new(NOT_ASKED),
        }
    }

    /// The operating system's own time.
    #[must_use]
    pub fn local(&self) -> Timestamp {
        let since = SystemTime::now()
            .duration_since(UNIX_EPOCH)
            .unwrap_or_default();
        Timestamp::from_millis(millis(since))
    }

    /// Takes the database's time, which has just been answered to a question that took `took`; it is
    /// held to be the time at the middle of it.
    pub fn follow(&self, database: Timestamp, took: Duration) {
        let now = database.0 + millis(took) / 2;
        self.at_boot.store(now - since_boot(), Ordering::Relaxed);
    }
}

/// Milliseconds that the machine has been up, suspended or not where the system can tell.
fn since_boot() -> i64 {
    #[cfg(target_os = "linux")]
    let clock = ClockId::Boottime;
    #[cfg(not(target_os = "linux"))]
    let clock = ClockId::Monotonic;
    let up = clock_gettime(clock);
    up.tv_sec * 1000 + up.tv_nsec / 1_000_000
}

fn millis(time: Duration) -> i64 {
    i64::try_from(time.as_millis()).unwrap_or(MAX_MILLIS)
}

impl Clock for SystemClock {
    fn now(&self) -> Timestamp {
        match self.at_boot.load(Ordering::Relaxed) {
            NOT_ASKED => self.local(),
            at_boot => Timestamp::from_millis(at_boot + since_boot()),
        }
    }
}

/// A clock that moves only when told to: tests wait for nothing.
#[derive(Debug)]
pub struct ManualClock(AtomicI64);

impl ManualClock {
    /// A clock that stands at `start`.
    #[must_use]
    pub fn at(start: Timestamp) -> Self {
        Self(AtomicI64::new(start.0))
    }

    /// Moves the clock forward by `span`.
    pub fn advance(&self, span: Span) {
        self.0.fetch_add(span.0, Ordering::SeqCst);
    }
}

impl Clock for ManualClock {
    fn now(&self) -> Timestamp {
        Timestamp::from_millis(self.0.load(Ordering::SeqCst))
    }
}

/// Measures how long something took, for logs, metrics and giving up; no session is judged by it.
#[derive(Debug, Clone, Copy)]
pub struct Stopwatch(Instant);

impl Stopwatch {
    /// Starts measuring.
    #[must_use]
    pub fn start() -> Self {
        Self(Instant::now())
    }

    /// The time since the start.
    #[must_use]
    pub fn elapsed(&self) -> Duration {
        self.0.elapsed()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn spans_are_written_as_people_write_them() {
        assert_eq!("15m".parse(), Ok(Span::minutes(15)));
        assert_eq!("7d".parse(), Ok(Span::days(7)));
        assert!("fifteen".parse::<Span>().is_err());
        assert!("200years".parse::<Span>().is_err());
    }

    /// ASVS 1.4.2.
    #[test]
    fn times_never_leave_what_rfc_3339_can_write() {
        assert_eq!(
            Timestamp::from_millis(i64::MAX).to_string(),
            "9999-12-31T23:59:59.999Z"
        );
        assert_eq!(
            Timestamp::from_millis(i64::MIN)
                .plus(Span::secs(1))
                .to_string(),
            "0001-01-01T00:00:01.000Z"
        );
    }

    #[test]
    fn the_system_clock_follows_the_database_and_not_the_system() {
        let clock = SystemClock::new();
        let close = |clock: &SystemClock, to: Timestamp| {
            (to..to.plus(Span::minutes(1))).contains(&clock.now())
        };
        assert!(close(&clock, clock.local().minus(Span::secs(1))));
        let elsewhere = Timestamp::from_millis(1_000_000_000_000);
        clock.follow(elsewhere, Duration::from_secs(2));
        assert!(close(&clock, elsewhere.plus(Span::secs(1))));
        let earlier = elsewhere.minus(Span::minutes(60));
        clock.follow(earlier, Duration::ZERO);
        assert!(close(&clock, earlier));
    }
}
