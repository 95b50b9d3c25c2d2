//! `[passwords]`: the rules for passwords and the cost of hashing one.
//!
//! Decides which settings can be obeyed. They are obeyed by the modules beside this one.

use std::thread;

use scrypt::Params;
use serde::{Deserialize, Serialize};

use super::{
    SHORTEST_FLOOR,
    breach::BreachSettings,
    cost::{LARGEST_COST, LARGEST_LOG_N, cost_of},
    work::Work,
};
use crate::setting::{BadSetting, shown};

/// Each is compared with every new password.
const MOST_WORDS: usize = 100;

/// `[passwords]`: the rules for passwords and the cost of hashing one.
#[derive(Debug, Clone, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct PasswordPolicy {
    /// Shortest password accepted, in code points. Default 15, as NIST SP 800-63B-4 §3.1.1.2 asks
    /// where the password is the only factor.
    pub min_length: usize,
    /// log₂ of scrypt's N. Default 15.
    pub scrypt_log_n: u8,
    /// scrypt's r. Default 8.
    pub scrypt_r: u32,
    /// scrypt's p. Default 3.
    pub scrypt_p: u32,
    /// Threads that hash; 0 (default) is one per core.
    pub threads: usize,
    /// Password operations that may wait; beyond, a request is answered 503. Default 64.
    pub queue: usize,
    /// Words that no password may be made of, besides the product's name, the server's host and the user's own
    /// name and address. Default none.
    pub context_words: Vec<String>,
    /// What imported hashes cost to check, e.g. `argon2:m=65536,t=3`: every check costs that from the start.
    /// Default none.
    pub imported: Vec<String>,
    /// `[passwords.breach]`.
    pub breach: BreachSettings,
}

impl Default for PasswordPolicy {
    fn default() -> Self {
        Self {
            min_length: 15,
            scrypt_log_n: 15,
            scrypt_r: 8,
            scrypt_p: 3,
            threads: 0,
            queue: 64,
            context_words: Vec::new(),
            imported: Vec::new(),
            breach: BreachSettings::default(),
        }
    }
}

impl PasswordPolicy {
    /// Very light hashing, for tests only.
    #[must_use]
    pub fn light() -> Self {
        Self {
            min_length: SHORTEST_FLOOR,
            scrypt_log_n: 4,
            scrypt_r: 8,
            scrypt_p: 1,
            threads: 2,
            queue: 4096,
            context_words: Vec::new(),
            imported: Vec::new(),
            breach: BreachSettings::default(),
        }
    }

    /// Whether the cost is at least one of the rows that OWASP's Password Storage Cheat Sheet calls
    /// equal (ASVS 11.4.2): N=2^17 p=1, 2^16 p=2, 2^15 p=3, 2^14 p=5, 2^13 p=10, all with r=8.
    #[must_use]
    pub fn is_strong(&self) -> bool {
        let least_p = match self.scrypt_log_n {
            ..13 => return false,
            13 => 10,
            14 => 5,
            15 => 3,
            16 => 2,
            17.. => 1,
        };
        self.scrypt_r >= 8 && self.scrypt_p >= least_p
    }

    /// Checks the settings.
    ///
    /// # Errors
    /// The first [`BadSetting`], naming its key. Weak scrypt parameters pass only with `allow_weak`.
    pub fn check(&self, allow_weak: bool) -> Result<(), BadSetting> {
        if !(SHORTEST_FLOOR..=64).contains(&self.min_length) {
            let problem = format!("{} is outside 8 to 64", self.min_length);
            return Err(BadSetting::new(
                "passwords.min_length",
                problem,
                "set it to 15, or to 8 at the least",
            ));
        }
        if !allow_weak && !self.is_strong() {
            let problem = format!(
                "N=2^{}, r={}, p={} is too weak",
                self.scrypt_log_n, self.scrypt_r, self.scrypt_p
            );
            let remedy = "with scrypt_r = 8 choose scrypt_log_n/scrypt_p of 17/1, 16/2, 15/3, 14/5 or 13/10 (weak ones are only for environment = \"test\")";
            return Err(BadSetting::new("passwords.scrypt_log_n", problem, remedy));
        }
        self.check_cost()?;
        self.check_threads()?;
        self.params()?;
        self.check_words()?;
        self.imported()?;
        self.breach.check()
    }

