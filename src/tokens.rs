//! Tokens: signed or tagged with a ring of keys, checked without I/O.
//!
//! A token says which user and which session; whether that session still lives is for the database to
//! say. Keys come as a [`KeyRing`]; where the ring is kept is left to the configuration.

mod counted;
mod evidence;
pub mod keys;
mod mailed;
mod ratchet;
pub mod refresh;

use std::sync::Arc;

use base64::{Engine, engine::general_purpose::URL_SAFE_NO_PAD};
use serde::{Deserialize, Serialize};

pub(crate) use self::evidence::{parse_address, proof};
pub use self::{
    evidence::Evidence,
    keys::{KeyAlgorithm, KeyRing},
    mailed::{CodeScope, MailedSecrets},
    ratchet::RefreshToken,
};
use crate::{
    clock::{Clock, Span, Timestamp},
    entropy::Entropy,
    error::{AuthError, AuthResult},
    ids::{SessionId, TokenId, UserId},
    secret::SecretString,
    setting::BadSetting,
};

/// How far the clocks of issuer and checker may differ.
const LEEWAY: Span = Span::secs(5);
/// Longest token looked at, in bytes: ours stay far below (ASVS 4.2.5).
const LONGEST_TOKEN: usize = 4096;
/// No token of ours lives longer.
const LONGEST_LIFE_SECS: i64 = 10 * 366 * 24 * 3600;

/// `[tokens]`: who issues access tokens, for whom, and with which keys.
#[derive(Debug, Clone, Default, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct TokenSettings {
    /// The `iss` of tokens; empty (default) is `public_url`.
    pub issuer: String,
    /// The `aud` of tokens, compared exactly. Default `doorward`.
    pub audience: String,
    /// One HS256 key: 32 random bytes in base64. For several keys, rotation or other algorithms use
    /// `key_file`.
    pub key: SecretString,
    /// A file with a ring of keys, made by `doorward key new`.
    pub key_file: String,
}

impl TokenSettings {
    /// Checks what can be checked without reading files.
    ///
    /// # Errors
    /// The first [`BadSetting`].
    pub fn check(&self) -> Result<(), BadSetting> {
        if self.audience.is_empty() {
            return Err(BadSetting::new(
                "tokens.audience",
                "is empty",
                "name the audience of the tokens, e.g. doorward",
            ));
        }
        if !self.key.is_empty() && !self.key_file.is_empty() {
            return Err(BadSetting::new(
                "tokens.key",
                "is set together with tokens.key_file",
                "set only one of the two",
            ));
        }
        Ok(())
    }
}

/// What a signed token is for; one is never taken for the other (RFC 8725 §3.11, ASVS 9.2.2).
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum TokenKind {
    /// A bearer token that lives for minutes.
    Access,
    /// The value of a session cookie, which lives as long as its session.
    Cookie,
}

impl TokenKind {
    /// As the header's `typ` names it; that of access tokens is RFC 9068 §2.1's.
    #[must_use]
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Access => "at+jwt",
            Self::Cookie => "session+jwt",
        }
    }
}

/// Whose token it is, and of which generation.
#[derive(Debug, Clone, Copy)]
pub struct Subject {
    /// The user.
    pub user: UserId,
    /// The session.
    pub session: SessionId,
    /// See [`Claims::generation`].
    pub generation: i64,
}

/// What a signed token says (RFC 9068 §2.2, without anything about the person).
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Claims {
    /// Issuer.
    pub iss: String,
    /// Audience.
    pub aud: String,
    /// The user.
    pub sub: UserId,
    /// The session.
    pub sid: SessionId,
    /// Of an access token: the generation of the refresh token that came with it. Of a cookie: when
    /// its user had last proved who they are, in milliseconds.
    #[serde(rename = "gen", default)]
    pub generation: i64,
    /// Issued at, in seconds.
    pub iat: i64,
    /// Not before, in seconds.
    pub nbf: i64,
    /// Expires at, in seconds.
    pub exp: i64,
    /// The token's own id.
    pub jti: TokenId,
}

impl Claims {
    /// Whether the token is past its time at `now`.
    #[must_use]
    pub fn is_expired(&self, now: Timestamp) -> bool {
        self.exp.saturating_add(LEEWAY.as_secs()) <= now.as_secs()
    }
}

/// A fresh signed token.
#[derive(Debug, Clone)]
pub struct SignedToken {
    /// The JWT. Prints `***`.
    pub token: SecretString,
    /// Seconds it is honoured, at most.
    pub expires_in: i64,
}

