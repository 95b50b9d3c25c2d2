//! Sessions: opened, listed, ended. Everything that counts a user's sessions holds the user's row.

use diesel::{
    prelude::*,
    query_builder::{QueryFragment, QueryId},
};
use diesel_async::RunQueryDsl;

use super::{
    Backend, Conn,
    audit::{self, Log},
    faults::{Fault, from_diesel},
    lock_user, outbox,
    rows::{NewSessionRow, SessionRow},
    schema::{sessions, users},
    types::{DbId, DbTime},
};
use crate::{
    clock::Timestamp,
    ids::{SessionId, UserId},
    model::{
        audit::{Event, EventKind, Occasion},
        mail::NewLetter,
        session::{CloseReason, Device, IdleRule, Session},
        user::OnLimit,
    },
    store::{CloseSession, OpenSession, OpenSessionRequest, Seen, StoreResult},
};

pub(super) async fn open(
    conn: &mut Conn,
    request: &OpenSessionRequest,
    by: &Occasion,
) -> StoreResult<OpenSession> {
    let now = by.at;
    let opened: Result<OpenSession, Fault> = write_tx!(conn, async |tx| {
        let nobody = by.by_nobody();
        let refused = |reason| [Event::login_refused(Some(request.session.user_id), reason)];
        let user_id = request.session.user_id;
        let Some(locked) = lock_user(tx, user_id).await? else {
            return Ok(OpenSession::Gone);
        };
        let credentials = locked.parse()?;
        if !credentials.user.is_active() {
            audit::write(tx, &nobody, &refused("account_deactivated")).await?;
            return Ok(OpenSession::NotActive);
        }
        if credentials.credential_version != request.credential_version {
            audit::write(tx, &nobody, &refused("credentials_changed")).await?;
            return Ok(OpenSession::CredentialsChanged);
        }
        let mut log = Log::new(by);
        let limit = request.limit.with(credentials.user.session_limit);
        let open = open_rows(tx, user_id).await?;
        let open = close_overdue(tx, open, request.idle, &mut log).await?;
        if limit.on_limit == OnLimit::Reject && open.len() >= limit.max as usize {
            log.by = &nobody;
            log.add(Event::login_refused(Some(user_id), "session_limit"));
            log.write(tx).await?;
            return Ok(OpenSession::Refused {
                open: u32::try_from(open.len()).unwrap_or(u32::MAX),
            });
        }
        let (kept, evicted) =
            close_surplus(tx, open, limit.max - 1, CloseReason::Replaced, &mut log).await?;
        let slot = free_slot(&kept, limit.max);
        let row = NewSessionRow::new(&request.session, slot, now);
        diesel::insert_into(sessions::table)
            .values(row)
            .execute(tx)
            .await?;
        if let Some(hash) = &request.rehash {
            let column = users::password_hash.eq(hash.expose().clone());
            diesel::update(users::table.find(DbId(user_id.as_uuid())))
                .set(column)
                .execute(tx)
                .await?;
        }
        if let Some(letter) = &request.letter {
            outbox::insert(tx, letter).await?;
        }
        log.add(Event::login(&request.session));
        log.write(tx).await?;
        let session = sessions::table.find(DbId(request.session.id.as_uuid()));
        let session = session
            .select(SessionRow::as_select())
            .first(tx)
            .await?
            .parse()?;
        Ok(OpenSession::Opened { session, evicted })
    });
    Ok(opened?)
}

/// A user's open sessions, oldest first.
pub(super) async fn open_rows(tx: &mut Conn, user: UserId) -> Result<Vec<SessionRow>, Fault> {
    let open = sessions::table
        .filter(sessions::user_id.eq(DbId(user.as_uuid())))
        .filter(sessions::closed_at.is_null())
        .order((sessions::created_at, sessions::id));
    Ok(open.select(SessionRow::as_select()).load(tx).await?)
}

/// Closes what has expired or become idle; answers what is still open.
pub(super) async fn close_overdue(
    tx: &mut Conn,
    open: Vec<SessionRow>,
    idle: IdleRule,
    log: &mut Log<'_>,
) -> Result<Vec<SessionRow>, Fault> {
    let mut live = Vec::with_capacity(open.len());
    for row in open {
        let core = &row.core;
        match idle.overdue(core.expires_at.0, core.last_seen_at.0, log.now()) {
            Some(reason) => drop(close_rows(tx, &[row], reason, log).await?),
            None => live.push(row),
        }
    }
    Ok(live)
}

/// Closes the oldest rows until at most `most` are open; answers the kept and the closed ones.
pub(super) async fn close_surplus(
    tx: &mut Conn,
    mut open: Vec<SessionRow>,
    most: u32,
    reason: CloseReason,
    log: &mut Log<'_>,
) -> Result<(Vec<SessionRow>, Vec<SessionId>), Fault> {
    let surplus = open.len().saturating_sub(most as usize);
    let kept = open.split_off(surplus);
    let closed = close_rows(tx, &open, reason, log).await?;
    Ok((kept, closed))
}

