//! What checking a password takes, and what makes every check take the same.
//!
//! Decides which imported hashes are beyond reason, and how the kind of a hash is kept from showing in the time
//! that its check takes (ASVS 6.3.8): of each kind of work, every check does as much as the costliest hash that
//! was ever checked here or that `passwords.imported` names. How much scrypt makes up for less is for `cost`; how
//! hashes are spelled for `foreign`.

use std::{
    fmt,
    num::NonZeroU32,
    sync::atomic::{AtomicU64, Ordering},
};

use argon2::{Algorithm, Argon2, Version};
use aws_lc_rs::pbkdf2;
use scrypt::Params;
use zeroize::Zeroizing;

use super::cost::{cost_of, making_up};

/// Most memory that an imported hash may take to check, in KiB: 256 MiB.
const MOST_MEMORY: u64 = 256 * 1024;
/// Most KiB that an imported argon2 hash may fill, over all its passes: about a second.
const MOST_FILLED: u64 = 1024 * 1024;
/// As [`cost_of`], of an imported scrypt hash: about a second.
const MOST_SCRYPT: u64 = 1 << 22;
/// log₂ of the rounds of an imported bcrypt hash: about two seconds.
const MOST_BCRYPT: u32 = 15;
/// Iterations of an imported PBKDF2 hash: about two seconds.
const MOST_ITERATIONS: u32 = 5_000_000;

/// The hash function inside PBKDF2.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Digest {
    Sha1,
    Sha256,
    Sha512,
}

impl Digest {
    /// How many bytes it makes: beyond, PBKDF2 costs its defender more than its attacker.
    pub(super) const fn len(self) -> usize {
        match self {
            Self::Sha1 => 20,
            Self::Sha256 => 32,
            Self::Sha512 => 64,
        }
    }

    const fn name(self) -> &'static str {
        match self {
            Self::Sha1 => "sha1",
            Self::Sha256 => "sha256",
            Self::Sha512 => "sha512",
        }
    }
}

/// One run of a function that makes hashes of passwords.
#[derive(Debug, Clone, Copy)]
pub(super) enum Work {
    Scrypt(Params),
    Argon2 {
        algorithm: Algorithm,
        version: Version,
        /// In KiB.
        memory: u32,
        passes: u32,
        lanes: u32,
    },
    Bcrypt {
        /// log₂ of the rounds.
        cost: u32,
    },
    Pbkdf2 {
        digest: Digest,
        iterations: NonZeroU32,
    },
}

/// The parameters are not ones that the function takes; nothing was computed.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Impossible;

/// How many kinds of work there are.
const KINDS: usize = 6;
/// Below these bits of an amount of argon2 stands its memory, which is at most [`MOST_MEMORY`].
const MEMORY_BITS: u32 = 20;

/// How much of each kind of work.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub(super) struct Amounts([u64; KINDS]);

