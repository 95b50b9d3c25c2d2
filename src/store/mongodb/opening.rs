//! Opening sessions.
//!
//! Decides the update of a user's document that opens one: who may, what is closed for it and what is
//! refused. Its records and a letter that tells of it are written in the same transaction.

use async_trait::async_trait;
use mongodb::{
    ClientSession,
    bson::{Document, RawBsonRef, RawDocument, doc},
    options::ReturnDocument,
};

use super::{
    MongoStore,
    audit::Log,
    documents::{USERS, opened_session, session_document, user_key},
    outbox::store_letter,
    rows::{Ended, Row, count, ended, list, time, whole},
    sessions::{closed, is_open, named, overdue, sessions_where, surplus},
    transaction::{Step, Stopped, Transaction},
};
use crate::{
    clock::Timestamp,
    ids::UserId,
    model::{
        audit::{Event, Occasion},
        session::{CloseReason, Session},
        user::{MOST_SESSIONS, OnLimit},
    },
    store::{OpenSession, OpenSessionRequest, StoreResult},
};

/// How many closed sessions a user's document keeps, so that their clients hear why they ended.
pub(super) const CLOSED_KEPT: i32 = 20;

/// What a login finds out about a user's document, as an expression: whether it may, what is over, and which
/// of the rest are too many beside it.
///
/// The update decides by it, and the projection of the document before the update tells what it decided.
fn judged(request: &OpenSessionRequest, now: Timestamp) -> Document {
    let (is_overdue, _) = overdue(request.idle, now);
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
        "overdue": sessions_where(doc! { "$and": [is_open("$$s"), &is_overdue] }),
        "open": sessions_where(doc! { "$and": [is_open("$$s"), { "$not": is_overdue }] }),
    };
    let one_less = doc! { "$subtract": ["$$max", 1] };
    let judged = doc! {
        "may": "$$may",
        "opens": { "$and": [
            "$$may",
            { "$or": ["$$evicts", { "$eq": [{ "$size": "$$surplus" }, 0] }] },
        ] },
        "overdue": "$$overdue",
        "open": "$$open",
        "surplus": "$$surplus",
    };
    doc! { "$let": { "vars": facts, "in": { "$let": {
        "vars": { "surplus": surplus("$$open", one_less) },
        "in": judged,
    } } } }
}

/// The update that opens a session: a pipeline, so that all of it is decided by the server on the
/// document as it is when its turn comes. Sixty-four logins at once are sixty-four such updates in a
/// row, each of which sees the session of the one before and ends it.
///
/// Values from outside stand in `$literal`, or a `$` in a device name would be read as a path.
fn opening(request: &OpenSessionRequest, session: &Session, now: Timestamp) -> Vec<Document> {
    vec![
        doc! { "$set": { "opening": judged(request, now) } },
        doc! { "$set": opened(request, session, now) },
        doc! { "$unset": "opening" },
    ]
}

