//! The audit trail: records written in the transaction of what they tell of, listed, sealed and cut.
//!
//! What keeps records from being changed by anybody else stands in the schema, as triggers.

use diesel::prelude::*;
use diesel_async::RunQueryDsl;

use super::{
    Backend, Conn,
    faults::{Fault, from_diesel},
    schema::{audit_events, audit_keys, audit_marks, users},
    types::{DbId, DbTime},
};
use crate::{
    clock::Timestamp,
    ids::{AuditId, UserId},
    model::audit::{
        AuditFilter, AuditRecord, Event, Occasion, Recorder, WrappedKey,
        seal::{Mark, MarkName, Sealed},
    },
    store::StoreResult,
};

/// What happens in one change, to be written before it ends.
pub(super) struct Log<'a> {
    pub(super) by: &'a Occasion,
    events: Vec<Event>,
}

impl<'a> Log<'a> {
    pub(super) const fn new(by: &'a Occasion) -> Self {
        Self {
            by,
            events: Vec::new(),
        }
    }

    /// The time of the change.
    pub(super) const fn now(&self) -> Timestamp {
        self.by.at
    }

    pub(super) fn add(&mut self, event: Event) {
        self.events.push(event);
    }

    /// Writes what was added, in one statement.
    pub(super) async fn write(self, tx: &mut Conn) -> Result<(), Fault> {
        write(tx, self.by, &self.events).await
    }
}

/// Writes records in the transaction of what they tell of.
pub(super) async fn write(tx: &mut Conn, by: &Occasion, events: &[Event]) -> Result<(), Fault> {
    let Some(recorder) = by.recorder.as_deref() else {
        return Ok(());
    };
    let tells = by.details().is_some();
    let mut rows = Vec::with_capacity(events.len());
    let mut known: Option<(Option<UserId>, Option<WrappedKey>)> = None;
    for event in events {
        let person = by.person(event);
        if tells && known.as_ref().map(|(whose, _)| *whose) != Some(person) {
            known = Some((person, key_of(tx, recorder, person).await?));
        }
        let key = known.as_ref().and_then(|(_, key)| key.as_ref());
        rows.extend(by.record(event, key).map(AuditRow::from));
    }
    if !rows.is_empty() {
        insert_all!(tx, audit_events::table, rows);
    }
    Ok(())
}

/// The key of a person's details, made when it is first needed. None for somebody who was erased. Nobody's is
/// looked for as well, and not found: what is refused costs the same whoever it is about (ASVS 6.3.8).
async fn key_of(
    tx: &mut Conn,
    recorder: &Recorder,
    person: Option<UserId>,
) -> Result<Option<WrappedKey>, Fault> {
    let id = DbId(person.map_or_else(uuid::Uuid::nil, UserId::as_uuid));
    let stored = audit_keys::table.find(id).select(audit_keys::key);
    let found = stored.first::<Option<Vec<u8>>>(tx).await.optional()?;
    if let Some(key) = found {
        return Ok(key.map(WrappedKey::stored));
    }
    let Some(person) = person else {
        return Ok(None);
    };
    let user = users::table.find(id).select(users::id);
    if user.first::<DbId>(tx).await.optional()?.is_none() {
        return Ok(None);
    }
    make_key(tx, recorder, person).await?;
    let key = stored.first::<Option<Vec<u8>>>(tx).await?;
    Ok(key.map(WrappedKey::stored))
}

/// Makes the key of a person who has none yet and was not erased.
async fn make_key(tx: &mut Conn, recorder: &Recorder, person: UserId) -> Result<(), Fault> {
    let Some(fresh) = recorder.fresh_key(person) else {
        return Ok(());
    };
    let columns = (
        audit_keys::user_id.eq(DbId(person.as_uuid())),
        audit_keys::key.eq(fresh.as_bytes().to_vec()),
    );
    let made = diesel::insert_into(audit_keys::table).values(columns);
    made.on_conflict_do_nothing().execute(tx).await?;
    Ok(())
}

/// Makes the key of a user who is just coming to be, so that their records cost the same as anybody's.
pub(super) async fn begin(tx: &mut Conn, by: &Occasion, user: UserId) -> Result<(), Fault> {
    match by.recorder.as_deref() {
        Some(recorder) => make_key(tx, recorder, user).await,
        None => Ok(()),
    }
}

/// Drops the keys of these persons for good.
pub(super) async fn forget(tx: &mut Conn, persons: &[DbId]) -> Result<(), Fault> {
    for person in persons {
        let none = || audit_keys::key.eq(None::<Vec<u8>>);
        diesel::insert_into(audit_keys::table)
            .values((audit_keys::user_id.eq(*person), none()))
            .on_conflict(audit_keys::user_id)
            .do_update()
            .set(none())
            .execute(tx)
            .await?;
    }
    Ok(())
}

pub(super) async fn record(conn: &mut Conn, events: &[Event], by: &Occasion) -> StoreResult<()> {
    let recorded: Result<(), Fault> = write_tx!(conn, async |tx| { write(tx, by, events).await });
    Ok(recorded?)
}

