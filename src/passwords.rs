//! Passwords: which are accepted, how they are hashed, and on which threads.
//!
//! scrypt takes a core for more than a tenth of a second and 32 MiB, so it runs on a fixed number of threads
//! of its own behind a bounded queue: a login storm costs the storm's clients a 503, not everybody
//! else their answers, and memory stays bounded by `threads × memory of one hash` (ASVS 15.2.2). Hashes of
//! other systems ([`foreign`]) are checked on the same threads.
//!
//! A new password becomes a [`Candidate`] once no rule of this process speaks against it, and an
//! [`AcceptedPassword`] once no breach is known; only that can be hashed, so no path goes around either.

pub mod breach;
mod common;
mod context;
mod cost;
pub mod foreign;
mod patterns;
mod policy;
mod rules;
mod strength;
mod threads;
mod work;

use std::sync::Arc;

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
    cost::{LARGEST_COST, LARGEST_LOG_N, cost_of},
    foreign::{Foreign, HashCost, UnusableHash},
    rules::Rules,
    strength::Estimates,
    threads::{Place, Threads},
    work::{Costliest, Impossible, Work},
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
    spans,
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
        /// Whether its hash was made with other parameters than today's, or by another system.
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
    /// What every check costs: of each kind of work as much as the costliest hash that was ever checked here.
    costliest: Arc<Costliest>,
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
        let costliest = Costliest::default();
        costliest.with(Work::Scrypt(params));
        for work in policy.imported()? {
            costliest.with(work);
        }
        Ok(Self {
            rules: Arc::new(Rules::new(policy.min_length, words.iter().copied())),
            breaches: Breaches::open(&policy.breach)?,
            estimates: Estimates::start(&words).map_err(|e| no_thread(&e))?,
            params,
            costliest: Arc::new(costliest),
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
    /// costs the same work as a known one (ASVS 6.3.8). What another hash takes more, of scrypt or of what
    /// another system hashed with, is made up for, so that neither its age nor where it came from shows.
    ///
    /// A password beyond [`LONGEST`] is a mismatch without any work, whoever it is for.
    ///
    /// # Errors
    /// [`AuthError::Overloaded`] when the queue is full, [`AuthError::Internal`] when the stored hash
    /// is of no known kind.
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
        let broken =
            |what: &str| AuthError::Internal(format!("a stored password hash is unusable: {what}"));
        let stored = Stored::parse(hash.unwrap_or(&self.decoy)).map_err(|e| broken(&e))?;
        let target = self.costliest.with(stored.work());
        let extra = stored.work().made_up_to(&target, self.params);
        let outdated = stored.is_outdated(self.params);
        let given = password.clone();
        let is_right = self
            .scrypt(place, move || {
                let is_right = stored.is_of(&given, &normal);
                extra.into_iter().for_each(Work::burn);
                is_right
            })
            .await?
            .map_err(|Impossible| broken("parameters"))?;
        if hash.is_some() && is_right {
            Ok(Verdict::Match { outdated })
        } else {
            Ok(Verdict::Mismatch)
        }
    }

    /// Whether a hash from elsewhere can be stored to be checked at logins, ours included. Answers what a check
    /// costs where that is more than what every check costs by now.
    ///
    /// # Errors
    /// [`UnusableHash`]; it repeats nothing of the hash.
    pub fn appraise(&self, hash: &PasswordHash) -> Result<Option<HashCost>, UnusableHash> {
        let work = Stored::imported(hash)?.work();
        let is_beyond = work.is_beyond(&self.costliest.so_far());
        Ok(is_beyond.then(|| HashCost::of(work)))
    }

    /// A password that has just been verified, for hashing it anew; the rules for new passwords do
    /// not apply to it.
    #[must_use]
    pub fn verified(&self, password: &SecretString) -> AcceptedPassword {
        AcceptedPassword(normalise(password))
    }

    /// Runs scrypt, and what else a check takes, on one of its threads.
    async fn scrypt<T: Send + 'static>(
        &self,
        place: Place,
        work: impl FnOnce() -> T + Send + 'static,
    ) -> AuthResult<T> {
        let metrics = Arc::clone(&self.metrics);
        let (waiting, waited) = (metrics.scrypt_waiting.hold(), Stopwatch::start());
        // The thread knows of no request.
        let (waits, request) = (spans::scrypt_wait(), tracing::Span::current());
        let counted = move || {
            drop((waiting, waits));
            let runs = spans::scrypt_run(&request);
            metrics.scrypt_wait_seconds.took(waited.elapsed());
            metrics.scrypt_runs.bump();
            let running = Stopwatch::start();
            let done = work();
            metrics.scrypt_run_seconds.took(running.elapsed());
            drop(runs);
            done
        };
        self.threads.run_in(place, counted).await
    }
}

/// A hash as it is stored.
enum Stored {
    /// scrypt as a PHC string, of the NFC form of a password.
    Own {
        params: Params,
        salt: Salt,
        expected: Output,
    },
    /// Another system's.
    Foreign(Foreign),
}

