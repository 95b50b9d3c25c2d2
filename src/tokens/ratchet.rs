//! What a refresh token is made of, and how each leads to one successor.
//!
//! A token says whose session it renews and which generation it is, and carries 32 secret bytes and a
//! keyed tag. The tag refuses junk before the database is asked and proves that an old token was really
//! ours. The next secret is computed from the present one, so a client that lost the reply can be given
//! the same successor again although only hashes are stored.

use aws_lc_rs::{hkdf, hmac};
use base64::{Engine, engine::general_purpose::URL_SAFE_NO_PAD};
use zeroize::Zeroizing;

use crate::{
    ids::{SessionId, UserId},
    model::token::SecretHash,
    secret::SecretString,
};

/// What stands in front of every refresh token, so that a leaked one is recognised by scanners.
pub(super) const PREFIX: &str = "dwr_";
/// The only layout there is.
const VERSION: u8 = 1;
/// Version, key, user, session and generation.
const HEAD: usize = 1 + 4 + 16 + 16 + 8;
pub(super) const SECRET: usize = 32;
const TAG: usize = 16;
const LENGTH: usize = HEAD + SECRET + TAG;

/// The keys of refresh tokens, derived from one key of the ring (RFC 5869).
pub(super) struct RefreshKey {
    id: [u8; 4],
    ratchet: hmac::Key,
    tag: hmac::Key,
}

impl RefreshKey {
    /// Derives the keys; what `key` itself is used for cannot be told from them, nor they from it.
    pub(super) fn derive(key: &[u8]) -> Result<Self, aws_lc_rs::error::Unspecified> {
        let root = hkdf::Salt::new(hkdf::HKDF_SHA256, b"doorward refresh tokens").extract(key);
        let expand = |purpose: &[u8]| -> Result<_, aws_lc_rs::error::Unspecified> {
            let mut bytes = Zeroizing::new([0; 32]);
            root.expand(&[purpose], hkdf::HKDF_SHA256)?
                .fill(&mut *bytes)?;
            Ok(bytes)
        };
        let id = expand(b"key id")?;
        Ok(Self {
            id: [id[0], id[1], id[2], id[3]],
            ratchet: hmac::Key::new(hmac::HMAC_SHA256, &*expand(b"ratchet")?),
            tag: hmac::Key::new(hmac::HMAC_SHA256, &*expand(b"tag")?),
        })
    }

    /// The first token of a session.
    pub(super) fn first(
        &self,
        user: UserId,
        session: SessionId,
        secret: &[u8; SECRET],
    ) -> RefreshToken {
        let of = Place {
            user,
            session,
            generation: 0,
        };
        self.seal(of, secret)
    }

    fn seal(&self, of: Place, secret: &[u8; SECRET]) -> RefreshToken {
        let mut bytes = Zeroizing::new(Vec::with_capacity(LENGTH));
        bytes.push(VERSION);
        bytes.extend_from_slice(&self.id);
        bytes.extend_from_slice(of.user.as_uuid().as_bytes());
        bytes.extend_from_slice(of.session.as_uuid().as_bytes());
        bytes.extend_from_slice(&of.generation.to_be_bytes());
        bytes.extend_from_slice(secret);
        let tag = hmac::sign(&self.tag, &bytes);
        bytes.extend_from_slice(&tag.as_ref()[..TAG]);
        let body = Zeroizing::new(URL_SAFE_NO_PAD.encode(&*bytes));
        RefreshToken {
            of,
            secret: Zeroizing::new(*secret),
            text: SecretString::new(format!("{PREFIX}{}", *body)),
        }
    }

    /// The token that follows.
    pub(super) fn successor(&self, of: &RefreshToken) -> RefreshToken {
        let next = Place {
            generation: of.of.generation.saturating_add(1),
            ..of.of
        };
        let mut context = hmac::Context::with_key(&self.ratchet);
        context.update(next.session.as_uuid().as_bytes());
        context.update(&next.generation.to_be_bytes());
        context.update(&*of.secret);
        let mut secret = Zeroizing::new([0; SECRET]);
        secret.copy_from_slice(context.sign().as_ref());
        self.seal(next, &secret)
    }
}

/// Which session a refresh token renews, and how often that was renewed before.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
struct Place {
    user: UserId,
    session: SessionId,
    generation: i64,
}

/// A genuine refresh token: made here, or presented with the right tag. Whether it is good for
/// anything is for the database to say.
#[derive(Debug, Clone)]
pub struct RefreshToken {
    of: Place,
    secret: Zeroizing<[u8; SECRET]>,
    text: SecretString,
}

impl RefreshToken {
    /// Whose session.
    #[must_use]
    pub const fn user(&self) -> UserId {
        self.of.user
    }

    /// Which session.
    #[must_use]
    pub const fn session(&self) -> SessionId {
        self.of.session
    }

    /// How many tokens of the session came before it.
    #[must_use]
    pub const fn generation(&self) -> i64 {
        self.of.generation
    }

    /// The text for the client; whoever calls this puts it nowhere else.
    #[must_use]
    pub fn expose(&self) -> &str {
        self.text.expose()
    }

    /// What is stored.
    #[must_use]
    pub fn hash(&self) -> SecretHash {
        SecretHash::of(self.expose())
    }
}

/// Reads a token that one of these keys has made; `None` for anything else.
pub(super) fn read<'a>(
    text: &str,
    mut keys: impl Iterator<Item = &'a RefreshKey>,
) -> Option<RefreshToken> {
    let body = text.strip_prefix(PREFIX)?;
    // The longest text that can be one; decoding more would be work for nothing.
    if body.len() > LENGTH.div_ceil(3) * 4 {
        return None;
    }
    let bytes = Zeroizing::new(URL_SAFE_NO_PAD.decode(body).ok()?);
    if bytes.len() != LENGTH || bytes[0] != VERSION {
        return None;
    }
    let (sealed, tag) = bytes.split_at(HEAD + SECRET);
    let genuine = keys.any(|key| {
        let right = hmac::sign(&key.tag, sealed);
        key.id == sealed[1..5]
            && aws_lc_rs::constant_time::verify_slices_are_equal(&right.as_ref()[..TAG], tag)
                .is_ok()
    });
    if !genuine {
        return None;
    }
    let id = |at: usize| uuid::Uuid::from_slice(&sealed[at..at + 16]).ok();
    let mut secret = Zeroizing::new([0; SECRET]);
    secret.copy_from_slice(&sealed[HEAD..]);
    Some(RefreshToken {
        of: Place {
            user: id(5)?.into(),
            session: id(21)?.into(),
            generation: i64::from_be_bytes(sealed[37..HEAD].try_into().ok()?),
        },
        secret,
        text: SecretString::from(text),
    })
}
