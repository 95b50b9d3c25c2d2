//! Neutral records out of and into MongoDB.
//!
//! Decides what stands in documents for what the SQL databases have in columns: the names that users log in by
//! are documents of their own, sessions are part of their user's, and nothing refers to a user by a rule of the
//! database, so that this is looked at when records are read. What a cell looks like is decided in `cells`.

mod cells;

use std::collections::{HashMap, HashSet};

use async_trait::async_trait;
use mongodb::{
    ClientSession,
    bson::{Bson, Document, RawDocument, RawDocumentBuf, doc},
};

use self::cells::{KEPT, cursor_of, document, login_names, read_record, sessions};
use super::{
    MongoStore,
    audit::{AUDIT_EVENTS, AUDIT_KEYS},
    documents::{LOGIN_NAMES, ONE_TIME_SECRETS, ROLES, USERS},
    limits::{DEVICES, RATE_LIMITS},
    opening::CLOSED_KEPT,
    outbox::MAIL_OUTBOX,
    registrations::PENDING_REGISTRATIONS,
    rows::{id, lenient},
    trail::AUDIT_MARKS,
    transaction::{Step, Stopped, Transaction, transact},
};
use crate::{
    clock::Timestamp,
    store::{
        Store, StoreError, StoreResult,
        moving::{Ask, Cursor, Moving, Page, Record, hex, overtaken, tables::Kind},
    },
};

/// What a target has while its transfer is not ended: one document.
const UNFINISHED: &str = "unfinished_transfer";
/// The `_id` of that document.
const STATE_KEY: &str = "state";
/// How many users' sessions are read at once.
const USERS_AT_ONCE: i64 = 100;
/// Most statements in one `update` command.
const MOST_STATEMENTS: usize = 1000;

const fn collection(kind: Kind) -> &'static str {
    match kind {
        Kind::Roles => ROLES,
        Kind::Users | Kind::Sessions => USERS,
        Kind::KeptAddresses => LOGIN_NAMES,
        Kind::Devices => DEVICES,
        Kind::OneTimeSecrets => ONE_TIME_SECRETS,
        Kind::PendingRegistrations => PENDING_REGISTRATIONS,
        Kind::Letters => MAIL_OUTBOX,
        Kind::Failures => RATE_LIMITS,
        Kind::AuditKeys => AUDIT_KEYS,
        Kind::AuditEvents => AUDIT_EVENTS,
        Kind::AuditMarks => AUDIT_MARKS,
    }
}

/// Which documents of a collection are records.
fn condition(kind: Kind) -> Document {
    match kind {
        Kind::Sessions => doc! { "sessions.0": { "$exists": true } },
        Kind::KeptAddresses => doc! { KEPT: { "$ne": null } },
        Kind::Failures => doc! { "failures": { "$gt": 0 } },
        _ => Document::new(),
    }
}

impl MongoStore {
    async fn some_documents(
        &self,
        name: &str,
        filter: Document,
        most: i64,
        fields: Document,
    ) -> StoreResult<Vec<RawDocumentBuf>> {
        let collection = self.collection(name);
        self.bounded(async move {
            let find = collection.find(filter).projection(fields);
            let mut cursor = find.sort(doc! { "_id": 1 }).limit(most).await?;
            let mut found = Vec::new();
            while cursor.advance().await? {
                found.push(cursor.current().to_owned());
            }
            Ok(found)
        })
        .await
    }

    async fn documents_behind(
        &self,
        ask: &Ask,
        most: i64,
        fields: Document,
    ) -> StoreResult<Vec<RawDocumentBuf>> {
        let mut filter = condition(ask.kind);
        if let Some(after) = &ask.after {
            filter.insert("_id", doc! { "$gt": cells::key_bson(ask.kind, after)? });
        }
        let name = collection(ask.kind);
        self.some_documents(name, filter, most, fields).await
    }

    async fn plain_page(&self, ask: &Ask) -> StoreResult<Page> {
        let most = i64::from(ask.most);
        let fields = match ask.kind {
            Kind::Users => doc! { "sessions": 0 },
            _ => Document::new(),
        };
        let found = self.documents_behind(ask, most, fields).await?;
        let is_last = found.len() < ask.most as usize;
        let last = found.last().filter(|_| !is_last);
        let next = last
            .map(|document| cursor_of(ask.kind, document))
            .transpose()?;
        let (mut records, mut faulty) = (Vec::with_capacity(found.len()), Vec::new());
        for document in &found {
            match read_record(ask.kind, document) {
                Ok(record) => records.push(record),
                Err(error) => faulty.push(error),
            }
        }
        let (records, stray) = self.without_strays(ask.kind, records).await?;
        faulty.extend(stray);
        Ok(Page {
            records,
            faulty,
            next,
        })
    }

