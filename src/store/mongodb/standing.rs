//! Roles and status, and the last administrator.
//!
//! Decides when a change can cost the system its last administrator: only if its user is an active
//! one. Such a change is a transaction that first writes the guard document, so that no two of them
//! decide on the same count. A change of a user who cannot be one, whatever roles are stored, is one
//! update, on that condition.

use async_trait::async_trait;
use mongodb::{
    ClientSession,
    bson::{Document, RawDocumentBuf, doc},
    options::ReturnDocument,
};

use super::{
    MongoStore,
    documents::{USERS, time_bson, user_key},
    reads::user_fields,
    roles::{admin_roles, hold_last_admin, is_any_active},
    rows::{read_credentials, read_user},
    sessions::{is_open_but, with_closed},
    transaction::{Step, Stopped, Transaction, transact},
};
use crate::{
    clock::Timestamp,
    ids::UserId,
    model::{role::FixedRoles, session::CloseReason, user::Roles},
    store::{ChangeStanding, StoreResult},
};

/// Changes a user unless that takes the last administrator away.
struct ChangeGuarded {
    id: UserId,
    credential_version: Option<i64>,
    /// The roles that the user has then, if the change is about them.
    roles: Option<Roles>,
    fixed: FixedRoles,
    update: Vec<Document>,
}

#[async_trait]
impl Transaction for ChangeGuarded {
    type Outcome = ChangeStanding;

    async fn run(
        &self,
        store: &MongoStore,
        session: &mut ClientSession,
    ) -> Result<Step<ChangeStanding>, Stopped> {
        hold_last_admin(store, session).await?;
        let users = store.collection(USERS);
        let found = users
            .find_one(doc! { "_id": user_key(self.id) })
            .projection(doc! { "sessions": 0 })
            .session(&mut *session)
            .await?;
        let Some(document) = found else {
            return Ok(Step::Abort(ChangeStanding::Gone));
        };
        let before = read_credentials(&document, self.id)?;
        if self
            .credential_version
            .is_some_and(|version| version != before.credential_version)
        {
            return Ok(Step::Abort(ChangeStanding::CredentialsChanged));
        }
        let admins = admin_roles(store, session, &self.fixed).await?;
        let stays = |roles: &Roles| admins.is_among(roles);
        if before.user.is_active()
            && admins.is_among(&before.user.roles)
            && !self.roles.as_ref().is_some_and(stays)
            && !is_any_active(store, session, &admins, Some(self.id)).await?
        {
            return Ok(Step::Abort(ChangeStanding::LastAdmin));
        }
        let after = users
            .find_one_and_update(doc! { "_id": user_key(self.id) }, self.update.clone())
            .return_document(ReturnDocument::After)
            .projection(user_fields())
            .session(session)
            .await?;
        Ok(Step::Commit(changed(after, self.id)?))
    }
}

fn changed(after: Option<RawDocumentBuf>, id: UserId) -> StoreResult<ChangeStanding> {
    match after {
        Some(document) => Ok(ChangeStanding::Changed(Box::new(read_user(&document, id)?))),
        None => Ok(ChangeStanding::Gone),
    }
}

/// A condition on a user: whatever becomes of them and whatever roles are stored, no administrator is lost.
fn is_no_active_admin(fixed: &FixedRoles) -> Document {
    let harmless: Vec<&str> = fixed.names(false).collect();
    let only_harmless = doc! { "$not": { "$elemMatch": { "$nin": harmless } } };
    doc! { "$or": [{ "deactivated_at": { "$ne": null } }, { "roles": only_harmless }] }
}

/// `now`, or the time the document has if that is later.
fn touched(now: Timestamp) -> Document {
    doc! { "$max": ["$updated_at", time_bson(now)] }
}

impl MongoStore {
    pub(super) async fn replace_roles(
        &self,
        id: UserId,
        roles: &Roles,
        fixed: &FixedRoles,
        now: Timestamp,
    ) -> StoreResult<ChangeStanding> {
        let update = vec![doc! { "$set": {
            "roles": { "$literal": roles.to_vec() },
            "updated_at": touched(now),
        } }];
        if fixed.names(true).any(|name| roles.contains(name)) {
            return self.change(id, Document::new(), update).await;
        }
        let change = ChangeGuarded {
            id,
            credential_version: None,
            roles: Some(roles.clone()),
            fixed: fixed.clone(),
            update,
        };
        self.change_guarded(change).await
    }

    /// The sessions are closed by the update that sets the status, so that a login comes before it
    /// and is closed, or after it and finds the user deactivated.
    pub(super) async fn deactivate(
        &self,
        id: UserId,
        credential_version: Option<i64>,
        fixed: &FixedRoles,
        now: Timestamp,
    ) -> StoreResult<ChangeStanding> {
        let reason = CloseReason::AccountDeactivated;
        let update = vec![doc! { "$set": {
            "deactivated_at": { "$ifNull": ["$deactivated_at", time_bson(now)] },
            "updated_at": touched(now),
            "sessions": with_closed(is_open_but(None), reason.as_str(), now),
        } }];
        let change = ChangeGuarded {
            id,
            credential_version,
            roles: None,
            fixed: fixed.clone(),
            update,
        };
        self.change_guarded(change).await
    }

    pub(super) async fn activate(&self, id: UserId, now: Timestamp) -> StoreResult<ChangeStanding> {
        let update = vec![doc! { "$set": {
            "deactivated_at": null,
            "updated_at": touched(now),
        } }];
        self.change(id, Document::new(), update).await
    }

    async fn change_guarded(&self, change: ChangeGuarded) -> StoreResult<ChangeStanding> {
        let mut condition = is_no_active_admin(&change.fixed);
        if let Some(version) = change.credential_version {
            condition.insert("credential_version", version);
        }
        let update = change.update.clone();
        match self.change(change.id, condition, update).await? {
            ChangeStanding::Gone => transact(self, change).await,
            outcome => Ok(outcome),
        }
    }

    /// Changes a user on a condition; `Gone` also if the condition does not hold.
    async fn change(
        &self,
        id: UserId,
        condition: Document,
        update: Vec<Document>,
    ) -> StoreResult<ChangeStanding> {
        let mut query = doc! { "_id": user_key(id) };
        query.extend(condition);
        let (users, limit) = (self.collection(USERS), self.operation_timeout);
        let change = async move {
            users
                .find_one_and_update(query, update)
                .return_document(ReturnDocument::After)
                .projection(user_fields())
                .max_time(limit)
                .await
        };
        changed(self.bounded(change).await?, id)
    }
}
