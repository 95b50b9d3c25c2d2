//! How often something may be done: buckets that refill evenly, and failures in a row that slow down.
//!
//! Decides, from what is stored and the time, whether one more is admitted and what is stored then; pure
//! data, so that every database gives the same answers. A bucket is kept as its "theoretical arrival time"
//! (GCRA, ITU-T I.371): the moment at which it would be full again. Which keys are counted, and what is
//! counted, is for [`crate::throttle`]; that two who ask at once cannot both have the last permit is for the
//! store.

use std::{fmt, str::FromStr};

use serde::{Deserialize, Deserializer, Serialize, Serializer};

use super::token::SecretHash;
use crate::{
    clock::{Span, Timestamp},
    setting::shown,
};

/// Two nodes' clocks never differ by more. What is stored from further in the future than that was written
/// by a clock that was wrong, and does not count: it must not lock anybody out for as long.
const SKEW: Span = Span::secs(60);
/// The longest time over which a bucket can refill.
const LONGEST: Span = Span::days(366);
const MOST: u32 = 1_000_000;

/// A limit as answered to whoever has reached it, and as README.md lists it.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum LimitName {
    /// Logins to one account from one known device, or from all unknown ones.
    LoginAccount,
    /// Failed logins in a row, counted as [`Self::LoginAccount`].
    LoginFailures,
    /// Logins from one address.
    LoginAddress,
    /// Registrations from one address.
    RegisterAddress,
    /// Letters for a forgotten password, asked for from one address.
    ForgotAddress,
    /// Letters for a forgotten password, to one address.
    ForgotTarget,
    /// Letters asked for once more, from one address.
    ResendAddress,
    /// Letters asked for once more, to one address.
    ResendTarget,
    /// Codes and links tried from one address.
    CodeAddress,
    /// Refreshes of one session.
    RefreshSession,
    /// Proofs of the current password in one session.
    PasswordCheck,
    /// Requests of one user.
    Requests,
    /// Requests without credentials from one address to one node.
    NodeAddress,
}

impl LimitName {
    /// As answered.
    #[must_use]
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::LoginAccount => "login_account",
            Self::LoginFailures => "login_failures",
            Self::LoginAddress => "login_address",
            Self::RegisterAddress => "register_address",
            Self::ForgotAddress => "forgot_address",
            Self::ForgotTarget => "forgot_target",
            Self::ResendAddress => "resend_address",
            Self::ResendTarget => "resend_target",
            Self::CodeAddress => "code_address",
            Self::RefreshSession => "refresh_session",
            Self::PasswordCheck => "password_check",
            Self::Requests => "requests",
            Self::NodeAddress => "node_address",
        }
    }
}

/// So many at once, refilled evenly over a length of time.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Quota {
    burst: u32,
    per: Span,
}

impl Quota {
    /// `burst` at once, all of which are back after `per`.
    ///
    /// # Panics
    /// When `burst` is 0 or `per` shorter than a millisecond for each: a constant that makes no sense.
    #[must_use]
    pub const fn new(burst: u32, per: Span) -> Self {
        assert!(burst > 0 && per.as_millis() >= burst as i64);
        Self { burst, per }
    }

    /// How many at once.
    #[must_use]
    pub const fn burst(self) -> u32 {
        self.burst
    }

    /// How long one permit takes to come back.
    #[must_use]
    pub const fn step(self) -> Span {
        Span::millis(self.per.as_millis() / self.burst as i64)
    }

    /// How long an empty bucket takes to be full again.
    #[must_use]
    pub const fn window(self) -> Span {
        Span::millis(self.step().as_millis() * self.burst as i64)
    }

    /// How long this many permits take to come back; never longer than [`Self::window`].
    #[must_use]
    pub fn cost(self, permits: u32) -> Span {
        Span::millis(self.step().as_millis() * i64::from(permits.min(self.burst)))
    }

    /// Takes permits from a bucket that would be full at `tat`: when it would be full then, or how long to
    /// wait for the permits.
    ///
    /// # Errors
    /// How long to wait; the bucket stays as it is.
    pub fn take(self, tat: Timestamp, permits: u32, now: Timestamp) -> Result<Timestamp, Span> {
        let next = self.believed(tat, now).plus(self.cost(permits));
        let full = now.plus(self.window());
        if next <= full {
            Ok(next)
        } else {
            Err(Span::millis(next.as_millis() - full.as_millis()))
        }
    }

    fn believed(self, tat: Timestamp, now: Timestamp) -> Timestamp {
        if tat > self.latest(now) {
            now
        } else {
            tat.max(now)
        }
    }

    /// The latest time at which a bucket can be full again; a later one was written by a wrong clock.
    #[must_use]
    pub fn latest(self, now: Timestamp) -> Timestamp {
        now.plus(self.window()).plus(SKEW)
    }
}

/// A quota as configured: `10/15m`, or `off`.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Limit(pub Option<Quota>);