    /// Whole users, until there are as many sessions as asked for.
    async fn sessions_page(&self, ask: &Ask) -> StoreResult<Page> {
        let fields = doc! { "sessions": 1 };
        let found = self.documents_behind(ask, USERS_AT_ONCE, fields).await?;
        let mut page = Page {
            records: Vec::new(),
            faulty: Vec::new(),
            next: None,
        };
        for user in &found {
            sessions(user, &mut page)?;
            page.next = Some(cursor_of(Kind::Users, user)?);
            if page.records.len() >= ask.most as usize {
                break;
            }
        }
        Ok(page)
    }

    /// The records without those that a SQL database would refuse: of users whose names are not theirs, and of
    /// users that there are not.
    async fn without_strays(
        &self,
        kind: Kind,
        records: Vec<Record>,
    ) -> StoreResult<(Vec<Record>, Vec<StoreError>)> {
        let (mut sound, mut faulty) = (Vec::with_capacity(records.len()), Vec::new());
        if kind == Kind::Users {
            let held = self.held_names(&records).await?;
            for record in records {
                let is_theirs =
                    |name: &String| held.get(name).map(String::as_str) == record.text(kind, "id");
                if login_names(&record).iter().all(is_theirs) {
                    sound.push(record);
                } else {
                    faulty.push(StoreError::Corrupt {
                        table: LOGIN_NAMES,
                        column: "user_id",
                        row: record.name(kind),
                    });
                }
            }
        } else if kind.is_of_a_user() {
            let there = self.users_among(kind, &records).await?;
            for record in records {
                let owner = record.text(kind, "user_id");
                if owner.is_some_and(|owner| there.contains(owner)) {
                    sound.push(record);
                } else {
                    faulty.push(record.corrupt(kind, "user_id"));
                }
            }
        } else {
            sound = records;
        }
        Ok((sound, faulty))
    }

    /// Who has the names of these users.
    async fn held_names(&self, users: &[Record]) -> StoreResult<HashMap<String, String>> {
        let names: Vec<String> = users.iter().flat_map(login_names).collect();
        let theirs = doc! { "_id": { "$in": names }, KEPT: null };
        let found = self.some_documents(LOGIN_NAMES, theirs, 0, Document::new());
        let found = found.await?;
        let pairs = found.iter().filter_map(|name| {
            let user = lenient(name, "user_id", id)?;
            Some((name.get_str("_id").ok()?.to_owned(), hex(user.as_bytes())))
        });
        Ok(pairs.collect())
    }

    async fn users_among(&self, kind: Kind, records: &[Record]) -> StoreResult<HashSet<String>> {
        let owners = records.iter().filter_map(|record| {
            let owner = record.text(kind, "user_id")?.to_owned();
            cells::key_bson(Kind::Users, &Cursor(vec![owner])).ok()
        });
        let owners: Vec<Bson> = owners.collect();
        let among = doc! { "_id": { "$in": owners } };
        let found = self
            .some_documents(USERS, among, 0, doc! { "_id": 1 })
            .await?;
        let ids = found.iter().filter_map(|user| lenient(user, "_id", id));
        Ok(ids.map(|id| hex(id.as_bytes())).collect())
    }

    async fn stored_sessions(&self) -> StoreResult<u64> {
        let size = doc! { "$size": { "$ifNull": ["$sessions", []] } };
        self.sum_over_users(size).await
    }
}

/// Writes records, and how far the transfer has come with them.
struct Import {
    kind: Kind,
    records: Vec<Record>,
    before: String,
    after: String,
}

impl Import {
    async fn insert(&self, store: &MongoStore, session: &mut ClientSession) -> Result<(), Stopped> {
        let documents = self
            .records
            .iter()
            .map(|record| document(self.kind, record));
        let documents = documents.collect::<StoreResult<Vec<Document>>>()?;
        let into = store.database.collection::<Document>(collection(self.kind));
        into.insert_many(documents).session(&mut *session).await?;
        if self.kind == Kind::Users {
            let names = self.records.iter().map(cells::name_documents);
            let names = names.collect::<StoreResult<Vec<_>>>()?.concat();
            let into = store.database.collection::<Document>(LOGIN_NAMES);
            into.insert_many(names).session(session).await?;
        }
        Ok(())
    }

