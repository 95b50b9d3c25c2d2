//! What is over and only takes up room, removed in small batches, and the lease under which one node at a
//! time does so.
//!
//! A batch is chosen first and then deleted by one statement that repeats the condition: a row that changed
//! after it was chosen is judged once more when it is its turn.

use diesel::{
    dsl::{exists, not},
    prelude::*,
};
use diesel_async::RunQueryDsl;
use uuid::Uuid;

use super::{
    Conn, audit,
    faults::{Fault, from_diesel},
    rows::status_text,
    schema::{
        devices, kept_addresses, leases, mail_outbox, one_time_secrets, pending_registrations,
        rate_limits, sessions, users,
    },
    types::{DbId, DbNames, DbTime},
};
use crate::{
    clock::Timestamp,
    ids::UserId,
    model::{
        audit::{Event, EventKind, Occasion},
        mail::LetterState,
        session::CloseReason,
        user::Roles,
    },
    store::{Leftover, StoreResult},
};

pub(super) async fn sweep(
    conn: &mut Conn,
    what: Leftover,
    before: Timestamp,
    most: u32,
    by: &Occasion,
) -> StoreResult<u32> {
    let (before, most) = (DbTime(before), i64::from(most));
    let swept = match what {
        Leftover::Sessions => return sweep_sessions(conn, before, most, by).await,
        Leftover::OneTimeSecrets => sweep_secrets(conn, before, most).await,
        Leftover::Registrations => sweep_registrations(conn, before, most).await,
        Leftover::KeptAddresses => sweep_kept_addresses(conn, before, most).await,
        Leftover::Letters => sweep_letters(conn, before, most).await,
        Leftover::Accounts => return sweep_accounts(conn, before, most, by).await,
        Leftover::Counters => sweep_counters(conn, before, most).await,
        Leftover::Devices => sweep_devices(conn, before, most).await,
    };
    let swept = swept.map_err(from_diesel)?;
    Ok(u32::try_from(swept).unwrap_or(u32::MAX))
}

/// One that nobody presented after its time was never closed: its end is recorded now.
async fn sweep_sessions(
    conn: &mut Conn,
    before: DbTime,
    most: i64,
    by: &Occasion,
) -> StoreResult<u32> {
    let is_over = sessions::expires_at.lt(before);
    let swept: Result<usize, Fault> = write_tx!(conn, async |tx| {
        let chosen = sessions::table.filter(is_over).limit(most);
        let chosen: Vec<DbId> = chosen.select(sessions::id).load(tx).await?;
        let chosen = sessions::id.eq_any(chosen);
        let removed: Vec<(DbId, DbId, Option<DbTime>)> =
            diesel::delete(sessions::table.filter(chosen).filter(is_over))
                .returning((sessions::id, sessions::user_id, sessions::closed_at))
                .get_results(tx)
                .await?;
        let unclosed = removed.iter().filter(|(.., closed_at)| closed_at.is_none());
        let ends = unclosed.map(|(id, user, _)| {
            Event::session_ended(user.0.into(), id.0.into(), CloseReason::Expired)
        });
        let ends: Vec<Event> = ends.collect();
        audit::write(tx, by, &ends).await?;
        Ok(removed.len())
    });
    Ok(u32::try_from(swept?).unwrap_or(u32::MAX))
}

/// A letter that may be tried again makes its secret anew unless that stands here as spent, so a secret goes
/// after its letter.
async fn sweep_secrets(conn: &mut Conn, before: DbTime, most: i64) -> QueryResult<usize> {
    let is_over = one_time_secrets::expires_at.lt(before);
    let letter = mail_outbox::table.filter(mail_outbox::id.eq(one_time_secrets::id));
    let chosen = one_time_secrets::table
        .filter(is_over)
        .filter(not(exists(letter)))
        .limit(most);
    let chosen: Vec<DbId> = chosen.select(one_time_secrets::id).load(conn).await?;
    let chosen = one_time_secrets::id.eq_any(chosen);
    diesel::delete(one_time_secrets::table.filter(chosen).filter(is_over))
        .execute(conn)
        .await
}

async fn sweep_registrations(conn: &mut Conn, before: DbTime, most: i64) -> QueryResult<usize> {
    let is_over = pending_registrations::expires_at.lt(before);
    let chosen = pending_registrations::table.filter(is_over).limit(most);
    let chosen: Vec<DbId> = chosen.select(pending_registrations::id).load(conn).await?;
    let chosen = pending_registrations::id.eq_any(chosen);
    diesel::delete(pending_registrations::table.filter(chosen).filter(is_over))
        .execute(conn)
        .await
}

