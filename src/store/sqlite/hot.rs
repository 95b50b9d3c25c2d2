//! The read behind every authenticated request: point lookups in a row.
//!
//! SQLite answers without leaving the process, in less time than it takes to hand a question to somebody else: so
//! lookups are read where they are asked for. Where a connection for that is not free, they are gathered: a few are
//! still read on the spot, while more go to a thread of their own, which a batch pays once. All lookups of a batch are
//! one read transaction, which ends with the batch.

use std::{
    collections::VecDeque,
    num::NonZeroUsize,
    sync::{Arc, Mutex, MutexGuard, PoisonError, Weak, mpsc},
    thread,
};

use diesel::{connection::SimpleConnection, prelude::*, sqlite::SqliteConnection};
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
    store::{FoundSession, StoreError, StoreResult},
};

/// Threads that look sessions up; one is at work unless it is slow.
const THREADS: usize = 2;
/// Lookups that are read on the spot at the most: as many as take some hundred microseconds, for which a task of the
/// runtime may keep its thread.
const FEW: usize = 8;
/// Connections for that at the most.
const MOST_OWN: usize = 8;
/// Pages that each connection keeps, in KiB: the upper ones of the trees, which every lookup passes.
const KEPT_PAGES: u32 = 8 << 10;

type Wanted = Vec<(UserId, SessionId)>;
type Answer = StoreResult<FoundSession>;
type Answers = StoreResult<Vec<Answer>>;

struct Batch {
    wanted: Wanted,
    answer: oneshot::Sender<Answers>,
}

/// The reader threads; they end when the last clone is dropped.
#[derive(Clone)]
pub(super) struct Hot {
    desk: Arc<Desk>,
    /// For lookups on the spot. There are fewer than the runtime has threads, so that a disk that hangs does not take
    /// all of them.
    own: Arc<[Mutex<SqliteConnection>]>,
    opener: Arc<Opener>,
}

/// Where batches are handed to threads: to the one that came to rest last, whose caches are warm, so that one thread
/// does it all as long as it can.
struct Desk {
    threads: Vec<mpsc::Sender<Batch>>,
    state: Mutex<State>,
}

#[derive(Default)]
struct State {
    resting: Vec<usize>,
    waiting: VecDeque<Batch>,
}

impl Desk {
    fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Gives a batch to a thread that rests, or keeps it for the first that has time.
    fn hand_in(&self, batch: Batch) -> StoreResult<()> {
        let resting = {
            let mut state = self.state();
            let Some(thread) = state.resting.pop() else {
                state.waiting.push_back(batch);
                return Ok(());
            };
            thread
        };
        let thread = self.threads.get(resting).ok_or_else(gone)?;
        thread.send(batch).map_err(|_| gone())
    }

    /// The next batch for a thread that has time, or none, and it rests.
    fn next_for(&self, thread: usize) -> Option<Batch> {
        let mut state = self.state();
        let next = state.waiting.pop_front();
        if next.is_none() {
            state.resting.push(thread);
        }
        next
    }
}

fn gone() -> StoreError {
    StoreError::Unavailable("the reader threads are gone".into())
}

impl Hot {
    pub(super) fn start(opener: &Opener) -> StoreResult<Self> {
        let (threads, inboxes): (Vec<_>, Vec<_>) = (0..THREADS).map(|_| mpsc::channel()).unzip();
        let state = State {
            resting: (0..THREADS).collect(),
            waiting: VecDeque::new(),
        };
        let desk = Arc::new(Desk {
            threads,
            state: Mutex::new(state),
        });
        for (n, inbox) in inboxes.into_iter().enumerate() {
            let mut conn = reader(opener)?;
            // The threads' own ends of their channels are with the desk.
            let desk = Arc::downgrade(&desk);
            thread::Builder::new()
                .name(format!("sessions-{n}"))
                .spawn(move || run(n, &mut conn, &inbox, &desk))
                .map_err(|e| StoreError::Unavailable(e.to_string()))?;
        }
        let threads = thread::available_parallelism().map_or(1, NonZeroUsize::get);
        let own = 0..(threads - 1).min(MOST_OWN);
        let own = own.map(|_| impatient(opener).map(Mutex::new));
        Ok(Self {
            desk,
            own: own.collect::<StoreResult<_>>()?,
            opener: Arc::new(opener.clone()),
        })
    }

