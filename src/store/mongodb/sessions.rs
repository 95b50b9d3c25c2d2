//! Closing and touching sessions.
//!
//! Decides the updates of a user's document that do so. The server applies updates of one document
//! one after the other, each to what the one before left: what is decided inside an update cannot be
//! overtaken, so nothing here reads first and writes later.

use async_trait::async_trait;
use mongodb::{
    ClientSession,
    bson::{Bson, Document, RawDocumentBuf, doc},
    options::{ReturnDocument, UpdateModifications},
};

use super::{
    MongoStore,
    documents::{USERS, session_key, time_bson, user_key},
    outbox::store_letter,
    rows::{Row, count, read_sessions, time},
    transaction::{Step, Stopped, Transaction, transact},
};
use crate::{
    clock::Timestamp,
    ids::{SessionId, UserId},
    model::{
        mail::NewLetter,
        session::{CloseReason, IdleRule},
    },
    store::{CloseSession, Seen, StoreError, StoreResult},
};

/// Most statements in one `update` command; the server's own limit is 100 000.
const MOST_STATEMENTS: usize = 1000;

/// Whether the session that the variable `session` stands for is not closed.
pub(super) fn is_open(session: &str) -> Document {
    doc! { "$eq": [{ "$ifNull": [format!("{session}.closed_at"), null] }, null] }
}

/// Whether the session that the variable `session` stands for is this one, and not closed.
pub(super) fn is_open_one(session: &str, id: SessionId) -> Document {
    let is_this = doc! { "$eq": [format!("{session}.id"), session_key(id)] };
    doc! { "$and": [is_open(session), is_this] }
}

/// The sessions of a pipeline's document for which `condition` on `$$s` holds.
pub(super) fn sessions_where(condition: impl Into<Bson>) -> Document {
    doc! { "$filter": { "input": "$sessions", "as": "s", "cond": condition.into() } }
}

/// `sessions`, each closed at `now` for `reason` (an expression on `$$s`).
pub(super) fn closed(
    sessions: impl Into<Bson>,
    reason: impl Into<Bson>,
    now: Timestamp,
) -> Document {
    let end = doc! { "closed_at": time_bson(now), "close_reason": reason.into() };
    doc! { "$map": {
        "input": sessions.into(),
        "as": "s",
        "in": { "$mergeObjects": ["$$s", end] },
    } }
}

/// Whether the time of `$$s` is over, and for which reason it is closed then.
pub(super) fn overdue(idle: IdleRule, now: Timestamp) -> (Document, Document) {
    let has_expired = doc! { "$lte": ["$$s.expires_at", time_bson(now)] };
    let is_idle = doc! { "$lt": ["$$s.last_seen_at", time_bson(idle.seen_before(now))] };
    let reason = doc! { "$cond": [
        &has_expired, CloseReason::Expired.as_str(), CloseReason::Idle.as_str(),
    ] };
    (doc! { "$or": [has_expired, is_idle] }, reason)
}

/// All sessions of a pipeline's document, the open ones whose time is over being closed.
pub(super) fn with_overdue_closed(idle: IdleRule, now: Timestamp) -> Document {
    let (is_overdue, reason) = overdue(idle, now);
    with_closed(doc! { "$and": [is_open("$$s"), is_overdue] }, reason, now)
}

/// All sessions of a pipeline's document, those for which `condition` on `$$s` holds being closed for
/// `reason` (an expression).
pub(super) fn with_closed(
    condition: impl Into<Bson>,
    reason: impl Into<Bson>,
    now: Timestamp,
) -> Document {
    let end = doc! { "closed_at": time_bson(now), "close_reason": reason.into() };
    doc! { "$map": {
        "input": "$sessions",
        "as": "s",
        "in": { "$cond": [condition.into(), { "$mergeObjects": ["$$s", end] }, "$$s"] },
    } }
}

/// Whether `$$s` is open and not the session to keep.
pub(super) fn is_open_but(keep: Option<SessionId>) -> Document {
    let not_kept = keep.map_or(Bson::Boolean(true), |keep| {
        Bson::Document(doc! { "$ne": ["$$s.id", session_key(keep)] })
    });
    doc! { "$and": [is_open("$$s"), not_kept] }
}

