//! Passwords: which are accepted, how they are hashed, and on which threads.
//!
//! scrypt takes a core for more than a tenth of a second and 32 MiB, so it runs on a fixed number of threads
//! of its own behind a bounded queue: a login storm costs the storm's clients a 503, not everybody
//! else their answers, and memory stays bounded by `threads × memory of one hash` (ASVS 15.2.2).
//!
//! A new password becomes a [`Candidate`] once no rule of this process speaks against it, and an
//! [`AcceptedPassword`] once no breach is known; only that can be hashed, so no path goes around either.

pub mod breach;
mod common;
mod context;
mod cost;
mod patterns;
mod policy;
mod rules;
mod strength;
mod threads;

use std::sync::{
    Arc,
    atomic::{AtomicU64, Ordering},
};

use scrypt::{
    Params, Scrypt,
    password_hash::{
        CustomizedPasswordHasher as _,
        phc::{Output, ParamsString, PasswordHash as Phc, Salt},
    },
};
use unicode_normalization::UnicodeNormalization;

use self::{
    breach::Breaches,
    cost::{LARGEST_COST, LARGEST_LOG_N, cost_of, making_up},
    rules::Rules,
    strength::Estimates,
    threads::{Place, Threads},
};
pub use self::{context::Personal, policy::PasswordPolicy, rules::BrokenRule, strength::Strength};
use crate::{
    clock::Stopwatch,
    entropy::{Entropy, random_bytes},
    error::{AuthError, AuthResult, FieldError},
    metrics::Metrics,
    model::user::PasswordHash,
    secret::{SecretString, constant_time_eq},
    setting::BadSetting,
};

/// No policy may accept shorter passwords (ASVS 6.2.1).
pub const SHORTEST_FLOOR: usize = 8;
/// No password may be longer, in code points (ASVS 6.2.9).
pub const LONGEST: usize = 256;

/// A new password that breaks no rule which this process can judge, in NFC.
#[derive(Debug, Clone)]
pub struct Candidate {
    field: String,
    normal: SecretString,
}

/// A password that satisfies the rules, in NFC.
#[derive(Debug, Clone)]
pub struct AcceptedPassword(SecretString);

/// What a password check found.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Verdict {
    /// The password is right.
    Match {
        /// Whether its hash was made with other parameters than today's.
        outdated: bool,
    },
    /// The password is wrong, or there was no hash.
    Mismatch,
}

/// The password service: rules, hashing threads and their queue.
#[derive(Clone)]
pub struct Passwords {
    rules: Arc<Rules>,
    breaches: Breaches,
    estimates: Estimates,
    params: Params,
    /// What every check costs: as much as the costliest hash that was ever checked here.
    cost: Arc<AtomicU64>,
    decoy: Arc<PasswordHash>,
    entropy: Arc<dyn Entropy>,
    metrics: Arc<Metrics>,
    threads: Threads,
}

impl Passwords {
    /// Starts the hashing threads; they end when the last clone of the service is dropped. `names` are what
    /// people know this service by, besides the `context_words` of the policy.
    ///
    /// # Errors
    /// [`BadSetting`] for a policy that cannot be obeyed.
    pub fn start(
        policy: &PasswordPolicy,
        names: &[String],
        entropy: Arc<dyn Entropy>,
        metrics: Arc<Metrics>,
    ) -> Result<Self, BadSetting> {
        policy.check(true)?;
        let params = policy.params()?;
        let words = policy.context_words.iter().chain(names);
        let words: Vec<&str> = words.map(String::as_str).collect();
        let decoy = decoy(params, &*entropy).ok_or_else(|| {
            BadSetting::new(
                "passwords.scrypt_log_n",
                "cannot be written as a PHC string",
                "use 15",
            )
        })?;
        Ok(Self {
            rules: Arc::new(Rules::new(policy.min_length, words.iter().copied())),
            breaches: Breaches::open(&policy.breach)?,
            estimates: Estimates::start(&words).map_err(|e| no_thread(&e))?,
            params,
            cost: Arc::new(AtomicU64::new(cost_of(params))),
            decoy: Arc::new(decoy),
            entropy,
            metrics,
            threads: Threads::start(
                ("scrypt", "password hashing"),
                policy.threads(),
                policy.queue,
            )
            .map_err(|e| no_thread(&e))?,
        })
    }

