//! Opening, closing and touching sessions.
//!
//! Decides the updates of a user's document that do so. The server applies updates of one document
//! one after the other, each to what the one before left: what is decided inside an update cannot be
//! overtaken, so nothing here reads first and writes later.

use mongodb::{
    bson::{Bson, Document, RawDocumentBuf, doc},
    options::{ReturnDocument, UpdateModifications},
};

use super::{
    MongoStore,
    documents::{USERS, opened_session, session_document, session_key, time_bson, user_key},
    rows::{Row, count, id, list, read_sessions, time, whole},
};
use crate::{
    clock::Timestamp,
    ids::{SessionId, UserId},
    model::{
        session::{CloseReason, IdleRule, Session},
        user::{MOST_SESSIONS, OnLimit},
    },
    store::{CloseSession, OpenSession, OpenSessionRequest, Seen, StoreError, StoreResult},
};

/// How many closed sessions a user's document keeps, so that their clients hear why they ended.
const CLOSED_KEPT: i32 = 20;

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
fn closed(sessions: impl Into<Bson>, reason: impl Into<Bson>, now: Timestamp) -> Document {
    let end = doc! { "closed_at": time_bson(now), "close_reason": reason.into() };
    doc! { "$map": {
        "input": sessions.into(),
        "as": "s",
        "in": { "$mergeObjects": ["$$s", end] },
    } }
}

