//! Hashes that other systems made, checked as they are until their owners log in once.
//!
//! Decides which spellings are read, what each system does with a password before it hashes it, and what cannot
//! be used. What a check costs is bounded by `work`; a right password is hashed anew by whoever opens the session.
//! Nothing of a hash is ever said, only what is wrong with it.

use std::{fmt, num::NonZeroU32};

use argon2::{Algorithm, Version};
use aws_lc_rs::digest::{SHA256, digest};
use base64::{
    Engine,
    alphabet::BCRYPT,
    engine::{
        GeneralPurpose,
        general_purpose::{NO_PAD, STANDARD, STANDARD_NO_PAD},
    },
};
use scrypt::{Params, password_hash::phc::PasswordHash as Phc};
use unicode_normalization::UnicodeNormalization;
use zeroize::Zeroizing;

use super::work::{BCRYPT_READS, Digest, Impossible, Work};
use crate::secret::{SecretString, constant_time_eq};

/// More than any spelling takes.
const LONGEST: usize = 512;
/// Shorter ones are found by chance, or cut off.
const SHORTEST_OUTPUT: usize = 16;
const MOST_OUTPUT: usize = 64;
/// Some systems left bits behind the last byte.
const BCRYPT_BASE64: GeneralPurpose =
    GeneralPurpose::new(&BCRYPT, NO_PAD.with_decode_allow_trailing_bits(true));

/// Why a hash cannot be imported.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum UnusableHash {
    /// No function that is known here.
    #[error(
        "is of a kind that cannot be checked here; leave it out, and the user sets a new password by a letter"
    )]
    Unknown,
    /// A kind that is known, with something missing.
    #[error("is cut off or damaged")]
    Damaged,
    /// More than every login can be made to cost.
    #[error(
        "would take more than {0} to check; leave it out, and the user sets a new password by a letter"
    )]
    TooCostly(&'static str),
}

/// What checking a hash costs, as `passwords.imported` writes it, e.g. `argon2:m=65536,t=3`.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub struct HashCost(String);

impl HashCost {
    pub(super) fn of(work: Work) -> Self {
        Self(work.to_string())
    }
}

impl fmt::Display for HashCost {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

/// What a system makes of a password before its function sees it.
#[derive(Debug, Clone, Copy)]
enum Form {
    /// UTF-8, as it was typed.
    Plain,
    /// UTF-8 of the NFKC form.
    Compatible,
    /// UTF-8 and a NUL, cut to 72 bytes: what bcrypt before 5.0 for Python, passlib and PHP read of a longer one.
    Cut,
    /// SHA-256 in hexadecimal, and a NUL: what keeps bcrypt from cutting.
    Sha256,
}

impl Form {
    fn of(self, password: &SecretString) -> Zeroizing<Vec<u8>> {
        let text = password.expose();
        let bytes = match self {
            Self::Plain => text.as_bytes().to_vec(),
            Self::Compatible => text.nfkc().collect::<String>().into_bytes(),
            Self::Cut => text.bytes().chain([0]).take(BCRYPT_READS).collect(),
            Self::Sha256 => {
                let digest = digest(&SHA256, text.as_bytes());
                let mut hex = hex(digest.as_ref()).into_bytes();
                hex.push(0);
                hex
            }
        };
        Zeroizing::new(bytes)
    }
}

/// A hash that another system made.
pub(super) struct Foreign {
    form: Form,
    work: Work,
    salt: Vec<u8>,
    expected: Vec<u8>,
}

impl Foreign {
    /// Reads a hash in one of the spellings that are known; each begins in its own way.
    pub(super) fn parse(text: &str) -> Result<Self, UnusableHash> {
        if text.len() > LONGEST || !text.is_ascii() {
            return Err(UnusableHash::Unknown);
        }
        let found = match text.split_once('$') {
            Some(("", rest)) if rest.starts_with("argon2") => argon2_phc(text),
            Some(("argon2", rest)) if rest.starts_with("argon2") => argon2_phc(&format!("${rest}")),
            Some(("", rest)) if rest.starts_with('2') => bcrypt(rest, Form::Cut),
            Some(("bcrypt", rest)) => bcrypt(rest.strip_prefix('$').unwrap_or(rest), Form::Cut),
            Some(("bcrypt_sha256", rest)) => {
                bcrypt(rest.strip_prefix('$').unwrap_or(rest), Form::Sha256)
            }
            Some(("pbkdf2_sha1", rest)) => pbkdf2_django(Digest::Sha1, rest),
            Some(("pbkdf2_sha256", rest)) => pbkdf2_django(Digest::Sha256, rest),
            Some(("scrypt", rest)) => scrypt_django(rest),
            Some(("", rest)) => match rest.split_once('$') {
                Some(("pbkdf2", rest)) => pbkdf2_passlib(Digest::Sha1, rest),
                Some(("pbkdf2-sha256", rest)) => pbkdf2_passlib(Digest::Sha256, rest),
                Some(("pbkdf2-sha512", rest)) => pbkdf2_passlib(Digest::Sha512, rest),
                _ => return Err(UnusableHash::Unknown),
            },
            Some((method, rest)) if method.contains(':') => werkzeug(method, rest),
            None => better_auth(text),
            Some(_) => return Err(UnusableHash::Unknown),
        };
        found?.bounded()
    }

