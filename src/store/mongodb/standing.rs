//! Roles and status, and the last administrator.
//!
//! Decides when a change can cost the system its last administrator: only if its user is an active
//! one. Such a change writes the guard document before it looks, so that no two of them decide on the same
//! count. A user who cannot be one, whatever roles are stored, is changed on that condition.

use async_trait::async_trait;
use mongodb::{
    ClientSession,
    bson::{Bson, Document, doc},
    options::ReturnDocument,
};

use super::{
    MongoStore,
    audit::Log,
    documents::{USERS, time_bson, user_key},
    owners::{still_there, user_by_id},
    reads::user_fields,
    roles::{admin_roles, hold_last_admin, is_any_active},
    rows::{Row, read_ended, read_user, roles},
    sessions::{ending, is_open_but, with_closed},
    transaction::{Step, Stopped, Transaction},
};
use crate::{
    ids::UserId,
    model::{
        audit::{Event, EventKind, Occasion},
        role::{AdminRoles, FixedRoles},
        session::CloseReason,
        user::{Roles, User},
    },
    store::ChangeStanding,
};

/// What a user becomes.
pub(super) enum Standing {
    Roles(Roles),
    Active,
    Deactivated,
}

/// Changes a user's standing.
pub(super) struct ChangeUser {
    pub(super) id: UserId,
    pub(super) credential_version: Option<i64>,
    pub(super) to: Standing,
    /// The roles of the configuration, for a change that may take an administrator away.
    pub(super) guarded: Option<FixedRoles>,
    pub(super) by: Occasion,
}

#[async_trait]
impl Transaction for ChangeUser {
    type Outcome = ChangeStanding;

    fn user(&self) -> Option<UserId> {
        Some(self.id)
    }

    async fn run(
        &self,
        store: &MongoStore,
        session: &mut ClientSession,
    ) -> Result<Step<ChangeStanding>, Stopped> {
        if let Some(fixed) = &self.guarded {
            let mut harmless = is_no_active_admin(fixed);
            if let Some(version) = self.credential_version {
                harmless.insert("credential_version", version);
            }
            if let Some(changed) = self.change(store, session, harmless).await? {
                return Ok(Step::Commit(changed));
            }
            hold_last_admin(store, session).await?;
            if let Some(refused) = self.refusal(store, session, fixed).await? {
                return Ok(Step::Abort(refused));
            }
        }
        let changed = self.change(store, session, Document::new()).await?;
        Ok(Step::Commit(changed.unwrap_or(ChangeStanding::Gone)))
    }
}

impl ChangeUser {
    /// Whoever keeps or gets a role of the configuration that makes administrators takes none away.
    pub(super) fn to_roles(id: UserId, roles: &Roles, fixed: &FixedRoles, by: &Occasion) -> Self {
        let stays = fixed.names(true).any(|name| roles.contains(name));
        Self {
            id,
            credential_version: None,
            to: Standing::Roles(roles.clone()),
            guarded: (!stays).then(|| fixed.clone()),
            by: by.clone(),
        }
    }

    /// Why the user stays as they are; the guard document is held.
    async fn refusal(
        &self,
        store: &MongoStore,
        session: &mut ClientSession,
        fixed: &FixedRoles,
    ) -> Result<Option<ChangeStanding>, Stopped> {
        let Some(before) = user_by_id(store, session, self.id).await? else {
            return Ok(Some(ChangeStanding::Gone));
        };
        if self
            .credential_version
            .is_some_and(|version| version != before.credential_version)
        {
            return Ok(Some(ChangeStanding::CredentialsChanged));
        }
        let admins = admin_roles(store, session, fixed).await?;
        let stays = matches!(&self.to, Standing::Roles(roles) if admins.is_among(roles));
        if !stays && is_only_admin(store, session, &before.user, &admins).await? {
            return Ok(Some(ChangeStanding::LastAdmin));
        }
        Ok(None)
    }

    /// Changes the user on a condition; `None` if it does not hold or there is no such user.
    async fn change(
        &self,
        store: &MongoStore,
        session: &mut ClientSession,
        condition: Document,
    ) -> Result<Option<ChangeStanding>, Stopped> {
        let this = doc! { "_id": user_key(self.id) };
        let mut query = this.clone();
        query.extend(condition);
        let (update, mut fields) = self.update();
        fields.insert("roles", 1);
        let users = store.collection(USERS);
        let before = users
            .find_one_and_update(query, vec![update])
            .return_document(ReturnDocument::Before)
            .projection(fields)
            .session(&mut *session)
            .await?;
        let Some(before) = before else {
            return Ok(None);
        };
        let mut log = Log::new(&self.by);
        log.add(match &self.to {
            Standing::Roles(after) => {
                let before = Row::user(&before, self.id).required("roles", roles)?;
                Event::roles_changed(self.id, &before, after)
            }
            Standing::Active => Event::done(EventKind::AccountActivated).about(self.id),
            Standing::Deactivated => Event::done(EventKind::AccountDeactivated).about(self.id),
        });
        log.add_ends(self.id, &read_ended(&before, self.id)?);
        log.write(store, session).await?;
        let after = users.find_one(this).projection(user_fields());
        let after = still_there(after.session(session).await?, self.id)?;
        let user = read_user(&after, self.id)?;
        Ok(Some(ChangeStanding::Changed(Box::new(user))))
    }

    /// The update, and a projection of the document before: which sessions it closes. It closes them itself, so
    /// that a login comes before it and is closed, or after it and finds the user deactivated.
    fn update(&self) -> (Document, Document) {
        let now = self.by.at;
        let mut fields = doc! { "updated_at": { "$max": ["$updated_at", time_bson(now)] } };
        let mut ended = Document::new();
        match &self.to {
            Standing::Roles(roles) => {
                fields.insert("roles", doc! { "$literal": roles.to_vec() });
            }
            Standing::Active => {
                fields.insert("deactivated_at", Bson::Null);
            }
            Standing::Deactivated => {
                let reason = CloseReason::AccountDeactivated;
                let since = doc! { "$ifNull": ["$deactivated_at", time_bson(now)] };
                let sessions = with_closed(is_open_but(None), reason.as_str(), now);
                fields.insert("deactivated_at", since);
                fields.insert("sessions", sessions);
                ended = ending(None, reason);
            }
        }
        (doc! { "$set": fields }, ended)
    }
}

/// A condition on a user: whatever becomes of them and whatever roles are stored, no administrator is lost.
fn is_no_active_admin(fixed: &FixedRoles) -> Document {
    let harmless: Vec<&str> = fixed.names(false).collect();
    let only_harmless = doc! { "$not": { "$elemMatch": { "$nin": harmless } } };
    doc! { "$or": [{ "deactivated_at": { "$ne": null } }, { "roles": only_harmless }] }
}

/// Whether a user is an active administrator and nobody else is.
pub(super) async fn is_only_admin(
    store: &MongoStore,
    session: &mut ClientSession,
    user: &User,
    admins: &AdminRoles,
) -> Result<bool, Stopped> {
    let is_admin = user.is_active() && admins.is_among(&user.roles);
    Ok(is_admin && !is_any_active(store, session, admins, Some(user.id)).await?)
}
