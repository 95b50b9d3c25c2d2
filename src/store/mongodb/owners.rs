//! Whose an id or an address is, inside a transaction, and what is written for it there.
//!
//! Decides how a transaction looks users up in its own snapshot and how it gives and takes names; what
//! for is decided by whoever runs it. Reads outside of transactions are in `reads`.

use mongodb::{
    ClientSession,
    bson::{Document, RawDocument, RawDocumentBuf, doc},
};

use super::{
    MongoStore,
    documents::{LOGIN_NAMES, USERS, email_key, time_bson, user_key},
    failure::is_duplicate,
    rows::{Row, id, read_credentials, time},
    transaction::Stopped,
};
use crate::{
    clock::Timestamp,
    email::EmailAddress,
    ids::UserId,
    model::{
        mail::{ADDRESS_KEPT, NewLetter},
        user::{User, UserCredentials},
    },
    store::{StoreError, StoreResult},
};

/// The user with this id.
pub(super) async fn user_by_id(
    store: &MongoStore,
    session: &mut ClientSession,
    id: UserId,
) -> Result<Option<UserCredentials>, Stopped> {
    let found = store
        .collection(USERS)
        .find_one(doc! { "_id": user_key(id) })
        .projection(doc! { "sessions": 0 })
        .session(session)
        .await?;
    let found = found.map(|document| read_credentials(&document, id));
    found.transpose().map_err(Stopped::from)
}

/// The user with this address. A snapshot has the name and its user as they belong together.
pub(super) async fn user_by_address(
    store: &MongoStore,
    session: &mut ClientSession,
    address: &EmailAddress,
) -> Result<Option<UserCredentials>, Stopped> {
    let names = store.collection(LOGIN_NAMES);
    let key = doc! { "_id": email_key(address) };
    let Some(name) = names.find_one(key).session(&mut *session).await? else {
        return Ok(None);
    };
    let Some(holder) = holder(&name)? else {
        return Ok(None);
    };
    let found = user_by_id(store, session, holder).await?;
    if found
        .as_ref()
        .is_some_and(|found| !has_address(&found.user, address))
    {
        let corrupt = StoreError::Corrupt {
            table: LOGIN_NAMES,
            column: "user_id",
            row: holder.to_string(),
        };
        return Err(corrupt.into());
    }
    Ok(found)
}

/// Who has a name; nobody has one that is only kept.
pub(super) fn holder(name: &RawDocument) -> StoreResult<Option<UserId>> {
    let row = Row::of(LOGIN_NAMES, name, uuid::Uuid::nil());
    let user = UserId::from(row.required("user_id", id)?);
    let is_kept = row.optional("kept_until", time)?.is_some();
    Ok((!is_kept).then_some(user))
}

/// Whether the address is the user's.
pub(super) fn has_address(user: &User, address: &EmailAddress) -> bool {
    user.email.canonical() == address.canonical()
}

/// Makes this transaction conflict with every other one that decides on the same user: what it only
/// reads, another could change at the same time.
pub(super) async fn hold_user(
    store: &MongoStore,
    session: &mut ClientSession,
    id: UserId,
) -> Result<(), Stopped> {
    store
        .collection(USERS)
        .update_one(
            doc! { "_id": user_key(id) },
            doc! { "$inc": { "guard": 1_i64 } },
        )
        .session(session)
        .await?;
    Ok(())
}

/// Inserts a document.
pub(super) async fn insert(
    store: &MongoStore,
    session: &mut ClientSession,
    collection: &str,
    document: &Document,
) -> Result<(), Stopped> {
    let collection = store.database.collection::<Document>(collection);
    collection.insert_one(document).session(session).await?;
    Ok(())
}

/// The name with this key, if this user can take it: nobody has it, and it is not kept for another one.
fn can_take(key: &str, user: UserId, now: Timestamp) -> Document {
    doc! { "_id": key, "$or": [
        { "kept_until": { "$lte": time_bson(now) } },
        { "kept_until": { "$ne": null }, "user_id": user_key(user) },
    ] }
}

