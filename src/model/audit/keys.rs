//! What makes records: their ids, and the keys that the personal part of them is encrypted with.
//!
//! Every user has a random key of their own, stored wrapped by a key that is not in the database. Without the
//! user's key the details of their records cannot be read by anybody: dropping it erases them, in backups of
//! the records as well, while the records themselves and their seals stay as they are (ASVS 11.2.1, 14.2.7).

use std::{
    fmt,
    sync::{
        Arc,
        atomic::{AtomicU32, Ordering},
    },
};

use aws_lc_rs::{
    aead::{AES_256_GCM, Aad, LessSafeKey, NONCE_LEN, Nonce, UnboundKey},
    hkdf, hmac,
};
use zeroize::Zeroizing;

use super::{Details, seal::SealKey};
use crate::{
    clock::Timestamp,
    entropy::{Entropy, random_bytes},
    ids::{AuditId, UserId},
};

const KEY: usize = 32;
/// What all records share whose details are nobody's in particular.
const NOBODY: &[u8] = b"nobody";

/// The secret that all keys of the trail are derived from (RFC 5869): 32 bytes.
#[derive(Clone)]
pub struct AuditSecret(Zeroizing<[u8; KEY]>);

impl AuditSecret {
    /// The secret as it is; `None` unless it is 32 bytes long.
    #[must_use]
    pub fn new(bytes: &[u8]) -> Option<Self> {
        let bytes: [u8; KEY] = bytes.try_into().ok()?;
        Some(Self(Zeroizing::new(bytes)))
    }

    /// A secret derived from a key that is used for something else; neither can be told from the other.
    ///
    /// # Errors
    /// When the cryptographic library refuses.
    pub fn derived(key: &[u8]) -> Result<Self, aws_lc_rs::error::Unspecified> {
        expand(key, b"doorward audit", b"secret").map(Self)
    }

    /// The bytes, for the key file.
    pub(crate) fn expose(&self) -> &[u8] {
        &*self.0
    }

    fn purpose(
        &self,
        purpose: &[u8],
    ) -> Result<Zeroizing<[u8; KEY]>, aws_lc_rs::error::Unspecified> {
        expand(&*self.0, b"doorward audit keys", purpose)
    }

    /// The key that seals.
    ///
    /// # Errors
    /// When the cryptographic library refuses.
    pub fn seal_key(&self) -> Result<SealKey, aws_lc_rs::error::Unspecified> {
        let bytes = self.purpose(b"seal")?;
        Ok(SealKey::new(hmac::Key::new(hmac::HMAC_SHA256, &*bytes)))
    }
}

/// Prints `***`.
impl fmt::Debug for AuditSecret {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("AuditSecret(***)")
    }
}

fn expand(
    key: &[u8],
    salt: &[u8],
    purpose: &[u8],
) -> Result<Zeroizing<[u8; KEY]>, aws_lc_rs::error::Unspecified> {
    let mut bytes = Zeroizing::new([0; KEY]);
    hkdf::Salt::new(hkdf::HKDF_SHA256, salt)
        .extract(key)
        .expand(&[purpose], hkdf::HKDF_SHA256)?
        .fill(&mut *bytes)?;
    Ok(bytes)
}

/// A user's key as it is stored: wrapped. Without the key that wraps it, it is of no use.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct WrappedKey(Vec<u8>);

impl WrappedKey {
    /// A key as it was stored.
    #[must_use]
    pub const fn stored(bytes: Vec<u8>) -> Self {
        Self(bytes)
    }

    /// The bytes to store.
    #[must_use]
    pub fn as_bytes(&self) -> &[u8] {
        &self.0
    }
}

/// Makes the ids of records and encrypts what they tell of persons.
pub struct Recorder {
    wrap: LessSafeKey,
    nobody: LessSafeKey,
    entropy: Arc<dyn Entropy>,
    /// How many ids were made.
    made: AtomicU32,
}

impl Recorder {
    /// A recorder with keys from this secret.
    ///
    /// # Errors
    /// When the cryptographic library refuses.
    pub fn new(
        secret: &AuditSecret,
        entropy: Arc<dyn Entropy>,
    ) -> Result<Self, aws_lc_rs::error::Unspecified> {
        Ok(Self {
            wrap: cipher(&*secret.purpose(b"wrap")?)?,
            nobody: cipher(&*secret.purpose(NOBODY)?)?,
            entropy,
            made: AtomicU32::new(0),
        })
    }

    /// Ids sort in the order in which they are made, on one node.
    pub(super) fn fresh_id(&self, now: Timestamp) -> AuditId {
        let count = self.made.fetch_add(1, Ordering::Relaxed);
        AuditId::counted(now, count, &*self.entropy)
    }

    /// A fresh key for a user.
    #[must_use]
    pub fn fresh_key(&self, user: UserId) -> Option<WrappedKey> {
        let key = Zeroizing::new(random_bytes::<KEY>(&*self.entropy));
        self.encrypt(&self.wrap, user.as_uuid().as_bytes(), &*key)
            .map(WrappedKey)
    }

    /// Encrypts details with their person's key; `None` if that key was not wrapped by us.
    pub(super) fn conceal(
        &self,
        record: AuditId,
        person: UserId,
        key: &WrappedKey,
        details: &Details,
    ) -> Option<Vec<u8>> {
        let Some(key) = self.unwrap_key(person, key) else {
            tracing::error!(user = %person, "the key of a user's audit details was made with another audit key");
            return None;
        };
        self.encrypt_details(&key, record, details)
    }

    /// Encrypts details that are nobody's in particular.
    pub(super) fn conceal_of_nobody(&self, record: AuditId, details: &Details) -> Option<Vec<u8>> {
        self.encrypt_details(&self.nobody, record, details)
    }

