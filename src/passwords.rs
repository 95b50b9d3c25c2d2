//! Passwords: which are accepted, how they are hashed, and on which threads.
//!
//! scrypt takes a core for more than a tenth of a second and 32 MiB, so it runs on a fixed number of threads
//! of its own behind a bounded queue: a login storm costs the storm's clients a 503, not everybody
//! else their answers, and memory stays bounded by `threads × memory of one hash` (ASVS 15.2.2).

use std::{
    sync::{
        Arc, Mutex, PoisonError,
        atomic::{AtomicU64, Ordering},
        mpsc,
    },
    thread,
};

use scrypt::{
    Params, Scrypt,
    password_hash::{
        CustomizedPasswordHasher as _,
        phc::{Output, ParamsString, PasswordHash as Phc, Salt},
    },
};
use serde::{Deserialize, Serialize};
use tokio::sync::oneshot;
use unicode_normalization::UnicodeNormalization;

use crate::{
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

/// What can be configured, and what a stored hash may claim; more was not made by anybody who could
/// afford it.
const LARGEST_LOG_N: u8 = 20;
/// As [`LARGEST_LOG_N`], of [`cost_of`].
const LARGEST_COST: u64 = 1 << (LARGEST_LOG_N + 4);

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
        self.params().map(drop).map_err(|()| {
            BadSetting::new(
                "passwords.scrypt_log_n",
                "scrypt does not allow these parameters",
                "use 15, 8 and 3",
            )
        })
    }

    fn params(&self) -> Result<Params, ()> {
        Params::new(self.scrypt_log_n, self.scrypt_r, self.scrypt_p).map_err(drop)
    }

    fn threads(&self) -> usize {
        if self.threads > 0 {
            self.threads
        } else {
            thread::available_parallelism().map_or(1, usize::from)
        }
    }
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
    policy: Arc<PasswordPolicy>,
    params: Params,
    /// What every check costs: as much as the costliest hash that was ever checked here.
    cost: Arc<AtomicU64>,
    decoy: Arc<PasswordHash>,
    entropy: Arc<dyn Entropy>,
    metrics: Arc<Metrics>,
    jobs: mpsc::SyncSender<Job>,
}

type Job = Box<dyn FnOnce() + Send>;

impl Passwords {
    /// Starts the hashing threads; they end when the last clone of the service is dropped.
    ///
    /// # Errors
    /// [`BadSetting`] when scrypt does not allow the parameters.
    pub fn start(
        policy: PasswordPolicy,
        entropy: Arc<dyn Entropy>,
        metrics: Arc<Metrics>,
    ) -> Result<Self, BadSetting> {
        policy.check(true)?;
        let params = policy.params().map_err(|()| {
            BadSetting::new(
                "passwords.scrypt_log_n",
                "scrypt does not allow these parameters",
                "use 15, 8 and 3",
            )
        })?;
        let (jobs, queue) = mpsc::sync_channel::<Job>(policy.queue);
        let queue = Arc::new(Mutex::new(queue));
        for n in 0..policy.threads() {
            let queue = Arc::clone(&queue);
            thread::Builder::new()
                .name(format!("scrypt-{n}"))
                .spawn(move || work(&queue))
                .map_err(|e| {
                    BadSetting::new(
                        "passwords.threads",
                        format!("a thread cannot be started: {e}"),
                        "lower it",
                    )
                })?;
        }
        let decoy = Arc::new(decoy(params, &*entropy).ok_or_else(|| {
            BadSetting::new(
                "passwords.scrypt_log_n",
                "cannot be written as a PHC string",
                "use 15",
            )
        })?);
        Ok(Self {
            policy: Arc::new(policy),
            params,
            cost: Arc::new(AtomicU64::new(cost_of(params))),
            decoy,
            entropy,
            metrics,
            jobs,
        })
    }

    /// Accepts a new password: length in code points after NFC, nothing trimmed, no rule about kinds
    /// of characters (ASVS 6.2.1, 6.2.5, 6.2.8, 6.2.9).
    ///
    /// # Errors
    /// [`FieldError`] for `field`, saying which rule is broken.
    pub fn accept(
        &self,
        field: &str,
        password: &SecretString,
    ) -> Result<AcceptedPassword, FieldError> {
        let normal = normalise(password);
        let length = normal.expose().chars().count();
        if length < self.policy.min_length {
            let detail = format!(
                "must be at least {} characters; a few random words make a good password",
                self.policy.min_length
            );
            return Err(FieldError::new(field, "too_short", detail));
        }
        if length > LONGEST {
            return Err(FieldError::new(
                field,
                "too_long",
                format!("must be at most {LONGEST} characters"),
            ));
        }
        Ok(AcceptedPassword(normal))
    }

