//! Limits and devices: counters that are judged by the model and replaced only if they are still as judged.
//!
//! A counter is read without a lock. What it refuses is refused without a write; what it admits is written
//! on the condition that nobody was faster, so nobody waits for a row longer than one such write takes.

use diesel::prelude::*;
use diesel_async::RunQueryDsl;

use super::{
    Conn, audit,
    faults::{Fault, from_diesel},
    lock_user,
    schema::{devices, rate_limits},
    types::{DbId, DbTime},
};
use crate::{
    clock::Timestamp,
    ids::UserId,
    model::{
        audit::{Event, EventKind, Occasion},
        device::NewDevice,
        quota::{Counter, Draw},
        token::SecretHash,
    },
    store::{StoreError, StoreResult, Take},
};

/// Each time somebody else was faster, and admitted: with so many at once it is time to let go.
const TRIES: u32 = 256;

#[derive(Queryable, Selectable)]
#[diesel(table_name = rate_limits)]
pub(super) struct CounterRow {
    tat: DbTime,
    failures: i32,
    blocked_until: DbTime,
    expires_at: DbTime,
}

impl CounterRow {
    /// A negative number of failures, which only a hand can have written, is none.
    fn counter(&self) -> Counter {
        Counter {
            tat: self.tat.0,
            failures: u32::try_from(self.failures).unwrap_or_default(),
            blocked_until: self.blocked_until.0,
            expires_at: self.expires_at.0,
        }
    }
}

fn bytes(hash: &SecretHash) -> Vec<u8> {
    hash.as_bytes().to_vec()
}

fn whole(failures: u32) -> i32 {
    i32::try_from(failures).unwrap_or(i32::MAX)
}

pub(super) async fn read(conn: &mut Conn, key: &SecretHash) -> StoreResult<Option<Counter>> {
    let row = rate_limits::table.find(bytes(key));
    let row = row.select(CounterRow::as_select());
    let row = row.first(conn).await.optional().map_err(from_diesel)?;
    Ok(row.map(|row| row.counter()))
}

/// `seen` is the counter as just read.
pub(super) async fn take(
    conn: &mut Conn,
    draw: &Draw,
    mut seen: Option<Counter>,
    now: Timestamp,
) -> StoreResult<Take> {
    for _ in 0..TRIES {
        let next = match draw.judge(seen.as_ref(), now) {
            Ok(next) => next,
            Err(refusal) => return Ok(Take::Refused(refusal)),
        };
        let written = match &seen {
            Some(before) => replace(conn, draw, before, &next).await,
            None => insert(conn, draw, &next).await,
        };
        if written.map_err(from_diesel)? == 1 {
            return Ok(Take::Admitted);
        }
        seen = read(conn, &draw.key).await?;
    }
    let what = "too many count the same thing at once";
    Err(StoreError::Unavailable(what.into()))
}

async fn insert(conn: &mut Conn, draw: &Draw, next: &Counter) -> QueryResult<usize> {
    let row = (
        rate_limits::key_hash.eq(bytes(&draw.key)),
        rate_limits::account_hash.eq(draw.account.as_ref().map(bytes)),
        rate_limits::tat.eq(DbTime(next.tat)),
        rate_limits::failures.eq(whole(next.failures)),
        rate_limits::blocked_until.eq(DbTime(next.blocked_until)),
        rate_limits::expires_at.eq(DbTime(next.expires_at)),
    );
    let insert = diesel::insert_into(rate_limits::table).values(row);
    insert.on_conflict_do_nothing().execute(conn).await
}

async fn replace(
    conn: &mut Conn,
    draw: &Draw,
    before: &Counter,
    next: &Counter,
) -> QueryResult<usize> {
    let same = rate_limits::table
        .find(bytes(&draw.key))
        .filter(rate_limits::tat.eq(DbTime(before.tat)))
        .filter(rate_limits::failures.eq(whole(before.failures)))
        .filter(rate_limits::blocked_until.eq(DbTime(before.blocked_until)));
    let columns = (
        rate_limits::account_hash.eq(draw.account.as_ref().map(bytes)),
        rate_limits::tat.eq(DbTime(next.tat)),
        rate_limits::failures.eq(whole(next.failures)),
        rate_limits::blocked_until.eq(DbTime(next.blocked_until)),
        rate_limits::expires_at.eq(DbTime(next.expires_at)),
    );
    diesel::update(same).set(columns).execute(conn).await
}

