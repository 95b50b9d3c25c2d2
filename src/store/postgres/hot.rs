//! The read behind every authenticated request: one prepared statement for all that wait.

use std::{collections::HashMap, time::Duration};

use diesel::prelude::*;
use diesel_async::RunQueryDsl;

use super::{
    faults::from_diesel,
    give_up,
    line::Line,
    rows::{SessionCoreRow, UserRow},
    schema::{sessions, users},
    types::DbId,
};
use crate::{
    ids::{SessionId, UserId},
    model::session::SessionView,
    store::{StoreResult, circuit::Circuit},
};

/// Connections of its own, so that no slow write keeps a lookup waiting.
#[derive(Clone)]
pub(super) struct Hot {
    line: Line,
    circuit: Circuit,
    /// How long any call on this database may take, lookups included.
    pub(super) deadline: Duration,
}

impl Hot {
    pub(super) const fn new(line: Line, circuit: Circuit, deadline: Duration) -> Self {
        Self {
            line,
            circuit,
            deadline,
        }
    }

    pub(super) async fn live_sessions(
        &self,
        wanted: &[(UserId, SessionId)],
    ) -> StoreResult<Vec<StoreResult<Option<SessionView>>>> {
        // Several requests of one session may wait together; each but the last gets a copy.
        let mut waiting: HashMap<SessionId, usize> = HashMap::with_capacity(wanted.len());
        for (_, session) in wanted {
            *waiting.entry(*session).or_default() += 1;
        }
        let ids: Vec<DbId> = waiting.keys().map(|id| DbId(id.as_uuid())).collect();
        let mut conn = self.line.get().await?;
        let joined = sessions::table
            .inner_join(users::table)
            .filter(sessions::id.eq_any(ids))
            .select((SessionCoreRow::as_select(), UserRow::as_select()));
        let read = joined.load::<(SessionCoreRow, UserRow)>(&mut *conn);
        let read = async { read.await.map_err(from_diesel) };
        let Some(rows) = self.circuit.within(self.deadline, read).await else {
            return Err(give_up(&mut conn));
        };
        let rows = rows?;
        drop(conn);
        // Every column decodes by its type; what makes no sense fails here, each row for itself.
        let mut found: HashMap<SessionId, (UserId, StoreResult<SessionView>)> = rows
            .into_iter()
            .map(|(session, user)| {
                let (id, owner) = (session.id.0.into(), session.user_id.0.into());
                (id, (owner, session.view(user)))
            })
            .collect();
        let answer = |(user, id): &(UserId, SessionId)| {
            let left = waiting.get_mut(id)?;
            *left -= 1;
            let is_last = *left == 0;
            let (_, view) = if is_last {
                found.remove(id).filter(|(owner, _)| owner == user)?
            } else {
                found.get(id).filter(|(owner, _)| owner == user)?.clone()
            };
            Some(view)
        };
        Ok(wanted.iter().map(answer).map(Option::transpose).collect())
    }
}
