//! The read behind every authenticated request: one prepared statement for all that wait.

use std::{
    collections::HashMap,
    sync::{Arc, LazyLock},
    time::Duration,
};

use diesel::{
    dsl::{AsSelect, SqlTypeOf},
    pg::{Pg, PgQueryBuilder},
    prelude::*,
    query_builder::{AstPass, Query, QueryBuilder, QueryFragment, QueryId},
    result::Error::QueryBuilderError,
    sql_types::{Array, Uuid},
};
use diesel_async::RunQueryDsl;

use super::{
    Connector,
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
    store::{FoundSession, StoreResult, circuit::Circuit},
};

/// The statement before and behind its one parameter, written once: diesel would write it anew for each batch, only to
/// find it prepared.
static JOIN: LazyLock<Result<(String, String), String>> = LazyLock::new(|| {
    let joined = sessions::table
        .inner_join(users::table)
        .filter(sessions::id.eq_any(Vec::<DbId>::new()))
        .select((
            <SessionCoreRow as SelectableHelper<Pg>>::as_select(),
            <UserRow as SelectableHelper<Pg>>::as_select(),
        ));
    let mut written = PgQueryBuilder::default();
    <_ as QueryFragment<Pg>>::to_sql(&joined, &mut written, &Pg).map_err(|e| e.to_string())?;
    let written = written.finish();
    let (before, after) = written.split_once("$1").ok_or("it asks for nothing")?;
    Ok((before.to_owned(), after.to_owned()))
});

/// [`JOIN`] with these sessions as its parameter.
struct Joined(Vec<DbId>);

impl QueryId for Joined {
    type QueryId = Self;

    const HAS_STATIC_QUERY_ID: bool = true;
}

impl Query for Joined {
    type SqlType = (
        SqlTypeOf<AsSelect<SessionCoreRow, Pg>>,
        SqlTypeOf<AsSelect<UserRow, Pg>>,
    );
}

impl QueryFragment<Pg> for Joined {
    fn walk_ast<'b>(&'b self, mut pass: AstPass<'_, 'b, Pg>) -> QueryResult<()> {
        let unwritten = |why: &String| QueryBuilderError(why.as_str().into());
        let (before, after) = JOIN.as_ref().map_err(unwritten)?;
        pass.push_sql(before);
        pass.push_bind_param::<Array<Uuid>, _>(&self.0)?;
        pass.push_sql(after);
        Ok(())
    }
}

/// Connections of its own, so that no slow write keeps a lookup waiting.
#[derive(Clone)]
pub(super) struct Hot {
    line: Line,
    circuit: Circuit,
    /// For connections that no pool has.
    pub(super) connector: Arc<Connector>,
    /// How long any call on this database may take, lookups included.
    pub(super) deadline: Duration,
}

impl Hot {
    pub(super) const fn new(
        line: Line,
        circuit: Circuit,
        connector: Arc<Connector>,
        deadline: Duration,
    ) -> Self {
        Self {
            line,
            circuit,
            connector,
            deadline,
        }
    }

    /// The database is elsewhere.
    #[expect(clippy::unused_self, reason = "as on SQLite")]
    pub(super) fn live_session_at_once(&self, _: UserId, _: SessionId) -> Option<FoundSession> {
        None
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
        let read = Joined(ids).load::<(SessionCoreRow, UserRow)>(&mut *conn);
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