impl Stored {
    fn parse(hash: &PasswordHash) -> Result<Self, String> {
        let text = hash.expose();
        if !text.starts_with("$scrypt$") {
            let foreign = Foreign::parse(text).map_err(|why| why.to_string())?;
            return Ok(Self::Foreign(foreign));
        }
        let phc = Phc::new(text).map_err(|_| "syntax")?;
        let params = Params::try_from(&phc).map_err(|_| "parameters")?;
        if params.log_n() > LARGEST_LOG_N || cost_of(params) > LARGEST_COST {
            return Err("parameters beyond reason".to_owned());
        }
        match (phc.salt, phc.hash) {
            (Some(salt), Some(expected)) => Ok(Self::Own {
                params,
                salt,
                expected,
            }),
            _ => Err("salt or hash is missing".to_owned()),
        }
    }

    /// As [`Self::parse`], with the bounds of what others made.
    fn imported(hash: &PasswordHash) -> Result<Self, UnusableHash> {
        if !hash.expose().starts_with("$scrypt$") {
            return Foreign::parse(hash.expose()).map(Self::Foreign);
        }
        let own = Self::parse(hash).map_err(|_| UnusableHash::Damaged)?;
        match own.work().beyond_reason() {
            Some(limit) => Err(UnusableHash::TooCostly(limit)),
            None => Ok(own),
        }
    }

    fn work(&self) -> Work {
        match self {
            Self::Own { params, .. } => Work::Scrypt(*params),
            Self::Foreign(foreign) => foreign.work(),
        }
    }

    /// Whether it is not what would be made today.
    fn is_outdated(&self, today: Params) -> bool {
        let shape = |params: &Params| (params.log_n(), params.r(), params.p());
        match self {
            Self::Own { params, .. } => shape(params) != shape(&today),
            Self::Foreign(_) => true,
        }
    }

    /// Whether this is the password, as it was given and in NFC.
    fn is_of(&self, given: &SecretString, normal: &SecretString) -> Result<bool, Impossible> {
        match self {
            Self::Own { salt, expected, .. } => {
                let password = normal.expose().as_bytes();
                let computed = self.work().derive(password, salt, expected.len())?;
                Ok(constant_time_eq(&computed, expected.as_bytes()))
            }
            Self::Foreign(foreign) => foreign.is_of(given),
        }
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
        for broken in ["$argon2id$v=19$m=1,t=1,p=1$c2FsdHNhbHQ$aGFzaA", "hunter2"] {
            let checked = new.verify(&password, Some(&broken.into())).await;
            assert!(
                matches!(checked, Err(AuthError::Internal(_))),
                "{checked:?}"
            );
        }
    }

    #[tokio::test]
    async fn the_costliest_hash_seen_sets_the_cost_of_every_check() {
        let service = light(8);
        let hash = Stored::parse(&service.decoy).expect("it is ours");
        let today = service.costliest.so_far();
        assert!(!hash.work().is_beyond(&today));
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
        let four_times = Params::new(4, 8, 4).expect("valid");
        assert!(Work::Scrypt(four_times).is_beyond(&today));
        assert!(!Work::Scrypt(four_times).is_beyond(&service.costliest.so_far()));
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

    /// ASVS 6.3.8: a failing login costs the same, whichever system the account came from, before and after.
    #[tokio::test]
    async fn where_a_hash_came_from_is_made_up_for() {
        let metrics = Arc::new(Metrics::default());
        let policy = PasswordPolicy {
            imported: vec!["bcrypt:4".into()],
            ..PasswordPolicy::light()
        };
        let entropy = Arc::new(SystemEntropy);
        let service = Passwords::start(&policy, &[], entropy, Arc::clone(&metrics));
        let service = service.expect("valid");
        let bcrypt = "$2b$04$5j.89Awxab5wVYmWqqIhGe1QEysrT.tfnCXyENbZiHugpQFbgV43K".into();
        let pbkdf2 =
            "pbkdf2:sha256:1000$lkDjGE7j8mmsvLdk$52949b884a8490ed633de7b5d22b05ee80d01f2e2772b11e0bd44c5a0cd78a74"
                .into();
        assert_eq!(service.appraise(&bcrypt), Ok(None), "it is made up for");
        let unexpected = service.appraise(&pbkdf2).expect("usable").expect("beyond");
        assert_eq!(unexpected.to_string(), "pbkdf2_sha256:1000");
        for (n, hash) in [None, Some(&bcrypt), Some(&pbkdf2)].into_iter().enumerate() {
            let wrong = service.verify(&"wrong".into(), hash).await;
            assert_eq!(wrong.expect("checked"), Verdict::Mismatch);
            assert_eq!(metrics.scrypt_runs.get(), n as u64 + 1);
        }
        assert_eq!(service.appraise(&pbkdf2), Ok(None), "seen once is enough");
        let right = service
            .verify(&"x".repeat(80).as_str().into(), Some(&bcrypt))
            .await;
        assert_eq!(right.expect("checked"), Verdict::Match { outdated: true });
    }
}