impl Work {
    /// What to say where it is more than an import may ask for: no stored hash may be a denial of service
    /// (ASVS 15.2.2).
    pub(super) fn beyond_reason(self) -> Option<&'static str> {
        match self {
            Self::Scrypt(params) => {
                let memory = (u64::from(params.r()) << params.log_n()) / 8;
                (memory > MOST_MEMORY || cost_of(params) > MOST_SCRYPT)
                    .then_some("256 MiB or N·r·p = 2^22 of scrypt")
            }
            Self::Argon2 { memory, passes, .. } => {
                let filled = u64::from(memory).saturating_mul(u64::from(passes));
                (u64::from(memory) > MOST_MEMORY || filled > MOST_FILLED)
                    .then_some("256 MiB or m·t = 2^20 of argon2")
            }
            Self::Bcrypt { cost } => (cost > MOST_BCRYPT).then_some("cost 15 of bcrypt"),
            Self::Pbkdf2 { iterations, .. } => {
                (iterations.get() > MOST_ITERATIONS).then_some("5,000,000 iterations of PBKDF2")
            }
        }
    }

    /// Whether the function takes these parameters.
    pub(super) fn is_possible(self) -> bool {
        match self {
            Self::Argon2 {
                memory,
                passes,
                lanes,
                ..
            } => argon2::Params::new(memory, passes, lanes, None).is_ok(),
            Self::Bcrypt { cost } => (4..=31).contains(&cost),
            Self::Scrypt(_) | Self::Pbkdf2 { .. } => true,
        }
    }

    /// What a password and a salt come to.
    pub(super) fn derive(
        self,
        password: &[u8],
        salt: &[u8],
        len: usize,
    ) -> Result<Zeroizing<Vec<u8>>, Impossible> {
        let mut out = Zeroizing::new(vec![0; len]);
        match self {
            Self::Scrypt(params) => {
                scrypt::scrypt(password, salt, &params, &mut out).map_err(|_| Impossible)?;
            }
            Self::Argon2 {
                algorithm,
                version,
                memory,
                passes,
                lanes,
            } => {
                let params = argon2::Params::new(memory, passes, lanes, Some(len));
                let params = params.map_err(|_| Impossible)?;
                let function = Argon2::new(algorithm, version, params);
                let done = function.hash_password_into(password, salt, &mut out);
                done.map_err(|_| Impossible)?;
            }
            Self::Bcrypt { cost } => {
                let salt = salt.try_into().map_err(|_| Impossible)?;
                if password.is_empty() || password.len() > BCRYPT_READS || cost > 31 {
                    return Err(Impossible);
                }
                let made = Zeroizing::new(bcrypt::bcrypt(cost, salt, password));
                out.copy_from_slice(made.get(..len).ok_or(Impossible)?);
            }
            Self::Pbkdf2 { digest, iterations } => {
                let function = match digest {
                    Digest::Sha1 => pbkdf2::PBKDF2_HMAC_SHA1,
                    Digest::Sha256 => pbkdf2::PBKDF2_HMAC_SHA256,
                    Digest::Sha512 => pbkdf2::PBKDF2_HMAC_SHA512,
                };
                pbkdf2::derive(function, iterations, salt, password, &mut out);
            }
        }
        Ok(out)
    }

    /// Does it for nothing but the time that it takes.
    pub(super) fn burn(self) {
        let spent = self.derive(b"\0", &[0; 16], 16);
        std::hint::black_box(&spent);
    }

    /// Which kind it is, and how much of it.
    fn amount(self) -> (usize, u64) {
        match self {
            Self::Scrypt(params) => (0, cost_of(params)),
            Self::Argon2 { memory, passes, .. } => {
                let filled = u64::from(memory).saturating_mul(u64::from(passes));
                (1, filled << MEMORY_BITS | u64::from(memory))
            }
            Self::Bcrypt { cost } => (2, 1 << cost),
            Self::Pbkdf2 { digest, iterations } => (3 + digest as usize, iterations.get().into()),
        }
    }

    /// Whether it is more of its kind than this.
    pub(super) fn is_beyond(self, amounts: &Amounts) -> bool {
        let (kind, amount) = self.amount();
        amount > amounts.0[kind]
    }

    /// What a check that does this does besides, so that of each kind it does as much as `target`. No run takes
    /// more memory than the target itself or scrypt with `today`'s parameters.
    pub(super) fn made_up_to(self, target: &Amounts, today: Params) -> Vec<Self> {
        let (kind, own) = self.amount();
        let done = |of| if of == kind { own } else { 0 };
        let mut runs: Vec<Self> = match self {
            Self::Scrypt(params) => making_up(params, cost_of(params), target.0[0]),
            _ => making_up(today, 0, target.0[0]),
        }
        .into_iter()
        .map(Self::Scrypt)
        .collect();
        runs.extend(filling(done(1), target.0[1]));
        let rounds = target.0[2].saturating_sub(done(2));
        let bits = (0..=MOST_BCRYPT).filter(|bit| rounds >> bit & 1 == 1);
        runs.extend(bits.map(|cost| Self::Bcrypt { cost }));
        for digest in [Digest::Sha1, Digest::Sha256, Digest::Sha512] {
            let kind = 3 + digest as usize;
            let missing = target.0[kind].saturating_sub(done(kind));
            let iterations = u32::try_from(missing).unwrap_or(MOST_ITERATIONS);
            let run = NonZeroU32::new(iterations);
            runs.extend(run.map(|iterations| Self::Pbkdf2 { digest, iterations }));
        }
        runs
    }
}