    /// Judges a new password by the rules that need nobody's help: length in code points after NFC, nothing
    /// trimmed, no rule about kinds of characters; patterns, words of the place and of the person, and what is
    /// tried first (ASVS 6.2.1, 6.2.4, 6.2.5, 6.2.8, 6.2.9, 6.2.11).
    ///
    /// # Errors
    /// [`FieldError`] for `field`, saying which rule is broken and what would be better.
    pub fn propose(
        &self,
        field: &str,
        password: &SecretString,
        personal: &Personal,
    ) -> Result<Candidate, FieldError> {
        let normal = normalise(password);
        let broken = self.rules.broken_by(normal.expose(), personal);
        match broken.into_iter().next() {
            Some(rule) => Err(FieldError::new(field, rule.code, rule.detail)),
            None => Ok(Candidate {
                field: field.to_owned(),
                normal,
            }),
        }
    }

    /// Accepts a new password unless it is known from a breach (ASVS 6.2.12). Without a breach service, and
    /// while it cannot answer, the compiled-in list has to do, which [`Self::propose`] has asked (ASVS 16.5.2).
    ///
    /// # Errors
    /// [`FieldError`] for the field of the candidate.
    pub async fn accept(&self, candidate: Candidate) -> Result<AcceptedPassword, FieldError> {
        if self.breaches.know(&candidate.normal).await {
            let rule = breach::known();
            return Err(FieldError::new(candidate.field, rule.code, rule.detail));
        }
        Ok(AcceptedPassword(candidate.normal))
    }

    /// Judges an accepted password once more when it turns out whose it is to be.
    ///
    /// # Errors
    /// [`FieldError`] for `field` if it is made of that person's name or address.
    pub fn suits(
        &self,
        field: &str,
        password: &AcceptedPassword,
        personal: &Personal,
    ) -> Result<(), FieldError> {
        match self.rules.context_in(password.0.expose(), personal) {
            Some(rule) => Err(FieldError::new(field, rule.code, rule.detail)),
            None => Ok(()),
        }
    }

    /// How well a password would do, for forms; nothing is stored, logged or asked elsewhere. See [`Strength`].
    ///
    /// # Errors
    /// [`AuthError::Overloaded`] when as many are being estimated as may be at once.
    pub async fn strength(
        &self,
        password: &SecretString,
        personal: Personal,
    ) -> AuthResult<Strength> {
        let normal = normalise(password);
        let errors = self.rules.broken_by(normal.expose(), &personal);
        self.estimates.of(normal, personal, errors).await
    }

    /// Hashes a password with today's parameters and a fresh 16-byte salt.
    ///
    /// # Errors
    /// [`AuthError::Overloaded`] when the queue is full.
    pub async fn hash(&self, password: &AcceptedPassword) -> AuthResult<PasswordHash> {
        let (password, params) = (password.0.clone(), self.params);
        let salt = random_bytes::<16>(&*self.entropy);
        let hash = self
            .scrypt(self.place()?, move || {
                Scrypt::new().hash_password_customized(
                    password.expose().as_bytes(),
                    &salt,
                    None,
                    None,
                    params,
                )
            })
            .await?
            .map_err(|e| AuthError::Internal(format!("scrypt: {e}")))?;
        Ok(PasswordHash::new(hash.to_string()))
    }

    /// Checks a password against a hash; without one against a decoy, so that an unknown account
    /// costs the same work as a known one (ASVS 6.3.8). A hash from times when hashing was cheaper is
    /// made up for, so that its age does not show either.
    ///
    /// A password beyond [`LONGEST`] is a mismatch without any work, whoever it is for.
    ///
    /// # Errors
    /// [`AuthError::Overloaded`] when the queue is full, [`AuthError::Internal`] when the stored hash
    /// is not a scrypt PHC string.
    pub async fn verify(
        &self,
        password: &SecretString,
        hash: Option<&PasswordHash>,
    ) -> AuthResult<Verdict> {
        self.verify_in(self.place()?, password, hash).await
    }

    /// A place among the passwords that are worked on, for whoever counts an attempt before it is judged: one
    /// that cannot be judged must not count.
    ///
    /// # Errors
    /// [`AuthError::Overloaded`] when the queue is full.
    pub(crate) fn place(&self) -> AuthResult<Place> {
        let place = self.threads.place();
        if place.is_err() {
            self.metrics.scrypt_refused.bump();
        }
        place
    }