impl Limit {
    /// No limit.
    pub const OFF: Self = Self(None);

    /// As [`Quota::new`].
    ///
    /// # Panics
    /// As [`Quota::new`].
    #[must_use]
    pub const fn of(burst: u32, per: Span) -> Self {
        Self(Some(Quota::new(burst, per)))
    }
}

impl fmt::Display for Limit {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.0 {
            Some(Quota { burst, per }) => write!(f, "{burst}/{per}"),
            None => f.write_str("off"),
        }
    }
}

impl FromStr for Limit {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        if text == "off" {
            return Ok(Self::OFF);
        }
        let wrong = || format!("{} is not a limit such as `10/15m`, or `off`", shown(text));
        let (burst, per) = text.split_once('/').ok_or_else(wrong)?;
        let burst: u32 = burst.trim().parse().map_err(|_| wrong())?;
        let per: Span = per.trim().parse().map_err(|_| wrong())?;
        if !(1..=MOST).contains(&burst) || per > LONGEST {
            return Err(format!("{} is outside 1/1s to 1000000/366d", shown(text)));
        }
        if per.as_millis() < i64::from(burst) {
            return Err(format!("{} is more than one a millisecond", shown(text)));
        }
        Ok(Self(Some(Quota { burst, per })))
    }
}

impl<'de> Deserialize<'de> for Limit {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        String::deserialize(deserializer)?
            .parse()
            .map_err(serde::de::Error::custom)
    }
}

impl Serialize for Limit {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_str(self)
    }
}

/// What failures in a row bring about (ASVS 6.3.1, NIST SP 800-63B-4 §3.2.2).
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct FailureRule {
    /// From this failure in a row on, the next attempt has to wait.
    pub before_delay: u32,
    /// How long after the first such failure; twice as long after each further one.
    pub delay: Span,
    /// No longer than this.
    pub longest_delay: Span,
    /// After so many in a row nothing is admitted any more.
    pub stop: u32,
    /// Failures are forgotten when none was added for so long.
    pub memory: Span,
}

impl FailureRule {
    /// How long to wait after this many failures in a row.
    #[must_use]
    pub fn delay_after(&self, failures: u32) -> Span {
        let Some(doublings) = failures.checked_sub(self.before_delay) else {
            return Span::millis(0);
        };
        let factor = 1_i64 << doublings.min(40);
        let delay = self.delay.as_millis().saturating_mul(factor);
        Span::millis(delay.min(self.longest_delay.as_millis()))
    }

    /// The latest time until which failures can keep anybody waiting; a later one was written by a wrong
    /// clock.
    #[must_use]
    pub fn latest_block(&self, now: Timestamp) -> Timestamp {
        now.plus(self.longest_delay).plus(SKEW)
    }
}

/// What is stored under one key.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Counter {
    /// When the bucket would be full again.
    pub tat: Timestamp,
    /// Attempts in a row that failed or are not decided yet.
    pub failures: u32,
    /// Until when the failures keep the next attempt waiting.
    pub blocked_until: Timestamp,
    /// From when on all of this is forgotten.
    pub expires_at: Timestamp,
}

/// One taking of permits.
#[derive(Debug, Clone, Copy)]
pub struct Draw {
    /// From which bucket.
    pub key: SecretHash,
    /// Whose account the counter belongs to, if it is to be cleared with that.
    pub account: Option<SecretHash>,
    /// How large the bucket is; none if only failures count.
    pub quota: Option<Quota>,
    /// How many permits.
    pub permits: u32,
    /// With it the draw counts as a failure until the counter is cleared, so that attempts made at once
    /// cannot all pass.
    pub failures: Option<FailureRule>,
}

/// Why a draw was refused, and for how long at the least.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Refusal {
    /// How long to wait.
    pub after: Span,
    /// Whether failures in a row are the reason, and not the bucket.
    pub by_failures: bool,
}

