//! Verifying and changing e-mail addresses.
//!
//! Both spend a secret that was mailed to the address in question; what is done with it is written in the
//! same transaction. How names stay unique is decided in `owners` and `users`.

use async_trait::async_trait;
use mongodb::{
    ClientSession,
    bson::{Document, doc},
    options::ReturnDocument,
};

use super::{
    MongoStore, audit,
    documents::{USERS, time_bson, user_key},
    outbox::store_letter,
    owners::{Moving, still_there},
    reads::user_fields,
    rows::read_user,
    secrets::{Spending, Verdict, spend, void_secrets},
    transaction::{Step, Stopped, Transaction},
};
use crate::{
    clock::Timestamp,
    ids::UserId,
    model::{
        audit::{Event, EventKind, Occasion},
        mail::NewLetter,
        token::{Proof, Purpose},
        user::User,
    },
    store::ChangeEmail,
};

/// Notes that a user's address is verified.
pub(super) struct VerifyAddress {
    pub(super) proof: Proof,
    pub(super) by: Occasion,
}

/// Gives a user the address that a secret was mailed to.
pub(super) struct ChangeAddress {
    pub(super) proof: Proof,
    pub(super) notice: Option<NewLetter>,
    pub(super) by: Occasion,
}

/// Changes fields of a user; the user as it is then.
async fn change(
    store: &MongoStore,
    session: &mut ClientSession,
    id: UserId,
    fields: Document,
    now: Timestamp,
) -> Result<User, Stopped> {
    let after = store
        .collection(USERS)
        .find_one_and_update(
            doc! { "_id": user_key(id) },
            doc! { "$set": fields, "$max": { "updated_at": time_bson(now) } },
        )
        .return_document(ReturnDocument::After)
        .projection(user_fields())
        .session(session)
        .await?;
    let after = still_there(after, id)?;
    Ok(read_user(&after, id)?)
}

#[async_trait]
impl Transaction for VerifyAddress {
    type Outcome = Option<User>;

    async fn run(
        &self,
        store: &MongoStore,
        session: &mut ClientSession,
    ) -> Result<Step<Option<User>>, Stopped> {
        let now = self.by.at;
        let spending = Spending {
            proof: &self.proof,
            by_link: &[Purpose::VerifyEmail],
            by_code: Some(Purpose::VerifyEmail),
            now,
        };
        let owner = match spend(store, session, &spending).await? {
            Verdict::Good(spent) => spent.owner.user,
            refused => return Ok(refused.refusal(None)),
        };
        let verified_at = owner.email_verified_at.unwrap_or(now);
        let fields =
            doc! { "email_verified_at": time_bson(verified_at), "provisional_until": null };
        let user = change(store, session, owner.id, fields, now).await?;
        let verified = Event::done(EventKind::EmailVerified).about(owner.id);
        audit::write(store, session, &self.by, &[verified]).await?;
        Ok(Step::Commit(Some(user)))
    }
}

#[async_trait]
impl Transaction for ChangeAddress {
    type Outcome = ChangeEmail;

    async fn run(
        &self,
        store: &MongoStore,
        session: &mut ClientSession,
    ) -> Result<Step<ChangeEmail>, Stopped> {
        let now = self.by.at;
        let spending = Spending {
            proof: &self.proof,
            by_link: &[Purpose::ChangeEmail],
            by_code: Some(Purpose::ChangeEmail),
            now,
        };
        let spent = match spend(store, session, &spending).await? {
            Verdict::Good(spent) => spent,
            refused => return Ok(refused.refusal(ChangeEmail::Refused)),
        };
        let (Some(new), old) = (spent.address, spent.owner.user) else {
            return Ok(Step::Abort(ChangeEmail::Refused));
        };
        let moving = Moving {
            user: old.id,
            old: &old.email,
            was_verified: old.email_verified_at.is_some(),
            new: &new,
            notice: self.notice.as_ref(),
            now,
        };
        if !moving.rename(store, session).await? {
            return Ok(Step::Abort(ChangeEmail::Taken));
        }
        let fields = doc! {
            "email": new.as_str(),
            "email_canonical": new.canonical(),
            "email_verified_at": time_bson(now),
            "provisional_until": null,
        };
        let user = change(store, session, old.id, fields, now).await?;
        // They were mailed to the old address.
        let to_old = [Purpose::VerifyEmail, Purpose::ResetPassword];
        void_secrets(store, session, old.id, &to_old, None, now).await?;
        store_letter(store, session, moving.farewell().as_ref()).await?;
        let changed = Event::done(EventKind::EmailChanged).about(old.id);
        audit::write(store, session, &self.by, &[changed]).await?;
        Ok(Step::Commit(ChangeEmail::Changed(Box::new(user))))
    }
}
