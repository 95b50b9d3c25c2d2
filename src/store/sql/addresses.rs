//! Addresses: verified, changed, and given back to whom they were taken from.

use diesel::prelude::*;
use diesel_async::RunQueryDsl;

use super::{
    Conn,
    audit::{self, Log},
    faults::{Fault, Taken},
    outbox,
    schema::{kept_addresses, users},
    secrets::{self, Spent},
    sessions::close_all,
    standing::reread,
    types::{DbId, DbTime},
};
use crate::{
    clock::Timestamp,
    email::EmailAddress,
    ids::UserId,
    model::{
        audit::{Event, EventKind, Occasion},
        mail::{ADDRESS_KEPT, NewLetter, Voiding},
        session::CloseReason,
        token::{Proof, Purpose, SecretHash},
        user::User,
    },
    store::{ChangeEmail, StoreResult},
};

pub(super) async fn verify(
    conn: &mut Conn,
    proof: &Proof,
    by: &Occasion,
) -> StoreResult<Option<User>> {
    let now = by.at;
    let verified: Result<Option<User>, Fault> = write_tx!(conn, async |tx| {
        let spent = secrets::spend(tx, proof, &[Purpose::VerifyEmail], now).await?;
        let Some(Spent { owner, .. }) = spent else {
            return Ok(None);
        };
        note_verified(tx, &owner.user, now).await?;
        let verified = Event::done(EventKind::EmailVerified).about(owner.user.id);
        audit::write(tx, by, &[verified]).await?;
        reread(tx, owner.user.id).await.map(Some)
    });
    Ok(verified?)
}

/// Notes that a user's address was shown to be theirs; the first time counts.
pub(super) async fn note_verified(tx: &mut Conn, user: &User, now: Timestamp) -> Result<(), Fault> {
    let unverified = users::table
        .find(DbId(user.id.as_uuid()))
        .filter(users::email_verified_at.is_null());
    let columns = (
        users::email_verified_at.eq(DbTime(now)),
        users::provisional_until.eq(None::<DbTime>),
        users::updated_at.eq(DbTime(now.max(user.updated_at))),
    );
    diesel::update(unverified).set(columns).execute(tx).await?;
    Ok(())
}

pub(super) async fn change(
    conn: &mut Conn,
    proof: &Proof,
    notice: Option<&NewLetter>,
    by: &Occasion,
) -> StoreResult<ChangeEmail> {
    let now = by.at;
    let changed: Result<ChangeEmail, Fault> = write_tx!(conn, async |tx| {
        let spent = secrets::spend(tx, proof, &[Purpose::ChangeEmail], now).await?;
        let Some(Spent {
            owner,
            address: Some(new),
            ..
        }) = spent
        else {
            return Ok(ChangeEmail::Refused);
        };
        let before = owner.user;
        write(tx, &before, &new, now).await?;
        leave(tx, &before, &new, notice, now).await?;
        let for_old = [Purpose::VerifyEmail, Purpose::ResetPassword];
        secrets::void(tx, before.id, &for_old, Timestamp::EPOCH, now).await?;
        let changed = Event::done(EventKind::EmailChanged).about(before.id);
        audit::write(tx, by, &[changed]).await?;
        Ok(ChangeEmail::Changed(Box::new(reread(tx, before.id).await?)))
    });
    match changed {
        Ok(outcome) => Ok(outcome),
        Err(fault) if fault.taken() == Some(Taken::Email) => Ok(ChangeEmail::Taken),
        Err(fault) => Err(fault.into()),
    }
}

/// Takes an address for a user who has just been given it. Asked after the statement that did so: whoever
/// left the address before has committed by then.
pub(super) async fn claim(
    tx: &mut Conn,
    address: &EmailAddress,
    user: UserId,
    now: Timestamp,
) -> Result<(), Fault> {
    if is_kept_from(tx, address, user, now).await? {
        return Err(Fault::Kept);
    }
    let kept = kept_addresses::table.find(address.canonical());
    diesel::delete(kept).execute(tx).await?;
    Ok(())
}

/// Whether an address is kept for another account than this one.
async fn is_kept_from(
    tx: &mut Conn,
    address: &EmailAddress,
    user: UserId,
    now: Timestamp,
) -> Result<bool, Fault> {
    let kept = kept_addresses::table
        .find(address.canonical())
        .filter(kept_addresses::user_id.ne(DbId(user.as_uuid())))
        .filter(kept_addresses::kept_until.gt(DbTime(now)))
        .select(kept_addresses::user_id);
    Ok(kept.first::<DbId>(tx).await.optional()?.is_some())
}