pub(super) async fn list(conn: &mut Conn, filter: &AuditFilter) -> StoreResult<Vec<AuditRecord>> {
    let mut query = audit_events::table
        .select(AuditRow::as_select())
        .into_boxed::<Backend>();
    if let Some(user) = filter.user {
        let id = DbId(user.as_uuid());
        let is_theirs = audit_events::subject_id.eq(id);
        query = query.filter(
            is_theirs
                .or(audit_events::actor_id.eq(id))
                .assume_not_null(),
        );
    }
    if let Some(subject) = filter.subject {
        query = query.filter(audit_events::subject_id.eq(DbId(subject.as_uuid())));
    }
    if let Some(session) = filter.session {
        let id = DbId(session.as_uuid());
        let is_it = audit_events::session_id.eq(id);
        query = query.filter(
            is_it
                .or(audit_events::actor_session.eq(id))
                .assume_not_null(),
        );
    }
    if let Some(kind) = filter.event {
        query = query.filter(audit_events::event.eq(kind.as_str()));
    }
    if let Some(outcome) = filter.outcome {
        query = query.filter(audit_events::outcome.eq(outcome.as_str()));
    }
    if let Some(from) = filter.from {
        query = query.filter(audit_events::at.ge(DbTime(from)));
    }
    if let Some(until) = filter.until {
        query = query.filter(audit_events::at.lt(DbTime(until)));
    }
    if let Some(before) = filter.before {
        query = query.filter(audit_events::id.lt(DbId(before.as_uuid())));
    }
    let newest_first = query
        .order(audit_events::id.desc())
        .limit(i64::from(filter.limit));
    parsed(newest_first.load::<AuditRow>(conn).await)
}

pub(super) async fn unsealed(conn: &mut Conn, most: u32) -> StoreResult<Vec<AuditRecord>> {
    let waiting = audit_events::table
        .filter(audit_events::seq.is_null())
        .order(audit_events::id)
        .limit(i64::from(most))
        .select(AuditRow::as_select());
    parsed(waiting.load::<AuditRow>(conn).await)
}

pub(super) async fn count_unsealed(conn: &mut Conn) -> StoreResult<u64> {
    let waiting = audit_events::table
        .filter(audit_events::seq.is_null())
        .count()
        .get_result::<i64>(conn)
        .await;
    Ok(u64::try_from(waiting.map_err(from_diesel)?).unwrap_or(0))
}

pub(super) async fn sealed(
    conn: &mut Conn,
    after: i64,
    most: u32,
) -> StoreResult<Vec<AuditRecord>> {
    let sealed = audit_events::table
        .filter(audit_events::seq.gt(after))
        .order(audit_events::seq)
        .limit(i64::from(most))
        .select(AuditRow::as_select());
    parsed(sealed.load::<AuditRow>(conn).await)
}

fn parsed(rows: QueryResult<Vec<AuditRow>>) -> StoreResult<Vec<AuditRecord>> {
    let rows = rows.map_err(from_diesel)?;
    Ok(rows.into_iter().map(AuditRow::parse).collect())
}

/// The head is moved first, on the condition that it is still the known one: whoever seals at the same time waits
/// for it, and then finds another.
pub(super) async fn seal(
    conn: &mut Conn,
    sealed: &[(AuditId, Sealed)],
    known: Option<&Mark>,
    head: &Mark,
) -> StoreResult<bool> {
    let done: Result<(), Fault> = write_tx!(conn, async |tx| {
        if !move_head(tx, known, head).await? {
            return Err(diesel::result::Error::NotFound.into());
        }
        for (id, place) in sealed {
            let waiting = audit_events::table
                .find(DbId(id.as_uuid()))
                .filter(audit_events::seq.is_null());
            let columns = (
                audit_events::seq.eq(place.seq),
                audit_events::seal.eq(place.seal.clone()),
            );
            if diesel::update(waiting).set(columns).execute(tx).await? != 1 {
                return Err(diesel::result::Error::NotFound.into());
            }
        }
        Ok(())
    });
    match done {
        Ok(()) => Ok(true),
        Err(Fault::Database(diesel::result::Error::NotFound)) => Ok(false),
        Err(fault) => Err(fault.into()),
    }
}

async fn move_head(tx: &mut Conn, known: Option<&Mark>, head: &Mark) -> Result<bool, Fault> {
    let row = MarkRow::from(head);
    let moved = match known {
        None => {
            let first = diesel::insert_into(audit_marks::table).values(&row);
            first.on_conflict_do_nothing().execute(tx).await?
        }
        Some(known) => {
            let same = audit_marks::table
                .find(known.name.as_str())
                .filter(audit_marks::seq.eq(known.seq))
                .filter(audit_marks::signature.eq(known.signature.clone()));
            diesel::update(same).set(&row).execute(tx).await?
        }
    };
    Ok(moved == 1)
}

