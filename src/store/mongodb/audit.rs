//! Records of the audit trail, written in the transaction of what they tell of.
//!
//! Decides what a record looks like in `audit_events`, and when a person's key is made, found and dropped
//! in `audit_keys`. How records are listed and sealed is decided in `trail`.

use async_trait::async_trait;
use mongodb::{
    ClientSession,
    bson::{Bson, Document, RawDocument, RawDocumentBuf, doc},
    options::ReturnDocument,
};
use uuid::Uuid;

use super::{
    MongoStore,
    documents::{USERS, bytes_bson, id_bson, session_key, time_bson, user_key},
    rows::{Ended, bytes, lenient},
    transaction::{Step, Stopped, Transaction, transact},
};
use crate::{
    ids::{SessionId, UserId},
    model::audit::{AuditRecord, Event, Occasion, Recorder, WrappedKey},
    store::StoreResult,
};

/// One document per record. Until it is sealed it has `unsealed`, afterwards its place `seq` and its `seal`.
pub(super) const AUDIT_EVENTS: &str = "audit_events";
/// The wrapped key of each person's details; `_id` is the user's. One that is null is dropped for good.
pub(super) const AUDIT_KEYS: &str = "audit_keys";

/// What happens in one change, to be written before it ends.
pub(super) struct Log<'a> {
    by: &'a Occasion,
    events: Vec<Event>,
}

impl<'a> Log<'a> {
    pub(super) const fn new(by: &'a Occasion) -> Self {
        Self {
            by,
            events: Vec::new(),
        }
    }

    pub(super) fn add(&mut self, event: Event) {
        self.events.push(event);
    }

    /// Adds the ends of a user's sessions.
    pub(super) fn add_ends(&mut self, user: UserId, ended: &[Ended]) {
        let ends = ended.iter();
        let ends = ends.map(|(session, reason)| Event::session_ended(user, *session, *reason));
        self.events.extend(ends);
    }

    /// Writes what was added, in one statement.
    pub(super) async fn write(
        self,
        store: &MongoStore,
        session: &mut ClientSession,
    ) -> Result<(), Stopped> {
        write(store, session, self.by, &self.events).await
    }
}

/// Writes records in the transaction of what they tell of.
pub(super) async fn write(
    store: &MongoStore,
    session: &mut ClientSession,
    by: &Occasion,
    events: &[Event],
) -> Result<(), Stopped> {
    let Some(recorder) = by.recorder.as_deref() else {
        return Ok(());
    };
    let tells = by.details().is_some();
    let mut documents = Vec::with_capacity(events.len());
    let mut known: Option<(Option<UserId>, Option<WrappedKey>)> = None;
    for event in events {
        let person = by.person(event);
        if tells && known.as_ref().map(|(whose, _)| *whose) != Some(person) {
            known = Some((person, key_of(store, session, recorder, person).await?));
        }
        let key = known.as_ref().and_then(|(_, key)| key.as_ref());
        documents.extend(by.record(event, key).as_ref().map(record_document));
    }
    if documents.is_empty() {
        return Ok(());
    }
    let records = store.database.collection::<Document>(AUDIT_EVENTS);
    records.insert_many(documents).session(session).await?;
    Ok(())
}

/// The key of a person's details, made when it is first needed. None for somebody who was erased. Nobody's is
/// looked for as well, and not found: what is refused costs the same whoever it is about (ASVS 6.3.8).
async fn key_of(
    store: &MongoStore,
    session: &mut ClientSession,
    recorder: &Recorder,
    person: Option<UserId>,
) -> Result<Option<WrappedKey>, Stopped> {
    let id = person.unwrap_or_else(|| Uuid::nil().into());
    let keys = store.collection(AUDIT_KEYS);
    let found = keys.find_one(doc! { "_id": user_key(id) });
    if let Some(found) = found.session(&mut *session).await? {
        return Ok(read_key(&found));
    }
    let Some(person) = person else {
        return Ok(None);
    };
    let users = store.collection(USERS);
    let user = users
        .find_one(doc! { "_id": user_key(person) })
        .projection(doc! { "_id": 1 });
    if user.session(&mut *session).await?.is_none() {
        return Ok(None);
    }
    let key = make_key(store, session, recorder, person).await?;
    Ok(key.and_then(|document| read_key(&document)))
}