/// Whether the time of `$$s` is over, and for which reason it is closed then.
fn overdue(idle: IdleRule, now: Timestamp) -> (Document, Document) {
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

/// The update that opens a session: a pipeline, so that all of it is decided by the server on the
/// document as it is when its turn comes. Sixty-four logins at once are sixty-four such updates in a
/// row, each of which sees the session of the one before and ends it.
///
/// Values from outside stand in `$literal`, or a `$` in a device name would be read as a path.
fn opening(request: &OpenSessionRequest, session: &Session, now: Timestamp) -> Vec<Document> {
    let (is_overdue, overdue_reason) = overdue(request.idle, now);
    let overdue = sessions_where(doc! { "$and": [is_open("$$s"), &is_overdue] });
    let facts = doc! {
        "may": { "$and": [
            { "$eq": [{ "$ifNull": ["$deactivated_at", null] }, null] },
            { "$eq": ["$credential_version", request.credential_version] },
        ] },
        "max": { "$let": {
            "vars": { "own": { "$ifNull": ["$max_sessions", i64::from(request.limit.max)] } },
            "in": { "$cond": [
                { "$lte": ["$$own", 0] },
                i64::from(MOST_SESSIONS),
                { "$min": ["$$own", i64::from(MOST_SESSIONS)] },
            ] },
        } },
        "evicts": { "$ne": [
            { "$ifNull": ["$on_session_limit", request.limit.on_limit.as_str()] },
            OnLimit::Reject.as_str(),
        ] },
        // The array is in the order of opening, so its first sessions are the oldest.
        "ended": { "$concatArrays": [
            sessions_where(doc! { "$not": is_open("$$s") }),
            closed(overdue, overdue_reason, now),
        ] },
        "live": sessions_where(doc! { "$and": [is_open("$$s"), { "$not": is_overdue }] }),
    };
    let surplus = doc! { "$max": [0, { "$subtract": [
        { "$add": [{ "$size": "$opening.live" }, 1] },
        "$opening.max",
    ] }] };
    let opens = doc! { "$and": [
        "$opening.may",
        { "$or": ["$opening.evicts", { "$eq": ["$opening.surplus", 0] }] },
    ] };
    vec![
        doc! { "$set": { "opening": facts } },
        doc! { "$set": { "opening.surplus": surplus } },
        doc! { "$set": { "opening.opens": opens } },
        doc! { "$set": opened(request, session, now) },
        doc! { "$unset": "opening" },
    ]
}

/// The fields that [`opening`] sets, by what it found out.
fn opened(request: &OpenSessionRequest, session: &Session, now: Timestamp) -> Document {
    let surplus = doc! { "$slice": ["$opening.live", "$opening.surplus"] };
    let rest = doc! { "$slice": [
        "$opening.live",
        { "$subtract": ["$opening.surplus", { "$size": "$opening.live" }] },
    ] };
    let kept = |ended: Document| doc! { "$slice": [ended, -CLOSED_KEPT] };
    let ended_now = doc! { "$concatArrays": [
        "$opening.ended",
        closed(surplus.clone(), CloseReason::Replaced.as_str(), now),
    ] };
    // The new session says which ones it replaced: that is how the caller learns it, and it stays
    // true when those are long gone.
    let new = doc! { "$mergeObjects": [
        { "$literal": session_document(session, request.session.refresh) },
        { "replaced": { "$map": { "input": surplus, "as": "s", "in": "$$s.id" } } },
    ] };
    let refused = doc! { "$slice": ["$opening.ended", -CLOSED_KEPT] };
    let mut fields = doc! { "sessions": { "$switch": {
        "branches": [
            {
                "case": "$opening.opens",
                "then": { "$concatArrays": [kept(ended_now), rest, [new]] },
            },
            {
                "case": "$opening.may",
                "then": { "$concatArrays": [refused, "$opening.live"] },
            },
        ],
        "default": "$sessions",
    } } };
    if let Some(rehash) = &request.rehash {
        fields.insert(
            "password_hash",
            doc! { "$cond": [
                "$opening.opens",
                { "$literal": rehash.expose() },
                "$password_hash",
            ] },
        );
    }
    fields
}

impl MongoStore {
    pub(super) async fn open(
        &self,
        request: &OpenSessionRequest,
        now: Timestamp,
    ) -> StoreResult<OpenSession> {
        let user = request.session.user_id;
        let session = opened_session(&request.session, now);
        let (users, limit) = (self.collection(USERS), self.operation_timeout);
        let is_new = doc! { "$eq": ["$$s.id", session_key(session.id)] };
        let opening = opening(request, &session, now);
        let update = async move {
            users
                .find_one_and_update(doc! { "_id": user_key(user) }, opening)
                // The document as this very update left it: what is read from it was decided.
                .return_document(ReturnDocument::After)
                .projection(doc! {
                    "deactivated_at": 1,
                    "credential_version": 1,
                    "new": sessions_where(is_new),
                    "open": { "$size": sessions_where(is_open("$$s")) },
                })
                .max_time(limit)
                .await
        };
        let Some(after) = self.bounded(update).await? else {
            return Ok(OpenSession::Gone);
        };
        let row = Row::user(&after, user);
        let evicted = row.required("new", |value| {
            let new = value.as_array()?.into_iter().next();
            let Some(new) = new else { return Some(None) };
            let replaced = new.ok()?.as_document()?.get("replaced").ok()??;
            list(id)(replaced).map(Some)
        })?;
        if let Some(evicted) = evicted {
            let evicted = evicted.into_iter().map(SessionId::from).collect();
            return Ok(OpenSession::Opened { session, evicted });
        }
        if row.optional("deactivated_at", time)?.is_some() {
            return Ok(OpenSession::NotActive);
        }
        if row.required("credential_version", whole)? != request.credential_version {
            return Ok(OpenSession::CredentialsChanged);
        }
        let open = row.required("open", count)?;
        Ok(OpenSession::Refused { open })
    }

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
        let of_user = user.map_or_else(Document::new, |user| doc! { "_id": user_key(user) });
        let mut element = doc! { "id": session_key(session), "closed_at": null };
        if let Some(since) = unseen_since {
            element.insert("last_seen_at", doc! { "$lte": time_bson(since) });
        }
        let mut still_open = of_user.clone();
        still_open.insert("sessions", doc! { "$elemMatch": element });
        let (users, limit) = (self.collection(USERS), self.operation_timeout);
        let closed = doc! { "$set": {
            "sessions.$.closed_at": time_bson(now),
            "sessions.$.close_reason": reason.as_str(),
        } };
        let writer = users.clone();
        let close = async move { writer.update_one(still_open, closed).await };
        if self.bounded(close).await?.matched_count > 0 {
            return Ok(CloseSession::Closed);
        }
        let mut exists = of_user;
        exists.insert("sessions.id", session_key(session));
        let find = async move {
            let find = users.find_one(exists).projection(doc! { "_id": 1 });
            find.max_time(limit).await
        };
        Ok(match self.bounded(find).await? {
            Some(_) => CloseSession::AlreadyClosed,
            None => CloseSession::Unknown,
        })
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
