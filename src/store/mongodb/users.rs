//! Making and changing users.
//!
//! Decides how names stay unique: each canonical name is the `_id` of a document of `login_names`,
//! written in one transaction with its user.

use async_trait::async_trait;
use mongodb::{
    ClientSession,
    bson::{Bson, Document, doc},
    options::ReturnDocument,
};

use super::{
    MongoStore,
    audit::{self, Log},
    documents::{
        ONE_TIME_SECRETS, USERS, attributes_bson, email_key, secret_document, time_bson,
        user_document, user_key, username_key,
    },
    outbox::{drop_waiting, store_letter},
    owners::{Moving, Renaming, insert, rename, still_there, take_name},
    reads::user_fields,
    rows::{Row, email, read_ended, read_user, text, time},
    secrets::void_secrets,
    sessions::{
        is_open, named, overdue, sessions_where, surplus, with_closed, with_overdue_closed,
    },
    transaction::{Step, Stopped, Transaction},
};
use crate::{
    clock::Timestamp,
    email::EmailAddress,
    ids::UserId,
    model::{
        audit::{Event, Occasion},
        mail::{NewLetter, Voiding},
        session::{CloseReason, IdleRule},
        token::NewOneTimeSecret,
        user::{NewUser, OnLimit, SessionLimit, SessionLimitOverride, UserPatch},
    },
    store::{CreateUser, UpdateUser},
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
    event: Event,
    by: Occasion,
}

impl CreateUserWithNames {
    pub(super) fn new(
        new: &NewUser,
        link: Option<&NewOneTimeSecret>,
        letter: Option<&NewLetter>,
        by: &Occasion,
    ) -> Self {
        let user = &new.user;
        Self {
            id: user.id,
            email: email_key(&user.email),
            username: user.username.as_ref().map(username_key),
            user: user_document(new),
            link: link.map(|link| secret_document(link, by.at)),
            letter: letter.cloned(),
            now: by.at,
            event: Event::account_created(new),
            by: by.clone(),
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
        audit::begin(store, session, &self.by, self.id).await?;
        let events = std::slice::from_ref(&self.event);
        audit::write(store, session, &self.by, events).await?;
        Ok(Step::Commit(CreateUser::Created))
    }
}

/// Changes fields of a user, and its names with them.
pub(super) struct PatchUser {
    pub(super) id: UserId,
    pub(super) patch: UserPatch,
    pub(super) notice: Option<NewLetter>,
    pub(super) limit: SessionLimit,
    pub(super) idle: IdleRule,
    pub(super) by: Occasion,
}

impl PatchUser {
    /// Changes the names. The user is read and written in one snapshot, so that the names taken back are the
    /// ones it has. What is refused is the outcome.
    async fn change_names(
        &self,
        store: &MongoStore,
        session: &mut ClientSession,
    ) -> Result<Option<UpdateUser>, Stopped> {
        let users = store.collection(USERS);
        let find = users.find_one(doc! { "_id": user_key(self.id) });
        let find = find.projection(user_fields());
        let Some(before) = find.session(&mut *session).await? else {
            return Ok(Some(UpdateUser::Gone));
        };
        let row = Row::user(&before, self.id);
        if let Some(new) = &self.patch.email
            && !self.change_address(store, session, &row, new).await?
        {
            return Ok(Some(UpdateUser::EmailTaken));
        }
        if let Some(username) = &self.patch.username {
            let old = row.optional("username_canonical", text)?;
            let renaming = Renaming {
                user: self.id,
                old: old.map(|name| format!("username:{name}")),
                new: username.as_ref().map(username_key),
                kept_until: None,
                now: self.by.at,
            };
            if !rename(store, session, &renaming).await? {
                return Ok(Some(UpdateUser::UsernameTaken));
            }
        }
        Ok(None)
    }

    /// Gives the user another address; false if somebody else has it. Whoever had the old one is to keep
    /// nothing but the way back in the notice.
    async fn change_address(
        &self,
        store: &MongoStore,
        session: &mut ClientSession,
        before: &Row<'_>,
        new: &EmailAddress,
    ) -> Result<bool, Stopped> {
        let (id, now) = (self.id, self.by.at);
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
impl Transaction for PatchUser {
    type Outcome = UpdateUser;

    fn user(&self) -> Option<UserId> {
        Some(self.id)
    }

    async fn run(
        &self,
        store: &MongoStore,
        session: &mut ClientSession,
    ) -> Result<Step<UpdateUser>, Stopped> {
        let (id, patch) = (self.id, &self.patch);
        if (patch.email.is_some() || patch.username.is_some())
            && let Some(refused) = self.change_names(store, session).await?
        {
            return Ok(Step::Abort(refused));
        }
        let users = store.collection(USERS);
        let this = doc! { "_id": user_key(id) };
        let before = users
            .find_one_and_update(this.clone(), self.update())
            .return_document(ReturnDocument::Before)
            .projection(self.ending())
            .session(&mut *session)
            .await?;
        let Some(before) = before else {
            return Ok(Step::Commit(UpdateUser::Gone));
        };
        let mut log = Log::new(&self.by);
        log.add(Event::account_changed(id, patch));
        log.add_ends(id, &read_ended(&before, id)?);
        log.write(store, session).await?;
        let find = users.find_one(this).projection(user_fields());
        let after = still_there(find.session(session).await?, id)?;
        let user = read_user(&after, id)?;
        Ok(Step::Commit(UpdateUser::Updated(Box::new(user))))
    }
}

/// A value from outside, which a pipeline must not read as an expression.
fn literal(value: impl Into<Bson>) -> Document {
    doc! { "$literal": value.into() }
}

impl PatchUser {
    /// The update: a pipeline, because what becomes of `email_verified_at` and of the sessions depends on the
    /// document as it is when the update is applied.
    fn update(&self) -> Vec<Document> {
        let (patch, now) = (&self.patch, self.by.at);
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
            stages.extend(self.limiting(max));
        }
        stages
    }

    /// How many sessions may stay open under the user's own limit.
    fn most(&self, max: Option<u32>) -> i64 {
        let own = SessionLimitOverride {
            max,
            on_limit: None,
        };
        i64::from(self.limit.with(own).max)
    }

    /// The stages that set a limit and close what is over or too much.
    fn limiting(&self, max: Option<u32>) -> [Document; 4] {
        let now = self.by.at;
        let live = sessions_where(is_open("$$s"));
        let surplus = surplus(live, self.most(max));
        let closing = doc! { "$in": ["$$s.id", "$closing"] };
        let lowered = CloseReason::LimitLowered.as_str();
        [
            doc! { "$set": { "sessions": with_overdue_closed(self.idle, now) } },
            doc! { "$set": {
                "max_sessions": max.map(i64::from),
                "closing": { "$map": { "input": surplus, "as": "s", "in": "$$s.id" } },
            } },
            doc! { "$set": { "sessions": with_closed(closing, lowered, now) } },
            doc! { "$unset": "closing" },
        ]
    }

    /// A projection of the document before: which sessions [`Self::limiting`] closes.
    fn ending(&self) -> Document {
        let Some(max) = self.patch.max_sessions else {
            return doc! { "_id": 1 };
        };
        let (is_overdue, reason) = overdue(self.idle, self.by.at);
        let over = sessions_where(doc! { "$and": [is_open("$$s"), &is_overdue] });
        let live = sessions_where(doc! { "$and": [is_open("$$s"), { "$not": is_overdue }] });
        let lowered = CloseReason::LimitLowered.as_str();
        doc! { "ended": { "$concatArrays": [
            named(over, reason),
            named(surplus(live, self.most(max)), lowered),
        ] } }
    }
}