/// The document of `user`, or of whoever has the session, that has this session.
fn of_session(user: Option<UserId>, session: SessionId) -> Document {
    let mut has_it = user.map_or_else(Document::new, |user| doc! { "_id": user_key(user) });
    has_it.insert("sessions.id", session_key(session));
    has_it
}

/// As [`of_session`], while the session is open and, if asked for, was not seen since.
fn still_open(
    user: Option<UserId>,
    session: SessionId,
    unseen_since: Option<Timestamp>,
) -> Document {
    let mut element = doc! { "id": session_key(session), "closed_at": null };
    if let Some(since) = unseen_since {
        element.insert("last_seen_at", doc! { "$lte": time_bson(since) });
    }
    let mut open = user.map_or_else(Document::new, |user| doc! { "_id": user_key(user) });
    open.insert("sessions", doc! { "$elemMatch": element });
    open
}

/// The update that closes the session that its condition has found.
fn closing(reason: CloseReason, now: Timestamp) -> Document {
    doc! { "$set": {
        "sessions.$.closed_at": time_bson(now),
        "sessions.$.close_reason": reason.as_str(),
    } }
}

fn not_closed(exists: bool) -> CloseSession {
    if exists {
        CloseSession::AlreadyClosed
    } else {
        CloseSession::Unknown
    }
}

/// Closes a session one of whose refresh tokens was used twice, with a letter that tells of it.
struct CloseReused {
    user: UserId,
    session: SessionId,
    letter: NewLetter,
    now: Timestamp,
}

#[async_trait]
impl Transaction for CloseReused {
    type Outcome = CloseSession;

    async fn run(
        &self,
        store: &MongoStore,
        session: &mut ClientSession,
    ) -> Result<Step<CloseSession>, Stopped> {
        let users = store.collection(USERS);
        let closed = users
            .update_one(
                still_open(Some(self.user), self.session, None),
                closing(CloseReason::RefreshReused, self.now),
            )
            .session(&mut *session)
            .await?;
        if closed.matched_count > 0 {
            store_letter(store, session, Some(&self.letter)).await?;
            return Ok(Step::Commit(CloseSession::Closed));
        }
        let found = users
            .find_one(of_session(Some(self.user), self.session))
            .projection(doc! { "_id": 1 })
            .session(session)
            .await?;
        Ok(Step::Abort(not_closed(found.is_some())))
    }
}

impl MongoStore {
    /// Closes one session, of `user` or of whoever has it.
    ///
    /// The condition is part of the update. If it did not hold, the session exists or it does not;
    /// that cannot change meanwhile, as ids are never used twice.
    pub(super) async fn close_one(
        &self,
        user: Option<UserId>,
        session: SessionId,
        reason: CloseReason,
        unseen_since: Option<Timestamp>,
        now: Timestamp,
    ) -> StoreResult<CloseSession> {
        let still_open = still_open(user, session, unseen_since);
        let (users, limit) = (self.collection(USERS), self.operation_timeout);
        let writer = users.clone();
        let close = async move { writer.update_one(still_open, closing(reason, now)).await };
        if self.bounded(close).await?.matched_count > 0 {
            return Ok(CloseSession::Closed);
        }
        let exists = of_session(user, session);
        let find = async move {
            let find = users.find_one(exists).projection(doc! { "_id": 1 });
            find.max_time(limit).await
        };
        Ok(not_closed(self.bounded(find).await?.is_some()))
    }

    pub(super) async fn close_reused(
        &self,
        user: UserId,
        session: SessionId,
        letter: Option<&NewLetter>,
        now: Timestamp,
    ) -> StoreResult<CloseSession> {
        let Some(letter) = letter else {
            return self
                .close_one(Some(user), session, CloseReason::RefreshReused, None, now)
                .await;
        };
        let work = CloseReused {
            user,
            session,
            letter: letter.clone().about(user),
            now,
        };
        transact(self, work).await
    }

    /// Closes all open sessions of a user but one: one update, so that a login comes before it and
    /// is closed, or after it and was not open when this began. The count is of the document just
    /// before.
    pub(super) async fn close_all(
        &self,
        user: UserId,
        keep: Option<SessionId>,
        reason: CloseReason,
        now: Timestamp,
    ) -> StoreResult<Option<u64>> {
        let (users, limit) = (self.collection(USERS), self.operation_timeout);
        let sessions = with_closed(is_open_but(keep), reason.as_str(), now);
        let closing = vec![doc! { "$set": { "sessions": sessions } }];
        let update = async move {
            users
                .find_one_and_update(doc! { "_id": user_key(user) }, closing)
                .return_document(ReturnDocument::Before)
                .projection(closing_count(keep))
                .max_time(limit)
                .await
        };
        match self.bounded(update).await? {
            Some(before) => closed_count(&before, user).map(Some),
            None => Ok(None),
        }
    }

