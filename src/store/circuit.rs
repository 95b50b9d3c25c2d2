//! The circuit between the calls and a database that is away.
//!
//! Decides whether a call is worth making. A call that fails because the database is unavailable, or goes unanswered
//! for a second, raises a doubt; an answer to anybody settles it. Several doubts in a row are put to the test by a
//! question on a fresh connection, and only if that fails as well does the circuit open: whoever waits is told so
//! and whoever comes is refused, both at once. One task then asks on, and closes it with the first answer. So neither
//! a slow statement, a lock nor a broken connection opens it. What a question is, and which calls go through it,
//! is for the backends.

use std::{
    fmt,
    panic::AssertUnwindSafe,
    pin::pin,
    sync::{
        Arc, Weak,
        atomic::{AtomicBool, AtomicU32, AtomicU64, Ordering},
    },
    time::Duration,
};

use async_trait::async_trait;
use futures_util::FutureExt;
use tokio::{
    sync::Notify,
    time::{sleep, timeout},
};

use super::{StoreError, StoreResult};
use crate::{clock::Stopwatch, metrics::CircuitUse};

/// A call that takes longer raises a doubt.
const SLOW: Duration = Duration::from_secs(1);
/// Doubts in a row that are worth a question.
const SEVERAL: u32 = 3;
/// Between the first two questions.
const FIRST_PAUSE: Duration = Duration::from_millis(100);
/// Between two questions at the most; twice as long each time until then.
const LONGEST_PAUSE: Duration = Duration::from_secs(1);

/// How a backend finds out whether its database is there.
#[async_trait]
pub(crate) trait Probe: Send + Sync + 'static {
    /// Asks on a connection that no call uses, and within a bounded time.
    async fn answers(&self) -> bool;

    /// Puts new connections in the place of those from before the outage, now that it is over; within a bounded time,
    /// since everybody is still refused.
    async fn renew(&self) {}
}

/// A circuit; clones are the same one. Calls read and write atomics only, nobody waits for anybody here.
#[derive(Clone)]
pub(crate) struct Circuit(Arc<Inner>);

struct Inner {
    probe: Option<Box<dyn Probe>>,
    doubts: AtomicU32,
    is_open: AtomicBool,
    /// Whether the one task is at work that asks.
    asks: AtomicBool,
    /// Wakes those who wait for an answer when it opens.
    opened: Notify,
    /// How often it opened.
    times_opened: AtomicU64,
    rejected: AtomicU64,
}

impl fmt::Debug for Circuit {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Circuit")
            .field("is_open", &self.is_open())
            .finish_non_exhaustive()
    }
}

impl Circuit {
    /// A closed circuit. Without a probe it stays closed.
    pub(crate) fn new(probe: Option<Box<dyn Probe>>) -> Self {
        Self(Arc::new(Inner {
            probe,
            doubts: AtomicU32::new(0),
            is_open: AtomicBool::new(false),
            asks: AtomicBool::new(false),
            opened: Notify::new(),
            times_opened: AtomicU64::new(0),
            rejected: AtomicU64::new(0),
        }))
    }

    pub(crate) fn used(&self) -> CircuitUse {
        CircuitUse {
            is_open: self.is_open(),
            opened: self.0.times_opened.load(Ordering::Relaxed),
            rejected: self.0.rejected.load(Ordering::Relaxed),
        }
    }

    pub(crate) fn is_open(&self) -> bool {
        self.0.is_open.load(Ordering::Acquire)
    }

    /// To be asked before each call.
    ///
    /// # Errors
    /// [`StoreError::Unavailable`] while it is open.
    pub(crate) fn enter(&self) -> StoreResult<()> {
        if self.is_open() {
            self.0.rejected.fetch_add(1, Ordering::Relaxed);
            return Err(away());
        }
        Ok(())
    }

    /// What a call answers; none when it was given up, at its deadline or because the circuit opened meanwhile.
    /// Whether it was carried out is not known then.
    pub(crate) async fn within<T: Send>(
        &self,
        limit: Duration,
        call: impl Future<Output = StoreResult<T>> + Send,
    ) -> Option<StoreResult<T>> {
        let mut call = pin!(call);
        let soon = limit.min(SLOW);
        if let Ok(answer) = timeout(soon, &mut call).await {
            return Some(self.judged(answer));
        }
        let mut opened = pin!(self.0.opened.notified());
        // From here on no opening is missed.
        opened.as_mut().enable();
        self.doubt();
        if self.is_open() {
            return None;
        }
        tokio::select! {
            biased;
            answer = timeout(limit.saturating_sub(soon), call) => answer.ok().map(|answer| self.judged(answer)),
            () = opened => None,
        }
    }

    fn judged<T>(&self, answer: StoreResult<T>) -> StoreResult<T> {
        if matches!(answer, Err(StoreError::Unavailable(_))) {
            self.doubt();
        } else if self.0.doubts.load(Ordering::Relaxed) > 0 {
            self.0.doubts.store(0, Ordering::Relaxed);
        }
        answer
    }

    fn doubt(&self) {
        if self.0.probe.is_none() {
            return;
        }
        let before = self.0.doubts.fetch_add(1, Ordering::Relaxed);
        if before.saturating_add(1) >= SEVERAL && !self.0.asks.swap(true, Ordering::AcqRel) {
            tokio::spawn(ask(Arc::downgrade(&self.0)));
        }
    }
}

/// The error for a call that is not made, or given up, while the database is away.
pub(crate) fn away() -> StoreError {
    StoreError::Unavailable("it does not answer, and is asked again every second".into())
}

/// Asks until there is an answer, or nobody has the store any more.
async fn ask(circuit: Weak<Inner>) {
    let mut pause = FIRST_PAUSE;
    while let Some(circuit) = circuit.upgrade() {
        let watch = Stopwatch::start();
        if circuit.finds_it().await || !circuit.stays_open() {
            circuit.asks.store(false, Ordering::Release);
            return;
        }
        drop(circuit);
        // Nodes that lost the database at the same moment get out of step by the odd nanoseconds of an answer.
        let odd = watch.elapsed().subsec_nanos() % 1000;
        sleep(pause * (2000 - odd) / 2000).await;
        pause = (pause * 2).min(LONGEST_PAUSE);
    }
}

impl Inner {
    /// Asks once, and closes the circuit if there is an answer.
    async fn finds_it(&self) -> bool {
        let Some(probe) = &self.probe else {
            return true;
        };
        // A panic of a driver must not leave the circuit open for good.
        let answer = AssertUnwindSafe(probe.answers()).catch_unwind().await;
        if !answer.unwrap_or(false) {
            return false;
        }
        self.doubts.store(0, Ordering::Relaxed);
        if self.is_open.load(Ordering::Acquire) {
            // What fails here fails again for whoever uses it.
            let _ = AssertUnwindSafe(probe.renew()).catch_unwind().await;
            self.is_open.store(false, Ordering::Release);
            tracing::info!("the database answers again");
        }
        true
    }

    /// After a question without an answer: opens the circuit, unless somebody was answered meanwhile.
    fn stays_open(&self) -> bool {
        if self.is_open.load(Ordering::Acquire) {
            return true;
        }
        if self.doubts.load(Ordering::Relaxed) == 0 {
            return false;
        }
        self.is_open.store(true, Ordering::Release);
        self.times_opened.fetch_add(1, Ordering::Relaxed);
        self.opened.notify_waiters();
        tracing::warn!("the database is away: calls are refused at once until it answers");
        true
    }
}