    fn check_cost(&self) -> Result<(), BadSetting> {
        // 1 GiB a hash is beyond what anybody can mean.
        let memory = 128_u64
            .checked_shl(u32::from(self.scrypt_log_n))
            .map(|n| n.saturating_mul(u64::from(self.scrypt_r)));
        if self.scrypt_log_n > LARGEST_LOG_N
            || memory.is_none_or(|bytes| bytes > 1 << 30)
            || self
                .params()
                .is_ok_and(|params| cost_of(params) > LARGEST_COST)
        {
            return Err(BadSetting::new(
                "passwords.scrypt_log_n",
                "one hash would take more than 1 GiB, or twenty times as long as by default",
                "lower it to 17, with scrypt_r = 8 and scrypt_p = 1",
            ));
        }
        Ok(())
    }

    fn check_threads(&self) -> Result<(), BadSetting> {
        if !(1..=65_536).contains(&self.queue) {
            return Err(BadSetting::new(
                "passwords.queue",
                format!("{} is outside 1 to 65536", self.queue),
                "set it to 64",
            ));
        }
        if self.threads > 1024 {
            return Err(BadSetting::new(
                "passwords.threads",
                format!("{} is more than 1024", self.threads),
                "set it to 0 for one per core",
            ));
        }
        Ok(())
    }

    fn check_words(&self) -> Result<(), BadSetting> {
        let is_word = |word: &String| (3..=64).contains(&word.trim().chars().count());
        if self.context_words.len() <= MOST_WORDS && self.context_words.iter().all(is_word) {
            return Ok(());
        }
        let problem = format!("is not at most {MOST_WORDS} words of 3 to 64 characters");
        let remedy = "shorter words are in every password; leave them out";
        Err(BadSetting::new("passwords.context_words", problem, remedy))
    }

    /// What every check costs besides scrypt.
    pub(super) fn imported(&self) -> Result<Vec<Work>, BadSetting> {
        let read = |text: &String| {
            Work::named(text).ok_or_else(|| {
                let problem = format!("{} is no cost of a hash that can be imported", shown(text));
                let remedy = "write it as `doorward user import` prints it, e.g. \"bcrypt:12\"";
                BadSetting::new("passwords.imported", problem, remedy)
            })
        };
        self.imported.iter().map(read).collect()
    }

    /// The parameters of scrypt.
    pub(super) fn params(&self) -> Result<Params, BadSetting> {
        Params::new(self.scrypt_log_n, self.scrypt_r, self.scrypt_p).map_err(|_| {
            BadSetting::new(
                "passwords.scrypt_log_n",
                "scrypt does not allow these parameters",
                "use 15, 8 and 3",
            )
        })
    }

    /// How many threads hash.
    pub(super) fn threads(&self) -> usize {
        if self.threads > 0 {
            self.threads
        } else {
            thread::available_parallelism().map_or(1, usize::from)
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// ASVS 11.4.2, 6.2.1.
    #[test]
    fn weak_settings_are_refused_by_name() {
        for (log_n, p) in [(17, 1), (16, 2), (15, 3), (14, 5), (13, 10)] {
            let policy = PasswordPolicy {
                scrypt_log_n: log_n,
                scrypt_p: p,
                ..PasswordPolicy::default()
            };
            assert_eq!(policy.check(false), Ok(()), "N=2^{log_n} p={p}");
            let weaker = PasswordPolicy {
                scrypt_log_n: log_n - 1,
                ..policy
            };
            assert_eq!(
                weaker.check(false).map_err(|e| e.key),
                Err("passwords.scrypt_log_n".into())
            );
        }
        let short = PasswordPolicy {
            min_length: 7,
            ..PasswordPolicy::default()
        };
        assert_eq!(
            short.check(true).map_err(|e| e.key),
            Err("passwords.min_length".into())
        );
    }

    #[test]
    fn words_that_are_in_every_password_are_refused_by_name() {
        let check = |words: &[&str]| {
            let policy = PasswordPolicy {
                context_words: words.iter().map(|word| (*word).to_owned()).collect(),
                ..PasswordPolicy::default()
            };
            policy.check(false).err().map(|bad| bad.key)
        };
        assert_eq!(check(&["Acme", "Jane Doe"]), None);
        for bad in [&["ok", "acme"][..], &[""], &["   "], &["acme"; 101]] {
            assert_eq!(check(bad).as_deref(), Some("passwords.context_words"));
        }
    }

    /// ASVS 15.2.2.
    #[test]
    fn costs_of_imported_hashes_are_bounded_by_name() {
        let check = |cost: &str| {
            let policy = PasswordPolicy {
                imported: vec![cost.to_owned()],
                ..PasswordPolicy::default()
            };
            policy.check(false).err().map(|bad| bad.key)
        };
        assert_eq!(check("argon2:m=65536,t=3"), None);
        for bad in ["argon2", "bcrypt:31", "argon2:m=4194304,t=3"] {
            assert_eq!(check(bad).as_deref(), Some("passwords.imported"));
        }
    }
}