/// Answers which ones it closed: a logout that comes in between closes its session itself.
async fn close_rows(
    tx: &mut Conn,
    rows: &[SessionRow],
    reason: CloseReason,
    log: &mut Log<'_>,
) -> Result<Vec<SessionId>, Fault> {
    let mut closed = Vec::with_capacity(rows.len());
    for (id, user) in rows.iter().map(|row| (row.core.id, row.core.user_id)) {
        let columns = (
            sessions::closed_at.eq(DbTime(log.now())),
            sessions::close_reason.eq(reason.as_str()),
        );
        let open = sessions::table
            .find(id)
            .filter(sessions::closed_at.is_null());
        if diesel::update(open).set(columns).execute(tx).await? > 0 {
            let id = id.0.into();
            log.add(Event::session_ended(user.0.into(), id, reason));
            closed.push(id);
        }
    }
    Ok(closed)
}

/// The smallest slot that no open session holds. There is one below `max`, since fewer than `max` are
/// open.
fn free_slot(open: &[SessionRow], max: u32) -> i32 {
    let max = i32::try_from(max).unwrap_or(i32::MAX);
    (0..max)
        .find(|slot| open.iter().all(|row| row.slot != *slot))
        .unwrap_or(max)
}

pub(super) async fn owner(conn: &mut Conn, session: SessionId) -> StoreResult<Option<UserId>> {
    let owner = sessions::table
        .find(DbId(session.as_uuid()))
        .select(sessions::user_id);
    let owner = owner.first::<DbId>(conn).await.optional();
    Ok(owner.map_err(from_diesel)?.map(|id| id.0.into()))
}

pub(super) async fn list_open(conn: &mut Conn, user: UserId) -> StoreResult<Vec<Session>> {
    let open = sessions::table
        .filter(sessions::user_id.eq(DbId(user.as_uuid())))
        .filter(sessions::closed_at.is_null())
        .order((sessions::created_at.desc(), sessions::id.desc()));
    let rows = open
        .select(SessionRow::as_select())
        .load(conn)
        .await
        .map_err(from_diesel)?;
    rows.into_iter().map(SessionRow::parse).collect()
}

pub(super) async fn close_one(
    conn: &mut Conn,
    user: Option<UserId>,
    session: SessionId,
    reason: CloseReason,
    unseen_since: Option<Timestamp>,
    by: &Occasion,
) -> StoreResult<CloseSession> {
    let closed: Result<CloseSession, Fault> = write_tx!(conn, async |tx| {
        close_in(tx, user, session, reason, unseen_since, by).await
    });
    Ok(closed?)
}

/// As [`close_one`], in a transaction.
async fn close_in(
    tx: &mut Conn,
    user: Option<UserId>,
    session: SessionId,
    reason: CloseReason,
    unseen_since: Option<Timestamp>,
    by: &Occasion,
) -> Result<CloseSession, Fault> {
    let id = DbId(session.as_uuid());
    let owner = match user {
        Some(user) => DbId(user.as_uuid()),
        None => match owner_of(tx, id).await? {
            Some(owner) => owner,
            None => return Ok(CloseSession::Unknown),
        },
    };
    // One conditional statement: of any number of closers exactly one is the one who did it.
    let latest = unseen_since.unwrap_or(Timestamp::from_millis(i64::MAX));
    let open = sessions::table
        .find(id)
        .filter(sessions::user_id.eq(owner))
        .filter(sessions::closed_at.is_null())
        .filter(sessions::last_seen_at.le(DbTime(latest)));
    let columns = (
        sessions::closed_at.eq(DbTime(by.at)),
        sessions::close_reason.eq(reason.as_str()),
    );
    if diesel::update(open).set(columns).execute(tx).await? > 0 {
        let ended = Event::session_ended(owner.0.into(), session, reason);
        audit::write(tx, by, &[ended]).await?;
        return Ok(CloseSession::Closed);
    }
    if owner_of(tx, id).await? != Some(owner) {
        return Ok(CloseSession::Unknown);
    }
    // Whoever closed it may have been told nothing, because no synchronous standby had the commit, and a restarted
    // primary shows it all the same. A lock is a write, whose commit waits for the standby as any other does, and
    // behind the one before it: so this is not acknowledged before that one could be.
    lock_user(tx, owner.0.into()).await?;
    Ok(CloseSession::AlreadyClosed)
}

/// Closes a session for the reuse of its refresh token; the letter is stored by whoever closes it.
pub(super) async fn close_reused(
    conn: &mut Conn,
    user: UserId,
    session: SessionId,
    letter: Option<&NewLetter>,
    by: &Occasion,
) -> StoreResult<CloseSession> {
    let closed: Result<CloseSession, Fault> = write_tx!(conn, async |tx| {
        let reason = CloseReason::RefreshReused;
        let closed = close_in(tx, Some(user), session, reason, None, by).await?;
        if let Some(letter) = letter.filter(|_| closed == CloseSession::Closed) {
            outbox::insert(tx, letter).await?;
        }
        Ok(closed)
    });
    Ok(closed?)
}