    /// As [`Self::verify`], in a place that was taken before.
    pub(crate) async fn verify_in(
        &self,
        place: Place,
        password: &SecretString,
        hash: Option<&PasswordHash>,
    ) -> AuthResult<Verdict> {
        let normal = normalise(password);
        if normal.expose().chars().count() > LONGEST {
            return Ok(Verdict::Mismatch);
        }
        let broken = |what: &str| {
            AuthError::Internal(format!(
                "a stored password hash is not a scrypt PHC string: {what}"
            ))
        };
        let phc = Phc::new(hash.unwrap_or(&self.decoy).expose()).map_err(|_| broken("syntax"))?;
        let params = Params::try_from(&phc).map_err(|_| broken("parameters"))?;
        if params.log_n() > LARGEST_LOG_N || cost_of(params) > LARGEST_COST {
            return Err(broken("parameters beyond reason"));
        }
        let (Some(salt), Some(expected)) = (phc.salt, phc.hash) else {
            return Err(broken("salt or hash is missing"));
        };
        if phc.algorithm.as_str() != "scrypt" {
            return Err(broken("algorithm"));
        }
        let cost = cost_of(params);
        let target = self.cost.fetch_max(cost, Ordering::Relaxed).max(cost);
        let computed = self
            .scrypt(place, move || {
                let mut out = vec![0; expected.len()];
                let password = normal.expose().as_bytes();
                scrypt::scrypt(password, &salt, &params, &mut out)?;
                let mut unused = [0; 32];
                for extra in making_up(params, target) {
                    scrypt::scrypt(password, &salt, &extra, &mut unused)?;
                    std::hint::black_box(&unused);
                }
                Ok::<_, scrypt::errors::InvalidOutputLen>(out)
            })
            .await?
            .map_err(|e| AuthError::Internal(format!("scrypt: {e}")))?;
        if hash.is_some() && constant_time_eq(&computed, expected.as_bytes()) {
            let today = (self.params.log_n(), self.params.r(), self.params.p());
            Ok(Verdict::Match {
                outdated: (params.log_n(), params.r(), params.p()) != today,
            })
        } else {
            Ok(Verdict::Mismatch)
        }
    }

    /// A password that has just been verified, for hashing it anew; the rules for new passwords do
    /// not apply to it.
    #[must_use]
    pub fn verified(&self, password: &SecretString) -> AcceptedPassword {
        AcceptedPassword(normalise(password))
    }

    /// Runs scrypt on one of its threads.
    async fn scrypt<T: Send + 'static>(
        &self,
        place: Place,
        work: impl FnOnce() -> T + Send + 'static,
    ) -> AuthResult<T> {
        let metrics = Arc::clone(&self.metrics);
        let (waiting, waited) = (metrics.scrypt_waiting.hold(), Stopwatch::start());
        let counted = move || {
            drop(waiting);
            metrics.scrypt_wait_seconds.took(waited.elapsed());
            metrics.scrypt_runs.bump();
            let running = Stopwatch::start();
            let done = work();
            metrics.scrypt_run_seconds.took(running.elapsed());
            done
        };
        self.threads.run_in(place, counted).await
    }
}

fn no_thread(error: &std::io::Error) -> BadSetting {
    let problem = format!("a thread cannot be started: {error}");
    BadSetting::new("passwords.threads", problem, "lower it")
}

/// NFC, and nothing else: composed and decomposed letters are one (NIST SP 800-63B-4 §3.1.1.2).
fn normalise(password: &SecretString) -> SecretString {
    SecretString::new(password.expose().nfc().collect())
}

