//! Closing and touching sessions.
//!
//! Decides the updates of a user's document that do so. Each decides for itself on the document as it is,
//! so nothing here reads first and writes later; closing is a transaction with its record.

use async_trait::async_trait;
use mongodb::{
    ClientSession,
    bson::{Bson, Document, RawDocument, doc},
    options::{ReturnDocument, UpdateModifications},
};

use super::{
    MongoStore,
    audit::{self, Log},
    documents::{USERS, session_key, time_bson, user_key},
    outbox::store_letter,
    rows::{Row, read_ended, read_sessions, read_user_id, time},
    transaction::{Step, Stopped, Transaction},
};
use crate::{
    clock::Timestamp,
    ids::{SessionId, UserId},
    model::{
        audit::{Event, EventKind, Occasion},
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

/// What records tell of `sessions` that an update closes for `reason` (an expression on `$$s`).
pub(super) fn named(sessions: impl Into<Bson>, reason: impl Into<Bson>) -> Document {
    doc! { "$map": {
        "input": sessions.into(),
        "as": "s",
        "in": { "id": "$$s.id", "reason": reason.into() },
    } }
}

/// A projection of the document before an update that closes all sessions but `keep`, for
/// [`read_ended`].
pub(super) fn ending(keep: Option<SessionId>, reason: CloseReason) -> Document {
    doc! { "ended": named(sessions_where(is_open_but(keep)), reason.as_str()) }
}

/// The sessions of the list `live` (an expression) that are too many, the oldest of them: the list is in the
/// order of opening.
pub(super) fn surplus(live: impl Into<Bson>, most: impl Into<Bson>) -> Document {
    let size = doc! { "$size": "$$live" };
    let surplus = doc! { "$max": [0, { "$subtract": [size, most.into()] }] };
    doc! { "$let": {
        "vars": { "live": live.into() },
        "in": { "$slice": ["$$live", surplus] },
    } }
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

/// Closes one session, of `user` or of whoever has it.
pub(super) struct CloseOne {
    pub(super) user: Option<UserId>,
    pub(super) session: SessionId,
    pub(super) reason: CloseReason,
    pub(super) unseen_since: Option<Timestamp>,
    /// A letter that tells its user.
    pub(super) letter: Option<NewLetter>,
    pub(super) by: Occasion,
}

#[async_trait]
impl Transaction for CloseOne {
    type Outcome = CloseSession;

    fn user(&self) -> Option<UserId> {
        self.user
    }

    /// The condition is part of the update.
    async fn run(
        &self,
        store: &MongoStore,
        session: &mut ClientSession,
    ) -> Result<Step<CloseSession>, Stopped> {
        let users = store.collection(USERS);
        let still_open = still_open(self.user, self.session, self.unseen_since);
        let closed = users
            .find_one_and_update(still_open, closing(self.reason, self.by.at))
            .projection(doc! { "_id": 1 })
            .session(&mut *session)
            .await?;
        if let Some(closed) = closed {
            let owner = read_user_id(&closed)?;
            let ended = Event::session_ended(owner, self.session, self.reason);
            audit::write(store, session, &self.by, &[ended]).await?;
            let letter = self.letter.clone().map(|letter| letter.about(owner));
            store_letter(store, session, letter.as_ref()).await?;
            return Ok(Step::Commit(CloseSession::Closed));
        }
        let found = users
            .find_one(of_session(self.user, self.session))
            .projection(doc! { "_id": 1 })
            .session(session)
            .await?;
        Ok(Step::Commit(if found.is_some() {
            CloseSession::AlreadyClosed
        } else {
            CloseSession::Unknown
        }))
    }
}

/// Closes all open sessions of a user but one: one update, so that a login comes before it and is closed, or
/// after it and was not open when this began.
pub(super) struct CloseAll {
    pub(super) user: UserId,
    pub(super) keep: Option<SessionId>,
    pub(super) reason: CloseReason,
    pub(super) by: Occasion,
}

#[async_trait]
impl Transaction for CloseAll {
    type Outcome = Option<u64>;

    fn user(&self) -> Option<UserId> {
        Some(self.user)
    }

    async fn run(
        &self,
        store: &MongoStore,
        session: &mut ClientSession,
    ) -> Result<Step<Option<u64>>, Stopped> {
        let sessions = with_closed(is_open_but(self.keep), self.reason.as_str(), self.by.at);
        let closing = vec![doc! { "$set": { "sessions": sessions } }];
        let before = store
            .collection(USERS)
            .find_one_and_update(doc! { "_id": user_key(self.user) }, closing)
            .return_document(ReturnDocument::Before)
            .projection(ending(self.keep, self.reason))
            .session(&mut *session)
            .await?;
        let Some(before) = before else {
            return Ok(Step::Commit(None));
        };
        let ended = read_ended(&before, self.user)?;
        let mut log = Log::new(&self.by);
        log.add_ends(self.user, &ended);
        log.write(store, session).await?;
        Ok(Step::Commit(Some(ended.len() as u64)))
    }
}

/// Notes that the user of an open session has just proved who they are.
pub(super) struct Renew {
    pub(super) user: UserId,
    pub(super) session: SessionId,
    pub(super) known: Timestamp,
    pub(super) by: Occasion,
}

#[async_trait]
impl Transaction for Renew {
    type Outcome = Option<Timestamp>;

    fn user(&self) -> Option<UserId> {
        Some(self.user)
    }

    async fn run(
        &self,
        store: &MongoStore,
        session: &mut ClientSession,
    ) -> Result<Step<Option<Timestamp>>, Stopped> {
        let users = store.collection(USERS);
        let now = self.by.at;
        let renewed = doc! { "$set": { "sessions.$.authenticated_at": time_bson(now) } };
        let not_renewed = doc! {
            "_id": user_key(self.user),
            "sessions": { "$elemMatch": {
                "id": session_key(self.session),
                "closed_at": null,
                "authenticated_at": { "$lte": time_bson(self.known.min(now)) },
            } },
        };
        let update = users.update_one(not_renewed, renewed);
        if update.session(&mut *session).await?.matched_count > 0 {
            let proved = Event::done(EventKind::Reauthentication);
            let proved = proved.about(self.user).of_session(self.session);
            audit::write(store, session, &self.by, &[proved]).await?;
            return Ok(Step::Commit(Some(now)));
        }
        let open = users
            .find_one(open_session_filter(self.user, self.session))
            .projection(this_session(self.session))
            .session(session)
            .await?;
        let stands = open.map(|found| time_of(&found, self.user, "authenticated_at"));
        Ok(Step::Commit(stands.transpose()?))
    }
}

/// A projection that leaves one session.
fn this_session(session: SessionId) -> Document {
    let is_this = doc! { "$eq": ["$$s.id", session_key(session)] };
    doc! { "sessions": sessions_where(is_this) }
}

/// A time of the session that [`this_session`] has left.
fn time_of(found: &RawDocument, user: UserId, field: &'static str) -> StoreResult<Timestamp> {
    let (id, embedded) = *read_sessions(found, user)?
        .first()
        .ok_or_else(|| Row::user(found, user).corrupt("sessions"))?;
    Row::session(embedded, id).required(field, time)
}

impl MongoStore {
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
        let (users, limit, update) = (
            self.collection(USERS),
            self.operation_timeout,
            update.into(),
        );
        let update = async move {
            users
                .find_one_and_update(condition, update)
                .return_document(ReturnDocument::After)
                .projection(this_session(session))
                .max_time(limit)
                .await
        };
        let after = self.bounded(update).await?;
        let time = after.map(|after| time_of(&after, user, field));
        time.transpose()
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
