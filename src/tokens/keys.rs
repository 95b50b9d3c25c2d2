//! Signing keys: several at once, so that they can be changed without logging anybody out.
//!
//! Every key checks tokens as long as it is in the ring; the one whose signing time came last signs.
//! A new key may get a signing time in the future, so that all nodes know it before it is used.

use std::fmt;

use aws_lc_rs::signature::{ECDSA_P256_SHA256_FIXED_SIGNING, EcdsaKeyPair, Ed25519KeyPair};
use base64::{
    Engine,
    engine::general_purpose::{STANDARD, URL_SAFE_NO_PAD},
};
use chrono::{DateTime, Utc};
use jsonwebtoken::{Algorithm, DecodingKey, EncodingKey, Header, jwk::Jwk};
use serde::{Deserialize, Serialize};
use serde_json::{Value, json};

use super::{Claims, TokenKind, counted::CounterKey, mailed::MailKey, ratchet::RefreshKey};
use crate::{
    clock::Timestamp,
    entropy::{Entropy, random_bytes},
    error::{AuthError, AuthResult},
    model::audit::keys::AuditSecret,
    secret::SecretString,
    setting::BadSetting,
};

/// How a key signs; fixed per key (RFC 8725 §3.1).
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub enum KeyAlgorithm {
    /// HMAC with SHA-256 and a 256-bit key: only Doorward itself can check tokens.
    #[serde(rename = "HS256")]
    Hs256,
    /// Ed25519 (RFC 8037): anybody can check with the public key.
    #[serde(rename = "EdDSA")]
    EdDsa,
    /// ECDSA on P-256 with SHA-256: anybody can check with the public key.
    #[serde(rename = "ES256")]
    Es256,
}

impl KeyAlgorithm {
    /// As RFC 7518 and RFC 8037 name it.
    #[must_use]
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Hs256 => "HS256",
            Self::EdDsa => "EdDSA",
            Self::Es256 => "ES256",
        }
    }

    /// The reverse of [`Self::as_str`], exactly.
    #[must_use]
    pub fn parse(text: &str) -> Option<Self> {
        [Self::Hs256, Self::EdDsa, Self::Es256]
            .into_iter()
            .find(|a| a.as_str() == text)
    }

    const fn jwt(self) -> Algorithm {
        match self {
            Self::Hs256 => Algorithm::HS256,
            Self::EdDsa => Algorithm::EdDSA,
            Self::Es256 => Algorithm::ES256,
        }
    }
}

/// The key file: what `doorward key new` writes and `tokens.key_file` names.
#[derive(Debug, Clone, Default, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct KeyFile {
    /// All keys that may check tokens.
    pub keys: Vec<StoredKey>,
    /// 32 bytes in base64 that the keys of the audit trail are derived from. Made with the first key and kept
    /// when keys are retired, for records are kept longer than tokens.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    audit: Option<StoredSecret>,
}

/// 32 bytes in base64; prints `***`.
#[derive(Clone, Serialize, Deserialize)]
#[serde(transparent)]
struct StoredSecret(String);

impl fmt::Debug for StoredSecret {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("***")
    }
}

/// One key of a key file.
#[derive(Clone, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct StoredKey {
    /// Its name in the headers of tokens.
    pub kid: String,
    /// How it signs.
    pub alg: KeyAlgorithm,
    /// From when it signs; it checks tokens at once.
    pub sign_from: DateTime<Utc>,
    /// 32 bytes for HS256, PKCS#8 for the others; in base64.
    key: String,
}

impl fmt::Debug for StoredKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(
            f,
            "{} {} from {}",
            self.kid,
            self.alg.as_str(),
            self.sign_from
        )
    }
}

