//! What is over and only takes up room, removed in small batches, and the lease under which one node at a
//! time does so.
//!
//! What is one document is chosen and then deleted on the condition that it is still over. An account is
//! several, and sessions go with records of their ends, so these go in a transaction.

use async_trait::async_trait;
use mongodb::{
    ClientSession,
    bson::{Bson, Document, RawDocument, doc},
    error::Error,
};
use uuid::Uuid;

use super::{
    MongoStore,
    audit::{self, Log},
    documents::{LOGIN_NAMES, ONE_TIME_SECRETS, USERS, id_bson, time_bson, user_key},
    failure::is_duplicate,
    limits::{DEVICES, RATE_LIMITS},
    outbox::MAIL_OUTBOX,
    registrations::PENDING_REGISTRATIONS,
    rows::{read_ended, read_user_id},
    sessions::{is_open, named, sessions_where},
    transaction::{Step, Stopped, Transaction, transact},
};
use crate::{
    clock::Timestamp,
    ids::UserId,
    model::{
        audit::{Event, EventKind, Occasion},
        mail::LetterState,
        session::CloseReason,
    },
    store::{Leftover, StoreResult},
};

/// Who may do what only one node at a time is to do; `_id` is its name.
const LEASES: &str = "leases";

impl MongoStore {
    pub(super) async fn sweep_some(
        &self,
        what: Leftover,
        before: Timestamp,
        most: u32,
        by: &Occasion,
    ) -> StoreResult<u32> {
        let earlier = doc! { "$lt": time_bson(before) };
        match what {
            Leftover::Sessions => {
                let by = by.clone();
                transact(self, SweepSessions { before, most, by }).await
            }
            Leftover::OneTimeSecrets => self.sweep_secrets(earlier, most).await,
            Leftover::Registrations => {
                let is_over = doc! { "expires_at": earlier };
                self.sweep_documents(PENDING_REGISTRATIONS, is_over, most)
                    .await
            }
            Leftover::KeptAddresses => {
                let is_over = doc! { "kept_until": earlier };
                self.sweep_documents(LOGIN_NAMES, is_over, most).await
            }
            Leftover::Letters => {
                let waiting = LetterState::Waiting.as_str();
                let is_over = doc! { "settled_at": earlier, "state": { "$ne": waiting } };
                self.sweep_documents(MAIL_OUTBOX, is_over, most).await
            }
            Leftover::Counters => {
                let is_over = doc! { "expires_at": earlier };
                self.sweep_documents(RATE_LIMITS, is_over, most).await
            }
            Leftover::Devices => {
                let is_over = doc! { "expires_at": earlier };
                self.sweep_documents(DEVICES, is_over, most).await
            }
            Leftover::Accounts => {
                let by = by.clone();
                transact(self, SweepAccounts { before, most, by }).await
            }
        }
    }

    /// The keys of some documents that are over.
    async fn some_over(
        &self,
        collection: &str,
        is_over: Document,
        most: u32,
    ) -> StoreResult<Vec<Bson>> {
        let collection = self.collection(collection);
        let (limit, most) = (self.operation_timeout, i64::from(most));
        self.bounded(async move {
            let find = collection.find(is_over).projection(doc! { "_id": 1 });
            let mut cursor = find.limit(most).max_time(limit).await?;
            let mut keys = Vec::new();
            while cursor.advance().await? {
                keys.extend(key_of(cursor.current())?);
            }
            Ok(keys)
        })
        .await
    }

    async fn sweep_documents(
        &self,
        collection: &str,
        is_over: Document,
        most: u32,
    ) -> StoreResult<u32> {
        let chosen = self.some_over(collection, is_over.clone(), most);
        let chosen = chosen.await?;
        self.delete_chosen(collection, is_over, chosen).await
    }

    async fn delete_chosen(
        &self,
        collection: &str,
        mut is_over: Document,
        chosen: Vec<Bson>,
    ) -> StoreResult<u32> {
        if chosen.is_empty() {
            return Ok(0);
        }
        is_over.insert("_id", doc! { "$in": chosen });
        let collection = self.collection(collection);
        let delete = async move { collection.delete_many(is_over).await };
        Ok(counted(self.bounded(delete).await?.deleted_count))
    }

    /// A letter that may be tried again makes its secret anew unless that stands here as spent, so a secret
    /// goes after its letter.
    async fn sweep_secrets(&self, earlier: Document, most: u32) -> StoreResult<u32> {
        let is_over = doc! { "expires_at": earlier };
        let secrets = self.collection(ONE_TIME_SECRETS);
        let (limit, choosing) = (
            self.operation_timeout,
            vec![
                doc! { "$match": is_over.clone() },
                doc! { "$lookup": {
                    "from": MAIL_OUTBOX, "localField": "id", "foreignField": "_id", "as": "letters",
                } },
                doc! { "$match": { "letters": [] } },
                doc! { "$limit": i64::from(most) },
                doc! { "$project": { "_id": 1 } },
            ],
        );
        let chosen = self.bounded(async move {
            let mut cursor = secrets.aggregate(choosing).max_time(limit).await?;
            let mut keys = Vec::new();
            while cursor.advance().await? {
                keys.extend(key_of(cursor.current())?);
            }
            Ok(keys)
        });
        let chosen = chosen.await?;
        self.delete_chosen(ONE_TIME_SECRETS, is_over, chosen).await
    }

