//! Writes over several documents.
//!
//! Decides when a transaction is tried again: on errors that the server labels transient the whole of
//! it, on a commit of unknown result the commit. All of it happens in a task of its own, so that a
//! caller who goes away leaves nothing half done, and within the time an operation has.
//!
//! The server lets nobody wait for a document that a transaction has written, but refuses them. Those on one node
//! who want the same user's document therefore stand in line ([`Lanes`]): two hundred logins of one user would
//! otherwise mostly refuse each other, and keep everybody else's turns meanwhile.

use std::{
    sync::{
        Arc,
        atomic::{AtomicU64, Ordering},
    },
    time::Duration,
};

use async_trait::async_trait;
use mongodb::{
    ClientSession,
    error::{Error, ErrorKind, TRANSIENT_TRANSACTION_ERROR, UNKNOWN_TRANSACTION_COMMIT_RESULT},
    options::{Acknowledgment, ReadConcern, WriteConcern},
};
use tokio::{sync::Mutex, time::sleep};

use super::{
    MongoStore, Wait,
    failure::{MAX_TIME_EXPIRED, code, store_error, too_slow},
};
use crate::{
    clock::Stopwatch,
    ids::UserId,
    store::{StoreError, StoreResult},
};

/// How many lines there are: so many that hardly anybody stands in another user's.
const LANES: usize = 512;

/// Where those wait who want to write a user's document.
#[derive(Debug)]
pub(super) struct Lanes(Vec<Arc<Mutex<()>>>);

impl Lanes {
    pub(super) fn new() -> Self {
        Self((0..LANES).map(|_| Arc::default()).collect())
    }

    fn of(&self, user: UserId) -> Option<Arc<Mutex<()>>> {
        // The random end of the id.
        let (_, end) = user.as_uuid().as_u64_pair();
        let number = usize::try_from(end % LANES as u64).ok()?;
        self.0.get(number).cloned()
    }
}

/// How long conflicts may last before somebody may be in the way who is gone.
const PATIENCE: Duration = Duration::from_secs(1);

/// How a run of a transaction ends.
pub(super) enum Step<T> {
    /// Make it so.
    Commit(T),
    /// Write nothing.
    Abort(T),
}

/// Why a run of a transaction stopped.
pub(super) enum Stopped {
    /// The driver's error, which may be worth another run.
    Driver(Error),
    /// An error that another run would not heal.
    Store(StoreError),
}

impl From<Error> for Stopped {
    fn from(error: Error) -> Self {
        Self::Driver(error)
    }
}

impl From<StoreError> for Stopped {
    fn from(error: StoreError) -> Self {
        Self::Store(error)
    }
}

impl From<Stopped> for StoreError {
    fn from(stopped: Stopped) -> Self {
        match stopped {
            Stopped::Driver(error) => store_error(&error),
            Stopped::Store(error) => error,
        }
    }
}

/// A decision that reads and writes several documents; it may be run more than once.
#[async_trait]
pub(super) trait Transaction: Send + Sync + 'static {
    /// What was decided.
    type Outcome: Send + 'static;

    /// Whose document it writes, if that is known before.
    fn user(&self) -> Option<UserId> {
        None
    }

    /// Runs once, in a snapshot: a document that another transaction changes meanwhile makes the
    /// write to it fail, and the run is repeated.
    async fn run(
        &self,
        store: &MongoStore,
        session: &mut ClientSession,
    ) -> Result<Step<Self::Outcome>, Stopped>;
}

/// Runs `work` until it is committed or aborted.
pub(super) async fn transact<T: Transaction>(
    store: &MongoStore,
    work: T,
) -> StoreResult<T::Outcome> {
    let own = store.clone();
    let lane = work.user().and_then(|user| store.lanes.of(user));
    let wait = lane.map_or(Wait::ForTurn, Wait::InLane);
    store
        .at_work(wait, async move { repeat(&own, &work).await })
        .await
}

async fn repeat<T: Transaction>(store: &MongoStore, work: &T) -> StoreResult<T::Outcome> {
    let mut session = store
        .client
        .start_session()
        .await
        .map_err(|error| store_error(&error))?;
    let majority = WriteConcern::builder()
        .w(Acknowledgment::Majority)
        .journal(true)
        .build();
    // No count of tries: time bounds them, and a conflict means that another made progress.
    let watch = Stopwatch::start();
    let mut looked = 0;
    for attempt in 0.. {
        if watch.elapsed() > store.operation_timeout {
            break;
        }
        if watch.elapsed() > PATIENCE.saturating_mul(looked + 1) {
            looked += 1;
            store.end_abandoned().await;
        }
        pause_before(attempt).await;
        session
            .start_transaction()
            .read_concern(ReadConcern::snapshot())
            .write_concern(majority.clone())
            .max_commit_time(store.operation_timeout)
            .await
            .map_err(|error| store_error(&error))?;
        let stopped = match work.run(store, &mut session).await {
            Ok(Step::Commit(outcome)) => match commit(&mut session, &watch, store).await {
                Ok(()) => return Ok(outcome),
                Err(error) => Stopped::Driver(error),
            },
            Ok(Step::Abort(outcome)) => {
                abort(&mut session).await;
                return Ok(outcome);
            }
            Err(stopped) => {
                abort(&mut session).await;
                stopped
            }
        };
        match stopped {
            Stopped::Driver(error) if is_worth_another_run(&error) => {}
            other => return Err(other.into()),
        }
    }
    Err(too_slow(store.operation_timeout))
}

/// A primary that was not found by now would only be looked for again.
fn is_worth_another_run(error: &Error) -> bool {
    error.contains_label(TRANSIENT_TRANSACTION_ERROR)
        && !matches!(error.kind.as_ref(), ErrorKind::ServerSelection { .. })
}

/// Commits; while the result is unknown, asks again: committing twice is committing once.
async fn commit(
    session: &mut ClientSession,
    watch: &Stopwatch,
    store: &MongoStore,
) -> Result<(), Error> {
    loop {
        match session.commit_transaction().await {
            Err(error)
                if watch.elapsed() < store.operation_timeout
                    && error.contains_label(UNKNOWN_TRANSACTION_COMMIT_RESULT)
                    && code(&error).is_none_or(|(code, _)| code != MAX_TIME_EXPIRED) =>
            {
                pause_before(3).await;
            }
            done => return done,
        }
    }
}

/// Aborts. The answer does not matter: an error has mostly aborted it already, and the server ends
/// what is left over.
async fn abort(session: &mut ClientSession) {
    let _ = session.abort_transaction().await;
}

/// Waits a little longer each time, and not as long as a neighbour who was refused for the same
/// reason.
async fn pause_before(attempt: u32) {
    static TURN: AtomicU64 = AtomicU64::new(0);
    if attempt > 0 {
        let longest = 4_u64 << attempt.min(5);
        let turn = TURN.fetch_add(1, Ordering::Relaxed);
        sleep(Duration::from_millis(1 + turn.wrapping_mul(7) % longest)).await;
    }
}
