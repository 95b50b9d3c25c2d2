//! How well a password would do, for sign-up forms.
//!
//! Decides how much of the machine estimates may take: they run beside the hashing threads, so that nobody can
//! hold up logins by asking for them. The estimate is advice; what is accepted is for the rules.

use std::sync::Arc;

use tokio::{sync::Semaphore, task::spawn_blocking};
use zxcvbn::{feedback::Feedback, zxcvbn};

use super::{Personal, rules::BrokenRule};
use crate::{
    error::{AuthError, AuthResult},
    secret::SecretString,
};

/// How many passwords are estimated at once; each takes a thread for some milliseconds.
const AT_ONCE: usize = 4;
/// What is looked at of a password, in code points: the time that an estimate takes grows faster than that, and
/// a password of which so much cannot be guessed is good.
const LOOKED_AT: usize = 100;

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

/// The estimates that may be made at once.
#[derive(Clone)]
pub(super) struct Estimates {
    slots: Arc<Semaphore>,
    words: Arc<[String]>,
}

impl Estimates {
    pub(super) fn new(words: &[String]) -> Self {
        Self {
            slots: Arc::new(Semaphore::new(AT_ONCE)),
            words: words.into(),
        }
    }

    /// Estimates a password in NFC that breaks these rules.
    pub(super) async fn of(
        &self,
        normal: SecretString,
        personal: Personal,
        errors: Vec<BrokenRule>,
    ) -> AuthResult<Strength> {
        let slot = Arc::clone(&self.slots).try_acquire_owned();
        let slot = slot.map_err(|_| AuthError::Overloaded("password estimates"))?;
        let words = Arc::clone(&self.words);
        let estimated = spawn_blocking(move || {
            let strength = estimate(&normal, &personal, &words, errors);
            // Held to the end of the work, even if nobody waits for it any more.
            drop(slot);
            strength
        });
        estimated
            .await
            .map_err(|_| AuthError::Internal("the estimate of a password failed".into()))
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
        let estimates = Estimates::new(&["Doorward".to_owned()]);
        let made = estimates.of(password.into(), personal, Vec::new()).await;
        made.expect("a free slot")
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

    /// ASVS 15.2.2.
    #[tokio::test]
    async fn no_more_are_estimated_at_once_than_there_are_slots() {
        let estimates = Estimates::new(&[]);
        let all = Arc::clone(&estimates.slots);
        let all = all.acquire_many_owned(u32::try_from(AT_ONCE).expect("few"));
        let all = all.await.expect("open");
        let refused = estimates.of("x".into(), Personal::unknown(), vec![]).await;
        assert!(matches!(refused, Err(AuthError::Overloaded(_))));
        drop(all);
        let made = estimates.of("x".into(), Personal::unknown(), vec![]).await;
        assert!(made.is_ok());
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