/// A person's key; none if it was dropped.
pub(super) fn read_key(document: &RawDocument) -> Option<WrappedKey> {
    lenient(document, "key", bytes).map(WrappedKey::stored)
}

/// Makes the key of a person who has none yet and was not erased; answers what stands there then. An insert
/// that finds one there would end the transaction.
async fn make_key(
    store: &MongoStore,
    session: &mut ClientSession,
    recorder: &Recorder,
    person: UserId,
) -> Result<Option<RawDocumentBuf>, Stopped> {
    let Some(fresh) = recorder.fresh_key(person) else {
        return Ok(None);
    };
    let made = doc! { "$setOnInsert": { "key": bytes_bson(fresh.as_bytes()) } };
    let keys = store.collection(AUDIT_KEYS);
    let stored = keys.find_one_and_update(doc! { "_id": user_key(person) }, made);
    let stored = stored.upsert(true).return_document(ReturnDocument::After);
    Ok(stored.session(session).await?)
}

/// Makes the key of a user who is just coming to be, so that their records cost the same as anybody's.
pub(super) async fn begin(
    store: &MongoStore,
    session: &mut ClientSession,
    by: &Occasion,
    user: UserId,
) -> Result<(), Stopped> {
    if let Some(recorder) = by.recorder.as_deref() {
        make_key(store, session, recorder, user).await?;
    }
    Ok(())
}

/// Drops the keys of these persons for good.
pub(super) async fn forget(
    store: &MongoStore,
    session: &mut ClientSession,
    persons: &[UserId],
) -> Result<(), Stopped> {
    let keys = store.collection(AUDIT_KEYS);
    for person in persons {
        let none = doc! { "$set": { "key": null } };
        let drop = keys.update_one(doc! { "_id": user_key(*person) }, none);
        drop.upsert(true).session(&mut *session).await?;
    }
    Ok(())
}

/// Writes records of what changed nothing.
struct Record {
    events: Vec<Event>,
    by: Occasion,
}

#[async_trait]
impl Transaction for Record {
    type Outcome = ();

    async fn run(
        &self,
        store: &MongoStore,
        session: &mut ClientSession,
    ) -> Result<Step<()>, Stopped> {
        write(store, session, &self.by, &self.events).await?;
        Ok(Step::Commit(()))
    }
}

impl MongoStore {
    pub(super) async fn record_events(&self, events: &[Event], by: &Occasion) -> StoreResult<()> {
        if events.is_empty() || by.recorder.is_none() {
            return Ok(());
        }
        let (events, by) = (events.to_vec(), by.clone());
        transact(self, Record { events, by }).await
    }
}

/// A new document of `audit_events`. What is absent is left out: the indexes have only what is there.
fn record_document(record: &AuditRecord) -> Document {
    let user = |id: Option<UserId>| id.map(user_key);
    let session = |id: Option<SessionId>| id.map(session_key);
    let text = |text: &Option<String>| text.as_deref().map(Bson::from);
    let mut document = doc! {
        "_id": id_bson(record.id.as_uuid()),
        "at": time_bson(record.at),
        "event": &record.event,
        "outcome": &record.outcome,
        "actor": &record.actor,
        "unsealed": true,
    };
    let may_be_absent = [
        ("reason", text(&record.reason)),
        ("actor_id", user(record.actor_id)),
        ("actor_session", session(record.actor_session)),
        ("subject_id", user(record.subject)),
        ("session_id", session(record.session)),
        ("request_id", text(&record.request_id)),
        ("person_id", user(record.person)),
        ("details", record.details.as_deref().map(bytes_bson)),
        ("facts", text(&record.facts)),
    ];
    let present = may_be_absent.into_iter();
    let present = present.filter_map(|(name, value)| Some((name.to_owned(), value?)));
    document.extend(present);
    document
}
