//! The audit trail as a whole: its records listed, sealed and cut.
//!
//! Decides in which order a transaction seals, so that of two at once one is refused, and how records are read
//! back. There is no schema that keeps a hand from writing anything: a value that cannot be reads as an absent one,
//! which spoils no list and makes the record's seal a wrong one.

use async_trait::async_trait;
use mongodb::{
    ClientSession,
    action::{Action, Find},
    bson::{Bson, Document, RawDocument, doc},
    options::Hint,
};
use uuid::Uuid;

use super::{
    MongoStore,
    audit::{AUDIT_EVENTS, AUDIT_KEYS, read_key},
    documents::{bytes_bson, id_bson, session_key, time_bson, user_key},
    failure::{DUPLICATE_KEY, is_duplicate},
    rows::{bytes, id, lenient, owned_text, read_user_id, time, whole},
    sweeping::key_of,
    transaction::{Step, Stopped, Transaction, transact},
};
use crate::{
    clock::Timestamp,
    ids::{AuditId, UserId},
    model::audit::{
        AuditFilter, AuditRecord, WrappedKey,
        seal::{Mark, MarkName, Sealed},
    },
    store::{StoreError, StoreResult},
};

/// Places of the chain that were written down; `_id` is the name.
pub(super) const AUDIT_MARKS: &str = "audit_marks";

/// Most statements in one command.
const MOST_STATEMENTS: usize = 1000;

/// A record's id as BSON.
fn record_key(id: AuditId) -> Bson {
    id_bson(id.as_uuid())
}

/// A condition on ids: no other value is one, and pages could not go on behind it.
fn is_an_id() -> Document {
    doc! { "$gte": id_bson(Uuid::nil()), "$lte": id_bson(Uuid::max()) }
}

/// A condition on records that wait for their seal.
fn waiting() -> Document {
    doc! { "unsealed": true, "seq": null }
}

fn read_record(document: &RawDocument) -> AuditRecord {
    let text = |name| lenient(document, name, owned_text);
    let id = |name| lenient(document, name, id);
    let seal = lenient(document, "seal", bytes).unwrap_or_default();
    AuditRecord {
        id: id("_id").unwrap_or_default().into(),
        at: lenient(document, "at", time).unwrap_or(Timestamp::EPOCH),
        event: text("event").unwrap_or_default(),
        outcome: text("outcome").unwrap_or_default(),
        reason: text("reason"),
        actor: text("actor").unwrap_or_default(),
        actor_id: id("actor_id").map(Into::into),
        actor_session: id("actor_session").map(Into::into),
        subject: id("subject_id").map(Into::into),
        session: id("session_id").map(Into::into),
        request_id: text("request_id"),
        person: id("person_id").map(Into::into),
        details: lenient(document, "details", bytes),
        facts: text("facts"),
        sealed: lenient(document, "seq", whole).map(|seq| Sealed { seq, seal }),
    }
}

fn mark_document(mark: &Mark) -> Document {
    doc! {
        "_id": mark.name.as_str(),
        "seq": mark.seq,
        "seal": bytes_bson(&mark.seal),
        "at": time_bson(mark.at),
        "signature": bytes_bson(&mark.signature),
    }
}

fn read_mark(document: &RawDocument, name: MarkName) -> Mark {
    Mark {
        name,
        seq: lenient(document, "seq", whole).unwrap_or(0),
        seal: lenient(document, "seal", bytes).unwrap_or_default(),
        at: lenient(document, "at", time).unwrap_or(Timestamp::EPOCH),
        signature: lenient(document, "signature", bytes).unwrap_or_default(),
    }
}

fn listed(filter: &AuditFilter) -> Document {
    let mut ids = is_an_id();
    if let Some(before) = filter.before {
        ids.insert("$lt", record_key(before));
    }
    let mut conditions = vec![doc! { "_id": ids }];
    if let Some(user) = filter.user {
        let key = user_key(user);
        conditions.push(doc! { "$or": [{ "subject_id": key.clone() }, { "actor_id": key }] });
    }
    if let Some(subject) = filter.subject {
        conditions.push(doc! { "subject_id": user_key(subject) });
    }
    if let Some(session) = filter.session {
        let key = session_key(session);
        conditions.push(doc! { "$or": [{ "session_id": key.clone() }, { "actor_session": key }] });
    }
    if let Some(kind) = filter.event {
        conditions.push(doc! { "event": kind.as_str() });
    }
    if let Some(outcome) = filter.outcome {
        conditions.push(doc! { "outcome": outcome.as_str() });
    }
    if let Some(from) = filter.from {
        conditions.push(doc! { "at": { "$gte": time_bson(from) } });
    }
    if let Some(until) = filter.until {
        conditions.push(doc! { "at": { "$lt": time_bson(until) } });
    }
    doc! { "$and": conditions }
}

