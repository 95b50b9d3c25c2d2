//! Roles and status, and the last administrator.
//!
//! Decides when a change can cost the system its last administrator: only if its user is an active
//! one. Such a change is a transaction that first writes the guard document, so that no two of them
//! decide on the same count; every other change is one update, on the condition that its user is not
//! an active administrator.

use async_trait::async_trait;
use mongodb::{
    ClientSession,
    bson::{Document, RawDocumentBuf, doc},
    options::ReturnDocument,
};

use super::{
    MongoStore,
    documents::{GUARDS, USERS, time_bson, user_key},
    reads::user_fields,
    rows::{read_credentials, read_user},
    sessions::{is_open_but, with_closed},
    transaction::{Step, Stopped, Transaction, transact},
};
use crate::{
    clock::Timestamp,
    ids::UserId,
    model::{
        session::CloseReason,
        user::{ADMIN, Roles},
    },
    store::{ChangeStanding, StoreResult},
};

/// Takes an active administrator away if another one is left.
struct RemoveAdmin {
    id: UserId,
    credential_version: Option<i64>,
    update: Vec<Document>,
}

#[async_trait]
impl Transaction for RemoveAdmin {
    type Outcome = ChangeStanding;

    async fn run(
        &self,
        store: &MongoStore,
        session: &mut ClientSession,
    ) -> Result<Step<ChangeStanding>, Stopped> {
        // First of all, so that what follows is read from a snapshot that has every earlier
        // removal: a transaction whose snapshot is older cannot write this document.
        store
            .collection(GUARDS)
            .update_one(
                doc! { "_id": "last_admin" },
                doc! { "$inc": { "changes": 1 } },
            )
            .upsert(true)
            .session(&mut *session)
            .await?;
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
        if before.user.is_active_admin() {
            let another = doc! {
                "roles": ADMIN, "deactivated_at": null, "_id": { "$ne": user_key(self.id) },
            };
            let another = users
                .find_one(another)
                .projection(doc! { "_id": 1 })
                .session(&mut *session)
                .await?;
            if another.is_none() {
                return Ok(Step::Abort(ChangeStanding::LastAdmin));
            }
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

/// A condition on a user: whatever becomes of them, no administrator is lost.
fn is_no_active_admin() -> Document {
    doc! { "$or": [{ "deactivated_at": { "$ne": null } }, { "roles": { "$ne": ADMIN } }] }
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
        now: Timestamp,
    ) -> StoreResult<ChangeStanding> {
        let update = vec![doc! { "$set": {
            "roles": { "$literal": roles.to_vec() },
            "updated_at": touched(now),
        } }];
        if roles.contains(ADMIN) {
            self.change(id, Document::new(), update).await
        } else {
            self.change_guarded(id, None, update).await
        }
    }

    /// The sessions are closed by the update that sets the status, so that a login comes before it
    /// and is closed, or after it and finds the user deactivated.
    pub(super) async fn deactivate(
        &self,
        id: UserId,
        credential_version: Option<i64>,
        now: Timestamp,
    ) -> StoreResult<ChangeStanding> {
        let reason = CloseReason::AccountDeactivated;
        let update = vec![doc! { "$set": {
            "deactivated_at": { "$ifNull": ["$deactivated_at", time_bson(now)] },
            "updated_at": touched(now),
            "sessions": with_closed(is_open_but(None), reason.as_str(), now),
        } }];
        self.change_guarded(id, credential_version, update).await
    }

    pub(super) async fn activate(&self, id: UserId, now: Timestamp) -> StoreResult<ChangeStanding> {
        let update = vec![doc! { "$set": {
            "deactivated_at": null,
            "updated_at": touched(now),
        } }];
        self.change(id, Document::new(), update).await
    }

    async fn change_guarded(
        &self,
        id: UserId,
        credential_version: Option<i64>,
        update: Vec<Document>,
    ) -> StoreResult<ChangeStanding> {
        let mut condition = is_no_active_admin();
        if let Some(version) = credential_version {
            condition.insert("credential_version", version);
        }
        match self.change(id, condition, update.clone()).await? {
            ChangeStanding::Gone => {
                let removal = RemoveAdmin {
                    id,
                    credential_version,
                    update,
                };
                transact(self, removal).await
            }
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