/// Issues and checks tokens.
#[derive(Clone)]
pub struct Tokens {
    ring: Arc<KeyRing>,
    issuer: Arc<str>,
    audience: Arc<str>,
    clock: Arc<dyn Clock>,
    entropy: Arc<dyn Entropy>,
}

impl Tokens {
    /// A service for one issuer and audience.
    #[must_use]
    pub fn new(
        ring: KeyRing,
        issuer: &str,
        audience: &str,
        clock: Arc<dyn Clock>,
        entropy: Arc<dyn Entropy>,
    ) -> Self {
        Self {
            ring: Arc::new(ring),
            issuer: issuer.into(),
            audience: audience.into(),
            clock,
            entropy,
        }
    }

    /// The `iss` of the tokens.
    #[must_use]
    pub fn issuer(&self) -> &str {
        &self.issuer
    }

    /// The public keys (RFC 7517 §5); symmetric ones have no public half and are not in it.
    #[must_use]
    pub fn jwks(&self) -> &serde_json::Value {
        self.ring.jwks()
    }

    /// Makes a token for a session, good until `expires_at`, in whole seconds.
    ///
    /// # Errors
    /// [`AuthError::Internal`] when no key may sign yet or signing fails.
    pub fn mint(
        &self,
        kind: TokenKind,
        subject: Subject,
        expires_at: Timestamp,
    ) -> AuthResult<SignedToken> {
        let now = self.clock.now();
        let claims = Claims {
            iss: self.issuer.as_ref().to_owned(),
            aud: self.audience.as_ref().to_owned(),
            sub: subject.user,
            sid: subject.session,
            generation: subject.generation,
            iat: now.as_secs(),
            nbf: now.as_secs(),
            exp: expires_at.as_secs(),
            jti: TokenId::fresh(now, &*self.entropy),
        };
        let token = self.ring.sign(kind, &claims, now)?;
        Ok(SignedToken {
            token,
            expires_in: (claims.exp - claims.iat).max(0),
        })
    }

    /// Checks form, key, signature, issuer, audience and times of a token, but not whether it has
    /// expired: that is [`Claims::is_expired`], asked separately because an expired token may still
    /// log out.
    ///
    /// The header must be, byte for byte, one that this ring writes for this kind. So the algorithm is fixed by the
    /// key (RFC 8725 §3.1), and `none`, `jwk`, `jku`, `x5u`, `crit` or another `typ` never reach a
    /// decision (ASVS 9.1.1, 9.1.2, 9.1.3, 9.2.2).
    ///
    /// # Errors
    /// [`AuthError::TokenInvalid`].
    pub fn verify(&self, kind: TokenKind, token: &str) -> AuthResult<Claims> {
        let invalid = AuthError::TokenInvalid;
        if token.len() > LONGEST_TOKEN {
            return Err(invalid("too long"));
        }
        let (message, signature) = token.rsplit_once('.').ok_or(invalid("not three parts"))?;
        let (header, payload) = message.split_once('.').ok_or(invalid("not three parts"))?;
        if payload.contains('.') {
            return Err(invalid("not three parts"));
        }
        self.ring.verify(kind, header, message, signature)?;
        let bytes = URL_SAFE_NO_PAD
            .decode(payload)
            .map_err(|_| invalid("payload is not base64url"))?;
        let text = String::from_utf8(bytes).map_err(|_| invalid("claims are not UTF-8"))?;
        // serde would take a list of the same values, too.
        if !text.starts_with('{') {
            return Err(invalid("claims are no object"));
        }
        let claims: Claims = serde_json::from_str(&text)
            .map_err(|_| invalid("claims are missing or of a wrong type"))?;
        if *claims.iss != *self.issuer {
            return Err(invalid("another issuer"));
        }
        if *claims.aud != *self.audience {
            return Err(invalid("another audience"));
        }
        let latest_start = self.clock.now().plus(LEEWAY).as_secs();
        if claims.nbf > latest_start || claims.iat > latest_start {
            return Err(invalid("not valid yet"));
        }
        let life = claims
            .exp
            .checked_sub(claims.iat)
            .ok_or(invalid("impossible times"))?;
        if claims.iat < 0 || claims.nbf < 0 || !(0..=LONGEST_LIFE_SECS).contains(&life) {
            return Err(invalid("impossible times"));
        }
        Ok(claims)
    }
}
