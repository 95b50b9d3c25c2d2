//! The read behind every authenticated request: point lookups in a row on a thread of its own.
//!
//! SQLite answers without leaving the process, so the cost is the hop to another thread; a batch pays
//! it once. All lookups of a batch are one read transaction, which ends with the batch.

use std::{
    sync::{Arc, Mutex, PoisonError, mpsc},
    thread,
};

use diesel::{prelude::*, sqlite::SqliteConnection};
use tokio::sync::oneshot;

use super::{
    Opener,
    faults::from_diesel,
    rows::{SessionCoreRow, UserRow},
    schema::{sessions, users},
    types::DbId,
};
use crate::{
    ids::{SessionId, UserId},
    model::session::SessionView,
    store::{StoreError, StoreResult},
};

/// Threads that look sessions up; one is at work unless it is slow.
const THREADS: usize = 2;

type Wanted = Vec<(UserId, SessionId)>;
type Answers = StoreResult<Vec<StoreResult<Option<SessionView>>>>;

struct Batch {
    wanted: Wanted,
    answer: oneshot::Sender<Answers>,
}

/// The reader threads; they end when the last clone is dropped.
#[derive(Clone)]
pub(super) struct Hot {
    batches: mpsc::Sender<Batch>,
    opener: Arc<Opener>,
}

impl Hot {
    pub(super) fn start(opener: &Opener) -> StoreResult<Self> {
        let (batches, queue) = mpsc::channel::<Batch>();
        let queue = Arc::new(Mutex::new(queue));
        for n in 0..THREADS {
            let unavailable = |e: String| StoreError::Unavailable(e);
            let mut conn = opener.open().map_err(|e| unavailable(e.to_string()))?;
            let queue = Arc::clone(&queue);
            thread::Builder::new()
                .name(format!("sessions-{n}"))
                .spawn(move || work(&mut conn, &queue))
                .map_err(|e| unavailable(e.to_string()))?;
        }
        Ok(Self {
            batches,
            opener: Arc::new(opener.clone()),
        })
    }

    pub(super) fn opener(&self) -> &Opener {
        &self.opener
    }

    pub(super) async fn live_sessions(&self, wanted: &[(UserId, SessionId)]) -> Answers {
        let (answer, answered) = oneshot::channel();
        let gone = |()| StoreError::Unavailable("the reader threads are gone".into());
        let batch = Batch {
            wanted: wanted.to_vec(),
            answer,
        };
        self.batches.send(batch).map_err(|_| gone(()))?;
        answered.await.map_err(|_| gone(()))?
    }
}

fn work(conn: &mut SqliteConnection, queue: &Mutex<mpsc::Receiver<Batch>>) {
    loop {
        let batch = queue.lock().unwrap_or_else(PoisonError::into_inner).recv();
        let Ok(Batch { wanted, answer }) = batch else {
            return;
        };
        let answers = conn
            .transaction(|tx| Ok(wanted.iter().map(|key| look_up(tx, *key)).collect()))
            .map_err(from_diesel);
        // Nobody waits any more where the store is gone.
        let _ = answer.send(answers);
    }
}

fn look_up(
    conn: &mut SqliteConnection,
    (user, session): (UserId, SessionId),
) -> StoreResult<Option<SessionView>> {
    let row: Option<(SessionCoreRow, UserRow)> = sessions::table
        .find(DbId(session.as_uuid()))
        .inner_join(users::table)
        .filter(users::id.eq(DbId(user.as_uuid())))
        .select((SessionCoreRow::as_select(), UserRow::as_select()))
        .first(conn)
        .optional()
        .map_err(from_diesel)?;
    row.map(|(session, user)| session.view(user)).transpose()
}