    /// Hashes a password with today's parameters and a fresh 16-byte salt.
    ///
    /// # Errors
    /// [`AuthError::Overloaded`] when the queue is full.
    pub async fn hash(&self, password: &AcceptedPassword) -> AuthResult<PasswordHash> {
        let (password, params) = (password.0.clone(), self.params);
        let salt = random_bytes::<16>(&*self.entropy);
        let hash = self
            .run(move || {
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
            .run(move || {
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

    async fn run<T: Send + 'static>(
        &self,
        work: impl FnOnce() -> T + Send + 'static,
    ) -> AuthResult<T> {
        let (done, answer) = oneshot::channel();
        let metrics = Arc::clone(&self.metrics);
        let job: Job = Box::new(move || {
            // A client that went away while its password waited costs nothing more.
            if !done.is_closed() {
                metrics.scrypt_runs.bump();
                let _ = done.send(work());
            }
        });
        self.jobs.try_send(job).map_err(|_| {
            self.metrics.scrypt_refused.bump();
            AuthError::Overloaded("password hashing")
        })?;
        answer
            .await
            .map_err(|_| AuthError::Internal("a hashing thread is gone".into()))
    }
}

fn work(queue: &Mutex<mpsc::Receiver<Job>>) {
    // Low priority: hashing uses what the answers to everybody else leave over. A container may
    // forbid it, which costs latency under a login storm and nothing else.
    let _ = rustix::process::setpriority_process(Some(rustix::thread::gettid()), 10);
    loop {
        let job = queue.lock().unwrap_or_else(PoisonError::into_inner).recv();
        match job {
            Ok(job) => job(),
            Err(mpsc::RecvError) => return,
        }
    }
}

/// How long scrypt takes with these parameters, in blocks of 64 bytes that it mixes.
fn cost_of(params: Params) -> u64 {
    (u64::from(params.r()) * u64::from(params.p())) << params.log_n()
}

/// The runs of scrypt that make a cheaper one take as long as `target`, with no more memory.
fn making_up(params: Params, target: u64) -> Vec<Params> {
    let mut missing = target.saturating_sub(cost_of(params));
    let mut runs = Vec::new();
    for log_n in (1..=params.log_n()).rev() {
        let lane = u64::from(params.r()) << log_n;
        let lanes = u32::try_from(missing / lane).unwrap_or(u32::MAX);
        if let Ok(run) = Params::new(log_n, params.r(), lanes) {
            missing -= cost_of(run);
            runs.push(run);
        }
    }
    runs
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

    fn passwords(policy: PasswordPolicy) -> Passwords {
        Passwords::start(policy, Arc::new(SystemEntropy), Arc::default()).expect("valid policy")
    }

    fn light(min_length: usize) -> Passwords {
        passwords(PasswordPolicy {
            min_length,
            ..PasswordPolicy::light()
        })
    }

    /// ASVS 6.2.1, 6.2.5, 6.2.9: any characters, counted as code points.
    #[tokio::test]
    async fn length_is_counted_in_code_points_and_nothing_else_counts() {
        let service = light(15);
        let accepted = |text: &str| service.accept("password", &text.into()).is_ok();
        assert!(!accepted("fourteen chars"));
        for text in [
            "fifteen letters",
            "aaaaaaaaaaaaaaa",
            "159263748159263",
            "               ",
            "😀😀😀😀😀😀😀😀😀😀😀😀😀😀😀",
        ] {
            assert!(accepted(text), "{text:?}");
        }
        assert!(accepted(&"x".repeat(LONGEST)));
        assert!(!accepted(&"x".repeat(LONGEST + 1)));
    }

    /// ASVS 6.2.8 and NIST SP 800-63B-4 §3.1.1.2.
    #[tokio::test]
    async fn a_password_is_verified_exactly_as_it_was_given() {
        let service = light(8);
        let given = SecretString::from("caf\u{e9} on the corner ");
        let hash = service
            .hash(&service.accept("password", &given).expect("accepted"))
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
            PasswordPolicy::light(),
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
            passwords(PasswordPolicy {
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

    /// ASVS 15.2.2.
    #[tokio::test]
    async fn a_full_queue_refuses_at_once() {
        let service = passwords(PasswordPolicy {
            threads: 1,
            queue: 1,
            ..PasswordPolicy::light()
        });
        let (release, gate) = mpsc::channel::<()>();
        let (started, running) = oneshot::channel();
        let busy = tokio::spawn({
            let service = service.clone();
            async move {
                service
                    .run(move || {
                        let _ = started.send(());
                        gate.recv()
                    })
                    .await
            }
        });
        running.await.expect("the thread took the job");
        let waiting = tokio::spawn({
            let service = service.clone();
            async move { service.run(|| ()).await }
        });
        tokio::task::yield_now().await;
        let refused = service.run(|| ()).await;
        assert!(
            matches!(refused, Err(AuthError::Overloaded(_))),
            "{refused:?}"
        );
        release.send(()).expect("the thread waits");
        assert!(busy.await.expect("joined").is_ok() && waiting.await.expect("joined").is_ok());
    }

    /// ASVS 6.3.8: however old a hash is, checking it takes as long as checking today's.
    #[test]
    fn cheaper_hashes_are_made_up_for() {
        let params = |log_n, p| Params::new(log_n, 8, p).expect("valid");
        let rows = [(17, 1), (16, 2), (15, 3), (14, 5), (13, 10), (4, 1)];
        for (log_n, p) in rows {
            for (today_log_n, today_p) in rows {
                let (old, today) = (params(log_n, p), params(today_log_n, today_p));
                let target = cost_of(today);
                let extra = making_up(old, target);
                assert!(
                    extra.iter().all(|run| run.log_n() <= log_n),
                    "no more memory"
                );
                let total = cost_of(old) + extra.into_iter().map(cost_of).sum::<u64>();
                assert_eq!(total, target.max(cost_of(old)), "{log_n}/{p}");
            }
        }
    }

    #[tokio::test]
    async fn the_costliest_hash_seen_sets_the_cost_of_every_check() {
        let service = light(8);
        let today = service.cost.load(Ordering::Relaxed);
        let costlier = passwords(PasswordPolicy {
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