    pub(super) fn opener(&self) -> &Opener {
        &self.opener
    }

    pub(super) async fn live_sessions(&self, wanted: &[(UserId, SessionId)]) -> Answers {
        if let Some(answers) = self.on_the_spot(wanted) {
            return Ok(answers);
        }
        let (answer, answered) = oneshot::channel();
        self.desk.hand_in(Batch {
            wanted: wanted.to_vec(),
            answer,
        })?;
        answered.await.map_err(|_| gone())?
    }

    /// The answer, where it is to be had without waiting for anybody.
    pub(super) fn live_session_at_once(
        &self,
        user: UserId,
        session: SessionId,
    ) -> Option<FoundSession> {
        // What fails here is asked again the other way, which says why it failed.
        look_up(&mut *self.free()?, (user, session)).ok()
    }

    /// The answers, where they are to be had without waiting for anybody.
    fn on_the_spot(&self, wanted: &[(UserId, SessionId)]) -> Option<Vec<Answer>> {
        if wanted.len() > FEW {
            return None;
        }
        read(&mut *self.free()?, wanted)
            .ok()
            .filter(|answers| answers.iter().all(Result::is_ok))
    }

    /// A connection that nobody reads on.
    fn free(&self) -> Option<MutexGuard<'_, SqliteConnection>> {
        self.own.iter().find_map(|own| own.try_lock().ok())
    }
}

/// A connection that waits for no lock: whoever holds one is waited for elsewhere.
fn impatient(opener: &Opener) -> StoreResult<SqliteConnection> {
    let mut conn = reader(opener)?;
    let waiting = conn.batch_execute("PRAGMA busy_timeout = 0");
    waiting.map_err(from_diesel)?;
    Ok(conn)
}

fn reader(opener: &Opener) -> StoreResult<SqliteConnection> {
    let unavailable = |error: ConnectionError| StoreError::Unavailable(error.to_string());
    let mut conn = opener.open().map_err(unavailable)?;
    let kept = conn.batch_execute(&format!("PRAGMA cache_size = -{KEPT_PAGES}"));
    kept.map_err(from_diesel)?;
    Ok(conn)
}

fn run(
    thread: usize,
    conn: &mut SqliteConnection,
    inbox: &mpsc::Receiver<Batch>,
    desk: &Weak<Desk>,
) {
    while let Ok(batch) = inbox.recv() {
        let mut next = Some(batch);
        while let Some(batch) = next {
            work(conn, batch);
            next = desk.upgrade().and_then(|desk| desk.next_for(thread));
        }
    }
}

fn work(conn: &mut SqliteConnection, Batch { wanted, answer }: Batch) {
    // Nobody waits any more where the store is gone.
    let _ = answer.send(read(conn, &wanted));
}

fn read(conn: &mut SqliteConnection, wanted: &[(UserId, SessionId)]) -> Answers {
    // One statement is a transaction of its own.
    if let [key] = wanted {
        return Ok(vec![look_up(conn, *key)]);
    }
    conn.transaction(|tx| Ok(wanted.iter().map(|key| look_up(tx, *key)).collect()))
        .map_err(from_diesel)
}

fn look_up(conn: &mut SqliteConnection, (user, session): (UserId, SessionId)) -> Answer {
    let row: Option<(SessionCoreRow, UserRow)> = sessions::table
        .find(DbId(session.as_uuid()))
        .inner_join(users::table)
        .filter(users::id.eq(DbId(user.as_uuid())))
        .select((SessionCoreRow::as_select(), UserRow::as_select()))
        // Not `first`: SQLite compiles a statement anew for each value that its limit is bound to.
        .get_result(conn)
        .optional()
        .map_err(from_diesel)?;
    row.map(|(session, user)| session.view(user)).transpose()
}
