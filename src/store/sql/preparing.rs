//! What a letter needs right before it is sent: its recipient, as things stand now, and its secret.
//!
//! Holds the row of the letter's user, as everything does that voids secrets; one that is about nobody yet is
//! for [`super::registrations`].

use diesel::prelude::*;
use diesel_async::RunQueryDsl;

use super::{
    Conn,
    faults::Fault,
    lock_user,
    outbox::{DEACTIVATED, taken},
    registrations,
    rows::{LetterRow, NewSecretRow},
    schema::{mail_outbox, one_time_secrets},
    secrets,
    types::{DbId, DbTime},
};
use crate::{
    clock::Timestamp,
    email::EmailAddress,
    ids::UserId,
    model::{
        mail::{CODE_TRIES, CODE_TTL, LetterKind, LetterState, NewLetter},
        token::Purpose,
        user::{User, UserCredentials},
    },
    store::{PrepareLetter, Prepared, ReadyLetter, StoreResult},
};

pub(super) async fn prepare(
    conn: &mut Conn,
    asked: &PrepareLetter,
    now: Timestamp,
) -> StoreResult<Prepared> {
    let prepared: Result<Prepared, Fault> = write_tx!(conn, async |tx| {
        let Some(letter) = claimed(tx, asked).await? else {
            return Ok(Prepared::Lost);
        };
        match letter.kind {
            LetterKind::VerifyEmail | LetterKind::ResetPassword | LetterKind::Invitation => {
                to_own_address(tx, asked, &letter, now).await
            }
            LetterKind::ConfirmRegistration | LetterKind::AddressTaken => {
                registrations::prepare(tx, asked, &letter, now).await
            }
            LetterKind::ConfirmNewEmail => to_new_address(tx, asked, &letter, now).await,
            LetterKind::EmailChanged
            | LetterKind::PasswordChanged
            | LetterKind::RefreshReused
            | LetterKind::NewDevice => notice(tx, asked, &letter, now).await,
        }
    });
    Ok(prepared?)
}

/// The letter, if it is still waiting under this claim.
async fn claimed(tx: &mut Conn, asked: &PrepareLetter) -> Result<Option<NewLetter>, Fault> {
    let row = mail_outbox::table
        .find(DbId(asked.id.as_uuid()))
        .filter(mail_outbox::fence.eq(asked.fence))
        .filter(mail_outbox::state.eq(LetterState::Waiting.as_str()))
        .select(LetterRow::as_select());
    let row = row.first(tx).await.optional()?;
    Ok(row
        .map(LetterRow::parse)
        .transpose()?
        .map(|letter| letter.new))
}

/// Holds the row of the letter's user, and makes sure that the letter was not dropped meanwhile by
/// something that held it before.
async fn held(
    tx: &mut Conn,
    asked: &PrepareLetter,
    user: UserId,
) -> Result<Result<UserCredentials, Prepared>, Fault> {
    let Some(row) = lock_user(tx, user).await? else {
        return Ok(Err(Prepared::Obsolete(NOBODY)));
    };
    if claimed(tx, asked).await?.is_none() {
        return Ok(Err(Prepared::Lost));
    }
    let owner = row.parse()?;
    if !owner.user.is_active() {
        return Ok(Err(Prepared::Obsolete(DEACTIVATED)));
    }
    Ok(Ok(owner))
}

const NOBODY: &str = "nobody has the address";

/// A letter to the address that its user has.
async fn to_own_address(
    tx: &mut Conn,
    asked: &PrepareLetter,
    letter: &NewLetter,
    now: Timestamp,
) -> Result<Prepared, Fault> {
    let user = match (letter.user_id, &letter.to) {
        (Some(user), _) => user,
        (None, None) => return Ok(Prepared::Obsolete(NOBODY)),
        (None, Some(to)) => match (secrets::user_of(tx, to).await?, letter.kind) {
            (Some(user), _) => user.id,
            (None, LetterKind::VerifyEmail) => {
                return registrations::prepare_newest(tx, asked, to, now).await;
            }
            (None, _) => return Ok(Prepared::Obsolete(NOBODY)),
        },
    };
    let owner = match held(tx, asked, user).await? {
        Ok(owner) => owner,
        Err(over) => return Ok(over),
    };
    let to = letter.to.as_ref().unwrap_or(&owner.user.email).clone();
    if owner.user.email.canonical() != to.canonical() {
        return Ok(Prepared::Obsolete(NOBODY));
    }
    match letter.kind {
        LetterKind::VerifyEmail if owner.user.email_verified_at.is_some() => {
            return Ok(Prepared::Obsolete("the address is verified already"));
        }
        LetterKind::Invitation if owner.password_hash.is_some() => {
            return Ok(Prepared::Obsolete("the password is set already"));
        }
        _ => {}
    }
    with_secret(tx, asked, letter, &to, owner.user, now).await
}

