//! One-time secrets: spent on conditions that are part of the statement, voided, and their wrong tries
//! counted.
//!
//! Everything here runs inside a transaction that holds the row of the secret's user, which is taken before
//! the secret's own, always.

use diesel::prelude::*;
use diesel_async::RunQueryDsl;

use super::{
    Conn,
    faults::Fault,
    lock_user,
    rows::{SecretRow, UserRow},
    schema::{one_time_secrets, users},
    types::{DbId, DbTime},
};
use crate::{
    clock::Timestamp,
    email::EmailAddress,
    ids::UserId,
    model::{
        mail::{CODE_TRIES, NewLetter, TRIES_REMEMBERED},
        token::{CodeOwner, Proof, Purpose},
        user::{User, UserCredentials},
    },
};

/// A secret that has just been spent, with its user, whose row is held.
pub(super) struct Spent {
    pub(super) owner: UserCredentials,
    /// Where it was mailed to, if it was.
    pub(super) address: Option<EmailAddress>,
    /// When its letter was caused.
    pub(super) caused_at: Timestamp,
}

/// A secret that could be spent now, with its user, whose row is held.
pub(super) struct Good {
    pub(super) owner: UserCredentials,
    secret: SecretRow,
    address: Option<EmailAddress>,
}

/// Spends the secret that is shown, if it is of one of these purposes; the first one is that of codes.
/// `None` after a wrong code was counted, which the caller has to commit.
pub(super) async fn spend(
    tx: &mut Conn,
    proof: &Proof,
    purposes: &[Purpose],
    now: Timestamp,
) -> Result<Option<Spent>, Fault> {
    let Some(good) = judge(tx, proof, purposes, now).await? else {
        return Ok(None);
    };
    let open = one_time_secrets::table
        .find(good.secret.id)
        .filter(one_time_secrets::used_at.is_null())
        .filter(one_time_secrets::expires_at.gt(DbTime(now)));
    let columns = (
        one_time_secrets::used_at.eq(DbTime(now)),
        one_time_secrets::tries.eq(0),
        one_time_secrets::tries_since.eq(None::<DbTime>),
    );
    let spent = diesel::update(open).set(columns).execute(tx).await?;
    Ok((spent == 1).then_some(Spent {
        owner: good.owner,
        address: good.address,
        caused_at: good.secret.created_at.0,
    }))
}

/// Whether the secret that is shown could be spent. `None` after a wrong code was counted, which the caller has
/// to commit.
pub(super) async fn judge(
    tx: &mut Conn,
    proof: &Proof,
    purposes: &[Purpose],
    now: Timestamp,
) -> Result<Option<Good>, Fault> {
    let Some(owner) = owner_of(tx, proof, purposes, now).await? else {
        return Ok(None);
    };
    let Some(locked) = lock_user(tx, owner).await? else {
        return Ok(None);
    };
    let owner = locked.parse()?;
    if !owner.user.is_active() || !is_still_named(proof, &owner.user) {
        return Ok(None);
    }
    let found = match proof {
        Proof::Link(_) => by_link(tx, proof, purposes, now).await?,
        Proof::Code { .. } => by_code(tx, proof, owner.user.id, purposes[0], now).await?,
    };
    let Some(secret) = found else {
        return Ok(None);
    };
    let address = secret.address()?;
    if secret.is_bound_to_address()? && !is_address_of(address.as_ref(), &owner.user) {
        return Ok(None);
    }
    Ok(Some(Good {
        owner,
        secret,
        address,
    }))
}

/// Whose secret it would be; judged again once that user's row is held.
async fn owner_of(
    tx: &mut Conn,
    proof: &Proof,
    purposes: &[Purpose],
    now: Timestamp,
) -> Result<Option<UserId>, Fault> {
    match proof {
        Proof::Link(_) => {
            let secret = by_link(tx, proof, purposes, now).await?;
            Ok(secret.map(|secret| secret.user_id.0.into()))
        }
        Proof::Code { owner, .. } => match owner {
            CodeOwner::User(id) => Ok(Some(*id)),
            CodeOwner::Address(address) => Ok(user_of(tx, address).await?.map(|user| user.id)),
        },
    }
}

/// The user who has this address.
pub(super) async fn user_of(tx: &mut Conn, address: &EmailAddress) -> Result<Option<User>, Fault> {
    let row = users::table
        .filter(users::email_canonical.eq(address.canonical()))
        .select(UserRow::as_select());
    let row = row.first(tx).await.optional()?;
    Ok(row.map(UserRow::parse).transpose()?)
}

/// An address may have gone to somebody else before the row of the user was held.
fn is_still_named(proof: &Proof, user: &User) -> bool {
    match proof {
        Proof::Code {
            owner: CodeOwner::Address(address),
            ..
        } => is_address_of(Some(address), user),
        _ => true,
    }
}

