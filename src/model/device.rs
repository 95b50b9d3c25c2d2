//! Devices that somebody has logged in from: known again by a random secret that only they hold.
//!
//! A device opens nothing. It says that failed logins from elsewhere are not to be counted against it
//! (ASVS 6.3.1). What is stored of it is a hash.

use super::token::{SecretHash, read, written};
use crate::{
    clock::Timestamp,
    entropy::{Entropy, random_bytes},
    ids::UserId,
    secret::SecretString,
};

/// What stands in front of every device secret, so that a leaked one is recognised by scanners.
const PREFIX: &str = "dwd_";

/// The secret of a device: 256 random bits. Prints `***`; never stored.
#[derive(Debug, Clone)]
pub struct DeviceSecret(SecretString);

impl DeviceSecret {
    /// A fresh secret.
    #[must_use]
    pub fn fresh(entropy: &dyn Entropy) -> Self {
        Self(written(PREFIX, &random_bytes::<32>(entropy)))
    }

    /// A secret as presented by a client; `None` for what cannot be one.
    #[must_use]
    pub fn parse(text: &str) -> Option<Self> {
        read(PREFIX, text).map(Self)
    }

    /// The text for the client; whoever calls this puts it nowhere else.
    #[must_use]
    pub fn expose(&self) -> &str {
        self.0.expose()
    }

    /// What is stored: its SHA-256 (ASVS 6.5.2).
    #[must_use]
    pub fn hash(&self) -> SecretHash {
        SecretHash::of(self.0.expose())
    }
}

/// A device about to be stored.
#[derive(Debug, Clone, Copy)]
pub struct NewDevice {
    /// The stored form of its secret.
    pub hash: SecretHash,
    /// Whose.
    pub user_id: UserId,
    /// When its first login was.
    pub created_at: Timestamp,
    /// When it is forgotten, unless it is used before.
    pub expires_at: Timestamp,
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::entropy::SystemEntropy;

    /// ASVS 7.2.3, 11.5.1.
    #[test]
    fn device_secrets_are_256_random_bits_and_differ() {
        let one = DeviceSecret::fresh(&SystemEntropy);
        let other = DeviceSecret::fresh(&SystemEntropy);
        assert_eq!(one.expose().len(), PREFIX.len() + 43);
        assert_ne!(one.hash(), other.hash());
        let parsed = DeviceSecret::parse(one.expose());
        assert_eq!(parsed.map(|secret| secret.hash()), Some(one.hash()));
        assert_eq!(format!("{one:?}"), "DeviceSecret(***)");
        for junk in ["", "dwd_", "dwd_short", "dwl_abc"] {
            assert!(DeviceSecret::parse(junk).is_none(), "{junk}");
        }
    }
}
