//! Registrations that wait for their address, and what makes accounts of them.
//!
//! Nobody's row can be held for an account that does not exist yet: all registrations of an address are
//! held instead, oldest first.

use diesel::prelude::*;
use diesel_async::RunQueryDsl;

use super::{
    Conn,
    addresses::claim,
    audit,
    faults::{Fault, Taken},
    hold_registrations, outbox,
    rows::{NewRegistrationRow, NewUserRow, RegistrationRow},
    schema::{pending_registrations, users},
    secrets,
    types::{DbId, DbTime},
};
use crate::{
    clock::Timestamp,
    email::EmailAddress,
    ids::{RegistrationId, UserId},
    model::{
        account::{NewRegistration, WaitingRegistration},
        audit::{Event, EventKind, Occasion},
        mail::{CODE_TRIES, CODE_TTL, LetterKind, NewLetter, TRIES_REMEMBERED},
        token::{CodeOwner, Proof, Purpose},
    },
    store::{ConfirmRegistration, PrepareLetter, Prepared, ReadyLetter, StoreResult},
};

pub(super) async fn add(
    conn: &mut Conn,
    registration: &NewRegistration,
    letter: &NewLetter,
    by: &Occasion,
) -> StoreResult<()> {
    let added: Result<(), Fault> = write_tx!(conn, async |tx| {
        diesel::insert_into(pending_registrations::table)
            .values(NewRegistrationRow::from(registration))
            .execute(tx)
            .await?;
        outbox::insert(tx, letter).await?;
        let requested = Event::done(EventKind::RegistrationRequested);
        audit::write(tx, by, &[requested]).await
    });
    Ok(added?)
}

pub(super) async fn waiting(
    conn: &mut Conn,
    proof: &Proof,
    now: Timestamp,
) -> StoreResult<Option<WaitingRegistration>> {
    let found = named(conn, proof, now).await;
    Ok(found?.map(|row| row.waiting()))
}

/// The registration that a link names, or the newest one of an address.
async fn named(
    conn: &mut Conn,
    proof: &Proof,
    now: Timestamp,
) -> Result<Option<RegistrationRow>, Fault> {
    match proof {
        Proof::Link(hash) => {
            let named = pending_registrations::table
                .filter(pending_registrations::link_hash.eq(hash.as_bytes().to_vec()))
                .filter(pending_registrations::link_expires_at.gt(DbTime(now)))
                .filter(pending_registrations::expires_at.gt(DbTime(now)));
            let row = named.select(RegistrationRow::as_select()).first(conn).await;
            Ok(row.optional()?)
        }
        Proof::Code {
            owner: CodeOwner::Address(address),
            ..
        } => newest(conn, address, now).await,
        Proof::Code { .. } => Ok(None),
    }
}

async fn newest(
    conn: &mut Conn,
    address: &EmailAddress,
    now: Timestamp,
) -> Result<Option<RegistrationRow>, Fault> {
    let newest_first = pending_registrations::table
        .filter(pending_registrations::email_canonical.eq(address.canonical()))
        .filter(pending_registrations::expires_at.gt(DbTime(now)))
        .order((
            pending_registrations::created_at.desc(),
            pending_registrations::id.desc(),
        ));
    let row = newest_first
        .select(RegistrationRow::as_select())
        .first(conn)
        .await;
    Ok(row.optional()?)
}

pub(super) async fn confirm(
    conn: &mut Conn,
    proof: &Proof,
    expected: Option<RegistrationId>,
    user: UserId,
    by: &Occasion,
) -> StoreResult<ConfirmRegistration> {
    let now = by.at;
    let made: Result<ConfirmRegistration, Fault> = write_tx!(conn, async |tx| {
        let Some(asked) = named(tx, proof, now).await? else {
            return Ok(ConfirmRegistration::Refused);
        };
        let address = asked.address()?;
        hold_registrations(tx, &address).await?;
        // As it is now that nobody else can change it.
        let Some(row) = named(tx, proof, now).await? else {
            return Ok(ConfirmRegistration::Refused);
        };
        let is_expected = expected.is_some_and(|id| id.as_uuid() == row.id.0);
        if !is_right(tx, proof, &row, is_expected, now).await? {
            return Ok(ConfirmRegistration::Refused);
        }
        let account = row.account(user, now)?;
        diesel::insert_into(users::table)
            .values(NewUserRow::from(&account))
            .execute(tx)
            .await?;
        claim(tx, &address, user, now).await?;
        let all = pending_registrations::table
            .filter(pending_registrations::email_canonical.eq(address.canonical()));
        diesel::delete(all).execute(tx).await?;
        audit::begin(tx, by, user).await?;
        audit::write(tx, by, &[Event::account_created(&account)]).await?;
        Ok(ConfirmRegistration::Created(Box::new(account.user)))
    });
    match made {
        Err(fault) => match fault.taken() {
            Some(Taken::Email) => Ok(ConfirmRegistration::EmailTaken),
            Some(Taken::Username) => Ok(ConfirmRegistration::UsernameTaken),
            None => Err(fault.into()),
        },
        Ok(outcome) => Ok(outcome),
    }
}

