//! The joining reader: sessions asked for at the same time are read by one statement.
//!
//! This is batching, not caching. A lookup only ever joins a statement that begins after the lookup
//! was asked for, so what a request sees is never older than the request; nothing read is kept.
//! A lone request waits for nobody: there is no timer. A database in this process that has the answer sooner than
//! anybody could be asked gives it at once.

use std::{panic::AssertUnwindSafe, sync::Arc, time::Duration};

use futures_util::FutureExt;
use tokio::{
    sync::{Mutex, mpsc, oneshot},
    task::yield_now,
    time::{Interval, MissedTickBehavior, interval, timeout},
};
use tracing::Instrument;

use crate::{
    clock::Stopwatch,
    error::{AuthError, AuthResult},
    ids::{SessionId, UserId},
    metrics::Metrics,
    model::session::SessionView,
    spans,
    store::{FoundSession, Store, StoreError, StoreResult},
};

/// Most sessions in one statement.
const LARGEST_BATCH: usize = 256;
/// Lookups that may wait; beyond, a request is answered 503.
const LONGEST_QUEUE: usize = 8192;
/// Readers; one is at work unless it is slow.
const READERS: usize = 4;
/// A statement that takes longer than this, and up to twice as long, no longer holds up the next one.
const SLOW: Duration = Duration::from_millis(50);
/// No request waits longer for its session.
const DEADLINE: Duration = Duration::from_secs(3);

type Answer = StoreResult<FoundSession>;

struct Question {
    user: UserId,
    session: SessionId,
    answer: oneshot::Sender<Answer>,
}

/// Looks sessions up, joined with whoever asks at the same time.
#[derive(Clone)]
pub struct Lookup(Source);

struct Readers {
    questions: mpsc::Sender<Question>,
    store: Arc<dyn Store>,
    metrics: Arc<Metrics>,
}

#[derive(Clone)]
enum Source {
    Readers(Arc<Readers>),
    Constant(Arc<SessionView>),
}

impl Lookup {
    /// Starts the readers on the current tokio runtime; they end when the last clone is dropped.
    #[must_use]
    pub fn start(store: &Arc<dyn Store>, metrics: &Arc<Metrics>) -> Self {
        let (questions, queue) = mpsc::channel(LONGEST_QUEUE);
        let queue = Arc::new(Mutex::new(queue));
        for _ in 0..READERS {
            let (store, queue) = (Arc::clone(store), Arc::clone(&queue));
            let metrics = Arc::clone(metrics);
            tokio::spawn(async move {
                // A panic fails the batch it came in, whose callers are told; the reader goes on.
                let read = || AssertUnwindSafe(read(&store, &queue, &metrics)).catch_unwind();
                while read().await.is_err() {}
            });
        }
        Self(Source::Readers(Arc::new(Readers {
            questions,
            store: Arc::clone(store),
            metrics: Arc::clone(metrics),
        })))
    }

    /// Answers every question with this session, whatever the database says: to measure what all else costs.
    #[doc(hidden)]
    #[must_use]
    pub fn constant(view: SessionView) -> Self {
        Self(Source::Constant(Arc::new(view)))
    }

    /// The session of that user as it is in the database now; `None` if there is none.
    ///
    /// # Errors
    /// [`AuthError::Overloaded`] when too many wait, [`AuthError::Store`] when the database cannot
    /// answer in time.
    pub async fn find(&self, user: UserId, session: SessionId) -> AuthResult<Option<SessionView>> {
        let readers = match &self.0 {
            Source::Readers(readers) => readers,
            Source::Constant(view) => return Ok(Some(SessionView::clone(view))),
        };
        if let Some(found) = readers.at_once(user, session) {
            return Ok(found);
        }
        let (answer, answered) = oneshot::channel();
        readers
            .questions
            .try_send(Question {
                user,
                session,
                answer,
            })
            .map_err(|_| AuthError::Overloaded("session lookups"))?;
        // Many questions are one statement, which is nobody's own: each sees what it waited for.
        let span = spans::database("live_sessions");
        let waiting = timeout(DEADLINE, answered).instrument(span.clone());
        let found = match waiting.await {
            Ok(Ok(found)) => found,
            Ok(Err(_)) => return Err(AuthError::Internal("a lookup was dropped".into())),
            Err(_) => Err(StoreError::Unavailable("no answer within 3 seconds".into())),
        };
        Ok(found.inspect_err(|error| spans::failed(&span, error.class()))?)
    }
}