pub(super) async fn clear(conn: &mut Conn, keys: &[SecretHash]) -> StoreResult<()> {
    let keys: Vec<_> = keys.iter().map(bytes).collect();
    let cleared = diesel::delete(rate_limits::table.filter(rate_limits::key_hash.eq_any(keys)));
    cleared.execute(conn).await.map(drop).map_err(from_diesel)
}

pub(super) async fn clear_account(
    conn: &mut Conn,
    account: &SecretHash,
    whose: UserId,
    by: &Occasion,
) -> StoreResult<()> {
    let cleared: Result<(), Fault> = write_tx!(conn, async |tx| {
        let theirs = rate_limits::account_hash.eq(bytes(account));
        let theirs = rate_limits::table.filter(theirs);
        diesel::delete(theirs).execute(tx).await?;
        let unlocked = Event::done(EventKind::AccountUnlocked).about(whose);
        audit::write(tx, by, &[unlocked]).await
    });
    Ok(cleared?)
}

pub(super) async fn add_device(conn: &mut Conn, new: &NewDevice, most: u32) -> StoreResult<()> {
    let added: Result<(), Fault> = write_tx!(conn, async |tx| {
        // Adds of one user come one by one, so that none leaves more than there may be.
        if lock_user(tx, new.user_id).await?.is_none() {
            return Ok(());
        }
        let user = DbId(new.user_id.as_uuid());
        let row = (
            devices::secret_hash.eq(bytes(&new.hash)),
            devices::user_id.eq(user),
            devices::created_at.eq(DbTime(new.created_at)),
            devices::last_used_at.eq(DbTime(new.created_at)),
            devices::expires_at.eq(DbTime(new.expires_at)),
        );
        let insert = diesel::insert_into(devices::table).values(row);
        insert.execute(tx).await?;
        let others = devices::table
            .filter(devices::user_id.eq(user))
            .filter(devices::secret_hash.ne(bytes(&new.hash)))
            .select((
                devices::secret_hash,
                devices::created_at,
                devices::last_used_at,
            ));
        let mut others: Vec<(Vec<u8>, DbTime, DbTime)> = others.load(tx).await?;
        others.sort_by_key(|(_, created, used)| (used.0 == created.0, std::cmp::Reverse(used.0)));
        let kept = (most as usize).saturating_sub(1);
        let surplus: Vec<_> = others.into_iter().skip(kept).map(|(id, ..)| id).collect();
        let forgotten = devices::table.filter(devices::secret_hash.eq_any(surplus));
        diesel::delete(forgotten).execute(tx).await?;
        Ok(())
    });
    Ok(added?)
}

pub(super) async fn device_owner(
    conn: &mut Conn,
    device: &SecretHash,
    now: Timestamp,
) -> StoreResult<Option<UserId>> {
    let known = devices::table
        .find(bytes(device))
        .filter(devices::expires_at.gt(DbTime(now)))
        .select(devices::user_id);
    let owner = known.first::<DbId>(conn).await.optional();
    Ok(owner.map_err(from_diesel)?.map(|id| id.0.into()))
}

pub(super) async fn touch_device(
    conn: &mut Conn,
    device: &SecretHash,
    expires_at: Timestamp,
    now: Timestamp,
) -> StoreResult<()> {
    let older = devices::table
        .find(bytes(device))
        .filter(devices::last_used_at.lt(DbTime(now)));
    let used = (
        devices::last_used_at.eq(DbTime(now)),
        devices::expires_at.eq(DbTime(expires_at)),
    );
    let touched = diesel::update(older).set(used).execute(conn);
    touched.await.map(drop).map_err(from_diesel)
}

pub(super) async fn forget_devices(conn: &mut Conn, user: UserId) -> StoreResult<()> {
    let theirs = devices::table.filter(devices::user_id.eq(DbId(user.as_uuid())));
    let forgotten = diesel::delete(theirs).execute(conn);
    forgotten.await.map(drop).map_err(from_diesel)
}