impl Draw {
    /// Decides on a draw: what is stored then, or why it is refused.
    ///
    /// # Errors
    /// The [`Refusal`]; nothing is to be stored.
    pub fn judge(&self, stored: Option<&Counter>, now: Timestamp) -> Result<Counter, Refusal> {
        let stored = stored.filter(|counter| counter.expires_at > now);
        let refused = |until: Timestamp, by_failures| Refusal {
            after: Span::millis((until.as_millis() - now.as_millis()).max(1)),
            by_failures,
        };
        let mut failures = stored.map_or(0, |counter| counter.failures);
        let (mut blocked_until, mut expires_at) = (now, now);
        if let Some(rule) = &self.failures {
            if let Some(counter) = stored {
                if failures >= rule.stop {
                    return Err(refused(counter.expires_at, true));
                }
                let (until, latest) = (counter.blocked_until, rule.latest_block(now));
                if until > now && until <= latest {
                    return Err(refused(counter.blocked_until, true));
                }
            }
            failures = failures.saturating_add(1);
            blocked_until = now.plus(rule.delay_after(failures));
            expires_at = now.plus(rule.memory);
        }
        let mut tat = now;
        if let Some(quota) = self.quota {
            let before = stored.map_or(now, |counter| counter.tat);
            let after = quota.take(before, self.permits, now);
            tat = after.map_err(|after| Refusal {
                after,
                by_failures: false,
            })?;
        }
        Ok(Counter {
            tat,
            failures,
            blocked_until,
            expires_at: expires_at.max(tat).max(blocked_until),
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const NOW: Timestamp = Timestamp::from_millis(1_800_000_000_000);
    const RULE: FailureRule = FailureRule {
        before_delay: 5,
        delay: Span::secs(1),
        longest_delay: Span::minutes(15),
        stop: 100,
        memory: Span::days(30),
    };

    fn draw(quota: Option<Quota>, failures: Option<FailureRule>) -> Draw {
        let key = SecretHash::of("key");
        Draw {
            key,
            account: None,
            quota,
            permits: 1,
            failures,
        }
    }

    #[test]
    fn a_limit_is_written_as_people_write_it() {
        let limit: Limit = "10/15m".parse().expect("a limit");
        assert_eq!(limit, Limit::of(10, Span::minutes(15)));
        assert_eq!(limit.to_string(), "10/15m");
        assert_eq!("off".parse(), Ok(Limit::OFF));
        for bad in [
            "",
            "10",
            "10/",
            "/15m",
            "0/1m",
            "-1/1m",
            "10/1y 5d",
            "2000000/1h",
            "5000/1s",
        ] {
            assert!(bad.parse::<Limit>().is_err(), "{bad}");
        }
    }

    #[test]
    fn a_bucket_gives_its_burst_and_refills_evenly() {
        let quota = Quota::new(3, Span::secs(30));
        let mut tat = NOW;
        for _ in 0..3 {
            tat = quota.take(tat, 1, NOW).expect("admitted");
        }
        assert_eq!(quota.take(tat, 1, NOW), Err(Span::secs(10)));
        let later = NOW.plus(Span::secs(10));
        tat = quota.take(tat, 1, later).expect("one came back");
        assert_eq!(quota.take(tat, 1, later), Err(Span::secs(10)));
        assert_eq!(quota.take(tat, 2, later), Err(Span::secs(20)));
        // Long after, it holds its burst and no more.
        let much_later = NOW.plus(Span::days(1));
        assert!(quota.take(tat, 3, much_later).is_ok());
    }

    #[test]
    fn a_clock_that_was_wrong_locks_nobody_out() {
        let quota = Quota::new(3, Span::secs(30));
        // Two nodes that differ a little do not empty each other's buckets.
        let of_a_faster_node = NOW.plus(Span::secs(32));
        assert_eq!(quota.take(of_a_faster_node, 1, NOW), Err(Span::secs(12)));
        let of_next_year = NOW.plus(Span::days(365));
        assert_eq!(
            quota.take(of_next_year, 1, NOW),
            Ok(NOW.plus(Span::secs(10)))
        );
        let blocked = Counter {
            tat: of_next_year,
            failures: 7,
            blocked_until: of_next_year,
            expires_at: NOW.plus(Span::days(400)),
        };
        assert!(
            draw(Some(quota), Some(RULE))
                .judge(Some(&blocked), NOW)
                .is_ok()
        );
    }

    /// ASVS 6.3.1.
    #[test]
    fn failures_in_a_row_slow_down_and_stop() {
        let draw = draw(None, Some(RULE));
        let mut now = NOW;
        let mut counter = None;
        let mut waits = Vec::new();
        for _ in 0..100 {
            let after = loop {
                match draw.judge(counter.as_ref(), now) {
                    Ok(next) => break next,
                    Err(refusal) => {
                        assert!(refusal.by_failures);
                        waits.push(refusal.after.as_secs());
                        now = now.plus(refusal.after);
                    }
                }
            };
            counter = Some(after);
        }
        assert_eq!(waits[..11], [1, 2, 4, 8, 16, 32, 64, 128, 256, 512, 900]);
        assert_eq!(waits.len(), 95);
        let stopped = draw.judge(counter.as_ref(), now.plus(Span::days(1)));
        assert_eq!(stopped.expect_err("stopped").after, Span::days(29));
        let forgotten = draw.judge(counter.as_ref(), now.plus(Span::days(31)));
        assert_eq!(forgotten.expect("forgotten").failures, 1);
    }

    #[test]
    fn what_is_past_its_time_counts_as_nothing() {
        let quota = Quota::new(1, Span::secs(30));
        let used = draw(Some(quota), None).judge(None, NOW).expect("admitted");
        assert_eq!(used.expires_at, NOW.plus(Span::secs(30)));
        assert!(
            draw(Some(quota), None)
                .judge(Some(&used), used.expires_at)
                .is_ok()
        );
    }
}