/// What clients said about themselves when a user's last sessions were opened.
pub(super) async fn recent_devices(conn: &mut Conn, user: UserId) -> StoreResult<Vec<Device>> {
    let newest_first = sessions::table
        .filter(sessions::user_id.eq(DbId(user.as_uuid())))
        .order((sessions::created_at.desc(), sessions::id.desc()))
        .limit(20);
    let rows = newest_first
        .select(SessionRow::as_select())
        .load(conn)
        .await
        .map_err(from_diesel)?;
    let devices = rows
        .into_iter()
        .map(|row| row.parse().map(|session| session.device));
    devices.collect()
}

async fn owner_of(conn: &mut Conn, id: DbId) -> StoreResult<Option<DbId>> {
    let owner = sessions::table
        .find(id)
        .select(sessions::user_id)
        .first::<DbId>(conn)
        .await;
    owner.optional().map_err(from_diesel)
}

pub(super) async fn close_of_user(
    conn: &mut Conn,
    user: UserId,
    keep: Option<SessionId>,
    reason: CloseReason,
    by: &Occasion,
) -> StoreResult<Option<u64>> {
    let closed: Result<Option<u64>, Fault> = write_tx!(conn, async |tx| {
        // With the user's row held, no session can be opened between finding and closing.
        if lock_user(tx, user).await?.is_none() {
            return Ok(None);
        }
        let mut log = Log::new(by);
        let closed = close_all(tx, user, keep, reason, &mut log).await?;
        log.write(tx).await?;
        Ok(Some(closed))
    });
    Ok(closed?)
}

/// Closes all open sessions of a user whose row is held.
pub(super) async fn close_all(
    tx: &mut Conn,
    user: UserId,
    keep: Option<SessionId>,
    reason: CloseReason,
    log: &mut Log<'_>,
) -> Result<u64, Fault> {
    let kept = keep.map(|id| DbId(id.as_uuid()));
    let mut open = open_rows(tx, user).await?;
    open.retain(|row| Some(row.core.id) != kept);
    let closed = close_rows(tx, &open, reason, log).await?;
    Ok(closed.len() as u64)
}

pub(super) async fn renew_authentication(
    conn: &mut Conn,
    user: UserId,
    session: SessionId,
    known: Timestamp,
    by: &Occasion,
) -> StoreResult<Option<Timestamp>> {
    let renewed: Result<Option<Timestamp>, Fault> = write_tx!(conn, async |tx| {
        let (is_noted, stands) = renew(tx, user, session, known, by.at).await?;
        if is_noted {
            let proved = Event::done(EventKind::Reauthentication);
            audit::write(tx, by, &[proved.about(user).of_session(session)]).await?;
        }
        Ok(stands)
    });
    Ok(renewed?)
}

/// Whether it was noted by this, and what stands there then, whoever wrote it.
pub(super) async fn renew(
    tx: &mut Conn,
    user: UserId,
    session: SessionId,
    known: Timestamp,
    now: Timestamp,
) -> Result<(bool, Option<Timestamp>), Fault> {
    let open = sessions::table
        .find(DbId(session.as_uuid()))
        .filter(sessions::user_id.eq(DbId(user.as_uuid())))
        .filter(sessions::closed_at.is_null());
    let not_renewed = open.filter(sessions::authenticated_at.le(DbTime(known.min(now))));
    let noted = diesel::update(not_renewed)
        .set(sessions::authenticated_at.eq(DbTime(now)))
        .execute(tx)
        .await?;
    let stands = open.select(sessions::authenticated_at).first::<DbTime>(tx);
    let stands = stands.await.optional()?;
    Ok((noted > 0, stands.map(|at| at.0)))
}

/// A statement that changes nothing unless it moves time forward.
pub(super) fn noting(one: &Seen) -> impl QueryFragment<Backend> + QueryId + Send + use<> {
    let open = sessions::table
        .find(DbId(one.session_id.as_uuid()))
        .filter(sessions::user_id.eq(DbId(one.user_id.as_uuid())))
        .filter(sessions::closed_at.is_null())
        .filter(sessions::last_seen_at.lt(DbTime(one.at)));
    diesel::update(open).set(sessions::last_seen_at.eq(DbTime(one.at)))
}

/// Counts by the index on the ends of sessions.
pub(super) async fn count_live(conn: &mut Conn, now: Timestamp) -> StoreResult<u64> {
    let live = sessions::table
        .filter(sessions::expires_at.gt(DbTime(now)))
        .filter(sessions::closed_at.is_null())
        .filter(sessions::user_id.ne(DbId(UserId::CANARY.as_uuid())));
    let count = live.count().get_result::<i64>(conn).await;
    Ok(u64::try_from(count.map_err(from_diesel)?).unwrap_or(0))
}

/// Removes a user's sessions that were opened before then, without a record.
pub(super) async fn forget(conn: &mut Conn, user: UserId, before: Timestamp) -> StoreResult<u64> {
    let old = sessions::table
        .filter(sessions::user_id.eq(DbId(user.as_uuid())))
        .filter(sessions::created_at.lt(DbTime(before)));
    let removed = diesel::delete(old).execute(conn).await;
    Ok(removed.map_err(from_diesel)? as u64)
}