fn is_address_of(address: Option<&EmailAddress>, user: &User) -> bool {
    address.is_some_and(|address| address.canonical() == user.email.canonical())
}

async fn by_link(
    tx: &mut Conn,
    proof: &Proof,
    purposes: &[Purpose],
    now: Timestamp,
) -> Result<Option<SecretRow>, Fault> {
    let Proof::Link(hash) = proof else {
        return Ok(None);
    };
    let names = purposes.iter().map(|purpose| purpose.as_str());
    let presented = one_time_secrets::table
        .filter(one_time_secrets::secret_hash.eq(hash.as_bytes().to_vec()))
        .filter(one_time_secrets::purpose.eq_any(names))
        .filter(one_time_secrets::used_at.is_null())
        .filter(one_time_secrets::expires_at.gt(DbTime(now)));
    let row = presented.select(SecretRow::as_select()).first(tx).await;
    Ok(row.optional()?)
}

/// The newest secret of the purpose, if the code is the right one; a wrong one is counted.
async fn by_code(
    tx: &mut Conn,
    proof: &Proof,
    owner: UserId,
    purpose: Purpose,
    now: Timestamp,
) -> Result<Option<SecretRow>, Fault> {
    let Some(newest) = newest(tx, owner, purpose).await? else {
        return Ok(None);
    };
    if newest.used_at.is_some() || newest.tries >= CODE_TRIES {
        return Ok(None);
    }
    let is_live = newest.expires_at.0 > now && newest.code_expires_at.is_some_and(|at| at.0 > now);
    if is_live && proof.is_code(newest.code()?) {
        return Ok(Some(newest));
    }
    let (tries, since) = one_more(newest.tries, newest.tries_since, now);
    let columns = (
        one_time_secrets::tries.eq(tries),
        one_time_secrets::tries_since.eq(since),
    );
    diesel::update(one_time_secrets::table.find(newest.id))
        .set(columns)
        .execute(tx)
        .await?;
    Ok(None)
}

/// How many tries there were once this one is counted, and since when. They are forgotten only by a new
/// letter, or one code would have more than its five.
pub(super) fn one_more(tries: i32, since: Option<DbTime>, now: Timestamp) -> (i32, Option<DbTime>) {
    (tries + 1, since.or(Some(DbTime(now))))
}

/// Whether tries that began then still count.
pub(super) fn is_remembered(since: DbTime, now: Timestamp) -> bool {
    since.0 > now.minus(TRIES_REMEMBERED)
}

/// The secret of a user and purpose that came last, spent or not.
pub(super) async fn newest(
    tx: &mut Conn,
    owner: UserId,
    purpose: Purpose,
) -> Result<Option<SecretRow>, Fault> {
    let newest_first = one_time_secrets::table
        .filter(one_time_secrets::user_id.eq(DbId(owner.as_uuid())))
        .filter(one_time_secrets::purpose.eq(purpose.as_str()))
        .order((
            one_time_secrets::created_at.desc(),
            one_time_secrets::id.desc(),
        ));
    let row = newest_first.select(SecretRow::as_select()).first(tx).await;
    Ok(row.optional()?)
}

/// Voids the open secrets of a user and purpose that came before this letter's, so that they go whatever
/// becomes of the letter.
pub(super) async fn void_older(
    tx: &mut Conn,
    owner: UserId,
    purpose: Purpose,
    letter: &NewLetter,
    now: Timestamp,
) -> Result<(), Fault> {
    let id = DbId(letter.id.as_uuid());
    let at = DbTime(letter.created_at);
    let before = one_time_secrets::created_at
        .lt(at)
        .or(one_time_secrets::created_at
            .eq(at)
            .and(one_time_secrets::id.lt(id)));
    let open = one_time_secrets::table
        .filter(one_time_secrets::user_id.eq(DbId(owner.as_uuid())))
        .filter(one_time_secrets::purpose.eq(purpose.as_str()))
        .filter(one_time_secrets::used_at.is_null())
        .filter(before);
    diesel::update(open)
        .set(one_time_secrets::used_at.eq(DbTime(now)))
        .execute(tx)
        .await?;
    Ok(())
}

/// Voids a user's open secrets of these purposes whose letters were caused since then.
pub(super) async fn void(
    tx: &mut Conn,
    owner: UserId,
    purposes: &[Purpose],
    since: Timestamp,
    now: Timestamp,
) -> Result<(), Fault> {
    let names = purposes.iter().map(|purpose| purpose.as_str());
    let open = one_time_secrets::table
        .filter(one_time_secrets::user_id.eq(DbId(owner.as_uuid())))
        .filter(one_time_secrets::purpose.eq_any(names))
        .filter(one_time_secrets::created_at.ge(DbTime(since)))
        .filter(one_time_secrets::used_at.is_null());
    diesel::update(open)
        .set(one_time_secrets::used_at.eq(DbTime(now)))
        .execute(tx)
        .await?;
    Ok(())
}