/// As much of a password as bcrypt reads, in bytes, with the NUL that ends a shorter one.
pub(super) const BCRYPT_READS: usize = 72;

/// The runs of argon2 that fill what `own` lacks of `target`, to the 8 KiB that are the least there is.
fn filling(own: u64, target: u64) -> Vec<Work> {
    let memory = target & ((1 << MEMORY_BITS) - 1);
    let missing = (target >> MEMORY_BITS).saturating_sub(own >> MEMORY_BITS);
    if memory == 0 {
        return Vec::new();
    }
    let runs = [(memory, missing / memory), (missing % memory, 1)];
    let runs = runs
        .into_iter()
        .filter(|(memory, passes)| *memory >= 8 && *passes > 0);
    runs.map(|(memory, passes)| Work::Argon2 {
        algorithm: Algorithm::Argon2id,
        version: Version::V0x13,
        memory: u32::try_from(memory).unwrap_or(8),
        passes: u32::try_from(passes).unwrap_or(1),
        lanes: 1,
    })
    .collect()
}

/// As `passwords.imported` writes it.
impl fmt::Display for Work {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Scrypt(params) => {
                let (log_n, r, p) = (params.log_n(), params.r(), params.p());
                write!(f, "scrypt:ln={log_n},r={r},p={p}")
            }
            Self::Argon2 { memory, passes, .. } => write!(f, "argon2:m={memory},t={passes}"),
            Self::Bcrypt { cost } => write!(f, "bcrypt:{cost}"),
            Self::Pbkdf2 { digest, iterations } => {
                write!(f, "pbkdf2_{}:{iterations}", digest.name())
            }
        }
    }
}

impl Work {
    /// The reverse of its `Display`; `None` also for what cannot be computed or is beyond reason.
    pub(super) fn named(text: &str) -> Option<Self> {
        let (kind, cost) = text.split_once(':')?;
        let number = |name: &str| -> Option<u32> {
            let all = cost.split(',').filter_map(|one| one.split_once('='));
            all.into_iter().find(|(n, _)| *n == name)?.1.parse().ok()
        };
        let pbkdf2 = |digest| {
            let iterations = cost.parse().ok()?;
            Some(Self::Pbkdf2 { digest, iterations })
        };
        let work = match kind {
            "scrypt" => {
                let log_n = u8::try_from(number("ln")?).ok()?;
                Self::Scrypt(Params::new(log_n, number("r")?, number("p")?).ok()?)
            }
            "argon2" => {
                let (memory, passes) = (number("m")?, number("t")?);
                Self::Argon2 {
                    algorithm: Algorithm::Argon2id,
                    version: Version::V0x13,
                    memory,
                    passes,
                    lanes: 1,
                }
            }
            "bcrypt" => Self::Bcrypt {
                cost: cost.parse().ok()?,
            },
            "pbkdf2_sha1" => pbkdf2(Digest::Sha1)?,
            "pbkdf2_sha256" => pbkdf2(Digest::Sha256)?,
            "pbkdf2_sha512" => pbkdf2(Digest::Sha512)?,
            _ => return None,
        };
        let is_good = work.is_possible() && work.beyond_reason().is_none();
        (is_good && work.to_string() == text).then_some(work)
    }
}

