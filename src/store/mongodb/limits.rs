//! Limits and devices: the collections `rate_limits` and `devices`.
//!
//! What may be drawn is decided by the model ([`Draw::judge`]) when a counter is read, and by the server,
//! with the same rule as a condition and a pipeline, when it is written: so those who draw at once need not
//! try again, and one who is refused has written nothing. Both collections forget by a TTL index.

use async_trait::async_trait;
use mongodb::{
    ClientSession,
    bson::{Bson, Document, RawDocument, doc},
    error::Error,
};

use super::{
    MongoStore, audit,
    documents::{hash_bson, time_bson, user_key},
    failure::is_duplicate,
    rows::{Row, count, id, time},
    transaction::{Step, Stopped, Transaction},
};
use crate::{
    clock::Timestamp,
    ids::UserId,
    model::{
        audit::{Event, EventKind, Occasion},
        device::NewDevice,
        quota::{Counter, Draw, FailureRule, Quota},
        token::SecretHash,
    },
    store::{StoreError, StoreResult, Take},
};

pub(super) const RATE_LIMITS: &str = "rate_limits";
pub(super) const DEVICES: &str = "devices";

/// A draw that finds a counter neither admissible nor refusable meets one that changes at this moment.
const TRIES: u32 = 64;

fn read_counter(document: &RawDocument) -> StoreResult<Counter> {
    let row = Row::of(RATE_LIMITS, document, uuid::Uuid::nil());
    Ok(Counter {
        tat: row.required("tat", time)?,
        failures: row.required("failures", count)?,
        blocked_until: row.required("blocked_until", time)?,
        expires_at: row.required("expires_at", time)?,
    })
}

/// As [`Draw::judge`] admits.
fn admissible(draw: &Draw, now: Timestamp) -> Document {
    let mut conditions = Vec::new();
    if let Some(quota) = draw.quota {
        let room = now.plus(quota.window()).minus(quota.cost(draw.permits));
        conditions.push(doc! { "$or": [
            { "tat": { "$lte": time_bson(room) } },
            { "tat": { "$gt": time_bson(quota.latest(now)) } },
        ] });
    }
    if let Some(rule) = &draw.failures {
        conditions.push(doc! { "failures": { "$lt": i64::from(rule.stop) } });
        conditions.push(doc! { "$or": [
            { "blocked_until": { "$lte": time_bson(now) } },
            { "blocked_until": { "$gt": time_bson(rule.latest_block(now)) } },
        ] });
    }
    let is_over = doc! { "expires_at": { "$lte": time_bson(now) } };
    if conditions.is_empty() {
        return doc! { "_id": hash_bson(&draw.key) };
    }
    doc! { "_id": hash_bson(&draw.key), "$or": [is_over, { "$and": conditions }] }
}

/// As [`Draw::judge`] changes a counter that it admits.
fn drawn(draw: &Draw, now: Timestamp) -> Vec<Document> {
    let is_over = doc! { "$lte": ["$expires_at", time_bson(now)] };
    let known = doc! { "$cond": [is_over, 0_i64, { "$toLong": "$failures" }] };
    let failures = match &draw.failures {
        Some(_) => doc! { "$add": [known, 1_i64] },
        None => known,
    };
    let first = doc! { "$set": {
        "account_hash": draw.account.as_ref().map_or("$$REMOVE".into(), hash_bson),
        "tat": draw.quota.map_or_else(|| time_bson(now), |quota| tat(draw, quota, now)),
        "failures": failures,
    } };
    let blocked_until = match &draw.failures {
        Some(rule) => Bson::from(doc! { "$add": [time_bson(now), delay(rule)] }),
        None => time_bson(now),
    };
    let remembered = draw.failures.map_or(now, |rule| now.plus(rule.memory));
    let last = "$blocked_until";
    vec![
        first,
        doc! { "$set": { "blocked_until": blocked_until } },
        doc! { "$set": { "expires_at": { "$max": [time_bson(remembered), "$tat", last] } } },
    ]
}

fn tat(draw: &Draw, quota: Quota, now: Timestamp) -> Bson {
    let is_fresh = doc! { "$or": [
        { "$lte": ["$expires_at", time_bson(now)] },
        { "$lt": ["$tat", time_bson(now)] },
        { "$gt": ["$tat", time_bson(quota.latest(now))] },
    ] };
    let before = doc! { "$cond": [is_fresh, time_bson(now), "$tat"] };
    doc! { "$add": [before, quota.cost(draw.permits).as_millis()] }.into()
}

/// As [`FailureRule::delay_after`].
fn delay(rule: &FailureRule) -> Document {
    let free = i64::from(rule.before_delay);
    let doublings = doc! { "$min": [40, { "$subtract": ["$failures", free] }] };
    let grown = doc! { "$multiply": [rule.delay.as_millis(), { "$pow": [2, doublings] }] };
    let capped = doc! { "$min": [rule.longest_delay.as_millis(), grown] };
    doc! { "$cond": [{ "$lt": ["$failures", free] }, 0_i64, capped] }
}

fn counter_document(draw: &Draw, counter: &Counter) -> Document {
    let mut document = doc! {
        "_id": hash_bson(&draw.key),
        "tat": time_bson(counter.tat),
        "failures": i64::from(counter.failures),
        "blocked_until": time_bson(counter.blocked_until),
        "expires_at": time_bson(counter.expires_at),
    };
    if let Some(account) = &draw.account {
        document.insert("account_hash", hash_bson(account));
    }
    document
}

/// Forgets what was counted for an account.
pub(super) struct ClearAccount {
    pub(super) account: SecretHash,
    pub(super) whose: UserId,
    pub(super) by: Occasion,
}

