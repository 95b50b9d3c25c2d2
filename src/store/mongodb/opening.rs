//! Opening sessions.
//!
//! Decides the update of a user's document that opens one: who may, what is closed for it and what is
//! refused. With a letter that tells of it, the same update is made in a transaction with the letter.

use std::sync::Arc;

use async_trait::async_trait;
use mongodb::{
    ClientSession, Collection,
    action::FindOneAndUpdate,
    bson::{Document, RawDocumentBuf, doc},
    options::ReturnDocument,
};

use super::{
    MongoStore,
    documents::{USERS, opened_session, session_document, session_key, user_key},
    outbox::store_letter,
    rows::{Row, count, id, list, time, whole},
    sessions::{closed, is_open, overdue, sessions_where},
    transaction::{Step, Stopped, Transaction, transact},
};
use crate::{
    clock::Timestamp,
    ids::SessionId,
    model::{
        session::{CloseReason, Session},
        user::{MOST_SESSIONS, OnLimit},
    },
    store::{OpenSession, OpenSessionRequest, StoreResult},
};

/// How many closed sessions a user's document keeps, so that their clients hear why they ended.
const CLOSED_KEPT: i32 = 20;

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

/// A login: the session that it opens, and the update that decides whether.
struct Opening {
    request: OpenSessionRequest,
    session: Session,
    update: Vec<Document>,
}

impl Opening {
    fn new(request: &OpenSessionRequest, now: Timestamp) -> Self {
        let session = opened_session(&request.session, now);
        Self {
            request: request.clone(),
            update: opening(request, &session, now),
            session,
        }
    }

    /// The document as this very update leaves it: what is read from it was decided.
    fn apply<'a>(
        &self,
        users: &'a Collection<RawDocumentBuf>,
    ) -> FindOneAndUpdate<'a, RawDocumentBuf> {
        let is_new = doc! { "$eq": ["$$s.id", session_key(self.session.id)] };
        let user = doc! { "_id": user_key(self.session.user_id) };
        users
            .find_one_and_update(user, self.update.clone())
            .return_document(ReturnDocument::After)
            .projection(doc! {
                "deactivated_at": 1,
                "credential_version": 1,
                "new": sessions_where(is_new),
                "open": { "$size": sessions_where(is_open("$$s")) },
            })
    }

    fn outcome(&self, after: Option<&RawDocumentBuf>) -> StoreResult<OpenSession> {
        let Some(after) = after else {
            return Ok(OpenSession::Gone);
        };
        let row = Row::user(after, self.session.user_id);
        let evicted = row.required("new", |value| {
            let new = value.as_array()?.into_iter().next();
            let Some(new) = new else { return Some(None) };
            let replaced = new.ok()?.as_document()?.get("replaced").ok()??;
            list(id)(replaced).map(Some)
        })?;
        if let Some(evicted) = evicted {
            return Ok(OpenSession::Opened {
                session: self.session.clone(),
                evicted: evicted.into_iter().map(SessionId::from).collect(),
            });
        }
        if row.optional("deactivated_at", time)?.is_some() {
            return Ok(OpenSession::NotActive);
        }
        if row.required("credential_version", whole)? != self.request.credential_version {
            return Ok(OpenSession::CredentialsChanged);
        }
        let open = row.required("open", count)?;
        Ok(OpenSession::Refused { open })
    }
}

#[async_trait]
impl Transaction for Opening {
    type Outcome = OpenSession;

    async fn run(
        &self,
        store: &MongoStore,
        session: &mut ClientSession,
    ) -> Result<Step<OpenSession>, Stopped> {
        let users = store.collection(USERS);
        let after = self.apply(&users).session(&mut *session).await?;
        let outcome = self.outcome(after.as_ref())?;
        if let OpenSession::Opened { session: new, .. } = &outcome {
            let letter = self.request.letter.clone();
            let letter = letter.map(|letter| letter.about(new.user_id));
            store_letter(store, session, letter.as_ref()).await?;
        }
        // A refused login closes what is overdue all the same.
        Ok(Step::Commit(outcome))
    }
}

impl MongoStore {
    pub(super) async fn open(
        &self,
        request: &OpenSessionRequest,
        now: Timestamp,
    ) -> StoreResult<OpenSession> {
        let opening = Opening::new(request, now);
        if request.letter.is_some() {
            return transact(self, opening).await;
        }
        let (users, limit) = (self.collection(USERS), self.operation_timeout);
        let opening = Arc::new(opening);
        let own = Arc::clone(&opening);
        let update = async move { own.apply(&users).max_time(limit).await };
        let after = self.bounded(update).await?;
        opening.outcome(after.as_ref())
    }
}