impl KeyFile {
    /// Reads the text of a key file.
    ///
    /// # Errors
    /// [`BadSetting`] for `tokens.key_file`; never repeats what is in the file.
    pub fn parse(text: &str) -> Result<Self, BadSetting> {
        serde_json::from_str(text).map_err(|e| {
            let problem = format!(
                "is not a key file (line {}, column {})",
                e.line(),
                e.column()
            );
            BadSetting::new(
                "tokens.key_file",
                problem,
                "make one with `doorward key new`",
            )
        })
    }

    /// The file that one HS256 key stands for, given as 32 bytes in base64; its name is derived from
    /// it, so that all nodes with the same key agree.
    ///
    /// # Errors
    /// [`BadSetting`] for `tokens.key` when it is not base64 or not 256 bits (RFC 8725 §3.5,
    /// ASVS 11.2.3).
    pub fn single(key: &SecretString) -> Result<Self, BadSetting> {
        let remedy = "set 32 random bytes in base64, e.g. from `openssl rand -base64 32`, or use tokens.key_file";
        let bytes = key.base64_bytes();
        let bytes = bytes.ok_or_else(|| BadSetting::new("tokens.key", "is not base64", remedy))?;
        if bytes.len() != 32 {
            return Err(BadSetting::new(
                "tokens.key",
                format!("is {} bytes long instead of 32", bytes.len()),
                remedy,
            ));
        }
        let name = aws_lc_rs::hmac::sign(
            &aws_lc_rs::hmac::Key::new(aws_lc_rs::hmac::HMAC_SHA256, &bytes),
            b"doorward kid",
        );
        let stored = StoredKey {
            kid: URL_SAFE_NO_PAD.encode(&name.as_ref()[..9]),
            alg: KeyAlgorithm::Hs256,
            sign_from: DateTime::UNIX_EPOCH,
            key: STANDARD.encode(&*bytes),
        };
        Ok(Self {
            keys: vec![stored],
            audit: None,
        })
    }

    /// The text to write; it is secret.
    #[must_use]
    pub fn to_text(&self) -> SecretString {
        SecretString::new(format!("{:#}\n", json!(self)))
    }

    /// Adds a fresh key that signs from `sign_from` on, and says its name.
    ///
    /// # Errors
    /// [`AuthError::Internal`] when the cryptographic library refuses.
    pub fn add(
        &mut self,
        alg: KeyAlgorithm,
        now: Timestamp,
        sign_from: Timestamp,
        entropy: &dyn Entropy,
    ) -> AuthResult<String> {
        let day = now.to_datetime().format("%Y-%m-%d");
        let kid = format!(
            "{day}-{}",
            URL_SAFE_NO_PAD.encode(random_bytes::<6>(entropy))
        );
        let key = STANDARD.encode(fresh_key(alg, entropy)?.as_slice());
        if self.keys.is_empty() && self.audit.is_none() {
            let secret = zeroize::Zeroizing::new(random_bytes::<32>(entropy));
            self.audit = Some(StoredSecret(STANDARD.encode(*secret)));
        }
        self.keep_audit_secret();
        self.keys.push(StoredKey {
            kid: kid.clone(),
            alg,
            sign_from: sign_from.to_datetime(),
            key,
        });
        Ok(kid)
    }

    /// Takes a key out; its tokens are refused from then on. False if there is none of that name.
    pub fn retire(&mut self, kid: &str) -> bool {
        self.keep_audit_secret();
        let before = self.keys.len();
        self.keys.retain(|key| key.kid != kid);
        self.keys.len() < before
    }

    /// Writes down what the audit trail's keys are derived from, before the key goes that it would otherwise be
    /// taken from.
    fn keep_audit_secret(&mut self) {
        if self.audit.is_none()
            && let Ok(secret) = audit_secret(self)
        {
            self.audit = Some(StoredSecret(STANDARD.encode(secret.expose())));
        }
    }

    /// The name of the key that signs at `now`.
    #[must_use]
    pub fn signing(&self, now: Timestamp) -> Option<&str> {
        let ready = self
            .keys
            .iter()
            .filter(|k| Timestamp::from(k.sign_from) <= now);
        ready.max_by_key(|k| k.sign_from).map(|k| k.kid.as_str())
    }

