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
        LOGIN_NAMES, ONE_TIME_SECRETS, USERS, attributes_bson, email_key, login_name_document,
        secret_document, time_bson, user_document, user_key, username_key,
    },
    failure::is_duplicate,
    reads::user_fields,
    rows::{Row, read_user, text},
    sessions::{is_open, sessions_where, with_closed, with_overdue_closed},
    transaction::{Step, Stopped, Transaction, transact},
};
use crate::{
    clock::Timestamp,
    ids::UserId,
    model::{
        session::{CloseReason, IdleRule},
        token::NewOneTimeSecret,
        user::{NewUser, OnLimit, SessionLimit, SessionLimitOverride, UserPatch},
    },
    store::{CreateUser, StoreResult, UpdateUser},
    username::Username,
};

/// Writes a user with its names, and its one-time secret if there is one.
///
/// Of two transactions that insert one name the server lets one go on; the other is repeated and
/// then finds the name taken.
pub(super) struct CreateUserWithNames {
    email: Document,
    username: Option<Document>,
    user: Document,
    link: Option<Document>,
}

impl CreateUserWithNames {
    pub(super) fn new(new: &NewUser, link: Option<&NewOneTimeSecret>) -> Self {
        let user = &new.user;
        let name = |key| login_name_document(key, user.id);
        Self {
            email: name(email_key(&user.email)),
            username: user.username.as_ref().map(username_key).map(name),
            user: user_document(new),
            link: link.map(|link| secret_document(link, user.created_at)),
        }
    }
}

/// Inserts a document; false if its `_id` is there already.
async fn insert_unique(
    store: &MongoStore,
    session: &mut ClientSession,
    collection: &str,
    document: &Document,
) -> Result<bool, Stopped> {
    let collection = store.database.collection::<Document>(collection);
    match collection.insert_one(document).session(session).await {
        Ok(_) => Ok(true),
        Err(error) if is_duplicate(&error) => Ok(false),
        Err(error) => Err(error.into()),
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
        if !insert_unique(store, session, LOGIN_NAMES, &self.email).await? {
            return Ok(Step::Abort(CreateUser::EmailTaken));
        }
        if let Some(username) = &self.username
            && !insert_unique(store, session, LOGIN_NAMES, username).await?
        {
            return Ok(Step::Abort(CreateUser::UsernameTaken));
        }
        let users = store.database.collection::<Document>(USERS);
        users.insert_one(&self.user).session(&mut *session).await?;
        if let Some(link) = &self.link {
            let secrets = store.database.collection::<Document>(ONE_TIME_SECRETS);
            secrets.insert_one(link).session(session).await?;
        }
        Ok(Step::Commit(CreateUser::Created))
    }
}

/// Changes a user whose names may change with it.
///
/// The user is read and written in one snapshot, so that the names taken back are the ones it has.
struct UpdateUserWithNames {
    id: UserId,
    patch: UserPatch,
    update: Vec<Document>,
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
        if let Some(email) = &self.patch.email {
            let old = Row::user(&before, self.id).required("email_canonical", text)?;
            let old = Some(format!("email:{old}"));
            let new = Some(email_key(email));
            if !self.rename(store, session, old, new).await? {
                return Ok(Step::Abort(UpdateUser::EmailTaken));
            }
        }
        if let Some(username) = &self.patch.username {
            let old = Row::user(&before, self.id).optional("username_canonical", text)?;
            let old = old.map(|name| format!("username:{name}"));
            let new = username.as_ref().map(username_key);
            if !self.rename(store, session, old, new).await? {
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

impl UpdateUserWithNames {
    /// Takes one name back and gives another; false if somebody else has it.
    async fn rename(
        &self,
        store: &MongoStore,
        session: &mut ClientSession,
        old: Option<String>,
        new: Option<String>,
    ) -> Result<bool, Stopped> {
        if old == new {
            return Ok(true);
        }
        if let Some(new) = new {
            let document = login_name_document(new, self.id);
            if !insert_unique(store, session, LOGIN_NAMES, &document).await? {
                return Ok(false);
            }
        }
        if let Some(old) = old {
            let names = store.collection(LOGIN_NAMES);
            names
                .delete_one(doc! { "_id": old, "user_id": user_key(self.id) })
                .session(session)
                .await?;
        }
        Ok(true)
    }
}

impl MongoStore {
    pub(super) async fn patch_user(
        &self,
        id: UserId,
        patch: &UserPatch,
        limit: SessionLimit,
        idle: IdleRule,
        now: Timestamp,
    ) -> StoreResult<UpdateUser> {
        let update = patching(patch, limit, idle, now);
        if patch.email.is_some() || patch.username.is_some() {
            let patch = patch.clone();
            return transact(self, UpdateUserWithNames { id, patch, update }).await;
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
