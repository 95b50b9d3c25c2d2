//! Making and changing users.
//!
//! Decides how names stay unique: each canonical name is the `_id` of a document of `login_names`,
//! written in one transaction with its user. A change that touches no name is one update.

use async_trait::async_trait;
use mongodb::{
    ClientSession,
    bson::{Bson, Document, RawDocumentBuf, doc},
    options::ReturnDocument,
};

use super::{
    MongoStore,
    documents::{
        ONE_TIME_SECRETS, USERS, attributes_bson, email_key, secret_document, time_bson,
        user_document, user_key, username_key,
    },
    outbox::{drop_waiting, store_letter},
    owners::{Moving, Renaming, insert, rename, take_name},
    reads::user_fields,
    rows::{Row, email, read_user, text, time},
    secrets::void_secrets,
    sessions::{is_open, sessions_where, with_closed, with_overdue_closed},
    transaction::{Step, Stopped, Transaction, transact},
};
use crate::{
    clock::Timestamp,
    email::EmailAddress,
    ids::UserId,
    model::{
        mail::{NewLetter, Voiding},
        session::{CloseReason, IdleRule},
        token::NewOneTimeSecret,
        user::{NewUser, OnLimit, SessionLimit, SessionLimitOverride, UserPatch},
    },
    store::{CreateUser, StoreResult, UpdateUser},
    username::Username,
};

/// Writes a user with its names, and its one-time secret and letter if there are any.
///
/// Of two transactions that take one name the server lets one go on; the other is repeated and
/// then finds the name taken.
pub(super) struct CreateUserWithNames {
    id: UserId,
    email: String,
    username: Option<String>,
    user: Document,
    link: Option<Document>,
    letter: Option<NewLetter>,
    now: Timestamp,
}

impl CreateUserWithNames {
    pub(super) fn new(
        new: &NewUser,
        link: Option<&NewOneTimeSecret>,
        letter: Option<&NewLetter>,
    ) -> Self {
        let user = &new.user;
        Self {
            id: user.id,
            email: email_key(&user.email),
            username: user.username.as_ref().map(username_key),
            user: user_document(new),
            link: link.map(|link| secret_document(link, user.created_at)),
            letter: letter.cloned(),
            now: user.created_at,
        }
    }
}

#[async_trait]
impl Transaction for CreateUserWithNames {
    type Outcome = CreateUser;

    async fn run(
        &self,
        store: &MongoStore,
        session: &mut ClientSession,
    ) -> Result<Step<CreateUser>, Stopped> {
        if !take_name(store, session, self.id, &self.email, self.now).await? {
            return Ok(Step::Abort(CreateUser::EmailTaken));
        }
        if let Some(username) = &self.username
            && !take_name(store, session, self.id, username, self.now).await?
        {
            return Ok(Step::Abort(CreateUser::UsernameTaken));
        }
        insert(store, session, USERS, &self.user).await?;
        if let Some(link) = &self.link {
            insert(store, session, ONE_TIME_SECRETS, link).await?;
        }
        store_letter(store, session, self.letter.as_ref()).await?;
        Ok(Step::Commit(CreateUser::Created))
    }
}

/// Changes a user whose names may change with it.
///
/// The user is read and written in one snapshot, so that the names taken back are the ones it has.
struct UpdateUserWithNames {
    id: UserId,
    patch: UserPatch,
    notice: Option<NewLetter>,
    update: Vec<Document>,
    now: Timestamp,
}

impl UpdateUserWithNames {
    /// Gives the user another address; false if somebody else has it. Whoever had the old one is to keep
    /// nothing but the way back in the notice.
    async fn change_address(
        &self,
        store: &MongoStore,
        session: &mut ClientSession,
        before: &Row<'_>,
        new: &EmailAddress,
    ) -> Result<bool, Stopped> {
        let (id, now) = (self.id, self.now);
        let moving = Moving {
            user: id,
            old: &before.required("email", email)?,
            was_verified: before.optional("email_verified_at", time)?.is_some(),
            new,
            notice: self.notice.as_ref(),
            now,
        };
        if !moving.rename(store, session).await? {
            return Ok(false);
        }
        if moving.is_another() {
            let voiding = Voiding::Moved;
            void_secrets(store, session, id, voiding.purposes(), None, now).await?;
            let theirs = (id, &[moving.old.canonical()][..]);
            drop_waiting(store, session, theirs, voiding, None, now).await?;
            store_letter(store, session, moving.farewell().as_ref()).await?;
        }
        Ok(true)
    }
}

#[async_trait]
impl Transaction for UpdateUserWithNames {
    type Outcome = UpdateUser;