    pub(super) async fn renew(
        &self,
        user: UserId,
        session: SessionId,
        known: Timestamp,
        now: Timestamp,
    ) -> StoreResult<Option<Timestamp>> {
        let not_renewed = doc! { "$lte": ["$$s.authenticated_at", time_bson(known.min(now))] };
        let renewed = doc! { "$set": { "sessions": { "$map": {
            "input": "$sessions",
            "as": "s",
            "in": { "$cond": [
                { "$and": [is_open_one("$$s", session), not_renewed] },
                { "$mergeObjects": ["$$s", { "authenticated_at": time_bson(now) }] },
                "$$s",
            ] },
        } } } };
        let open = open_session_filter(user, session);
        self.time_after(user, session, open, vec![renewed], "authenticated_at")
            .await
    }

    /// Updates a user's document on a condition and answers a time of one of its sessions: as this very
    /// update left it, whoever wrote it. `None` if the condition does not hold.
    pub(super) async fn time_after(
        &self,
        user: UserId,
        session: SessionId,
        condition: Document,
        update: impl Into<UpdateModifications> + Send,
        field: &'static str,
    ) -> StoreResult<Option<Timestamp>> {
        let is_this = doc! { "$eq": ["$$s.id", session_key(session)] };
        let (users, limit, update) = (
            self.collection(USERS),
            self.operation_timeout,
            update.into(),
        );
        let update = async move {
            users
                .find_one_and_update(condition, update)
                .return_document(ReturnDocument::After)
                .projection(doc! { "sessions": sessions_where(is_this) })
                .max_time(limit)
                .await
        };
        let Some(after) = self.bounded(update).await? else {
            return Ok(None);
        };
        let (_, embedded) = *read_sessions(&after, user)?
            .first()
            .ok_or_else(|| Row::user(&after, user).corrupt("sessions"))?;
        Row::session(embedded, session)
            .required(field, time)
            .map(Some)
    }

    /// One statement per session, many in one command. A statement that fails does not keep the others
    /// from being applied, and none holds anything while another waits.
    pub(super) async fn flush_seen(&self, seen: &[Seen]) -> StoreResult<()> {
        for chunk in seen.chunks(MOST_STATEMENTS) {
            let updates: Vec<Document> = chunk
                .iter()
                .map(|one| {
                    doc! {
                        "q": open_session_filter(one.user_id, one.session_id),
                        "u": { "$max": { "sessions.$.last_seen_at": time_bson(one.at) } },
                    }
                })
                .collect();
            let wait = i64::try_from(self.operation_timeout.as_millis()).unwrap_or(i64::MAX);
            let command = doc! {
                "update": USERS,
                "updates": updates,
                "ordered": false,
                "writeConcern": { "w": "majority", "j": true, "wtimeout": wait },
                "maxTimeMS": wait,
            };
            let database = self.database.clone();
            let update = async move { database.run_command(command).await };
            let reply = self.bounded(update).await?;
            if reply.contains_key("writeConcernError") {
                let what = "a majority did not confirm when sessions were seen";
                return Err(StoreError::Unavailable(what.into()));
            }
            if reply.contains_key("writeErrors") {
                let what = "some sessions' last use could not be noted";
                return Err(StoreError::Driver(what.into()));
            }
        }
        Ok(())
    }
}

pub(super) fn open_session_filter(user: UserId, session: SessionId) -> Document {
    doc! {
        "_id": user_key(user),
        "sessions": { "$elemMatch": { "id": session_key(session), "closed_at": null } },
    }
}

/// A projection of the document before an update that closes all sessions but `keep`.
pub(super) fn closing_count(keep: Option<SessionId>) -> Document {
    doc! { "closing": { "$size": sessions_where(is_open_but(keep)) } }
}

/// What [`closing_count`] found.
pub(super) fn closed_count(before: &RawDocumentBuf, user: UserId) -> StoreResult<u64> {
    Row::user(before, user)
        .required("closing", count)
        .map(u64::from)
}
