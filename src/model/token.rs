//! One-time secrets: random texts that are handed out once and stored as hashes.

use std::fmt;

use base64::{Engine, engine::general_purpose::URL_SAFE_NO_PAD};

use crate::{
    clock::{Span, Timestamp},
    entropy::{Entropy, random_bytes},
    ids::{OneTimeSecretId, UserId},
    secret::SecretString,
};

/// What stands in front of every link secret, so that a leaked one is recognised by scanners.
const LINK_PREFIX: &str = "dwl_";

/// The secret of a one-time link: 256 random bits. Prints `***`; never stored.
#[derive(Debug, Clone)]
pub struct LinkSecret(SecretString);

impl LinkSecret {
    /// A fresh secret.
    #[must_use]
    pub fn fresh(entropy: &dyn Entropy) -> Self {
        let text = format!(
            "{LINK_PREFIX}{}",
            URL_SAFE_NO_PAD.encode(random_bytes::<32>(entropy))
        );
        Self(SecretString::new(text))
    }

    /// A secret as presented by a client; `None` for what cannot be one.
    #[must_use]
    pub fn parse(text: &str) -> Option<Self> {
        let body = text.strip_prefix(LINK_PREFIX)?;
        let bytes = URL_SAFE_NO_PAD.decode(body).ok()?;
        (bytes.len() == 32).then(|| Self(SecretString::from(text)))
    }

    /// The text for the link; whoever calls this puts it nowhere else.
    #[must_use]
    pub fn expose(&self) -> &str {
        self.0.expose()
    }

    /// What is stored: its SHA-256. With 256 random bits no salt or work factor is needed
    /// (ASVS 6.5.2).
    #[must_use]
    pub fn hash(&self) -> SecretHash {
        SecretHash::of(self.0.expose())
    }
}

/// The stored form of a random secret. Prints `***`.
#[derive(Clone, Copy, PartialEq, Eq)]
pub struct SecretHash([u8; 32]);

impl SecretHash {
    /// The SHA-256 of a secret that nobody can guess.
    #[must_use]
    pub fn of(secret: &str) -> Self {
        let digest = aws_lc_rs::digest::digest(&aws_lc_rs::digest::SHA256, secret.as_bytes());
        let mut bytes = [0; 32];
        bytes.copy_from_slice(digest.as_ref());
        Self(bytes)
    }

    /// A hash as it was stored; `None` for what is none.
    #[must_use]
    pub fn stored(bytes: &[u8]) -> Option<Self> {
        bytes.try_into().ok().map(Self)
    }

    /// Its bytes.
    #[must_use]
    pub const fn as_bytes(&self) -> &[u8; 32] {
        &self.0
    }
}

impl fmt::Debug for SecretHash {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("***")
    }
}

/// What a one-time secret is good for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Purpose {
    /// Setting a first password.
    SetPassword,
}

impl Purpose {
    /// As stored.
    #[must_use]
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::SetPassword => "set_password",
        }
    }
}

/// A one-time secret about to be stored.
#[derive(Debug, Clone)]
pub struct NewOneTimeSecret {
    /// Its id, which is no secret.
    pub id: OneTimeSecretId,
    /// Whom it is for.
    pub user_id: UserId,
    /// What it is good for.
    pub purpose: Purpose,
    /// Its stored form.
    pub hash: SecretHash,
    /// Until when it can be spent.
    pub expires_at: Timestamp,
}

/// How long a link for a first password can be used.
pub const LINK_TTL: Span = Span::days(1);

/// A one-time link for setting a password, as text once and as hash for the store.
#[derive(Debug, Clone)]
pub struct PasswordLink {
    /// The secret; shown once, to whoever hands it over.
    pub secret: LinkSecret,
    /// Until when it can be used.
    pub expires_at: Timestamp,
    /// What is stored.
    pub(crate) stored: NewOneTimeSecret,
}

impl PasswordLink {
    /// A fresh link for a user.
    #[must_use]
    pub fn fresh(user_id: UserId, now: Timestamp, entropy: &dyn Entropy) -> Self {
        let secret = LinkSecret::fresh(entropy);
        let expires_at = now.plus(LINK_TTL);
        let id = OneTimeSecretId::fresh(now, entropy);
        let stored = NewOneTimeSecret {
            id,
            user_id,
            purpose: Purpose::SetPassword,
            hash: secret.hash(),
            expires_at,
        };
        Self {
            secret,
            expires_at,
            stored,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::entropy::SystemEntropy;

    /// ASVS 6.5.3, 7.2.3, 11.5.1.
    #[test]
    fn link_secrets_are_256_random_bits_and_differ() {
        let (a, b) = (
            LinkSecret::fresh(&SystemEntropy),
            LinkSecret::fresh(&SystemEntropy),
        );
        assert_eq!(a.expose().len(), LINK_PREFIX.len() + 43);
        assert_ne!(a.hash(), b.hash());
        assert_eq!(
            LinkSecret::parse(a.expose()).map(|s| s.hash()),
            Some(a.hash())
        );
        assert_eq!(format!("{a:?} {:?}", a.hash()), "LinkSecret(***) ***");
    }

    #[test]
    fn junk_is_refused_before_the_database() {
        for text in ["", "dwl_", "dwl_short", "dwl_'; DROP TABLE users", "abc"] {
            assert!(LinkSecret::parse(text).is_none(), "{text:?}");
        }
    }
}