/// Whether this user can take an address that is not theirs.
pub(super) async fn is_free(
    store: &MongoStore,
    session: &mut ClientSession,
    user: UserId,
    address: &EmailAddress,
    now: Timestamp,
) -> Result<bool, Stopped> {
    let (names, key) = (store.collection(LOGIN_NAMES), email_key(address));
    let found = names.find_one(doc! { "_id": &key });
    if found.session(&mut *session).await?.is_none() {
        return Ok(true);
    }
    let kept = names.find_one(can_take(&key, user, now));
    Ok(kept.session(session).await?.is_some())
}

/// Gives a user a name; false if somebody else has it or it is kept for them. What cannot be taken is not
/// found, and is in the way of the document that would be inserted instead.
pub(super) async fn take_name(
    store: &MongoStore,
    session: &mut ClientSession,
    user: UserId,
    key: &str,
    now: Timestamp,
) -> Result<bool, Stopped> {
    let taken = doc! { "$set": { "user_id": user_key(user) }, "$unset": { "kept_until": "" } };
    let names = store.collection(LOGIN_NAMES);
    let take = names.update_one(can_take(key, user, now), taken);
    match take.upsert(true).session(session).await {
        Ok(_) => Ok(true),
        Err(error) if is_duplicate(&error) => Ok(false),
        Err(error) => Err(error.into()),
    }
}

/// A user's name that becomes another one.
pub(super) struct Renaming {
    pub(super) user: UserId,
    pub(super) old: Option<String>,
    pub(super) new: Option<String>,
    /// Until when the old one is kept for the user, if it is.
    pub(super) kept_until: Option<Timestamp>,
    pub(super) now: Timestamp,
}

/// Takes one name of a user back and gives another; false if somebody else has it.
pub(super) async fn rename(
    store: &MongoStore,
    session: &mut ClientSession,
    renaming: &Renaming,
) -> Result<bool, Stopped> {
    let user = renaming.user;
    if renaming.old == renaming.new {
        return Ok(true);
    }
    if let Some(new) = &renaming.new
        && !take_name(store, session, user, new, renaming.now).await?
    {
        return Ok(false);
    }
    let Some(old) = &renaming.old else {
        return Ok(true);
    };
    let names = store.collection(LOGIN_NAMES);
    let old = doc! { "_id": old, "user_id": user_key(user) };
    if let Some(until) = renaming.kept_until {
        let kept = doc! { "$set": { "kept_until": time_bson(until) } };
        names.update_one(old, kept).session(session).await?;
    } else {
        names.delete_one(old).session(session).await?;
    }
    Ok(true)
}

/// An account's address that becomes another one.
pub(super) struct Moving<'a> {
    pub(super) user: UserId,
    pub(super) old: &'a EmailAddress,
    pub(super) was_verified: bool,
    pub(super) new: &'a EmailAddress,
    /// Tells the old address, which is kept for as long as the way back in it may be good.
    pub(super) notice: Option<&'a NewLetter>,
    pub(super) now: Timestamp,
}

impl Moving<'_> {
    /// Whether the address becomes another one, and is not only written in another way.
    pub(super) fn is_another(&self) -> bool {
        self.old.canonical() != self.new.canonical()
    }

    /// The notice to the old address, if that is told: nobody has shown whose an unverified one is.
    pub(super) fn farewell(&self) -> Option<NewLetter> {
        let notice = self
            .notice
            .filter(|_| self.was_verified && self.is_another());
        notice.map(|notice| notice.clone().about(self.user).to(self.old))
    }

    /// Changes the names; false if somebody else has the new one.
    pub(super) async fn rename(
        &self,
        store: &MongoStore,
        session: &mut ClientSession,
    ) -> Result<bool, Stopped> {
        let is_kept = self.farewell().is_some();
        let renaming = Renaming {
            user: self.user,
            old: Some(email_key(self.old)),
            new: Some(email_key(self.new)),
            kept_until: is_kept.then(|| self.now.plus(ADDRESS_KEPT)),
            now: self.now,
        };
        rename(store, session, &renaming).await
    }
}

/// A document that an update of it was to find: it was read in the same snapshot.
pub(super) fn still_there(
    document: Option<RawDocumentBuf>,
    user: UserId,
) -> Result<RawDocumentBuf, StoreError> {
    document.ok_or_else(|| StoreError::Corrupt {
        table: USERS,
        column: "_id",
        row: user.to_string(),
    })
}