    /// The first HS256 key that somebody could guess, by name, and why; random keys never look like
    /// that (ASVS 11.5.1).
    #[must_use]
    pub fn guessable(&self) -> Option<(&str, &'static str)> {
        let symmetric = self.keys.iter().filter(|k| k.alg == KeyAlgorithm::Hs256);
        symmetric.into_iter().find_map(|stored| {
            let bytes = zeroize::Zeroizing::new(STANDARD.decode(&stored.key).ok()?);
            Some((stored.kid.as_str(), why_guessable(&bytes)?))
        })
    }
}

/// Why 32 bytes do not look random. Of random keys fewer than one in 10¹² would be suspected.
fn why_guessable(bytes: &[u8]) -> Option<&'static str> {
    let steps: std::collections::BTreeSet<u8> = bytes
        .windows(2)
        .map(|pair| pair[1].wrapping_sub(pair[0]))
        .collect();
    let distinct: std::collections::BTreeSet<u8> = bytes.iter().copied().collect();
    if steps.len() <= 2 {
        Some("its bytes follow a pattern")
    } else if distinct.len() < 16 {
        Some("its bytes repeat")
    } else if bytes.iter().all(|b| (b' '..=b'~').contains(b)) {
        Some("it is text, not random bytes")
    } else {
        None
    }
}

fn fresh_key(alg: KeyAlgorithm, entropy: &dyn Entropy) -> AuthResult<zeroize::Zeroizing<Vec<u8>>> {
    let refused = |()| AuthError::Internal("the cryptographic library refused a fresh key".into());
    let seed = zeroize::Zeroizing::new(random_bytes::<32>(entropy));
    let bytes = match alg {
        KeyAlgorithm::Hs256 => seed.to_vec(),
        KeyAlgorithm::EdDsa => {
            let pair = Ed25519KeyPair::from_seed_unchecked(&*seed).map_err(|_| refused(()))?;
            pair.to_pkcs8v1()
                .map_err(|_| refused(()))?
                .as_ref()
                .to_vec()
        }
        KeyAlgorithm::Es256 => {
            use aws_lc_rs::agreement::{ECDH_P256, PrivateKey};
            let private =
                PrivateKey::from_private_key(&ECDH_P256, &*seed).map_err(|_| refused(()))?;
            let public = private.compute_public_key().map_err(|_| refused(()))?;
            let pair = EcdsaKeyPair::from_private_key_and_public_key(
                &ECDSA_P256_SHA256_FIXED_SIGNING,
                &*seed,
                public.as_ref(),
            )
            .map_err(|_| refused(()))?;
            pair.to_pkcs8v1()
                .map_err(|_| refused(()))?
                .as_ref()
                .to_vec()
        }
    };
    Ok(zeroize::Zeroizing::new(bytes))
}

/// The keys that may check tokens, and which of them signs.
pub struct KeyRing {
    keys: Vec<Key>,
    jwks: Value,
    audit: AuditSecret,
}

struct Key {
    alg: KeyAlgorithm,
    kid: String,
    sign_from: Timestamp,
    access: Heading,
    cookie: Heading,
    encoding: EncodingKey,
    decoding: DecodingKey,
    refresh: RefreshKey,
    mail: MailKey,
    counters: CounterKey,
}

impl Key {
    fn heading(&self, kind: TokenKind) -> &Heading {
        match kind {
            TokenKind::Access => &self.access,
            TokenKind::Cookie => &self.cookie,
        }
    }
}

/// How every token of one key and one kind begins.
struct Heading {
    header: Header,
    encoded: String,
}

