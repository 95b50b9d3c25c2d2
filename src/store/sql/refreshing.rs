//! Refresh tokens: the hash of one replaced by the hash of the next, on the condition that it is still
//! the current one.

use diesel::{dsl::exists, prelude::*};
use diesel_async::RunQueryDsl;

use super::{
    Conn,
    faults::from_diesel,
    rows::{RefreshRow, SessionCoreRow, UserRow, status_text},
    schema::{sessions, users},
    types::{DbId, DbTime},
};
use crate::{
    clock::Timestamp,
    ids::{SessionId, UserId},
    model::session::RefreshState,
    store::{RotateRefresh, StoreResult},
};

/// One statement: of two at once the second waits for the first, judges the row anew and finds another
/// hash in it.
pub(super) async fn rotate(
    conn: &mut Conn,
    request: &RotateRefresh,
    now: Timestamp,
) -> StoreResult<Option<Timestamp>> {
    let user = DbId(request.user.as_uuid());
    let active = users::table
        .find(user)
        .filter(users::status.eq(status_text(true)));
    let current = sessions::table
        .find(DbId(request.session.as_uuid()))
        .filter(sessions::user_id.eq(user))
        .filter(sessions::closed_at.is_null())
        .filter(sessions::refresh_hash.eq(request.presented.as_bytes().to_vec()))
        .filter(sessions::expires_at.gt(DbTime(now)))
        .filter(sessions::last_seen_at.ge(DbTime(request.idle.seen_before(now))))
        .filter(exists(active));
    let successor = (
        sessions::refresh_hash.eq(request.successor.as_bytes().to_vec()),
        sessions::refresh_previous.eq(request.presented.as_bytes().to_vec()),
        sessions::generation.eq(request.generation),
        sessions::rotated_at.eq(DbTime(now)),
    );
    let ends = diesel::update(current)
        .set(successor)
        .returning(sessions::expires_at)
        .get_result::<DbTime>(conn)
        .await;
    Ok(ends.optional().map_err(from_diesel)?.map(|at| at.0))
}

pub(super) async fn state(
    conn: &mut Conn,
    user: UserId,
    session: SessionId,
) -> StoreResult<Option<RefreshState>> {
    let row = sessions::table
        .find(DbId(session.as_uuid()))
        .inner_join(users::table)
        .filter(users::id.eq(DbId(user.as_uuid())))
        .select((
            SessionCoreRow::as_select(),
            UserRow::as_select(),
            RefreshRow::as_select(),
        ));
    let row = row
        .first::<(SessionCoreRow, UserRow, RefreshRow)>(conn)
        .await;
    row.optional()
        .map_err(from_diesel)?
        .map(|(session, user, refresh)| refresh.state(session, user))
        .transpose()
}

pub(super) async fn note_generation(
    conn: &mut Conn,
    user: UserId,
    session: SessionId,
    generation: i64,
) -> StoreResult<()> {
    let behind = sessions::table
        .find(DbId(session.as_uuid()))
        .filter(sessions::user_id.eq(DbId(user.as_uuid())))
        .filter(sessions::generation_used.lt(generation))
        .filter(sessions::generation.ge(generation));
    let noted = diesel::update(behind).set(sessions::generation_used.eq(generation));
    noted.execute(conn).await.map(drop).map_err(from_diesel)
}
