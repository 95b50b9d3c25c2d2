//! Passwords: replaced on the condition that they are still the ones that were checked.

use diesel::prelude::*;
use diesel_async::RunQueryDsl;

use super::{
    Conn,
    faults::Fault,
    lock_user,
    schema::{one_time_secrets, users},
    sessions::{close_all, renew_authentication},
    types::{DbId, DbTime},
};
use crate::{
    clock::Timestamp,
    ids::{SessionId, UserId},
    model::{
        session::CloseReason,
        token::{Purpose, SecretHash},
        user::{PasswordHash, UserCredentials},
    },
    store::{Redeem, SetPassword, StoreResult},
};

pub(super) async fn set(
    conn: &mut Conn,
    id: UserId,
    hash: &PasswordHash,
    credential_version: i64,
    keep: Option<SessionId>,
    now: Timestamp,
) -> StoreResult<SetPassword> {
    let set: Result<SetPassword, Fault> = write_tx!(conn, async |tx| {
        let Some(locked) = lock_user(tx, id).await? else {
            return Ok(SetPassword::Gone);
        };
        let before = locked.parse()?;
        if !before.user.is_active() {
            return Ok(SetPassword::NotActive);
        }
        if before.credential_version != credential_version {
            return Ok(SetPassword::CredentialsChanged);
        }
        let (closed, authenticated_at) = write(tx, &before, hash, keep, now).await?;
        Ok(SetPassword::Changed {
            closed,
            authenticated_at,
        })
    });
    Ok(set?)
}

pub(super) async fn redeem(
    conn: &mut Conn,
    secret: &SecretHash,
    hash: &PasswordHash,
    now: Timestamp,
) -> StoreResult<Redeem> {
    let redeemed: Result<Redeem, Fault> = write_tx!(conn, async |tx| {
        let presented = one_time_secrets::table
            .filter(one_time_secrets::secret_hash.eq(secret.as_bytes().to_vec()))
            .filter(one_time_secrets::purpose.eq(Purpose::SetPassword.as_str()))
            .filter(one_time_secrets::used_at.is_null())
            .filter(one_time_secrets::expires_at.gt(DbTime(now)));
        // The user's row before the secret's, as everywhere; the secret is judged again when spent.
        let owner = presented
            .clone()
            .select(one_time_secrets::user_id)
            .first::<DbId>(tx)
            .await
            .optional()?;
        let Some(owner) = owner else {
            return Ok(Redeem::Refused);
        };
        let user_id = UserId::from(owner.0);
        let Some(locked) = lock_user(tx, user_id).await? else {
            return Ok(Redeem::Refused);
        };
        let before = locked.parse()?;
        if !before.user.is_active() {
            return Ok(Redeem::Refused);
        }
        let spent = diesel::update(presented).set(one_time_secrets::used_at.eq(DbTime(now)));
        if spent.execute(tx).await? == 0 {
            return Ok(Redeem::Refused);
        }
        write(tx, &before, hash, None, now).await?;
        Ok(Redeem::Redeemed(user_id))
    });
    Ok(redeemed?)
}

/// Writes the hash of a user whose row is held, voids open links and closes sessions; says how many, and
/// when the user of the kept one last proved who they are.
async fn write(
    tx: &mut Conn,
    before: &UserCredentials,
    hash: &PasswordHash,
    keep: Option<SessionId>,
    now: Timestamp,
) -> Result<(u64, Option<Timestamp>), Fault> {
    let id = before.user.id;
    let columns = (
        users::password_hash.eq(hash.expose().clone()),
        users::credential_version.eq(before.credential_version + 1),
        users::updated_at.eq(DbTime(now.max(before.user.updated_at))),
    );
    diesel::update(users::table.find(DbId(id.as_uuid())))
        .set(columns)
        .execute(tx)
        .await?;
    let open_links = one_time_secrets::table
        .filter(one_time_secrets::user_id.eq(DbId(id.as_uuid())))
        .filter(one_time_secrets::purpose.eq(Purpose::SetPassword.as_str()))
        .filter(one_time_secrets::used_at.is_null());
    diesel::update(open_links)
        .set(one_time_secrets::used_at.eq(DbTime(now)))
        .execute(tx)
        .await?;
    let authenticated_at = match keep {
        // This proof counts whatever was noted before it.
        Some(keep) => renew_authentication(tx, id, keep, now, now).await?,
        None => None,
    };
    let closed = close_all(tx, id, keep, CloseReason::PasswordChanged, now).await?;
    Ok((closed, authenticated_at))
}