async fn sweep_kept_addresses(conn: &mut Conn, before: DbTime, most: i64) -> QueryResult<usize> {
    let is_over = kept_addresses::kept_until.lt(before);
    let chosen = kept_addresses::table.filter(is_over).limit(most);
    let chosen: Vec<String> = chosen
        .select(kept_addresses::address_canonical)
        .load(conn)
        .await?;
    let chosen = kept_addresses::address_canonical.eq_any(chosen);
    diesel::delete(kept_addresses::table.filter(chosen).filter(is_over))
        .execute(conn)
        .await
}

async fn sweep_letters(conn: &mut Conn, before: DbTime, most: i64) -> QueryResult<usize> {
    let is_over = mail_outbox::settled_at
        .lt(before)
        .and(mail_outbox::state.ne(LetterState::Waiting.as_str()));
    let chosen = mail_outbox::table.filter(is_over).limit(most);
    let chosen: Vec<DbId> = chosen.select(mail_outbox::id).load(conn).await?;
    let chosen = mail_outbox::id.eq_any(chosen);
    diesel::delete(mail_outbox::table.filter(chosen).filter(is_over))
        .execute(conn)
        .await
}

/// What belongs to the account goes with it, the key of its audit details as well.
async fn sweep_accounts(
    conn: &mut Conn,
    before: DbTime,
    most: i64,
    by: &Occasion,
) -> StoreResult<u32> {
    let is_over = || {
        users::provisional_until
            .lt(before)
            .and(users::email_verified_at.is_null())
            .and(users::status.eq(status_text(true)))
            .and(users::roles.eq(DbNames::from(&Roles::default())))
    };
    let swept: Result<usize, Fault> = write_tx!(conn, async |tx| {
        let chosen = users::table.filter(is_over()).limit(most);
        let chosen: Vec<DbId> = chosen.select(users::id).load(tx).await?;
        let chosen = users::id.eq_any(chosen);
        let removed: Vec<DbId> = diesel::delete(users::table.filter(chosen).filter(is_over()))
            .returning(users::id)
            .get_results(tx)
            .await?;
        let removals = removed.iter().map(|id| id.0.into());
        let removals = removals.map(|id: UserId| Event::done(EventKind::AccountRemoved).about(id));
        let removals: Vec<Event> = removals.collect();
        audit::write(tx, by, &removals).await?;
        audit::forget(tx, &removed).await?;
        Ok(removed.len())
    });
    Ok(u32::try_from(swept?).unwrap_or(u32::MAX))
}

async fn sweep_counters(conn: &mut Conn, before: DbTime, most: i64) -> QueryResult<usize> {
    let is_over = rate_limits::expires_at.lt(before);
    let chosen = rate_limits::table.filter(is_over).limit(most);
    let chosen: Vec<Vec<u8>> = chosen.select(rate_limits::key_hash).load(conn).await?;
    let chosen = rate_limits::key_hash.eq_any(chosen);
    diesel::delete(rate_limits::table.filter(chosen).filter(is_over))
        .execute(conn)
        .await
}

async fn sweep_devices(conn: &mut Conn, before: DbTime, most: i64) -> QueryResult<usize> {
    let is_over = devices::expires_at.lt(before);
    let chosen = devices::table.filter(is_over).limit(most);
    let chosen: Vec<Vec<u8>> = chosen.select(devices::secret_hash).load(conn).await?;
    let chosen = devices::secret_hash.eq_any(chosen);
    diesel::delete(devices::table.filter(chosen).filter(is_over))
        .execute(conn)
        .await
}

pub(super) async fn take_lease(
    conn: &mut Conn,
    name: &str,
    holder: Uuid,
    until: Timestamp,
    now: Timestamp,
) -> StoreResult<bool> {
    let columns = (
        leases::holder.eq(DbId(holder)),
        leases::held_until.eq(DbTime(until)),
    );
    let is_mine_or_over = leases::holder
        .eq(DbId(holder))
        .or(leases::held_until.le(DbTime(now)));
    let taken = diesel::insert_into(leases::table)
        .values((leases::name.eq(name), columns))
        .on_conflict(leases::name)
        .do_update()
        .set(columns);
    // By its full name: in scope it would stand in the way of every other `filter`.
    let taken = diesel::query_dsl::methods::FilterDsl::filter(taken, is_mine_or_over);
    Ok(taken.execute(conn).await.map_err(from_diesel)? > 0)
}
