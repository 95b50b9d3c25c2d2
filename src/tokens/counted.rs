//! What counters are filed under: keyed hashes, so that a copy of the table tells neither names nor
//! addresses, and nobody who can guess one finds it there (ASVS 11.2.5, 14.2.6).
//!
//! The key is derived from the oldest key of the ring, so that it stays the same while new ones are added.
//! When the oldest is retired, everything is counted from the beginning; while nodes with the old and the
//! new ring run side by side, each counts for itself.

use aws_lc_rs::{hkdf, hmac};
use zeroize::Zeroizing;

use super::Tokens;
use crate::{error::AuthResult, model::token::SecretHash};

/// The key of counters, derived from one key of the ring (RFC 5869).
pub(super) struct CounterKey(hmac::Key);

impl CounterKey {
    /// Derives the key; what `key` itself is used for cannot be told from it, nor it from that.
    pub(super) fn derive(key: &[u8]) -> Result<Self, aws_lc_rs::error::Unspecified> {
        let root = hkdf::Salt::new(hkdf::HKDF_SHA256, b"doorward counters").extract(key);
        let mut bytes = Zeroizing::new([0; 32]);
        root.expand(&[b"keys"], hkdf::HKDF_SHA256)?
            .fill(&mut *bytes)?;
        Ok(Self(hmac::Key::new(hmac::HMAC_SHA256, &*bytes)))
    }

    fn file_under(&self, what: &str, whose: &[u8]) -> SecretHash {
        let mut context = hmac::Context::with_key(&self.0);
        context.update(what.as_bytes());
        context.update(&[0]);
        context.update(whose);
        SecretHash::keyed(context.sign().as_ref())
    }
}

impl Tokens {
    /// Under which key something is counted: `what` holds no NUL, and two of them never share a key.
    ///
    /// # Errors
    /// [`crate::error::AuthError::Internal`] when there is no key at all.
    pub fn counted(&self, what: &str, whose: &[u8]) -> AuthResult<SecretHash> {
        let key = self.ring.counter_key()?;
        Ok(key.file_under(what, whose))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// ASVS 11.2.5.
    #[test]
    fn counters_of_one_kind_and_one_owner_share_a_key_and_no_others() {
        let key = CounterKey::derive(&[7; 32]).expect("derived");
        let other = CounterKey::derive(&[8; 32]).expect("derived");
        let ann = key.file_under("login", b"ann");
        assert_eq!(ann, key.file_under("login", b"ann"));
        assert_ne!(ann, key.file_under("login", b"bob"));
        assert_ne!(ann, key.file_under("logi", b"nann"));
        assert_ne!(ann, other.file_under("login", b"ann"));
        assert_ne!(ann, SecretHash::of("ann"));
    }
}