/// A letter to the address that its user wants to have.
async fn to_new_address(
    tx: &mut Conn,
    asked: &PrepareLetter,
    letter: &NewLetter,
    now: Timestamp,
) -> Result<Prepared, Fault> {
    let (Some(to), Some(user)) = (&letter.to, letter.user_id) else {
        return Ok(Prepared::Obsolete(NOBODY));
    };
    let owner = match held(tx, asked, user).await? {
        Ok(owner) => owner,
        Err(over) => return Ok(over),
    };
    if letter.credential_version != Some(owner.credential_version) {
        return Ok(Prepared::Obsolete("the password was changed since"));
    }
    // Whether somebody has the address must not show in what becomes of earlier codes.
    secrets::void_older(tx, user, Purpose::ChangeEmail, letter, now).await?;
    match secrets::user_of(tx, to).await? {
        Some(other) if other.id != user => Ok(taken(to, other)),
        Some(_) if owner.user.email_verified_at.is_some() && owner.user.email == *to => {
            Ok(Prepared::Obsolete("the account has the address already"))
        }
        _ => with_secret(tx, asked, letter, to, owner.user, now).await,
    }
}

async fn notice(
    tx: &mut Conn,
    asked: &PrepareLetter,
    letter: &NewLetter,
    now: Timestamp,
) -> Result<Prepared, Fault> {
    let Some(user) = letter.user_id else {
        return Ok(Prepared::Obsolete(NOBODY));
    };
    let owner = match held(tx, asked, user).await? {
        Ok(owner) => owner,
        Err(over) => return Ok(over),
    };
    let to = letter.to.as_ref().unwrap_or(&owner.user.email).clone();
    with_secret(tx, asked, letter, &to, owner.user, now).await
}

/// Stores the secret of a letter whose user's row is held: once more if an earlier attempt did so, in the
/// place of older ones of its purpose.
async fn with_secret(
    tx: &mut Conn,
    asked: &PrepareLetter,
    letter: &NewLetter,
    to: &EmailAddress,
    owner: User,
    now: Timestamp,
) -> Result<Prepared, Fault> {
    let Some(purpose) = letter.purpose() else {
        return Ok(Prepared::Ready(Box::new(ReadyLetter {
            kind: letter.kind,
            to: to.clone(),
            user: Some(owner),
            has_code: false,
        })));
    };
    let id = DbId(letter.id.as_uuid());
    let before = one_time_secrets::table
        .find(id)
        .select(one_time_secrets::used_at);
    let before = before.first::<Option<DbTime>>(tx).await.optional()?;
    if before.flatten().is_some() {
        return Ok(Prepared::Obsolete("its secret was used or voided"));
    }
    let (mut tries, mut tries_since) = (0, None);
    if purpose != Purpose::NotMe
        && let Some(newest) = secrets::newest(tx, owner.id, purpose).await?
    {
        let is_newer = (newest.created_at.0, newest.id.0) > (letter.created_at, id.0);
        // One that is over takes nobody's place: of two nodes' letters the later may be dated earlier.
        if is_newer && newest.used_at.is_none() {
            return Ok(Prepared::Obsolete("a newer letter has taken its place"));
        }
        if newest
            .tries_since
            .is_some_and(|since| secrets::is_remembered(since, now))
        {
            (tries, tries_since) = (newest.tries, newest.tries_since);
        }
    }
    diesel::delete(one_time_secrets::table.find(id))
        .execute(tx)
        .await?;
    if purpose != Purpose::NotMe {
        secrets::void(tx, owner.id, &[purpose], Timestamp::EPOCH, now).await?;
    }
    let code = asked
        .code
        .filter(|_| purpose.has_code() && tries < CODE_TRIES);
    let row = NewSecretRow::mailed(letter, purpose, owner.id, asked.link, to, now).with_code(
        code,
        now.plus(CODE_TTL),
        tries,
        tries_since,
    );
    diesel::insert_into(one_time_secrets::table)
        .values(row)
        .execute(tx)
        .await?;
    Ok(Prepared::Ready(Box::new(ReadyLetter {
        kind: letter.kind,
        to: to.clone(),
        user: Some(owner),
        has_code: code.is_some(),
    })))
}