    /// Decrypts the details of a record with their person's key, or those of nobody in particular. `None` for
    /// what was not encrypted like that: moved from another record, changed, or of a key that was dropped.
    #[must_use]
    pub fn reveal(
        &self,
        record: AuditId,
        person: Option<(UserId, &WrappedKey)>,
        details: &[u8],
    ) -> Option<Details> {
        let text = match person {
            Some((person, key)) => {
                let key = self.unwrap_key(person, key)?;
                decrypt(&key, record.as_uuid().as_bytes(), details)?
            }
            None => decrypt(&self.nobody, record.as_uuid().as_bytes(), details)?,
        };
        serde_json::from_slice(&text).ok()
    }

    fn unwrap_key(&self, user: UserId, key: &WrappedKey) -> Option<LessSafeKey> {
        let bytes = decrypt(&self.wrap, user.as_uuid().as_bytes(), &key.0)?;
        cipher(&bytes).ok()
    }

    fn encrypt_details(
        &self,
        key: &LessSafeKey,
        record: AuditId,
        details: &Details,
    ) -> Option<Vec<u8>> {
        let text = serde_json::to_vec(details).ok()?;
        self.encrypt(key, record.as_uuid().as_bytes(), &text)
    }

    /// Nonce, ciphertext and tag. A user's key encrypts far fewer than 2³² records, for which random nonces
    /// are safe (NIST SP 800-38D §8.3).
    fn encrypt(&self, key: &LessSafeKey, bound_to: &[u8], plain: &[u8]) -> Option<Vec<u8>> {
        let nonce = random_bytes::<NONCE_LEN>(&*self.entropy);
        let mut sealed = plain.to_vec();
        let unique = Nonce::assume_unique_for_key(nonce);
        key.seal_in_place_append_tag(unique, Aad::from(bound_to), &mut sealed)
            .ok()?;
        Some([&nonce[..], &sealed].concat())
    }
}

impl fmt::Debug for Recorder {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Recorder(***)")
    }
}

fn cipher(key: &[u8]) -> Result<LessSafeKey, aws_lc_rs::error::Unspecified> {
    UnboundKey::new(&AES_256_GCM, key).map(LessSafeKey::new)
}

fn decrypt(key: &LessSafeKey, bound_to: &[u8], sealed: &[u8]) -> Option<Zeroizing<Vec<u8>>> {
    let (nonce, rest) = sealed.split_at_checked(NONCE_LEN)?;
    let nonce = Nonce::try_assume_unique_for_key(nonce).ok()?;
    let mut rest = Zeroizing::new(rest.to_vec());
    let length = key
        .open_in_place(nonce, Aad::from(bound_to), &mut rest)
        .ok()?
        .len();
    rest.truncate(length);
    Some(rest)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::entropy::SystemEntropy;

    fn recorder(secret: u8) -> Recorder {
        let secret = AuditSecret::new(&[secret; KEY]).expect("32 bytes");
        Recorder::new(&secret, Arc::new(SystemEntropy)).expect("a recorder")
    }

    fn details() -> Details {
        Details {
            address: Some([203, 0, 113, 9].into()),
            user_agent: Some("curl/8.5".to_owned()),
        }
    }

    /// ASVS 11.3.2, 11.3.3, 14.2.7.
    #[test]
    fn details_open_with_their_persons_key_in_their_record_only() {
        let recorder_of_ours = recorder(7);
        let now = Timestamp::from_millis(1_800_000_000_000);
        let [ann, bob] = [(); 2].map(|()| UserId::fresh(now, &SystemEntropy));
        let [one, two] = [(); 2].map(|()| AuditId::fresh(now, &SystemEntropy));
        let key = recorder_of_ours.fresh_key(ann).expect("a key");
        let stored = recorder_of_ours
            .conceal(one, ann, &key, &details())
            .expect("encrypted");
        let text = String::from_utf8_lossy(&stored);
        assert!(!text.contains("203.0.113.9") && !text.contains("curl"));
        let read = |recorder: &Recorder, record, person, key| {
            recorder.reveal(record, Some((person, key)), &stored)
        };
        assert_eq!(read(&recorder_of_ours, one, ann, &key), Some(details()));
        assert_eq!(read(&recorder_of_ours, two, ann, &key), None);
        assert_eq!(read(&recorder_of_ours, one, bob, &key), None);
        assert_eq!(read(&recorder(8), one, ann, &key), None);
        let another = recorder_of_ours.fresh_key(ann).expect("a key");
        assert_eq!(read(&recorder_of_ours, one, ann, &another), None);
        assert_eq!(recorder_of_ours.reveal(one, None, &stored), None);
        let mut changed = stored.clone();
        changed[NONCE_LEN] ^= 1;
        assert_eq!(
            recorder_of_ours.reveal(one, Some((ann, &key)), &changed),
            None
        );
    }

    #[test]
    fn records_of_one_moment_sort_as_they_were_made() {
        let recorder = recorder(7);
        let now = Timestamp::from_millis(1_800_000_000_000);
        let made: Vec<AuditId> = (0..300).map(|_| recorder.fresh_id(now)).collect();
        assert!(made.is_sorted());
        assert!(recorder.fresh_id(now.plus(crate::clock::Span::millis(1))) > made[299]);
    }

    #[test]
    fn details_of_nobody_open_without_a_persons_key() {
        let recorder = recorder(7);
        let id = AuditId::fresh(Timestamp::EPOCH, &SystemEntropy);
        let stored = recorder
            .conceal_of_nobody(id, &details())
            .expect("encrypted");
        assert_eq!(recorder.reveal(id, None, &stored), Some(details()));
        assert_eq!(recorder.reveal(id, None, &[]), None);
    }
}
