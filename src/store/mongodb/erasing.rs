//! Erasing a person: the user with everything that is theirs, and the key of their audit details.

use async_trait::async_trait;
use mongodb::{
    ClientSession,
    bson::{Document, doc},
};

use super::{
    MongoStore,
    audit::{self, Log},
    documents::{LOGIN_NAMES, ONE_TIME_SECRETS, USERS, user_key},
    limits::DEVICES,
    outbox::MAIL_OUTBOX,
    reads::public_fields,
    registrations::PENDING_REGISTRATIONS,
    roles::{admin_roles, hold_last_admin},
    rows::{read_ended, read_user},
    sessions::ending,
    standing::is_only_admin,
    transaction::{Step, Stopped, Transaction},
};
use crate::{
    ids::UserId,
    model::{
        audit::{Event, EventKind, Occasion},
        role::FixedRoles,
        session::CloseReason,
        user::User,
    },
    store::EraseUser,
};

/// Deletes a user.
///
/// Sessions go with the user's document; what only names the user or their address is deleted for itself.
/// Deleting the document conflicts with every change of it, which is then repeated and finds nobody.
pub(super) struct Erase {
    pub(super) id: UserId,
    pub(super) fixed: FixedRoles,
    pub(super) by: Occasion,
}

impl Erase {
    async fn delete(
        &self,
        store: &MongoStore,
        session: &mut ClientSession,
        user: &User,
    ) -> Result<(), Stopped> {
        let address = user.email.canonical();
        let of_user = doc! { "user_id": user_key(self.id) };
        let to_user = doc! { "recipient_canonical": address };
        let theirs: [(&str, Document); 6] = [
            // With the addresses that are kept for them.
            (LOGIN_NAMES, of_user.clone()),
            (ONE_TIME_SECRETS, of_user.clone()),
            (DEVICES, of_user.clone()),
            (MAIL_OUTBOX, doc! { "$or": [of_user, to_user] }),
            (PENDING_REGISTRATIONS, doc! { "email_canonical": address }),
            (USERS, doc! { "_id": user_key(self.id) }),
        ];
        for (collection, which) in theirs {
            let collection = store.collection(collection);
            let delete = collection.delete_many(which);
            delete.session(&mut *session).await?;
        }
        Ok(())
    }
}

#[async_trait]
impl Transaction for Erase {
    type Outcome = EraseUser;

    fn user(&self) -> Option<UserId> {
        Some(self.id)
    }

    async fn run(
        &self,
        store: &MongoStore,
        session: &mut ClientSession,
    ) -> Result<Step<EraseUser>, Stopped> {
        hold_last_admin(store, session).await?;
        let mut fields = public_fields();
        fields.extend(ending(None, CloseReason::Revoked));
        let users = store.collection(USERS);
        let find = users.find_one(doc! { "_id": user_key(self.id) });
        let found = find.projection(fields).session(&mut *session).await?;
        let Some(document) = found else {
            return Ok(Step::Abort(EraseUser::Gone));
        };
        let user = read_user(&document, self.id)?;
        let admins = admin_roles(store, session, &self.fixed).await?;
        if is_only_admin(store, session, &user, &admins).await? {
            return Ok(Step::Abort(EraseUser::LastAdmin));
        }
        let mut log = Log::new(&self.by);
        log.add_ends(self.id, &read_ended(&document, self.id)?);
        log.add(Event::done(EventKind::AccountErased).about(self.id));
        // Before the key is dropped: who erases themselves is still somebody.
        log.write(store, session).await?;
        self.delete(store, session, &user).await?;
        audit::forget(store, session, &[self.id]).await?;
        Ok(Step::Commit(EraseUser::Erased))
    }
}
