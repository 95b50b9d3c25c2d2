//! Last seen: gathered in memory, written in batches, never on a request's path.
//!
//! What a crash loses is at most one flush interval of "last seen"; [`crate::model::session::IdleRule`]
//! allows for it, so no session ends early.

use std::{
    collections::HashMap,
    sync::{Arc, Mutex, MutexGuard, PoisonError},
    time::Duration,
};

use tokio::time::sleep;

use crate::{
    clock::{Stopwatch, Timestamp},
    ids::{SessionId, UserId},
    store::{Seen, Store, StoreError, StoreResult},
};

/// Sessions used since the last flush.
#[derive(Clone)]
pub struct Presence {
    seen: Arc<Mutex<HashMap<SessionId, Seen>>>,
    /// Held while a part is written, so that a flush that comes second waits until the first one's are written.
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
        self.flush_over(Duration::ZERO).await
    }

    /// As [`Self::flush`], spread over this time, so that requests hardly notice. What is seen meanwhile is written
    /// where its turn is still to come, and whoever calls [`Self::flush`] writes the rest at once.
    ///
    /// # Errors
    /// As [`Store::note_seen`].
    pub async fn flush_over(&self, time: Duration) -> StoreResult<()> {
        let mut seen: Vec<Seen> = self.seen().values().copied().collect();
        let at_once = self.store.arrange_seen(&mut seen).max(1);
        let parts = u32::try_from(seen.chunks(at_once).len()).unwrap_or(u32::MAX);
        let (watch, share) = (Stopwatch::start(), time / parts.max(1));
        let mut outcome = Ok(());
        for (n, part) in (0..).zip(seen.chunks(at_once)) {
            let early = (share * n).saturating_sub(watch.elapsed());
            // A timer takes a millisecond even for no time.
            if !early.is_zero() {
                sleep(early).await;
            }
            match self.write(part).await {
                Err(away @ StoreError::Unavailable(_)) => return Err(away),
                Err(refused) => outcome = Err(refused),
                Ok(()) => {}
            }
        }
        // What another flush has taken is written once that one is done.
        drop(self.writing.lock().await);
        outcome
    }

    /// Writes those of a part that nobody else has written meanwhile, as they are known by now.
    async fn write(&self, part: &[Seen]) -> StoreResult<()> {
        let _writing = self.writing.lock().await;
        let part: Vec<Seen> = {
            let mut seen = self.seen();
            let taken = part.iter().map(|one| seen.remove(&one.session_id));
            taken.flatten().collect()
        };
        if part.is_empty() {
            return Ok(());
        }
        let written = self.store.note_seen(&part).await;
        if let Err(StoreError::Unavailable(_)) = &written {
            self.merge(part);
        }
        written
    }

    fn seen(&self) -> MutexGuard<'_, HashMap<SessionId, Seen>> {
        self.seen.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn merge(&self, more: impl IntoIterator<Item = Seen>) {
        let mut seen = self.seen();
        for one in more {
            let entry = seen.entry(one.session_id).or_insert(one);
            entry.at = entry.at.max(one.at);
        }
    }
}
