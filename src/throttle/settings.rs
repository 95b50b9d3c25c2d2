//! `[limits]`: how often what may be done.
//!
//! Only figures and whether they make sense; who is counted, and what happens then, is decided in
//! [`super::Throttle`].

use serde::{Deserialize, Serialize};

use crate::{
    clock::Span,
    model::quota::{FailureRule, Limit},
    setting::BadSetting,
};

/// `[limits]`. A limit is written `10/15m`: ten at once, which are all back after fifteen minutes.
#[derive(Debug, Clone, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct LimitSettings {
    /// Logins to one account from one known device, or from all unknown ones together, that have not
    /// succeeded. Default 10/15m.
    pub login_account: Limit,
    /// Logins from one address. Default 100/15m.
    pub login_address: Limit,
    /// Registrations from one address. Default 20/1h.
    pub register_address: Limit,
    /// Letters for a forgotten password, asked for from one address. Default 20/1h.
    pub forgot_address: Limit,
    /// Letters for a forgotten password, to one address. Default 5/1h.
    pub forgot_target: Limit,
    /// Letters asked for once more, from one address. Default 20/1h.
    pub resend_address: Limit,
    /// Letters asked for once more, to one address. Default 5/1h.
    pub resend_target: Limit,
    /// Codes and links tried from one address. Default 50/1h.
    pub code_address: Limit,
    /// Refreshes of one session. Default 60/5m.
    pub refresh_session: Limit,
    /// Wrong proofs of the current password in one session. Default 10/15m.
    pub password_check: Limit,
    /// Requests of one user on all nodes together. Default 6000/1m.
    pub requests: Limit,
    /// How many of these each node admits a user, as often as the limit refills, without asking the
    /// database. Default 60.
    pub requests_free: u32,
    /// How many of these a node takes from the database at once; no more than there are. Default 500.
    pub requests_block: u32,
    /// What a node lets through from one address to all that needs no credentials, before it asks the
    /// database. Default 50/1s.
    pub node_address: Limit,
    /// From which failure in a row on the next attempt has to wait. Default 5.
    pub failures_before_delay: u32,
    /// How long after that failure; twice as long after each further one. Default 1s.
    pub failure_delay: Span,
    /// No longer than this. Default 15m.
    pub longest_failure_delay: Span,
    /// After so many failures in a row nothing is admitted any more. Default 100.
    pub failures_stop: u32,
    /// After how long without one failures are forgotten. Default 30d.
    pub failure_memory: Span,
    /// How many known devices a user has at the most. Default 20.
    pub devices_per_user: u32,
    /// How long an unused device is known. Default 400d.
    pub device_ttl: Span,
}

impl Default for LimitSettings {
    fn default() -> Self {
        let hour = Span::minutes(60);
        let quarter = Span::minutes(15);
        Self {
            login_account: Limit::of(10, quarter),
            login_address: Limit::of(100, quarter),
            register_address: Limit::of(20, hour),
            forgot_address: Limit::of(20, hour),
            forgot_target: Limit::of(5, hour),
            resend_address: Limit::of(20, hour),
            resend_target: Limit::of(5, hour),
            code_address: Limit::of(50, hour),
            refresh_session: Limit::of(60, Span::minutes(5)),
            password_check: Limit::of(10, quarter),
            requests: Limit::of(6000, Span::minutes(1)),
            requests_free: 60,
            requests_block: 500,
            node_address: Limit::of(50, Span::secs(1)),
            failures_before_delay: 5,
            failure_delay: Span::secs(1),
            longest_failure_delay: quarter,
            failures_stop: 100,
            failure_memory: Span::days(30),
            devices_per_user: 20,
            device_ttl: Span::days(400),
        }
    }
}

impl LimitSettings {
    /// Checks the figures, each and together.
    ///
    /// # Errors
    /// The first [`BadSetting`].
    pub fn check(&self) -> Result<(), BadSetting> {
        let bad = |key: &str, problem: String, remedy: &str| {
            Err(BadSetting::new(&format!("limits.{key}"), problem, remedy))
        };
        if self.requests_block == 0 {
            let problem = "is 0: nothing could be taken".to_owned();
            return bad("requests_block", problem, "set it to 500");
        }
        if self.failures_before_delay == 0 {
            let problem = "is 0: every login would have to wait for the one before".to_owned();
            return bad("failures_before_delay", problem, "set it to 5");
        }
        if self.failures_stop < self.failures_before_delay {
            let problem = format!(
                "{} is lower than limits.failures_before_delay",
                self.failures_stop
            );
            return bad("failures_stop", problem, "set it to 100");
        }
        if self.failure_delay > self.longest_failure_delay {
            let problem = format!(
                "{} is longer than limits.longest_failure_delay",
                self.failure_delay
            );
            return bad("failure_delay", problem, "set it to 1s");
        }
        if self.longest_failure_delay > Span::days(1) {
            let problem = format!("{} is longer than a day", self.longest_failure_delay);
            return bad("longest_failure_delay", problem, "set it to 15m");
        }
        if self.failure_memory < self.longest_failure_delay {
            let problem = format!(
                "{} is shorter than limits.longest_failure_delay",
                self.failure_memory
            );
            return bad("failure_memory", problem, "set it to 30d");
        }
        if !(1..=1000).contains(&self.devices_per_user) {
            let problem = format!("{} is outside 1 to 1000", self.devices_per_user);
            return bad("devices_per_user", problem, "set it to 20");
        }
        if self.device_ttl < Span::days(1) || self.device_ttl > Span::days(3650) {
            let problem = format!("{} is outside 1d to 3650d", self.device_ttl);
            return bad("device_ttl", problem, "set it to 400d");
        }
        Ok(())
    }

    pub(super) const fn failures(&self) -> FailureRule {
        FailureRule {
            before_delay: self.failures_before_delay,
            delay: self.failure_delay,
            longest_delay: self.longest_failure_delay,
            stop: self.failures_stop,
            memory: self.failure_memory,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[track_caller]
    fn refused(change: impl FnOnce(&mut LimitSettings)) -> String {
        let mut settings = LimitSettings::default();
        change(&mut settings);
        settings.check().expect_err("refused").key
    }

    #[test]
    fn figures_that_make_no_sense_are_refused() {
        assert_eq!(LimitSettings::default().check(), Ok(()));
        let off = LimitSettings {
            requests: Limit::OFF,
            ..LimitSettings::default()
        };
        assert_eq!(off.check(), Ok(()));
        for (key, refused) in [
            ("requests_block", refused(|s| s.requests_block = 0)),
            (
                "failures_before_delay",
                refused(|s| s.failures_before_delay = 0),
            ),
            ("failures_stop", refused(|s| s.failures_stop = 4)),
            (
                "failure_delay",
                refused(|s| s.failure_delay = Span::days(1)),
            ),
            (
                "longest_failure_delay",
                refused(|s| s.longest_failure_delay = Span::days(2)),
            ),
            (
                "failure_memory",
                refused(|s| s.failure_memory = Span::secs(1)),
            ),
            ("devices_per_user", refused(|s| s.devices_per_user = 0)),
            ("device_ttl", refused(|s| s.device_ttl = Span::secs(1))),
        ] {
            assert_eq!(refused, format!("limits.{key}"));
        }
    }
}
