//! Roles that administrators make, and which of them make administrators.
//!
//! Decides, in a transaction that first writes the guard document, whether an administrator is left after a
//! change of a role; for changes of users `standing` does. What a user may do is for the use cases.

use async_trait::async_trait;
use futures_util::future::try_join_all;
use mongodb::{
    ClientSession,
    bson::{Document, RawDocument, RawDocumentBuf, doc},
    options::ReturnDocument,
};

use super::{
    MongoStore, audit,
    documents::{GUARDS, ROLES, USERS, time_bson, user_key},
    rows::{list, text, time},
    transaction::{Step, Stopped, Transaction, transact},
};
use crate::{
    ids::UserId,
    model::{
        audit::{Event, Occasion},
        role::{AdminRoles, FixedRoles, Permissions, RoleDefinition, StoredRole},
        user::Roles,
    },
    store::{DeleteRole, PutRole, StoreError, StoreResult},
};

/// Puts a role in the place of the one of its name.
struct Put {
    role: RoleDefinition,
    fixed: FixedRoles,
    by: Occasion,
}

#[async_trait]
impl Transaction for Put {
    type Outcome = PutRole;

    async fn run(
        &self,
        store: &MongoStore,
        session: &mut ClientSession,
    ) -> Result<Step<PutRole>, Stopped> {
        let name = self.role.name.as_str();
        hold_last_admin(store, session).await?;
        if !self.role.makes_administrators()
            && takes_the_last(store, session, name, &self.fixed).await?
        {
            return Ok(Step::Abort(PutRole::LastAdmin));
        }
        let put = vec![doc! { "$set": {
            "permissions": { "$literal": self.role.permissions.to_vec() },
            "updated_at": { "$max": ["$updated_at", time_bson(self.by.at)] },
        } }];
        let after = store
            .collection(ROLES)
            .find_one_and_update(doc! { "_id": name }, put)
            .upsert(true)
            .return_document(ReturnDocument::After)
            .session(&mut *session)
            .await?;
        let after = after.map(|document| read_role(&document)).transpose()?;
        let stored = after.unwrap_or_else(|| StoredRole {
            role: self.role.clone(),
            updated_at: self.by.at,
        });
        let event = Event::role_stored(&self.role);
        audit::write(store, session, &self.by, &[event]).await?;
        Ok(Step::Commit(PutRole::Stored(stored)))
    }
}

/// Deletes a role.
struct Delete {
    name: String,
    fixed: FixedRoles,
    by: Occasion,
}

#[async_trait]
impl Transaction for Delete {
    type Outcome = DeleteRole;

    async fn run(
        &self,
        store: &MongoStore,
        session: &mut ClientSession,
    ) -> Result<Step<DeleteRole>, Stopped> {
        hold_last_admin(store, session).await?;
        if takes_the_last(store, session, &self.name, &self.fixed).await? {
            return Ok(Step::Abort(DeleteRole::LastAdmin));
        }
        let roles = store.collection(ROLES);
        let deleted = roles.delete_one(doc! { "_id": &self.name });
        if deleted.session(&mut *session).await?.deleted_count == 0 {
            return Ok(Step::Abort(DeleteRole::Unknown));
        }
        let event = Event::role_deleted(&self.name);
        audit::write(store, session, &self.by, &[event]).await?;
        Ok(Step::Commit(DeleteRole::Deleted))
    }
}

/// Whether the only active administrators are so by this role alone; the guard document is held.
async fn takes_the_last(
    store: &MongoStore,
    session: &mut ClientSession,
    name: &str,
    fixed: &FixedRoles,
) -> Result<bool, Stopped> {
    let before = admin_roles(store, session, fixed).await?;
    if fixed.get(name).is_some() || !before.iter().any(|role| role == name) {
        return Ok(false);
    }
    let after = before.clone().without(name);
    Ok(is_any_active(store, session, &before, None).await?
        && !is_any_active(store, session, &after, None).await?)
}

/// Makes this transaction conflict with every other one that could take an administrator away. First of
/// all, so that what follows is read from a snapshot that has every earlier such change: a transaction whose
/// snapshot is older cannot write this document.
pub(super) async fn hold_last_admin(
    store: &MongoStore,
    session: &mut ClientSession,
) -> Result<(), Stopped> {
    let guard = doc! { "_id": "last_admin" };
    let changed = doc! { "$inc": { "changes": 1 } };
    let guards = store.collection(GUARDS);
    let hold = guards.update_one(guard, changed).upsert(true);
    hold.session(session).await?;
    Ok(())
}