/// The fields that [`opening`] sets, by what it found out.
fn opened(request: &OpenSessionRequest, session: &Session, now: Timestamp) -> Document {
    let (_, overdue_reason) = overdue(request.idle, now);
    let rest = doc! { "$slice": [
        "$opening.open",
        { "$subtract": [{ "$size": "$opening.surplus" }, { "$size": "$opening.open" }] },
    ] };
    let over = doc! { "$concatArrays": [
        sessions_where(doc! { "$not": is_open("$$s") }),
        closed("$opening.overdue", overdue_reason, now),
    ] };
    let replaced = closed("$opening.surplus", CloseReason::Replaced.as_str(), now);
    let kept = |ended: Document| doc! { "$slice": [ended, -CLOSED_KEPT] };
    let ended = doc! { "$concatArrays": [over.clone(), replaced] };
    let new = doc! { "$literal": session_document(session, request.session.refresh) };
    let mut fields = doc! { "sessions": { "$switch": {
        "branches": [
            {
                "case": "$opening.opens",
                "then": { "$concatArrays": [kept(ended), rest, [new]] },
            },
            {
                "case": "$opening.may",
                "then": { "$concatArrays": [kept(over), "$opening.open"] },
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

/// A projection of the document before the update: what [`judged`] finds out about it, and why nobody may.
fn decision(request: &OpenSessionRequest, now: Timestamp) -> Document {
    let (_, overdue_reason) = overdue(request.idle, now);
    doc! {
        "deactivated_at": 1,
        "credential_version": 1,
        "opening": { "$let": {
            "vars": { "judged": judged(request, now) },
            "in": {
                "opens": "$$judged.opens",
                "open": { "$size": "$$judged.open" },
                "overdue": named("$$judged.overdue", overdue_reason),
                "surplus": named("$$judged.surplus", CloseReason::Replaced.as_str()),
            },
        } },
    }
}

/// A login: the session that it opens, and what it is decided by.
pub(super) struct Opening {
    request: OpenSessionRequest,
    session: Session,
    by: Occasion,
}

/// What the update decided.
enum Decision {
    Opened {
        overdue: Vec<Ended>,
        replaced: Vec<Ended>,
    },
    Refused {
        overdue: Vec<Ended>,
        open: u32,
    },
    NotActive,
    CredentialsChanged,
}

impl Opening {
    pub(super) fn new(request: &OpenSessionRequest, by: &Occasion) -> Self {
        Self {
            request: request.clone(),
            session: opened_session(&request.session, by.at),
            by: by.clone(),
        }
    }

    fn decided(&self, before: &RawDocument) -> StoreResult<Decision> {
        let user = Row::user(before, self.session.user_id);
        if user.optional("deactivated_at", time)?.is_some() {
            return Ok(Decision::NotActive);
        }
        if user.required("credential_version", whole)? != self.request.credential_version {
            return Ok(Decision::CredentialsChanged);
        }
        let opening = user.required("opening", RawBsonRef::as_document)?;
        let opening = Row::user(opening, self.session.user_id);
        let overdue = opening.required("overdue", list(ended))?;
        if opening.required("opens", RawBsonRef::as_bool)? {
            let replaced = opening.required("surplus", list(ended))?;
            return Ok(Decision::Opened { overdue, replaced });
        }
        let open = opening.required("open", count)?;
        Ok(Decision::Refused { overdue, open })
    }

    /// Records a refused login: whoever it was has not shown that they may.
    async fn refuse(
        &self,
        store: &MongoStore,
        session: &mut ClientSession,
        reason: &'static str,
        overdue: &[Ended],
    ) -> Result<(), Stopped> {
        let nobody = self.by.by_nobody();
        let user = self.session.user_id;
        let mut log = Log::new(&nobody);
        log.add_ends(user, overdue);
        log.add(Event::login_refused(Some(user), reason));
        log.write(store, session).await
    }

    async fn record(
        &self,
        store: &MongoStore,
        session: &mut ClientSession,
        decision: Decision,
    ) -> Result<OpenSession, Stopped> {
        Ok(match decision {
            Decision::NotActive => {
                let reason = "account_deactivated";
                self.refuse(store, session, reason, &[]).await?;
                OpenSession::NotActive
            }
            Decision::CredentialsChanged => {
                let reason = "credentials_changed";
                self.refuse(store, session, reason, &[]).await?;
                OpenSession::CredentialsChanged
            }
            Decision::Refused { overdue, open } => {
                let reason = "session_limit";
                self.refuse(store, session, reason, &overdue).await?;
                OpenSession::Refused { open }
            }
            Decision::Opened { overdue, replaced } => {
                let user = self.session.user_id;
                let mut log = Log::new(&self.by);
                log.add_ends(user, &overdue);
                log.add_ends(user, &replaced);
                log.add(Event::login(&self.request.session));
                log.write(store, session).await?;
                let letter = self.request.letter.clone();
                let letter = letter.map(|letter| letter.about(user));
                store_letter(store, session, letter.as_ref()).await?;
                OpenSession::Opened {
                    session: self.session.clone(),
                    evicted: replaced.into_iter().map(|(id, _)| id).collect(),
                }
            }
        })
    }
}

#[async_trait]
impl Transaction for Opening {
    type Outcome = OpenSession;

    fn user(&self) -> Option<UserId> {
        Some(self.session.user_id)
    }

    async fn run(
        &self,
        store: &MongoStore,
        session: &mut ClientSession,
    ) -> Result<Step<OpenSession>, Stopped> {
        let (request, now) = (&self.request, self.by.at);
        let before = store
            .collection(USERS)
            .find_one_and_update(
                doc! { "_id": user_key(self.session.user_id) },
                opening(request, &self.session, now),
            )
            .return_document(ReturnDocument::Before)
            .projection(decision(request, now))
            .session(&mut *session)
            .await?;
        let Some(before) = before else {
            return Ok(Step::Commit(OpenSession::Gone));
        };
        let decision = self.decided(&before)?;
        // A refused login closes what is overdue all the same.
        Ok(Step::Commit(self.record(store, session, decision).await?))
    }
}
