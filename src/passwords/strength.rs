//! How well a password would do, for sign-up forms.
//!
//! Decides how much of the machine estimates may take: one thread of low priority besides those that hash, so
//! that nobody can hold up logins by asking for them. The estimate is advice; what is accepted is for the rules.

use std::{io, sync::Arc};

use zxcvbn::{feedback::Feedback, zxcvbn};

use super::{Personal, rules::BrokenRule, threads::Threads};
use crate::{error::AuthResult, secret::SecretString};

/// How many estimates may wait; most take some milliseconds.
const WAITING: usize = 16;
/// What is looked at of a password, in code points. An estimate takes longer the more signs stand for letters
/// in it: up to half a second of 64 characters, a second of 100. Of which so much cannot be guessed, that is good.
const LOOKED_AT: usize = 64;

/// What is thought of a password.
#[derive(Debug, Clone, PartialEq)]
pub struct Strength {
    /// 0 (guessed at once) to 4 (very hard to guess).
    pub score: u8,
    /// The decimal logarithm of how many guesses it would take; 0 for an empty password.
    pub guesses_log10: f64,
    /// How long the guessing would take at 10 000 guesses a second, in English words: what somebody can do who
    /// has stolen a slow hash of it.
    pub crack_time: String,
    /// The rules that it breaks, the plainest first; none if it would be accepted here. What a breach service
    /// would say is not asked.
    pub errors: Vec<BrokenRule>,
    /// What is weak about it, in English, if anything is.
    pub warning: Option<String>,
    /// What would make it better, in English.
    pub suggestions: Vec<String>,
}

/// What makes estimates.
#[derive(Clone)]
pub(super) struct Estimates {
    thread: Threads,
    words: Arc<[String]>,
}

impl Estimates {
    pub(super) fn start(words: &[&str]) -> io::Result<Self> {
        Ok(Self {
            thread: Threads::start(("strength", "password estimates"), 1, WAITING)?,
            words: words.iter().map(|word| (*word).to_owned()).collect(),
        })
    }

    /// Estimates a password in NFC that breaks these rules.
    pub(super) async fn of(
        &self,
        normal: SecretString,
        personal: Personal,
        errors: Vec<BrokenRule>,
    ) -> AuthResult<Strength> {
        let words = Arc::clone(&self.words);
        let estimated = move || estimate(&normal, &personal, &words, errors);
        self.thread.run(estimated).await
    }
}

fn estimate(
    normal: &SecretString,
    personal: &Personal,
    words: &[String],
    errors: Vec<BrokenRule>,
) -> Strength {
    let password: SecretString =
        SecretString::new(normal.expose().chars().take(LOOKED_AT).collect());
    let inputs: Vec<&str> = words
        .iter()
        .map(String::as_str)
        .chain(personal.texts())
        .collect();
    let found = zxcvbn(password.expose(), &inputs);
    let times = found.crack_times();
    let feedback = found.feedback();
    Strength {
        score: u8::from(found.score()),
        guesses_log10: Some(found.guesses_log10())
            .filter(|n| n.is_finite())
            .unwrap_or(0.0),
        crack_time: times.offline_slow_hashing_1e4_per_second().to_string(),
        errors,
        warning: feedback.and_then(Feedback::warning).map(|w| w.to_string()),
        suggestions: feedback
            .map(|f| f.suggestions().iter().map(ToString::to_string).collect())
            .unwrap_or_default(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    async fn strength(password: &str, personal: Personal) -> Strength {
        let estimates = Estimates::start(&["Doorward"]).expect("a thread");
        let made = estimates.of(password.into(), personal, Vec::new()).await;
        made.expect("an estimate")
    }

    #[tokio::test]
    async fn weak_and_strong_passwords_differ_and_words_of_the_place_count() {
        let (weak, strong) = ("Password1", "correct horse battery staple");
        let nobody = Personal::unknown;
        let weak = strength(weak, nobody()).await;
        assert!(weak.score <= 1 && weak.warning.is_some(), "{weak:?}");
        let strong = strength(strong, nobody()).await;
        assert_eq!((strong.score, strong.crack_time.as_str()), (4, "centuries"));
        let ann = Personal::new(Some("kwxqzjv@example.org"), Some("kwxqzjv"));
        let (own, others) = (
            strength("kwxqzjv77", ann).await,
            strength("kwxqzjv77", nobody()).await,
        );
        assert!(own.guesses_log10 < others.guesses_log10);
        assert!(strength("doorward", nobody()).await.score == 0);
        assert!(strength("", nobody()).await.guesses_log10.abs() < f64::EPSILON);
    }

    /// As much work as anybody can ask for is little: what counts here is that it ends.
    #[tokio::test]
    async fn a_very_long_password_is_estimated_by_its_beginning() {
        let long = "a1!".repeat(20_000);
        let (whole, beginning) = (
            strength(&long, Personal::unknown()).await,
            strength(&long[..LOOKED_AT], Personal::unknown()).await,
        );
        assert_eq!(whole, beginning);
    }
}