    pub(super) async fn take_lease_of(
        &self,
        name: &str,
        holder: Uuid,
        until: Timestamp,
        now: Timestamp,
    ) -> StoreResult<bool> {
        let leases = self.collection(LEASES);
        let mine_or_over = doc! {
            "_id": name,
            "$or": [
                { "holder": id_bson(holder) },
                { "held_until": { "$lte": time_bson(now) } },
            ],
        };
        let taken = doc! { "$set": { "holder": id_bson(holder), "held_until": time_bson(until) } };
        let update = async move {
            // Somebody else's is not matched, so that it would be inserted twice.
            match leases.update_one(mine_or_over, taken).upsert(true).await {
                Err(error) if is_duplicate(&error) => Ok(false),
                taken => taken.map(|_| true),
            }
        };
        self.bounded(update).await
    }
}

pub(super) fn key_of(document: &RawDocument) -> Result<Option<Bson>, Error> {
    let key = document.get("_id")?;
    Ok(key.map(Bson::try_from).transpose()?)
}

fn counted(documents: u64) -> u32 {
    u32::try_from(documents).unwrap_or(u32::MAX)
}

/// Removes sessions that are over. One that nobody presented after its time was never closed: its end is recorded
/// now.
struct SweepSessions {
    before: Timestamp,
    most: u32,
    by: Occasion,
}

impl SweepSessions {
    /// A projection: the sessions that end by this.
    fn ending(&self) -> Document {
        let before = time_bson(self.before);
        // What is missing or of another type is less than any time, and stays.
        let is_over = doc! { "$and": [
            is_open("$$s"),
            { "$eq": [{ "$type": "$$s.expires_at" }, "date"] },
            { "$lt": ["$$s.expires_at", before] },
        ] };
        doc! { "ended": { "$cond": [
            { "$isArray": "$sessions" },
            named(sessions_where(is_over), CloseReason::Expired.as_str()),
            [],
        ] } }
    }
}

#[async_trait]
impl Transaction for SweepSessions {
    type Outcome = u32;

    /// Counts users: a batch takes all of a user's sessions that are over.
    async fn run(
        &self,
        store: &MongoStore,
        session: &mut ClientSession,
    ) -> Result<Step<u32>, Stopped> {
        let earlier = doc! { "$lt": time_bson(self.before) };
        let users = store.collection(USERS);
        let find = users.find(doc! { "sessions.expires_at": earlier.clone() });
        let find = find.limit(i64::from(self.most)).projection(self.ending());
        let mut found = find.session(&mut *session).await?;
        let mut ids = Vec::new();
        let mut log = Log::new(&self.by);
        while found.advance(&mut *session).await? {
            let document = found.current();
            ids.extend(key_of(document)?);
            // Nonsense in one document must not keep all others from being swept.
            if let Ok(user) = read_user_id(document) {
                log.add_ends(user, &read_ended(document, user).unwrap_or_default());
            }
        }
        if ids.is_empty() {
            return Ok(Step::Abort(0));
        }
        let pull = doc! { "$pull": { "sessions": { "expires_at": earlier } } };
        let update = users.update_many(doc! { "_id": { "$in": ids } }, pull);
        let swept = update.session(&mut *session).await?.modified_count;
        log.write(store, session).await?;
        Ok(Step::Commit(counted(swept)))
    }
}

/// Removes accounts whose address was not verified in time, with everything that is theirs, the keys of their
/// audit details as well.
struct SweepAccounts {
    before: Timestamp,
    most: u32,
    by: Occasion,
}

#[async_trait]
impl Transaction for SweepAccounts {
    type Outcome = u32;

    async fn run(
        &self,
        store: &MongoStore,
        session: &mut ClientSession,
    ) -> Result<Step<u32>, Stopped> {
        let is_over = doc! {
            "provisional_until": { "$lt": time_bson(self.before) },
            "email_verified_at": null,
            "deactivated_at": null,
            "roles": [],
        };
        let users = store.collection(USERS);
        let find = users.find(is_over).projection(doc! { "_id": 1 });
        let mut found = find
            .limit(i64::from(self.most))
            .session(&mut *session)
            .await?;
        let mut removed: Vec<UserId> = Vec::new();
        while found.advance(&mut *session).await? {
            removed.push(read_user_id(found.current())?);
        }
        if removed.is_empty() {
            return Ok(Step::Abort(0));
        }
        let mut log = Log::new(&self.by);
        for id in &removed {
            log.add(Event::done(EventKind::AccountRemoved).about(*id));
        }
        log.write(store, session).await?;
        let ids: Vec<Bson> = removed.iter().copied().map(user_key).collect();
        let these = doc! { "$in": ids };
        let theirs = doc! { "user_id": these.clone() };
        for collection in [LOGIN_NAMES, ONE_TIME_SECRETS, DEVICES] {
            let collection = store.collection(collection);
            let delete = collection.delete_many(theirs.clone());
            delete.session(&mut *session).await?;
        }
        let delete = users.delete_many(doc! { "_id": these });
        let deleted = delete.session(&mut *session).await?.deleted_count;
        audit::forget(store, session, &removed).await?;
        Ok(Step::Commit(counted(deleted)))
    }
}
