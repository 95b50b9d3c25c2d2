//! Last seen: gathered in memory, written in batches, never on a request's path.
//!
//! What a crash loses is at most one flush interval of "last seen"; [`crate::model::session::IdleRule`]
//! allows for it, so no session ends early.

use std::{
    collections::HashMap,
    mem,
    sync::{Arc, Mutex, PoisonError},
};

use crate::{
    clock::Timestamp,
    ids::{SessionId, UserId},
    store::{Seen, Store, StoreError, StoreResult},
};

/// Sessions written by one call: few enough for the time that a call has.
const AT_ONCE: usize = 256;

/// Sessions used since the last flush.
#[derive(Clone)]
pub struct Presence {
    seen: Arc<Mutex<HashMap<SessionId, Seen>>>,
    /// Held while writing, so that a flush that comes second waits until the first one's are written.
    writing: Arc<tokio::sync::Mutex<()>>,
    store: Arc<dyn Store>,
}

impl Presence {
    /// Nothing seen yet.
    #[must_use]
    pub fn new(store: Arc<dyn Store>) -> Self {
        Self {
            seen: Arc::default(),
            writing: Arc::default(),
            store,
        }
    }

    /// Notes that a session is used at `at`.
    pub fn note(&self, user_id: UserId, session_id: SessionId, at: Timestamp) {
        self.merge([Seen {
            user_id,
            session_id,
            at,
        }]);
    }

    /// Writes down what was gathered. While the database is away it is kept for the next time; what
    /// the database refuses is not.
    ///
    /// # Errors
    /// As [`Store::note_seen`].
    pub async fn flush(&self) -> StoreResult<()> {
        let _writing = self.writing.lock().await;
        let gathered = mem::take(&mut *self.seen.lock().unwrap_or_else(PoisonError::into_inner));
        if gathered.is_empty() {
            return Ok(());
        }
        let mut seen: Vec<Seen> = gathered.into_values().collect();
        self.store.arrange_seen(&mut seen);
        let mut outcome = Ok(());
        for (n, chunk) in seen.chunks(AT_ONCE).enumerate() {
            match self.store.note_seen(chunk).await {
                Ok(()) => {}
                Err(away @ StoreError::Unavailable(_)) => {
                    self.merge(seen[n * AT_ONCE..].iter().copied());
                    return Err(away);
                }
                Err(refused) => outcome = Err(refused),
            }
        }
        outcome
    }

    fn merge(&self, more: impl IntoIterator<Item = Seen>) {
        let mut seen = self.seen.lock().unwrap_or_else(PoisonError::into_inner);
        for one in more {
            let entry = seen.entry(one.session_id).or_insert(one);
            entry.at = entry.at.max(one.at);
        }
    }
}
