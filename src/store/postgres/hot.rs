//! The read behind every authenticated request: one prepared statement for all that wait.

use std::collections::HashMap;

use diesel::prelude::*;
use diesel_async::{RunQueryDsl, pooled_connection::bb8::Pool};

use super::{
    Conn,
    faults::{from_diesel, from_pool},
    rows::{SessionCoreRow, UserRow},
    schema::{sessions, users},
    types::DbId,
};
use crate::{
    ids::{SessionId, UserId},
    model::session::SessionView,
    store::StoreResult,
};

/// Connections of its own, so that no slow write keeps a lookup waiting.
#[derive(Clone)]
pub(super) struct Hot(Pool<Conn>);

impl Hot {
    pub(super) fn new(pool: Pool<Conn>) -> Self {
        Self(pool)
    }

    pub(super) async fn live_sessions(
        &self,
        wanted: &[(UserId, SessionId)],
    ) -> StoreResult<Vec<StoreResult<Option<SessionView>>>> {
        let ids: Vec<DbId> = wanted
            .iter()
            .map(|(_, session)| DbId(session.as_uuid()))
            .collect();
        let mut conn = self.0.get().await.map_err(from_pool)?;
        let rows: Vec<(SessionCoreRow, UserRow)> = sessions::table
            .inner_join(users::table)
            .filter(sessions::id.eq_any(ids))
            .select((SessionCoreRow::as_select(), UserRow::as_select()))
            .load(&mut *conn)
            .await
            .map_err(from_diesel)?;
        drop(conn);
        // Every column decodes by its type; what makes no sense fails here, each row for itself.
        let found: HashMap<(UserId, SessionId), StoreResult<SessionView>> = rows
            .into_iter()
            .map(|(session, user)| {
                let key = (session.user_id.0.into(), session.id.0.into());
                (key, session.view(user))
            })
            .collect();
        Ok(wanted
            .iter()
            .map(|key| found.get(key).cloned().transpose())
            .collect())
    }
}
