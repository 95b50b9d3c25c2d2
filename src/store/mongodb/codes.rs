//! The typed code of a mailed secret and its wrong tries.
//!
//! Decides which fields they are, in `one_time_secrets` and `pending_registrations` alike, when a code is
//! good, how a wrong try is counted and what a new code inherits. Whose code it is, is decided by whoever
//! reads the document.

use mongodb::bson::{Document, doc};

use super::{
    documents::{hash_bson, time_bson},
    rows::{Row, hash, time, whole},
};
use crate::{
    clock::Timestamp,
    model::{
        mail::{CODE_TRIES, CODE_TTL, TRIES_REMEMBERED},
        token::{Proof, SecretHash},
    },
    store::StoreResult,
};

/// A code as stored, and how often a wrong one was tried in its place.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(super) struct Code {
    hash: Option<SecretHash>,
    expires_at: Option<Timestamp>,
    tries: i32,
    tries_since: Option<Timestamp>,
}

impl Code {
    /// As its fields say. Secrets from before there were codes have none of them.
    pub(super) fn read(row: &Row<'_>) -> StoreResult<Self> {
        Ok(Self {
            hash: row.optional("code_hash", hash)?,
            expires_at: row.optional("code_expires_at", time)?,
            tries: row
                .optional("tries", |v| whole(v)?.try_into().ok())?
                .unwrap_or(0),
            tries_since: row.optional("tries_since", time)?,
        })
    }

    /// What a new code inherits: the tries that are remembered.
    pub(super) fn inherited(&self, now: Timestamp) -> Self {
        let since = self.tries_since.filter(|at| *at > remembered_since(now));
        Self {
            tries: since.map_or(0, |_| self.tries),
            tries_since: since,
            ..Self::default()
        }
    }

    /// A new code, if there is one to be and tries are left, with the tries that `self` has.
    pub(super) fn renewed(&self, given: Option<SecretHash>, now: Timestamp) -> Self {
        let hash = given.filter(|_| self.may_be_tried());
        Self {
            hash,
            expires_at: hash.map(|_| now.plus(CODE_TTL)),
            ..self.clone()
        }
    }

    /// Its fields.
    pub(super) fn fields(&self) -> Document {
        doc! {
            "code_hash": self.hash.as_ref().map(hash_bson),
            "code_expires_at": self.expires_at.map(time_bson),
            "tries": self.tries,
            "tries_since": self.tries_since.map(time_bson),
        }
    }

    /// Whether there is one.
    pub(super) const fn exists(&self) -> bool {
        self.hash.is_some()
    }

    /// Whether there are tries left.
    pub(super) const fn may_be_tried(&self) -> bool {
        self.tries < CODE_TRIES
    }

    /// Whether `proof` shows it while it can be used.
    pub(super) fn accepts(&self, proof: &Proof, now: Timestamp) -> bool {
        self.may_be_tried()
            && self.expires_at.is_some_and(|until| until > now)
            && proof.is_code(self.hash)
    }

    /// The update that counts a wrong try. None is forgotten here, or a code could be tried without end.
    pub(super) fn one_try_more(&self, now: Timestamp) -> Document {
        let since = self.tries_since.unwrap_or(now);
        doc! { "$set": { "tries": self.tries + 1, "tries_since": time_bson(since) } }
    }
}

/// A condition on documents whose wrong tries a new code inherits.
pub(super) fn is_remembered(now: Timestamp) -> Document {
    doc! { "$gt": time_bson(remembered_since(now)) }
}

fn remembered_since(now: Timestamp) -> Timestamp {
    now.minus(TRIES_REMEMBERED)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::clock::Span;

    const NOW: Timestamp = Timestamp::from_millis(1_000_000_000_000);

    fn tried(tries: i32, since: Timestamp) -> Code {
        Code {
            tries,
            tries_since: Some(since),
            ..Code::default()
        }
    }

    /// ASVS 6.6.3.
    #[test]
    fn a_code_without_tries_left_is_none() {
        let hash = SecretHash::of("123456");
        let last = tried(CODE_TRIES - 1, NOW).renewed(Some(hash), NOW);
        assert!(last.exists() && last.may_be_tried());
        let none = tried(CODE_TRIES, NOW).renewed(Some(hash), NOW);
        assert!(!none.exists() && none.expires_at.is_none());
        assert_eq!(none.tries, CODE_TRIES);
    }

    #[test]
    fn wrong_tries_are_counted_from_the_first_and_forgotten_only_by_a_new_code() {
        let set = |tries: i32, since| doc! { "$set": { "tries": tries, "tries_since": time_bson(since) } };
        assert_eq!(Code::default().one_try_more(NOW), set(1, NOW));
        let long_ago = NOW.minus(TRIES_REMEMBERED);
        let lately = long_ago.plus(Span::millis(1));
        assert_eq!(tried(2, lately).one_try_more(NOW), set(3, lately));
        assert_eq!(tried(2, long_ago).one_try_more(NOW), set(3, long_ago));
        assert_eq!(tried(2, lately).inherited(NOW), tried(2, lately));
        assert_eq!(tried(2, long_ago).inherited(NOW), Code::default());
    }
}