impl Readers {
    /// The answer of a database that has it sooner than anybody could be asked for it.
    fn at_once(&self, user: UserId, session: SessionId) -> Option<FoundSession> {
        // A trace is to show who is asked.
        if spans::are_wanted() {
            return None;
        }
        let watch = Stopwatch::start();
        let found = self.store.live_session_at_once(user, session)?;
        self.metrics.lookups.add(1);
        self.metrics.lookups_per_batch.had(1);
        self.metrics.lookup_seconds.took(watch.elapsed());
        Some(found)
    }
}

/// One reader: takes the turn, drains what waits, asks once, and so on. The turn passes on when an answer is slow
/// in coming.
async fn read(store: &Arc<dyn Store>, queue: &Mutex<mpsc::Receiver<Question>>, metrics: &Metrics) {
    let mut batch = Vec::with_capacity(LARGEST_BATCH);
    let mut ticks = interval(SLOW);
    ticks.set_missed_tick_behavior(MissedTickBehavior::Delay);
    // Kept as long as statements are quick: to pass it on wakes another reader, and with it another thread.
    let mut kept = None;
    let mut usual = 0;
    loop {
        let mut turn = match kept.take() {
            Some(turn) => turn,
            None => queue.lock().await,
        };
        // Draining comes before the statement begins: see the module's promise.
        if turn.recv_many(&mut batch, LARGEST_BATCH).await == 0 {
            return;
        }
        // Much fewer than before: the others are about to ask as well, and a statement for one costs nearly as much as
        // one for many. Whoever can go on now goes first.
        if batch.len() * 2 < usual {
            yield_now().await;
            while batch.len() < LARGEST_BATCH
                && let Ok(question) = turn.try_recv()
            {
                batch.push(question);
            }
        }
        usual = batch.len();
        batch.retain(|question| !question.answer.is_closed());
        if batch.is_empty() {
            kept = Some(turn);
            continue;
        }
        metrics.lookups.add(batch.len() as u64);
        metrics.lookups_per_batch.had(batch.len());
        let watch = Stopwatch::start();
        let wanted: Vec<_> = batch
            .iter()
            .map(|question| (question.user, question.session))
            .collect();
        let statement = store.live_sessions(&wanted);
        tokio::pin!(statement);
        let in_time = tokio::select! {
            biased;
            found = &mut statement => Some(found),
            () = slow(&mut ticks) => None,
        };
        let found = if let Some(found) = in_time {
            kept = Some(turn);
            found
        } else {
            drop(turn);
            statement.await
        };
        metrics.lookup_seconds.took(watch.elapsed());
        hand_back(&mut batch, found);
    }
}

/// Until a statement that begins now is slow: two ticks, of which the first may be due already. A timer of its own
/// for each statement would wake the whole runtime each time.
async fn slow(ticks: &mut Interval) {
    ticks.tick().await;
    ticks.tick().await;
}

fn hand_back(batch: &mut Vec<Question>, found: StoreResult<Vec<Answer>>) {
    match found {
        Ok(rows) if rows.len() == batch.len() => {
            for (question, row) in batch.drain(..).zip(rows) {
                // Nobody waits any more where the client has gone.
                let _ = question.answer.send(row);
            }
        }
        Ok(rows) => {
            let error =
                StoreError::Driver(format!("{} rows for {} sessions", rows.len(), batch.len()));
            batch
                .drain(..)
                .for_each(|question| drop(question.answer.send(Err(error.clone()))));
        }
        Err(error) => batch
            .drain(..)
            .for_each(|question| drop(question.answer.send(Err(error.clone())))),
    }
}