    /// Refuses what is too costly before anything can compute it.
    fn bounded(self) -> Result<Self, UnusableHash> {
        if let Some(limit) = self.work.beyond_reason() {
            return Err(UnusableHash::TooCostly(limit));
        }
        let most = match self.work {
            Work::Pbkdf2 { digest, .. } => digest.len(),
            _ => MOST_OUTPUT,
        };
        if !self.work.is_possible() {
            return Err(UnusableHash::Damaged);
        }
        let fits = (SHORTEST_OUTPUT..=most).contains(&self.expected.len());
        if fits && !self.salt.is_empty() {
            Ok(self)
        } else {
            Err(UnusableHash::Damaged)
        }
    }

    /// What checking it takes.
    pub(super) fn work(&self) -> Work {
        self.work
    }

    /// Whether this is the password, compared in constant time.
    pub(super) fn is_of(&self, password: &SecretString) -> Result<bool, Impossible> {
        let bytes = self.form.of(password);
        let computed = self.work.derive(&bytes, &self.salt, self.expected.len())?;
        Ok(constant_time_eq(&computed, &self.expected))
    }
}

type Found = Result<Foreign, UnusableHash>;

fn damaged<E>(_: E) -> UnusableHash {
    UnusableHash::Damaged
}

/// The PHC string format of argon2 (RFC 9106): pwdlib and argon2-cffi; Django behind a prefix of its own.
fn argon2_phc(text: &str) -> Found {
    let phc = Phc::new(text).map_err(damaged)?;
    let algorithm = Algorithm::new(phc.algorithm.as_str()).map_err(|_| UnusableHash::Unknown)?;
    // Without one it is the first that there was.
    let version = Version::try_from(phc.version.unwrap_or(0x10)).map_err(damaged)?;
    let number = |name: &str| phc.params.get_decimal(name).ok_or(UnusableHash::Damaged);
    let (memory, passes, lanes) = (number("m")?, number("t")?, number("p")?);
    if phc.params.iter().count() != 3 {
        // A key or data that only the other system knows.
        return Err(UnusableHash::Unknown);
    }
    let (Some(salt), Some(expected)) = (phc.salt, phc.hash) else {
        return Err(UnusableHash::Damaged);
    };
    Ok(Foreign {
        form: Form::Plain,
        work: Work::Argon2 {
            algorithm,
            version,
            memory,
            passes,
            lanes,
        },
        salt: salt.to_vec(),
        expected: expected.as_bytes().to_vec(),
    })
}

/// `2b$12$` with 22 characters of salt and 31 of hash; `2x` was made by a function with a fault of its own.
fn bcrypt(text: &str, form: Form) -> Found {
    let mut parts = text.split('$');
    let (version, cost, rest) = (parts.next(), parts.next(), parts.next());
    let (Some(version), Some(cost), Some(rest), None) = (version, cost, rest, parts.next()) else {
        return Err(UnusableHash::Damaged);
    };
    if !["2a", "2b", "2y"].contains(&version) {
        return Err(UnusableHash::Unknown);
    }
    let cost: u32 = cost.parse().map_err(damaged)?;
    let (salt, hash) = rest.split_at_checked(22).ok_or(UnusableHash::Damaged)?;
    let salt = BCRYPT_BASE64.decode(salt).map_err(damaged)?;
    let expected = BCRYPT_BASE64.decode(hash).map_err(damaged)?;
    if cost < 4 || salt.len() != 16 || expected.len() != 23 {
        return Err(UnusableHash::Damaged);
    }
    Ok(Foreign {
        form,
        work: Work::Bcrypt { cost },
        salt,
        expected,
    })
}

fn pbkdf2(digest: Digest, iterations: &str, salt: &[u8], expected: Vec<u8>) -> Found {
    let iterations: NonZeroU32 = iterations.parse().map_err(damaged)?;
    Ok(Foreign {
        form: Form::Plain,
        work: Work::Pbkdf2 { digest, iterations },
        salt: salt.to_vec(),
        expected,
    })
}

/// Iterations, salt as it is, base64.
fn pbkdf2_django(digest: Digest, text: &str) -> Found {
    let [iterations, salt, hash] = fields(text)?;
    let expected = STANDARD.decode(hash).map_err(damaged)?;
    pbkdf2(digest, iterations, salt.as_bytes(), expected)
}

/// Iterations, salt and hash in base64 without padding, with `.` for `+`.
fn pbkdf2_passlib(digest: Digest, text: &str) -> Found {
    let decode = |text: &str| {
        let text = text.replace('.', "+");
        STANDARD_NO_PAD.decode(text).map_err(damaged)
    };
    let [iterations, salt, hash] = fields(text)?;
    pbkdf2(digest, iterations, &decode(salt)?, decode(hash)?)
}

fn scrypt(form: Form, params: [&str; 3], salt: &str, expected: Vec<u8>) -> Found {
    let [n, r, p] = params.map(str::parse::<u32>);
    let (n, r, p) = (
        n.map_err(damaged)?,
        r.map_err(damaged)?,
        p.map_err(damaged)?,
    );
    let log_n = u8::try_from(n.trailing_zeros()).map_err(damaged)?;
    if !n.is_power_of_two() {
        return Err(UnusableHash::Damaged);
    }
    Ok(Foreign {
        form,
        work: Work::Scrypt(Params::new(log_n, r, p).map_err(damaged)?),
        salt: salt.as_bytes().to_vec(),
        expected,
    })
}

/// N, salt as it is, r, p, base64.
fn scrypt_django(text: &str) -> Found {
    let [n, salt, r, p, hash] = fields(text)?;
    let expected = STANDARD.decode(hash).map_err(damaged)?;
    scrypt(Form::Plain, [n, r, p], salt, expected)
}

/// `scrypt:N:r:p` or `pbkdf2:digest:iterations`, salt as it is, hexadecimal.
fn werkzeug(method: &str, text: &str) -> Found {
    let [salt, hash] = fields(text)?;
    let expected = unhex(hash).ok_or(UnusableHash::Damaged)?;
    match method.split(':').collect::<Vec<_>>()[..] {
        ["scrypt", n, r, p] => scrypt(Form::Plain, [n, r, p], salt, expected),
        ["pbkdf2", "sha1", n] => pbkdf2(Digest::Sha1, n, salt.as_bytes(), expected),
        ["pbkdf2", "sha256", n] => pbkdf2(Digest::Sha256, n, salt.as_bytes(), expected),
        ["pbkdf2", "sha512", n] => pbkdf2(Digest::Sha512, n, salt.as_bytes(), expected),
        _ => Err(UnusableHash::Unknown),
    }
}

/// Salt and hash in hexadecimal; the salt is used as it is written.
fn better_auth(text: &str) -> Found {
    let (salt, hash) = text.split_once(':').ok_or(UnusableHash::Unknown)?;
    let expected = unhex(hash).ok_or(UnusableHash::Unknown)?;
    if unhex(salt).is_none_or(|salt| salt.len() != 16) || expected.len() != 64 {
        return Err(UnusableHash::Unknown);
    }
    scrypt(Form::Compatible, ["16384", "16", "1"], salt, expected)
}

/// Exactly so many fields between dollar signs.
fn fields<const N: usize>(text: &str) -> Result<[&str; N], UnusableHash> {
    let fields: Vec<&str> = text.split('$').collect();
    fields.try_into().map_err(damaged)
}

fn hex(bytes: &[u8]) -> String {
    use fmt::Write as _;
    bytes.iter().fold(String::new(), |mut text, byte| {
        // A string takes everything.
        let _ = write!(text, "{byte:02x}");
        text
    })
}

fn unhex(text: &str) -> Option<Vec<u8>> {
    let (pairs, rest) = text.as_bytes().as_chunks::<2>();
    let digit = |byte: u8| char::from(byte).to_digit(16);
    let byte = |pair: &[u8; 2]| u8::try_from(digit(pair[0])? << 4 | digit(pair[1])?).ok();
    let bytes = pairs.iter().map(byte).collect();
    if rest.is_empty() { bytes } else { None }
}

#[cfg(test)]
mod tests;