/// A hash that no password has: random bytes where the key would stand. Nothing is computed.
fn decoy(params: Params, entropy: &dyn Entropy) -> Option<PasswordHash> {
    let phc = Phc {
        algorithm: scrypt::phc::ALG_ID,
        version: None,
        params: ParamsString::try_from(params).ok()?,
        salt: Some(Salt::new(&random_bytes::<16>(entropy)).ok()?),
        hash: Some(Output::new(&random_bytes::<32>(entropy)).ok()?),
    };
    Some(PasswordHash::new(phc.to_string()))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::entropy::SystemEntropy;

    fn passwords(policy: &PasswordPolicy) -> Passwords {
        Passwords::start(policy, &[], Arc::new(SystemEntropy), Arc::default())
            .expect("valid policy")
    }

    fn light(min_length: usize) -> Passwords {
        passwords(&PasswordPolicy {
            min_length,
            ..PasswordPolicy::light()
        })
    }

    async fn accepted(service: &Passwords, text: &str) -> AcceptedPassword {
        let proposed = service.propose("password", &text.into(), &Personal::unknown());
        let accepted = service.accept(proposed.expect("no rule is broken")).await;
        accepted.expect("no breach is known")
    }

    /// ASVS 6.2.1, 6.2.9: counted as code points of the composed form.
    #[tokio::test]
    async fn length_is_counted_in_code_points() {
        let service = light(15);
        let code = |text: &str| {
            let proposed = service.propose("password", &text.into(), &Personal::unknown());
            proposed.err().map(|error| error.code)
        };
        let emoji = "🐎🔋📎🦆🌧🎈🧲🪵🧀🛶🪐🧭🎻🌵🦉";
        assert_eq!(code("fourteen chars"), Some("too_short"));
        assert_eq!(code("fourteen c\u{327}hars"), Some("too_short"));
        assert_eq!(code("fifteen letters"), None);
        assert_eq!(emoji.chars().count(), 15);
        assert_eq!(code(emoji), None);
        assert_eq!(
            code(emoji.strip_prefix('🐎').expect("a horse")),
            Some("too_short")
        );
        let long: String = ('\u{4e00}'..).take(LONGEST).collect();
        assert_eq!(code(&long), None);
        assert_eq!(code(&format!("{long}x")), Some("too_long"));
    }

    #[tokio::test]
    async fn whose_a_password_is_may_turn_out_late() {
        let service = light(8);
        let password = accepted(&service, "ann.smith.1987").await;
        let suits = |email: &str| {
            let personal = Personal::new(Some(email), None);
            let judged = service.suits("password", &password, &personal);
            judged.err().map(|error| error.code)
        };
        assert_eq!(suits("ann.smith@example.org"), Some("context"));
        assert_eq!(suits("bob@example.org"), None);
    }

    /// ASVS 6.2.8 and NIST SP 800-63B-4 §3.1.1.2.
    #[tokio::test]
    async fn a_password_is_verified_exactly_as_it_was_given() {
        let service = light(8);
        let given = SecretString::from("caf\u{e9} on the corner ");
        let hash = service
            .hash(&accepted(&service, given.expose()).await)
            .await
            .expect("hashed");
        let check = async |text: &str| {
            service
                .verify(&text.into(), Some(&hash))
                .await
                .expect("checked")
        };
        assert_eq!(
            check("caf\u{e9} on the corner ").await,
            Verdict::Match { outdated: false }
        );
        assert_eq!(
            check("cafe\u{301} on the corner ").await,
            Verdict::Match { outdated: false },
            "the same in NFD"
        );
        for wrong in [
            "caf\u{e9} on the corner",
            "Caf\u{e9} on the corner ",
            "cafe on the corner ",
            "",
        ] {
            assert_eq!(check(wrong).await, Verdict::Mismatch, "{wrong:?}");
        }
    }

    /// ASVS 6.3.8: no hash and a wrong password cost one run each.
    #[tokio::test]
    async fn an_unknown_account_costs_one_run_too() {
        let metrics = Arc::new(Metrics::default());
        let service = Passwords::start(
            &PasswordPolicy::light(),
            &[],
            Arc::new(SystemEntropy),
            Arc::clone(&metrics),
        )
        .expect("valid");
        assert_eq!(metrics.scrypt_runs.get(), 0, "nothing is computed at start");
        assert_eq!(
            service
                .verify(&"whatever it is".into(), None)
                .await
                .expect("checked"),
            Verdict::Mismatch
        );
        assert_eq!(metrics.scrypt_runs.get(), 1);
    }

    /// ASVS 11.2.2, 11.4.2.
    #[tokio::test]
    async fn hashes_are_phc_strings_and_older_parameters_are_noticed() {
        let (old, new) = (
            light(8),
            passwords(&PasswordPolicy {
                scrypt_log_n: 5,
                ..PasswordPolicy::light()
            }),
        );
        let password = SecretString::from("correct horse");
        let hash = old.hash(&old.verified(&password)).await.expect("hashed");
        assert!(hash.expose().starts_with("$scrypt$ln=4,r=8,p=1$"));
        assert_eq!(
            new.verify(&password, Some(&hash)).await.expect("checked"),
            Verdict::Match { outdated: true }
        );
        assert!(
            new.verify(
                &password,
                Some(&"$argon2id$v=19$m=1,t=1,p=1$c2FsdHNhbHQ$aGFzaA".into())
            )
            .await
            .is_err()
        );
    }

    #[tokio::test]
    async fn the_costliest_hash_seen_sets_the_cost_of_every_check() {
        let service = light(8);
        let today = service.cost.load(Ordering::Relaxed);
        let costlier = passwords(&PasswordPolicy {
            scrypt_log_n: 6,
            ..PasswordPolicy::light()
        });
        let password = SecretString::from("correct horse");
        let hash = costlier.hash(&costlier.verified(&password)).await;
        let verdict = service
            .verify(&password, Some(&hash.expect("a hash")))
            .await;
        assert_eq!(verdict.expect("checked"), Verdict::Match { outdated: true });
        assert_eq!(service.cost.load(Ordering::Relaxed), today * 4);
    }

    #[tokio::test]
    async fn a_hash_beyond_reason_is_not_computed() {
        let monster =
            "$scrypt$ln=40,r=8,p=1$c2FsdHNhbHRzYWx0$aGFzaGhhc2hoYXNoaGFzaGhhc2hoYXNoaGFzaGhhc2g";
        let checked = light(8)
            .verify(&"x".into(), Some(&PasswordHash::new(monster.to_owned())))
            .await;
        assert!(
            matches!(checked, Err(AuthError::Internal(_))),
            "{checked:?}"
        );
    }
}
