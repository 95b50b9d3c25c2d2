//! Refresh tokens: each good for one use (RFC 9700 §4.14.2).

use zeroize::Zeroizing;

use super::{
    Tokens,
    ratchet::{self, RefreshToken, SECRET},
};
use crate::{
    entropy::random_bytes,
    error::{AuthError, AuthResult},
    ids::{SessionId, UserId},
    model::token::SecretHash,
};

/// Whether a text presents itself as a refresh token.
#[must_use]
pub fn is_refresh_token(text: &str) -> bool {
    text.starts_with(ratchet::PREFIX)
}

impl Tokens {
    /// The first refresh token of a session: 256 random bits (ASVS 7.2.3).
    ///
    /// # Errors
    /// [`AuthError::Internal`] when no key may sign yet.
    pub fn first_refresh(&self, user: UserId, session: SessionId) -> AuthResult<RefreshToken> {
        let secret = Zeroizing::new(random_bytes::<SECRET>(&*self.entropy));
        let key = self.ring.refresh_key(self.clock.now())?;
        Ok(key.first(user, session, &secret))
    }

    /// Reads a refresh token as a client presents it, without asking the database.
    ///
    /// # Errors
    /// [`AuthError::TokenInvalid`] for whatever was not made with a key of the ring.
    pub fn read_refresh(&self, text: &str) -> AuthResult<RefreshToken> {
        ratchet::read(text, self.ring.refresh_keys())
            .ok_or(AuthError::TokenInvalid("not a refresh token of ours"))
    }

    /// The token that follows a genuine one; the same each time, as long as the same key signs.
    ///
    /// # Errors
    /// [`AuthError::Internal`] when no key may sign yet.
    pub fn successor(&self, of: &RefreshToken) -> AuthResult<RefreshToken> {
        Ok(self.ring.refresh_key(self.clock.now())?.successor(of))
    }

    /// The successor that has this hash, whichever key made it. None when that key has been retired.
    #[must_use]
    pub fn successor_with(&self, of: &RefreshToken, hash: SecretHash) -> Option<RefreshToken> {
        let mut candidates = self.ring.refresh_keys().map(|key| key.successor(of));
        candidates.find(|candidate| candidate.hash() == hash)
    }
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use base64::{Engine, engine::general_purpose::URL_SAFE_NO_PAD};

    use super::*;
    use crate::{
        clock::{ManualClock, Span, Timestamp},
        entropy::SystemEntropy,
        tokens::{KeyAlgorithm, KeyRing, keys::KeyFile},
    };

    const NOW: Timestamp = Timestamp::from_millis(1_800_000_000_000);

    fn file(algorithms: &[KeyAlgorithm]) -> KeyFile {
        let mut file = KeyFile::default();
        for (n, alg) in (0..).zip(algorithms) {
            let from = NOW.plus(Span::secs(n));
            file.add(*alg, NOW, from, &SystemEntropy).expect("added");
        }
        file
    }

    fn tokens(file: &KeyFile, now: Timestamp) -> Tokens {
        let ring = KeyRing::from_file(file).expect("a ring");
        let clock = Arc::new(ManualClock::at(now));
        Tokens::new(ring, "i", "a", clock, Arc::new(SystemEntropy))
    }

    fn place(token: &RefreshToken) -> (UserId, SessionId, i64) {
        (token.user(), token.session(), token.generation())
    }

    fn first(tokens: &Tokens) -> RefreshToken {
        let user = UserId::fresh(NOW, &SystemEntropy);
        let session = SessionId::fresh(NOW, &SystemEntropy);
        tokens.first_refresh(user, session).expect("a token")
    }

    /// ASVS 7.2.3, 11.5.1.
    #[test]
    fn a_token_reads_back_as_what_it_was_made_for() {
        for alg in [
            KeyAlgorithm::Hs256,
            KeyAlgorithm::EdDsa,
            KeyAlgorithm::Es256,
        ] {
            let tokens = tokens(&file(&[alg]), NOW);
            let made = first(&tokens);
            let next = tokens.successor(&made).expect("a token");
            for token in [&made, &next] {
                let read = tokens.read_refresh(token.expose()).expect("genuine");
                assert_eq!(place(&read), place(token));
                assert_eq!(read.hash(), token.hash());
            }
            assert_eq!((made.generation(), next.generation()), (0, 1));
            assert_ne!(made.expose(), next.expose());
            assert_ne!(first(&tokens).expose(), made.expose());
            let printed = format!("{made:?}");
            assert!(!printed.contains(made.expose()), "{printed}");
        }
    }

    #[test]
    fn a_presented_token_has_the_same_successor_as_the_one_that_was_made() {
        let tokens = tokens(&file(&[KeyAlgorithm::Hs256]), NOW);
        let made = first(&tokens);
        let read = tokens.read_refresh(made.expose()).expect("genuine");
        let next = tokens.successor(&made).expect("a token");
        assert_eq!(
            tokens.successor(&read).expect("a token").expose(),
            next.expose()
        );
        let again = tokens.successor_with(&read, next.hash()).expect("known");
        assert_eq!(again.expose(), next.expose());
        assert!(tokens.successor_with(&read, made.hash()).is_none());
    }

    /// A change of keys logs nobody out, and does not lose a reply either.
    #[test]
    fn the_successor_is_found_again_after_another_key_began_to_sign() {
        let keys = file(&[KeyAlgorithm::Hs256, KeyAlgorithm::EdDsa]);
        let (before, after) = (tokens(&keys, NOW), tokens(&keys, NOW.plus(Span::secs(5))));
        let made = first(&before);
        let next = before.successor(&made).expect("a token");
        assert_ne!(
            after.successor(&made).expect("a token").expose(),
            next.expose()
        );
        let again = after.successor_with(&made, next.hash()).expect("known");
        assert_eq!(again.expose(), next.expose());
    }

    #[test]
    fn what_another_key_made_is_refused() {
        let (ours, theirs) = (
            tokens(&file(&[KeyAlgorithm::Hs256]), NOW),
            tokens(&file(&[KeyAlgorithm::Hs256]), NOW),
        );
        let foreign = first(&theirs);
        assert!(ours.read_refresh(foreign.expose()).is_err());
    }

    /// ASVS 11.3.3.
    #[test]
    fn no_single_bit_can_be_changed() {
        let tokens = tokens(&file(&[KeyAlgorithm::Hs256]), NOW);
        let made = first(&tokens);
        let bytes = URL_SAFE_NO_PAD
            .decode(&made.expose()[ratchet::PREFIX.len()..])
            .expect("base64url");
        for bit in 0..bytes.len() * 8 {
            let mut changed = bytes.clone();
            changed[bit / 8] ^= 1 << (bit % 8);
            let text = format!("{}{}", ratchet::PREFIX, URL_SAFE_NO_PAD.encode(&changed));
            assert!(tokens.read_refresh(&text).is_err(), "bit {bit}");
        }
    }

    #[test]
    fn junk_is_refused() {
        let tokens = tokens(&file(&[KeyAlgorithm::Hs256]), NOW);
        let made = first(&tokens);
        let long = format!("{}A", made.expose());
        let padded = format!("{}=", made.expose());
        let bare = &made.expose()[ratchet::PREFIX.len()..];
        for text in [
            "",
            "dwr_",
            "dwr_AAAA",
            "dwr_ü",
            bare,
            &long,
            &padded,
            &"dwr_A".repeat(9000),
        ] {
            assert!(tokens.read_refresh(text).is_err(), "{text:.40}");
        }
    }
}
