//! What metrics ask of MongoDB: counts, and how the driver's connections are used.
//!
//! Decides what is counted, and how much at once. The driver tells of its connections by events (CMAP); who waits
//! mostly waits for a turn before it, see [`MongoStore::at_work`].

use std::{
    sync::{
        Arc,
        atomic::{AtomicU64, Ordering::Relaxed},
    },
    time::Duration,
};

use mongodb::{
    bson::{Bson, Document, RawDocument, doc},
    event::{EventHandler, cmap::CmapEvent},
    options::ClientOptions,
};
use tokio::sync::{AcquireError, OwnedSemaphorePermit, Semaphore};

use super::{
    MongoStore,
    documents::{USERS, time_bson, user_key},
    outbox::MAIL_OUTBOX,
    sessions::{is_open, sessions_where},
};
use crate::{
    clock::{Stopwatch, Timestamp},
    ids::UserId,
    metrics::PoolUse,
    model::mail::LetterState,
    store::{StoreError, StoreResult},
};

/// Users who are read by one command when all are.
const COUNTED_AT_ONCE: i64 = 4096;

/// How the driver's connections are used, as its events tell.
#[derive(Debug, Default)]
pub(super) struct PoolWatch {
    most: u32,
    opened: AtomicU64,
    closed: AtomicU64,
    taken: AtomicU64,
    returned: AtomicU64,
    refused: AtomicU64,
    waits: AtomicU64,
    waited_micros: AtomicU64,
}

impl PoolWatch {
    /// Listens to a client that is about to be made.
    pub(super) fn on(options: &mut ClientOptions, most: u32) -> Arc<Self> {
        let watch = Arc::new(Self {
            most,
            ..Self::default()
        });
        let told = Arc::clone(&watch);
        options.cmap_event_handler = Some(EventHandler::callback(move |event| told.note(&event)));
        watch
    }

    fn note(&self, event: &CmapEvent) {
        let counter = match event {
            CmapEvent::ConnectionCreated(_) => &self.opened,
            CmapEvent::ConnectionClosed(_) => &self.closed,
            CmapEvent::ConnectionCheckedOut(_) => &self.taken,
            CmapEvent::ConnectionCheckedIn(_) => &self.returned,
            CmapEvent::ConnectionCheckoutFailed(_) => &self.refused,
            _ => return,
        };
        counter.fetch_add(1, Relaxed);
    }

    /// Waits for a turn, and notes for how long if there is none at once.
    pub(super) async fn turn(
        &self,
        turns: Arc<Semaphore>,
    ) -> Result<OwnedSemaphorePermit, AcquireError> {
        if let Ok(turn) = Arc::clone(&turns).try_acquire_owned() {
            return Ok(turn);
        }
        let watch = Stopwatch::start();
        self.waits.fetch_add(1, Relaxed);
        let turn = turns.acquire_owned().await;
        let waited = u64::try_from(watch.elapsed().as_micros()).unwrap_or(u64::MAX);
        self.waited_micros.fetch_add(waited, Relaxed);
        turn
    }

    pub(super) fn used(&self) -> PoolUse {
        // A connection ends before its beginning is forgotten, never the other way round.
        let between = |less: &AtomicU64, more: &AtomicU64| {
            let less = less.load(Relaxed);
            u32::try_from(more.load(Relaxed).saturating_sub(less)).unwrap_or(u32::MAX)
        };
        let in_use = between(&self.returned, &self.taken);
        PoolUse {
            name: "driver",
            in_use,
            idle: between(&self.closed, &self.opened).saturating_sub(in_use),
            most: self.most,
            waits: self.waits.load(Relaxed),
            timeouts: self.refused.load(Relaxed),
            waited: Duration::from_micros(self.waited_micros.load(Relaxed)),
        }
    }
}

impl MongoStore {
    pub(super) async fn count_live(&self, now: Timestamp) -> StoreResult<u64> {
        let is_live = doc! { "$and": [
            is_open("$$s"),
            { "$gt": ["$$s.expires_at", time_bson(now)] },
        ] };
        let is_counted = doc! { "$and": [
            { "$isArray": "$sessions" },
            { "$ne": ["$_id", user_key(UserId::CANARY)] },
        ] };
        let size = doc! { "$size": sessions_where(is_live) };
        self.sum_over_users(doc! { "$cond": [is_counted, size, 0] })
            .await
    }

    /// The sum of a number of each user: of some by one command, so that each is done in the time that it has, and
    /// others have their turn in between. Who changes meanwhile is counted as before or as then.
    pub(super) async fn sum_over_users(&self, number: Document) -> StoreResult<u64> {
        let (mut sum, mut rest) = (0, doc! {});
        loop {
            let counted = vec![
                doc! { "$match": rest },
                doc! { "$sort": { "_id": 1 } },
                doc! { "$limit": COUNTED_AT_ONCE },
                doc! { "$group": {
                    "_id": null, "count": { "$sum": number.clone() }, "last": { "$max": "$_id" },
                } },
            ];
            let Some(mut found) = self.aggregated(USERS, counted).await? else {
                return Ok(sum);
            };
            sum += count(&found)?;
            rest = doc! { "_id": { "$gt": found.remove("last") } };
        }
    }

    pub(super) async fn count_waiting_letters(&self) -> StoreResult<(u64, Option<Timestamp>)> {
        let counted = vec![
            doc! { "$match": { "state": LetterState::Waiting.as_str() } },
            doc! { "$group": {
                "_id": null, "count": { "$sum": 1 }, "oldest": { "$min": "$created_at" },
            } },
        ];
        let Some(found) = self.aggregated(MAIL_OUTBOX, counted).await? else {
            return Ok((0, None));
        };
        let oldest = found.get_datetime("oldest").ok();
        let oldest = oldest.map(|at| Timestamp::from_millis(at.timestamp_millis()));
        Ok((count(&found)?, oldest))
    }

    /// The one document that an aggregation comes to.
    pub(super) async fn aggregated(
        &self,
        collection: &str,
        pipeline: Vec<Document>,
    ) -> StoreResult<Option<Document>> {
        let (collection, limit) = (self.collection(collection), self.operation_timeout);
        self.bounded(async move {
            let mut cursor = collection.aggregate(pipeline).max_time(limit).await?;
            if !cursor.advance().await? {
                return Ok(None);
            }
            let found: &RawDocument = cursor.current();
            Ok(Some(Document::try_from(found)?))
        })
        .await
    }

    /// Removes a user's sessions that were opened before then, without a record.
    pub(super) async fn pull_sessions(&self, user: UserId, before: Timestamp) -> StoreResult<u64> {
        let users = self.collection(USERS);
        let earlier = doc! { "created_at": { "$lt": time_bson(before) } };
        let pull = doc! { "$pull": { "sessions": earlier } };
        let pulled = async move { users.update_one(doc! { "_id": user_key(user) }, pull).await };
        Ok(self.bounded(pulled).await?.modified_count)
    }
}

/// The number that an aggregation counted; what is none is no nought.
pub(super) fn count(found: &Document) -> StoreResult<u64> {
    let count = match found.get("count") {
        Some(Bson::Int32(n)) => u64::try_from(*n).ok(),
        Some(Bson::Int64(n)) => u64::try_from(*n).ok(),
        _ => None,
    };
    count.ok_or_else(|| StoreError::Driver("documents were not counted".into()))
}