    async fn run(
        &self,
        store: &MongoStore,
        session: &mut ClientSession,
    ) -> Result<Step<UpdateUser>, Stopped> {
        let users = store.collection(USERS);
        let found = users
            .find_one(doc! { "_id": user_key(self.id) })
            .projection(user_fields())
            .session(&mut *session)
            .await?;
        let Some(before) = found else {
            return Ok(Step::Abort(UpdateUser::Gone));
        };
        let row = Row::user(&before, self.id);
        if let Some(new) = &self.patch.email
            && !self.change_address(store, session, &row, new).await?
        {
            return Ok(Step::Abort(UpdateUser::EmailTaken));
        }
        if let Some(username) = &self.patch.username {
            let old = row.optional("username_canonical", text)?;
            let renaming = Renaming {
                user: self.id,
                old: old.map(|name| format!("username:{name}")),
                new: username.as_ref().map(username_key),
                kept_until: None,
                now: self.now,
            };
            if !rename(store, session, &renaming).await? {
                return Ok(Step::Abort(UpdateUser::UsernameTaken));
            }
        }
        let after = users
            .find_one_and_update(doc! { "_id": user_key(self.id) }, self.update.clone())
            .return_document(ReturnDocument::After)
            .projection(user_fields())
            .session(session)
            .await?;
        let outcome = updated(after, self.id)?;
        Ok(Step::Commit(outcome))
    }
}

impl MongoStore {
    pub(super) async fn patch_user(
        &self,
        id: UserId,
        patch: &UserPatch,
        notice: Option<&NewLetter>,
        limit: SessionLimit,
        idle: IdleRule,
        now: Timestamp,
    ) -> StoreResult<UpdateUser> {
        let update = patching(patch, limit, idle, now);
        if patch.email.is_some() || patch.username.is_some() {
            let work = UpdateUserWithNames {
                id,
                patch: patch.clone(),
                notice: notice.cloned(),
                update,
                now,
            };
            return transact(self, work).await;
        }
        let (users, limit) = (self.collection(USERS), self.operation_timeout);
        let change = async move {
            users
                .find_one_and_update(doc! { "_id": user_key(id) }, update)
                .return_document(ReturnDocument::After)
                .projection(user_fields())
                .max_time(limit)
                .await
        };
        updated(self.bounded(change).await?, id)
    }
}

fn updated(after: Option<RawDocumentBuf>, id: UserId) -> StoreResult<UpdateUser> {
    match after {
        Some(document) => Ok(UpdateUser::Updated(Box::new(read_user(&document, id)?))),
        None => Ok(UpdateUser::Gone),
    }
}

/// A value from outside, which a pipeline must not read as an expression.
fn literal(value: impl Into<Bson>) -> Document {
    doc! { "$literal": value.into() }
}

/// The update that changes a user: a pipeline, because what becomes of `email_verified_at` and of the
/// sessions depends on the document as it is when the update is applied.
fn patching(
    patch: &UserPatch,
    limit: SessionLimit,
    idle: IdleRule,
    now: Timestamp,
) -> Vec<Document> {
    let mut fields = doc! { "updated_at": { "$max": ["$updated_at", time_bson(now)] } };
    if let Some(username) = &patch.username {
        let username = username.as_ref();
        fields.insert("username", literal(username.map(Username::as_str)));
        fields.insert(
            "username_canonical",
            literal(username.map(Username::canonical)),
        );
    }
    if let Some(attributes) = &patch.attributes {
        fields.insert("attributes", literal(attributes_bson(attributes)));
    }
    if let Some(email) = &patch.email {
        fields.insert("email", literal(email.as_str()));
        fields.insert("email_canonical", literal(email.canonical()));
        fields.insert("email_verified_at", Bson::Null);
    }
    let mut stages = vec![doc! { "$set": fields }];
    match patch.email_verified {
        Some(true) => stages.push(doc! { "$set": {
            "email_verified_at": { "$ifNull": ["$email_verified_at", time_bson(now)] },
            "provisional_until": null,
        } }),
        Some(false) => stages.push(doc! { "$set": { "email_verified_at": null } }),
        None => {}
    }
    if let Some(rule) = patch.on_session_limit {
        let rule = rule.map(OnLimit::as_str);
        stages.push(doc! { "$set": { "on_session_limit": rule } });
    }
    if let Some(max) = patch.max_sessions {
        let own = SessionLimitOverride {
            max,
            on_limit: None,
        };
        let most = i64::from(limit.with(own).max);
        let surplus = doc! { "$max": [0, { "$subtract": [{ "$size": "$$live" }, most] }] };
        let closing = doc! { "$in": ["$$s.id", "$closing"] };
        stages.extend([
            doc! { "$set": { "sessions": with_overdue_closed(idle, now) } },
            doc! { "$set": {
                "max_sessions": max.map(i64::from),
                // The array is in the order of opening: its first sessions are the oldest.
                "closing": { "$let": {
                    "vars": { "live": sessions_where(is_open("$$s")) },
                    "in": { "$map": {
                        "input": { "$slice": ["$$live", surplus] },
                        "as": "s",
                        "in": "$$s.id",
                    } },
                } },
            } },
            doc! { "$set": {
                "sessions": with_closed(closing, CloseReason::LimitLowered.as_str(), now),
            } },
            doc! { "$unset": "closing" },
        ]);
    }
    stages
}