/// What becomes of the address that a user had, if it is another one by now: its owner, if it was shown to
/// have one, is told, and it is kept for as long as they can take the account back.
pub(super) async fn leave(
    tx: &mut Conn,
    before: &User,
    new: &EmailAddress,
    notice: Option<&NewLetter>,
    now: Timestamp,
) -> Result<(), Fault> {
    let is_another = before.email.canonical() != new.canonical();
    let Some(notice) = notice.filter(|_| is_another && before.email_verified_at.is_some()) else {
        return Ok(());
    };
    let letter = notice.clone().about(before.id).to(&before.email);
    outbox::insert(tx, &letter).await?;
    let (owner, until) = (
        kept_addresses::user_id.eq(DbId(before.id.as_uuid())),
        kept_addresses::kept_until.eq(DbTime(now.plus(ADDRESS_KEPT))),
    );
    let canonical = kept_addresses::address_canonical.eq(before.email.canonical().to_owned());
    diesel::insert_into(kept_addresses::table)
        .values((canonical, owner, until))
        .on_conflict(kept_addresses::address_canonical)
        .do_update()
        .set((owner, until))
        .execute(tx)
        .await?;
    Ok(())
}

/// Gives a user an address, verified.
async fn write(
    tx: &mut Conn,
    before: &User,
    new: &EmailAddress,
    now: Timestamp,
) -> Result<(), Fault> {
    let columns = (
        users::email.eq(new.as_str().to_owned()),
        users::email_canonical.eq(new.canonical().to_owned()),
        users::email_verified_at.eq(DbTime(now)),
        users::provisional_until.eq(None::<DbTime>),
        users::updated_at.eq(DbTime(now.max(before.updated_at))),
    );
    diesel::update(users::table.find(DbId(before.id.as_uuid())))
        .set(columns)
        .execute(tx)
        .await?;
    claim(tx, new, before.id, now).await
}

/// Letters that go with taking an account back: for setting a password, and to who loses it.
pub(super) struct Told<'a> {
    pub(super) reset: Option<&'a NewLetter>,
    pub(super) notice: Option<&'a NewLetter>,
}

pub(super) async fn disown(
    conn: &mut Conn,
    link: &SecretHash,
    told: &Told<'_>,
    by: &Occasion,
) -> StoreResult<Option<UserId>> {
    match disown_once(conn, link, told, by).await {
        // Somebody took the address while it was given back: now it is seen that they have it.
        Err(fault) if fault.taken() == Some(Taken::Email) => {
            Ok(disown_once(conn, link, told, by).await?)
        }
        disowned => Ok(disowned?),
    }
}

async fn disown_once(
    conn: &mut Conn,
    link: &SecretHash,
    told: &Told<'_>,
    by: &Occasion,
) -> Result<Option<UserId>, Fault> {
    let now = by.at;
    write_tx!(conn, async |tx| {
        let proof = Proof::Link(*link);
        let spent = secrets::spend(tx, &proof, &[Purpose::NotMe], now).await?;
        let Some(Spent {
            owner,
            address,
            caused_at,
        }) = spent
        else {
            return Ok(None);
        };
        let before = owner.user;
        let columns = (
            users::password_hash.eq(None::<String>),
            users::credential_version.eq(owner.credential_version + 1),
            users::updated_at.eq(DbTime(now.max(before.updated_at))),
        );
        diesel::update(users::table.find(DbId(before.id.as_uuid())))
            .set(columns)
            .execute(tx)
            .await?;
        let mut log = Log::new(by);
        log.add(Event::done(EventKind::AccountReclaimed).about(before.id));
        close_all(tx, before.id, None, CloseReason::Revoked, &mut log).await?;
        log.write(tx).await?;
        outbox::void_secrets_since(tx, &before, Voiding::Disowned, caused_at, now).await?;
        tell_taken_back(tx, &before, address, told, now).await?;
        Ok(Some(before.id))
    })
}

/// Gives the account the address back that the reader of a notice has, and stores the letters. Where somebody
/// else has it after all, nothing is sent anywhere: an administrator has to decide.
async fn tell_taken_back(
    tx: &mut Conn,
    before: &User,
    address: Option<EmailAddress>,
    told: &Told<'_>,
    now: Timestamp,
) -> Result<(), Fault> {
    let lost = address.filter(|address| address.canonical() != before.email.canonical());
    let mut to = before.email.clone();
    if let Some(lost) = lost {
        let is_held = secrets::user_of(tx, &lost).await?.is_some();
        if is_held || is_kept_from(tx, &lost, before.id, now).await? {
            return Ok(());
        }
        write(tx, before, &lost, now).await?;
        if let Some(notice) = told.notice {
            let letter = notice.clone().about(before.id).to(&before.email);
            outbox::insert(tx, &letter).await?;
        }
        to = lost;
    }
    if let Some(reset) = told.reset {
        let letter = reset.clone().about(before.id).to(&to);
        outbox::insert(tx, &letter).await?;
    }
    Ok(())
}