#[async_trait]
impl Transaction for ClearAccount {
    type Outcome = ();

    async fn run(
        &self,
        store: &MongoStore,
        session: &mut ClientSession,
    ) -> Result<Step<()>, Stopped> {
        let theirs = doc! { "account_hash": hash_bson(&self.account) };
        let counters = store.collection(RATE_LIMITS);
        let clear = counters.delete_many(theirs);
        clear.session(&mut *session).await?;
        let unlocked = Event::done(EventKind::AccountUnlocked).about(self.whose);
        audit::write(store, session, &self.by, &[unlocked]).await?;
        Ok(Step::Commit(()))
    }
}

impl MongoStore {
    pub(super) async fn draw(&self, draw: &Draw, now: Timestamp) -> StoreResult<Take> {
        for _ in 0..TRIES {
            let seen = self
                .read_one(RATE_LIMITS, hash_bson(&draw.key), doc! {})
                .await?;
            let seen = seen.as_deref().map(read_counter).transpose()?;
            let next = match draw.judge(seen.as_ref(), now) {
                Ok(next) => next,
                Err(refusal) => return Ok(Take::Refused(refusal)),
            };
            let written = match seen {
                Some(_) => self.change_counter(draw, now).await?,
                None => self.insert_counter(draw, &next).await?,
            };
            if written {
                return Ok(Take::Admitted);
            }
        }
        let what = "too many count the same thing at once";
        Err(StoreError::Unavailable(what.into()))
    }

    async fn change_counter(&self, draw: &Draw, now: Timestamp) -> StoreResult<bool> {
        let counters = self.collection(RATE_LIMITS);
        let (filter, update) = (admissible(draw, now), drawn(draw, now));
        let change = async move { counters.update_one(filter, update).await };
        Ok(self.bounded(change).await?.matched_count > 0)
    }

    /// False if somebody else has made it meanwhile.
    async fn insert_counter(&self, draw: &Draw, counter: &Counter) -> StoreResult<bool> {
        let counters = self.database.collection::<Document>(RATE_LIMITS);
        let document = counter_document(draw, counter);
        let insert = async move {
            match counters.insert_one(document).await {
                Ok(_) => Ok(true),
                Err(error) if is_duplicate(&error) => Ok(false),
                Err(error) => Err(error),
            }
        };
        self.bounded(insert).await
    }

    pub(super) async fn delete_counters(&self, keys: &[SecretHash]) -> StoreResult<()> {
        let keys: Vec<_> = keys.iter().map(hash_bson).collect();
        self.delete_limits(RATE_LIMITS, doc! { "_id": { "$in": keys } })
            .await
    }

    async fn delete_limits(&self, name: &str, which: Document) -> StoreResult<()> {
        let collection = self.collection(name);
        let delete = async move { collection.delete_many(which).await };
        self.bounded(delete).await.map(drop)
    }

    /// Stores the device, and then forgets what is too much: of those that come at once, whoever is last
    /// sees all the others'.
    pub(super) async fn insert_device(&self, new: &NewDevice, most: u32) -> StoreResult<()> {
        let devices = self.database.collection::<Document>(DEVICES);
        let (user, own) = (user_key(new.user_id), hash_bson(&new.hash));
        let device = doc! {
            "_id": own.clone(),
            "user_id": user.clone(),
            "created_at": time_bson(new.created_at),
            "last_used_at": time_bson(new.created_at),
            "expires_at": time_bson(new.expires_at),
        };
        let others = doc! { "user_id": user, "_id": { "$ne": own } };
        let kept = i64::from(most.max(1)) - 1;
        let add = async move {
            devices.insert_one(device).await?;
            // Devices that never came back go first, then the longest unused.
            let surplus = devices
                .aggregate(vec![
                    doc! { "$match": others },
                    doc! { "$set": { "unused": { "$eq": ["$last_used_at", "$created_at"] } } },
                    doc! { "$sort": { "unused": 1, "last_used_at": -1, "_id": 1 } },
                    doc! { "$skip": kept },
                    doc! { "$project": { "_id": 1 } },
                ])
                .await;
            let mut surplus = surplus?;
            let mut ids = Vec::new();
            while surplus.advance().await? {
                ids.extend(surplus.deserialize_current()?.remove("_id"));
            }
            if !ids.is_empty() {
                devices.delete_many(doc! { "_id": { "$in": ids } }).await?;
            }
            Ok::<(), Error>(())
        };
        self.bounded(add).await
    }

    pub(super) async fn read_device_owner(
        &self,
        device: &SecretHash,
        now: Timestamp,
    ) -> StoreResult<Option<UserId>> {
        let found = self.read_one(DEVICES, hash_bson(device), doc! {}).await?;
        let Some(document) = found else {
            return Ok(None);
        };
        let row = Row::of(DEVICES, &document, uuid::Uuid::nil());
        let is_known = row.required("expires_at", time)? > now;
        let owner = row.required("user_id", id)?;
        Ok(is_known.then(|| owner.into()))
    }

    pub(super) async fn note_device(
        &self,
        device: &SecretHash,
        expires_at: Timestamp,
        now: Timestamp,
    ) -> StoreResult<()> {
        let older = doc! { "_id": hash_bson(device), "last_used_at": { "$lt": time_bson(now) } };
        let used = doc! { "$set": {
            "last_used_at": time_bson(now),
            "expires_at": time_bson(expires_at),
        } };
        let devices = self.collection(DEVICES);
        let note = async move { devices.update_one(older, used).await };
        self.bounded(note).await.map(drop)
    }

    pub(super) async fn delete_devices_of(&self, user: UserId) -> StoreResult<()> {
        self.delete_limits(DEVICES, doc! { "user_id": user_key(user) })
            .await
    }
}