/// Seals records and moves the head.
///
/// The head comes first: of two at once one is repeated, and then finds another head than the one it knew.
struct Seal {
    sealed: Vec<(AuditId, Sealed)>,
    known: Option<Mark>,
    head: Mark,
}

impl Seal {
    async fn move_head(
        &self,
        store: &MongoStore,
        session: &mut ClientSession,
    ) -> Result<bool, Stopped> {
        let mut head = mark_document(&self.head);
        let Some(known) = &self.known else {
            let marks = store.database.collection::<Document>(AUDIT_MARKS);
            return match marks.insert_one(head).session(session).await {
                Ok(_) => Ok(true),
                Err(error) if is_duplicate(&error) => Ok(false),
                Err(error) => Err(error.into()),
            };
        };
        let same = doc! {
            "_id": known.name.as_str(),
            "seq": known.seq,
            "signature": bytes_bson(&known.signature),
        };
        head.remove("_id");
        let marks = store.collection(AUDIT_MARKS);
        let moved = marks.update_one(same, doc! { "$set": head });
        Ok(moved.session(session).await?.matched_count == 1)
    }

    /// Many statements in one command; false if one of the records is not waiting or its place is taken.
    async fn seal(
        store: &MongoStore,
        session: &mut ClientSession,
        some: &[(AuditId, Sealed)],
    ) -> Result<bool, Stopped> {
        let seal = |(id, place): &(AuditId, Sealed)| {
            let mut condition = waiting();
            condition.insert("_id", record_key(*id));
            let places = doc! { "seq": place.seq, "seal": bytes_bson(&place.seal) };
            doc! {
                "q": condition,
                "u": { "$set": places, "$unset": { "unsealed": "" } },
            }
        };
        let updates: Vec<Document> = some.iter().map(seal).collect();
        let command = doc! { "update": AUDIT_EVENTS, "updates": updates };
        let reply = store.database.run_command(command).session(session).await?;
        let failed = reply.get_array("writeErrors").ok();
        let code = failed.and_then(|failed| failed.first()?.as_document()?.get_i32("code").ok());
        match (failed, code) {
            (None, _) => {
                Ok(reply.get_i32("n").ok().and_then(|n| n.try_into().ok()) == Some(some.len()))
            }
            (Some(_), Some(DUPLICATE_KEY)) => Ok(false),
            (Some(_), _) => {
                let what = "some records could not be sealed";
                Err(StoreError::Driver(what.into()).into())
            }
        }
    }
}

#[async_trait]
impl Transaction for Seal {
    type Outcome = bool;

    async fn run(
        &self,
        store: &MongoStore,
        session: &mut ClientSession,
    ) -> Result<Step<bool>, Stopped> {
        if !self.move_head(store, session).await? {
            return Ok(Step::Abort(false));
        }
        for some in self.sealed.chunks(MOST_STATEMENTS) {
            if !Self::seal(store, session, some).await? {
                return Ok(Step::Abort(false));
            }
        }
        Ok(Step::Commit(true))
    }
}

/// Writes down where the chain begins and removes what is before.
struct Cut {
    checkpoint: Mark,
    most: u32,
}

impl Cut {
    /// The mark as it is, if it is further already.
    fn further(&self) -> Vec<Document> {
        let mark = mark_document(&self.checkpoint);
        let is_further = doc! { "$gte": [{ "$ifNull": ["$seq", i64::MIN] }, self.checkpoint.seq] };
        vec![doc! { "$replaceWith": { "$cond": [is_further, "$$ROOT", { "$literal": mark }] } }]
    }
}

#[async_trait]
impl Transaction for Cut {
    type Outcome = u32;