impl Heading {
    fn new(stored: &StoredKey, kind: TokenKind) -> Result<Self, &'static str> {
        let mut header = Header::new(stored.alg.jwt());
        header.typ = Some(kind.as_str().to_owned());
        header.kid = Some(stored.kid.clone());
        let json = serde_json::to_vec(&header).map_err(|_| "cannot be named in a header")?;
        Ok(Self {
            header,
            encoded: URL_SAFE_NO_PAD.encode(json),
        })
    }
}

impl KeyRing {
    /// A ring of one HS256 key, given as 32 bytes in base64.
    ///
    /// # Errors
    /// As [`KeyFile::single`].
    pub fn single(key: &SecretString) -> Result<Self, BadSetting> {
        Self::load(&KeyFile::single(key)?, "tokens.key")
    }

    /// The ring of a key file.
    ///
    /// # Errors
    /// [`BadSetting`] for `tokens.key_file`.
    pub fn from_file(file: &KeyFile) -> Result<Self, BadSetting> {
        Self::load(file, "tokens.key_file")
    }

    fn load(file: &KeyFile, setting: &str) -> Result<Self, BadSetting> {
        let remedy = "make keys with `doorward key new`";
        if file.keys.is_empty() {
            return Err(BadSetting::new(setting, "holds no key", remedy));
        }
        let mut keys: Vec<Key> = Vec::with_capacity(file.keys.len());
        let mut public = Vec::new();
        for stored in &file.keys {
            let bad = |problem: &str| {
                BadSetting::new(setting, format!("key `{}` {problem}", stored.kid), remedy)
            };
            let (key, jwk) = open(stored).map_err(bad)?;
            if keys.iter().any(|k| k.kid == key.kid) {
                return Err(bad("stands there twice"));
            }
            keys.push(key);
            public.extend(jwk);
        }
        let audit = audit_secret(file).map_err(|why| BadSetting::new(setting, why, remedy))?;
        Ok(Self {
            keys,
            jwks: json!({ "keys": public }),
            audit,
        })
    }

    /// What the keys of the audit trail are derived from, unless `audit.key` says otherwise: a secret of its
    /// own, or, in a file without one, the oldest key.
    #[must_use]
    pub fn audit_secret(&self) -> &AuditSecret {
        &self.audit
    }

    /// The public keys as a JWK set.
    #[must_use]
    pub fn jwks(&self) -> &Value {
        &self.jwks
    }

    /// The key that signs at `now`.
    fn signing(&self, now: Timestamp) -> AuthResult<&Key> {
        let ready = self.keys.iter().filter(|key| key.sign_from <= now);
        ready
            .max_by_key(|key| key.sign_from)
            .ok_or_else(|| AuthError::Internal("no key may sign yet".into()))
    }

    /// What makes refresh tokens at `now`.
    pub(super) fn refresh_key(&self, now: Timestamp) -> AuthResult<&RefreshKey> {
        self.signing(now).map(|key| &key.refresh)
    }

    /// What has made refresh tokens that are still good.
    pub(super) fn refresh_keys(&self) -> impl Iterator<Item = &RefreshKey> {
        self.keys.iter().map(|key| &key.refresh)
    }

    /// What makes the secrets of a letter that was caused then: with the key that signed, or, if that has
    /// been retired, with the oldest one that is left. Every node with the same ring finds the same one.
    pub(super) fn mail_key(&self, caused_at: Timestamp) -> AuthResult<&MailKey> {
        let oldest = || self.keys.iter().min_by_key(|key| key.sign_from);
        let key = self.signing(caused_at).ok().or_else(oldest);
        key.map(|key| &key.mail)
            .ok_or_else(|| AuthError::Internal("there is no key".into()))
    }

    /// What has made codes that are still good.
    pub(super) fn mail_keys(&self) -> impl Iterator<Item = &MailKey> {
        self.keys.iter().map(|key| &key.mail)
    }

    /// What counters are filed under: derived from the oldest key, so that it stays when others are added.
    pub(super) fn counter_key(&self) -> AuthResult<&CounterKey> {
        let oldest = self.keys.iter().min_by_key(|key| key.sign_from);
        oldest
            .map(|key| &key.counters)
            .ok_or_else(|| AuthError::Internal("there is no key".into()))
    }