    /// Gives users their sessions, all of one user in one statement.
    async fn embed(&self, store: &MongoStore, session: &mut ClientSession) -> Result<(), Stopped> {
        let mut updates: Vec<Document> = Vec::new();
        let whose = |record: &Record| record.text(Kind::Sessions, "user_id").map(str::to_owned);
        for theirs in self.records.chunk_by(|a, b| whose(a) == whose(b)) {
            let user = Cursor(vec![whose(&theirs[0]).unwrap_or_default()]);
            let added = theirs.iter().map(|one| document(Kind::Sessions, one));
            let added = added.collect::<StoreResult<Vec<Document>>>()?;
            updates.push(doc! {
                "q": { "_id": cells::key_bson(Kind::Users, &user)? },
                "u": { "$push": { "sessions": { "$each": added } } },
            });
        }
        for some in updates.chunks(MOST_STATEMENTS) {
            let command = doc! { "update": USERS, "updates": some };
            let command = store.database.run_command(command);
            let reply = command.session(&mut *session).await?;
            let changed = reply.get_i32("n").ok().and_then(|n| n.try_into().ok());
            if changed != Some(some.len()) {
                let what = "a session's user is not there, or could not be changed";
                return Err(StoreError::Driver(what.into()).into());
            }
        }
        Ok(())
    }
}

#[async_trait]
impl Transaction for Import {
    type Outcome = bool;

    async fn run(
        &self,
        store: &MongoStore,
        session: &mut ClientSession,
    ) -> Result<Step<bool>, Stopped> {
        let state = store.collection(UNFINISHED);
        let known = doc! { "_id": STATE_KEY, "state": self.before.as_str() };
        let moved = state.update_one(known, doc! { "$set": { "state": self.after.as_str() } });
        if moved.session(&mut *session).await?.matched_count != 1 {
            return Ok(Step::Abort(false));
        }
        if self.kind == Kind::Sessions {
            self.embed(store, session).await?;
        } else if !self.records.is_empty() {
            self.insert(store, session).await?;
        }
        Ok(Step::Commit(true))
    }
}

#[async_trait]
impl Moving for MongoStore {
    async fn now(&self) -> StoreResult<Timestamp> {
        self.time().await
    }

    async fn page(&self, ask: &Ask) -> StoreResult<Page> {
        if ask.kind == Kind::Sessions {
            self.sessions_page(ask).await
        } else {
            self.plain_page(ask).await
        }
    }

    async fn stored(&self, kind: Kind) -> StoreResult<u64> {
        if kind == Kind::Sessions {
            return self.stored_sessions().await;
        }
        let (all, filter) = (self.collection(collection(kind)), condition(kind));
        self.bounded(async move { all.count_documents(filter).await })
            .await
    }

    fn closed_kept(&self) -> Option<u32> {
        Some(CLOSED_KEPT.unsigned_abs())
    }

    fn misfit(&self, _: &Record) -> Option<&'static str> {
        None
    }

    async fn unfinished(&self) -> StoreResult<Option<String>> {
        let state = self.collection(UNFINISHED);
        let find = async move { state.find_one(doc! { "_id": STATE_KEY }).await };
        let found = self.bounded(find).await?;
        let text = |state: &RawDocument| state.get_str("state").map(str::to_owned);
        Ok(found.map(|state| text(&state).unwrap_or_default()))
    }

    async fn begin(&self, state: &str) -> StoreResult<()> {
        let states = self.database.collection::<Document>(UNFINISHED);
        let begun = doc! { "_id": STATE_KEY, "state": state };
        let insert = async move { states.insert_one(begun).await };
        self.bounded(insert).await.map(drop)
    }

    async fn import(
        &self,
        kind: Kind,
        records: &[Record],
        before: &str,
        after: &str,
    ) -> StoreResult<()> {
        let import = Import {
            kind,
            records: records.to_vec(),
            before: before.to_owned(),
            after: after.to_owned(),
        };
        let is_ours = transact(self, import).await?;
        is_ours.then_some(()).ok_or_else(overtaken)
    }

    async fn finish(&self) -> StoreResult<()> {
        let states = self.collection(UNFINISHED);
        self.bounded(async move { states.drop().await }).await
    }
}
