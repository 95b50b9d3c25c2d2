//! Passwords: replaced on the condition that they are still the ones that were checked.

use diesel::prelude::*;
use diesel_async::RunQueryDsl;

use super::{
    Conn,
    addresses::note_verified,
    audit::Log,
    faults::Fault,
    lock_user, outbox,
    schema::users,
    secrets,
    sessions::{close_all, renew},
    types::{DbId, DbTime},
};
use crate::{
    clock::Timestamp,
    ids::{SessionId, UserId},
    model::{
        audit::{Event, EventKind, Occasion},
        mail::{NewLetter, Voiding},
        session::CloseReason,
        token::{Proof, Purpose},
        user::{PasswordHash, User, UserCredentials},
    },
    store::{Redeem, SetPassword, StoreResult},
};

pub(super) async fn set(
    conn: &mut Conn,
    id: UserId,
    hash: &PasswordHash,
    credential_version: i64,
    keep: Option<SessionId>,
    letter: Option<&NewLetter>,
    by: &Occasion,
) -> StoreResult<SetPassword> {
    let now = by.at;
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
        let mut log = Log::new(by);
        log.add(Event::done(EventKind::PasswordChanged).about(id));
        let (closed, authenticated_at) = write(tx, &before, hash, keep, &mut log).await?;
        log.write(tx).await?;
        outbox::void_secrets(tx, &before.user, Voiding::PasswordChanged, now).await?;
        if let Some(letter) = letter {
            outbox::insert(tx, letter).await?;
        }
        Ok(SetPassword::Changed {
            closed,
            authenticated_at,
        })
    });
    Ok(set?)
}

/// What sets a password; the first one is that of codes.
const PURPOSES: [Purpose; 2] = [Purpose::ResetPassword, Purpose::SetPassword];

pub(super) async fn owner(
    conn: &mut Conn,
    proof: &Proof,
    now: Timestamp,
) -> StoreResult<Option<User>> {
    let found: Result<Option<User>, Fault> = write_tx!(conn, async |tx| {
        let good = secrets::judge(tx, proof, &PURPOSES, now).await?;
        Ok(good.map(|good| good.owner.user))
    });
    Ok(found?)
}

pub(super) async fn redeem(
    conn: &mut Conn,
    proof: &Proof,
    hash: &PasswordHash,
    letter: Option<&NewLetter>,
    by: &Occasion,
) -> StoreResult<Redeem> {
    let now = by.at;
    let redeemed: Result<Redeem, Fault> = write_tx!(conn, async |tx| {
        let Some(spent) = secrets::spend(tx, proof, &PURPOSES, now).await? else {
            return Ok(Redeem::Refused);
        };
        let owner = spent.owner;
        let mut log = Log::new(by);
        log.add(Event::done(EventKind::PasswordReset).about(owner.user.id));
        write(tx, &owner, hash, None, &mut log).await?;
        log.write(tx).await?;
        if spent.address.is_some() {
            note_verified(tx, &owner.user, now).await?;
        }
        outbox::void_secrets(tx, &owner.user, Voiding::PasswordReset, now).await?;
        // A first password is no news.
        if let Some(letter) = letter.filter(|_| owner.password_hash.is_some()) {
            let letter = letter.clone().about(owner.user.id);
            outbox::insert(tx, &letter.to(&owner.user.email)).await?;
        }
        Ok(Redeem::Redeemed(owner.user.id))
    });
    Ok(redeemed?)
}

/// Writes the hash of a user whose row is held and closes sessions; says how many, and when the user of the
/// kept one last proved who they are.
async fn write(
    tx: &mut Conn,
    before: &UserCredentials,
    hash: &PasswordHash,
    keep: Option<SessionId>,
    log: &mut Log<'_>,
) -> Result<(u64, Option<Timestamp>), Fault> {
    let now = log.now();
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
    let authenticated_at = match keep {
        // This proof counts whatever was noted before it.
        Some(keep) => renew(tx, id, keep, now, now).await?.1,
        None => None,
    };
    let closed = close_all(tx, id, keep, CloseReason::PasswordChanged, log).await?;
    Ok((closed, authenticated_at))
}