pub(super) async fn mark(conn: &mut Conn, name: MarkName) -> StoreResult<Option<Mark>> {
    let row = audit_marks::table
        .find(name.as_str())
        .select(MarkRow::as_select());
    let row = row.first(conn).await.optional().map_err(from_diesel)?;
    Ok(row.map(|row| row.parse(name)))
}

pub(super) async fn cut(conn: &mut Conn, checkpoint: &Mark, most: u32) -> StoreResult<u32> {
    let cut: Result<usize, Fault> = write_tx!(conn, async |tx| {
        let row = MarkRow::from(checkpoint);
        let further = diesel::insert_into(audit_marks::table)
            .values(&row)
            .on_conflict(audit_marks::name)
            .do_update()
            .set(&row);
        let is_behind = audit_marks::seq.lt(checkpoint.seq);
        diesel::query_dsl::methods::FilterDsl::filter(further, is_behind)
            .execute(tx)
            .await?;
        let old = audit_events::table
            .filter(audit_events::seq.le(checkpoint.seq))
            .order(audit_events::seq)
            .limit(i64::from(most))
            .select(audit_events::id);
        let old: Vec<DbId> = old.load(tx).await?;
        let old = audit_events::table.filter(audit_events::id.eq_any(old));
        Ok(diesel::delete(old).execute(tx).await?)
    });
    Ok(u32::try_from(cut?).unwrap_or(u32::MAX))
}

pub(super) async fn keys(
    conn: &mut Conn,
    persons: &[UserId],
) -> StoreResult<Vec<(UserId, WrappedKey)>> {
    let ids = persons.iter().map(|person| DbId(person.as_uuid()));
    let stored = audit_keys::table
        .filter(audit_keys::user_id.eq_any(ids))
        .select((audit_keys::user_id, audit_keys::key));
    let stored: Vec<(DbId, Option<Vec<u8>>)> = stored.load(conn).await.map_err(from_diesel)?;
    let stored = stored.into_iter();
    Ok(stored
        .filter_map(|(id, key)| Some((id.0.into(), WrappedKey::stored(key?))))
        .collect())
}

#[derive(Queryable, Selectable, Insertable)]
#[diesel(table_name = audit_events)]
struct AuditRow {
    id: DbId,
    at: DbTime,
    event: String,
    outcome: String,
    reason: Option<String>,
    actor: String,
    actor_id: Option<DbId>,
    actor_session: Option<DbId>,
    subject_id: Option<DbId>,
    session_id: Option<DbId>,
    request_id: Option<String>,
    person_id: Option<DbId>,
    details: Option<Vec<u8>>,
    facts: Option<String>,
    seq: Option<i64>,
    seal: Option<Vec<u8>>,
}

impl From<AuditRecord> for AuditRow {
    fn from(record: AuditRecord) -> Self {
        let (seq, seal) = record.sealed.map(|place| (place.seq, place.seal)).unzip();
        Self {
            id: DbId(record.id.as_uuid()),
            at: DbTime(record.at),
            event: record.event,
            outcome: record.outcome,
            reason: record.reason,
            actor: record.actor,
            actor_id: record.actor_id.map(|id| DbId(id.as_uuid())),
            actor_session: record.actor_session.map(|id| DbId(id.as_uuid())),
            subject_id: record.subject.map(|id| DbId(id.as_uuid())),
            session_id: record.session.map(|id| DbId(id.as_uuid())),
            request_id: record.request_id,
            person_id: record.person.map(|id| DbId(id.as_uuid())),
            details: record.details,
            facts: record.facts,
            seq,
            seal,
        }
    }
}

impl AuditRow {
    fn parse(self) -> AuditRecord {
        let sealed = self.seq.zip(self.seal);
        AuditRecord {
            id: self.id.0.into(),
            at: self.at.0,
            event: self.event,
            outcome: self.outcome,
            reason: self.reason,
            actor: self.actor,
            actor_id: self.actor_id.map(|id| id.0.into()),
            actor_session: self.actor_session.map(|id| id.0.into()),
            subject: self.subject_id.map(|id| id.0.into()),
            session: self.session_id.map(|id| id.0.into()),
            request_id: self.request_id,
            person: self.person_id.map(|id| id.0.into()),
            details: self.details,
            facts: self.facts,
            sealed: sealed.map(|(seq, seal)| Sealed { seq, seal }),
        }
    }
}

#[derive(Queryable, Selectable, Insertable, AsChangeset)]
#[diesel(table_name = audit_marks)]
struct MarkRow {
    name: String,
    seq: i64,
    seal: Vec<u8>,
    at: DbTime,
    signature: Vec<u8>,
}

impl From<&Mark> for MarkRow {
    fn from(mark: &Mark) -> Self {
        Self {
            name: mark.name.as_str().to_owned(),
            seq: mark.seq,
            seal: mark.seal.clone(),
            at: DbTime(mark.at),
            signature: mark.signature.clone(),
        }
    }
}

impl MarkRow {
    fn parse(self, name: MarkName) -> Mark {
        Mark {
            name,
            seq: self.seq,
            seal: self.seal,
            at: self.at.0,
            signature: self.signature,
        }
    }
}