/// Of each kind of work, the most that any check here took.
#[derive(Debug, Default)]
pub(super) struct Costliest([AtomicU64; KINDS]);

impl Costliest {
    /// The most there was, this one included; from now on every check takes that.
    pub(super) fn with(&self, work: Work) -> Amounts {
        let (kind, amount) = work.amount();
        self.0[kind].fetch_max(amount, Ordering::Relaxed);
        self.so_far()
    }

    /// The most there was.
    pub(super) fn so_far(&self) -> Amounts {
        Amounts(std::array::from_fn(|kind| {
            self.0[kind].load(Ordering::Relaxed)
        }))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn named(text: &str) -> Work {
        Work::named(text).expect(text)
    }

    /// What a check of this comes to, all in all.
    fn total(work: Work, target: &Amounts, today: Params) -> [u64; KINDS] {
        let mut sum = [0; KINDS];
        for run in work.made_up_to(target, today).into_iter().chain([work]) {
            let (kind, amount) = run.amount();
            sum[kind] += if kind == 1 {
                amount >> MEMORY_BITS
            } else {
                amount
            };
        }
        sum
    }

    /// ASVS 6.3.8: whatever kind of hash an account has, checking it takes the same work.
    #[test]
    fn every_check_does_as_much_of_each_kind_as_the_costliest() {
        let works = [
            "scrypt:ln=15,r=8,p=3",
            "scrypt:ln=14,r=16,p=1",
            "scrypt:ln=14,r=8,p=5",
            "argon2:m=65536,t=3",
            "argon2:m=102400,t=2",
            "argon2:m=19456,t=2",
            "bcrypt:12",
            "bcrypt:4",
            "pbkdf2_sha1:1000000",
            "pbkdf2_sha256:1000000",
            "pbkdf2_sha256:29000",
            "pbkdf2_sha512:25000",
        ]
        .map(named);
        let today = Params::new(15, 8, 3).expect("valid");
        let costliest = Costliest::default();
        let target = works.map(|work| costliest.with(work))[works.len() - 1];
        assert_eq!(target, costliest.so_far());
        let all = works.map(|work| total(work, &target, today));
        assert!(all.iter().all(|sum| *sum == all[0]), "{all:?}");
        assert_eq!(
            all[0],
            [786_432, 204_800, 4096, 1_000_000, 1_000_000, 25_000]
        );
    }

    #[test]
    fn nothing_is_done_that_no_hash_here_takes() {
        let today = Params::new(15, 8, 3).expect("valid");
        let costliest = Costliest::default();
        let target = costliest.with(Work::Scrypt(today));
        assert!(Work::Scrypt(today).made_up_to(&target, today).is_empty());
        assert!(named("bcrypt:4").is_beyond(&target));
        let target = costliest.with(named("bcrypt:5"));
        assert!(!named("bcrypt:4").is_beyond(&target));
    }

    /// ASVS 15.2.2.
    #[test]
    fn names_of_costs_are_read_exactly_and_bounded() {
        for bad in [
            "",
            "md5:1",
            "bcrypt:3",
            "bcrypt:16",
            "bcrypt:012",
            "argon2:m=65536",
            "argon2:m=65536,t=3,p=4",
            "argon2:m=4,t=3",
            "argon2:m=262145,t=1",
            "argon2:m=262144,t=5",
            "scrypt:ln=19,r=8,p=1",
            "scrypt:ln=15,r=8,p=17",
            "scrypt:ln=64,r=8,p=1",
            "pbkdf2_sha256:0",
            "pbkdf2_sha256:5000001",
            "pbkdf2_md5:1000",
        ] {
            assert!(Work::named(bad).is_none(), "{bad}");
        }
        for good in ["argon2:m=262144,t=4", "scrypt:ln=18,r=8,p=2", "bcrypt:15"] {
            assert_eq!(named(good).to_string(), good);
        }
    }
}