    async fn run(
        &self,
        store: &MongoStore,
        session: &mut ClientSession,
    ) -> Result<Step<u32>, Stopped> {
        let marks = store.collection(AUDIT_MARKS);
        let this = doc! { "_id": self.checkpoint.name.as_str() };
        let mark = marks.update_one(this, self.further()).upsert(true);
        mark.session(&mut *session).await?;
        // To the server a limit of 0 means none.
        if self.most == 0 {
            return Ok(Step::Commit(0));
        }
        let records = store.collection(AUDIT_EVENTS);
        let mut oldest = records
            .find(doc! { "seq": { "$lte": self.checkpoint.seq } })
            .sort(doc! { "seq": 1 })
            .limit(i64::from(self.most))
            .projection(doc! { "_id": 1 })
            .session(&mut *session)
            .await?;
        let mut chosen = Vec::new();
        while oldest.advance(&mut *session).await? {
            chosen.extend(key_of(oldest.current())?);
        }
        let delete = records.delete_many(doc! { "_id": { "$in": chosen } });
        let deleted = delete.session(session).await?.deleted_count;
        Ok(Step::Commit(u32::try_from(deleted).unwrap_or(u32::MAX)))
    }
}

impl MongoStore {
    pub(super) async fn read_trail(&self, filter: &AuditFilter) -> StoreResult<Vec<AuditRecord>> {
        let newest_first = doc! { "_id": -1 };
        self.read_records(listed(filter), newest_first, filter.limit, None)
            .await
    }

    /// A record that has no id that could be one could never be sealed, and would be in the way of the others.
    pub(super) async fn read_unsealed(&self, most: u32) -> StoreResult<Vec<AuditRecord>> {
        let mut waiting = waiting();
        waiting.insert("_id", is_an_id());
        // While few wait, looking for them among all by id would be long.
        let index = Hint::Name("unsealed".to_owned());
        self.read_records(waiting, doc! { "_id": 1 }, most, Some(index))
            .await
    }

    pub(super) async fn read_sealed(&self, after: i64, most: u32) -> StoreResult<Vec<AuditRecord>> {
        let sealed = doc! { "seq": { "$gt": after } };
        self.read_records(sealed, doc! { "seq": 1 }, most, None)
            .await
    }

    async fn read_records(
        &self,
        condition: Document,
        order: Document,
        most: u32,
        index: Option<Hint>,
    ) -> StoreResult<Vec<AuditRecord>> {
        // To the server a limit of 0 means none.
        if most == 0 {
            return Ok(Vec::new());
        }
        let (records, limit) = (self.collection(AUDIT_EVENTS), self.operation_timeout);
        self.bounded(async move {
            let find = records.find(condition).sort(order);
            let find = find.optional(index, Find::hint);
            let mut cursor = find.limit(i64::from(most)).max_time(limit).await?;
            let mut found = Vec::new();
            while cursor.advance().await? {
                found.push(read_record(cursor.current()));
            }
            Ok(found)
        })
        .await
    }

    pub(super) async fn count_unsealed(&self) -> StoreResult<u64> {
        let (records, limit) = (self.collection(AUDIT_EVENTS), self.operation_timeout);
        let count = async move { records.count_documents(waiting()).max_time(limit).await };
        self.bounded(count).await
    }

    pub(super) async fn seal_records(
        &self,
        sealed: &[(AuditId, Sealed)],
        known: Option<&Mark>,
        head: &Mark,
    ) -> StoreResult<bool> {
        let work = Seal {
            sealed: sealed.to_vec(),
            known: known.cloned(),
            head: head.clone(),
        };
        transact(self, work).await
    }

    pub(super) async fn read_mark(&self, name: MarkName) -> StoreResult<Option<Mark>> {
        let found = self.read_one(AUDIT_MARKS, name.as_str(), Document::new());
        Ok(found.await?.map(|document| read_mark(&document, name)))
    }

    pub(super) async fn cut_records(&self, checkpoint: &Mark, most: u32) -> StoreResult<u32> {
        let checkpoint = checkpoint.clone();
        transact(self, Cut { checkpoint, most }).await
    }

    pub(super) async fn read_keys(
        &self,
        persons: &[UserId],
    ) -> StoreResult<Vec<(UserId, WrappedKey)>> {
        let ids: Vec<Bson> = persons.iter().copied().map(user_key).collect();
        let (keys, limit) = (self.collection(AUDIT_KEYS), self.operation_timeout);
        self.bounded(async move {
            let find = keys.find(doc! { "_id": { "$in": ids } });
            let mut cursor = find.max_time(limit).await?;
            let mut found = Vec::new();
            while cursor.advance().await? {
                let document = cursor.current();
                let whose = read_user_id(document).ok();
                found.extend(whose.zip(read_key(document)));
            }
            Ok(found)
        })
        .await
    }
}
