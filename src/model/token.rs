//! One-time secrets: random texts that are handed out once and stored as hashes.

use std::fmt;

use base64::{Engine, engine::general_purpose::URL_SAFE_NO_PAD};

use crate::{
    clock::{Span, Timestamp},
    email::EmailAddress,
    entropy::{Entropy, random_bytes},
    ids::{OneTimeSecretId, UserId},
    secret::{SecretString, constant_time_eq},
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
        Self::of(&random_bytes::<32>(entropy))
    }

    /// The secret of these bytes, which nobody else may be able to guess.
    #[must_use]
    pub fn of(bytes: &[u8; 32]) -> Self {
        Self(written(LINK_PREFIX, bytes))
    }

    /// A secret as presented by a client; `None` for what cannot be one.
    #[must_use]
    pub fn parse(text: &str) -> Option<Self> {
        read(LINK_PREFIX, text).map(Self)
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

/// 256 random bits as a text with a prefix.
pub(super) fn written(prefix: &str, bytes: &[u8; 32]) -> SecretString {
    SecretString::new(format!("{prefix}{}", URL_SAFE_NO_PAD.encode(bytes)))
}

/// The reverse of [`written`]; `None` for what it cannot have written.
pub(super) fn read(prefix: &str, text: &str) -> Option<SecretString> {
    let body = text.strip_prefix(prefix)?;
    let bytes = URL_SAFE_NO_PAD.decode(body).ok()?;
    (bytes.len() == 32).then(|| SecretString::from(text))
}

/// The stored form of a random secret. Prints `***`.
#[derive(Clone, Copy, PartialEq, Eq, Hash)]
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

    /// The keyed hash of a secret that could be guessed.
    ///
    /// # Panics
    /// When it is not 32 bytes long, as every HMAC-SHA-256 is.
    #[must_use]
    pub fn keyed(mac: &[u8]) -> Self {
        Self(mac.try_into().expect("an HMAC-SHA-256 has 32 bytes"))
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
    /// Setting another password in place of one that was forgotten.
    ResetPassword,
    /// Showing that the account's address is its user's.
    VerifyEmail,
    /// Making the account of a registration that waits for its address.
    ConfirmRegistration,
    /// Giving the account the address that the secret was sent to.
    ChangeEmail,
    /// Saying that what a notice tells was somebody else's doing.
    NotMe,
}

impl Purpose {
    /// Every purpose.
    pub const ALL: [Self; 6] = [
        Self::SetPassword,
        Self::ResetPassword,
        Self::VerifyEmail,
        Self::ConfirmRegistration,
        Self::ChangeEmail,
        Self::NotMe,
    ];

    /// The reverse of [`Self::as_str`].
    #[must_use]
    pub fn parse(text: &str) -> Option<Self> {
        Self::ALL
            .into_iter()
            .find(|purpose| purpose.as_str() == text)
    }

    /// Whether a typed code will do instead of the link.
    #[must_use]
    pub const fn has_code(self) -> bool {
        match self {
            Self::VerifyEmail
            | Self::ConfirmRegistration
            | Self::ResetPassword
            | Self::ChangeEmail => true,
            Self::SetPassword | Self::NotMe => false,
        }
    }

    /// Whether it is good only as long as its user has the address that it was sent to.
    #[must_use]
    pub const fn is_for_own_address(self) -> bool {
        match self {
            Self::VerifyEmail | Self::ResetPassword | Self::SetPassword => true,
            Self::ConfirmRegistration | Self::ChangeEmail | Self::NotMe => false,
        }
    }

    /// As stored.
    #[must_use]
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::SetPassword => "set_password",
            Self::ResetPassword => "reset_password",
            Self::VerifyEmail => "verify_email",
            Self::ConfirmRegistration => "confirm_registration",
            Self::ChangeEmail => "change_email",
            Self::NotMe => "not_me",
        }
    }
}

/// What somebody shows to spend a one-time secret.
#[derive(Debug, Clone)]
pub enum Proof {
    /// The secret of a link, which says by itself whose it is.
    Link(SecretHash),
    /// A typed code, and whose it is said to be.
    Code {
        /// Whose.
        owner: CodeOwner,
        /// The code's keyed hash, once for each key that may have made it.
        hashes: Vec<SecretHash>,
    },
}

/// Whose a typed code is said to be.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum CodeOwner {
    /// Of the user, or of the waiting registration, with this address.
    Address(EmailAddress),
    /// Of this user.
    User(UserId),
}

impl Proof {
    /// Whether a stored code is the one that was typed; compared in constant time.
    #[must_use]
    pub fn is_code(&self, stored: Option<SecretHash>) -> bool {
        let (Self::Code { hashes, .. }, Some(stored)) = (self, stored) else {
            return false;
        };
        let same = |hash: &SecretHash| constant_time_eq(hash.as_bytes(), stored.as_bytes());
        hashes.iter().fold(false, |found, hash| found | same(hash))
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
