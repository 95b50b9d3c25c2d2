//! Setting passwords.
//!
//! Both ways, with the current password and with a one-time secret, write the user's document on the
//! condition that it is as expected and void the user's open secrets in the same transaction.

use async_trait::async_trait;
use mongodb::{
    ClientSession,
    bson::{Document, doc},
    options::ReturnDocument,
};

use super::{
    MongoStore,
    documents::{ONE_TIME_SECRETS, USERS, hash_bson, time_bson, user_key},
    rows::{Row, id, read_sessions, text, time},
    sessions::{
        closed_count, closing_count, is_open_but, is_open_one, sessions_where, with_closed,
    },
    transaction::{Step, Stopped, Transaction},
};
use crate::{
    clock::Timestamp,
    ids::{SessionId, UserId},
    model::{
        session::CloseReason,
        token::{Purpose, SecretHash},
        user::PasswordHash,
    },
    store::{Redeem, SetPassword},
};

/// Replaces the password that `credential_version` was read with.
///
/// Of two at once the server lets one go on; the other is repeated and finds another version.
pub(super) struct ReplacePassword {
    pub(super) id: UserId,
    pub(super) hash: PasswordHash,
    pub(super) credential_version: i64,
    pub(super) keep: Option<SessionId>,
    pub(super) now: Timestamp,
}

/// Spends a one-time secret for setting a password.
///
/// Spending writes the secret's document, so of two at once one is repeated and finds it spent.
pub(super) struct RedeemSecret {
    pub(super) secret: SecretHash,
    pub(super) hash: PasswordHash,
    pub(super) now: Timestamp,
}

/// Sets the password of the active user that `condition` finds and closes its sessions but `keep`.
/// The number of sessions closed and when the user of the kept one last proved who they are, or `None` if
/// there is no such user.
async fn set_password(
    store: &MongoStore,
    session: &mut ClientSession,
    id: UserId,
    condition: Document,
    (hash, keep, now): (&PasswordHash, Option<SessionId>, Timestamp),
) -> Result<Option<(u64, Option<Timestamp>)>, Stopped> {
    let mut active = doc! { "_id": user_key(id), "deactivated_at": null };
    active.extend(condition);
    let mut stages = vec![doc! { "$set": {
        "password_hash": { "$literal": hash.expose() },
        "credential_version": { "$add": ["$credential_version", 1] },
        "updated_at": { "$max": ["$updated_at", time_bson(now)] },
        "sessions": with_closed(is_open_but(keep), CloseReason::PasswordChanged.as_str(), now),
    } }];
    if let Some(keep) = keep {
        stages.push(reauthenticated(keep, now));
    }
    let mut counted = closing_count(keep);
    if let Some(keep) = keep {
        counted.insert("sessions", sessions_where(is_open_one("$$s", keep)));
    }
    let before = store
        .collection(USERS)
        .find_one_and_update(active, stages)
        .return_document(ReturnDocument::Before)
        .projection(counted)
        .session(&mut *session)
        .await?;
    let Some(before) = before else {
        return Ok(None);
    };
    store
        .collection(ONE_TIME_SECRETS)
        .update_many(
            doc! {
                "user_id": user_key(id),
                "purpose": Purpose::SetPassword.as_str(),
                "used_at": null,
            },
            doc! { "$set": { "used_at": time_bson(now) } },
        )
        .session(session)
        .await?;
    let authenticated_at = match keep {
        Some(_) => read_sessions(&before, id)?
            .first()
            .map(|(id, kept)| Row::session(kept, *id).required("authenticated_at", time))
            .transpose()?
            .map(|earlier| earlier.max(now)),
        None => None,
    };
    Ok(Some((closed_count(&before, id)?, authenticated_at)))
}

/// A stage that notes that the user of an open session has just proved who they are.
fn reauthenticated(session: SessionId, now: Timestamp) -> Document {
    let is_kept = is_open_one("$$s", session);
    let later = doc! { "$max": ["$$s.authenticated_at", time_bson(now)] };
    doc! { "$set": { "sessions": { "$map": {
        "input": "$sessions",
        "as": "s",
        "in": { "$cond": [
            is_kept,
            { "$mergeObjects": ["$$s", { "authenticated_at": later }] },
            "$$s",
        ] },
    } } } }
}

#[async_trait]
impl Transaction for ReplacePassword {
    type Outcome = SetPassword;

    async fn run(
        &self,
        store: &MongoStore,
        session: &mut ClientSession,
    ) -> Result<Step<SetPassword>, Stopped> {
        let condition = doc! { "credential_version": self.credential_version };
        let change = (&self.hash, self.keep, self.now);
        let changed = set_password(store, session, self.id, condition, change).await?;
        if let Some((closed, authenticated_at)) = changed {
            return Ok(Step::Commit(SetPassword::Changed {
                closed,
                authenticated_at,
            }));
        }
        let found = store
            .collection(USERS)
            .find_one(doc! { "_id": user_key(self.id) })
            .projection(doc! { "deactivated_at": 1 })
            .session(session)
            .await?;
        let Some(user) = found else {
            return Ok(Step::Abort(SetPassword::Gone));
        };
        let deactivated = Row::user(&user, self.id).optional("deactivated_at", time)?;
        Ok(Step::Abort(if deactivated.is_some() {
            SetPassword::NotActive
        } else {
            SetPassword::CredentialsChanged
        }))
    }
}

#[async_trait]
impl Transaction for RedeemSecret {
    type Outcome = Redeem;

    async fn run(
        &self,
        store: &MongoStore,
        session: &mut ClientSession,
    ) -> Result<Step<Redeem>, Stopped> {
        let secrets = store.collection(ONE_TIME_SECRETS);
        let key = doc! { "_id": hash_bson(&self.secret) };
        let found = secrets.find_one(key.clone()).session(&mut *session).await?;
        let Some(secret) = found else {
            return Ok(Step::Abort(Redeem::Refused));
        };
        // Errors name the secret's id, never its hash.
        let unnamed = Row::of(ONE_TIME_SECRETS, &secret, uuid::Uuid::nil());
        let row = Row::of(ONE_TIME_SECRETS, &secret, unnamed.required("id", id)?);
        let is_good = row.required("purpose", text)? == Purpose::SetPassword.as_str()
            && row.optional("used_at", time)?.is_none()
            && row.required("expires_at", time)? > self.now;
        if !is_good {
            return Ok(Step::Abort(Redeem::Refused));
        }
        let user = UserId::from(row.required("user_id", id)?);
        secrets
            .update_one(key, doc! { "$set": { "used_at": time_bson(self.now) } })
            .session(&mut *session)
            .await?;
        let change = (&self.hash, None, self.now);
        let changed = set_password(store, session, user, Document::new(), change).await?;
        Ok(match changed {
            Some(_) => Step::Commit(Redeem::Redeemed(user)),
            None => Step::Abort(Redeem::Refused),
        })
    }
}