/// Whether what was shown is right; a wrong code is counted.
async fn is_right(
    tx: &mut Conn,
    proof: &Proof,
    row: &RegistrationRow,
    is_expected: bool,
    now: Timestamp,
) -> Result<bool, Fault> {
    if matches!(proof, Proof::Link(_)) {
        return Ok(is_expected);
    }
    if row.tries >= CODE_TRIES {
        return Ok(false);
    }
    let is_live = row.code_expires_at.is_some_and(|at| at.0 > now);
    if is_expected && is_live && proof.is_code(row.code()?) {
        return Ok(true);
    }
    let (tries, since) = secrets::one_more(row.tries, row.tries_since, now);
    let columns = (
        pending_registrations::tries.eq(tries),
        pending_registrations::tries_since.eq(since),
    );
    diesel::update(pending_registrations::table.find(row.id))
        .set(columns)
        .execute(tx)
        .await?;
    Ok(false)
}

/// The letter of a registration, or, where somebody has the address by now, a letter to them.
pub(super) async fn prepare(
    tx: &mut Conn,
    asked: &PrepareLetter,
    letter: &NewLetter,
    now: Timestamp,
) -> Result<Prepared, Fault> {
    let Some(to) = &letter.to else {
        return Ok(Prepared::Obsolete(OVER));
    };
    if let Some(owner) = secrets::user_of(tx, to).await? {
        // An account that is younger than the letter is the one that it was for.
        return Ok(if owner.created_at >= letter.created_at {
            Prepared::Obsolete(OVER)
        } else {
            outbox::taken(to, owner)
        });
    }
    hold_registrations(tx, to).await?;
    let Some(id) = letter.registration_id else {
        return Ok(Prepared::Obsolete(OVER));
    };
    let row = pending_registrations::table
        .find(DbId(id.as_uuid()))
        .filter(pending_registrations::expires_at.gt(DbTime(now)))
        .select(RegistrationRow::as_select());
    let row = row.first(tx).await.optional()?;
    with_secret(tx, asked, to, row, now).await
}

/// A letter that was asked for once more, for the newest registration of an address.
pub(super) async fn prepare_newest(
    tx: &mut Conn,
    asked: &PrepareLetter,
    to: &EmailAddress,
    now: Timestamp,
) -> Result<Prepared, Fault> {
    hold_registrations(tx, to).await?;
    let row = newest(tx, to, now).await?;
    with_secret(tx, asked, to, row, now).await
}

const OVER: &str = "the registration is over";

async fn with_secret(
    tx: &mut Conn,
    asked: &PrepareLetter,
    to: &EmailAddress,
    row: Option<RegistrationRow>,
    now: Timestamp,
) -> Result<Prepared, Fault> {
    let Some(row) = row else {
        return Ok(Prepared::Obsolete(OVER));
    };
    let (tries, since) = inherited_tries(tx, to, now).await?;
    let code = asked.code.filter(|_| tries < CODE_TRIES);
    let link_expires_at = now.plus(Purpose::ConfirmRegistration.link_ttl());
    let columns = (
        pending_registrations::link_hash.eq(asked.link.as_bytes().to_vec()),
        pending_registrations::link_expires_at.eq(DbTime(link_expires_at.min(row.expires_at.0))),
        pending_registrations::code_hash.eq(code.map(|hash| hash.as_bytes().to_vec())),
        pending_registrations::code_expires_at.eq(code.map(|_| DbTime(now.plus(CODE_TTL)))),
        pending_registrations::tries.eq(tries),
        pending_registrations::tries_since.eq(since),
    );
    diesel::update(pending_registrations::table.find(row.id))
        .set(columns)
        .execute(tx)
        .await?;
    Ok(Prepared::Ready(Box::new(ReadyLetter {
        kind: LetterKind::ConfirmRegistration,
        to: to.clone(),
        user: None,
        has_code: code.is_some(),
    })))
}

/// The wrong tries for an address that are remembered: the most that one of its registrations has, for a
/// new one could otherwise be tried before it takes over what there is.
async fn inherited_tries(
    tx: &mut Conn,
    to: &EmailAddress,
    now: Timestamp,
) -> Result<(i32, Option<DbTime>), Fault> {
    let remembered = pending_registrations::table
        .filter(pending_registrations::email_canonical.eq(to.canonical()))
        .filter(pending_registrations::tries_since.gt(DbTime(now.minus(TRIES_REMEMBERED))))
        .order(pending_registrations::tries.desc())
        .select((
            pending_registrations::tries,
            pending_registrations::tries_since,
        ));
    let most = remembered.first(tx).await.optional()?;
    Ok(most.unwrap_or((0, None)))
}