    pub(super) fn sign(
        &self,
        kind: TokenKind,
        claims: &Claims,
        now: Timestamp,
    ) -> AuthResult<SecretString> {
        let key = self.signing(now)?;
        let token = jsonwebtoken::encode(&key.heading(kind).header, claims, &key.encoding);
        token
            .map(SecretString::new)
            .map_err(|e| AuthError::Internal(format!("signing failed: {:?}", e.kind())))
    }

    pub(super) fn verify(
        &self,
        kind: TokenKind,
        header: &str,
        message: &str,
        signature: &str,
    ) -> AuthResult<()> {
        let key = self
            .keys
            .iter()
            .find(|key| key.heading(kind).encoded == header)
            .ok_or(AuthError::TokenInvalid("unknown header or key"))?;
        match jsonwebtoken::crypto::verify(
            signature,
            message.as_bytes(),
            &key.decoding,
            key.alg.jwt(),
        ) {
            Ok(true) => Ok(()),
            Ok(false) | Err(_) => Err(AuthError::TokenInvalid("wrong signature")),
        }
    }
}

fn audit_secret(file: &KeyFile) -> Result<AuditSecret, &'static str> {
    if let Some(own) = &file.audit {
        let bytes = STANDARD.decode(&own.0).map(zeroize::Zeroizing::new);
        let secret = bytes.ok().and_then(|bytes| AuditSecret::new(&bytes));
        return secret.ok_or("has an `audit` that is not 32 bytes in base64");
    }
    let oldest = file.keys.iter().min_by_key(|key| key.sign_from);
    let bytes = oldest.and_then(|key| STANDARD.decode(&key.key).ok());
    let bytes = bytes.map(zeroize::Zeroizing::new).ok_or("holds no key")?;
    AuditSecret::derived(&bytes).map_err(|_| "holds a key that cannot be derived from")
}

fn open(stored: &StoredKey) -> Result<(Key, Option<Value>), &'static str> {
    let bytes = STANDARD.decode(&stored.key).map_err(|_| "is not base64")?;
    let encoding = match stored.alg {
        KeyAlgorithm::Hs256 if bytes.len() != 32 => return Err("is not 32 bytes long"),
        KeyAlgorithm::Hs256 => EncodingKey::from_secret(&bytes),
        KeyAlgorithm::EdDsa => EncodingKey::from_ed_der(&bytes),
        KeyAlgorithm::Es256 => EncodingKey::from_ec_der(&bytes),
    };
    let (decoding, jwk) = if stored.alg == KeyAlgorithm::Hs256 {
        (DecodingKey::from_secret(&bytes), None)
    } else {
        let jwk = Jwk::from_encoding_key(&encoding, stored.alg.jwt())
            .map_err(|_| "is not a PKCS#8 key of its algorithm")?;
        let mut public = json!(jwk);
        public["kid"] = json!(stored.kid);
        public["use"] = json!("sig");
        (
            DecodingKey::from_jwk(&jwk).map_err(|_| "is not a key of its algorithm")?,
            Some(public),
        )
    };
    let refresh = RefreshKey::derive(&bytes).map_err(|_| "cannot be derived from")?;
    let mail = MailKey::derive(&bytes).map_err(|_| "cannot be derived from")?;
    let counters = CounterKey::derive(&bytes).map_err(|_| "cannot be derived from")?;
    Ok((
        Key {
            alg: stored.alg,
            kid: stored.kid.clone(),
            sign_from: stored.sign_from.into(),
            access: Heading::new(stored, TokenKind::Access)?,
            cookie: Heading::new(stored, TokenKind::Cookie)?,
            encoding,
            decoding,
            refresh,
            mail,
            counters,
        },
        jwk,
    ))
}