/// The roles that make administrators in the snapshot of this transaction. One that makes no sense grants
/// nothing, and must not keep others from being deactivated.
pub(super) async fn admin_roles(
    store: &MongoStore,
    session: &mut ClientSession,
    fixed: &FixedRoles,
) -> Result<AdminRoles, Stopped> {
    let roles = store.collection(ROLES);
    let mut cursor = roles.find(Document::new()).session(&mut *session).await?;
    let mut stored = Vec::new();
    while cursor.advance(session).await? {
        stored.extend(read_role(cursor.current()).ok().map(|stored| stored.role));
    }
    Ok(fixed.administrators(&stored))
}

/// Whether an active user holds one of these roles, other than the one that is left out.
pub(super) async fn is_any_active(
    store: &MongoStore,
    session: &mut ClientSession,
    among: &AdminRoles,
    but: Option<UserId>,
) -> Result<bool, Stopped> {
    let names: Vec<&str> = among.iter().collect();
    let mut wanted = doc! { "roles": { "$in": names }, "deactivated_at": null };
    if let Some(but) = but {
        wanted.insert("_id", doc! { "$ne": user_key(but) });
    }
    let users = store.collection(USERS);
    let found = users.find_one(wanted).projection(doc! { "_id": 1 });
    Ok(found.session(session).await?.is_some())
}

fn read_role(document: &RawDocument) -> StoreResult<StoredRole> {
    let name = document.get("_id").ok().flatten().and_then(text);
    let corrupt = |column| StoreError::Corrupt {
        table: ROLES,
        column,
        row: name.unwrap_or_default().to_owned(),
    };
    let named = name.filter(|name| Roles::is_name(name));
    let named = named.ok_or_else(|| corrupt("_id"))?;
    let field = |column| document.get(column).ok().flatten();
    let granted = field("permissions").and_then(list(|one| text(one).map(str::to_owned)));
    let permissions = granted.and_then(Permissions::stored);
    let updated_at = field("updated_at").and_then(time);
    Ok(StoredRole {
        role: RoleDefinition {
            name: named.to_owned(),
            permissions: permissions.ok_or_else(|| corrupt("permissions"))?,
        },
        updated_at: updated_at.ok_or_else(|| corrupt("updated_at"))?,
    })
}

impl MongoStore {
    pub(super) async fn read_roles(&self) -> StoreResult<Vec<StoredRole>> {
        let (roles, limit) = (self.collection(ROLES), self.operation_timeout);
        let documents = self.bounded(async move {
            let by_name = doc! { "_id": 1 };
            let mut cursor = roles
                .find(Document::new())
                .sort(by_name)
                .max_time(limit)
                .await?;
            let mut documents: Vec<RawDocumentBuf> = Vec::new();
            while cursor.advance().await? {
                documents.push(cursor.current().to_owned());
            }
            Ok(documents)
        });
        let documents = documents.await?;
        documents.iter().map(|role| read_role(role)).collect()
    }

    /// One by one: only reads of single documents can be linearizable, and users hold few such roles.
    pub(super) async fn read_roles_named(
        &self,
        names: &[String],
    ) -> StoreResult<Vec<RoleDefinition>> {
        let reads = names
            .iter()
            .map(|name| self.read_one(ROLES, name.as_str(), Document::new()));
        let found = try_join_all(reads).await?.into_iter().flatten();
        found.map(|role| Ok(read_role(&role)?.role)).collect()
    }

    pub(super) async fn replace_role(
        &self,
        role: &RoleDefinition,
        fixed: &FixedRoles,
        by: &Occasion,
    ) -> StoreResult<PutRole> {
        let (role, fixed, by) = (role.clone(), fixed.clone(), by.clone());
        transact(self, Put { role, fixed, by }).await
    }

    pub(super) async fn remove_role(
        &self,
        name: &str,
        fixed: &FixedRoles,
        by: &Occasion,
    ) -> StoreResult<DeleteRole> {
        let (name, fixed, by) = (name.to_owned(), fixed.clone(), by.clone());
        transact(self, Delete { name, fixed, by }).await
    }
}
